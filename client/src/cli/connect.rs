//! `tunnel connect`: settings into a [`Config`].

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use tunnel::{
    config::{self, Config},
    connector::Connector,
    login::{Renewal, store::Store},
    token::{Token, TokenSource},
};
use tunnel_cli::{
    exit::Exit,
    log::{self, Log},
    settings::{self, Layer, Layers, Origin, Wrong},
};
use tunnel_frame::policy::Rule;
use tunnel_oidc::fetch::Fetcher;

use super::{
    Job, login,
    settings::{Options, PATHS, Settings, default_file, proxies},
};

const EXAMPLES: &str = "\
Examples:
  tunnel connect --token-file token                     Ollama here, server as the token says
  tunnel connect --token-file token --to 8080           another HTTP server of this machine
  tunnel connect --token-file token --allow inference   run models; do not delete or pull them
  tunnel connect --token-file token --allow 'GET /v1/*' --allow 'POST /v1/chat/completions'
  tunnel connect                                        as whom `tunnel login` has signed in
  tunnel connect --config tunnel.toml                   keys are these flags without the dashes

Each setting: flag, else environment (--token-file is TUNNEL_TOKEN_FILE, --log-level RUST_LOG),
else file, else default. The file is ~/.config/tunnel/tunnel.toml, where there is one, unless
--config names another. Commas separate several rules.

Exit codes: 0 stopped on request, 64 wrong usage or configuration, 77 refused for good.";

/// Connect this machine and stay connected
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    options: Options,
}

/// What to do, ready to be done.
#[derive(Debug)]
pub(crate) struct Connect {
    /// For the client.
    pub(crate) config: Config,
    /// The token as it was at start, for what it says about itself.
    pub(crate) token: Token,
    /// How to log.
    pub(crate) log: Log,
    /// How to show what happens.
    pub(crate) display: Display,
    /// Sentences to say before anything else.
    pub(crate) warnings: Vec<String>,
}

/// How to show what happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Display {
    /// One line that is written over, at the bottom of a terminal.
    Live,
    /// Log lines.
    Plain,
}

/// Connects, and stays connected until told to stop.
pub(super) fn job(args: Args, origin: Origin) -> Result<Job, Exit> {
    let mut options = args.options;
    options.config = options.config.or_else(default_file);
    Ok(Box::pin(crate::connect::run(read(options, origin, login::existing())?)))
}

/// Reads the settings. `signed_in` is where the tokens of `tunnel login` are, if there are any.
pub(super) fn read(options: Options, origin: Origin, signed_in: Option<Store>) -> Result<Connect, Exit> {
    let Layers { mut settings, origin } = Layers::merge(options.settings, origin, options.config.as_deref(), &PATHS)?;
    resolve(&mut settings, &origin, signed_in).map_err(|wrong| origin.error(&wrong))
}

fn resolve(settings: &mut Settings, origin: &Origin, signed_in: Option<Store>) -> Result<Connect, Wrong> {
    let mut warnings = Vec::new();
    let (source, setting) = source(settings, origin, signed_in)?;
    let token = source.read().map_err(|error| Wrong::new(setting, error))?;
    if setting == "token" && origin.layer("token") == Layer::Flag {
        warnings.push("others on this machine can see --token in `ps`: prefer --token-file or TUNNEL_TOKEN".to_owned());
    }

    let config = Config {
        token: source,
        server: settings::read("server", settings.server.as_deref(), config::server_url)?,
        to: config::upstream_url(settings.to.as_deref().unwrap_or(config::DEFAULT_UPSTREAM))
            .map_err(|problem| Wrong::new("to", problem))?,
        name: settings::read("name", settings.name.as_deref(), config::desktop_name)?,
        ca: settings.ca.clone(),
        proxies: proxies(settings.proxy.as_deref())?,
        allow: settings::read_all("allow", settings.allow.as_deref(), |text| {
            text.parse::<Rule>().map_err(|error| error.to_string())
        })?,
        report_models: !settings.no_report_models.unwrap_or(false),
    };
    let server = config.server_for(&token).map_err(|error| Wrong::new("server", error))?;
    if (server.host(), server.port_or_known_default()) == (config.to.host(), config.to.port_or_known_default()) {
        let problem = format!(
            "{} is the tunnel's server itself; --to is the HTTP server on this side, by default Ollama at {}",
            config::origin(&config.to),
            config::DEFAULT_UPSTREAM
        );
        return Err(Wrong::new("to", problem));
    }
    config.proxies.for_server(&server).map_err(|problem| Wrong::new("proxy", problem))?;
    if server.scheme() == "http" && !config::is_loopback(&server) {
        warnings.push(format!("{} is not encrypted: everyone on the way can read the token", config::origin(&server)));
    }

    let format = settings.log_format.unwrap_or_default();
    let live = format == log::Format::Text && settings::live_terminal();
    // The live line already tells what an `info` line would.
    let level = settings.log_level.as_deref().unwrap_or(if live { "warn" } else { "info" });
    let filter = Log::filter(level).map_err(|problem| Wrong::new("log-level", problem))?;
    let display = if live { Display::Live } else { Display::Plain };
    Ok(Connect { config, token, log: Log { filter, format }, display, warnings })
}

