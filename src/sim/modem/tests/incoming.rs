//! Messages that come.

use std::time::Duration;

use super::{Bench, lines, unhex};
use crate::sim::modem::pdu::{Report, Text, hex};
use crate::sim::modem::{Interruption, Options, Place, Profile, Registration};

fn text(bench: &Bench, text: &str) -> Text {
    Text::new("+4915550001", text, bench.modem.wall_time())
}

#[test]
fn a_text_is_stored_indicated_read_and_deleted() {
    let mut bench = Bench::generic();
    bench.ask("AT+CNMI=2,1,0,1,0");
    let message = text(&bench, "Hi");
    let pdu = hex(&message.pdus("+491710760000")[0]);
    bench.modem.text(&message);
    assert_eq!(lines(&bench.read()), "+CMTI: \"SM\",1");
    assert_eq!(
        bench.ask("AT+CPMS?"),
        "+CPMS: \"SM\",1,20,\"SM\",1,20,\"SM\",1,20|OK"
    );
    assert_eq!(bench.ask("AT+CMGL=0,1"), format!("+CMGL: 1,0,,20|{pdu}|OK"));
    assert_eq!(bench.ask("AT+CMGR=1"), format!("+CMGR: 0,,20|{pdu}|OK"));
    assert_eq!(bench.ask("AT+CMGR=1"), format!("+CMGR: 1,,20|{pdu}|OK"));
    assert_eq!(bench.ask("AT+CMGL"), "OK");
    assert_eq!(bench.ask("AT+CMGL=4"), format!("+CMGL: 1,1,,20|{pdu}|OK"));
    assert_eq!(bench.ask("AT+CMGR=2"), "+CMS ERROR: 321");
    assert_eq!(bench.ask("AT+CMGR=99"), "+CMS ERROR: 321");
    assert_eq!(bench.ask("AT+CMGD=?"), "+CMGD: (1),(0-4)|OK");
    assert_eq!(bench.ask("AT+CMGD=1"), "OK");
    assert_eq!(bench.ask("AT+CMGD=1"), "+CMS ERROR: 321");
    // The place is used again at once.
    bench.modem.text(&message);
    assert_eq!(lines(&bench.read()), "+CMTI: \"SM\",1");
    assert_eq!(bench.ask("AT+CMGD=0,4"), "OK");
    assert_eq!(bench.modem.counts().deleted, 2);
}

#[test]
fn places_are_counted_as_the_make_does() {
    for (profile, indication, empty) in [
        (Profile::Sim800, "+CMTI: \"SM\",1", "OK"),
        (Profile::Sim7600, "+CMTI: \"SM\",0", "+CMS ERROR: 321"),
        (Profile::Ec25, "+CMTI: \"ME\",0", "OK"),
        (Profile::Huawei, "+CMTI: \"SM\",0", "+CMS ERROR: 321"),
    ] {
        let mut bench = Bench::quiet(profile);
        let message = text(&bench, "Hi");
        bench.modem.text(&message);
        assert_eq!(lines(&bench.read()), indication, "{profile}");
        assert_eq!(bench.ask("AT+CMGR=5"), empty, "{profile}");
        assert_eq!(bench.ask("AT+CMGR=500"), "+CMS ERROR: 321", "{profile}");
    }
}

#[test]
fn a_full_memory_leaves_the_rest_in_the_network_until_there_is_room() {
    let mut bench = Bench::new(Options {
        profile: Profile::Huawei,
        sim_places: 3,
        ..Options::default()
    });
    bench.ask("ATE0");
    for number in 0..5 {
        let message = text(&bench, &format!("{number}"));
        bench.modem.text(&message);
    }
    assert_eq!(
        lines(&bench.read()),
        "+CMTI: \"SM\",0|+CMTI: \"SM\",1|+CMTI: \"SM\",2|^SMMEMFULL: \"SM\""
    );
    assert_eq!(bench.modem.counts().waiting, 2);
    assert_eq!(bench.ask("AT+CMGD=1"), "OK");
    assert_eq!(bench.wait_millis(20), "+CMTI: \"SM\",1|^SMMEMFULL: \"SM\"");
    assert_eq!(bench.ask("AT+CMGD=0,4"), "OK");
    assert_eq!(bench.wait_millis(20), "+CMTI: \"SM\",0");
    let counts = bench.modem.counts();
    assert_eq!((counts.waiting, counts.taken, counts.stored), (0, 5, 1));
    assert_eq!(bench.modem.fill(), 2);
}

#[test]
fn messages_wait_for_the_network_and_the_card() {
    let mut bench = Bench::new(Options {
        pin: Some("1234".to_owned()),
        ..Options::default()
    });
    bench.ask("ATE0");
    bench.ask("AT+CNMI=2,1");
    let message = text(&bench, "Hi");
    bench.modem.text(&message);
    assert_eq!(bench.wait_millis(100), "");
    bench.ask("AT+CPIN=1234");
    assert_eq!(bench.wait_millis(100), "+CMTI: \"SM\",1");
    bench.modem.network(Registration::None);
    bench.modem.text(&message);
    assert_eq!(bench.wait_millis(100), "");
    bench.modem.network(Registration::Home);
    assert_eq!(lines(&bench.read()), "+CMTI: \"SM\",2");
}

