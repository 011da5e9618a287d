//! Who sends a request: the peer of the connection, or whom a trusted proxy names (T65).

use std::{net::IpAddr, sync::Arc};

use http::HeaderMap;
use ipnet::IpNet;

/// Who is at the other end of a connection.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    address: IpAddr,
    /// The address, as each request's log line says it.
    text: Arc<str>,
}

impl Peer {
    pub(crate) fn new(address: IpAddr) -> Self {
        Self { address, text: address.to_string().into() }
    }

    /// The address of who sends a request with these headers, as text.
    pub(crate) fn client(&self, headers: &HeaderMap, trusted: &[IpNet]) -> Arc<str> {
        let client = address(self.address, headers, trusted);
        if client == self.address { Arc::clone(&self.text) } else { client.to_string().into() }
    }
}

/// The address of the caller. `X-Forwarded-For` is read from the nearest hop outwards, as long as the one who names the
/// next is trusted; what a caller wrote in front of that is never reached.
fn address(peer: IpAddr, headers: &HeaderMap, trusted: &[IpNet]) -> IpAddr {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|net| net.contains(address));
    if !is_trusted(&peer) {
        return peer;
    }
    let named = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let hops: Vec<&str> = named.flat_map(|value| value.split(',')).map(str::trim).collect();
    let mut client = peer;
    for hop in hops.iter().rev() {
        let Ok(address) = hop.parse() else { break };
        client = address;
        if !is_trusted(&client) {
            break;
        }
    }
    client
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t65_only_a_trusted_proxy_is_believed() {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "2001:db8::1/128".parse().unwrap()];
        for (peer, forwarded, expected) in [
            ("192.0.2.1", &["203.0.113.9"][..], "192.0.2.1"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("2001:db8::1", &["203.0.113.9"], "203.0.113.9"),
            // What the caller made up comes first and is not reached.
            ("10.0.0.1", &["198.51.100.1, 203.0.113.9"], "203.0.113.9"),
            ("10.0.0.1", &["198.51.100.1", "203.0.113.9, 10.0.0.2"], "203.0.113.9"),
            // Nonsense ends the search at the last hop that was named.
            ("10.0.0.1", &["203.0.113.9, nonsense, 10.0.0.2"], "10.0.0.2"),
            ("10.0.0.1", &["nonsense"], "10.0.0.1"),
        ] {
            let mut headers = HeaderMap::new();
            for value in forwarded {
                headers.append("x-forwarded-for", value.parse().unwrap());
            }
            let client = Peer::new(peer.parse().unwrap()).client(&headers, &trusted);
            assert_eq!(&*client, expected, "{peer} {forwarded:?}");
        }
    }
}