/// The token's place: as set, else that of who is signed in.
pub(super) fn source(
    settings: &mut Settings,
    origin: &Origin,
    signed_in: Option<Store>,
) -> Result<(TokenSource, &'static str), Wrong> {
    match (&settings.token, &settings.token_file, signed_in) {
        (None, None, Some(store)) => {
            let source = of_login(&mut settings.server, &mut settings.ca, settings.proxy.as_deref(), store)?;
            Ok((source, "token-file"))
        }
        (token, file, _) => token_source(token.as_deref(), file.as_deref(), origin),
    }
}

/// The token of who is signed in. Fills in which server that is for, and whom it was reached through.
pub(super) fn of_login(
    server: &mut Option<String>,
    ca: &mut Option<PathBuf>,
    proxy: Option<&str>,
    store: Store,
) -> Result<TokenSource, Wrong> {
    let account = store.load().map_err(|error| Wrong::new("token-file", error))?;
    let signed_in = config::origin(&account.server);
    let told = settings::read("server", server.as_deref(), config::server_url)?;
    if let Some(told) = told.filter(|told| told.origin() != account.server.origin()) {
        let told = config::origin(&told);
        return Err(Wrong::new(
            "server",
            format!("you are signed in at {signed_in}; run `tunnel login --server {told}`"),
        ));
    }
    *server = Some(signed_in);
    *ca = ca.take().or(account.ca);
    let connector = Connector::new(ca.as_deref(), proxies(proxy)?).map_err(|error| Wrong::new("ca", error))?;
    Ok(TokenSource::Login(Arc::new(Renewal::new(store, Fetcher::over(connector), account.server))))
}

