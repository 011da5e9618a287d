//! Settings into a [`Config`]: every value read into its type, every file of keys opened, every contradiction found.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    time::Duration,
};

use bytesize::ByteSize;
use ipnet::IpNet;
use tunnel_certs::server::{ServerCerts, ServerCertsError};
use tunnel_cli::{
    log::Log,
    settings::{Wrong, read, read_all},
    value,
};
use tunneld::{
    admin::{AdminToken, AdminTokenError},
    config::{AdminConfig, Config, DEFAULT_LISTEN_PLAIN, DEFAULT_LISTEN_TLS, KeyFiles, Limits, TlsFiles},
    edge::cors::CorsPolicy,
};
use url::Url;

use super::{settings::Settings, trust};

/// Where plain HTTP listens when a port alone is given.
pub(super) const LOOPBACK: IpAddr = DEFAULT_LISTEN_PLAIN.ip();

/// What `serve` runs and `check` tells.
#[derive(Debug)]
pub(crate) struct Serve {
    /// For the server.
    pub(crate) config: Config,
    /// How to log.
    pub(crate) log: Log,
    /// Sentences to say before anything else.
    pub(crate) warnings: Vec<String>,
}

pub(super) fn serve(settings: &Settings) -> Result<Serve, Wrong> {
    let tls = tls(settings)?;
    let default = if tls.is_some() { DEFAULT_LISTEN_TLS } else { DEFAULT_LISTEN_PLAIN };
    let listen = |text: &str| value::listen_address(text, default.ip());
    let listen = read("listen", settings.listen.as_deref(), listen)?.unwrap_or(default);
    let mut warnings = Vec::new();
    if tls.is_none() && settings.listen.as_deref().is_some_and(|text| value::port_alone(text).is_some()) {
        warnings.push(format!(
            "plain HTTP and a port alone: only this machine can connect, to {listen}; for a proxy elsewhere write \
             --listen 0.0.0.0:{}",
            listen.port()
        ));
    }
    if tls.is_none() && !listen.ip().is_loopback() {
        warnings.push(format!(
            "plain HTTP on {listen}: tokens and prompts can be read by everyone on the way to the proxy"
        ));
    }
    let level = settings.log_level.as_deref().unwrap_or("info");
    let filter = Log::filter(level).map_err(|problem| Wrong::new("log-level", problem))?;
    warnings.extend(trust::warning(settings));
    let config = Config {
        listen,
        tls,
        public_url: read("public-url", settings.public_url.as_deref(), public_url)?,
        trusted_proxies: read_all("trusted-proxy", settings.trusted_proxy.as_deref(), network)?,
        auth: trust::auth(settings)?,
        login: trust::login(settings)?,
        key_files: KeyFiles { secret: settings.jwt_secret_file.clone(), public_key: settings.jwt_public_key.clone() },
        revocations_file: settings.revocations_file.clone(),
        admin: admin(settings)?,
        model_figures: !settings.no_model_figures.unwrap_or(false),
        limits: limits(settings)?,
        cors_origins: cors_origins(settings)?,
    };
    Ok(Serve { config, log: Log { filter, format: settings.log_format.unwrap_or_default() }, warnings })
}

fn tls(settings: &Settings) -> Result<Option<TlsFiles>, Wrong> {
    let plain = settings.plain_http.unwrap_or(false);
    match (plain, &settings.tls_cert, &settings.tls_key) {
        (true, None, None) => Ok(None),
        (true, ..) => Err(Wrong::new("plain-http", "a certificate is set as well; keep one of the two ways")),
        (false, Some(cert), Some(key)) => certificate(cert, key).map(Some),
        (false, Some(_), None) => Err(Wrong::new("tls-cert", "its private key is missing; add --tls-key FILE")),
        (false, None, Some(_)) => Err(Wrong::new("tls-key", "its certificate is missing; add --tls-cert FILE")),
        (false, None, None) => Err(Wrong::new(
            "tls-cert",
            "give --tls-cert and --tls-key (`tunneld certs` makes a pair for development), or --plain-http behind a proxy",
        )),
    }
}

/// The server reads both again; here a mistake is told with its setting.
fn certificate(cert: &Path, key: &Path) -> Result<TlsFiles, Wrong> {
    let setting = |error: &ServerCertsError| match error {
        ServerCertsError::Cert(_) | ServerCertsError::WrongOrder(_) => "tls-cert",
        ServerCertsError::Key(_) | ServerCertsError::Mismatch { .. } => "tls-key",
    };
    ServerCerts::load(cert, key).map_err(|error| Wrong::new(setting(&error), error))?;
    Ok(TlsFiles { cert: cert.to_owned(), key: key.to_owned() })
}

