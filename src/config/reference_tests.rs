//! Holds `config/pipepost.toml`, the examples and the pairs in `tests/configs` against the loader.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

use super::load::{Request, load};
use super::{Loaded, raw};
use crate::protocol::mqtt::spec;

const REFERENCE: &str = include_str!("../../config/pipepost.toml");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Loads one text, with the files that it names taken for granted.
fn load_text(text: &str, environment: &[(&str, &str)]) -> Loaded {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pipepost.toml");
    fs::write(&file, text).unwrap();
    let environment = environment.iter().map(|(k, v)| (k.into(), v.into())).collect();
    load(&Request {
        file: Some(file),
        environment,
        credentials: None,
        without_files: true,
    })
}

fn complaints(loaded: &Loaded) -> String {
    loaded
        .findings
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n\n")
}

/// The reference with its settings switched on; with `examples` also those that have no default.
fn uncommented(examples: bool) -> String {
    let setting = |line: &&str| !line.starts_with("# ") && *line != "#" && !line.is_empty();
    let wanted = |line: &&str| examples || !line.ends_with("# example");
    let lines = REFERENCE.lines().filter(setting).filter(wanted);
    lines
        .map(|line| line.strip_prefix('#').unwrap_or(line))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn the_reference_uncommented_is_valid() {
    let loaded = load_text(&uncommented(true), &[]);
    assert!(loaded.config.is_some(), "{}", complaints(&loaded));
}

#[test]
fn the_reference_as_shipped_only_lacks_what_nobody_can_know() {
    let loaded = load_text(REFERENCE, &[]);
    assert!(loaded.config.is_some(), "{}", complaints(&loaded));
    assert!(complaints(&loaded).contains("the gateway has nothing to do"));
}

#[test]
fn every_default_in_the_reference_is_the_default() {
    let least = "[[broker]]\nname='a'\nurl='mqtt://h'\n[[device]]\nname='d'\npreset='sms2mqtt'\n\
                 [[modem]]\nname='m'\nport='/dev/m'\nhome_country='NL'\n\
                 [[channel]]\nid='c'\nname='c'\nkind='mqtt'\ndevice='d'\n";
    let effective: toml::Table = load_text(least, &[]).effective().unwrap().parse().unwrap();
    let reference: toml::Table = uncommented(false).parse().unwrap();
    let mut compared = 0;
    for (section, shown) in &reference {
        let first = |value: &toml::Value| match value {
            toml::Value::Array(items) => items[0].as_table().unwrap().clone(),
            other => other.as_table().unwrap().clone(),
        };
        if section == "device" {
            continue;
        }
        let (shown, real) = (first(shown), first(&effective[section]));
        for (key, value) in &shown {
            assert_eq!(Some(value), real.get(key), "{section}.{key}");
            compared += 1;
        }
        let required = ["name", "url", "id", "kind", "device", "port", "home_country"];
        for key in real.keys().filter(|key| !required.contains(&key.as_str())) {
            assert!(
                shown.contains_key(key),
                "{section}.{key} has a default that the reference does not show"
            );
        }
    }
    assert!(compared >= 25, "only {compared} defaults compared");
}

#[test]
fn files_that_no_packet_can_bring_are_warned_about() {
    let with = |broker: &str, attachments: &str| {
        let text = format!(
            "[[broker]]\nname='a'\nurl='mqtt://h'\n{broker}\n[[device]]\nname='d'\n[device.in]\ntopic='t'\n\
             from='/f'\nattachments={attachments}\n[[channel]]\nid='c'\nname='c'\nkind='mqtt'\ndevice='d'\n"
        );
        complaints(&load_text(&text, &[]))
    };
    let warned = with("", "{ at='/a' }");
    assert!(
        warned.contains(
            "warning: the largest files of this device need packets of 6.6 MiB, and the broker \"a\" passes on packets \
             up to 1 MiB only: larger messages are lost"
        ) && warned.contains("set max_packet_size = \"7MiB\" for the broker"),
        "{warned}"
    );
    assert_eq!(with("max_packet_size='7MiB'", "{ at='/a' }"), "");
    assert_eq!(with("", "{ at='/a', max_size='700KiB' }"), "");
    assert_eq!(with("", "{ url='/a' }"), "");
}

/// Answers every question for a type with the names of its fields.
struct FieldNames;

impl<'de> Deserializer<'de> for FieldNames {
    type Error = de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(de::Error::custom("not a struct"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Self::Error> {
        Err(de::Error::custom(fields.join(" ")))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

fn fields<'de, T: Deserialize<'de> + std::fmt::Debug>() -> Vec<String> {
    let names = T::deserialize(FieldNames).unwrap_err().to_string();
    assert_ne!(names, "not a struct");
    names.split(' ').map(ToOwned::to_owned).collect()
}

#[test]
fn the_reference_shows_every_key() {
    let reference: toml::Table = uncommented(true).parse().unwrap();
    let table = |path: &[&str]| {
        let mut value = toml::Value::Table(reference.clone());
        for key in path {
            value = value[*key].clone();
            if let toml::Value::Array(items) = &value {
                // A channel of each kind is shown.
                let tables = items.iter().rev().map(|item| item.as_table().unwrap().clone());
                value = toml::Value::Table(tables.flatten().collect());
            }
        }
        value.as_table().unwrap().clone()
    };
    let expected: [(&[&str], Vec<String>); 14] = [
        (&["gateway"], fields::<raw::Gateway>()),
        (&["pipedrive"], fields::<raw::Pipedrive>()),
        (&["listener"], fields::<raw::Listener>()),
        (&["store"], fields::<raw::Store>()),
        (&["log"], fields::<raw::Log>()),
        (&["broker"], fields::<raw::Broker>()),
        (&["device"], fields::<raw::Device>()),
        (&["device"], fields::<spec::DeviceSpec>()),
        (&["device", "in"], fields::<spec::InSpec>()),
        (&["device", "in", "attachments"], fields::<spec::AttachmentSpec>()),
        (&["device", "out"], fields::<spec::OutSpec>()),
        (&["device", "status"], fields::<spec::StatusSpec>()),
        (&["modem"], fields::<raw::Modem>()),
        (&["channel"], fields::<raw::Channel>()),
    ];
    for (path, keys) in expected {
        let shown = table(path);
        for key in keys.iter().filter(|key| *key != "means") {
            assert!(
                shown.contains_key(key),
                "{}.{key} is not in the reference",
                path.join(".")
            );
        }
    }
    // The one key that excludes others is explained beside them.
    assert!(REFERENCE.contains("means = "));
}

/// All files below a folder of the package, by extension; fails when there are none.
fn shipped(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == extension));
    files.sort();
    assert!(!files.is_empty(), "no .{extension} in {folder}");
    files
}

#[test]
fn every_shipped_configuration_is_valid_and_survives_being_printed() {
    for file in shipped("config/examples", "toml")
        .into_iter()
        .chain(shipped("tests/configs/valid", "toml"))
    {
        let request = Request {
            file: Some(file.clone()),
            without_files: true,
            ..Request::default()
        };
        let loaded = load(&request);
        assert!(loaded.findings.is_empty(), "{}", complaints(&loaded));
        let effective = loaded.effective().unwrap();
        let again = load_text(&effective, &[]);
        assert_eq!(again.effective(), Some(effective), "{}", file.display());
        assert!(super::summary(&loaded.config.unwrap(), &loaded.files).contains("channel"));
    }
}

#[test]
fn every_preset_has_an_example_to_copy_and_a_place_in_the_reference() {
    let reference = fs::read_to_string(root().join("config/pipepost.toml")).unwrap();
    for (name, _) in crate::protocol::mqtt::presets::ALL {
        let file = root().join(format!("config/examples/{name}.toml"));
        let text = fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        assert!(text.contains(&format!("preset = \"{name}\"")), "{name}");
        assert!(reference.contains(name), "{name} is not in the reference");
    }
}

/// Variables that the first lines of a test's file ask for: `#! PIPEPOST__A__B=value`; `#! files` has the files
/// that the configuration names looked at.
fn directives(file: &Path) -> (Vec<(String, String)>, bool) {
    let text = String::from_utf8_lossy(&fs::read(file).unwrap()).into_owned();
    let lines: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("#! ")).collect();
    let variables = lines.iter().filter_map(|line| line.split_once('='));
    (
        variables.map(|(k, v)| (k.to_owned(), v.to_owned())).collect(),
        lines.contains(&"files"),
    )
}

#[test]
fn every_mistake_gets_exactly_its_message() {
    compare_messages("tests/configs/invalid", 25, |loaded| {
        loaded.config.is_none() && loaded.errors() > 0
    });
}

#[test]
fn every_warning_has_exactly_its_message_and_keeps_nothing_from_starting() {
    compare_messages("tests/configs/warned", 1, |loaded| {
        loaded.config.is_some() && loaded.errors() == 0
    });
}

#[test]
fn the_longest_stop_is_the_one_that_the_unit_allows() {
    let unit = fs::read_to_string(root().join("systemd/pipepost.service")).unwrap();
    let line = format!("TimeoutStopSec={}", super::check::UNIT_STOPS_WITHIN.as_secs());
    assert!(unit.lines().any(|in_unit| in_unit == line), "{line}");
}

/// With `PIPEPOST_BLESS=1` the expected texts are written instead of compared: read the difference before keeping it.
fn compare_messages(folder: &str, least: usize, fits: impl Fn(&Loaded) -> bool) {
    let folder = root().join(folder);
    let mut cases = BTreeMap::new();
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            cases.insert(name, path.join("pipepost.toml"));
        } else if path.extension().is_some_and(|e| e == "toml") {
            cases.insert(name, path);
        }
    }
    assert!(cases.len() >= least, "only {} cases found", cases.len());
    let bless = std::env::var_os("PIPEPOST_BLESS").is_some();
    let mut wrong = Vec::new();
    for (name, file) in cases {
        let (variables, with_files) = directives(&file);
        let environment = variables.iter().map(|(k, v)| (k.into(), v.into())).collect();
        let request = Request {
            file: Some(file),
            environment,
            credentials: None,
            without_files: !with_files,
        };
        let loaded = load(&request);
        assert!(fits(&loaded), "{name}: {}", complaints(&loaded));
        let place = format!("{}/", folder.display());
        let text = format!("{}\n", complaints(&loaded).replace(&place, ""));
        let expected = folder.join(format!("{name}.expected"));
        if bless {
            fs::write(&expected, &text).unwrap();
        } else if fs::read_to_string(&expected).unwrap_or_default() != text {
            wrong.push(format!("--- {name}\n{text}"));
        }
    }
    assert!(wrong.is_empty(), "not as expected:\n{}", wrong.join("\n"));
}

