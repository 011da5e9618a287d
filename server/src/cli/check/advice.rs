//! What an administrator should think about: settings that work, and may not be what is meant.
//!
//! Each is one sentence that says what happens and which setting changes it.

use std::{
    path::Path,
    time::{Duration, SystemTime},
};

use tunnel_certs::about::About;
use tunneld::{
    auth::{Allow, AuthConfig},
    config::{AdminConfig, Config, Limits},
};

/// How long before its end a certificate should have been renewed: Let's Encrypt's clients do it 30 days before.
const RENEW_WITHIN: Duration = Duration::from_secs(21 * 24 * 60 * 60);

/// A deadline below this cuts ordinary answers: a model that has to be loaded and then writes a page.
const LONG_ENOUGH: Duration = Duration::from_secs(120);

pub(super) fn advice(config: &Config, certificate: Option<&About>, now: SystemTime) -> Vec<String> {
    [
        certificate.map(|about| of_certificate(config, about, now)).unwrap_or_default(),
        of_port(config).into_iter().collect(),
        of_proxy(config),
        of_time(&config.limits),
        of_tokens(&config.auth),
        of_operation(config),
        secrets(config).filter_map(|(setting, file)| open_to_others(setting, file)).collect(),
    ]
    .concat()
}

fn of_certificate(config: &Config, about: &About, now: SystemTime) -> Vec<String> {
    let mut advice = Vec::new();
    match about.not_after.duration_since(now) {
        Err(_) => advice.push("the certificate has expired: nobody can connect; renew --tls-cert".to_owned()),
        Ok(left) if left < RENEW_WITHIN => {
            advice.push("the certificate ends soon; renew it, a running server takes the new one over".to_owned());
        }
        Ok(_) => {}
    }
    if about.not_before > now {
        advice.push("the certificate is not good yet: nobody can connect; look at this machine's clock".to_owned());
    }
    if let Some(host) = config.public_url.as_ref().and_then(|url| url.host_str())
        && !about.is_for(host)
    {
        advice.push(format!("the certificate is not for {host}, the host of --public-url: nobody can connect to it"));
    }
    advice
}

fn of_port(config: &Config) -> Option<String> {
    let (url, port) = (config.public_url.as_ref()?, config.listen.port());
    let told = url.port_or_known_default()?;
    (config.tls.is_some() && port != 0 && port != told).then(|| {
        let (scheme, host) = (url.scheme(), url.host_str().unwrap_or_default());
        format!(
            "--public-url names port {told}, and TLS ends here on {port}: unless something passes {told} on to {port}, \
             write --public-url {scheme}://{host}:{port}"
        )
    })
}

fn of_proxy(config: &Config) -> Vec<String> {
    let mut advice = Vec::new();
    if config.tls.is_none() && config.trusted_proxies.is_empty() {
        advice.push(
            "no --trusted-proxy: behind a proxy the log shows the proxy's address for every caller; for one on this \
             machine add --trusted-proxy 127.0.0.1"
                .to_owned(),
        );
    }
    if config.tls.is_none() && config.public_url.is_none() {
        advice.push(
            "no --public-url: desktops show an http:// address, since only the proxy knows its own; add --public-url \
             https://HOST"
                .to_owned(),
        );
    }
    let everyone = |net: &&ipnet::IpNet| net.prefix_len() == 0;
    if let Some(net) = config.trusted_proxies.iter().find(everyone) {
        advice.push(format!("--trusted-proxy {net} believes everybody: any caller can choose the address in the log"));
    }
    advice
}

fn of_time(limits: &Limits) -> Vec<String> {
    let time = humantime::format_duration;
    let (deadline, stall) = (limits.stream_deadline, limits.stall_timeout);
    let mut advice = Vec::new();
    if limits.max_stream_deadline < LONG_ENOUGH {
        advice.push(format!(
            "answers that take longer than {} are cut, and a model that loads slowly is a 504; for long answers add \
             --stream-deadline 10m --stall-timeout 10m",
            time(limits.max_stream_deadline)
        ));
    } else if stall < LONG_ENOUGH && stall < deadline {
        advice.push(format!(
            "--stall-timeout {} fires while a model is loaded, which is silent, long before the deadline of {}; raise it",
            time(stall),
            time(deadline)
        ));
    }
    advice
}

