//! The address book, and conversations that are closed.

use crate::support::{Device, SOON, Site, terminate, wait_for};
use crate::travel::conversation_with;

#[test]
fn an_address_book_gives_names_to_conversations_that_exist_and_says_what_it_left_out() {
    let site = Site::new();
    let daemon = site.daemon();
    let device = Device::connect(site.mosquitto.port, "sms2mqtt", "sms2mqtt/send");
    device.customer_writes("+447700900142", "hello there");
    let conversation = conversation_with(&site, "hello there");
    assert!(
        site.output(&["conversations", "show", &conversation])
            .contains("+44 7700 900142")
    );

    site.write(
        "people.csv",
        "\u{feff}First Name;Last Name;Mobile Phone\r\nAnn;Smith;07700 900142\r\nBen;;call me\r\nCid;;\r\n\
         Dan;;0044 7700 900143\r\nEve;;07700900142\r\n",
    );
    let file = site.config_file().with_file_name("people.csv");
    let file = file.to_str().unwrap();
    let import =
        |more: &[&str]| site.output(&[&["contacts", "import", file, "--country", "GB"], more].concat());
    let tried = import(&["--dry-run"]);
    assert!(
        tried.starts_with(
            "2 would be added, 0 would be changed, 0 as before, 2 skipped, 1 without a phone number\n"
        ),
        "{tried}"
    );
    for line in [
        "line 3: Ben: \"call me\" is not a phone number",
        "line 6: Eve: line 2 has the same number, as Ann Smith",
    ] {
        assert!(tried.contains(line), "{tried}");
    }
    assert!(site.output(&["contacts", "list"]).contains("empty"));
    assert!(import(&[]).starts_with("2 added, 0 changed, 0 as before, 2 skipped"));
    assert!(
        site.output(&["contacts", "list"])
            .contains("+44 7700 900143       Dan")
    );
    assert!(
        site.output(&["conversations", "list"])
            .contains("Ann Smith +447700900142")
    );

    site.write(
        "people.vcf",
        "BEGIN:VCARD\nVERSION:3.0\nFN:Ann Jones\nTEL:+44 7700 900142\nEND:VCARD\n",
    );
    let cards = site.config_file().with_file_name("people.vcf");
    let changed = site.output(&["contacts", "import", cards.to_str().unwrap()]);
    assert!(
        changed.contains("1 changed") && changed.contains("Ann Smith is now Ann Jones"),
        "{changed}"
    );
    assert!(
        site.output(&["conversations", "show", &conversation])
            .contains("Ann Jones")
    );

    // What is exported is read again as the same, also when no daemon runs to ask.
    drop(daemon);
    let exported = site.output(&["contacts", "export"]);
    assert_eq!(
        exported,
        "name,phone,device\nAnn Jones,+447700900142,\nDan,+447700900143,\n"
    );
    let _daemon = site.daemon();
    site.write("people.csv", &exported);
    assert!(import(&[]).starts_with("0 added, 0 changed, 2 as before, 0 skipped\n"));
    site.output(&["contacts", "remove", "+44 7700 900143"]);
    assert!(
        site.output(&["contacts", "remove", "--all"])
            .contains("1 contact removed")
    );
}

#[test]
fn a_closed_conversation_is_shown_so_and_opens_when_the_customer_writes() {
    let site = Site::new();
    let _daemon = site.daemon();
    let device = Device::connect(site.mosquitto.port, "sms2mqtt", "sms2mqtt/send");
    device.customer_writes("+447700900142", "hello there");
    let conversation = conversation_with(&site, "hello there");
    let listed = || site.output(&["conversations", "list"]);
    assert!(listed().contains("(not answered yet)"));
    site.output(&["conversations", "seen", &conversation]);
    assert!(!listed().contains("(not answered yet)"));
    site.output(&["conversations", "close", &conversation]);
    assert!(listed().contains("(closed)"));
    let send = [
        "send",
        "--channel",
        "sms",
        "--to",
        "+447700900142",
        "one more thing",
    ];
    let refused = site.command(&send);
    assert!(!refused.status.success());
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        said.contains("closed") && said.contains("conversations open"),
        "{said}"
    );
    device.customer_writes("+447700900142", "are you there?");
    wait_for("the conversation to be open", SOON, || {
        listed().contains("(not answered yet)").then_some(())
    });
    site.output(&send);
}

#[test]
fn templates_are_announced_with_the_channel_and_read_again_on_reload() {
    let site = Site::new();
    std::fs::create_dir(site.dir.path().join("templates")).unwrap();
    site.write(
        "templates/thanks.toml",
        "name = 'Thanks'\nlanguage = 'en'\ncontent = 'Thank you.'\n",
    );
    let clock = "clock_wait = \"1s\"";
    let more = format!("{clock}\ntemplates_dir = \"templates\"");
    site.write("pipepost.toml", &site.config("").replace(clock, &more));
    assert!(site.output(&["check"]).contains("templates: thanks"));
    let mut daemon = site.daemon();
    wait_for("the channel with templates", SOON, || {
        site.sandbox
            .read(|state| state.channels.values().any(|channel| channel.template_support))
            .then_some(())
    });

    site.write(
        "templates/broken.toml",
        "name = 'Broken'\nlanguage = 'english please'\ncontent = 'x'\n",
    );
    let check = site.command(&["check"]);
    let said = String::from_utf8_lossy(&check.stderr).into_owned();
    // The gateway goes on without it.
    assert!(check.status.success());
    assert!(
        said.contains("broken.toml:2") && said.contains("is no language"),
        "{said}"
    );
    terminate(&mut daemon.process.0, "HUP");
    wait_for("the templates to be read again", SOON, || {
        let log = daemon.log();
        (log.contains("A template is left out") && log.contains("Templates read again")).then_some(())
    });
    site.assert_contract_kept();
}
