//! Real handshakes between the configurations of this crate, over an in-memory pipe.

use std::{fs, io, path::PathBuf, sync::Arc};

use rustls::{ClientConfig, ServerConfig, pki_types::ServerName};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::{
    ALPN_HTTP2, ALPN_HTTP11, client,
    dev::{self, Existing, Written},
    server::{Reload, ServerCerts, ServerCertsError},
};

/// A directory with a fresh authority and certificate for `hosts`.
fn made(hosts: &[&str]) -> (TempDir, Written) {
    let dir = TempDir::new().unwrap();
    let written = dev::generate(dir.path(), hosts, Existing::Keep).unwrap();
    (dir, written)
}

fn server(files: &Written) -> ServerConfig {
    ServerCerts::load(&files.cert, &files.key).unwrap().config()
}

fn trusting(files: &Written) -> ClientConfig {
    client::config(Some(&files.ca)).unwrap()
}

/// What a client learned from a handshake.
#[derive(Debug)]
struct Handshake {
    alpn: Option<Vec<u8>>,
    certificate: Vec<u8>,
}

/// Connects, sends a byte each way, and hands back what the client saw.
async fn handshake(server: ServerConfig, client: ClientConfig, name: &str) -> io::Result<Handshake> {
    let (near, far) = duplex(512);
    let serving = tokio::spawn(async move {
        let mut stream = TlsAcceptor::from(Arc::new(server)).accept(far).await?;
        let byte = stream.read_u8().await?;
        stream.write_u8(byte).await?;
        stream.flush().await
    });
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut stream = TlsConnector::from(Arc::new(client)).connect(name, near).await?;
    stream.write_u8(7).await?;
    stream.flush().await?;
    assert_eq!(stream.read_u8().await?, 7);
    serving.await.unwrap()?;
    let connection = stream.get_ref().1;
    Ok(Handshake {
        alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
        certificate: connection.peer_certificates().unwrap()[0].to_vec(),
    })
}

/// The sentence for a handshake that must fail.
async fn refusal(server: ServerConfig, client: ClientConfig, name: &str) -> String {
    client::explain(&handshake(server, client, name).await.unwrap_err()).unwrap()
}

#[tokio::test]
async fn names_and_addresses_are_accepted() {
    let (_dir, files) = made(&["localhost", "*.example.org", "127.0.0.1", "[::1]"]);
    for name in ["localhost", "a.example.org", "127.0.0.1", "::1"] {
        let seen = handshake(server(&files), trusting(&files), name).await.unwrap();
        assert_eq!(seen.alpn.as_deref(), Some(ALPN_HTTP11), "{name}");
    }
}

#[tokio::test]
async fn tls12_is_spoken_and_a_caller_may_choose_http2_or_no_alpn() {
    let (_dir, files) = made(&["localhost"]);
    let mut roots = rustls::RootCertStore::empty();
    roots.add(crate::pem::certificates(&files.ca).unwrap().remove(0)).unwrap();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for (offered, chosen) in [
            (vec![ALPN_HTTP11.to_vec(), ALPN_HTTP2.to_vec()], Some(ALPN_HTTP2)),
            (vec![ALPN_HTTP11.to_vec()], Some(ALPN_HTTP11)),
            (vec![], None),
        ] {
            let mut client = ClientConfig::builder_with_provider(crate::provider())
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots.clone())
                .with_no_client_auth();
            client.alpn_protocols = offered;
            let seen = handshake(server(&files), client, "localhost").await.unwrap();
            assert_eq!(seen.alpn.as_deref(), chosen);
        }
    }
}

#[tokio::test]
async fn t56_wrong_name_is_refused() {
    let (_dir, files) = made(&["localhost", "127.0.0.1"]);
    let refusal = refusal(server(&files), trusting(&files), "example.org").await;
    assert!(refusal.contains("not for example.org but for localhost, 127.0.0.1;"), "{refusal}");
}

#[tokio::test]
async fn t56_unknown_authority_is_refused() {
    let (_dir, files) = made(&["localhost"]);
    let (_other_dir, other) = made(&["localhost"]);
    let refusal = refusal(server(&files), trusting(&other), "localhost").await;
    assert!(refusal.contains("--ca"), "{refusal}");
}

#[tokio::test]
async fn t56_self_signed_is_refused() {
    let (dir, files) = made(&["localhost"]);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap().self_signed(&key).unwrap();
    let (cert_file, key_file) = (dir.path().join("self.pem"), dir.path().join("self-key.pem"));
    fs::write(&cert_file, certificate.pem()).unwrap();
    fs::write(&key_file, key.serialize_pem()).unwrap();
    let server = ServerCerts::load(cert_file, key_file).unwrap().config();
    let refusal = refusal(server, trusting(&files), "localhost").await;
    assert!(refusal.contains("not trusted"), "{refusal}");
}