fn admin(settings: &Settings) -> Result<Option<AdminConfig>, Wrong> {
    let listen = read("admin-listen", settings.admin_listen.as_deref(), |text| value::listen_address(text, LOOPBACK))?;
    let token_file = settings.admin_token_file.clone();
    let token = token_file.clone().map(AdminToken::read).transpose();
    token.map_err(|error| Wrong::new("admin-token-file", error))?;
    match listen {
        Some(listen) if token_file.is_none() && !listen.ip().is_loopback() => {
            Err(Wrong::new("admin-listen", AdminTokenError::Needed(listen)))
        }
        Some(listen) => Ok(Some(AdminConfig { listen, token_file })),
        None => Ok(None),
    }
}

fn limits(settings: &Settings) -> Result<Limits, Wrong> {
    let default = Limits::default();
    let time = |setting, text: &Option<String>| read(setting, text.as_deref(), value::duration);
    let stream_deadline = time("stream-deadline", &settings.stream_deadline)?.unwrap_or(default.stream_deadline);
    let at_most = time("max-stream-deadline", &settings.max_stream_deadline)?;
    if let Some(at_most) = at_most.filter(|at_most| *at_most < stream_deadline) {
        return Err(Wrong::new("max-stream-deadline", shorter_than(at_most, stream_deadline)));
    }
    Ok(Limits {
        stream_deadline,
        max_stream_deadline: at_most.unwrap_or(stream_deadline),
        stall_timeout: time("stall-timeout", &settings.stall_timeout)?.unwrap_or(default.stall_timeout),
        max_tunnels_per_user: at_least_one("max-tunnels-per-user", settings.max_tunnels_per_user)?
            .unwrap_or(default.max_tunnels_per_user),
        max_streams_per_user: at_least_one("max-streams-per-user", settings.max_streams_per_user)?
            .unwrap_or(default.max_streams_per_user),
        max_connections: at_least_one("max-connections", settings.max_connections)?.unwrap_or(default.max_connections),
        max_connections_per_address: at_least_one("max-connections-per-address", settings.max_connections_per_address)?
            .unwrap_or(default.max_connections_per_address),
        max_body: read("max-body", settings.max_body.as_deref(), size)?.or(default.max_body),
    })
}

fn shorter_than(at_most: Duration, deadline: Duration) -> String {
    let (at_most, deadline) = (humantime::format_duration(at_most), humantime::format_duration(deadline));
    format!("{at_most} is shorter than the stream deadline of {deadline}; raise it or lower --stream-deadline")
}

fn at_least_one(setting: &'static str, number: Option<usize>) -> Result<Option<usize>, Wrong> {
    match number {
        Some(0) => Err(Wrong::new(setting, "0 would let nobody in; write 1 or more")),
        number => Ok(number),
    }
}

fn size(text: &str) -> Result<u64, String> {
    match text.parse::<ByteSize>() {
        Ok(ByteSize(0)) => Err("0 would refuse every body; leave it out for no limit".to_owned()),
        Ok(ByteSize(bytes)) => Ok(bytes),
        Err(_) => Err(format!("{text:?} is no size; write for example 500MB or 20GiB")),
    }
}

fn network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse()
        .or_else(|_| address())
        .map_err(|_| format!("{text:?} is no network; write an address or a CIDR, for example 10.0.0.0/8"))
}

fn cors_origins(settings: &Settings) -> Result<Vec<String>, Wrong> {
    let origins = settings.cors_origin.clone().unwrap_or_default();
    CorsPolicy::new(&origins).map_err(|error| Wrong::new("cors-origin", error))?;
    Ok(origins)
}

/// Scheme, host and port of a server; without scheme `https`.
pub(super) fn public_url(text: &str) -> Result<Url, String> {
    let full = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    let url = Url::parse(&full)
        .map_err(|error| format!("{text:?} is not a URL ({error}); write for example https://tunnel.example.com"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("{}:// is not a scheme of a server; write https://HOST", url.scheme()));
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
        let origin = url.origin().ascii_serialization();
        return Err(format!("scheme, host and port only; write {origin}"));
    }
    Ok(url)
}

