//! The way to the server: its name, TCP, a proxy, TLS.

use std::time::{Duration, Instant, SystemTime};

use tokio::{net::lookup_host, time::timeout};
use url::Url;

use super::{Finding, Patient};
use crate::{
    config::is_loopback,
    connector::{self, ConnectError, Transport, host_and_port},
    proxy::Proxy,
};

/// A certificate that ends sooner than this should have been renewed by now.
const RENEWED_BEFORE: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// Whether the server can be reached.
pub(super) async fn examine(patient: &Patient, tell: &mut impl FnMut(Finding)) -> bool {
    let Patient { server, connector, .. } = patient;
    let proxy = match connector.proxies().for_server(server) {
        Ok(proxy) => proxy,
        Err(problem) => {
            tell(Finding::bad("proxy", problem));
            return false;
        }
    };
    let (host, port) = proxy.map_or_else(|| host_and_port(server), Proxy::address);
    match timeout(connector::WITHIN, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => {
            let mut addresses: Vec<String> = addresses.map(|address| address.ip().to_string()).collect();
            addresses.dedup();
            let found = match &addresses[..] {
                [itself] if itself == host => format!("{host} needs none"),
                addresses => format!("{host} is {}", addresses.join(", ")),
            };
            tell(Finding::good("dns", found));
        }
        Ok(Err(error)) => {
            tell(
                Finding::bad("dns", format!("no address for {host}: {error}"))
                    .advise("check the name, and this computer's DNS"),
            );
            return false;
        }
        Err(_) => {
            tell(Finding::bad("dns", format!("no answer about {host}")).advise("check this computer's DNS"));
            return false;
        }
    }
    let begun = Instant::now();
    let connected = timeout(connector::WITHIN, connector.connect(server)).await;
    let took = begun.elapsed().as_millis();
    let connected = connected.unwrap_or(Err(ConnectError::TooSlow));
    match &connected {
        Err(error @ (ConnectError::Tcp(..) | ConnectError::TooSlow)) => {
            tell(
                Finding::bad("tcp", error.to_string())
                    .advise("is the server running, and the port open in its firewall?"),
            );
            return false;
        }
        Ok(_) | Err(_) => tell(Finding::good("tcp", format!("{host}:{port} takes connections"))),
    }
    match (proxy, &connected) {
        (_, Err(error @ (ConnectError::Proxy(_) | ConnectError::NoProxy(_)))) => {
            tell(Finding::bad("proxy", error.to_string()));
            return false;
        }
        (Some(proxy), _) => tell(Finding::good("proxy", format!("{proxy} lets us through"))),
        (None, _) => tell(Finding::good("proxy", "none on the way")),
    }
    match connected {
        Ok(transport) => {
            tell(tls(server, &transport, took));
            true
        }
        Err(error) => {
            tell(Finding::bad("tls", error.to_string()));
            false
        }
    }
}

fn tls(server: &Url, transport: &Transport, took: u128) -> Finding {
    let Some(session) = transport.tls() else {
        return if is_loopback(server) {
            Finding::good("tls", "none, and none needed on this machine")
        } else {
            Finding::doubtful("tls", "none: everyone on the way can read the token", "use https://")
        };
    };
    let version = match session.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2",
        _ => "TLS",
    };
    let until = session.peer_certificates().and_then(|chain| tunnel_certs::client::not_after(chain.first()?));
    let host = server.host_str().unwrap_or_default();
    let Some(until) = until else {
        return Finding::good("tls", format!("{version}, trusted certificate for {host}, {took} ms"));
    };
    let date = humantime::format_rfc3339_seconds(until).to_string();
    let date = date.split('T').next().unwrap_or_default();
    let found = format!("{version}, trusted certificate for {host} until {date}, {took} ms");
    match until.duration_since(SystemTime::now()) {
        Ok(left) if left >= RENEWED_BEFORE => Finding::good("tls", found),
        _ => Finding::doubtful("tls", found, "renew the certificate; tunneld reads it again by itself"),
    }
}
