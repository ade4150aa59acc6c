use proptest::prelude::*;

use super::spec::*;
use super::*;
use crate::domain::*;

fn spec(text: &str) -> DeviceSpec {
    toml::from_str(text).unwrap_or_else(|error| panic!("{error}"))
}

fn mapping(text: &str) -> Mapping {
    Mapping::compile(&spec(text)).unwrap_or_else(|error| panic!("{error}"))
}

fn packet<'a>(topic: &'a str, payload: &'a [u8]) -> Packet<'a> {
    Packet {
        topic,
        payload,
        packet_id: Some(1),
        retained: false,
        dup: false,
    }
}

fn read(mapping: &Mapping, packet: &Packet<'_>) -> Read {
    mapping.read(
        &"desk".parse().unwrap(),
        packet,
        Timestamp::from_unix_ms(1_769_744_400_000),
    )
}

fn message(mapping: &Mapping, packet: &Packet<'_>) -> ReceivedMessage {
    match read(mapping, packet) {
        Read::Message(message) => *message,
        Read::Ignored(reason) | Read::Unmapped(reason) => panic!("not read: {reason}"),
        Read::Status(_) => panic!("read as a status"),
    }
}

fn outgoing(to: &str, text: &str) -> Outgoing {
    Outgoing {
        id: MessageId {
            conversation: ConversationId(1),
            sequence: Sequence(2),
        },
        channel: "desk".parse().unwrap(),
        to: Address::new(to).unwrap(),
        text: text.to_owned(),
        route: Route::new(),
    }
}

const PLAIN: &str = r#"
    in = { topic = "a/{x}", from = "/from", text = "/text" }
    out = { topic = "b/{{x}}/{{to}}", payload = '{"t":{{text}}}' }
"#;

