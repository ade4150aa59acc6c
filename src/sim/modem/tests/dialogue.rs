//! V.250 and TS 27.007.

use std::time::Duration;

use super::{Bench, lines};
use crate::sim::modem::{Interruption, Options, Place, Profile, Registration};

#[test]
fn commands_are_echoed_until_that_is_switched_off() {
    let mut bench = Bench::new(Options::default());
    assert_eq!(bench.type_in("AT\r"), "AT\r\r\nOK\r\n");
    assert_eq!(bench.type_in("at e0\r"), "at e0\r\r\nOK\r\n");
    assert_eq!(bench.type_in("AT\r\n"), "\r\nOK\r\n");
    assert_eq!(bench.type_in("ATV0\r"), "0\r");
    assert_eq!(bench.type_in("AT+NONSENSE\r"), "4\r");
    assert_eq!(bench.type_in("AT+CGMM\r"), "SIMULATED\r\n0\r");
    assert_eq!(bench.type_in("ATQ1\r"), "");
    assert_eq!(bench.type_in("ATZ\r"), "\r\nOK\r\n");
}

#[test]
fn rubbish_before_a_command_is_ignored() {
    let mut bench = Bench::generic();
    assert_eq!(bench.ask("\u{1b}\u{1a}\0xyzAT"), "OK");
    assert_eq!(bench.ask("AAT"), "OK");
    assert_eq!(bench.ask("AT+CXX\u{8}\u{8}GMM"), "SIMULATED|OK");
    assert_eq!(bench.ask("AT+CMGF?\u{1b}"), "+CMGF: 0|OK");
}

#[test]
fn a_line_stops_at_its_first_error() {
    let mut bench = Bench::generic();
    assert_eq!(bench.ask("AT+CREG=2;+CEREG=2"), "OK");
    assert_eq!(
        bench.ask("AT+CREG?;+NONSENSE;+CEREG=0"),
        "+CREG: 2,1,\"1A2B\",\"01D5C309\",7|ERROR"
    );
    assert_eq!(bench.ask("AT+CEREG?"), "+CEREG: 2,1,\"1A2B\",\"01D5C309\",7|OK");
    assert_eq!(bench.ask("AT+CMGF=7"), "+CMS ERROR: 303");
    assert_eq!(bench.ask(&format!("AT{}", "E0".repeat(600))), "ERROR");
}

#[test]
fn the_last_line_is_repeated_on_request() {
    let mut bench = Bench::generic();
    assert_eq!(bench.ask("AT+CGMM"), "SIMULATED|OK");
    assert_eq!(lines(&bench.type_in("A/")), "SIMULATED|OK");
}

#[test]
fn errors_look_as_cmee_wants_them() {
    let mut bench = Bench::new(Options {
        has_sim: false,
        ..Options::default()
    });
    bench.ask("ATE0");
    assert_eq!(bench.ask("AT+CPIN?"), "ERROR");
    bench.ask("AT+CMEE=1");
    assert_eq!(bench.ask("AT+CPIN?"), "+CME ERROR: 10");
    assert_eq!(bench.ask("AT+CMGL=4"), "+CMS ERROR: 310");
    bench.ask("AT+CMEE=2");
    assert_eq!(bench.ask("AT+CPIN?"), "+CME ERROR: SIM not inserted");
    assert_eq!(bench.ask("AT+CMGL=4"), "+CMS ERROR: SIM not inserted");
}

#[test]
fn three_wrong_pins_lock_the_card_and_the_puk_opens_it() {
    let mut bench = Bench::new(Options {
        pin: Some("4711".to_owned()),
        ..Options::default()
    });
    bench.ask("ATE0+CMEE=1");
    assert_eq!(bench.ask("AT+CPIN?"), "+CPIN: SIM PIN|OK");
    assert_eq!(bench.ask("AT+CREG?"), "+CREG: 0,0|OK");
    assert_eq!(bench.ask("AT+CMGF=0;+CPMS?"), "+CMS ERROR: 311");
    assert_eq!(bench.ask("AT+CIMI"), "+CME ERROR: 11");
    assert_eq!(bench.ask("AT+CPIN=\"0000\""), "+CME ERROR: 16");
    assert_eq!(bench.ask("AT+CPIN=0001"), "+CME ERROR: 16");
    assert_eq!(
        bench.ask("AT+CPINR"),
        "+CPINR: SIM PIN,1,3|+CPINR: SIM PUK,10,10|OK"
    );
    assert_eq!(bench.ask("AT+CPIN=0002"), "+CME ERROR: 12");
    assert_eq!(bench.ask("AT+CPIN?"), "+CPIN: SIM PUK|OK");
    assert_eq!(bench.ask("AT+CMGL=4"), "+CMS ERROR: 316");
    assert_eq!(bench.ask("AT+CPIN=\"11111111\",\"1234\""), "+CME ERROR: 16");
    assert_eq!(bench.ask("AT+CPIN=\"12345678\",\"1234\""), "OK");
    assert_eq!(bench.ask("AT+CPIN?"), "+CPIN: READY|OK");
    assert_eq!(bench.modem.wrong_pins(), 3);
}

