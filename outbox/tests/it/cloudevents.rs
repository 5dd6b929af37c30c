//! What events look like on the wire, byte for byte, and that any of them is read back as it was.

use std::{
    fmt::Write,
    time::{Duration, UNIX_EPOCH},
};

use mainstay_outbox::{
    Event, Message,
    sink::cloudevents::{Binding, ContentMode, Received, Unreadable, Wire},
};
use proptest::prelude::*;
use uuid::Uuid;

const BINDINGS: [Binding; 4] = [Binding::Http, Binding::Nats, Binding::Amqp, Binding::Kafka];

fn order_placed() -> Message {
    let event = Event::new("order.placed")
        .id(Uuid::from_u128(0x0190_0a1b_2c3d_7e4f_8a9b_0c1d_2e3f_4a5b))
        .topic("orders")
        .key("order 17 €")
        .subject("order-17")
        .time(UNIX_EPOCH + Duration::from_micros(1_709_210_096_123_456))
        .header(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        )
        .header("tenant", "ä % b")
        .header("tenant_id", "7")
        .header("x-request-id", "r-1")
        .bytes("application/json", r#"{"amount": 1250}"#);
    Message::from_event(event, "/shop", UNIX_EPOCH)
}

/// As text that a person can read.
fn written(message: &Message, binding: Binding, mode: ContentMode) -> String {
    let wire = Wire::new(message, binding, mode);
    let mut text = format!("{binding:?}, {mode:?}\n");
    writeln!(text, "content type: {:?}", wire.content_type()).unwrap();
    for (name, value) in wire.headers() {
        writeln!(text, "{name}: {value}").unwrap();
    }
    writeln!(text, "\n{}\n", String::from_utf8_lossy(wire.body())).unwrap();
    text
}

/// Consumers that are not ours read these bytes: a change here is a change to them.
#[test]
fn the_bytes_are_those_of_the_golden_file() {
    let mut text = String::new();
    for binding in BINDINGS {
        text += &written(&order_placed(), binding, ContentMode::Binary);
    }
    text += &written(&order_placed(), Binding::Http, ContentMode::Structured);
    let event = Event::new("blob")
        .id(Uuid::nil())
        .key([0, 255])
        .bytes("image/png", vec![137, 80, 78, 71]);
    let blob = Message::from_event(event, "/shop", UNIX_EPOCH);
    text += &written(&blob, Binding::Amqp, ContentMode::Structured);
    let empty = Message::from_event(Event::new("e").id(Uuid::nil()), "/shop", UNIX_EPOCH);
    text += &written(&empty, Binding::Nats, ContentMode::Structured);
    let golden = include_str!("golden/cloudevents.txt");
    assert!(text == golden, "it is now:\n{text}");
}

fn read(wire: &Wire, binding: Binding) -> Result<Received, Unreadable> {
    Received::read(
        binding,
        wire.content_type(),
        wire.headers(),
        wire.body().clone(),
        "orders",
    )
}

#[track_caller]
fn assert_same(read: &Received, sent: &Message) {
    assert_eq!(read.event_id(), Some(sent.id()));
    assert_eq!(read.source(), sent.source());
    assert_eq!(read.event_type(), sent.event_type());
    assert_eq!(read.subject(), sent.subject());
    assert_eq!(read.time(), Some(sent.time()));
    assert_eq!(read.content_type(), sent.content_type());
    assert_eq!(read.key(), sent.key());
    assert_eq!(read.payload(), sent.payload());
    for (name, value) in sent.headers() {
        assert_eq!(read.header(name), Some(value), "{name}");
    }
    assert_eq!(read.headers().count(), sent.headers().count());
}

proptest! {
    /// Payloads, keys, attributes and extensions of any text survive every binding in both modes.
    #[test]
    fn what_is_written_is_read_back(
        (source, event_type) in ("[^\\p{C}]{1,20}", "[^\\p{C}]{1,20}"),
        subject in prop::option::of("[^\\p{C}]{1,20}"),
        key in prop::option::of(prop_oneof![
            prop::collection::vec(any::<u8>(), 1..20),
            "[^\\p{C}]{1,20}".prop_map(String::into_bytes),
        ]),
        micros in -62_135_596_800_000_000_i64..253_402_300_800_000_000,
        data in prop::option::of((
            prop_oneof![
                Just("application/json"), Just("application/vnd.a+JSON; charset=utf-8"), Just("text/plain"), Just("a/b")
            ],
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..40),
                "[ ]?(null|\"a\\\\n\"|\\{\"a\": [0-9]{1,9}\\}|\\[\\])".prop_map(String::into_bytes),
            ],
        )),
        extensions in prop::collection::btree_map("[a-z0-9]{1,20}", "[^\\p{C}]{0,20}", 0..4),
        plain in prop::collection::btree_map("(x-|a_|traceparent)[a-z0-9]{0,5}", "[!-~]{1,20}", 0..4),
    ) {
        let mut event = Event::new(event_type);
        if let Some(subject) = subject { event = event.subject(subject); }
        if let Some(key) = key { event = event.key(key); }
        if let Some((content_type, data)) = data { event = event.bytes(content_type, data); }
        for (name, value) in extensions.into_iter().chain(plain) {
            event = event.header(name, value);
        }
        let span = Duration::from_micros(micros.unsigned_abs());
        let time = if micros < 0 { UNIX_EPOCH - span } else { UNIX_EPOCH + span };
        let sent = Message::from_event(event, source, time);
        for binding in BINDINGS {
            for mode in [ContentMode::Binary, ContentMode::Structured] {
                let wire = Wire::new(&sent, binding, mode);
                assert_same(&read(&wire, binding).unwrap(), &sent);
            }
        }
    }

    /// A stranger's bytes are an event or an error, never a panic.
    #[test]
    fn whatever_comes_is_an_event_or_an_error(
        content_type in prop::option::of(prop_oneof![
            Just("application/cloudevents+json".to_owned()), ".{0,40}",
        ]),
        headers in prop::collection::vec(("(ce-|CE_|cloudEvents:|)(id|type|time|data|.{0,5})", ".{0,20}"), 0..8),
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60),
            "\\{(\"(id|source|type|specversion|data|data_base64|time)\":(\"1.0\"|null|1|\\{\\}),?){0,8}\\}"
                .prop_map(String::into_bytes),
        ],
    ) {
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let _ = Received::read(Binding::Nats, content_type.as_deref(), headers, body.into(), "t");
    }
}

