//! Each preset with the payloads that the device itself sends and takes.

use super::*;
use crate::domain::*;

const NOW: &str = "2026-01-30T03:40:00Z";

fn now() -> Timestamp {
    Timestamp::from_unix_ms(NOW.parse::<jiff::Timestamp>().unwrap().as_millisecond())
}

fn preset(name: &str, vars: &[(&str, &str)]) -> Mapping {
    let spec = DeviceSpec {
        preset: Some(name.to_owned()),
        vars: vars
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        ..DeviceSpec::default()
    };
    Mapping::compile(&spec).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn read(mapping: &Mapping, topic: &str, payload: &str) -> Read {
    let packet = Packet {
        topic,
        payload: payload.as_bytes(),
        packet_id: Some(7),
        retained: false,
        dup: false,
    };
    assert!(
        mapping.takes(topic),
        "{topic} is not one of {:?}",
        mapping.filters()
    );
    mapping.read(&"desk".parse().unwrap(), &packet, now())
}

fn message(mapping: &Mapping, topic: &str, payload: &str) -> ReceivedMessage {
    match read(mapping, topic, payload) {
        Read::Message(message) => *message,
        Read::Ignored(reason) | Read::Unmapped(reason) => panic!("not read: {reason}"),
        Read::Status(_) => panic!("read as a status"),
    }
}

fn status(mapping: &Mapping, topic: &str, payload: &str) -> StatusReport {
    match read(mapping, topic, payload) {
        Read::Status(report) => *report,
        Read::Ignored(reason) | Read::Unmapped(reason) => panic!("not read: {reason}"),
        Read::Message(_) => panic!("read as a message"),
    }
}

fn id() -> MessageId {
    MessageId {
        conversation: ConversationId(0x0123_4567_89ab_cdef),
        sequence: Sequence(42),
    }
}

/// An answer to a message, as the store hands it over.
fn answer(to: &ReceivedMessage, text: &str) -> Outgoing {
    Outgoing {
        id: id(),
        channel: to.channel.clone(),
        to: to.group.clone().unwrap_or_else(|| to.from.clone()),
        text: text.to_owned(),
        route: to.route.clone(),
    }
}

fn time(message: &ReceivedMessage) -> String {
    message.device_time.unwrap().to_iso8601()
}

fn recipient(report: &StatusReport) -> (&str, Option<&str>) {
    match &report.of {
        StatusTarget::Recipient { address, text, .. } => (address.as_str(), text.as_deref()),
        StatusTarget::Id(_) => panic!("matched by id"),
    }
}

#[test]
fn sms2mqtt_both_ways_with_its_reports() {
    let mapping = preset("sms2mqtt", &[]);
    let received = message(
        &mapping,
        "sms2mqtt/received",
        r#"{"datetime":"2026-01-30 03:38:05","number":"+31612345678","text":"Is \"it\" ready? 👌"}"#,
    );
    assert_eq!(received.from.as_str(), "+31612345678");
    assert_eq!(received.text, "Is \"it\" ready? 👌");
    assert_eq!(time(&received), "2026-01-30T03:38:05.000Z");
    assert!(matches!(received.dedup, Some(DedupKey::Hash(_))));
    let publish = mapping
        .write(&answer(&received, "Yes, \"come\" by\nnow"))
        .unwrap();
    assert_eq!(
        (publish.topic.as_str(), publish.qos, publish.retain),
        ("sms2mqtt/send", 1, false)
    );
    assert_eq!(
        String::from_utf8(publish.payload).unwrap(),
        r#"{"number":"+31612345678","text":"Yes, \"come\" by\nnow"}"#
    );
    let report = status(
        &mapping,
        "sms2mqtt/sent",
        r#"{"result":"success","datetime":"2026-01-30 03:39:00","number":"+31612345678","text":"Yes"}"#,
    );
    assert_eq!(report.status, DeviceStatus::Sent);
    assert_eq!(recipient(&report), ("+31612345678", Some("Yes")));
    let report = status(
        &mapping,
        "sms2mqtt/sent",
        r#"{"result":"error : {'Text': 'No SIM'}","datetime":"2026-01-30 03:39:00","number":"+31612345678","text":"Yes"}"#,
    );
    assert_eq!(
        report.status,
        DeviceStatus::Failed("error : {'Text': 'No SIM'}".to_owned())
    );
    // What it answers to a command that is not its own: no number, so no message of ours.
    assert!(matches!(
        read(
            &mapping,
            "sms2mqtt/sent",
            r#"{"result":"error : no number to send to","payload":"{}"}"#
        ),
        Read::Unmapped(_)
    ));
}

#[test]
fn a_variable_moves_sms2mqtt_to_another_prefix() {
    let mapping = preset("sms2mqtt", &[("prefix", "home/sms")]);
    assert_eq!(
        mapping.filters().into_iter().collect::<Vec<_>>(),
        ["home/sms/received".to_owned(), "home/sms/sent".to_owned()]
    );
    let received = message(
        &mapping,
        "home/sms/received",
        r#"{"datetime":"x","number":"+31612345678","text":""}"#,
    );
    assert_eq!((received.text.as_str(), received.device_time), ("", None));
    assert_eq!(
        mapping.write(&answer(&received, "a")).unwrap().topic,
        "home/sms/send"
    );
}

#[test]
fn gsm2mqtt_answers_through_the_modem_that_the_customer_wrote_to() {
    let mapping = preset("gsm2mqtt", &[]);
    let received = message(
        &mapping,
        "gsm2mqtt/modem/siemens_tc35/sms/received",
        r#"{"from":"+79001234567","text":"Water sensor: normal","timestamp":"2026-01-30T03:38:05Z","modem_id":"siemens_tc35","multipart":false}"#,
    );
    assert_eq!(received.from.as_str(), "+79001234567");
    assert_eq!(received.route["modem"], "siemens_tc35");
    assert_eq!(time(&received), "2026-01-30T03:38:05.000Z");
    let publish = mapping.write(&answer(&received, "Спасибо")).unwrap();
    assert_eq!(publish.topic, "gsm2mqtt/modem/siemens_tc35/sms/send");
    let payload: serde_json::Value = serde_json::from_slice(&publish.payload).unwrap();
    assert_eq!(
        payload,
        serde_json::json!({"to": "+79001234567", "text": "Спасибо", "delivery_report": true})
    );
    let report = status(
        &mapping,
        "gsm2mqtt/modem/siemens_tc35/sms/delivery_report",
        r#"{"message_ref":14,"recipient":"+79001234567","status":"delivered","discharge_time":"2026-01-30T03:39:15Z"}"#,
    );
    assert_eq!(report.status, DeviceStatus::Delivered);
    assert_eq!(recipient(&report), ("+79001234567", None));
    let unheard_of = r#"{"message_ref":14,"recipient":"+79001234567","status":"lost in space"}"#;
    assert!(matches!(
        read(
            &mapping,
            "gsm2mqtt/modem/siemens_tc35/sms/delivery_report",
            unheard_of
        ),
        Read::Unmapped(_)
    ));
}

#[test]
fn gsm2mqtt_cannot_answer_before_it_knows_the_modem_unless_told() {
    let mut first = answer(
        &message(
            &preset("gsm2mqtt", &[]),
            "gsm2mqtt/modem/a/sms/received",
            r#"{"from":"+79001234567","text":"x","timestamp":"2026-01-30T03:38:05Z"}"#,
        ),
        "Hello",
    );
    first.route.clear();
    let error = preset("gsm2mqtt", &[]).write(&first).unwrap_err().to_string();
    assert!(error.contains("give it a value in `vars`"), "{error}");
    let told = preset("gsm2mqtt", &[("modem", "b")]).write(&first).unwrap();
    assert_eq!(told.topic, "gsm2mqtt/modem/b/sms/send");
}

const CHIRPSTACK_UP: &str = r#"{
    "deduplicationId":"3ac7e3c4-4401-4b8d-9386-a5c902f9202d","time":"2026-01-30T03:38:05.797609632+00:00",
    "deviceInfo":{"tenantId":"52f14cd4-c6f1-4fbd-8f87-4025e1d49242","tenantName":"ChirpStack",
        "applicationId":"17c82e96-be03-4f38-aef3-f83d48582d97","applicationName":"Huts",
        "deviceProfileId":"14855bf7-d10d-4aee-b618-ebfcb64dc7ad","deviceProfileName":"Pager",
        "deviceName":"Hut 7","devEui":"0101010101010101","tags":{"key":"value"}},
    "devAddr":"00189440","adr":true,"dr":1,"fCnt":4,"fPort":10,"confirmed":false,"data":"T3V0IG9mIHdvb2QA",
    "rxInfo":[{"gatewayId":"0016c001f153a14c","uplinkId":4217106255,"rssi":-36,"snr":10.5,"context":"E3OWOQ=="}],
    "txInfo":{"frequency":867100000,"modulation":{"lora":{"bandwidth":125000,"spreadingFactor":11,"codeRate":"CR_4_5"}}}}"#;