#[test]
fn the_right_pin_leads_to_the_network_and_is_asked_for_again_after_a_restart() {
    let mut bench = Bench::new(Options {
        pin: Some("4711".to_owned()),
        ..Options::default()
    });
    bench.ask("ATE0+CMEE=1;+CREG=1");
    assert_eq!(bench.ask("AT+CPIN=\"4711\""), "+CREG: 2|OK");
    assert_eq!(bench.ask("AT+CPIN=\"4711\""), "+CME ERROR: 3");
    assert_eq!(bench.wait_millis(60), "+CREG: 1");
    assert_eq!(bench.ask("AT+CLCK=\"SC\",2"), "+CLCK: 1|OK");
    bench.modem.restart_now();
    bench.wait_millis(1000);
    assert_eq!(bench.ask("ATE0+CPIN?"), "ATE0+CPIN?\r|+CPIN: SIM PIN|OK");
    assert_eq!(bench.ask("AT+CPIN=4711"), "OK");
    assert_eq!(bench.ask("AT+CLCK=\"SC\",0,\"4711\""), "OK");
    bench.modem.restart_now();
    bench.wait_millis(1000);
    assert_eq!(bench.ask("ATE0+CPIN?"), "ATE0+CPIN?\r|+CPIN: READY|OK");
}

#[test]
fn the_card_s_number_can_be_read_as_a_file() {
    let mut bench = Bench::generic();
    assert_eq!(
        bench.ask("AT+CRSM=176,12258,0,0,10"),
        "+CRSM: 144,0,\"989420000000214365F7\"|OK"
    );
    assert_eq!(
        bench.ask("AT+CRSM=176,28589,0,0,4"),
        "+CRSM: 144,0,\"00000002\"|OK"
    );
    assert_eq!(bench.ask("AT+CRSM=176,28486,0,0,17"), "+CRSM: 106,130|OK");
}

#[test]
fn the_network_comes_and_goes() {
    let mut bench = Bench::generic();
    bench.ask("AT+CREG=1;+CGREG=2");
    assert_eq!(bench.ask("AT+COPS?"), "+COPS: 0,0,\"Simulated\",7|OK");
    assert_eq!(bench.ask("AT+COPS=3,2;+COPS?"), "+COPS: 0,2,\"26201\",7|OK");
    assert_eq!(bench.ask("AT+CSQ"), "+CSQ: 21,99|OK");
    bench.modem.network(Registration::Searching);
    assert_eq!(lines(&bench.read()), "+CREG: 2|+CGREG: 2");
    assert_eq!(bench.ask("AT+COPS?"), "+COPS: 0|OK");
    bench.modem.network(Registration::Roaming);
    assert_eq!(lines(&bench.read()), "+CREG: 5|+CGREG: 5,\"1A2B\",\"01D5C309\",7");
    assert_eq!(bench.ask("AT+CFUN=1"), "OK", "it is on already");
    assert_eq!(bench.ask("AT+CFUN=4"), "+CREG: 0|+CGREG: 0|OK");
    assert_eq!(bench.ask("AT+CSQ"), "+CSQ: 99,99|OK");
    assert_eq!(bench.ask("AT+CFUN=1"), "+CREG: 2|+CGREG: 2|OK");
    assert_eq!(
        bench.wait_millis(100),
        "+CREG: 5|+CGREG: 5,\"1A2B\",\"01D5C309\",7"
    );
    assert_eq!(
        bench.ask("AT+COPS=1,2,\"99999\""),
        "+CREG: 3|+CGREG: 3|+CME ERROR: 30"
    );
}