#[test]
fn other_writers_ways_are_understood() {
    let document = br#"{"specversion":"1.0","id":"A234","source":"/c","type":"t","subject":null,
        "time":"2018-04-05T19:31:00+02:00","ext1":"value","ext2":5,"flag":true,"data":"text"}"#;
    let read = Received::read(
        Binding::Amqp,
        Some("application/cloudevents+json; charset=utf-8"),
        [("cloudEvents_id", "not this one"), ("X-Trace", "1")],
        document.to_vec().into(),
        "q",
    )
    .unwrap();
    assert_eq!((read.id(), read.event_id()), ("A234", None));
    assert_eq!(read.subject(), None);
    assert_eq!(
        &read.payload()[..],
        br#""text""#,
        "JSON when no type is said"
    );
    let header = |name| read.header(name);
    assert_eq!(header("ext2"), Some("5"));
    assert_eq!(header("flag"), Some("true"));
    assert_eq!(header("x-trace"), Some("1"));

    let headers = [
        ("CE-Id", "\"quoted%20id\""),
        ("Ce-Source", "/s"),
        ("ce-type", "t"),
        ("ce-specversion", "1.0"),
    ];
    let read = Received::read(Binding::Http, None, headers, "x".into(), "t").unwrap();
    assert_eq!(read.id(), "quoted id");

    let document = br#"{"specversion":"1.0","id":"1","source":"/c","type":"t","datacontenttype":"application/xml","data":"<a/>"}"#;
    let content_type = Some("application/cloudevents+json");
    let read = Received::read(
        Binding::Http,
        content_type,
        [],
        document.to_vec().into(),
        "t",
    );
    assert_eq!(&read.unwrap().payload()[..], b"<a/>");
}

#[test]
fn what_is_no_event_is_refused_by_what_it_lacks() {
    let all = [
        ("ce_id", "1"),
        ("ce_source", "/"),
        ("ce_type", "t"),
        ("ce_specversion", "1.0"),
    ];
    for (without, missing) in [(0, "id"), (1, "source"), (2, "type"), (3, "specversion")] {
        let mut headers = all.to_vec();
        headers.remove(without);
        let read = Received::read(Binding::Kafka, None, headers, "".into(), "t");
        assert_eq!(read, Err(Unreadable::Missing(missing)));
    }
    for (name, value, error) in [
        ("ce_specversion", "0.3", Unreadable::Version),
        ("ce_time", "yesterday", Unreadable::Malformed("time")),
        (
            "ce_partitionkeybase64",
            "&",
            Unreadable::Malformed("partitionkeybase64"),
        ),
    ] {
        let headers = std::iter::once((name, value)).chain(all);
        let read = Received::read(Binding::Kafka, None, headers, "".into(), "t");
        assert_eq!(read, Err(error));
    }
    for (content_type, body) in [
        ("application/cloudevents+json", "no json"),
        ("application/cloudevents+json", r#"{"specversion":{}}"#),
        (
            "application/cloudevents+json",
            r#"{"specversion":"1.0","data":1,"data_base64":""}"#,
        ),
        ("application/cloudevents+avro", "{}"),
        ("application/cloudevents-batch+json", "[]"),
    ] {
        let read = Received::read(Binding::Http, Some(content_type), [], body.into(), "t");
        assert_eq!(read, Err(Unreadable::Json), "{body}");
    }
}
