//! Whatever bytes come: no panic, no growth, Ctrl-Z at most once per message.

use proptest::prelude::*;

use super::super::{Action, Dialogue, Event, Settings, Source};
use super::*;

fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "\r\nOK\r\n",
        "\r\nERROR\r\n",
        "\r\n> ",
        ">",
        "\r\nRDY\r\n",
        "\r\nSMS Ready\r\n",
        "\r\n+CMTI: \"SM\",3\r\n",
        "\r\n+CMTI: \"ME\",0\r\n",
        "\r\n+CMT: ,24\r\n",
        "\r\n+CDS: 25\r\n",
        "\r\n+CMGR: 0,,24\r\n",
        "\r\n+CMGL: 1,1,,24\r\n",
        "\r\n07911326040000F0040B911346610089F60000208062917314080CC8F71D14969741F977FD07\r\n",
        "\r\n+CMGS: 12\r\n",
        "\r\n+CMS ERROR: 38\r\n",
        "\r\n+CME ERROR: 14\r\n",
        "\r\n+CPIN: SIM PIN\r\n",
        "\r\n+CPIN: READY\r\n",
        "\r\n+CPMS: \"SM\",20,20,\"SM\",20,20\r\n",
        "\r\n+CUSD: 1,\"a\r\nb",
        "\r\n+CREG: 1,\"00C3\",\"0F12\"\r\n",
        "\r\n+CPMS: (\"SM\",\"ME\"),(\"SM\"),(\"SM\")\r\n",
        "\"",
    ]);
    prop_oneof![
        4 => known.prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn no_bytes_make_it_panic_or_write_ctrl_z_twice(
        ready: bool,
        stream in prop::collection::vec((pieces(), 0_u64..200_000, 0_u8..8), 0..60),
    ) {
        let mut play = Play::new();
        if ready {
            play.start();
        }
        let (mut submitted, mut finished, mut ctrl_z) = (0_u64, 0_u64, 0_u64);
        for (bytes, milliseconds, call) in stream {
            play.bytes(&bytes);
            play.now += Duration::from_millis(milliseconds);
            play.dialogue.tick(play.now);
            match call {
                0 => {
                    submitted += 1;
                    play.dialogue.submit(submitted, vec![0, 1, 2], 2, play.now);
                }
                1 => play.dialogue.ussd(1, "*100#", play.now),
                2 => play.dialogue.enter_pin("1234", play.now),
                3 => play.dialogue.confirm(play.now),
                _ => {}
            }
            play.collect();
            for action in std::mem::take(&mut play.actions) {
                match action {
                    Action::Write(bytes) => {
                        ctrl_z += u64::from(bytes.contains(&0x1a));
                        prop_assert!(bytes.len() < 600);
                    }
                    Action::Event(Event::Sent { .. }) => finished += 1,
                    Action::Event(Event::Received { source: Source::Stored(place), .. }) => {
                        play.dialogue.delete(place, play.now);
                    }
                    Action::Event(_) => {}
                }
            }
            prop_assert!(play.dialogue.deadline().is_none_or(|at| at <= play.now + Duration::from_secs(130)));
        }
        play.dialogue.close("the test is over");
        play.collect();
        for action in play.actions {
            finished += u64::from(matches!(action, Action::Event(Event::Sent { .. })));
        }
        prop_assert!(ctrl_z <= submitted);
        prop_assert_eq!(finished, submitted, "each message has one outcome");
    }

    #[test]
    fn a_stream_may_be_cut_anywhere(cut in 0_usize..200) {
        let text = b"\r\n+CMTI: \"SM\",3\r\n\r\n+CREG: 5,\"00C3\",\"0F12\"\r\n\r\n+CMT: ,3\r\n0001FF\r\n";
        let (first, second) = text.split_at(cut.min(text.len()));
        let whole = actions(&[text]);
        prop_assert_eq!(actions(&[first, second]), whole, "in any order of commands and events");
    }
}

fn actions(pieces: &[&[u8]]) -> Vec<String> {
    let mut play = Play::new();
    play.start();
    for piece in pieces {
        play.bytes(piece);
    }
    let mut actions: Vec<String> = play.actions.iter().map(|action| format!("{action:?}")).collect();
    actions.sort();
    actions
}

#[test]
fn a_dialogue_that_is_fed_without_end_stays_small() {
    let mut dialogue = Dialogue::new(Settings::default(), Duration::ZERO);
    for index in 0..200_000_u32 {
        let line = format!("\r\n+CMTI: \"SM\",{}\r\n+CMT: ,24\r\n", index % 65_536);
        dialogue.receive(line.as_bytes(), Duration::from_millis(u64::from(index)));
        while dialogue.next_action().is_some() {}
    }
    assert!(format!("{dialogue:?}").len() < 200_000);
}