#[tokio::test]
async fn t56_expired_and_future_certificates_are_refused() {
    for (days, word) in [(-3000, "expired"), (400, "not valid yet")] {
        let (_dir, files) = made(&["localhost"]);
        let made = dev::make(
            vec![rcgen::SanType::DnsName("localhost".try_into().unwrap())],
            OffsetDateTime::now_utc() + Duration::days(days),
        )
        .unwrap();
        for (path, text) in [(&files.ca, made.ca), (&files.cert, made.cert), (&files.key, made.key)] {
            fs::write(path, text).unwrap();
        }
        let refusal = refusal(server(&files), trusting(&files), "localhost").await;
        assert!(refusal.contains(word), "{refusal}");
    }
}

#[tokio::test]
async fn plain_http_on_the_port_is_explained() {
    let (_dir, files) = made(&["localhost"]);
    let (near, mut far) = duplex(4096);
    let serving = tokio::spawn(async move {
        let _ = far.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        far
    });
    let connector = TlsConnector::from(Arc::new(trusting(&files)));
    let error = connector.connect(ServerName::try_from("localhost").unwrap(), near).await.unwrap_err();
    assert!(client::explain(&error).unwrap().contains("http:"));
    assert!(client::explain(&io::Error::other("reset")).is_none());
    serving.await.unwrap();
}

#[tokio::test]
async fn f11_new_handshakes_use_the_replaced_certificate() {
    let (dir, files) = made(&["localhost"]);
    let certs = ServerCerts::load(&files.cert, &files.key).unwrap();
    let config = certs.config();
    let before = handshake(config.clone(), trusting(&files), "localhost").await.unwrap();
    assert_eq!(certs.reload().unwrap(), Reload::Unchanged);

    dev::generate(dir.path(), &["localhost"], Existing::Overwrite).unwrap();
    assert_eq!(certs.reload().unwrap(), Reload::Replaced);
    let after = handshake(config, trusting(&files), "localhost").await.unwrap();
    assert_ne!(before.certificate, after.certificate);
}

#[tokio::test]
async fn f11_a_half_written_pair_leaves_the_old_one_in_place() {
    let (_dir, files) = made(&["localhost"]);
    let (_other_dir, other) = made(&["localhost"]);
    let certs = ServerCerts::load(&files.cert, &files.key).unwrap();
    fs::copy(&other.cert, &files.cert).unwrap();
    assert!(matches!(certs.reload(), Err(ServerCertsError::Mismatch { .. })));
    fs::write(&files.cert, "").unwrap();
    certs.reload().unwrap_err();
    handshake(certs.config(), trusting(&files), "localhost").await.unwrap();
}

#[test]
fn pairs_that_do_not_belong_together_are_named() {
    let (dir, files) = made(&["localhost"]);
    let (_other_dir, other) = made(&["localhost"]);

    let error = ServerCerts::load(&files.cert, &other.key).unwrap_err().to_string();
    assert!(error.contains(other.key.to_str().unwrap()) && error.contains("does not belong"), "{error}");

    let reversed: PathBuf = dir.path().join("reversed.pem");
    fs::write(&reversed, fs::read_to_string(&files.ca).unwrap() + &fs::read_to_string(&files.cert).unwrap()).unwrap();
    let error = ServerCerts::load(&reversed, &files.key).unwrap_err().to_string();
    assert!(error.contains("wrong order"), "{error}");

    let weak = dir.path().join("weak.pem");
    fs::write(&weak, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap();
    let error = ServerCerts::load(&files.cert, &weak).unwrap_err().to_string();
    assert!(error.contains("cannot be used"), "{error}");
}

#[test]
fn one_file_may_hold_both() {
    let (dir, files) = made(&["localhost"]);
    let both = dir.path().join("both.pem");
    fs::write(&both, fs::read_to_string(&files.key).unwrap() + &fs::read_to_string(&files.cert).unwrap()).unwrap();
    ServerCerts::load(&both, &both).unwrap();
}

#[tokio::test]
async fn the_end_of_a_certificate_is_found_in_it() {
    let (_dir, files) = made(&["localhost"]);
    let seen = handshake(server(&files), trusting(&files), "localhost").await.unwrap();
    let end = OffsetDateTime::from(client::not_after(&seen.certificate.into()).unwrap());
    let days = (end - OffsetDateTime::now_utc()).whole_days();
    assert!((820..=824).contains(&days), "{end}");
    assert_eq!(client::not_after(&b"no certificate".to_vec().into()), None);
}
