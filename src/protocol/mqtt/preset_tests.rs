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
fn the_home_assistant_add_on_both_ways_with_its_retained_state() {
    let mapping = preset("home-assistant-sms", &[]);
    let topic = "homeassistant/sensor/sms_gateway/sms/state";
    let state = r#"{"Date":"2026-01-30 03:38:05","Number":"+420700000000","State":"UnRead","Locations":[1],"Complete":true,"PartsReceived":1,"PartsExpected":1,"Text":"Dobrý den","timestamp":"2026-01-30 03:38:11"}"#;
    let received = message(&mapping, topic, state);
    assert_eq!(
        (received.from.as_str(), received.text.as_str()),
        ("+420700000000", "Dobrý den")
    );
    assert_eq!(time(&received), "2026-01-30T03:38:05.000Z");
    let kept = Packet {
        topic,
        payload: state.as_bytes(),
        packet_id: Some(7),
        retained: true,
        dup: false,
    };
    let again = mapping.read(&"desk".parse().unwrap(), &kept, now());
    assert!(matches!(again, Read::Ignored(_)), "the last SMS came again");
    let publish = mapping.write(&answer(&received, "Děkujeme")).unwrap();
    assert_eq!(publish.topic, "homeassistant/sensor/sms_gateway/send");
    assert_eq!(
        String::from_utf8(publish.payload).unwrap(),
        r#"{"number":"+420700000000","text":"Děkujeme"}"#
    );
    let topic = "homeassistant/sensor/sms_gateway/send_status";
    let report = status(
        &mapping,
        topic,
        r#"{"status":"success","number":"+420700000000","text":"Děkujeme","timestamp":"2026-01-30 03:39:00"}"#,
    );
    assert_eq!(report.status, DeviceStatus::Sent);
    assert_eq!(recipient(&report), ("+420700000000", Some("Děkujeme")));
    let report = status(
        &mapping,
        topic,
        r#"{"status":"error","error":"SMS sending failed - check SIM card","number":"+420700000000","text":"x","timestamp":"2026-01-30 03:39:00"}"#,
    );
    assert_eq!(
        report.status,
        DeviceStatus::Failed("SMS sending failed - check SIM card".to_owned())
    );
    let buttons =
        r#"{"status":"missing_fields","message":"Please fill in","timestamp":"2026-01-30 03:39:00"}"#;
    assert!(matches!(read(&mapping, topic, buttons), Read::Ignored(_)));
}

