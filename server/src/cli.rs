//! The command line of `tunneld`: which command, with which settings. clap ends here.
//!
//! * [`settings`]: every setting of `serve` and `check`, as people write it.
//! * [`resolve`]: settings into a [`Config`](tunneld::config::Config).
//! * [`check`], [`running`], [`token`], [`certs`]: the commands that end at once.
//! * [`tunnels`], [`revoke`]: those that ask a running server, by way of [`admin`].

use std::{ffi::OsString, path::PathBuf};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use tunnel_cli::{
    exit::Exit,
    settings::{Layers, Origin, matches},
};

pub(crate) use self::resolve::Serve;
use self::settings::Settings;

mod admin;
mod certs;
mod check;
mod resolve;
mod revoke;
mod running;
mod settings;
mod token;
mod trust;
mod tunnels;

const EXAMPLES: &str = "\
Examples, from nothing to a server that is ready for desktops:
  (umask 077 && openssl rand -hex 32 > secret)
  tunneld certs --out certs --host tunnel.example.com
  tunneld serve --tls-cert certs/server.pem --tls-key certs/server-key.pem --jwt-secret-file secret
  tunneld token --user bob --server https://tunnel.example.com:8443 --jwt-secret-file secret

Exit codes: 0 stopped on request, 64 wrong usage or configuration.";

const SERVE_EXAMPLES: &str = "\
Examples:
  tunneld serve --tls-cert server.pem --tls-key server-key.pem --jwt-secret-file secret
  tunneld serve --plain-http --trusted-proxy 127.0.0.1 --jwt-secret-file secret    behind nginx
  tunneld serve --config tunneld.toml       keys are these flags without the dashes

Each setting: flag, else environment (--tls-cert is TUNNELD_TLS_CERT, --log-level RUST_LOG), else
file, else default. Commas separate several values of one setting; in the file they are a list.";

/// Lets people reach the Ollama on their own desktops through this server
#[derive(Debug, Parser)]
#[command(name = "tunneld", version, after_help = EXAMPLES, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Commands,
}

#[derive(Debug, Subcommand)]
enum Commands {
    /// Serve desktops and their callers
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(ServeArgs),
    /// Make a token for a desktop or a caller, with the shared secret
    Token(token::Args),
    /// Make a development CA and a certificate: ca.pem, server.pem, server-key.pem
    Certs(certs::Args),
    /// End a token, or all tokens of a user, on a running server
    Revoke(revoke::Args),
    /// List the desktops that are connected to a running server
    Tunnels(tunnels::Args),
    /// Disconnect a desktop from a running server
    Kick(tunnels::KickArgs),
    /// Read the configuration of `serve`, with all its files, and say what would run
    #[command(after_help = SERVE_EXAMPLES)]
    Check(CheckArgs),
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// TOML file with any of these settings
    #[arg(long, value_name = "FILE", env = "TUNNELD_CONFIG")]
    config: Option<PathBuf>,

    #[command(flatten)]
    settings: Settings,
}

#[derive(Debug, Args)]
struct CheckArgs {
    #[command(flatten)]
    serve: ServeArgs,

    /// Ask the server that runs with these settings whether it is ready, instead
    #[arg(long)]
    running: bool,

    /// Print only where it would listen, an address a line: callers first, then the admin interface
    #[arg(long, conflicts_with = "running")]
    sockets: bool,
}

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Task {
    /// Run the server.
    Serve(Box<Serve>),
    /// Nothing more: this is the result.
    Done(Output),
}

/// The result of a command that ends at once.
#[derive(Debug)]
pub(crate) struct Output {
    /// For stdout, and so for scripts.
    pub(crate) result: String,
    /// For a person who watches: what to do with the result.
    pub(crate) hint: String,
}

/// Reads the command line, and does what can be done without a runtime.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Task, Exit> {
    let mut command = Cli::command();
    let matches = matches(command.clone(), args)?;
    let cli = Cli::from_arg_matches(&matches)?;
    let (name, matches) = matches.subcommand().expect("clap requires one");
    command.build();
    let origin = Origin::new(command.find_subcommand(name).expect("clap found it"), matches);
    match cli.command {
        Commands::Serve(args) => serve(args, origin).map(|serve| Task::Serve(Box::new(serve))),
        Commands::Check(args) => {
            let serve = serve(args.serve, origin)?;
            match (args.running, args.sockets) {
                (true, _) => running::run(&serve.config),
                (false, true) => Ok(check::sockets(&serve.config)),
                (false, false) => check::run(serve),
            }
            .map(Task::Done)
        }
        Commands::Token(args) => token::run(&args, origin).map(Task::Done),
        Commands::Revoke(args) => revoke::run(&args, origin).map(Task::Done),
        Commands::Tunnels(args) => tunnels::list(&args, origin).map(Task::Done),
        Commands::Kick(args) => tunnels::kick(&args, origin).map(Task::Done),
        Commands::Certs(args) => certs::run(&args).map(Task::Done),
    }
}

fn serve(args: ServeArgs, origin: Origin) -> Result<Serve, Exit> {
    let Layers { settings, origin } = Layers::merge(args.settings, origin, args.config.as_deref(), &settings::PATHS)?;
    resolve::serve(&settings).map_err(|wrong| origin.error(&wrong))
}