fn of_tokens(auth: &AuthConfig) -> Vec<String> {
    let mut advice = Vec::new();
    if auth.public_key.is_some() && auth.audience.is_none() {
        advice.push(
            "no --jwt-audience: tokens that the owner of the public key issues for other programs are good here, too"
                .to_owned(),
        );
    }
    if auth.public_key.is_some() && auth.issuer.is_none() {
        advice.push("no --jwt-issuer: tokens of the public key may name any issuer".to_owned());
    }
    if (auth.public_key.is_some() || auth.provider.is_some()) && auth.allow == Allow::Any {
        advice.push(
            "everyone who has an account where tokens are issued may connect a desktop and send requests to it; \
             --allow-user or --require-claim says who"
                .to_owned(),
        );
    }
    advice
}

fn of_operation(config: &Config) -> Vec<String> {
    let mut advice = Vec::new();
    match &config.admin {
        None => advice.push(
            "no --admin-listen: no metrics, and no way to see, disconnect or revoke anybody; add --admin-listen \
             127.0.0.1:9464 --admin-token-file FILE"
                .to_owned(),
        ),
        Some(AdminConfig { token_file: None, .. }) => {
            advice.push("no --admin-token-file: nobody can be disconnected or revoked".to_owned());
        }
        Some(AdminConfig { listen, .. }) if !listen.ip().is_loopback() => advice
            .push(format!("the admin interface on {listen} is plain HTTP: whoever is on the way can read its token")),
        Some(_) => {}
    }
    let can_revoke = config.admin.as_ref().is_some_and(|admin| admin.token_file.is_some());
    if can_revoke && config.revocations_file.is_none() {
        advice.push("no --revocations-file: what is revoked is good again after a restart".to_owned());
    }
    advice
}

/// Files that nobody but the server should read.
fn secrets(config: &Config) -> impl Iterator<Item = (&'static str, &Path)> {
    let key = config.tls.as_ref().map(|files| ("tls-key", files.key.as_path()));
    let secret = config.key_files.secret.as_deref().map(|file| ("jwt-secret-file", file));
    let admin = config.admin.as_ref().and_then(|admin| Some(("admin-token-file", admin.token_file.as_deref()?)));
    key.into_iter().chain(secret).chain(admin)
}

#[cfg(unix)]
fn open_to_others(setting: &str, file: &Path) -> Option<String> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(file).ok()?.permissions().mode();
    let file = file.display();
    (mode & 0o007 != 0).then(|| format!("--{setting}: everyone on this machine can read {file}; chmod o= {file}"))
}