#[test]
fn a_text_that_is_shown_directly_waits_for_its_acknowledgement() {
    let mut bench = Bench::generic();
    assert_eq!(bench.ask("AT+CSMS=1;+CNMI=2,2,0,1,0"), "+CSMS: 1,1,1|OK");
    assert_eq!(bench.ask("AT+CNMA"), "+CMS ERROR: 340");
    let (first, second) = (text(&bench, "1"), text(&bench, "2"));
    bench.modem.text(&first);
    bench.modem.text(&second);
    let shown = |text: &Text| format!("+CMT: ,19|{}", hex(&text.pdus("+491710760000")[0]));
    assert_eq!(lines(&bench.read()), shown(&first));
    assert_eq!(bench.ask("AT+CNMA=0"), "OK");
    assert_eq!(bench.wait_millis(20), shown(&second));
    // Nobody acknowledges: the modem shows nothing any more and the message is kept.
    assert_eq!(bench.wait(Duration::from_secs(16)), "");
    assert_eq!(bench.ask("AT+CNMI?"), "+CNMI: 2,0,0,0,0|OK");
    assert_eq!(bench.modem.stored(), second.pdus("+491710760000"));
    assert_eq!(bench.ask("AT+CNMA"), "+CMS ERROR: 340");
    let counts = bench.modem.counts();
    assert_eq!((counts.acknowledged, counts.taken, counts.waiting), (1, 2, 0));
}

#[test]
fn an_unacknowledged_text_survives_a_restart() {
    let mut bench = Bench::generic();
    bench.ask("AT+CSMS=1;+CNMI=2,2,0,1,0");
    let message = text(&bench, "Hi");
    bench.modem.text(&message);
    bench.modem.restart_now();
    bench.wait_millis(1000);
    assert_eq!(bench.modem.stored().len(), 1);
}

#[test]
fn without_phase_2_plus_nothing_is_acknowledged() {
    let mut bench = Bench::generic();
    bench.ask("AT+CNMI=2,2");
    for _ in 0..2 {
        let message = text(&bench, "Hi");
        bench.modem.text(&message);
    }
    assert_eq!(lines(&bench.read()).matches("+CMT: ,20").count(), 2);
    assert_eq!(bench.modem.counts().stored, 0);
}

#[test]
fn indications_wait_while_they_are_forbidden() {
    let mut bench = Bench::generic();
    bench.ask("AT+CNMI=0,1");
    let message = text(&bench, "Hi");
    bench.modem.text(&message);
    assert_eq!(bench.read(), "");
    assert_eq!(bench.ask("AT+CNMI=2"), "+CMTI: \"SM\",1|OK");
    bench.ask("AT+CNMI=0,1");
    bench.modem.text(&message);
    assert_eq!(bench.ask("AT+CNMI=2,1,0,0,1"), "OK");
    assert_eq!(bench.ask("AT+CNMI=9"), "+CMS ERROR: 303");
}

#[test]
fn classes_decide_where_a_text_goes() {
    let mut bench = Bench::quiet(Profile::Sim800);
    bench.ask("AT+CPMS=\"ME\",\"ME\",\"ME\"");
    let with_class = |bench: &mut Bench, class| {
        let message = Text {
            class,
            ..text(bench, "Hi")
        };
        bench.modem.text(&message);
        lines(&bench.read())
    };
    assert!(
        with_class(&mut bench, Some(0)).starts_with("+CMT: \"\",20|"),
        "flash"
    );
    assert_eq!(with_class(&mut bench, Some(1)), "+CMTI: \"ME\",1");
    assert_eq!(with_class(&mut bench, Some(2)), "+CMTI: \"SM\",1");
    let silent = Text {
        pid: 0x40,
        ..text(&bench, "Hi")
    };
    bench.modem.text(&silent);
    assert_eq!(bench.read(), "", "type 0 is shown to nobody");
    assert_eq!(bench.modem.counts().taken, 4);
}

#[test]
fn a_multimedia_notification_has_its_own_indication_on_a_sim800() {
    let mut bench = Bench::quiet(Profile::Sim800);
    bench.modem.pdu(unhex(
        "0791947101670000440C9194713129007100F56211221000000009060504 0B8423F0AABB"
            .replace(' ', "")
            .as_str(),
    ));
    assert_eq!(lines(&bench.read()), "+CMTI: \"SM\",1,\"MMS PUSH\",2,1");
}