#[test]
fn a_variable_reaches_a_named_element_and_a_later_file_wins() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pipepost.toml");
    fs::copy(root().join("config/examples/minimal.toml"), &file).unwrap();
    fs::create_dir(folder.path().join("conf.d")).unwrap();
    fs::write(
        folder.path().join("conf.d/10-a.toml"),
        "[log]\nlevel = 'warn'\n[store]\nretain_for = '2 days'",
    )
    .unwrap();
    fs::write(folder.path().join("conf.d/20-b.toml"), "[log]\nlevel = 'debug'").unwrap();
    fs::write(folder.path().join("conf.d/.hidden.toml"), "nonsense").unwrap();
    fs::write(folder.path().join("conf.d/old.toml.bak"), "nonsense").unwrap();
    let environment = vec![
        (
            "PIPEPOST__BROKER__SITE__URL".into(),
            "mqtts://other.example".into(),
        ),
        ("PIPEPOST__CHANNEL__SMS__TEMPLATE_SUPPORT".into(), "true".into()),
        ("PIPEPOST__PIPEDRIVE__IN_FLIGHT".into(), "3".into()),
        ("PIPEPOST__GATEWAY__ID".into(), "".into()),
        ("PIPEPOST_OTHER".into(), "ignored".into()),
    ];
    let loaded = load(&Request {
        file: Some(file),
        environment,
        credentials: None,
        without_files: true,
    });
    assert_eq!(loaded.files.len(), 3);
    let config = loaded
        .config
        .as_ref()
        .unwrap_or_else(|| panic!("{}", complaints(&loaded)));
    assert_eq!(config.log.level, log::LevelFilter::Debug);
    assert_eq!(config.store.retain_for.as_secs(), 2 * 86_400);
    assert_eq!(
        (config.brokers[0].host.as_str(), config.brokers[0].port),
        ("other.example", 8883)
    );
    assert!(config.brokers[0].tls.is_some() && config.channels[0].template_support);
    assert_eq!((config.pipedrive.in_flight, &config.gateway.id), (3, &None));
}

