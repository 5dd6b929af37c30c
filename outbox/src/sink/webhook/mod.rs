//! A sink that POSTs each message to an HTTP endpoint, signed, as a CloudEvent.

mod address;
mod answer;
mod endpoint;
mod secret;

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use reqwest::{
    Client, Url,
    header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
    redirect::Policy,
};
use tokio::sync::Semaphore;

pub use self::secret::WebhookSecret;
use self::{
    address::PublicOnly,
    answer::{Verdict, verdict},
    endpoint::Endpoint,
};
use super::{
    LaneRef, Outcome, Outcomes, Sink, SinkDown,
    cloudevents::{Binding, ContentMode, Wire},
    publish_each,
};
use crate::message::Message;

/// Delivers to one HTTP endpoint.
///
/// # What is sent
/// One POST a message, as the [HTTP binding](super::cloudevents) of CloudEvents 1.0 says, by default in structured mode: the
/// whole event is the body. With it the signature headers of Standard Webhooks: `webhook-id` (the event's id, the same on
/// every attempt), `webhook-timestamp`, `webhook-signature`.
///
/// # What is signed
/// The id, the timestamp and the body, as that standard has it, and so no other header. In structured mode that is the event,
/// but for its headers that are no attributes (`traceparent`, `x-…`). In [binary mode](WebhookBuilder::content_mode) it is the
/// payload and the id alone: whoever holds one signed request, a proxy or a log of requests for instance, can send it again
/// with another type, source, subject, time, key or extension, for as long as the receiver's tolerance for the timestamp lasts.
///
/// The content type says which mode a request is in, and is not signed either. A receiver takes one mode and refuses the
/// other, or a document of structured mode could be shown to it as the payload of an event with other headers.
///
/// # What the answer means
/// | answer | outcome |
/// |---|---|
/// | 2xx | acked |
/// | 400, 413, 414, 415, 422, 431: this message will never do | rejected |
/// | 410: the endpoint is no more | the sink is [disabled](Self::is_disabled) |
/// | 502, 503, 504 and 520 to 524; connection lost or timeout after the request went out: it may have arrived | retry, or [the sink is down](#outages) |
/// | every other status: not now | retry |
/// | 1xx, 3xx | retry as well: redirects are not followed, they could point anywhere |
/// | no connection (resolver, refused, connect timeout, TLS) | the sink is down, no attempt is spent |
/// | an address that is not public | rejected, without a connection |
///
/// `Retry-After`, seconds or a date, is honoured on 429 and on what may be an outage, up to an hour.
///
/// An ack means that the endpoint answered 2xx, which is as durable as the endpoint makes it.
///
/// # Outages
/// A load balancer whose endpoint is away answers 502, 503 or 504, or nothing in time; so it does when a single message crashes
/// the endpoint's handler. The sink tells them apart [by the company](super#whose-failure): the third different message in a
/// row that got nothing else is an outage, the two before it are charged an attempt. A message that fails alone does not come to
/// that while others succeed; if it is all that there is, it is charged and dies. While the outage lasts no more is sent than the
/// relay's probes, and none before a `Retry-After` that came with the last answer is over.
#[derive(Clone)]
pub struct WebhookSink {
    client: Client,
    url: Url,
    mode: ContentMode,
    secrets: Arc<[WebhookSecret]>,
    response_bytes_max: usize,
    max_in_flight: usize,
    places: Arc<Semaphore>,
    endpoint: Arc<Endpoint>,
}

/// Puts a [`WebhookSink`] together.
#[derive(Debug)]
#[must_use]
pub struct WebhookBuilder {
    url: String,
    mode: ContentMode,
    secrets: Vec<WebhookSecret>,
    timeout: Duration,
    connect_timeout: Duration,
    max_in_flight: usize,
    response_bytes_max: usize,
    allow_private: bool,
}