#[test]
fn numbers_are_taken_as_text() {
    let received = message(
        &mapping(PLAIN),
        &packet("a/1", br#"{"from":491700000000,"text":42.5}"#),
    );
    assert_eq!(
        (received.from.as_str(), received.text.as_str()),
        ("491700000000", "42.5")
    );
}

#[test]
fn what_cannot_be_read_says_why() {
    let mapping = mapping(PLAIN);
    for (payload, expected) in [
        (&b""[..], "`from` cannot be read: the payload is empty"),
        (
            b"\xff\x00",
            "`from` cannot be read: the payload is binary, not JSON",
        ),
        (
            b"{\"from\":",
            "`from` cannot be read: the payload is not JSON (line 1, column 8)",
        ),
        (
            br#"{"text":"x"}"#,
            "`from` cannot be read: there is no /from in the payload",
        ),
        (
            br#"{"from":null,"text":"x"}"#,
            "`from` cannot be read: there is no /from in the payload",
        ),
        (
            br#"{"from":{},"text":"x"}"#,
            "`from` cannot be read: /from is an object, not a text",
        ),
        (
            br#"{"from":" ","text":"x"}"#,
            "`from` cannot be an address: it is empty, longer than 256 bytes or holds control characters",
        ),
        (
            br#"{"from":"1","text":["x"]}"#,
            "`text` cannot be read: /text is a list, not a text",
        ),
    ] {
        match read(&mapping, &packet("a/1", payload)) {
            Read::Unmapped(reason) => assert_eq!(reason, expected),
            _ => panic!("{expected}"),
        }
    }
}

#[test]
fn the_first_block_that_takes_a_payload_decides() {
    let mapping = mapping(
        r#"
        [[in]]
        topic = "a"
        when = { at = "/kind", eq = ["sms", 7] }
        from = "/from"
        text = "/text"
        [[in]]
        topic = "a"
        when = [{ at = "/kind", ne = "own" }, { at = "/list", exists = true }]
        from = "/list/*/from"
        text = { at = "/list/0/hex", decode = "hex" }
        "#,
    );
    let text = |payload: &str| message(&mapping, &packet("a", payload.as_bytes())).text;
    assert_eq!(text(r#"{"kind":"sms","from":"1","text":"first"}"#), "first");
    assert_eq!(text(r#"{"kind":7,"from":"1","text":"seven"}"#), "seven");
    assert_eq!(text(r#"{"list":[{"hex":"4869"},{"from":"2"}]}"#), "Hi");
    match read(&mapping, &packet("a", br#"{"kind":"own"}"#)) {
        Read::Ignored(reason) => {
            assert_eq!(
                reason,
                "`when` does not hold: /kind is not \"sms\" or 7; /kind is \"own\""
            );
        }
        _ => panic!("an own message was taken"),
    }
}

#[test]
fn a_raw_payload_and_captures_make_a_message() {
    let mapping = mapping(
        r#"
        [in]
        topic = "mesh/{kind}/{key}"
        from = "{kind}:{key}"
        group = "{kind}"
        text = "raw"
        "#,
    );
    let received = message(&mapping, &packet("mesh/direct/ab12", "Grüezi".as_bytes()));
    assert_eq!(
        (received.from.as_str(), received.text.as_str()),
        ("direct:ab12", "Grüezi")
    );
    assert_eq!(received.group.unwrap().as_str(), "direct");
    assert!(matches!(
        read(&mapping, &packet("mesh/direct/ab12", b"\xf0\x00")),
        Read::Unmapped(_)
    ));
}

#[test]
fn two_equal_texts_stay_two_messages_and_a_redelivery_is_one() {
    let mapping = mapping(PLAIN);
    let key = |packet_id, dup| {
        let packet = Packet {
            topic: "a/1",
            payload: br#"{"from":"1","text":"ok"}"#,
            packet_id,
            retained: false,
            dup,
        };
        message(&mapping, &packet).dedup
    };
    let (Some(DedupKey::FirstHash(first)), Some(DedupKey::FirstHash(second))) =
        (key(Some(1), false), key(Some(2), false))
    else {
        panic!("a first delivery must never be taken for a repeat")
    };
    assert_ne!(first, second);
    assert_eq!(key(Some(1), true), Some(DedupKey::Hash(first)));
    assert_eq!(key(None, false), None, "QoS 0 is never delivered again");
}

#[test]
fn a_retained_message_is_ignored_unless_it_is_asked_for() {
    let retained = Packet {
        retained: true,
        ..packet("a/1", br#"{"from":"1","text":"ok"}"#)
    };
    assert!(matches!(read(&mapping(PLAIN), &retained), Read::Ignored(_)));
    let accepting = mapping(r#"in = { topic = "a/+", from = "/from", text = "/text", retained = "accept" }"#);
    assert!(matches!(
        message(&accepting, &retained).dedup,
        Some(DedupKey::Hash(_))
    ));
}

#[test]
fn a_customers_number_cannot_redirect_an_answer() {
    let mapping = mapping(PLAIN);
    let mut answer = outgoing("1", "x");
    answer.route.insert("x".to_owned(), "7".to_owned());
    assert_eq!(mapping.write(&answer).unwrap().topic, "b/7/1");
    for evil in ["../admin", "a/b", "#", "+", "+49 170", "1/#"] {
        answer.to = Address::new(evil).unwrap();
        let error = mapping.write(&answer).unwrap_err().to_string();
        assert!(error.contains("out.topic"), "{error}");
    }
    answer.to = Address::new("1").unwrap();
    for evil in ["", "a/b", "\0", "+"] {
        answer.route.insert("x".to_owned(), evil.to_owned());
        assert!(mapping.write(&answer).is_err(), "{evil:?}");
    }
}

#[test]
fn a_preset_is_overridden_key_by_key() {
    let spec = resolve(&spec(
        r#"
        preset = "sms2mqtt"
        vars = { prefix = "x" }
        [in]
        time = { at = "/datetime", format = "%Y-%m-%d %H:%M:%S", zone = "+01:00" }
        "#,
    ))
    .unwrap();
    assert_eq!(spec.incoming.0.len(), 1);
    assert_eq!(spec.incoming.0[0].topic.as_deref(), Some("{prefix}/received"));
    assert_eq!(
        spec.incoming.0[0].time.as_ref().unwrap().zone.as_deref(),
        Some("+01:00")
    );
    assert_eq!(spec.vars["prefix"], "x");
    assert!(spec.out.is_some());
}

#[test]
fn an_unknown_key_is_refused_also_inside_a_value() {
    for text in [
        "in = { topic = \"a\", form = \"/x\" }",
        "in = { text = { at = \"/x\", decod = \"hex\" } }",
        "[[status]]\nmatch = { idd = \"/x\" }",
    ] {
        let error = toml::from_str::<DeviceSpec>(text).unwrap_err().to_string();
        assert!(error.contains("unknown field"), "{error}");
    }
}

#[test]
fn mistakes_name_the_key_the_value_and_the_remedy() {
    let base = "in = { topic = \"a/{x}\", from = \"/f\", text = \"/t\" }\n";
    for (text, expected) in [
        (
            "",
            "`in` is missing; add [device.in] with `topic`, `from` and `text`, or a `preset`",
        ),
        (
            "in = { from = \"/f\", text = \"/t\" }",
            "`in.topic` is missing; write the topic that the device publishes on",
        ),
        (
            "in = { topic = \"a\", text = \"/t\" }",
            "`in.from` is missing; say where the sender is, e.g. from = \"/number\"",
        ),
        (
            "in = { topic = \"a\", from = \"number\", text = \"/t\" }",
            "`in.from` is \"number\": this is not a place in the payload; write a JSON pointer such as \"/number\", a \
             capture such as \"{name}\", or \"raw\"",
        ),
        (
            "in = { topic = \"a/{x}\", from = \"{y}\", text = \"/t\" }",
            "`in.from` is \"{y}\": the topic has no level named \"y\"; use one of x, or give it a value in `vars`",
        ),
        (
            "in = { topic = \"a\", from = \"/f\", text = \"/t\", when = { at = \"/x\" } }",
            "`in.when` is \"/x\": a condition needs exactly one of `eq`, `ne` and `exists`; write e.g. { at = \
             \"/type\", eq = \"received\" }",
        ),
        (
            "in = { topic = \"a\", from = \"/f\", text = \"/t\", time = { at = \"/x\", format = \"iso\" } }",
            "`in.time.format` is \"iso\": there is no such format; use \"rfc3339\", \"unix_s\", \"unix_ms\" or a \
             pattern such as \"%Y-%m-%d %H:%M:%S\"",
        ),
        (
            "out = { topic = \"b/{{y}}\", payload = \"{{text}}\" }",
            "`out.topic` is \"b/{{y}}\": it uses a name that is not there; the names are to, text, id, uuid, channel, x",
        ),
        (
            "out = { topic = \"b\", payload = '{\"t\":\"{{text}}\"}' }",
            "`out.payload` is \"{\\\"t\\\":\\\"{{text}}\\\"}\": it does not become JSON when it is filled in; write \
             {{text}} without quotes around it (it brings its own), or set `format = \"text\"`",
        ),
        (
            "out = { topic = \"b\", payload = '{{text}}', qos = 2 }",
            "`out.qos` is \"2\": the gateway sends with QoS 0 or 1; use 1",
        ),
        (
            "[[status]]\ntopic = \"s\"\nmatch = { recipient = \"/r\" }\nat = \"/s\"",
            "`status.map` is missing; say what the device's words mean, e.g. map = { ok = \"delivered\", \"*\" = \
             \"failed\" }",
        ),
        (
            "[[status]]\ntopic = \"s\"\nmeans = \"sent\"",
            "`status.match` is missing; say which message is meant, e.g. match = { recipient = \"/number\" }",
        ),
        (
            "vars = { y = \"a/#\" }",
            "`vars.y` is \"a/#\": a variable becomes part of topics; write a text without '+', '#' and braces, or \
             leave the variable out to take every value",
        ),
    ] {
        let text = if text.is_empty() || text.starts_with("in =") {
            text.to_owned()
        } else if text.starts_with('[') {
            format!("{base}{text}")
        } else {
            format!("{text}\n{base}")
        };
        assert_eq!(Mapping::compile(&spec(&text)).unwrap_err().to_string(), expected);
    }
}

#[test]
fn a_test_shows_the_message_and_the_answer() {
    let mapping = Mapping::compile(&DeviceSpec {
        preset: Some("gsm2mqtt".to_owned()),
        ..DeviceSpec::default()
    })
    .unwrap();
    let now = Timestamp::from_unix_ms(1_769_744_400_000);
    let shown = describe_test(
        "office",
        &mapping,
        "gsm2mqtt/modem/a/sms/received",
        br#"{"from":"+79001234567","text":"hi","timestamp":"2026-01-30T03:38:05Z"}"#,
        now,
    );
    assert_eq!(
        shown,
        "device    office\ntopic     gsm2mqtt/modem/a/sms/received\nmessage   incoming\nfrom      +79001234567\n\
         text      hi\ntime      2026-01-30T03:38:05.000Z\nmodem     a\nrepeat    recognised by its content\n\
         answer    \"Hello\" would go to gsm2mqtt/modem/a/sms/send with QoS 1:\n          \
         {\"to\":\"+79001234567\",\"text\":\"Hello\",\"delivery_report\":true}\n"
    );
    let camera = Mapping::compile(&spec(
        r#"in = { topic = "cam/{at}", from = "{at}", attachments = { each = "/f", at = "/d", name = "/n" } }"#,
    ))
    .unwrap();
    let payload = br#"{"f":[{"n":"gate.png","d":"iVBORw0KGgo="},{"n":"x.png","d":"?"}]}"#;
    let shown = describe_test("camera", &camera, "cam/gate", payload, now);
    assert!(
        shown.contains(
            "text      [a file \"x.png\" was left out: it is not base64]\nfile      gate.png, image/png, 8 bytes\n"
        ),
        "{shown}"
    );
    let shown = describe_test("office", &mapping, "gsm2mqtt/modem/a/status", b"{}", now);
    assert!(
        shown.contains("ignored   no `topic` of the mapping fits\ntopics    gsm2mqtt/modem/+/sms/"),
        "{shown}"
    );
}

fn every_mapping() -> Vec<Mapping> {
    let mut all: Vec<Mapping> = presets::ALL
        .iter()
        .map(|(name, _)| {
            Mapping::compile(&DeviceSpec {
                preset: Some((*name).to_owned()),
                ..DeviceSpec::default()
            })
            .unwrap()
        })
        .collect();
    all.push(mapping(PLAIN));
    all.push(mapping(
        r##"
        [in]
        topic = "#"
        from = "/a/*/b"
        text = { at = "raw", decode = "base64" }
        id = ["/a/0", "hash"]
        time = { at = "/t", format = "unix_s" }
        "##,
    ));
    all
}

proptest! {
    #[test]
    fn no_packet_makes_a_mapping_panic(
        topic in prop_oneof![
            "[a-z0-9/$+#]{0,30}", ".{0,20}", Just("sms2mqtt/received".to_owned()), Just("sms2mqtt/sent".to_owned()),
            Just("a/1".to_owned()), Just("application/1/device/2/event/up".to_owned()),
        ],
        payload in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..200),
            r#"\{"(number|text|from|data|t|a)":("[a-zA-Z0-9+/=]{0,12}"|[0-9.eE-]{1,20}|null|\[1,\{"b":2\}\])(,"text":"x")?\}"#.prop_map(String::into_bytes),
        ],
        packet_id: Option<u16>, retained: bool, dup: bool,
    ) {
        for mapping in every_mapping() {
            let packet = Packet { topic: &topic, payload: &payload, packet_id, retained, dup };
            if let Read::Message(message) = read(&mapping, &packet) {
                prop_assert!(mapping.takes(&topic));
                prop_assert!(!message.from.as_str().is_empty());
            }
            let _shown = describe_test("d", &mapping, &topic, &payload, Timestamp::default());
        }
    }

    #[test]
    fn an_answer_is_always_valid_json_on_a_topic_below_the_configured_one(to in ".{1,30}", text in ".{0,60}", x in ".{0,10}") {
        let mapping = mapping(PLAIN);
        let Some(to) = Address::new(&to) else { return Ok(()) };
        let mut answer = outgoing("1", &text);
        answer.to = to;
        answer.route.insert("x".to_owned(), x);
        if let Ok(publish) = mapping.write(&answer) {
            prop_assert_eq!(publish.topic.split('/').count(), 3);
            prop_assert!(publish.topic.starts_with("b/") && !publish.topic.contains(['+', '#', '\0']));
            let payload: serde_json::Value = serde_json::from_slice(&publish.payload).unwrap();
            prop_assert_eq!(payload, serde_json::json!({ "t": text }));
        }
    }

    #[test]
    fn a_message_id_survives_its_uuid_form(conversation: u64, sequence: u64) {
        let id = MessageId { conversation: ConversationId(conversation), sequence: Sequence(sequence) };
        prop_assert_eq!(super::write::parse_reference(&super::write::uuid(id)), Some(id));
        prop_assert_eq!(super::write::parse_reference(&super::write::uuid(id).to_uppercase()), Some(id));
        prop_assert_eq!(super::write::parse_reference(&id.to_string()), Some(id));
    }
}

#[test]
fn every_preset_is_readable() {
    assert!(presets::ALL.len() >= 3);
    assert!(!every_mapping().is_empty());
}

#[test]
fn a_wrong_preset_name_gets_the_closest_one_as_a_remedy() {
    let error = presets::get("sms2mqt").unwrap_err();
    assert_eq!(
        error.to_string(),
        "`preset` is \"sms2mqt\": there is no such preset; did you mean \"sms2mqtt\"?"
    );
}
