//! Message templates: one TOML file each in a folder, which Pipedrive offers to the agents.
//!
//! A template that cannot be used is left out with a warning: it is no reason to keep messages waiting.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::de::typed;
use super::files::read_limited;
use super::load::in_words;
use super::source::{Finding, Findings, Place, Severity, Source, nearest};
use super::tree::Node;
use crate::domain::ChannelId;

/// Where templates are when nobody says otherwise; it need not exist.
pub(super) const DEFAULT_DIR: &str = "/etc/pipepost/templates";
/// Most templates that are offered.
const MAX_TEMPLATES: usize = 200;
/// Longest file, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 10;
/// Longest content, in characters.
const MAX_CONTENT: usize = 4000;
/// Longest name, in characters.
const MAX_NAME: usize = 255;
/// Longest id, in bytes.
const MAX_ID: usize = 64;

/// A text that agents can start from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    /// The file's name without `.toml`.
    pub id: String,
    /// `name`, shown to the agent.
    pub name: String,
    /// `language`, such as `en` or `pt-BR`.
    pub language: String,
    /// `content`
    pub content: String,
    /// `channels` that it is offered on; all when there are none.
    pub channels: Vec<ChannelId>,
}

impl Template {
    /// Whether it is offered on a channel.
    #[must_use]
    pub fn is_for(&self, channel: &ChannelId) -> bool {
        self.channels.is_empty() || self.channels.contains(channel)
    }
}

/// A file as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: String,
    language: String,
    content: String,
    #[serde(default)]
    channels: Vec<ChannelId>,
}

/// Reads the templates of a folder in the order of their names, and says what is wrong with those that are left out:
/// all findings are warnings.
#[must_use]
pub fn templates(folder: &Path, channels: &[ChannelId]) -> (Vec<Template>, Vec<Finding>) {
    let mut findings = Findings::default();
    let mut templates = Vec::new();
    for path in files(folder, &mut findings) {
        let known = findings.list.len();
        let read = template(&path, channels, &mut findings);
        if findings.list.len() > known {
            continue;
        }
        if templates.len() >= MAX_TEMPLATES {
            let message =
                format!("there are more than {MAX_TEMPLATES} templates: this and later ones are left out");
            findings.file_error(path, message, None);
            break;
        }
        templates.extend(read);
    }
    for finding in &mut findings.list {
        finding.severity = Severity::Warning;
        let also = "until then the template is not offered";
        finding.hint = Some(match finding.hint.take() {
            Some(hint) => format!("{hint} ({also})"),
            None => also.to_owned(),
        });
    }
    (templates, findings.list)
}

