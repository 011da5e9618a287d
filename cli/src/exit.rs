//! How a program ends: the code for scripts, one line for people.
//!
//! Owns every write to stdout and stderr that is not a log line.

use std::{
    fmt::Display,
    io::{self, IsTerminal, Write},
    process::ExitCode,
};

use clap::error::ErrorKind;
use tracing::Level;

use crate::journal;

/// Stopped on request.
pub const OK: u8 = 0;

/// Something failed that no setting explains.
pub const FAILED: u8 = 1;

/// Asked about a program that is not running, as with `systemctl status`.
pub const NOT_RUNNING: u8 = 3;

/// Wrong usage or configuration: the program will not start until a person changes something (`EX_USAGE` of
/// sysexits.h).
pub const USAGE: u8 = 64;

/// Refused for good by the other side (`EX_NOPERM` of sysexits.h).
pub const REFUSED: u8 = 77;

/// Why a program ends before, or instead of, its work.
#[derive(Debug)]
pub enum Exit {
    /// Help or version was asked for: this text on stdout, code 0.
    Answer(String),
    /// Nothing was asked for at all: the help on stderr, code 64.
    Help(String),
    /// All has been said; only the code is left.
    Quiet(u8),
    /// One line on stderr, and its code.
    Error {
        /// One of the codes of this module.
        code: u8,
        /// What is wrong and what to do, without `error:` and without a line break.
        line: String,
    },
}

impl Exit {
    /// The user made a mistake. `line` says what is wrong, with which setting, and what to do.
    pub fn usage(line: impl Display) -> Self {
        Self::Error { code: USAGE, line: one_line(&line.to_string()) }
    }

    /// The other side refused for good.
    pub fn refused(line: impl Display) -> Self {
        Self::Error { code: REFUSED, line: one_line(&line.to_string()) }
    }

    /// Anything else that ends the program.
    pub fn failed(line: impl Display) -> Self {
        Self::Error { code: FAILED, line: one_line(&line.to_string()) }
    }

    /// Writes what there is to say. Returns what `main` returns.
    #[must_use]
    pub fn report(self) -> ExitCode {
        // A closed stdout or stderr changes nothing: the code still tells.
        match self {
            Self::Answer(text) => {
                let _ = io::stdout().write_all(text.as_bytes());
                ExitCode::from(OK)
            }
            Self::Help(text) => {
                let _ = io::stderr().write_all(text.as_bytes());
                ExitCode::from(USAGE)
            }
            Self::Quiet(code) => ExitCode::from(code),
            Self::Error { code, line } => {
                let mark = if journal::reads_stderr() { journal::priority(Level::ERROR) } else { "" };
                let _ = writeln!(io::stderr(), "{mark}error: {line}");
                ExitCode::from(code)
            }
        }
    }
}

impl From<clap::Error> for Exit {
    fn from(error: clap::Error) -> Self {
        let text = error.render();
        match error.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion if io::stdout().is_terminal() => {
                Self::Answer(text.ansi().to_string())
            }
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Self::Answer(text.to_string()),
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => Self::Help(text.to_string()),
            kind => {
                let text = text.to_string();
                let line = without_boilerplate(&text);
                let unknown = matches!(kind, ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand);
                match command_of(&text).filter(|_| unknown && !line.contains("; tip: ")) {
                    Some(command) => Self::usage(format_args!("{line}; see `{command} --help`")),
                    None => Self::usage(line),
                }
            }
        }
    }
}

/// The command that was given, as its usage names it: `tunnel connect`.
fn command_of(text: &str) -> Option<String> {
    let usage = text.split("\n\n").find_map(|part| part.strip_prefix("Usage: "))?;
    let words = usage.split_whitespace().take_while(|word| word.starts_with(|c: char| c.is_ascii_alphanumeric()));
    Some(words.collect::<Vec<_>>().join(" "))
}

/// clap's message without its usage block and its invitation to try `--help`: the tip stays.
fn without_boilerplate(text: &str) -> String {
    let told =
        text.split("\n\n").filter(|part| !part.starts_with("Usage:") && !part.starts_with("For more information"));
    let parts: Vec<String> = told.map(one_line).filter(|part| !part.is_empty()).collect();
    let line = parts.join("; ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

/// Any run of white space and control characters becomes one space: what a user or a peer wrote cannot start a line
/// of its own.
fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control());
    words.filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Writes the result of a command to stdout, whole. A reader that has gone away is no error.
pub fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Writes advice for a person to stderr; nothing if nobody sits there, so that scripts stay quiet.
pub fn hint(text: &str) {
    let err = io::stderr();
    if err.is_terminal() {
        let _ = err.lock().write_all(text.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use clap::{Arg, ArgAction, Command};

    use super::*;

    fn told(args: &[&str]) -> String {
        let command = Command::new("x")
            .arg(Arg::new("user").long("user").required(true))
            .arg(Arg::new("quiet").long("quiet").action(ArgAction::SetTrue));
        match Exit::from(command.try_get_matches_from(args).unwrap_err()) {
            Exit::Error { code: USAGE, line } => line,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn claps_errors_become_one_line() {
        assert_eq!(told(&["x"]), "the following required arguments were not provided: --user <user>");
        assert_eq!(
            told(&["x", "--usr", "a"]),
            "unexpected argument '--usr' found; tip: a similar argument exists: '--user'"
        );
        assert_eq!(told(&["x", "--nonsense"]), "unexpected argument '--nonsense' found; see `x --help`");
        assert_eq!(told(&["x", "--user"]), "a value is required for '--user <user>' but none was supplied");
    }

    #[test]
    fn a_line_stays_a_line() {
        let Exit::Error { line, .. } = Exit::usage("a\nb\r\n\tc\x1b[31m d") else { unreachable!() };
        assert_eq!(line, "a b c [31m d");
    }
}