/// Why a webhook sink could not be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidWebhook {
    /// Not an absolute http or https URL with a host and without credentials.
    #[error("the webhook's URL is not an absolute http(s) URL without credentials")]
    Url,
    /// The URL names an address that is not public, and private ones were not allowed.
    #[error("the webhook's URL names an address that is not public")]
    PrivateAddress,
    /// The URL names a port below 1024 that is neither 80 nor 443, and private endpoints were not allowed.
    #[error("the webhook's URL names a port of another service")]
    Port,
    /// No secret was given: receivers could not tell the messages from anybody's.
    #[error("the webhook has no secret to sign with")]
    NoSecret,
    /// The secret is not `whsec_` and the base64 of 24 to 64 bytes.
    #[error("a webhook secret is not whsec_ followed by the base64 of 24 to 64 bytes")]
    Secret,
    /// An https URL, without the feature `https`.
    #[error("the webhook's URL is https, which takes the feature `https`")]
    NoTls,
    /// The HTTP client could not be set up, for instance because TLS finds no certificates to trust on this system.
    #[error("the webhook's HTTP client could not be set up")]
    Client(#[source] reqwest::Error),
}

impl WebhookSink {
    /// A sink to this URL.
    pub fn builder(url: impl Into<String>) -> WebhookBuilder {
        WebhookBuilder {
            url: url.into(),
            mode: ContentMode::Structured,
            secrets: Vec::new(),
            timeout: Duration::from_secs(15),
            connect_timeout: Duration::from_secs(5),
            max_in_flight: 32,
            response_bytes_max: 16 * 1024,
            allow_private: false,
        }
    }

    /// Whether the endpoint has answered 410 Gone, and nothing is sent to it any more.
    ///
    /// Then the sink is down, with that as its reason, whatever is published: no attempt is spent, the one that was answered so
    /// included, and messages wait until the endpoint is [enabled](Self::enable), or the relay has another sink in its place.
    /// All clones of a sink are disabled together. It is not remembered beyond the process: the next one asks once more.
    ///
    /// The relay tells of it as of any sink that is down: the reason in its log, the topics by `RelayHandle::sinks_down`.
    ///
    /// Standard Webhooks wants it so: whoever answers 410 asks for no more. An endpoint that means one message answers 422.
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        self.endpoint.is_gone()
    }

    /// Sends again to an endpoint that has answered 410. The relay's next probe, at the latest, is sent.
    pub fn enable(&self) {
        self.endpoint.enable();
    }

    async fn post(&self, lane: &LaneRef, message: &Message) -> Result<Outcome, SinkDown> {
        // Never closed, so the permit is always granted; without one the bound is merely not kept.
        let _place = self.places.acquire().await.ok();
        if !lane.is_held() {
            return Ok(Outcome::NotTried); // waiting for the place took too long
        }
        self.endpoint.check()?;
        let wire = Wire::new(message, Binding::Http, self.mode);
        let headers = self.headers(message, &wire, now_unix());
        let request = self
            .client
            .post(self.url.clone())
            .headers(headers)
            .body(wire.body().clone());
        let unclear = |reason: &str| Verdict::Unclear {
            after: None,
            reason: reason.into(),
        };
        let verdict = match request.send().await {
            Ok(response) => {
                let verdict = verdict(response.status(), response.headers());
                self.drain(response).await;
                verdict
            }
            Err(error) if address::refused(&error) => {
                return Ok(Outcome::reject(
                    "the endpoint's name resolves to an address that is not public",
                ));
            }
            Err(error) if error.is_connect() => {
                return Err(SinkDown::new("no connection to the endpoint"));
            }
            Err(error) if error.is_builder() => {
                return Ok(Outcome::reject("the request could not be built"));
            }
            Err(error) if error.is_timeout() => unclear("the endpoint did not answer in time"),
            Err(_) => unclear("the connection was lost before the answer"),
        };
        self.endpoint.judge(message.id(), verdict)
    }

    /// Reads the answer's body up to the cap, so that the connection can be used again; nothing is made of it.
    async fn drain(&self, mut response: reqwest::Response) {
        let mut left = self.response_bytes_max;
        while let Ok(Some(chunk)) = response.chunk().await {
            match left.checked_sub(chunk.len()) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    }

    fn headers(&self, message: &Message, wire: &Wire, timestamp: u64) -> HeaderMap {
        let id = message.id().to_string();
        let signature: Vec<String> = self
            .secrets
            .iter()
            .map(|secret| secret.sign(&id, timestamp, wire.body()))
            .collect();
        let mut headers = HeaderMap::new();
        let mut put = |name: &str, value: &str| {
            // Names were checked at enqueue; what still does not fit is left out rather than fatal.
            if let (Ok(name), Ok(value)) =
                (HeaderName::try_from(name), HeaderValue::try_from(value))
            {
                headers.insert(name, value);
            }
        };
        for (name, value) in wire.headers() {
            put(name, value);
        }
        put("webhook-id", &id);
        put("webhook-timestamp", &timestamp.to_string());
        put("webhook-signature", &signature.join(" "));
        let content_type = wire.content_type().unwrap_or("application/octet-stream");
        put(CONTENT_TYPE.as_str(), content_type);
        headers
    }
}