#[test]
fn the_things_stack_both_ways_with_its_events() {
    let mapping = preset("the-things-stack", &[("app", "hut@ttn")]);
    let received = message(
        &mapping,
        "v3/hut@ttn/devices/hut-7/up",
        r#"{"end_device_ids":{"device_id":"hut-7","application_ids":{"application_id":"hut"},"dev_eui":"4200000000000000","join_eui":"4200000000000000","dev_addr":"00E6F42A"},
        "correlation_ids":["gs:uplink:01HN","rpc:/ttn.lorawan.v3.GsNs/HandleUplink:01HN"],"received_at":"2026-01-30T03:38:05.797609632Z",
        "uplink_message":{"session_key_id":"AWnj0318qrtJ7kbudd8Vmw==","f_port":10,"f_cnt":4,"frm_payload":"T3V0IG9mIHdvb2QA","rx_metadata":[{"gateway_ids":{"gateway_id":"ridge"},"rssi":-35}],"consumed_airtime":"0.056576s"}}"#,
    );
    assert_eq!(
        (received.from.as_str(), received.text.as_str()),
        ("hut-7", "Out of wood")
    );
    assert_eq!(time(&received), "2026-01-30T03:38:05.797Z");
    let publish = mapping.write(&answer(&received, "On its way")).unwrap();
    assert_eq!(
        (publish.topic.as_str(), publish.qos),
        ("v3/hut@ttn/devices/hut-7/down/push", 0)
    );
    let payload: serde_json::Value = serde_json::from_slice(&publish.payload).unwrap();
    assert_eq!(
        payload,
        serde_json::json!({"downlinks": [{
            "f_port": 10, "frm_payload": "T24gaXRzIHdheQ==", "confirmed": true, "priority": "NORMAL",
            "correlation_ids": [id().to_string()],
        }]})
    );
    let event = |name: &str, detail: &str| {
        let body = format!(
            r#"{{"end_device_ids":{{"device_id":"hut-7"}},"correlation_ids":["as:downlink:01D7","{}","gs:conn:01D7"],{detail}}}"#,
            id()
        );
        read(&mapping, &format!("v3/hut@ttn/devices/hut-7/down/{name}"), &body)
    };
    let failed = r#""downlink_failed":{"downlink":{"f_port":10},"error":{"namespace":"pkg/networkserver","name":"application_downlink_too_long","message_format":"application downlink payload is too long"}}"#;
    for (name, detail, expected) in [
        ("ack", r#""downlink_ack":{"f_port":10}"#, DeviceStatus::Delivered),
        ("sent", r#""downlink_sent":{"f_port":10}"#, DeviceStatus::Sent),
        (
            "failed",
            failed,
            DeviceStatus::Failed("application downlink payload is too long".to_owned()),
        ),
    ] {
        let Read::Status(report) = event(name, detail) else {
            panic!("{name} is not a status");
        };
        assert_eq!(report.status, expected);
        assert!(
            matches!(report.of, StatusTarget::Id(found) if found == id()),
            "{name}"
        );
    }
    let strange = r#"{"correlation_ids":["as:downlink:01D7"],"downlink_ack":{}}"#;
    assert!(matches!(
        read(&mapping, "v3/hut@ttn/devices/hut-7/down/ack", strange),
        Read::Ignored(_)
    ));
    let join = r#"{"uplink_message":{"f_port":0}}"#;
    assert!(matches!(
        read(&mapping, "v3/hut@ttn/devices/hut-7/up", join),
        Read::Ignored(_)
    ));
}

#[test]
fn meshcore_both_ways_directly_and_on_a_channel() {
    let mapping = preset("meshcore", &[]);
    let direct = message(
        &mapping,
        "meshcore/message/direct/a1b2c3d4e5f6",
        r#"{"type":"EventType.CONTACT_MSG_RECV","payload":{"type":"PRIV","SNR":12.5,"pubkey_prefix":"a1b2c3d4e5f6","path_len":1,"txt_type":0,"sender_timestamp":1769744285,"text":"Anyone at the desk?"},"attributes":{"pubkey_prefix":"a1b2c3d4e5f6","txt_type":0}}"#,
    );
    assert_eq!(
        (direct.from.as_str(), direct.text.as_str()),
        ("a1b2c3d4e5f6", "Anyone at the desk?")
    );
    assert_eq!(time(&direct), "2026-01-30T03:38:05.000Z");
    let publish = mapping.write(&answer(&direct, "Yes, \"here\"")).unwrap();
    assert_eq!(publish.topic, "meshcore/command/send_msg");
    assert_eq!(
        String::from_utf8(publish.payload).unwrap(),
        r#"{"destination":"a1b2c3d4e5f6","message":"Yes, \"here\""}"#
    );
    let channel = message(
        &mapping,
        "meshcore/message/channel/2",
        r#"{"type":"EventType.CHANNEL_MSG_RECV","payload":{"type":"CHAN","SNR":11.0,"channel_idx":2,"path_len":0,"txt_type":0,"sender_timestamp":1769744285,"text":"Alice: hello"},"attributes":{"channel_idx":2,"txt_type":0}}"#,
    );
    assert_eq!(
        (channel.from.as_str(), channel.text.as_str()),
        ("channel-2", "Alice: hello")
    );
    let publish = mapping.write(&answer(&channel, "Hello Alice")).unwrap();
    assert_eq!(publish.topic, "meshcore/command/send_chan_msg");
    assert_eq!(
        String::from_utf8(publish.payload).unwrap(),
        r#"{"channel":2,"message":"Hello Alice"}"#
    );
}

/// A packet as firmware 2.7 uplinks it.
fn meshtastic(from: u32, to: u32, payload: &str) -> String {
    format!(
        r#"{{"channel":0,"from":{from},"hop_start":3,"hops_away":1,"id":987654321,"payload":{payload},"rssi":-90,"sender":"!7efeee00","snr":6.5,"timestamp":1769744285,"to":{to},"type":"text"}}"#
    )
}

#[test]
fn meshtastic_json_both_ways_directly_and_to_everyone() {
    const GATEWAY: u32 = 0x7efe_ee00;
    let mapping = preset("meshtastic-json", &[]);
    let topic = "msh/EU_868/2/json/LongFast/!7efeee00";
    let direct = message(
        &mapping,
        topic,
        &meshtastic(0x0bad_cafe, GATEWAY, r#"{"text":"Anyone there?"}"#),
    );
    assert_eq!(
        (direct.from.as_str(), &direct.group, direct.text.as_str()),
        ("!0badcafe", &None, "Anyone there?")
    );
    assert_eq!(time(&direct), "2026-01-30T03:38:05.000Z");
    assert!(matches!(&direct.dedup, Some(DedupKey::DeviceId(id)) if id.ends_with("987654321")));
    let publish = mapping.write(&answer(&direct, "Yes")).unwrap();
    assert_eq!(publish.topic, "msh/EU_868/2/json/mqtt/");
    let payload: serde_json::Value = serde_json::from_slice(&publish.payload).unwrap();
    assert_eq!(
        payload,
        serde_json::json!({"from": GATEWAY, "to": 0x0bad_cafe_u32, "channel": 0, "type": "sendtext", "payload": "Yes"})
    );
    let broadcast = message(
        &mapping,
        topic,
        &meshtastic(0x0bad_cafe, u32::MAX, r#"{"text":"Hi all"}"#),
    );
    assert_eq!(broadcast.group.as_ref().unwrap().as_str(), "LongFast");
    let publish = mapping.write(&answer(&broadcast, "Hi")).unwrap();
    let payload: serde_json::Value = serde_json::from_slice(&publish.payload).unwrap();
    assert_eq!(
        (&payload["to"], &payload["from"]),
        (&u32::MAX.into(), &GATEWAY.into())
    );
    let number = message(&mapping, topic, &meshtastic(0x0bad_cafe, GATEWAY, "42"));
    assert_eq!(number.text, "42");
    for (words, packet) in [
        (
            "its own",
            meshtastic(GATEWAY, u32::MAX, r#"{"text":"Hi"}"#),
        ),
        (
            "between others",
            meshtastic(0x0bad_cafe, 0x0000_0001, r#"{"text":"psst"}"#),
        ),
        (
            "no text",
            r#"{"channel":0,"from":195939070,"id":1,"payload":{"battery_level":99},"sender":"!7efeee00","timestamp":1769744285,"to":4294967295,"type":"telemetry"}"#.to_owned(),
        ),
    ] {
        assert!(matches!(read(&mapping, topic, &packet), Read::Ignored(_)), "{words}");
    }
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
