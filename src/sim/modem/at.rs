//! Command lines as in ITU-T V.250, 5.2 to 5.4.

/// One command of a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Command {
    /// In capitals, with its prefix: `E`, `&F`, `S3`, `+CMGS`, `^CURC`.
    pub(super) name: String,
    /// What is asked of it.
    pub(super) form: Form,
}

/// The forms of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `+CMGL`; for basic commands with their number, 0 if there is none.
    Do(u32),
    /// `+CMGF?`
    Read,
    /// `+CMGF=?`
    Test,
    /// `+CMGF=1`
    Set(Parameters),
}

/// What follows `=`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Parameters(Vec<Parameter>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Parameter {
    Empty,
    Quoted(String),
    Plain(String),
}

/// A parameter of the wrong type.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong;

impl Parameters {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// A number; `None` if it is left out.
    pub(super) fn number(&self, index: usize) -> Result<Option<u32>, Wrong> {
        match self.0.get(index) {
            None | Some(Parameter::Empty) => Ok(None),
            Some(Parameter::Plain(text)) => text.parse().map(Some).map_err(|_| Wrong),
            Some(Parameter::Quoted(_)) => Err(Wrong),
        }
    }

    /// A number that has to be there.
    pub(super) fn required(&self, index: usize) -> Result<u32, Wrong> {
        self.number(index)?.ok_or(Wrong)
    }

    /// A string in quotation marks; `None` if it is left out.
    pub(super) fn text(&self, index: usize) -> Result<Option<&str>, Wrong> {
        match self.0.get(index) {
            None | Some(Parameter::Empty) => Ok(None),
            Some(Parameter::Quoted(text)) => Ok(Some(text)),
            Some(Parameter::Plain(_)) => Err(Wrong),
        }
    }

    /// A string, with quotation marks or without, as modems take PINs and names.
    pub(super) fn loose(&self, index: usize) -> Option<&str> {
        match self.0.get(index) {
            None | Some(Parameter::Empty) => None,
            Some(Parameter::Quoted(text) | Parameter::Plain(text)) => Some(text),
        }
    }
}

/// Splits what follows `AT`. `None` is a line that no command can be read from.
pub(super) fn parse(body: &str) -> Option<Vec<Command>> {
    let mut rest: Vec<char> = without_spaces(body);
    rest.reverse();
    // From here on the end of `rest` is what comes next.
    let mut commands = Vec::new();
    while let Some(first) = rest.pop() {
        match first {
            ';' => {}
            '+' | '^' | '%' | '$' | '*' | '#' => commands.push(extended(first, &mut rest)?),
            'D' | 'd' => {
                let number = until(&mut rest, |c| c == ';');
                commands.push(Command {
                    name: "D".to_owned(),
                    form: Form::Set(Parameters(vec![Parameter::Plain(number)])),
                });
            }
            'S' | 's' => {
                let register = until(&mut rest, |c| !c.is_ascii_digit());
                let form = match rest.pop()? {
                    '?' => Form::Read,
                    '=' => {
                        let value = until(&mut rest, |c| !c.is_ascii_digit());
                        Form::Set(Parameters(vec![Parameter::Plain(value)]))
                    }
                    _ => return None,
                };
                commands.push(Command {
                    name: format!("S{register}"),
                    form,
                });
            }
            '&' => {
                let letter = rest.pop().filter(char::is_ascii_alphabetic)?;
                commands.push(basic(&format!("&{}", letter.to_ascii_uppercase()), &mut rest)?);
            }
            letter if letter.is_ascii_alphabetic() => {
                commands.push(basic(&letter.to_ascii_uppercase().to_string(), &mut rest)?);
            }
            _ => return None,
        }
    }
    Some(commands)
}

fn basic(name: &str, rest: &mut Vec<char>) -> Option<Command> {
    let digits = until(rest, |c| !c.is_ascii_digit());
    let form = match rest.last() {
        Some('?') if digits.is_empty() => {
            rest.pop();
            Form::Read
        }
        _ if digits.is_empty() => Form::Do(0),
        _ => Form::Do(digits.parse().ok()?),
    };
    Some(Command {
        name: name.to_owned(),
        form,
    })
}

