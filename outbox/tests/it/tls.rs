//! Brokers behind TLS whose certificates come from an authority of one's own, made for each test.

use std::{fs, path::Path};

#[cfg(feature = "rabbitmq-tls")]
use mainstay_outbox::sink::{RabbitMqSink, RabbitMqTls};
use mainstay_outbox::{Event, LaneRef, Message, Outcome, Sink, SinkDown};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};

#[cfg(feature = "rabbitmq-tls")]
use crate::faults::programs::free_port;
use crate::faults::{programs::Program, servers::Server};

#[cfg(feature = "rabbitmq-tls")]
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate, in PEM.
    pem: String,
}

struct Certified {
    pem: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(DnType::CommonName, "mainstay tests");
        let pem = params.self_signed(&key).unwrap().pem();
        let issuer = Issuer::new(params, key);
        Self { issuer, pem }
    }

    fn certify(&self, name: &str, of: ExtendedKeyUsagePurpose) -> Certified {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![of];
        let pem = params.signed_by(&key, &self.issuer).unwrap().pem();
        let key = key.serialize_pem();
        Certified { pem, key }
    }

    /// Puts down what a server at 127.0.0.1 needs, and gives back the names of the files: authority, certificate, key.
    fn furnish(&self, folder: &Path) -> [String; 3] {
        let server = self.certify("127.0.0.1", ExtendedKeyUsagePurpose::ServerAuth);
        [
            ("authority.pem", &self.pem),
            ("server.pem", &server.pem),
            ("server.key", &server.key),
        ]
        .map(|(name, pem)| {
            let path = folder.join(name);
            fs::write(&path, pem).unwrap();
            path.display().to_string()
        })
    }
}

async fn publish(sink: &impl Sink) -> Result<Vec<Outcome>, SinkDown> {
    let event = Event::new("t").topic("t").subject("over TLS");
    let message = Message::from_event(event, "/tests", std::time::UNIX_EPOCH);
    let published = sink.publish(LaneRef::detached(), &[message]).await;
    Ok(published?.into_iter().collect())
}

/// The client is the caller's. Of two cryptographic libraries, which our own features come to, one has to be chosen, as the
/// documentation says.
#[cfg(feature = "nats")]
#[tokio::test]
#[ignore = "needs the programs of a server; tests/run sees to them"]
async fn nats_is_published_to_over_tls() {
    let authority = Authority::new();
    let server = Server::furnished(Program::Nats, |folder| {
        let [_, certificate, key] = authority.furnish(folder);
        vec![
            "--tls".to_owned(),
            format!("--tlscert={certificate}"),
            format!("--tlskey={key}"),
        ]
    });
    let Some(server) = server.await else {
        return;
    };
    let _ = async_nats::rustls::crypto::ring::default_provider().install_default(); // or another test did
    let url = server.url().replace("nats://", "tls://");
    let client = async_nats::ConnectOptions::new()
        .add_root_certificates(server.folder().join("authority.pem"))
        .connect(&url)
        .await
        .unwrap();
    assert!(
        async_nats::connect(&url).await.is_err(),
        "the system does not know the authority"
    );
    let context = async_nats::jetstream::new(client);
    let stream = async_nats::jetstream::stream::Config {
        name: "t".to_owned(),
        ..Default::default()
    };
    context.create_stream(stream).await.unwrap();
    let sink = mainstay_outbox::sink::NatsSink::new(context);
    assert_eq!(publish(&sink).await.unwrap(), [Outcome::Acked]);
}

/// What RabbitMQ's connections over TLS show it: the subjects of their certificates, and whose connections they are.
#[cfg(feature = "rabbitmq-tls")]
async fn shown(server: &Server) -> String {
    let columns = ["list_connections", "--quiet", "ssl", "peer_cert_subject"];
    server.control(&columns).await
}

#[cfg(feature = "rabbitmq-tls")]
#[tokio::test]
#[ignore = "needs the programs of a server; tests/run sees to them"]
async fn rabbitmq_is_published_to_and_consumed_from_over_tls() {
    use lapin::{options::QueueDeclareOptions, types::FieldTable};
    use mainstay_outbox::consume::{
        ConsumerConfig, DeadLetters, Handled, RabbitMqConsumer, Received,
    };
    use tokio_util::sync::CancellationToken;

    let (authority, stranger) = (Authority::new(), Authority::new());
    let port = free_port();
    let server = Server::furnished(Program::RabbitMq, |folder| {
        let [authority, certificate, key] = authority.furnish(folder);
        let config = format!(
            "listeners.ssl.1 = 127.0.0.1:{port}
             ssl_options.cacertfile = {authority}
             ssl_options.certfile = {certificate}
             ssl_options.keyfile = {key}
             ssl_options.verify = verify_peer
             ssl_options.fail_if_no_peer_cert = false
            "
        );
        fs::write(folder.join("rabbitmq.conf"), config.replace("  ", "")).unwrap();
        Vec::new()
    });
    let Some(server) = server.await else {
        return;
    };
    let options = lapin::ConnectionProperties::default();
    let plain = lapin::Connection::connect(&server.url(), options)
        .await
        .unwrap();
    let channel = plain.create_channel().await.unwrap();
    let queue = QueueDeclareOptions::default();
    let declared = channel.queue_declare("t".into(), queue, FieldTable::default());
    declared.await.unwrap();

    let uri = |host: &str| format!("amqps://guest:guest@{host}:{port}");
    let sink = |host: &str, tls| RabbitMqSink::new(uri(host), "").tls(tls);
    let knowing = |authority: &Authority| RabbitMqTls::default().root_certificates(&authority.pem);
    // The list that is compiled in; somebody else's authority; the right one, for another name.
    for (host, tls) in [
        ("127.0.0.1", RabbitMqTls::default()),
        ("127.0.0.1", knowing(&stranger)),
        ("localhost", knowing(&authority)),
    ] {
        let down = publish(&sink(host, tls)).await.unwrap_err();
        assert!(down.to_string().contains("certificate"), "{down}");
    }
    let anonymous = sink("127.0.0.1", knowing(&authority));
    assert_eq!(publish(&anonymous).await.unwrap(), [Outcome::Acked]);
    assert!(!shown(&server).await.contains("CN=billing"));

    let billing = authority.certify("billing", ExtendedKeyUsagePurpose::ClientAuth);
    let tls = RabbitMqTls::default()
        .root_certificates(&stranger.pem)
        .root_certificates(&authority.pem)
        .client_certificate(billing.pem, billing.key);
    let known = sink("127.0.0.1", tls.clone());
    assert_eq!(publish(&known).await.unwrap(), [Outcome::Acked]);
    let connections = shown(&server).await;
    assert!(connections.contains("true\tCN=billing"), "{connections}");

    let dead = DeadLetters::Policy;
    let config = ConsumerConfig::default();
    let consumer = RabbitMqConsumer::new(uri("127.0.0.1"), "t", dead, config).tls(tls);
    let shutdown = CancellationToken::new();
    let (sender, mut handled) = tokio::sync::mpsc::channel(2);
    let handler = move |event: Received| {
        sender.try_send(event.subject().map(str::to_owned)).unwrap();
        std::future::ready(Handled::Done)
    };
    let consuming = tokio::spawn(consumer.run(handler, shutdown.clone()));
    for _ in 0..2 {
        let subject = tokio::time::timeout(PATIENCE, handled.recv()).await;
        assert_eq!(subject.unwrap().unwrap().as_deref(), Some("over TLS"));
    }
    shutdown.cancel();
    assert_eq!(consuming.await.unwrap().done, 2);
}
