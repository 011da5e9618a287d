//! `tunnel completions`: what a shell needs to complete our command lines.

use clap::Command;
use clap_complete::Shell;
use tunnel_cli::exit;

use super::Job;

const EXAMPLES: &str = "\
Examples:
  tunnel completions bash > ~/.local/share/bash-completion/completions/tunnel
  tunnel completions zsh > ~/.zfunc/_tunnel          with fpath+=~/.zfunc before compinit
  tunnel completions fish > ~/.config/fish/completions/tunnel.fish
  tunnel completions powershell >> $PROFILE";

/// Print the completions of a shell
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// bash, zsh, fish, powershell or elvish
    #[arg(hide_possible_values = true)]
    shell: Shell,
}

/// Prints them.
pub(super) fn job(args: &Args, mut command: Command) -> Job {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "tunnel", &mut script);
    exit::print(&String::from_utf8_lossy(&script));
    Box::pin(async { Ok(()) })
}
