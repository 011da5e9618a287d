//! `tunnel service`: the client as a systemd service of this user.

use std::path::{Path, PathBuf, absolute};

use clap::Subcommand;
use tunnel_cli::{
    exit::{self, Exit},
    log::Format,
    settings::{self, Origin},
};

use super::{
    Job, connect, login,
    settings::{Options, Settings, default_file},
};
use crate::service::{UNIT, path, systemctl, unit, write_private};

const EXAMPLES: &str = "\
Examples:
  tunnel service install --token-file token --allow inference
  tunnel service install --print     show the unit, change nothing
  tunnel service status
  tunnel service uninstall

install takes the settings of `tunnel connect`, tries them, and writes those that you give into the
unit; without any it runs with ~/.config/tunnel/tunnel.toml. A token is kept in a file, never in the unit.";

/// Run the client in the background, as a systemd service of this user
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, arg_required_else_help = true)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "there is one, for a moment")]
enum Action {
    /// Install and start it; again to change its settings
    Install(Install),
    /// Stop and remove it; tokens and tunnel.toml stay
    Uninstall,
    /// Is it installed, and does it run? Exit code 0 if it does, else 3
    Status,
}

#[derive(Debug, clap::Args)]
struct Install {
    /// Print the unit instead of installing it
    #[arg(long)]
    print: bool,

    #[command(flatten)]
    options: Options,
}

/// Does it: nothing here waits for long.
pub(super) fn job(args: Args, origin: &Origin) -> Result<Job, Exit> {
    if !cfg!(target_os = "linux") {
        return Err(Exit::usage(
            "only systemd is supported; let this system's own service manager run `tunnel connect`",
        ));
    }
    match args.action {
        Action::Install(args) => install(args, origin)?,
        Action::Uninstall => uninstall()?,
        Action::Status => status()?,
    }
    Ok(Box::pin(async { Ok(()) }))
}

fn install(Install { print, mut options }: Install, origin: &Origin) -> Result<(), Exit> {
    let program = std::env::current_exe().map_err(Exit::failed)?;
    let kept = settings::config_directory("tunnel").map(|directory| directory.join("token"));
    let no_file = options.settings.token_file.is_none();
    let inline = options.settings.token.clone();
    let inline = inline.filter(|_| no_file || origin.layer("token") > origin.layer("token-file"));
    let args = arguments(&options, kept.as_deref().filter(|_| inline.is_some()))?;
    let text = unit(&program, &args);
    options.config = options.config.or_else(default_file);
    connect::read(options, origin.clone(), login::existing())?;
    if print {
        exit::print(&text);
        return Ok(());
    }
    if let (Some(token), Some(file)) = (inline, &kept) {
        write_private(file, &(token.trim().to_owned() + "\n")).map_err(|error| failed(file, &error))?;
        exit::print(&format!("wrote {}: the token, readable for you alone\n", file.display()));
    }
    let path = path().map_err(Exit::failed)?;
    write_private(&path, &text).map_err(|error| failed(&path, &error))?;
    exit::print(&format!("wrote {}\n", path.display()));
    let started = systemctl(&["daemon-reload"])
        .and_then(|_| systemctl(&["enable", UNIT]))
        .and_then(|_| systemctl(&["restart", UNIT]));
    if let Err(problem) = started {
        let line = format!(
            "the unit is written, but your systemd does not run it ({problem}); where it does: \
             systemctl --user daemon-reload && systemctl --user enable --now {UNIT}"
        );
        return Err(Exit::failed(line));
    }
    exit::print(&format!("started {UNIT}; it starts again with your next session\n"));
    exit::hint(
        "\nWhat it does:           tunnel status\nIts log:                journalctl --user -u tunnel\n\
         Also when logged out:   loginctl enable-linger (over ssh it may need root: sudo loginctl enable-linger $USER)\n",
    );
    Ok(())
}

/// The command line of the service: what was given on this one or in the environment, with whole paths.
fn arguments(options: &Options, token_file: Option<&Path>) -> Result<Vec<String>, Exit> {
    let Settings { token_file: given, token: _, server, to, name, ca, proxy, allow, .. } = &options.settings;
    let Settings { no_report_models, log_level, log_format, .. } = &options.settings;
    if proxy.as_deref().is_some_and(|proxy| proxy.contains('@')) {
        return Err(Exit::usage(
            "--proxy: its password would stand in the unit; write proxy = '…' into ~/.config/tunnel/tunnel.toml",
        ));
    }
    let whole = |file: &PathBuf| absolute(file).map(|file| file.display().to_string()).map_err(Exit::failed);
    let token_file = token_file.map(Path::to_owned).or_else(|| given.clone());
    let mut args = vec!["connect".to_owned()];
    let mut add = |flag: &str, value: Option<String>| {
        args.extend(value.into_iter().flat_map(|value| [format!("--{flag}"), value]));
    };
    add("config", options.config.as_ref().map(whole).transpose()?);
    add("token-file", token_file.as_ref().map(whole).transpose()?);
    add("server", server.clone());
    add("to", to.clone());
    add("name", name.clone());
    add("ca", ca.as_ref().map(whole).transpose()?);
    add("proxy", proxy.clone());
    for rule in allow.iter().flatten() {
        add("allow", Some(rule.clone()));
    }
    add("log-level", log_level.clone());
    let word = |format| if format == Format::Json { "json" } else { "text" };
    add("log-format", log_format.map(word).map(str::to_owned));
    args.extend(no_report_models.map(|no| format!("--no-report-models={no}")));
    Ok(args)
}

fn uninstall() -> Result<(), Exit> {
    let path = path().map_err(Exit::failed)?;
    if !path.exists() {
        exit::print(&format!("not installed: there is no {}\n", path.display()));
        return Ok(());
    }
    let stopped = systemctl(&["disable", "--now", UNIT]);
    std::fs::remove_file(&path).map_err(|error| failed(&path, &error))?;
    exit::print(&format!("removed {}\n", path.display()));
    match stopped.and_then(|_| systemctl(&["daemon-reload"])) {
        Ok(_) => Ok(()),
        Err(problem) => Err(Exit::failed(format!("the unit is removed, but systemd was not told: {problem}"))),
    }
}

fn status() -> Result<(), Exit> {
    let path = path().map_err(Exit::failed)?;
    let not_running = |line: String| Err(Exit::Error { code: exit::NOT_RUNNING, line });
    if !path.exists() {
        return not_running("not installed; install it: tunnel service install --token-file FILE".to_owned());
    }
    match systemctl(&["is-active", UNIT]) {
        Ok(_) => {
            exit::print(&format!("{UNIT} runs ({})\n", path.display()));
            exit::hint("\nHow it is doing:  tunnel status\nIts log:          journalctl --user -u tunnel\n");
            Ok(())
        }
        Err(state) => {
            not_running(format!("{UNIT} is installed and does not run ({state}): journalctl --user -u tunnel"))
        }
    }
}

fn failed(path: &Path, error: &std::io::Error) -> Exit {
    Exit::failed(format!("cannot write {}: {error}", path.display()))
}
