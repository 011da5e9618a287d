//! The command line of `tunnel`: which command, with which settings. clap ends here.
//!
//! One file per command: its flags, and [`Job`], what it does with them.

use std::{ffi::OsString, pin::Pin};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use tunnel_cli::{
    exit::Exit,
    settings::{Origin, matches},
};

mod completions;
mod connect;
mod doctor;
mod forward;
mod login;
mod service;
mod settings;
mod status;

pub(crate) use self::connect::{Connect, Display};

/// What a command does once its command line has been read. Runs on a runtime with one thread.
pub(crate) type Job = Pin<Box<dyn Future<Output = Result<(), Exit>>>>;

const EXAMPLES: &str = "\
Begin here, with a token from the server's owner (tunneld token --user NAME --server URL):
  tunnel connect --token-file token           this desktop's Ollama, reachable through the server
  tunnel doctor --token-file token            what is wrong, if it is not
  tunnel service install --token-file token   the same in the background, from now on
  tunnel status                               how it is doing

Where the server has an identity provider, sign in instead:
  tunnel login --server https://tunnel.example.com

On the other side, for a program that cannot send a token:
  tunnel forward --token-file key             http://127.0.0.1:11434 there is then the Ollama here

Each command has examples: tunnel connect --help";

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
    Doctor(doctor::Args),
    Service(service::Args),
    Forward(forward::Args),
    Completions(completions::Args),
}

/// Reads the command line.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Job, Exit> {
    let mut command = Cli::command();
    let matches = matches(command.clone(), args)?;
    let cli = Cli::from_arg_matches(&matches)?;
    command.build();
    let (mut given, mut innermost) = (&matches, &command);
    while let Some((name, matches)) = given.subcommand() {
        (given, innermost) = (matches, innermost.find_subcommand(name).expect("clap found it"));
    }
    let origin = Origin::new(innermost, given);
    match cli.command {
        Command::Connect(args) => connect::job(args, origin),
        Command::Login(args) => Ok(login::login(args, origin)),
        Command::Logout(args) => Ok(login::logout(args, origin)),
        Command::Status(args) => Ok(status::job(args)),
        Command::Doctor(args) => doctor::job(args, origin),
        Command::Service(args) => service::job(args, &origin),
        Command::Forward(args) => forward::job(args, origin),
        Command::Completions(args) => Ok(completions::job(&args, command)),
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