/// The token's place, and the setting that gave it. Of two in different layers the higher one wins; two in the same
/// layer leave open which is meant.
pub(super) fn token_source(
    token: Option<&str>,
    file: Option<&Path>,
    origin: &Origin,
) -> Result<(TokenSource, &'static str), Wrong> {
    let inline = |text| {
        let token = Token::parse(text).map_err(|error| Wrong::new("token", error))?;
        Ok((TokenSource::Inline(token), "token"))
    };
    match (token, file) {
        (None, None) => Err(Wrong::new(
            "token-file",
            "a token is needed: --token-file FILE or TUNNEL_TOKEN; the server's owner mints one with `tunneld token`, \
             or lets you sign in: `tunnel login --server URL`",
        )),
        (Some(_), Some(_)) if origin.layer("token") == origin.layer("token-file") => {
            Err(Wrong::new("token", format!("{} is set as well; keep one of the two", origin.name("token-file"))))
        }
        (Some(token), None) => inline(token),
        (Some(token), Some(_)) if origin.layer("token") > origin.layer("token-file") => inline(token),
        (_, Some(path)) => Ok((TokenSource::File(path.to_owned()), "token-file")),
    }
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsString, fs};

    use super::*;
    use clap::{Args as _, Command, FromArgMatches};

    // {"tunnel_server":"https://tunnel.example.com"}
    const TOKEN: &str = "e30.eyJ0dW5uZWxfc2VydmVyIjoiaHR0cHM6Ly90dW5uZWwuZXhhbXBsZS5jb20ifQ.c2ln";

    fn connect(args: &[&str]) -> Result<Connect, String> {
        let command = Args::augment_args(Command::new("connect").no_binary_name(true));
        let matches = settings::matches(command.clone(), args.iter().map(OsString::from));
        let read = matches.and_then(|matches| {
            let args = Args::from_arg_matches(&matches).expect("clap has read them");
            read(args.options, Origin::new(&command, &matches), None)
        });
        read.map_err(|exit| match exit {
            Exit::Error { code: tunnel_cli::exit::USAGE, line } => line,
            other => panic!("{other:?}"),
        })
    }

    fn file(dir: &Path, name: &str, text: &str) -> String {
        fs::write(dir.join(name), text).unwrap();
        dir.join(name).display().to_string()
    }

    #[test]
    fn a_token_is_enough() {
        let told = connect(&["--token", TOKEN]).unwrap();
        assert_eq!(config::origin(&told.config.server_for(&told.token).unwrap()), "https://tunnel.example.com");
        assert_eq!(config::origin(&told.config.to), config::DEFAULT_UPSTREAM);
        assert!(told.config.allow.is_empty());
        assert!(told.warnings[0].contains("ps"), "{:?}", told.warnings);
    }

    #[test]
    fn a_token_in_a_file_needs_no_warning() {
        let dir = tempfile::tempdir().unwrap();
        let token = file(dir.path(), "token", &format!("{TOKEN}\n"));
        let told = connect(&["--token-file", &token, "--to", "8080", "--name", "attic"]).unwrap();
        assert!(told.warnings.is_empty());
        assert_eq!(told.token.secret(), TOKEN);
        assert_eq!(config::origin(&told.config.to), "http://127.0.0.1:8080");
        assert_eq!(told.config.name_for(&told.token), "attic");
    }

    #[test]
    fn rules_are_repeated_or_listed() {
        let rules = |args: &[&str]| connect(&[&["--token", TOKEN], args].concat()).unwrap().config.allow;
        assert_eq!(rules(&["--allow", "inference", "--allow", "GET /x"]), rules(&["--allow", "inference,GET /x"]));
        assert_eq!(rules(&["--allow", "all"]), [Rule::All]);
    }

    #[test]
    fn a_flag_wins_over_the_file_also_between_the_two_ways_to_give_a_token() {
        let dir = tempfile::tempdir().unwrap();
        file(dir.path(), "token", TOKEN);
        let settings =
            file(dir.path(), "x.toml", "token-file = 'token'\nname = 'file'\nto = '1'\nallow = ['inference']");
        let told = connect(&["--config", &settings, "--token", "a.b.c", "--server", "h", "--name", "flag"]).unwrap();
        assert_eq!(told.token.secret(), "a.b.c");
        assert_eq!(told.config.name.as_deref(), Some("flag"));
        assert_eq!(told.config.to.port(), Some(1));
        assert_eq!(told.config.allow, [Rule::Inference]);
        assert_eq!(connect(&["--config", &settings]).unwrap().token.secret(), TOKEN);
    }

    #[test]
    fn every_mistake_is_one_line_that_names_the_setting() {
        let dir = tempfile::tempdir().unwrap();
        let both = file(dir.path(), "both.toml", &format!("token = '{TOKEN}'\ntoken-file = 'x'"));
        let with = |args: &[&'static str]| [&["--token", TOKEN], args].concat();
        let cases: [(Vec<&str>, &str); 16] = [
            (vec![], "--token-file: a token is needed"),
            (vec!["--token", "abc"], "--token: that is no token"),
            (vec!["--token", ""], "--token: the token is empty"),
            (vec!["--token-file", "/no/token"], "--token-file: cannot read /no/token: No such file"),
            (vec!["--token", TOKEN, "--token-file", "x"], "--token: --token-file is set as well"),
            (vec!["--config", &both], "token in "),
            (vec!["--token", "a.b.c"], "--server: no server: the token names none; add --server"),
            (with(&["--server", "ftp://x"]), "--server: ftp:// is not a scheme"),
            (with(&["--to", "https://127.0.0.1"]), "--to: an https upstream is not supported"),
            (
                with(&["--server", "http://a:8080", "--to", "a:8080"]),
                "--to: http://a:8080 is the tunnel's server itself",
            ),
            (with(&["--name", "a b"]), "--name: \"a b\" is no name"),
            (with(&["--allow", "chat"]), "--allow: 'chat' is not a rule"),
            (with(&["--proxy", "socks5://u:secret@a"]), "--proxy: socks5:// proxies are not supported"),
            (with(&["--log-level", "loud"]), "--log-level: \"loud\" is no level"),
            (
                with(&["--servre", "x"]),
                "unexpected argument '--servre' found; tip: a similar argument exists: '--server'",
            ),
            (with(&["--config", "/no/x.toml"]), "--config: cannot read /no/x.toml"),
        ];
        for (args, expected) in cases {
            let line = connect(&args).unwrap_err();
            assert!(line.starts_with(expected) && !line.contains('\n'), "{line}");
            assert!(!line.contains(TOKEN), "{line}");
        }
    }

    #[test]
    fn an_unencrypted_server_is_a_warning_unless_it_is_here() {
        let warned = |server| connect(&["--token", TOKEN, "--server", server]).unwrap().warnings.len() - 1;
        assert_eq!(warned("http://tunnel.example.com"), 1);
        assert_eq!(warned("http://127.0.0.1:8080"), 0);
        assert_eq!(warned("tunnel.example.com"), 0);
    }
}