const CHIRPSTACK_TOPIC: &str =
    "application/17c82e96-be03-4f38-aef3-f83d48582d97/device/0101010101010101/event/";

#[test]
fn chirpstack_both_ways_with_the_acknowledgement_of_the_device() {
    let mapping = preset("chirpstack", &[]);
    let received = message(&mapping, &format!("{CHIRPSTACK_TOPIC}up"), CHIRPSTACK_UP);
    assert_eq!(
        (received.from.as_str(), received.from_name.as_deref()),
        ("0101010101010101", Some("Hut 7"))
    );
    assert_eq!(received.text, "Out of wood");
    assert_eq!(time(&received), "2026-01-30T03:38:05.797Z");
    assert!(
        matches!(&received.dedup, Some(DedupKey::DeviceId(id)) if id.ends_with("3ac7e3c4-4401-4b8d-9386-a5c902f9202d"))
    );
    let publish = mapping.write(&answer(&received, "On its way")).unwrap();
    assert_eq!(
        publish.topic,
        "application/17c82e96-be03-4f38-aef3-f83d48582d97/device/0101010101010101/command/down"
    );
    let payload: serde_json::Value = serde_json::from_slice(&publish.payload).unwrap();
    assert_eq!(
        payload,
        serde_json::json!({
            "id": "01234567-89ab-cdef-0000-00000000002a", "devEui": "0101010101010101",
            "confirmed": true, "fPort": 10, "data": "T24gaXRzIHdheQ==",
        })
    );
    for (acknowledged, expected) in [
        (r#""acknowledged":true,"#, DeviceStatus::Delivered),
        (
            r#""acknowledged":false,"#,
            DeviceStatus::Failed("the device reported a failure".to_owned()),
        ),
        (
            "",
            DeviceStatus::Failed("the device reported a failure".to_owned()),
        ),
    ] {
        let event = format!(
            r#"{{"deduplicationId":"c9dbe358-2578-4fb7-b295-66b44edc45a6","time":"2026-01-30T03:39:00Z",
            "deviceInfo":{{"devEui":"0101010101010101"}},"queueItemId":"01234567-89ab-cdef-0000-00000000002a",
            {acknowledged}"fCntDown":12}}"#
        );
        let report = status(&mapping, &format!("{CHIRPSTACK_TOPIC}ack"), &event);
        assert_eq!(report.status, expected);
        assert!(matches!(report.of, StatusTarget::Id(found) if found == id()));
    }
}