fn extended(prefix: char, rest: &mut Vec<char>) -> Option<Command> {
    let letters = until(rest, |c| !(c.is_ascii_alphanumeric() || "!%-./:_".contains(c)));
    if letters.is_empty() {
        return None;
    }
    let name = format!("{prefix}{}", letters.to_ascii_uppercase());
    let form = match rest.pop() {
        None | Some(';') => Form::Do(0),
        Some('?') => {
            end(rest)?;
            Form::Read
        }
        Some('=') if rest.last() == Some(&'?') => {
            rest.pop();
            end(rest)?;
            Form::Test
        }
        Some('=') => Form::Set(parameters(rest)?),
        Some(_) => return None,
    };
    Some(Command { name, form })
}

/// Behind an extended command comes the end or a semicolon.
fn end(rest: &mut Vec<char>) -> Option<()> {
    match rest.pop() {
        None | Some(';') => Some(()),
        Some(_) => None,
    }
}

fn parameters(rest: &mut Vec<char>) -> Option<Parameters> {
    let mut parameters = Vec::new();
    loop {
        let parameter = if rest.last() == Some(&'"') {
            rest.pop();
            let text = until(rest, |c| c == '"');
            rest.pop()?;
            Parameter::Quoted(text)
        } else {
            let text = until(rest, |c| matches!(c, ',' | ';' | '"'));
            if text.is_empty() {
                Parameter::Empty
            } else {
                Parameter::Plain(text)
            }
        };
        parameters.push(parameter);
        match rest.pop() {
            None | Some(';') => return Some(Parameters(parameters)),
            Some(',') => {}
            Some(_) => return None,
        }
    }
}

/// Takes characters up to one that ends them.
fn until(rest: &mut Vec<char>, ends: impl Fn(char) -> bool) -> String {
    let mut text = String::new();
    while let Some(next) = rest.pop_if(|c| !ends(*c)) {
        text.push(next);
    }
    text
}

/// Spaces and control characters count only inside quotation marks.
fn without_spaces(body: &str) -> Vec<char> {
    let mut quoted = false;
    body.chars()
        .filter(|c| {
            quoted ^= *c == '"';
            quoted || !(c.is_ascii_control() || *c == ' ')
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(line: &str) -> Vec<String> {
        parse(line)
            .unwrap()
            .into_iter()
            .map(|command| command.name)
            .collect()
    }

    #[test]
    fn one_line_carries_several_commands() {
        assert_eq!(
            names("E0V1+CMEE=1;+CREG=2;+CEREG=2"),
            ["E", "V", "+CMEE", "+CREG", "+CEREG"]
        );
        assert_eq!(names("&F&D2S0=0X4"), ["&F", "&D", "S0", "X"]);
        assert_eq!(names(""), [""; 0]);
        assert_eq!(names("+cpms=\"SM\",\"a;b\";^curc=0"), ["+CPMS", "^CURC"]);
    }

    #[test]
    fn the_forms_of_a_command_are_told_apart() {
        let form = |line: &str| parse(line).unwrap().remove(0).form;
        assert_eq!(form("+CMGF"), Form::Do(0));
        assert_eq!(form("E1"), Form::Do(1));
        assert_eq!(form("+CMGF?"), Form::Read);
        assert_eq!(form("+CMGF=?"), Form::Test);
        assert_eq!(form("S3?"), Form::Read);
        let Form::Set(parameters) = form("+CMGS=\"+49 17\",145,,x") else {
            panic!("no parameters");
        };
        assert_eq!(parameters.text(0), Ok(Some("+49 17")));
        assert_eq!(parameters.number(1), Ok(Some(145)));
        assert_eq!(parameters.number(2), Ok(None));
        assert_eq!(parameters.number(3), Err(Wrong));
        assert_eq!(parameters.len(), 4);
    }

    #[test]
    fn what_is_no_command_is_refused() {
        for line in [
            "+",
            "+CMGF=?x",
            "+CMGF?1",
            "+CPMS=\"SM",
            "=1",
            "&1",
            "+CMGF:1?2",
            "S3",
            "E=1",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
