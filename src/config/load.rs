//! Finds the sources of the configuration and lays them over each other.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use config::Source as _;

use super::check;
use super::source::{Finding, Findings, Place, Source, nearest};
use super::tree::{Entry, Node, Value};
use super::{Config, Effective, Severity};

/// Where the configuration is when nobody says otherwise.
pub const DEFAULT_FILE: &str = "/etc/pipepost/pipepost.toml";

/// Folder of drop-ins beside the file.
pub const DROP_INS: &str = "conf.d";

/// Folder beside the file from which the unit takes the credentials.
pub(super) const CREDENTIALS: &str = "credentials";

/// Longest file that is read: a configuration is written by hand.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Prefix of variables that overlay the files: `PIPEPOST__SECTION__KEY`.
const PREFIX: &str = "PIPEPOST";

/// First-level keys that are written `[[like this]]`.
pub(super) const LISTS: [&str; 4] = ["broker", "device", "modem", "channel"];

/// What to load.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// `--config`; else [`DEFAULT_FILE`].
    pub file: Option<PathBuf>,
    /// The environment. Only variables that start with `PIPEPOST__` count.
    pub environment: Vec<(OsString, OsString)>,
    /// `$CREDENTIALS_DIRECTORY`: systemd's credentials. Outside of the service, the folder that the service's unit
    /// takes them from: `credentials` beside the file.
    pub credentials: Option<PathBuf>,
    /// Takes files that the configuration names for granted: for a configuration that is meant for another
    /// machine. Secrets stay unread.
    pub without_files: bool,
}

impl Request {
    /// The request that `run` and `check` share: `--config` and this process's environment.
    #[must_use]
    pub fn of_this_process(file: Option<PathBuf>) -> Self {
        let credentials = credentials_of_systemd().or_else(|| {
            let folder = credentials_beside(file.as_deref());
            fs::read_dir(&folder).is_ok().then_some(folder)
        });
        Self {
            file,
            environment: std::env::vars_os().collect(),
            credentials,
            without_files: false,
        }
    }
}

fn credentials_of_systemd() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from)
}

fn credentials_beside(file: Option<&Path>) -> PathBuf {
    let file = file.unwrap_or(Path::new(DEFAULT_FILE));
    file.parent().unwrap_or(Path::new("")).join(CREDENTIALS)
}

/// The folder of the service's credentials when this process does not have them and may not look there either:
/// what a check says about missing secrets may be wrong then.
#[must_use]
pub fn hidden_credentials(file: Option<&Path>) -> Option<PathBuf> {
    if credentials_of_systemd().is_some() {
        return None;
    }
    let folder = credentials_beside(file);
    let denied = |error: io::Error| error.kind() == io::ErrorKind::PermissionDenied;
    fs::read_dir(&folder).is_err_and(denied).then_some(folder)
}

/// What came of a [`Request`].
#[derive(Debug)]
pub struct Loaded {
    /// The configuration; `None` when a finding is an error.
    pub config: Option<Config>,
    /// What there is to say, in the order in which it was found.
    pub findings: Vec<Finding>,
    /// The files that were read, in order.
    pub files: Vec<PathBuf>,
    effective: Option<Effective>,
}

impl Loaded {
    /// The merged configuration as TOML, defaults filled in, without secrets; `None` when a finding is an error.
    #[must_use]
    pub fn effective(&self) -> Option<String> {
        self.effective.as_ref().map(ToString::to_string)
    }

    /// How many findings are errors.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.severity == Severity::Error)
            .count()
    }
}

/// Reads, merges and checks the configuration. `run` and `check` both come through here.
#[must_use]
pub fn load(request: &Request) -> Loaded {
    let mut findings = Findings::default();
    let mut tree = Node::empty_table();
    let file = request.file.clone().unwrap_or_else(|| DEFAULT_FILE.into());
    let is_default = request.file.is_none();
    if let Some(text) = read_file(&file, is_default, &mut findings) {
        lay_over(&mut tree, file.clone(), &text, &mut findings);
    }
    for drop_in in drop_ins(&file, &mut findings) {
        if let Some(text) = read_file(&drop_in, false, &mut findings) {
            lay_over(&mut tree, drop_in, &text, &mut findings);
        }
    }
    overlay_environment(&mut tree, &request.environment, &mut findings);

    let files = findings
        .sources
        .iter()
        .filter_map(|source| match source {
            Source::File { path, .. } => Some(path.clone()),
            Source::Variable { .. } => None,
        })
        .collect();
    // After a file that cannot be read or parsed, findings about what is missing would mislead.
    if findings.has_errors() {
        return Loaded {
            config: None,
            findings: findings.list,
            files,
            effective: None,
        };
    }
    let (config, effective) = check::check(&tree, &mut findings, request);
    let (config, effective) = if findings.has_errors() {
        (None, None)
    } else {
        (Some(config), Some(effective))
    };
    Loaded {
        config,
        findings: findings.list,
        files,
        effective,
    }
}