/// Where a server that listens there is reached from this machine.
pub(super) fn from_here(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        let loopback = if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
        address.set_ip(loopback);
    }
    address
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use tunneld::auth::{Allow, KeySource};

    use super::*;

    const IDP: &str = "https://id.example";

    fn usable() -> (tempfile::TempDir, Settings) {
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        fs::write(&secret, "x".repeat(32)).unwrap();
        (dir, Settings { plain_http: Some(true), jwt_secret_file: Some(secret), ..Settings::default() })
    }

    #[test]
    fn defaults() {
        let (_dir, settings) = usable();
        let Serve { config, warnings, .. } = serve(&settings).unwrap();
        assert_eq!(config.listen, DEFAULT_LISTEN_PLAIN);
        assert_eq!(config.limits, Limits::default());
        assert_eq!(config.auth.allow, Allow::Any);
        assert!(config.tls.is_none() && warnings.is_empty());
    }

    #[test]
    fn the_largest_deadline_follows_the_usual_one() {
        let (_dir, settings) = usable();
        let limits = limits(&Settings { stream_deadline: Some("10m".into()), ..settings }).unwrap();
        assert_eq!(limits.max_stream_deadline, Duration::from_secs(600));
        assert_eq!(limits.stream_deadline, Duration::from_secs(600));
    }

    #[test]
    fn plain_http_on_a_network_is_a_warning() {
        let warned = |listen: &str| {
            let (_dir, usable) = usable();
            serve(&Settings { listen: Some(listen.into()), ..usable }).unwrap().warnings.len()
        };
        assert_eq!([warned("0.0.0.0:80"), warned("[::1]:80"), warned("127.0.0.2:80")], [1, 0, 0]);
    }

    #[test]
    fn plain_http_on_a_port_alone_is_for_this_machine_and_says_so() {
        for port in ["80", ":80"] {
            let (_dir, usable) = usable();
            let listen = Some(port.to_owned());
            let admin_listen = Some("9464".to_owned());
            let Serve { config, warnings, .. } = serve(&Settings { listen, admin_listen, ..usable }).unwrap();
            assert_eq!(config.listen.to_string(), "127.0.0.1:80");
            assert_eq!(config.admin.unwrap().listen.to_string(), "127.0.0.1:9464");
            assert!(warnings.len() == 1 && warnings[0].contains("--listen 0.0.0.0:80"), "{warnings:?}");
        }
    }

    /// Spoils usable settings.
    type Change<'a> = Box<dyn Fn(&mut Settings) + 'a>;

    #[test]
    fn t18_every_mistake_names_its_setting_and_a_way_out() {
        let text = |text: &str| Some(text.to_owned());
        let list = |text: &str| Some(vec![text.to_owned()]);
        let path = |path: &str| Some(PathBuf::from(path));
        let (dir, _) = usable();
        let short = dir.path().join("short");
        fs::write(&short, "short").unwrap();
        let spaced = dir.path().join("spaced");
        fs::write(&spaced, "x ".repeat(32)).unwrap();
        let cases: Vec<(&str, &str, Change<'_>)> = vec![
            ("tls-cert", "--plain-http", Box::new(|s| s.plain_http = None)),
            ("plain-http", "keep one", Box::new(|s| s.tls_cert = path("x"))),
            ("tls-cert", "--tls-key", Box::new(|s| (s.plain_http, s.tls_cert) = (Some(false), path("x")))),
            ("tls-key", "--tls-cert", Box::new(|s| (s.plain_http, s.tls_key) = (None, path("x")))),
            ("jwt-secret-file", "openssl rand -hex 32", Box::new(|s| s.jwt_secret_file = None)),
            ("jwt-secret-file", "/no/x", Box::new(|s| s.jwt_secret_file = path("/no/x"))),
            ("jwt-secret-file", "at least 32", Box::new(|s| s.jwt_secret_file = Some(short.clone()))),
            ("jwt-public-key", "/no/x", Box::new(|s| s.jwt_public_key = path("/no/x"))),
            ("jwt-issuer", "--jwt-public-key", Box::new(|s| s.jwt_issuer = text("x"))),
            ("jwks-url", "only https://", Box::new(|s| s.jwks_url = text("http://id.example/keys"))),
            ("jwks-url", "keep one", Box::new(|s| (s.jwks_url, s.oidc_issuer) = (text(IDP), text(IDP)))),
            ("oidc-issuer", "only https://", Box::new(|s| s.oidc_issuer = text("http://id.example"))),
            ("oidc-issuer", "for example https://", Box::new(|s| s.oidc_issuer = text("id.example"))),
            ("oidc-client-id", "--oidc-issuer", Box::new(|s| s.oidc_client_id = text("x"))),
            ("oidc-scope", "--oidc-client-id", Box::new(|s| s.oidc_scope = text("x"))),
            ("jwt-audience", "exact aud", Box::new(|s| s.oidc_issuer = text(IDP))),
            ("allow-user", "--allow-any-user", Box::new(|s| (s.oidc_issuer, s.jwt_audience) = (text(IDP), text("x")))),
            ("allow-any-user", "keep one", Box::new(|s| (s.allow_any_user, s.allow_user) = (Some(true), list("a")))),
            ("jwt-audience", "empty", Box::new(|s| s.jwt_audience = text(""))),
            ("allow-user", "keep one", Box::new(|s| (s.allow_user, s.require_claim) = (list("a"), list("b=c")))),
            ("allow-user", "no name", Box::new(|s| s.allow_user = list(""))),
            ("require-claim", "group=staff", Box::new(|s| s.require_claim = list("staff"))),
            ("listen", "0.0.0.0:8443", Box::new(|s| s.listen = text("here"))),
            ("admin-listen", "127.0.0.1", Box::new(|s| s.admin_listen = text("0.0.0.0:9464"))),
            ("admin-listen", "--admin-token-file", Box::new(|s| s.admin_listen = text("[::]:9464"))),
            ("admin-listen", "0.0.0.0:8443", Box::new(|s| s.admin_listen = text("here"))),
            ("admin-token-file", "/no/x", Box::new(|s| s.admin_token_file = path("/no/x"))),
            ("admin-token-file", "at least 32", Box::new(|s| s.admin_token_file = Some(short.clone()))),
            ("admin-token-file", "without spaces", Box::new(|s| s.admin_token_file = Some(spaced.clone()))),
            ("public-url", "https://HOST", Box::new(|s| s.public_url = text("ftp://x"))),
            ("public-url", "write https://x", Box::new(|s| s.public_url = text("https://x/y"))),
            ("trusted-proxy", "10.0.0.0/8", Box::new(|s| s.trusted_proxy = list("proxy"))),
            ("cors-origin", "list each", Box::new(|s| s.cors_origin = list("*"))),
            ("cors-origin", "sandboxed", Box::new(|s| s.cors_origin = list("null"))),
            ("cors-origin", "has a path", Box::new(|s| s.cors_origin = list("https://x/y"))),
            ("stream-deadline", "30s", Box::new(|s| s.stream_deadline = text("30"))),
            ("max-stream-deadline", "raise it", Box::new(|s| s.max_stream_deadline = text("1s"))),
            ("stall-timeout", "30s", Box::new(|s| s.stall_timeout = text("0s"))),
            ("max-connections", "1 or more", Box::new(|s| s.max_connections = Some(0))),
            ("max-connections-per-address", "1 or more", Box::new(|s| s.max_connections_per_address = Some(0))),
            ("max-body", "20GiB", Box::new(|s| s.max_body = text("big"))),
            ("max-body", "no limit", Box::new(|s| s.max_body = text("0"))),
            ("max-tunnels-per-user", "1 or more", Box::new(|s| s.max_tunnels_per_user = Some(0))),
            ("max-streams-per-user", "1 or more", Box::new(|s| s.max_streams_per_user = Some(0))),
            ("log-level", "warn", Box::new(|s| s.log_level = text("loud"))),
        ];
        for (setting, way_out, change) in cases {
            let (_dir, mut settings) = usable();
            change(&mut settings);
            let wrong = serve(&settings).expect_err(setting);
            assert_eq!(wrong.setting, setting, "{wrong:?}");
            assert!(wrong.problem.contains(way_out) && !wrong.problem.contains('\n'), "{wrong:?}");
        }
    }

    #[test]
    fn an_identity_provider_beside_the_secret() {
        let text = |text: &str| Some(text.to_owned());
        let (_dir, usable) = usable();
        let settings = Settings { jwt_audience: text("tunnel"), allow_any_user: Some(true), ..usable };
        let idp = Settings { oidc_issuer: text(IDP), oidc_client_id: text("app"), ..settings };
        let Serve { config, warnings, .. } = serve(&idp).unwrap();
        assert!(config.auth.secret.is_some() && warnings.is_empty());
        assert!(matches!(config.auth.provider, Some(KeySource::Issuer(issuer)) if issuer.as_str() == IDP));
        assert_eq!(config.login.unwrap().scope, "openid offline_access");
        let jwks = Settings { oidc_issuer: None, oidc_client_id: None, jwks_url: text(IDP), ..idp };
        let Serve { config, warnings, .. } = serve(&jwks).unwrap();
        assert!(config.login.is_none() && warnings[0].contains("--jwt-issuer"), "{warnings:?}");
    }

    #[test]
    fn networks_and_urls_in_short() {
        assert_eq!(network("10.0.0.7").unwrap().to_string(), "10.0.0.7/32");
        assert_eq!(network("fd00::/8").unwrap().to_string(), "fd00::/8");
        assert_eq!(public_url("tunnel.example.com").unwrap().as_str(), "https://tunnel.example.com/");
        assert_eq!(size("16MiB"), Ok(16 << 20));
    }
}
