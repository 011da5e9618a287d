//! What a certificate says of itself, for people: the names it is for, and how long it is good.
//!
//! Judges nothing: whether a name fits or a time has come is decided by those who connect.

use std::{
    net::{Ipv4Addr, Ipv6Addr},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// Host names and addresses, in its order; a name may begin with `*.`.
    pub names: Vec<String>,
    /// From when on it is good.
    pub not_before: SystemTime,
    /// When it ends.
    pub not_after: SystemTime,
}

impl About {
    /// Reads a certificate; `None` if it is none.
    #[must_use]
    pub fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let (_rest, certificate) = X509Certificate::from_der(certificate).ok()?;
        let alternative = certificate.subject_alternative_name().ok().flatten();
        let names = alternative.map_or(&[][..], |names| &names.value.general_names);
        let validity = certificate.validity();
        Some(Self {
            names: names.iter().filter_map(name).collect(),
            not_before: time(validity.not_before.timestamp()),
            not_after: time(validity.not_after.timestamp()),
        })
    }

    /// Whether it is for this host: a name, or an address as URLs write it. One `*` stands for one label (RFC 9525 §6.3).
    #[must_use]
    pub fn is_for(&self, host: &str) -> bool {
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let wild = host.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        let is_it = |name: &String| {
            name.eq_ignore_ascii_case(host) || wild.as_ref().is_some_and(|wild| name.eq_ignore_ascii_case(wild))
        };
        self.names.iter().any(is_it)
    }
}

fn name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => match *bytes {
            [a, b, c, d] => Some(Ipv4Addr::new(*a, *b, *c, *d).to_string()),
            bytes => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_string()),
        },
        _ => None,
    }
}

/// Seconds since 1970, which may lie before.
fn time(timestamp: i64) -> SystemTime {
    let distance = Duration::from_secs(timestamp.unsigned_abs());
    if timestamp < 0 { UNIX_EPOCH - distance } else { UNIX_EPOCH + distance }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        dev::{self, Existing},
        pem,
    };

    #[test]
    fn names_and_days() {
        let dir = tempfile::tempdir().unwrap();
        let hosts = ["tunnel.example.com", "*.example.org", "127.0.0.1", "::1"].map(str::to_owned);
        let files = dev::generate(dir.path(), &hosts, Existing::Keep).unwrap();
        let about = About::of(&pem::certificates(&files.cert).unwrap()[0]).unwrap();
        assert_eq!(about.names, hosts);
        let left = about.not_after.duration_since(SystemTime::now()).unwrap().as_secs() / 86_400;
        assert!((822..=824).contains(&left), "{left}");
        assert!(about.not_before <= SystemTime::now());
        for host in ["tunnel.example.com", "TUNNEL.example.com", "a.example.org", "127.0.0.1", "[::1]"] {
            assert!(about.is_for(host), "{host}");
        }
        for host in ["example.com", "a.tunnel.example.com", "example.org", "a.b.example.org", "127.0.0.2", ""] {
            assert!(!about.is_for(host), "{host}");
        }
        assert_eq!(About::of(&CertificateDer::from(vec![1, 2, 3])), None);
    }
}