#[test]
fn chirpstack_ignores_empty_uplinks_and_shows_binary_ones() {
    let mapping = preset("chirpstack", &[]);
    let topic = format!("{CHIRPSTACK_TOPIC}up");
    assert!(matches!(
        read(&mapping, &topic, r#"{"devAddr":"00189440","fPort":0}"#),
        Read::Ignored(_)
    ));
    match read(&mapping, &topic, r#"{"data":"/wD/AA==","fPort":2}"#) {
        Read::Unmapped(reason) => {
            assert_eq!(reason, "`text` cannot be read: /data holds binary data, not text");
        }
        _ => panic!("binary data became a message"),
    }
    assert!(matches!(read(&mapping, &topic, "not json"), Read::Unmapped(_)));
}

#[test]
fn hilinksms2mqtt_both_ways_with_its_reports() {
    let mapping = preset("hilinksms2mqtt", &[]);
    let received = message(
        &mapping,
        "hilinksms2mqtt/received",
        r#"{"sender":"+33612345678","message":"Bonjour","date_received":"2026-01-30 03:38:05"}"#,
    );
    assert_eq!(
        (received.from.as_str(), received.text.as_str()),
        ("+33612345678", "Bonjour")
    );
    let publish = mapping.write(&answer(&received, "Salut")).unwrap();
    assert_eq!(publish.topic, "hilinksms2mqtt/send");
    assert_eq!(
        String::from_utf8(publish.payload).unwrap(),
        r#"{"number":"+33612345678","message":"Salut"}"#
    );
    let report = status(
        &mapping,
        "hilinksms2mqtt/sent",
        r#"{"status":"failure","recipient":"+33612345678"}"#,
    );
    assert!(matches!(report.status, DeviceStatus::Failed(_)));
}

#[test]
fn rutos_both_ways_with_the_number_in_the_topic() {
    let mapping = preset("rutos", &[]);
    let received = message(
        &mapping,
        "service/rutos_sms/received",
        r#"{"index":"0","date":"Fri Jan 30 03:38:05 2026","sender":"+491700000000","text":"This is an example.","status":"read"}"#,
    );
    assert_eq!(time(&received), "2026-01-30T03:38:05.000Z");
    let publish = mapping.write(&answer(&received, "Grüße, \"raw\"")).unwrap();
    assert_eq!(publish.topic, "service/rutos_sms/send/single/00491700000000");
    assert_eq!(String::from_utf8(publish.payload).unwrap(), "Grüße, \"raw\"");
}

#[test]
fn an_android_phone_on_one_topic_does_not_hear_its_own_commands() {
    let mapping = preset("android-sms-gateway-mqtt", &[("device", "pixel-4711")]);
    assert_eq!(mapping.filters().len(), 1);
    let received = message(
        &mapping,
        "pixel-4711",
        r#"{"type":"received","number":"+15550100","message":"hi","timestamp":"1769744285000"}"#,
    );
    assert_eq!(time(&received), "2026-01-30T03:38:05.000Z");
    let publish = mapping.write(&answer(&received, "hello")).unwrap();
    assert_eq!(publish.topic, "pixel-4711");
    let own = String::from_utf8(publish.payload).unwrap();
    assert_eq!(own, r#"{"to":"+15550100","message":"hello"}"#);
    assert!(matches!(read(&mapping, "pixel-4711", &own), Read::Ignored(_)));
    let report = status(
        &mapping,
        "pixel-4711",
        r#"{"type":"delivered","number":"+15550100"}"#,
    );
    assert_eq!(report.status, DeviceStatus::Delivered);
    assert_eq!(recipient(&report).0, "+15550100");
}

#[test]
fn every_preset_is_tested_here() {
    let source = include_str!("preset_tests.rs");
    for (name, _) in presets::ALL {
        assert!(
            source.contains(&format!("preset(\"{name}\"")),
            "{name} has no test"
        );
    }
}
