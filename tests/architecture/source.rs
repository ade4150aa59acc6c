//! Just enough of Rust's grammar to find the paths in a file.

/// A path as it is written, `use` groups taken apart: `["crate", "store", "Store"]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// Its names. A glob is `*`.
    pub(crate) names: Vec<String>,
    /// In a `use`: whether the last name is renamed with `as`.
    pub(crate) renamed: bool,
    /// Line, from 1.
    pub(crate) line: usize,
    /// Inline modules around it.
    pub(crate) modules: Vec<String>,
    /// Inside a `#[cfg(test)]` module.
    pub(crate) test: bool,
}

/// What a file says.
#[derive(Debug, Default)]
pub(crate) struct Source {
    /// All paths of two names or more, and all of `use`.
    pub(crate) paths: Vec<Found>,
    /// Names of modules declared with `#[cfg(test)] mod name;`.
    pub(crate) test_modules: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    text: String,
    line: usize,
}

impl Token {
    fn is_name(&self) -> bool {
        self.text
            .starts_with(|first: char| first == '_' || first.is_alphabetic())
    }
}

/// Names and punctuation, without comments, literals and lifetimes.
fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let mut found = Vec::new();
    let (mut index, mut line) = (0, 1);
    while index < chars.len() {
        let start = index;
        let now = at(index);
        if now == '/' && at(index + 1) == '/' {
            while index < chars.len() && at(index) != '\n' {
                index += 1;
            }
        } else if now == '/' && at(index + 1) == '*' {
            let mut depth = 0;
            loop {
                if at(index) == '/' && at(index + 1) == '*' {
                    depth += 1;
                    index += 2;
                } else if at(index) == '*' && at(index + 1) == '/' {
                    depth -= 1;
                    index += 2;
                } else {
                    index += 1;
                }
                if depth == 0 || index >= chars.len() {
                    break;
                }
            }
        } else if let Some(end) = raw_string(&chars, index) {
            index = end;
        } else if now == '"' {
            index += 1;
            while index < chars.len() && at(index) != '"' {
                index += if at(index) == '\\' { 2 } else { 1 };
            }
            index += 1;
        } else if now == '\'' && (at(index + 1) == '\\' || at(index + 2) == '\'') {
            // A character; anything else with an apostrophe is a lifetime or a label.
            index += if at(index + 1) == '\\' { 3 } else { 2 };
            while index < chars.len() && at(index) != '\'' {
                index += 1;
            }
            index += 1;
        } else if now == '\'' || now == '_' || now.is_alphanumeric() {
            index += 1;
            while at(index) == '_' || at(index).is_alphanumeric() {
                index += 1;
            }
            if now != '\'' {
                found.push(Token {
                    text: chars[start..index].iter().collect(),
                    line,
                });
            }
        } else if now == ':' && at(index + 1) == ':' {
            index += 2;
            found.push(Token {
                text: "::".to_owned(),
                line,
            });
        } else {
            index += 1;
            if !now.is_whitespace() {
                found.push(Token {
                    text: now.to_string(),
                    line,
                });
            }
        }
        line += chars[start..index.min(chars.len())]
            .iter()
            .filter(|&&char| char == '\n')
            .count();
    }
    found
}

/// The end of a raw string that starts here.
fn raw_string(chars: &[char], start: usize) -> Option<usize> {
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    if start > 0 && (at(start - 1) == '_' || at(start - 1).is_alphanumeric()) {
        return None;
    }
    let mut index = start;
    if matches!(at(index), 'b' | 'c') {
        index += 1;
    }
    if at(index) != 'r' {
        return None;
    }
    index += 1;
    let mut hashes = 0;
    while at(index) == '#' {
        hashes += 1;
        index += 1;
    }
    if at(index) != '"' {
        return None;
    }
    index += 1;
    while index < chars.len() {
        if at(index) == '"' && (1..=hashes).all(|hash| at(index + hash) == '#') {
            return Some(index + 1 + hashes);
        }
        index += 1;
    }
    Some(index)
}