#[cfg(not(unix))]
fn open_to_others(_: &str, _: &Path) -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use tunneld::config::TlsFiles;

    use super::*;
    use crate::cli::{resolve, settings::Settings};

    /// A server behind a proxy that nobody has thought about.
    fn config(public_url: Option<&str>) -> (tempfile::TempDir, Config) {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        std::fs::write(&secret, "x".repeat(32)).unwrap();
        let settings = Settings {
            plain_http: Some(true),
            jwt_secret_file: Some(secret),
            public_url: public_url.map(str::to_owned),
            ..Settings::default()
        };
        (dir, resolve::serve(&settings).unwrap().config)
    }

    #[test]
    fn each_setting_that_may_be_missing_is_named_with_what_happens_without() {
        let (_dir, mut config) = config(None);
        let said = |config: &Config| advice(config, None, SystemTime::now()).join("\n");
        let all = said(&config);
        for part in
            ["--trusted-proxy 127.0.0.1", "--public-url https://HOST", "--stream-deadline 10m", "no --admin-listen"]
        {
            assert!(all.contains(part), "{part} is not in {all}");
        }
        let listen = "127.0.0.1:9464".parse().unwrap();
        config.admin = Some(AdminConfig { listen, token_file: None });
        assert!(said(&config).contains("no --admin-token-file"));
        config.admin = Some(AdminConfig { listen: "10.0.0.1:9464".parse().unwrap(), token_file: Some("/no/x".into()) });
        assert!(said(&config).contains("plain HTTP") && said(&config).contains("no --revocations-file"));
        config.trusted_proxies = vec!["0.0.0.0/0".parse().unwrap()];
        assert!(said(&config).contains("believes everybody"));
    }

    #[cfg(unix)]
    #[test]
    fn a_secret_that_everyone_can_read_is_named() {
        use std::os::unix::fs::PermissionsExt;
        let (dir, config) = config(None);
        let named = |mode: u32| {
            let permissions = std::fs::Permissions::from_mode(mode);
            std::fs::set_permissions(dir.path().join("secret"), permissions).unwrap();
            advice(&config, None, SystemTime::now()).iter().any(|said| said.contains("chmod o= "))
        };
        assert_eq!([named(0o644), named(0o640), named(0o600)], [true, false, false]);
    }

    #[test]
    fn a_public_url_with_another_port_than_tls_has_is_named() {
        let said = |url, listen: &str, tls: bool| {
            let (_dir, mut config) = config(Some(url));
            config.listen = listen.parse().unwrap();
            config.tls = tls.then(|| TlsFiles { cert: "/no/cert".into(), key: "/no/key".into() });
            of_port(&config).unwrap_or_default()
        };
        let told = said("https://localhost", "127.0.0.1:8443", true);
        assert!(told.contains("port 443") && told.ends_with("--public-url https://localhost:8443"), "{told}");
        assert_eq!(said("https://localhost:8443", "127.0.0.1:8443", true), "");
        assert_eq!(said("https://localhost", "0.0.0.0:443", true), "");
        assert_eq!(said("https://localhost", "127.0.0.1:8443", false), "", "a proxy has its own");
        assert_eq!(said("https://localhost", "127.0.0.1:0", true), "");
    }

    fn about(names: &[&str], from: i64, until: i64) -> About {
        let at = |days: i64| {
            let distance = Duration::from_secs(days.unsigned_abs() * 86_400);
            if days < 0 { SystemTime::now() - distance } else { SystemTime::now() + distance }
        };
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        About { names, not_before: at(from), not_after: at(until) }
    }

    #[test]
    fn deadlines_are_looked_at_as_a_caller_meets_them() {
        let said = |deadline: u64, most: u64, stall: u64| {
            let [stream_deadline, max_stream_deadline, stall_timeout] =
                [deadline, most, stall].map(Duration::from_secs);
            of_time(&Limits { stream_deadline, max_stream_deadline, stall_timeout, ..Limits::default() }).concat()
        };
        assert!(said(30, 30, 30).contains("longer than 30s are cut"));
        assert!(said(600, 600, 30).contains("--stall-timeout 30s fires"));
        assert_eq!(said(600, 600, 600), "");
        assert_eq!(said(30, 3600, 30), "");
    }

    #[test]
    fn a_certificate_is_looked_at_as_a_caller_meets_it() {
        let (_dir, config) = config(Some("https://a.example"));
        let said = |about: &About| of_certificate(&config, about, SystemTime::now()).join("; ");
        assert_eq!(said(&about(&["a.example"], -1, 90)), "");
        assert!(said(&about(&["a.example"], -1, 7)).contains("ends soon"));
        assert!(said(&about(&["a.example"], -9, -1)).contains("has expired"));
        assert!(said(&about(&["a.example"], 1, 90)).contains("not good yet"));
        assert!(said(&about(&["b.example"], -1, 90)).contains("is not for a.example"));
    }
}