fn read_file(path: &Path, is_default: bool, findings: &mut Findings) -> Option<String> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        fs::File::open(path)?
            .take(MAX_FILE_BYTES + 1)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = match read() {
        Ok(bytes) => bytes,
        Err(error) => {
            let hint = match error.kind() {
                io::ErrorKind::NotFound if is_default => {
                    Some("create it, or name another file with --config FILE".to_owned())
                }
                io::ErrorKind::PermissionDenied => {
                    Some("the user that runs pipepost must be able to read it".to_owned())
                }
                _ => None,
            };
            let message = format!("cannot read the configuration: {}", in_words(&error));
            findings.file_error(path.to_owned(), message, hint);
            return None;
        }
    };
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let message = "the configuration is larger than 1 MiB".to_owned();
        findings.file_error(path.to_owned(), message, Some("is it the right file?".to_owned()));
        return None;
    }
    match String::from_utf8(bytes) {
        Ok(text) => Some(text),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let line = error
                .as_bytes()
                .iter()
                .take(valid)
                .filter(|byte| **byte == b'\n')
                .count()
                + 1;
            let message = format!("line {line} is not UTF-8 text");
            findings.file_error(
                path.to_owned(),
                message,
                Some("save the file as UTF-8".to_owned()),
            );
            None
        }
    }
}

/// An operating system's error without its number.
pub(super) fn in_words(error: &io::Error) -> String {
    let text = error.to_string();
    let end = text.find(" (os error").unwrap_or(text.len());
    let mut words = text.get(..end).unwrap_or(&text).to_owned();
    if let Some(first) = words.get_mut(..1) {
        first.make_ascii_lowercase();
    }
    words
}

/// `conf.d/*.toml` beside the file, in the order of their names; hidden files are left out.
fn drop_ins(file: &Path, findings: &mut Findings) -> Vec<PathBuf> {
    let folder = file.parent().unwrap_or(Path::new("")).join(DROP_INS);
    let names = fs::read_dir(&folder).and_then(|entries| {
        entries
            .map(|entry| entry.map(|e| e.file_name()))
            .collect::<io::Result<Vec<_>>>()
    });
    match names {
        Ok(mut names) => {
            names.retain(|name| {
                let name = name.to_string_lossy();
                name.ends_with(".toml") && !name.starts_with('.')
            });
            names.sort_unstable();
            names.into_iter().map(|name| folder.join(name)).collect()
        }
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Vec::new()
        }
        Err(error) => {
            let message = format!("cannot read the folder of drop-ins: {}", in_words(&error));
            findings.file_error(folder, message, None);
            Vec::new()
        }
    }
}

fn lay_over(tree: &mut Node, path: PathBuf, text: &str, findings: &mut Findings) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let source = findings.sources.add(Source::File {
        path,
        text: text.to_owned(),
    });
    match Node::parse(text, source) {
        Ok(node) => tree.merge(node),
        Err(error) => {
            let span = error.span().unwrap_or(text.len()..text.len());
            let place = Place { source, span };
            findings.error(Some(&place), format!("not valid TOML: {}", error.message()), None);
        }
    }
}

/// Lays `PIPEPOST__SECTION__KEY` over the files. Elements of `[[broker]]` and its like are found by name
/// (`PIPEPOST__BROKER__SITE__URL`) or by their place, counted from 0.
fn overlay_environment(tree: &mut Node, environment: &[(OsString, OsString)], findings: &mut Findings) {
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    let mut values = config::Map::new();
    for (name, value) in environment {
        let Some(name) = name.to_str() else { continue };
        if !name.starts_with("PIPEPOST__") {
            if is_near_miss(name) {
                let source = findings.sources.add(Source::Variable {
                    name: name.to_owned(),
                });
                let hint = "the parts of the name are separated by two underscores: PIPEPOST__SECTION__KEY";
                findings.warning(
                    Some(&Place { source, span: 0..0 }),
                    "this variable is not heeded",
                    Some(hint.to_owned()),
                );
            }
            continue;
        }
        let Some(value) = value.to_str() else {
            let source = findings.sources.add(Source::Variable {
                name: name.to_owned(),
            });
            let place = Place { source, span: 0..0 };
            findings.error(Some(&place), "the value is not UTF-8 text", None);
            continue;
        };
        let dotted = name.to_lowercase().replace("__", ".");
        let dotted = dotted.split_once('.').map_or("", |(_, key)| key).to_owned();
        names.insert(dotted, name.to_owned());
        values.insert(name.to_owned(), value.to_owned());
    }
    let overlay = config::Environment::with_prefix(PREFIX)
        .prefix_separator("__")
        .separator("__")
        .ignore_empty(true)
        .source(Some(values))
        .collect();
    let overlay = match overlay {
        Ok(overlay) => overlay,
        Err(error) => {
            findings.error(None, format!("cannot use the environment: {error}"), None);
            return;
        }
    };
    let mut keys: Vec<(String, String)> = overlay
        .into_iter()
        .filter_map(|(key, value)| Some((key, value.into_string().ok()?)))
        .collect();
    // Element 2 must come before element 10, because an element may only be added at the end.
    keys.sort_by_cached_key(|(key, _)| {
        key.split('.')
            .map(|s| (s.parse::<usize>().unwrap_or(0), s.to_owned()))
            .collect::<Vec<_>>()
    });
    for (key, value) in keys {
        let name = names.get(&key).cloned().unwrap_or_else(|| key.clone());
        let source = findings.sources.add(Source::Variable { name });
        let at = Place { source, span: 0..0 };
        let segments: Vec<&str> = key.split('.').collect();
        if let Err(message) = set(
            tree,
            &segments,
            Node {
                value: Value::Text(value),
                at: at.clone(),
            },
            0,
        ) {
            findings.error(Some(&at), message, None);
        }
    }
}