fn files(folder: &Path, findings: &mut Findings) -> Vec<PathBuf> {
    let names = fs::read_dir(folder).and_then(|entries| {
        entries
            .map(|entry| entry.map(|e| e.path()))
            .collect::<io::Result<Vec<_>>>()
    });
    match names {
        Ok(mut paths) => {
            paths.retain(|path| {
                let hidden = path
                    .file_name()
                    .is_none_or(|name| name.to_string_lossy().starts_with('.'));
                !hidden && path.extension().is_some_and(|extension| extension == "toml")
            });
            paths.sort_unstable();
            paths
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && folder == Path::new(DEFAULT_DIR) => {
            Vec::new()
        }
        Err(error) => {
            let message = format!("cannot read the folder of templates: {}", in_words(&error));
            findings.file_error(folder.to_owned(), message, None);
            Vec::new()
        }
    }
}

fn template(path: &Path, channels: &[ChannelId], findings: &mut Findings) -> Option<Template> {
    let id = path.file_stem()?.to_string_lossy().into_owned();
    let safe = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if id.len() > MAX_ID || !id.chars().all(safe) {
        let hint =
            format!("use at most {MAX_ID} of a-z, A-Z, 0-9, \"-\" and \"_\": the name is the template's id");
        findings.file_error(
            path.to_owned(),
            "this name of a file cannot be an id".to_owned(),
            Some(hint),
        );
        return None;
    }
    let bytes = match read_limited(path, MAX_FILE_BYTES) {
        Ok(bytes) => bytes,
        Err(error) => {
            findings.file_error(
                path.to_owned(),
                format!("cannot read it: {}", in_words(&error)),
                None,
            );
            return None;
        }
    };
    let text = match String::from_utf8(bytes) {
        Ok(text) if text.len() as u64 <= MAX_FILE_BYTES => text,
        other => {
            let message = if other.is_ok() {
                "the file is larger than 64 KiB"
            } else {
                "the file is not UTF-8 text"
            };
            findings.file_error(path.to_owned(), message.to_owned(), None);
            return None;
        }
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text).to_owned();
    let source = findings.sources.add(Source::File {
        path: path.to_owned(),
        text: text.clone(),
    });
    let node = match Node::parse(&text, source) {
        Ok(node) => node,
        Err(error) => {
            let span = error.span().unwrap_or(text.len()..text.len());
            let place = Place { source, span };
            findings.error(Some(&place), format!("not valid TOML: {}", error.message()), None);
            return None;
        }
    };
    let raw: Raw = typed(&node, findings)?;
    check(&node, &raw, channels, findings);
    Some(Template {
        id,
        name: raw.name.trim().to_owned(),
        language: raw.language,
        content: raw.content.trim_end().to_owned(),
        channels: raw.channels,
    })
}

fn check(node: &Node, raw: &Raw, channels: &[ChannelId], findings: &mut Findings) {
    let mut wrong = |key: &str, message: String, hint: Option<String>| {
        findings.error(node.get(key).map(|value| &value.at), message, hint);
    };
    if raw.name.trim().is_empty()
        || raw.name.chars().count() > MAX_NAME
        || raw.name.chars().any(char::is_control)
    {
        wrong(
            "name",
            format!("\"name\" must have 1 to {MAX_NAME} characters on one line"),
            None,
        );
    }
    if !is_language(&raw.language) {
        let hint = Some("write a tag such as \"en\", \"de\" or \"pt-BR\"".to_owned());
        wrong("language", format!("{:?} is no language", raw.language), hint);
    }
    let length = raw.content.trim().chars().count();
    if length == 0 || length > MAX_CONTENT {
        wrong(
            "content",
            format!("\"content\" must have 1 to {MAX_CONTENT} characters, not {length}"),
            None,
        );
    }
    if raw
        .content
        .chars()
        .any(|c| c.is_control() && c != '\n' && c != '\t')
    {
        wrong(
            "content",
            "\"content\" holds a control character".to_owned(),
            None,
        );
    }
    for named in raw.channels.iter().filter(|named| !channels.contains(named)) {
        let known = channels.iter().map(ChannelId::as_str);
        let hint = match nearest(named.as_str(), known.clone()) {
            Some(meant) => format!("did you mean {meant:?}?"),
            None => format!("configured channels: {}", known.collect::<Vec<_>>().join(", ")),
        };
        wrong(
            "channels",
            format!("there is no [[channel]] with the id {:?}", named.as_str()),
            Some(hint),
        );
    }
}

/// A language tag as far as its form goes (RFC 5646), with `_` too.
fn is_language(tag: &str) -> bool {
    let mut parts = tag.split(['-', '_']);
    let first = parts.next().unwrap_or_default();
    (2..=3).contains(&first.len())
        && first.bytes().all(|c| c.is_ascii_alphabetic())
        && tag.len() <= 35
        && parts.all(|part| (2..=8).contains(&part.len()) && part.bytes().all(|c| c.is_ascii_alphanumeric()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)]) -> (Vec<Template>, String) {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        let (templates, findings) = templates(folder.path(), &["sms".parse().unwrap()]);
        let said: Vec<String> = findings.iter().map(ToString::to_string).collect();
        let said = said
            .join("\n\n")
            .replace(&folder.path().display().to_string(), "");
        (templates, said)
    }

    #[test]
    fn templates_come_in_the_order_of_their_files_for_the_channels_that_they_name() {
        let (templates, said) = read(&[
            (
                "b.toml",
                "name='Two'\nlanguage='pt-BR'\ncontent='Olá'\nchannels=['sms']",
            ),
            (
                "a.toml",
                "name='One'\nlanguage='en'\ncontent='''\nHello,\nAnn\n'''\n",
            ),
            (".c.toml", "x"),
            ("d.toml~", "x"),
        ]);
        assert_eq!(said, "");
        let ids: Vec<_> = templates
            .iter()
            .map(|t| (t.id.as_str(), t.content.as_str()))
            .collect();
        assert_eq!(ids, [("a", "Hello,\nAnn"), ("b", "Olá")]);
        let (sms, other) = ("sms".parse().unwrap(), "other".parse().unwrap());
        assert!(templates[0].is_for(&other) && templates[1].is_for(&sms) && !templates[1].is_for(&other));
    }

    #[test]
    fn a_template_that_cannot_be_used_is_left_out_with_line_and_remedy() {
        let (templates, said) = read(&[
            ("good.toml", "name='One'\nlanguage='en'\ncontent='Hi'"),
            ("not an id.toml", "name='One'\nlanguage='en'\ncontent='Hi'"),
            (
                "language.toml",
                "name='One'\nlanguage='english please'\ncontent='Hi'",
            ),
            (
                "channel.toml",
                "name='One'\nlanguage='en'\ncontent='Hi'\nchannels=['smss']",
            ),
            ("key.toml", "name='One'\nlanguage='en'\ntext='Hi'"),
            ("toml.toml", "name=One"),
            ("empty.toml", "name=' '\nlanguage='en'\ncontent=''"),
            ("control.toml", "name='One'\nlanguage='en'\ncontent=\"a\\u0007\""),
        ]);
        assert_eq!(templates.len(), 1, "{said}");
        for part in [
            "/not an id.toml",
            "cannot be an id",
            "/language.toml:2:10",
            "\"english please\" is no language",
            "did you mean \"sms\"? (until then the template is not offered)",
            "/key.toml",
            "\"text\"",
            "/toml.toml:1:6",
            "\"name\" must have 1 to 255 characters",
            "\"content\" must have 1 to 4000 characters, not 0",
            "control character",
        ] {
            assert!(said.contains(part), "{part} is not in:\n{said}");
        }
        assert!(!said.contains("error:"), "{said}");
    }

    #[test]
    fn a_folder_that_is_not_there_is_said_unless_nobody_asked_for_it() {
        let (_, findings) = templates(Path::new("/nowhere/templates"), &[]);
        assert!(
            findings[0].to_string().contains("folder of templates"),
            "{}",
            findings[0]
        );
    }

    #[test]
    fn the_shipped_templates_are_usable() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/templates");
        let (templates, findings) = templates(&folder, &[]);
        assert!(findings.is_empty() && templates.len() >= 3, "{findings:?}");
    }
}
