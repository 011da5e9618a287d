//! The command line of `tunnel`: which command, with which settings. clap ends here.
//!
//! One file per command: its flags, and [`Job`], what it does with them.

use std::{ffi::OsString, pin::Pin};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tunnel_cli::{
    exit::Exit,
    settings::{Origin, matches},
};

mod connect;
mod login;
mod settings;
mod status;

pub(crate) use self::connect::{Connect, Display};

/// What a command does once its command line has been read. Runs on a runtime with one thread.
pub(crate) type Job = Pin<Box<dyn Future<Output = Result<(), Exit>>>>;

const EXAMPLES: &str = "\
Examples:
  tunnel connect --token-file ~/tunnel.token
  TUNNEL_TOKEN=eyJ… tunnel connect --server https://tunnel.example.com
  tunnel connect --token-file token --to 8080 --allow inference

The server's owner makes tokens:  tunneld token --user NAME --server https://tunnel.example.com
Where it has an identity provider:  tunnel login --server https://tunnel.example.com";

/// Makes Ollama, or any HTTP server on this machine, reachable through your own tunneld server
#[derive(Debug, Parser)]
#[command(name = "tunnel", version, after_help = EXAMPLES, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Connect(connect::Args),
    Login(login::Args),
    Logout(login::LogoutArgs),
    Status(status::Args),
}

/// Reads the command line.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Job, Exit> {
    let mut command = Cli::command();
    let matches = matches(command.clone(), args)?;
    let cli = Cli::from_arg_matches(&matches)?;
    let (name, matches) = matches.subcommand().expect("clap requires one");
    command.build();
    let origin = Origin::new(command.find_subcommand(name).expect("clap found it"), matches);
    match cli.command {
        Command::Connect(args) => connect::job(args, origin),
        Command::Login(args) => Ok(login::login(args, origin)),
        Command::Logout(args) => Ok(login::logout(args, origin)),
        Command::Status(args) => Ok(status::job(args)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }
}