/// Whether someone meant a key of the configuration and wrote too few underscores. Other variables that begin with
/// the name of the program are none of its business.
fn is_near_miss(name: &str) -> bool {
    const SECTIONS: [&str; 5] = ["GATEWAY_", "PIPEDRIVE_", "LISTENER_", "STORE_", "LOG_"];
    name.strip_prefix("PIPEPOST_").is_some_and(|rest| {
        let lists = LISTS.iter().map(|list| list.to_uppercase() + "_");
        SECTIONS.iter().any(|section| rest.starts_with(section))
            || lists.into_iter().any(|l| rest.starts_with(&l))
    })
}

fn set(node: &mut Node, path: &[&str], value: Node, depth: usize) -> Result<(), String> {
    let Some((segment, rest)) = path.split_first() else {
        *node = value;
        return Ok(());
    };
    if segment.is_empty() {
        return Err("the name has an empty part: write PIPEPOST__SECTION__KEY".to_owned());
    }
    match &mut node.value {
        Value::Table(entries) => {
            if let Some(entry) = entries.iter_mut().find(|entry| entry.key == *segment) {
                return set(&mut entry.node, rest, value, depth + 1);
            }
            let is_list = depth == 0 && LISTS.contains(segment);
            let fresh = if is_list {
                Value::List(Vec::new())
            } else {
                Value::Table(Vec::new())
            };
            let mut fresh = Node {
                value: fresh,
                at: value.at.clone(),
            };
            let key_at = value.at.clone();
            set(&mut fresh, rest, value, depth + 1)?;
            entries.push(Entry {
                key: (*segment).to_owned(),
                key_at,
                node: fresh,
            });
            Ok(())
        }
        Value::List(items) if !rest.is_empty() => {
            if let Some(item) = items.iter_mut().find(|item| is_called(item, segment)) {
                return set(item, rest, value, depth + 1);
            }
            match segment.parse::<usize>() {
                Ok(index) if index == items.len() => {
                    let mut fresh = Node {
                        value: Value::Table(Vec::new()),
                        at: value.at.clone(),
                    };
                    set(&mut fresh, rest, value, depth + 1)?;
                    items.push(fresh);
                    Ok(())
                }
                Ok(index) => match items.get_mut(index) {
                    Some(item) => set(item, rest, value, depth + 1),
                    None => Err(format!(
                        "there are only {} of these, so there is no number {index}",
                        items.len()
                    )),
                },
                Err(_) => {
                    let known: Vec<&str> = items.iter().filter_map(name_of).collect();
                    if known.is_empty() {
                        return Err(format!("nothing here is named {segment:?}"));
                    }
                    let meant = nearest(segment, known.iter().copied()).map_or_else(
                        || format!("; known: {}", known.join(", ")),
                        |meant| format!("; did you mean {meant:?}?"),
                    );
                    Err(format!("nothing here is named {segment:?}{meant}"))
                }
            }
        }
        _ => Err(format!("{segment:?} is below a key that has a value of its own")),
    }
}

fn name_of(item: &Node) -> Option<&str> {
    item.get("id").or_else(|| item.get("name")).and_then(Node::text)
}

/// Names of variables have neither lower case nor dashes.
fn is_called(item: &Node, segment: &str) -> bool {
    let same = |key| {
        let name = item.get(key).and_then(Node::text);
        name.is_some_and(|name| name.to_lowercase().replace('-', "_") == *segment)
    };
    same("id") || (item.get("id").is_none() && same("name"))
}
