//! How people write values, and one sentence with an example for each that cannot be read.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

/// The longest duration that is accepted: a year and a month. Anything longer is a slip of the pen.
const LONGEST: Duration = Duration::from_secs(400 * 24 * 60 * 60);

/// `30s`, `10m`, `1h 30m`; more than nothing.
pub fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(Duration::ZERO) => Err("it must be longer than nothing; write for example 30s".to_owned()),
        Ok(duration) if duration > LONGEST => Err(format!("{text:?} is longer than 400 days")),
        Ok(duration) => Ok(duration),
        Err(_) => Err(format!("{text:?} is no duration; write for example 30s, 10m or 1h")),
    }
}

/// `127.0.0.1:8443`, `[::1]:8443`, `localhost:8443`; a [port alone](port_alone) is meant on `usual`.
pub fn listen_address(text: &str, usual: IpAddr) -> Result<SocketAddr, String> {
    if let Some(port) = port_alone(text) {
        return Ok(SocketAddr::new(usual, port));
    }
    if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    text.parse().map_err(|_| format!("{text:?} is no address to listen on; write IP:PORT, for example 0.0.0.0:8443"))
}

/// `8443` or `:8443`.
#[must_use]
pub fn port_alone(text: &str) -> Option<u16> {
    text.strip_prefix(':').unwrap_or(text).parse().ok()
}

/// The token in what people paste instead of it: in a header (`Bearer TOKEN`), in a capability URL
/// (`https://SERVER/t/TOKEN/`), or alone with white space around it. Whatever else it is stays as it is.
#[must_use]
pub fn bare_token(text: &str) -> &str {
    const BEARER: &str = "bearer ";
    let text = text.trim();
    if text.get(..BEARER.len()).is_some_and(|start| start.eq_ignore_ascii_case(BEARER)) {
        return text[BEARER.len()..].trim_start();
    }
    match text.split_once("/t/") {
        Some((server, rest)) if server.contains("://") => rest.split(['/', '?', '#']).next().unwrap_or_default(),
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "30", "-1s", "0s", "soon"] {
            assert!(duration(bad).unwrap_err().contains("for example"), "{bad}");
        }
        assert!(duration("1000y").unwrap_err().contains("400 days"));
    }

    #[test]
    fn addresses_to_listen_on() {
        let all = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        let read = |text| listen_address(text, all).unwrap().to_string();
        assert_eq!(read("127.0.0.1:80"), "127.0.0.1:80");
        assert_eq!(read("[::1]:80"), "[::1]:80");
        assert_eq!(read(":80"), "0.0.0.0:80");
        assert_eq!(read("80"), "0.0.0.0:80");
        assert_eq!(read("localhost:0"), "127.0.0.1:0");
        for bad in ["", "127.0.0.1", "example.com:80", "1.2.3.4:99999", "http://0.0.0.0:80"] {
            assert!(listen_address(bad, all).is_err(), "{bad}");
        }
    }
}
