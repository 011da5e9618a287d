//! Runs a client, shows what happens to it, and says how it ended.

use std::{future, io};

use tracing::debug;
use tunnel::{
    client::{Client, Final},
    token::TokenSource,
};
use tunnel_cli::{exit::Exit, settings, signals};

use crate::{
    cli::{Connect, Display},
    local::{self, Place},
    show::{Recipes, live::Terminal, plain},
};

/// Connects, and stays connected until told to stop or refused for good.
pub(crate) async fn run(connect: Connect) -> Result<(), Exit> {
    let Connect { config, token, log, display, warnings } = connect;
    let token_file = match &config.token {
        TokenSource::File(path) => Some(path.clone()),
        TokenSource::Inline(_) | TokenSource::Login(_) => None,
    };
    let recipes = Recipes::new(config.to.clone(), token.claims().issuer, config.ca.as_deref());
    let warn = || warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let ended = match display {
        Display::Plain => {
            let _log = log.start().map_err(Exit::failed)?;
            warn();
            let client = Client::new(config, move |event| plain::show(&event, &recipes)).map_err(Exit::usage)?;
            Box::pin(stay(client)).await
        }
        Display::Live => {
            let terminal = Terminal::new(recipes);
            log.start_on(terminal.clone(), settings::colours_allowed());
            warn();
            let shown = terminal.clone();
            let client = Client::new(config, move |event| shown.show(event)).map_err(Exit::usage)?;
            terminal.watch(client.board());
            let ended = tokio::select! {
                ended = stay(client) => ended,
                never = terminal.refresh() => never,
            };
            terminal.close();
            ended
        }
    };
    match ended.map_err(Exit::failed)? {
        None | Some(Ok(())) => Ok(()),
        Some(Err(Final::Refused(refusal))) => match token_file.filter(|_| refusal.code.starts_with("token_")) {
            Some(file) => {
                let file = file.display();
                Err(Exit::refused(format_args!("{refusal} Put another token into {file} and start again.")))
            }
            None => Err(Exit::refused(refusal)),
        },
        Some(Err(misconfigured)) => Err(Exit::usage(misconfigured)),
    }
}

/// Runs a client until it ends or is told to, and tells `tunnel status` about it meanwhile.
async fn stay(client: Client) -> io::Result<Option<Result<(), Final>>> {
    let board = client.board();
    let telling = async {
        let opened = async { Place::open(&local::directory()?).await };
        match opened.await {
            Ok(place) => place.serve(|| serde_json::to_string(&board.report()).unwrap_or_default()).await,
            Err(error) => debug!(%error, "`tunnel status` will not find this process"),
        }
        future::pending().await
    };
    tokio::select! {
        ended = signals::run_until_stopped(|stop| client.run(stop)) => ended,
        never = telling => never,
    }
}
