//! Settings in layers: flag > environment > TOML file > default.
//!
//! A program has ONE struct of optional fields that derives `clap::Args` (flag and environment) and serde (file). The
//! layers are merged as data, so that no field is named twice. The only file that reads the environment.

use std::{
    collections::HashMap,
    env,
    ffi::OsString,
    fmt::Display,
    fs,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
};

use clap::{ArgMatches, Command, parser::ValueSource};
use serde::{Serialize, de::DeserializeOwned};

use crate::exit::Exit;

/// Reads a command line. A variable of the environment that is set but empty counts as not set, as container
/// runtimes leave them.
pub fn matches(command: Command, args: impl IntoIterator<Item = OsString>) -> Result<ArgMatches, Exit> {
    Ok(with_variables(command).try_get_matches_from(args)?)
}

/// The names of variables follow one rule, which each help states once: not one by one.
fn with_variables(command: Command) -> Command {
    let command = command.mut_args(|arg| {
        let empty = arg.get_env().and_then(env::var_os).is_some_and(|value| value.is_empty());
        if empty { arg.env(None::<&str>) } else { arg.hide_env(true) }
    });
    command.mut_subcommands(with_variables)
}

/// Whether the user lets programs use colours at all (<https://no-color.org>).
#[must_use]
pub fn colours_allowed() -> bool {
    env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// `JOURNAL_STREAM`: device and inode of a stream to systemd's journal.
pub(crate) fn journal_stream() -> Option<String> {
    env::var("JOURNAL_STREAM").ok()
}

/// Whether stderr is a terminal on which a line can be written over.
#[must_use]
pub fn live_terminal() -> bool {
    // Windows Terminal understands the sequences without being asked; older consoles do not.
    let known = env::var_os("TERM").is_some_and(|term| term != "dumb") || env::var_os("WT_SESSION").is_some();
    known && io::stderr().is_terminal()
}

/// Columns of the terminal on stderr.
#[must_use]
pub fn terminal_width() -> usize {
    terminal_size::terminal_size_of(io::stderr()).map_or(80, |(columns, _)| usize::from(columns.0))
}

/// The proxies that the environment names, as every program understands them. Empty ones count as not set.
#[derive(Debug, Default)]
pub struct ProxyVariables {
    /// `https_proxy`: for servers with TLS.
    pub https: Option<String>,
    /// `all_proxy`: for every server.
    pub all: Option<String>,
    /// `no_proxy`: for which servers there is none.
    pub except: Option<String>,
}

/// Reads them. Small letters come first, as with curl.
#[must_use]
pub fn proxy_variables() -> ProxyVariables {
    let first = |names: [&str; 2]| names.iter().find_map(|name| env::var(name).ok().filter(|value| !value.is_empty()));
    ProxyVariables {
        https: first(["https_proxy", "HTTPS_PROXY"]),
        all: first(["all_proxy", "ALL_PROXY"]),
        except: first(["no_proxy", "NO_PROXY"]),
    }
}

/// The directory for a user's own settings of `program`; it may not exist. `XDG_CONFIG_HOME`, else `~/.config`; on
/// Windows `%APPDATA%`.
#[must_use]
pub fn config_directory(program: &str) -> Option<PathBuf> {
    let absolute = |name| env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = if cfg!(windows) { absolute("APPDATA") } else { absolute("XDG_CONFIG_HOME") };
    Some(base.or_else(|| Some(env::home_dir()?.join(".config")))?.join(program))
}

/// The directory for what lives no longer than a user's session: `XDG_RUNTIME_DIR`; on Windows `%LOCALAPPDATA%`.
#[must_use]
pub fn runtime_directory() -> Option<PathBuf> {
    let name = if cfg!(windows) { "LOCALAPPDATA" } else { "XDG_RUNTIME_DIR" };
    env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// The merged settings of one command, and where each came from.
#[derive(Debug)]
pub struct Layers<T> {
    /// Flag, else environment, else file.
    pub settings: T,
    /// For naming a setting in an error.
    pub origin: Origin,
}

impl<T: Serialize + DeserializeOwned> Layers<T> {
    /// Puts `flags`, which clap filled from flags and environment, over what `file` says.
    ///
    /// `paths` names the settings that are files: relative ones are meant from the directory of `file`.
    pub fn merge(flags: T, origin: Origin, file: Option<&Path>, paths: &[&str]) -> Result<Self, Exit> {
        let Some(file) = file else { return Ok(Self { settings: flags, origin }) };
        let mut merged = read_file::<T>(file, paths).map_err(Exit::usage)?;
        let origin = Origin { file: Some(file.display().to_string()), ..origin };
        merged.extend(toml::Table::try_from(flags).map_err(Exit::failed)?);
        let settings = merged.try_into().map_err(Exit::failed)?;
        Ok(Self { settings, origin })
    }
}

/// The file as a table, after a trial run through `T` that finds unknown keys and wrong types.
fn read_file<T: DeserializeOwned>(file: &Path, paths: &[&str]) -> Result<toml::Table, String> {
    let name = file.display();
    let text = fs::read_to_string(file).map_err(|error| format!("--config: cannot read {name}: {error}"))?;
    toml::from_str::<T>(&text).map_err(|error| in_file(&name, &text, &error))?;
    let mut table: toml::Table = toml::from_str(&text).map_err(|error| in_file(&name, &text, &error))?;
    for (key, value) in &mut table {
        if let (true, Some(path)) = (paths.contains(&key.as_str()), value.as_str()) {
            let path = file.parent().unwrap_or(Path::new("")).join(path);
            *value = path.display().to_string().into();
        }
    }
    Ok(table)
}

/// The end of what is said where a list is missing.
const A_LIST: &str = "; write a list: [\"…\"]";

fn in_file(name: &impl Display, text: &str, error: &toml::de::Error) -> String {
    let start = error.span().map_or(0, |span| span.start);
    let number = 1 + text[..start].matches('\n').count();
    let message = error.message();
    // serde lists every known key, which is longer than a line; the help says them with a sentence each.
    if let Some(key) = message.strip_prefix("unknown field ").and_then(|rest| rest.split(',').next()) {
        return format!("{name}, line {number}: unknown key {key}; keys are the flags of --help without the dashes");
    }
    let message = plainly(message);
    let line = text.lines().nth(number - 1).unwrap_or_default();
    match line.split_once('=').map(|(key, _)| key.trim()) {
        Some(key) if key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)) => {
            let message = match message.strip_prefix("this is string ").and_then(|rest| rest.strip_suffix(A_LIST)) {
                Some(item) => format!("this is one value; write {key} = [{item}]"),
                None => message,
            };
            format!("{name}, line {number}: {key}: {message}")
        }
        _ => format!("{name}, line {number}: {message}"),
    }
}