impl Source {
    /// Reads a file.
    pub(crate) fn read(text: &str) -> Self {
        let tokens = tokens(text);
        let mut reader = Reader {
            tokens: &tokens,
            modules: Vec::new(),
            depth: 0,
            source: Self::default(),
        };
        reader.run();
        reader.source
    }
}

struct Module {
    name: String,
    test: bool,
    /// Brace depth inside it.
    depth: usize,
}

struct Reader<'a> {
    tokens: &'a [Token],
    modules: Vec<Module>,
    depth: usize,
    source: Source,
}

impl Reader<'_> {
    fn text(&self, index: usize) -> &str {
        self.tokens.get(index).map_or("", |token| &token.text)
    }

    fn run(&mut self) {
        let mut index = 0;
        // `#[cfg(test)]` waits for the item that it belongs to.
        let mut test = false;
        while index < self.tokens.len() {
            match self.text(index) {
                "#" => {
                    let words: Vec<&str> = (index..index + 7).map(|index| self.text(index)).collect();
                    if words == ["#", "[", "cfg", "(", "test", ")", "]"] {
                        test = true;
                        index += 7;
                        continue;
                    }
                }
                "mod" if self.tokens.get(index + 1).is_some_and(Token::is_name) => {
                    let name = self.text(index + 1).to_owned();
                    if self.text(index + 2) == ";" && test {
                        self.source.test_modules.push(name);
                    } else if self.text(index + 2) == "{" {
                        self.depth += 1;
                        self.modules.push(Module {
                            name,
                            test,
                            depth: self.depth,
                        });
                    }
                    test = false;
                    index += 3;
                    continue;
                }
                "{" => {
                    self.depth += 1;
                    test = false;
                }
                "}" => {
                    if self
                        .modules
                        .last()
                        .is_some_and(|module| module.depth == self.depth)
                    {
                        self.modules.pop();
                    }
                    self.depth = self.depth.saturating_sub(1);
                }
                ";" => test = false,
                "use" => {
                    index = self.tree(index + 1, &[]);
                    continue;
                }
                _ if self.starts_path(index) => {
                    index = self.path(index);
                    continue;
                }
                _ => {}
            }
            index += 1;
        }
    }

    fn starts_path(&self, index: usize) -> bool {
        let before = if index == 0 { "" } else { self.text(index - 1) };
        self.tokens.get(index).is_some_and(Token::is_name)
            && self.text(index + 1) == "::"
            && !matches!(before, "." | "::" | "fn")
    }

    fn path(&mut self, start: usize) -> usize {
        let mut index = start;
        let mut names = vec![self.text(index).to_owned()];
        while self.text(index + 1) == "::" && self.tokens.get(index + 2).is_some_and(Token::is_name) {
            index += 2;
            names.push(self.text(index).to_owned());
        }
        self.add(names, false, start);
        index + 1
    }

    /// One branch of a `use`; returns what comes after it.
    fn tree(&mut self, start: usize, prefix: &[String]) -> usize {
        let mut names = prefix.to_vec();
        let mut index = start;
        if self.text(index) == "::" {
            index += 1;
        }
        loop {
            match self.text(index) {
                "{" => {
                    index += 1;
                    while !matches!(self.text(index), "}" | "") {
                        index = self.tree(index, &names);
                        if self.text(index) == "," {
                            index += 1;
                        }
                    }
                    return index + 1;
                }
                "*" => {
                    names.push("*".to_owned());
                    self.add(names, false, start);
                    return index + 1;
                }
                "self" if !prefix.is_empty() => {}
                name => names.push(name.to_owned()),
            }
            if self.text(index + 1) == "::" {
                index += 2;
            } else {
                break;
            }
        }
        let renamed = self.text(index + 1) == "as";
        self.add(names, renamed, start);
        index + if renamed { 3 } else { 1 }
    }

    fn add(&mut self, names: Vec<String>, renamed: bool, index: usize) {
        let line = self.tokens.get(index).map_or(0, |token| token.line);
        self.source.paths.push(Found {
            names,
            renamed,
            line,
            modules: self.modules.iter().map(|module| module.name.clone()).collect(),
            test: self.modules.iter().any(|module| module.test),
        });
    }
}