#[test]
fn nonsense_from_the_network_is_passed_on() {
    let mut bench = Bench::generic();
    bench.ask("AT+CNMI=2,1");
    for pdu in ["00", "0791", "07919471016700004404FF"] {
        bench.modem.pdu(unhex(pdu));
    }
    assert_eq!(
        lines(&bench.read()),
        "+CMTI: \"SM\",1|+CMTI: \"SM\",2|+CMTI: \"SM\",3"
    );
    assert_eq!(bench.ask("AT+CMGR=3"), "+CMGR: 0,,3|07919471016700004404FF|OK");
    assert_eq!(
        bench.ask("AT+CMGF=1;+CMGR=3"),
        "+CMGR: \"REC READ\",\"\",,\"\"|07919471016700004404FF|OK"
    );
}

#[test]
fn a_text_arrives_in_the_middle_of_an_answer() {
    let mut bench = Bench::generic();
    bench.ask("AT+CNMI=2,1");
    let message = text(&bench, "Hi");
    let pdu = message.pdus("+491710760000").remove(0);
    bench.modem.text(&message);
    bench.read();
    bench
        .modem
        .interrupt_next(Place::BeforePdu, Interruption::Pdu(pdu.clone()));
    assert_eq!(
        bench.ask("AT+CMGR=1"),
        format!("+CMGR: 0,,20|+CMTI: \"SM\",2|{}|OK", hex(&pdu))
    );
    bench
        .modem
        .interrupt_next(Place::BeforePrompt, Interruption::Pdu(pdu));
    assert_eq!(bench.type_in("AT+CMGS=23\r"), "\r\n+CMTI: \"SM\",3\r\n\r\n> ");
    bench.modem.text(&message);
    assert_eq!(bench.read(), "", "not at a prompt");
    assert_eq!(bench.type_in("\u{1b}"), "\r\nOK\r\n\r\n+CMTI: \"SM\",4\r\n");
}

#[test]
fn reports_come_directly_or_into_their_memory() {
    let mut bench = Bench::generic();
    let report = Report {
        reference: 7,
        to: "+4915550001".to_owned(),
        at: (bench.modem.wall_time(), bench.modem.wall_time()),
        status: 0,
    };
    let pdu = report.pdu("+491710760000");
    assert_eq!(
        hex(&pdu),
        "079194710167000006070A919451550010621122010000006211220100000000"
    );
    bench.modem.pdu(pdu.clone());
    assert_eq!(bench.read(), "", "nobody asked");
    bench.ask("AT+CNMI=2,1,0,1");
    bench.modem.pdu(pdu.clone());
    assert_eq!(lines(&bench.read()), format!("+CDS: 24|{}", hex(&pdu)));
    bench.ask("AT+CNMI=2,1,0,2");
    bench.modem.pdu(pdu.clone());
    assert_eq!(lines(&bench.read()), "+CDSI: \"SR\",1");
    assert_eq!(bench.ask("AT+CMGR=1"), "+CMS ERROR: 321");
    assert_eq!(
        bench.ask("AT+CPMS=\"SR\";+CMGR=1"),
        format!("+CPMS: 1,10,0,20,0,20|+CMGR: 0,,24|{}|OK", hex(&pdu))
    );
    assert_eq!(
        bench.ask("AT+CMGF=1;+CMGR=1"),
        "+CMGR: \"REC READ\",6,7,\"+4915550001\",145,\"26/11/22,10:00:00+00\",\"26/11/22,10:00:00+00\",0|OK"
    );
}

#[test]
fn text_mode_shows_texts_in_the_chosen_alphabet() {
    let mut bench = Bench::generic();
    bench.ask("AT+CMGF=1;+CNMI=2,1");
    for words in ["Hi @home", "жук"] {
        let message = text(&bench, words);
        bench.modem.text(&message);
    }
    bench.read();
    assert_eq!(
        bench.ask("AT+CMGL=\"ALL\""),
        "+CMGL: 1,\"REC UNREAD\",\"+4915550001\",,\"26/11/22,10:00:00+00\"|Hi \0home\
         |+CMGL: 2,\"REC UNREAD\",\"+4915550001\",,\"26/11/22,10:00:00+00\"|04360443043A|OK"
    );
    bench.ask("AT+CSCS=\"IRA\";+CSDH=1");
    assert_eq!(
        bench.ask("AT+CMGR=1"),
        "+CMGR: \"REC READ\",\"+4915550001\",,\"26/11/22,10:00:00+00\",145,4,0,0,\"+491710760000\",145,8|Hi @home|OK"
    );
    bench.ask("AT+CSCS=\"UCS2\";+CNMI=2,2");
    let message = text(&bench, "Hi");
    bench.modem.text(&message);
    assert!(lines(&bench.read()).ends_with("|00480069"));
}

#[test]
fn texts_can_come_at_a_pace() {
    let mut bench = Bench::new(Options {
        text_interval: Duration::from_secs(1),
        ..Options::default()
    });
    bench.ask("ATE0+CNMI=2,1");
    let message = text(&bench, &"long ".repeat(60));
    bench.modem.text(&message);
    assert_eq!(lines(&bench.read()), "+CMTI: \"SM\",1");
    assert_eq!(bench.wait_millis(999), "");
    assert_eq!(bench.wait_millis(1), "+CMTI: \"SM\",2");
}