impl Sink for WebhookSink {
    async fn publish(&self, lane: LaneRef, batch: &[Message]) -> Result<Outcomes, SinkDown> {
        publish_each(&lane, batch, self.max_in_flight, |message| {
            self.post(&lane, message)
        })
        .await
    }
}

/// The path and query stay out: endpoints often carry a token there.
impl fmt::Debug for WebhookSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebhookSink")
            .field("host", &self.url.host_str())
            .finish_non_exhaustive()
    }
}

impl WebhookBuilder {
    /// Signs with this secret, `whsec_…`. Called again, both signatures are sent, so that secrets can be rotated.
    pub fn secret(mut self, secret: WebhookSecret) -> Self {
        self.secrets.push(secret);
        self
    }

    /// One JSON document a message (structured mode, the default), or binary mode: the payload as the body, attributes as
    /// `ce-*` headers.
    ///
    /// In binary mode no attribute is [signed](WebhookSink#what-is-signed) but the id, as `webhook-id`. It is for receivers that
    /// take everything they go by from the payload.
    pub fn content_mode(mut self, mode: ContentMode) -> Self {
        self.mode = mode;
        self
    }

    /// How long one POST may take, from connecting to the last byte of the answer. Default 15 s.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// How long connecting may take before the sink counts as down. Default 5 s.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// The most POSTs at once, over all lanes; those of one key are never at once. Default 32.
    pub fn max_in_flight(mut self, posts: usize) -> Self {
        self.max_in_flight = posts.max(1);
        self
    }

    /// Bytes of an answer's body that are read, to keep the connection, before it is closed. Default 16 KiB.
    pub fn response_bytes_max(mut self, bytes: usize) -> Self {
        self.response_bytes_max = bytes;
        self
    }

    /// Allows loopback, private, link-local and other addresses that are not public, and any port. Default: refused,
    /// and of the ports below 1024 only 80 and 443 are allowed, so that no mail server or shell is written to.
    ///
    /// Only for endpoints you chose yourself: whoever may choose the URL could otherwise reach into your network.
    pub fn allow_private(mut self, allow: bool) -> Self {
        self.allow_private = allow;
        self
    }

