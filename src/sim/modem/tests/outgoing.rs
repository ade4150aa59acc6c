//! Messages that are sent.

use std::time::Duration;

use super::{Bench, hello, lines, unhex};
use crate::sim::modem::pdu::hex;
use crate::sim::modem::{Options, Profile, Registration, SendFault};

#[test]
fn a_pdu_is_sent_and_counted_modulo_256() {
    let mut bench = Bench::generic();
    bench.modem.next_reference(254);
    for reference in [254, 255, 0, 1] {
        assert_eq!(bench.send(&hello()), format!("+CMGS: {reference}|OK"));
    }
    let sent = &bench.modem.sent()[3];
    assert_eq!(
        (sent.to.as_str(), sent.reference, sent.wants_report),
        ("+491710000002", 1, true)
    );
    assert_eq!(sent.text.as_deref(), Some("hellohello"));
    assert_eq!(sent.pdu, hello());
}

#[test]
fn the_prompt_has_no_line_end_and_can_be_left() {
    let mut bench = Bench::generic();
    assert_eq!(bench.type_in("AT+CMGS=23\r"), "\r\n> ");
    assert_eq!(bench.type_in("003100\u{1b}"), "\r\nOK\r\n");
    assert_eq!(bench.ask("AT"), "OK");
    // With CR and LF, as some programs write, and in small letters.
    let text = hex(&hello()).to_lowercase();
    assert_eq!(bench.type_in("AT+CMGS=23\r\n"), "\r\n> ");
    bench.type_in(&format!("{text}\u{1a}"));
    assert_eq!(bench.wait_millis(20), "+CMGS: 0|OK");
    assert_eq!(bench.modem.counts().sent, 1);
}

#[test]
fn what_is_typed_at_a_prompt_is_echoed_while_the_echo_is_on() {
    let mut bench = Bench::new(Options::default());
    assert_eq!(bench.type_in("AT+CMGS=23\r"), "AT+CMGS=23\r\r\n> ");
    assert_eq!(bench.type_in("0031\u{1b}"), "0031\r\nOK\r\n");
}

#[test]
fn malformed_pdus_are_refused() {
    let mut bench = Bench::generic();
    for length in ["0", "7", "200", "x", "23,1"] {
        assert_eq!(
            bench.ask(&format!("AT+CMGS={length}")),
            "+CMS ERROR: 304",
            "{length}"
        );
    }
    for (length, pdu) in [
        (22, hex(&hello())),
        (23, hex(&hello()).replace("A70A", "A70B")),
        (23, "XY".to_owned()),
        (23, String::new()),
    ] {
        bench.type_in(&format!("AT+CMGS={length}\r"));
        assert_eq!(
            lines(&bench.type_in(&format!("{pdu}\u{1a}"))),
            "+CMS ERROR: 304",
            "{pdu}"
        );
    }
    assert_eq!(bench.modem.refused().len(), 4);
    assert_eq!(bench.modem.refused()[0], "22 octets were declared, 23 came");
    assert_eq!(bench.modem.counts().sent, 0);
}

#[test]
fn reports_come_for_each_part_as_the_test_says() {
    let mut bench = Bench::generic();
    bench.ask("AT+CSMS=1;+CNMI=2,1,0,1");
    bench.modem.next_fate(vec![0x30, 0]);
    bench.modem.next_fate(vec![0x46]);
    bench.modem.next_fate(vec![]);
    for _ in 0..4 {
        bench.send(&hello());
    }
    let status = |said: &str| said.get(said.len().saturating_sub(2)..).map(str::to_owned);
    let mut seen = Vec::new();
    for _ in 0..4 {
        let said = bench.wait_millis(200);
        if said.starts_with("+CDS: 25|") {
            seen.extend(status(&said));
        }
        while bench.ask("AT+CNMA") == "OK" {
            let said = bench.wait_millis(20);
            if said.starts_with("+CDS: 25|") {
                seen.extend(status(&said));
            }
        }
    }
    seen.sort();
    assert_eq!(seen, ["00", "00", "30", "46"]);
    assert_eq!(bench.modem.counts().acknowledged, 4);
}

#[test]
fn no_report_comes_unasked() {
    let mut bench = Bench::generic();
    bench.ask("AT+CNMI=2,1,0,1");
    let mut pdu = hello();
    pdu[1] = 0x11;
    assert_eq!(bench.send(&pdu), "+CMGS: 0|OK");
    assert_eq!(bench.wait(Duration::from_secs(5)), "");
}

#[test]
fn the_next_message_fails_as_the_test_says() {
    let mut bench = Bench::generic();
    bench.modem.next_send(SendFault::Cms(38));
    bench.modem.next_send(SendFault::Error);
    bench.modem.next_send(SendFault::Delay(Duration::from_secs(30)));
    assert_eq!(bench.send(&hello()), "+CMS ERROR: 38");
    assert_eq!(bench.send(&hello()), "ERROR");
    assert_eq!(bench.send(&hello()), "");
    assert_eq!(bench.wait(Duration::from_secs(29)), "");
    assert_eq!(bench.wait(Duration::from_secs(1)), "+CMGS: 0|OK");
}

