//! `tunnel doctor`: what `connect` would meet with the same settings.

use serde::Serialize;
use tunnel::{
    config,
    connector::Connector,
    doctor::{self, Finding, NoToken, Patient},
};
use tunnel_cli::{
    exit::{self, Exit},
    settings::{self, Layers, Origin, Wrong},
};

use super::{
    Job, connect, login,
    settings::{Options, PATHS, Settings, default_file, proxies},
};
use crate::show;

const EXAMPLES: &str = "\
Examples:
  tunnel doctor --token-file token                        everything that `tunnel connect` needs
  tunnel doctor --server https://tunnel.example.com       the way to a server, without a token
  tunnel doctor --token-file token --json | jq .healthy

It takes the settings of `tunnel connect`, also from its file. It registers no desktop, and may run beside one.

Exit codes: 0 all is well, 1 something is bad, 64 wrong usage or configuration.";

/// Look for what is wrong between an app and Ollama, and say what to do
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// One JSON object at the end: {"healthy":…,"findings":[…]}
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    options: Options,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    healthy: bool,
    findings: Vec<Finding>,
}

/// Reads the settings.
pub(super) fn job(args: Args, origin: Origin) -> Result<Job, Exit> {
    let Args { json, options: Options { config, settings, .. } } = args;
    let file = config.or_else(default_file);
    let Layers { mut settings, origin } = Layers::merge(settings, origin, file.as_deref(), &PATHS)?;
    let patient = patient(&mut settings, &origin).map_err(|wrong| origin.error(&wrong))?;
    Ok(Box::pin(run(patient, json)))
}

fn patient(settings: &mut Settings, origin: &Origin) -> Result<Patient, Wrong> {
    // A token that cannot be had is a finding, and no reason not to look at the rest.
    let signed_in = login::existing();
    let token = if settings.token.is_none() && settings.token_file.is_none() && signed_in.is_none() {
        Err(NoToken::NotAsked)
    } else {
        let source = connect::source(settings, origin, signed_in).map_err(|wrong| wrong.problem);
        let token = source.and_then(|(source, _)| source.read().map_err(|error| error.to_string()));
        token.map_err(NoToken::Unusable)
    };
    let told = settings::read("server", settings.server.as_deref(), config::server_url)?;
    let server = match (told, &token) {
        (Some(server), _) => server,
        (None, Ok(token)) => config::claimed_server(token).map_err(|error| Wrong::new("server", error))?,
        (None, Err(NoToken::NotAsked)) => {
            return Err(Wrong::new("server", "no server is named, and no token that names one: add --token-file FILE"));
        }
        (None, Err(NoToken::Unusable(problem))) => {
            return Err(Wrong::new("server", format!("no server is named, and no token that names one: {problem}")));
        }
    };
    let to = settings.to.as_deref().unwrap_or(config::DEFAULT_UPSTREAM);
    let name = settings::read("name", settings.name.as_deref(), config::desktop_name)?;
    let through = proxies(settings.proxy.as_deref())?;
    Ok(Patient {
        connector: Connector::new(settings.ca.as_deref(), through).map_err(|error| Wrong::new("ca", error))?,
        name: name.unwrap_or_else(|| config::own_name(token.as_ref().ok())),
        to: config::upstream_url(to).map_err(|problem| Wrong::new("to", problem))?,
        server,
        token,
    })
}

async fn run(patient: Patient, json: bool) -> Result<(), Exit> {
    let mut findings = Vec::new();
    let healthy = doctor::examine(&patient, |finding| {
        if json { findings.push(finding.clone()) } else { exit::print(&show::finding(finding)) }
    })
    .await;
    if json {
        let report = serde_json::to_string(&Report { healthy, findings }).map_err(Exit::failed)?;
        exit::print(&(report + "\n"));
    }
    if healthy { Ok(()) } else { Err(Exit::Quiet(exit::FAILED)) }
}