    /// Checks the URL and sets up the client.
    ///
    /// # Errors
    /// [`InvalidWebhook`], which lists them.
    pub fn build(self) -> Result<WebhookSink, InvalidWebhook> {
        let url = Url::parse(&self.url).map_err(|_| InvalidWebhook::Url)?;
        let scheme = matches!(url.scheme(), "http" | "https");
        if !scheme || !url.username().is_empty() || url.password().is_some() {
            return Err(InvalidWebhook::Url);
        }
        if url.scheme() == "https" && !cfg!(feature = "https") {
            return Err(InvalidWebhook::NoTls);
        }
        let host = url.host_str().ok_or(InvalidWebhook::Url)?;
        // A literal address never meets the resolver: it is checked here, as the URL parser has normalised it.
        let literal: Option<IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        if !self.allow_private && literal.is_some_and(|ip| !address::is_public(ip)) {
            return Err(InvalidWebhook::PrivateAddress);
        }
        let port = url.port_or_known_default();
        if !self.allow_private && port.is_none_or(|port| port < 1024 && port != 80 && port != 443) {
            return Err(InvalidWebhook::Port);
        }
        if self.secrets.is_empty() {
            return Err(InvalidWebhook::NoSecret);
        }
        // No proxy: it would connect where it likes, past the address check.
        let mut client = Client::builder()
            .redirect(Policy::none())
            .no_proxy()
            .timeout(self.timeout)
            .connect_timeout(self.connect_timeout)
            .user_agent(concat!("mainstay-outbox/", env!("CARGO_PKG_VERSION")));
        if !self.allow_private {
            client = client.dns_resolver(Arc::new(PublicOnly));
        }
        Ok(WebhookSink {
            client: client.build().map_err(InvalidWebhook::Client)?,
            url,
            mode: self.mode,
            secrets: self.secrets.into(),
            response_bytes_max: self.response_bytes_max,
            max_in_flight: self.max_in_flight,
            places: Arc::new(Semaphore::new(self.max_in_flight)),
            endpoint: Arc::default(),
        })
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the signature states when this attempt was made, by the wall clock that receivers compare with"
)]
fn now_unix() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3";

    fn build(url: &str) -> Result<WebhookSink, InvalidWebhook> {
        WebhookSink::builder(url)
            .secret(SECRET.parse().unwrap())
            .build()
    }

    #[test]
    fn urls_that_name_an_address_that_is_not_public_are_refused() {
        for host in [
            "127.0.0.1",
            "0.0.0.0",
            "0x7f000001",
            "2130706433",
            "0177.0.0.1",
            "127.1",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[::127.0.0.1]",
            "[64:ff9b::7f00:1]",
            "[2002:7f00:1::]",
            "[fd00:ec2::254]",
            "169.254.169.254",
            "169.254.170.2",
            "100.100.100.200",
            "100.64.0.1",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.0.1",
            "198.18.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "１２７.0.0.1",
        ] {
            assert!(
                matches!(
                    build(&format!("http://{host}/")),
                    Err(InvalidWebhook::PrivateAddress)
                ),
                "{host} was not refused"
            );
        }
        assert!(build("http://93.184.216.34/hook").is_ok());
    }

    #[test]
    fn urls_that_are_no_endpoints_are_refused() {
        for url in [
            "",
            "file:///etc/passwd",
            "gopher://a",
            "http://good@127.0.0.1",
            "//a",
            "http://[fe80::1%25eth0]/",
        ] {
            assert!(build(url).is_err(), "{url} was not refused");
        }
    }

    #[test]
    fn https_is_an_endpoint_where_there_is_tls() {
        let built = build("https://93.184.216.34/hook");
        if cfg!(feature = "https") {
            assert!(built.is_ok());
        } else {
            assert!(matches!(built, Err(InvalidWebhook::NoTls)));
        }
    }

    #[test]
    fn ports_of_other_services_are_refused() {
        for port in [1, 22, 25, 587, 993] {
            let url = format!("http://93.184.216.34:{port}/");
            assert!(matches!(build(&url), Err(InvalidWebhook::Port)), "{port}");
        }
        for port in [80, 443, 8080, 65535] {
            assert!(build(&format!("http://93.184.216.34:{port}/")).is_ok());
        }
        let inside = WebhookSink::builder("http://127.0.0.1:81/")
            .secret(SECRET.parse().unwrap())
            .allow_private(true);
        assert!(inside.build().is_ok());
    }

    #[test]
    fn debug_shows_no_secret_and_no_path() {
        let sink = WebhookSink::builder("http://93.184.216.34/token-in-path")
            .secret(SECRET.parse().unwrap());
        assert!(!format!("{sink:?}").contains("MDEy"));
        let sink = sink.build().unwrap();
        assert!(!format!("{sink:?}").contains("token-in-path"));
    }
}
