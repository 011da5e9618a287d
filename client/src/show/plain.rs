//! Events as log lines, for services, containers and pipes.

use tracing::{debug, info, warn};
use tunnel::{config, event::Event};

use super::Recipes;

/// Logs an event. What comes with each request or heartbeat is `debug`.
pub(crate) fn show(event: &Event, recipes: &Recipes) {
    let upstream = config::origin(&recipes.upstream);
    match event {
        Event::Connecting { server, attempt } => {
            info!(target: "tunnel", server = config::origin(server), attempt, "connecting");
        }
        Event::Connected(connected) => {
            let expires = connected.token_expires.map(|time| humantime::format_rfc3339_seconds(time).to_string());
            info!(target: "tunnel",
                user = connected.user, name = connected.name, url = config::origin(&connected.public_url),
                upstream, token_expires = expires, "online",
            );
            for (variable, value) in Recipes::variables(connected) {
                info!(target: "tunnel", "callers: {variable}={value}");
            }
        }
        Event::Disconnected { reason, retry_in } => warn!(target: "tunnel", reason, ?retry_in, "offline"),
        Event::Refused { code, message, retry_in } => warn!(target: "tunnel", code, message, ?retry_in, "refused"),
        Event::RoundTrip(rtt) => debug!(target: "tunnel", ?rtt, "heartbeat"),
        Event::UpstreamDown { error } => {
            warn!(target: "tunnel", upstream, error, "the upstream does not answer; callers get 502");
        }
        Event::UpstreamUp => info!(target: "tunnel", upstream, "the upstream answers"),
        Event::Requests { in_flight, total } => debug!(target: "tunnel", in_flight, total, "requests"),
        Event::Draining { in_flight } => info!(target: "tunnel", in_flight, "draining"),
    }
}