#[test]
fn a_variable_with_too_few_underscores_is_pointed_out_and_a_stranger_is_not() {
    let environment = [("PIPEPOST_LOG_LEVEL", "debug"), ("PIPEPOST_VERSION", "1")];
    let loaded = load_text("", &environment);
    assert!(loaded.config.is_some());
    let said = complaints(&loaded);
    assert!(
        said.contains("PIPEPOST_LOG_LEVEL") && said.contains("PIPEPOST__SECTION__KEY"),
        "{said}"
    );
    assert!(!said.contains("VERSION"), "{said}");
}

#[test]
fn a_configuration_can_come_from_the_environment_alone() {
    let loaded = load_text(
        "",
        &[
            ("PIPEPOST__BROKER__0__NAME", "site"),
            ("PIPEPOST__BROKER__0__URL", "mqtt://localhost"),
            ("PIPEPOST__DEVICE__0__NAME", "stick"),
            ("PIPEPOST__DEVICE__0__PRESET", "sms2mqtt"),
            ("PIPEPOST__CHANNEL__0__ID", "sms"),
            ("PIPEPOST__CHANNEL__0__NAME", "SMS"),
            ("PIPEPOST__CHANNEL__0__KIND", "mqtt"),
            ("PIPEPOST__CHANNEL__0__DEVICE", "stick"),
        ],
    );
    assert!(loaded.findings.is_empty(), "{}", complaints(&loaded));
}