/// What serde and toml say of a value, for people: what is there and what may be. Never more of it than they show: it
/// may be a secret.
fn plainly(message: &str) -> String {
    let told = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    match (message, told.and_then(|told| told.split_once(", expected "))) {
        (_, Some((given, expected))) => {
            let given = match given {
                "sequence" => "a list",
                "map" => "a table or a date",
                scalar => scalar.trim_end_matches(" as i128"),
            };
            let allowed = match expected {
                "usize" => "a whole number, 1 or more, without quotes",
                "a string" | "path string" => "text in quotes",
                "a boolean" => "true or false, without quotes",
                "a sequence" => "a list: [\"…\"]",
                other => other,
            };
            format!("this is {given}; write {allowed}")
        }
        ("integer number overflowed" | "floating-point number overflowed" | "u64 value was too large", _) => {
            "the number is too large".to_owned()
        }
        ("wanted string or table", _) => "write text in quotes".to_owned(),
        (other, None) => other.to_owned(),
    }
}

/// Where settings came from.
#[derive(Debug, Default, Clone)]
pub struct Origin {
    given: HashMap<String, (ValueSource, Option<String>)>,
    file: Option<String>,
}

impl Origin {
    /// Looks up where clap found the value of each argument of `command`.
    #[must_use]
    pub fn new(command: &Command, matches: &ArgMatches) -> Self {
        let given = command.get_arguments().filter_map(|arg| {
            let id = arg.get_id().as_str();
            let source = matches.try_contains_id(id).ok().and_then(|_| matches.value_source(id))?;
            let variable = arg.get_env().map(|name| name.to_string_lossy().into_owned());
            Some((arg.get_long()?.to_owned(), (source, variable)))
        });
        Self { given: given.collect(), file: None }
    }

    /// Which layer a setting came from.
    #[must_use]
    pub fn layer(&self, setting: &str) -> Layer {
        match self.given.get(setting) {
            Some((ValueSource::CommandLine, _)) => Layer::Flag,
            Some((ValueSource::EnvVariable, _)) => Layer::Environment,
            _ => Layer::File,
        }
    }

    /// The name of a setting as its user wrote it: `--listen`, `TUNNELD_LISTEN` or `listen in tunneld.toml`.
    #[must_use]
    pub fn name(&self, setting: &str) -> String {
        match (self.given.get(setting), &self.file) {
            (Some((ValueSource::EnvVariable, Some(variable))), _) => variable.clone(),
            (Some((ValueSource::CommandLine, _)), _) | (_, None) => format!("--{setting}"),
            (_, Some(file)) => format!("{setting} in {file}"),
        }
    }

    /// An error about a setting: its name, then what is wrong and what to do.
    #[must_use]
    pub fn error(&self, wrong: &Wrong) -> Exit {
        Exit::usage(format_args!("{}: {}", self.name(wrong.setting), wrong.problem))
    }
}

/// Where a setting was made; the greater wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Layer {
    /// In the file, or nowhere.
    File,
    /// In the environment.
    Environment,
    /// On the command line.
    Flag,
}

/// A setting with a value that cannot be used.
#[derive(Debug)]
pub struct Wrong {
    /// Its name as a flag, without dashes.
    pub setting: &'static str,
    /// What is wrong, and what to do.
    pub problem: String,
}

impl Wrong {
    /// A problem of one setting.
    pub fn new(setting: &'static str, problem: impl Display) -> Self {
        Self { setting, problem: problem.to_string() }
    }
}