#[test]
fn silence_after_ctrl_z_tells_nothing() {
    for taken in [false, true] {
        let mut bench = Bench::generic();
        bench.modem.next_send(SendFault::Silence { taken });
        assert_eq!(bench.send(&hello()), "");
        assert_eq!(bench.wait(Duration::from_secs(300)), "");
        assert_eq!(bench.ask("\u{1b}AT"), "OK");
        assert_eq!(bench.modem.counts().sent, usize::from(taken));
        bench.modem.next_send(SendFault::NoPrompt);
        assert_eq!(bench.type_in("AT+CMGS=23\r"), "");
        assert_eq!(lines(&bench.type_in("\u{1b}")), "OK");
    }
}

#[test]
fn a_restart_in_the_middle_is_seen_by_its_first_line_only() {
    for taken in [false, true] {
        let mut bench = Bench::quiet(Profile::Ec25);
        bench.modem.next_send(SendFault::Restart { taken });
        assert_eq!(bench.send(&hello()), "");
        assert_eq!(
            bench.wait_millis(1000),
            "RDY|+CPIN: READY|+QUSIM: 1|+CFUN: 1|+QIND: SMS DONE|+QIND: PB DONE"
        );
        assert_eq!(bench.modem.counts().sent, usize::from(taken));
    }
}

#[test]
fn nothing_is_sent_without_a_network_or_a_service_centre() {
    let mut bench = Bench::generic();
    bench.modem.network(Registration::Searching);
    assert_eq!(bench.send(&hello()), "+CMS ERROR: 331");
    bench.modem.network(Registration::Roaming);
    assert_eq!(bench.send(&hello()), "+CMGS: 0|OK");
    assert_eq!(bench.ask("AT+CSCA?"), "+CSCA: \"+491710760000\",145|OK");
    assert_eq!(bench.ask("AT+CSCA=\"491710760009\",145"), "OK");
    assert_eq!(bench.ask("AT+CSCA?"), "+CSCA: \"+491710760009\",145|OK");
    bench.ask("AT+CSCA=\"\"");
    assert_eq!(bench.send(&hello()), "+CMS ERROR: 330");
}

#[test]
fn parts_come_together_at_the_recipient() {
    let mut bench = Bench::generic();
    // 🙂 cut in the middle, the second part first.
    let part = |number: u8, units: &str| {
        let data = unhex(&format!("050003AA02{number:02X}{units}"));
        let mut pdu = unhex("0051000C9194710100002000 08A7".replace(' ', "").as_str());
        pdu.push(u8::try_from(data.len()).unwrap());
        pdu.extend(data);
        pdu
    };
    assert_eq!(bench.send(&part(2, "DE420021")), "+CMGS: 0|OK");
    assert!(!bench.modem.shown()[0].complete);
    assert_eq!(bench.send(&part(1, "0048D83D")), "+CMGS: 1|OK");
    assert_eq!(bench.send(&hello()), "+CMGS: 2|OK");
    let shown = bench.modem.shown();
    assert_eq!(shown.len(), 2);
    assert_eq!(shown[0].text.as_deref(), Some("H🙂!"));
    assert_eq!(shown[0].references, [1, 0]);
    assert!(shown[0].complete && shown[1].complete);
}

#[test]
fn text_mode_makes_its_own_pdu() {
    let mut bench = Bench::generic();
    bench.ask("AT+CMGF=1;+CSCS=\"IRA\";+CSMP=49,167,0,0");
    assert_eq!(bench.type_in("AT+CMGS=\"+491710000002\"\r"), "\r\n> ");
    assert_eq!(bench.type_in("Hi @home\r"), "\r\n> ");
    bench.type_in("bye\u{1a}");
    assert_eq!(bench.wait_millis(20), "+CMGS: 0|OK");
    let sent = &bench.modem.sent()[0];
    assert_eq!(sent.text.as_deref(), Some("Hi @home\nbye"));
    assert!(sent.wants_report);
    bench.ask("AT+CSMP=17,167,0,8");
    bench.type_in("AT+CMGS=\"491710000002\",145\r04360443043A\u{1a}");
    assert_eq!(bench.wait_millis(20), ">|+CMGS: 1|OK".trim_start_matches(">|"));
    assert_eq!(bench.modem.sent()[1].text.as_deref(), Some("жук"));
    assert_eq!(bench.modem.sent()[1].to, "+491710000002");
    assert_eq!(bench.ask("AT+CMGS=\"who\""), "+CMS ERROR: 305");
}

#[test]
fn a_message_is_written_to_a_memory_and_sent_from_there() {
    let mut bench = Bench::generic();
    assert_eq!(bench.type_in("AT+CMGW=23\r"), "\r\n> ");
    assert_eq!(
        lines(&bench.type_in(&format!("{}\u{1a}", hex(&hello())))),
        "+CMGW: 1|OK"
    );
    assert_eq!(
        bench.ask("AT+CMGL=2"),
        format!("+CMGL: 1,2,,23|{}|OK", hex(&hello()))
    );
    assert_eq!(bench.ask("AT+CMSS=1"), "");
    assert_eq!(bench.wait_millis(20), "+CMSS: 0|OK");
    assert_eq!(
        bench.ask("AT+CMGL=3"),
        format!("+CMGL: 1,3,,23|{}|OK", hex(&hello()))
    );
    assert_eq!(bench.ask("AT+CMSS=2"), "+CMS ERROR: 321");
    bench.modem.fill();
    bench.type_in("AT+CMGW=23\r");
    assert_eq!(
        lines(&bench.type_in(&format!("{}\u{1a}", hex(&hello())))),
        "+CMS ERROR: 322"
    );
}