#[test]
fn input_during_a_long_command_is_kept() {
    let mut bench = Bench::generic();
    assert_eq!(bench.ask("AT+COPS=?"), "");
    assert_eq!(bench.ask("AT+CGMM"), "");
    let said = bench.wait(Duration::from_secs(1));
    assert!(said.starts_with("+COPS: (2,\"Simulated\""), "{said}");
    assert!(said.ends_with("|OK|SIMULATED|OK"), "{said}");
}

#[test]
fn a_restart_forgets_the_settings_and_says_so() {
    let mut bench = Bench::quiet(Profile::Sim800);
    assert_eq!(bench.ask("AT+CFUN=1,1"), "OK");
    bench.wait_millis(0);
    assert_eq!(bench.ask("AT"), "", "it is off");
    assert_eq!(
        bench.wait_millis(1000),
        "RDY|+CFUN: 1|+CPIN: READY|Call Ready|SMS Ready"
    );
    assert_eq!(bench.ask("AT"), "AT\r|OK", "the echo is back");
    assert_eq!(bench.modem.counts().restarts, 1);
}

#[test]
fn a_line_may_come_in_between_anywhere() {
    let mut bench = Bench::generic();
    for place in [Place::BeforeAnswer, Place::InsideAnswer, Place::BeforeResult] {
        bench
            .modem
            .interrupt_next(place, Interruption::Line("+CREG: 5".to_owned()));
    }
    assert_eq!(
        bench.ask("AT+CREG?;+CGREG?"),
        "+CREG: 5|+CREG: 0,1|+CREG: 5|+CGREG: 0,1|+CREG: 5|OK"
    );
    assert_eq!(bench.modem.interruptions(), 0);
}

#[test]
fn it_can_be_slow_and_deaf() {
    let mut bench = Bench::generic();
    bench.modem.slow(Duration::from_secs(2));
    assert_eq!(bench.ask("AT+CGMM"), "");
    assert_eq!(bench.wait_millis(1999), "");
    assert_eq!(bench.wait_millis(1), "SIMULATED|OK");
    bench.modem.slow(Duration::ZERO);
    bench.modem.deaf(Duration::from_secs(1));
    assert_eq!(bench.ask("AT"), "");
    assert_eq!(bench.wait_millis(1000), "");
    assert_eq!(bench.ask("AT"), "OK");
}

#[test]
fn a_half_typed_line_holds_up_what_it_says_by_itself_but_not_for_ever() {
    let mut bench = Bench::generic();
    bench.type_in("AT+CG");
    bench.modem.say_unasked("RING");
    assert_eq!(bench.read(), "");
    assert_eq!(lines(&bench.type_in("MM\r")), "SIMULATED|OK|RING");
    bench.type_in("AT+CG");
    bench.modem.say_unasked("RING");
    assert_eq!(bench.wait_millis(300), "RING");
}

#[test]
fn a_balance_is_asked_for_in_text_and_packed() {
    let mut bench = Bench::generic();
    bench.modem.ussd_answer("*101#", "Guthaben: 5 €");
    assert_eq!(bench.ask("AT+CUSD=1,\"*100#\",15"), "OK");
    assert_eq!(bench.wait_millis(100), "+CUSD: 0,\"Balance: 12.34 EUR\",15");
    assert_eq!(bench.ask("AT+CUSD=1,\"*999#\",15"), "OK");
    assert_eq!(bench.wait_millis(100), "+CUSD: 4");
    bench.ask("AT+CSCS=\"UCS2\"");
    assert_eq!(bench.ask("AT+CUSD=1,\"002A0031003000300023\",15"), "OK");
    let said = bench.wait_millis(100);
    assert!(said.starts_with("+CUSD: 0,\"00420061006C"), "{said}");
    let mut huawei = Bench::quiet(Profile::Huawei);
    assert_eq!(huawei.ask("AT+CUSD=1,\"AA180C3602\",15"), "OK");
    assert_eq!(
        huawei.wait_millis(100),
        "+CUSD: 0,\"C2303BEC1E9775A098CC35A3818A5529\",15"
    );
    assert_eq!(huawei.ask("AT+CUSD=1,\"*100#\",15"), "+CME ERROR: 3");
}