/// Reads the text of a setting into its type, if it is set.
pub fn read<T>(
    setting: &'static str,
    text: Option<&str>,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, Wrong> {
    text.map(parse).transpose().map_err(|problem| Wrong { setting, problem })
}

/// Reads a setting that may be given several times.
pub fn read_all<T>(
    setting: &'static str,
    texts: Option<&[String]>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, Wrong> {
    let values = texts.unwrap_or_default().iter().map(|text| parse(text));
    values.collect::<Result<_, _>>().map_err(|problem| Wrong { setting, problem })
}

#[cfg(test)]
mod tests {
    use clap::{Args, FromArgMatches};
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Args, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "kebab-case")]
    struct Settings {
        #[arg(long)]
        listen_on: Option<String>,
        #[arg(long)]
        many: Option<Vec<String>>,
        #[arg(long)]
        number: Option<usize>,
        #[arg(long)]
        key_file: Option<PathBuf>,
        #[arg(long)]
        on: Option<bool>,
    }

    fn merged(args: &[&str], file: &str) -> Result<Layers<Settings>, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.toml");
        fs::write(&path, file).unwrap();
        let command = Settings::augment_args(Command::new("x").no_binary_name(true));
        let args = args.iter().map(OsString::from);
        let matches = matches(command.clone(), args).unwrap();
        let origin = Origin::new(&command, &matches);
        let flags = Settings::from_arg_matches(&matches).unwrap();
        Layers::merge(flags, origin, Some(&path), &["key-file"]).map_err(|exit| match exit {
            Exit::Error { line, .. } => line.replace(&path.display().to_string(), "x.toml"),
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn a_flag_wins_over_the_file() {
        let layers = merged(&["--listen-on", "a"], "listen-on = 'b'\nnumber = 3\nmany = ['c']").unwrap();
        assert_eq!(layers.settings.listen_on.as_deref(), Some("a"));
        assert_eq!(layers.settings.number, Some(3));
        assert_eq!(layers.settings.many, Some(vec!["c".to_owned()]));
        assert_eq!(layers.origin.name("listen-on"), "--listen-on");
        assert!(layers.origin.name("number").starts_with("number in /"));
        assert!(layers.origin.layer("listen-on") > layers.origin.layer("number"));
    }

    #[test]
    fn errors_name_the_file_the_line_and_the_key() {
        let line = |file: &str| merged(&[], file).unwrap_err();
        assert_eq!(
            line("number = 1\n# b\nlistn-on = 'a'"),
            "x.toml, line 3: unknown key `listn-on`; keys are the flags of --help without the dashes"
        );
        for (file, said) in [
            ("number = 'a'", "number: this is string \"a\"; write a whole number, 1 or more, without quotes"),
            ("number = -1", "number: this is integer `-1`; write a whole number, 1 or more, without quotes"),
            ("number = 1.5", "number: this is floating point `1.5`; write a whole number, 1 or more, without quotes"),
            ("number = [1]", "number: this is a list; write a whole number, 1 or more, without quotes"),
            (
                "number = 99999999999999999999",
                "number: this is integer `99999999999999999999`; write a whole number, 1 or more, without quotes",
            ),
            ("number = 18446744073709551615", "number: the number is too large"),
            ("listen-on = 8080", "listen-on: this is integer `8080`; write text in quotes"),
            ("key-file = 1", "key-file: this is integer `1`; write text in quotes"),
            ("many = 3", "many: this is integer `3`; write a list: [\"…\"]"),
            ("many = 'a b'", "many: this is one value; write many = [\"a b\"]"),
            ("on = 1", "on: this is integer `1`; write true or false, without quotes"),
            ("many = ['a',\n  3]", "this is integer `3`; write text in quotes"),
        ] {
            let number = 2 + file.matches('\n').count();
            assert_eq!(line(&format!("\n{file}")), format!("x.toml, line {number}: {said}"));
        }
        assert!(!line("listen-on = ['secret']").contains("secret"));
        assert!(line("number =").starts_with("x.toml, line 1: "), "{}", line("number ="));
    }

    #[test]
    fn paths_in_a_file_are_relative_to_it() {
        let key = |args: &[&str], file| merged(args, file).unwrap().settings.key_file.unwrap();
        assert!(key(&[], "key-file = 'a/b'").is_absolute());
        assert!(key(&[], "key-file = 'a/b'").ends_with("a/b"));
        assert_eq!(key(&[], "key-file = '/a/b'"), Path::new("/a/b"));
        assert_eq!(key(&["--key-file", "c"], "key-file = 'a/b'"), Path::new("c"));
    }

    #[test]
    fn a_missing_file_is_an_error() {
        let origin = Origin::default();
        let flags = Settings { listen_on: None, many: None, number: None, key_file: None, on: None };
        let Err(Exit::Error { line, .. }) = Layers::merge(flags, origin, Some(Path::new("/no/x.toml")), &[]) else {
            panic!("a missing file passed");
        };
        assert_eq!(line, "--config: cannot read /no/x.toml: No such file or directory (os error 2)");
    }
}