#[test]
fn a_key_for_the_tokens_that_could_be_guessed_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pipepost.toml");
    fs::copy(root().join("config/examples/minimal.toml"), &file).unwrap();
    fs::write(folder.path().join("token-key"), "correct horse\n").unwrap();
    let loaded = load(&Request {
        file: Some(file),
        credentials: Some(folder.path().to_owned()),
        ..Request::default()
    });
    let complaints = complaints(&loaded);
    assert!(
        complaints.contains("less than 22 characters") && complaints.contains("openssl rand"),
        "{complaints}"
    );
    assert!(!complaints.contains("correct horse"), "{complaints}");
    assert!(loaded.config.is_none());
}

#[test]
fn secrets_come_from_files_and_credentials_and_are_never_printed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pipepost.toml");
    let text = fs::read_to_string(root().join("config/examples/minimal.toml")).unwrap();
    let text = text.replace("[pipedrive]", "[pipedrive]\naccess_token_file = 'token'")
        + "[[broker]]\nname = 'two'\nurl = 'mqtt://localhost:2'\nusername = 'u'\n";
    fs::write(
        &file,
        text.replace("name = \"sms-stick\"", "name = \"sms-stick\"\nbroker = \"two\""),
    )
    .unwrap();
    fs::write(folder.path().join("token"), "explicit-hunter2\n").unwrap();
    let credentials = folder.path().join("credentials");
    fs::create_dir(&credentials).unwrap();
    fs::write(credentials.join("access-token"), "never-hunter2").unwrap();
    fs::write(credentials.join("client-secret"), "").unwrap();
    fs::write(credentials.join("token-key"), "a-random-key-of-hunter2\n").unwrap();
    fs::write(credentials.join("broker-two-password"), "pass-hunter2\r\n").unwrap();
    let request = Request {
        file: Some(file),
        credentials: Some(credentials),
        ..Request::default()
    };
    let loaded = load(&request);
    let config = loaded
        .config
        .as_ref()
        .unwrap_or_else(|| panic!("{}", complaints(&loaded)));
    assert_eq!(
        config.pipedrive.access_token.as_ref().unwrap().expose(),
        "explicit-hunter2"
    );
    assert_eq!(config.pipedrive.client_secret, None);
    let key = config.pipedrive.token_key.as_ref().unwrap();
    assert_eq!(key.expose(), "a-random-key-of-hunter2");
    assert_eq!(
        config.brokers[1].password.as_ref().unwrap().expose(),
        "pass-hunter2"
    );
    let effective = loaded.effective().unwrap();
    let everything = format!("{loaded:?}{effective}{}", complaints(&loaded));
    assert!(!everything.contains("hunter2"), "{everything}");
    assert!(
        effective.contains("# pipedrive.access_token = \"***\""),
        "{effective}"
    );
    assert!(
        complaints(&loaded).contains("everyone on this machine can read the file"),
        "{}",
        complaints(&loaded)
    );
}

#[test]
fn a_missing_default_file_is_said_with_what_to_do() {
    let missing = PathBuf::from("/nonexistent/pipepost.toml");
    let loaded = load(&Request {
        file: Some(missing),
        ..Request::default()
    });
    assert_eq!(
        complaints(&loaded),
        "error: cannot read the configuration: no such file or directory\n  --> /nonexistent/pipepost.toml"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_bytes_make_the_loader_panic(bytes: Vec<u8>, name in "[A-Z_0-9]{0,12}", value in ".{0,12}") {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pipepost.toml");
        fs::write(&file, &bytes).unwrap();
        let environment = vec![(format!("PIPEPOST__{name}").into(), value.into())];
        let loaded = load(&Request { file: Some(file), environment, ..Request::default() });
        prop_assert_eq!(loaded.config.is_none(), loaded.errors() > 0);
    }

    #[test]
    fn no_damage_to_the_reference_makes_the_loader_panic(
        at in 0..6000_usize, cut in 0..40_usize, put in "[\\[\\]{}=\"'.,#\n a-zé\u{1b}]{0,8}",
    ) {
        let text = uncommented(true);
        let chars: Vec<char> = text.chars().collect();
        let at = at.min(chars.len());
        let end = (at + cut).min(chars.len());
        let damaged: String =
            chars[..at].iter().copied().chain(put.chars()).chain(chars[end..].iter().copied()).collect();
        let loaded = load_text(&damaged, &[]);
        prop_assert_eq!(loaded.config.is_none(), loaded.errors() > 0);
        let drives_terminal = complaints(&loaded).contains('\u{1b}');
        prop_assert!(!drives_terminal);
    }
}
