//! What makes do differently.

use super::Bench;
use crate::sim::modem::{Options, Profile};

fn booting(profile: Profile) -> Bench {
    Bench::new(Options {
        profile,
        booted: false,
        ..Options::default()
    })
}

#[test]
fn each_make_says_its_own_lines_at_start() {
    for (profile, said) in [
        (Profile::Generic, ""),
        (Profile::Sim800, "RDY|+CFUN: 1|+CPIN: READY|Call Ready|SMS Ready"),
        (Profile::Sim7600, "RDY|+CPIN: READY|SMS DONE|PB DONE"),
        (
            Profile::Ec25,
            "RDY|+CPIN: READY|+QUSIM: 1|+CFUN: 1|+QIND: SMS DONE|+QIND: PB DONE",
        ),
        (
            Profile::Huawei,
            "^SYSSTART|^SIMST:1|^SRVST:2|^BOOT:36983092,0,0,0,75",
        ),
    ] {
        let mut bench = booting(profile);
        assert_eq!(bench.ask("AT"), "", "{profile} is off");
        assert_eq!(bench.wait_millis(1000), said, "{profile}");
        assert!(bench.modem.counts().registered, "{profile}");
    }
}

#[test]
fn the_card_is_busy_for_a_while_after_the_start() {
    let mut bench = booting(Profile::Ec25);
    assert_eq!(bench.wait_millis(200), "RDY");
    bench.ask("ATE0+CMEE=1");
    assert_eq!(bench.ask("AT+CPIN?"), "+CME ERROR: 14");
    assert_eq!(bench.ask("AT+CMGL=4"), "+CMS ERROR: 314");
}

#[test]
fn a_huawei_stick_talks_until_it_is_told_not_to() {
    let mut bench = Bench::quiet(Profile::Huawei);
    assert_eq!(
        bench.wait_millis(10_000),
        "^RSSI:21|^HCSQ:\"LTE\",55,53,161,26|^MODE:17,17"
    );
    assert_eq!(bench.ask("AT^CURC=0"), "OK");
    assert_eq!(bench.wait_millis(60_000), "");
    assert_eq!(bench.ask("AT^SYSINFO"), "^SYSINFO:2,3,0,17,1,,7|OK");
}

#[test]
fn each_make_knows_its_own_commands_only() {
    for (profile, command) in [
        (Profile::Sim800, "AT+CSPN?"),
        (Profile::Sim7600, "AT+CICCID"),
        (Profile::Ec25, "AT+QCCID"),
        (Profile::Huawei, "AT^ICCID?"),
    ] {
        for other in Profile::ALL {
            let answer = Bench::quiet(other).ask(command);
            assert_eq!(
                answer.ends_with("|OK"),
                other == profile,
                "{other}: {command}: {answer}"
            );
        }
    }
    assert_eq!(
        Bench::quiet(Profile::Sim800).ask("AT+CCID"),
        "8949020000001234567|OK"
    );
    assert_eq!(
        Bench::quiet(Profile::Ec25).ask("AT+QPINC=\"SC\""),
        "+QPINC: \"SC\",3,10|OK"
    );
}
