//! A server as a whole: what its parts share, its start, and its orderly end.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, header};
use ipnet::IpNet;
use thiserror::Error;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::{
    sync::CancellationToken,
    task::{AbortOnDropHandle, TaskTracker},
};
use tracing::{info, warn};
use tunnel_certs::{
    client::ClientTlsError,
    server::{ServerCerts, ServerCertsError},
};
use tunnel_oidc::Login;
use url::Url;

use crate::{
    admin::{Admin, AdminError},
    admission::Admission,
    auth::{
        AuthConfigError, Authenticator,
        revocation::{Revocations, RevocationsError},
    },
    config::{Config, Limits},
    edge::{
        cors::{CorsOriginError, CorsPolicy},
        peer::Peer,
        web::WebClient,
    },
    listener::Listener,
    metrics::Metrics,
    provider::Provider,
    registry::{Registry, RegistryLimits},
    reload::{Reloader, Watch},
    sockets::{Holder, Sockets},
    workers::Workers,
};

/// How long streams may go on after the server was told to stop, and then what is left of them is cut.
const DRAIN_WITHIN: Duration = Duration::from_secs(32);

/// A server that is bound and not yet running.
pub struct Server {
    app: Arc<App>,
    socket: TcpListener,
    holder: Holder,
    address: SocketAddr,
    listener: Listener,
    workers: Arc<Workers>,
    admin: Option<Admin>,
    provider: Option<Provider>,
    watch: Watch,
}

/// Why a server cannot start. Each is one line that says what to do.
#[derive(Debug, Error)]
pub enum StartError {
    /// `--listen`.
    #[error(
        "cannot listen on {address}: {}; choose another with --listen{}",
        sentence(.error),
        if *.is_public { ", and name it in --public-url" } else { "" }
    )]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// Whether it is the port that `--public-url` names, by saying none or so.
        is_public: bool,
        /// The system's reason.
        error: io::Error,
    },
    /// What a service manager passed.
    #[error(transparent)]
    Passed(io::Error),
    /// `--tls-cert`, `--tls-key`.
    #[error(transparent)]
    Certs(#[from] ServerCertsError),
    /// `--jwt-…`.
    #[error(transparent)]
    Auth(#[from] AuthConfigError),
    /// `--jwks-url`, `--oidc-issuer`: no way to know who answers.
    #[error("the identity provider cannot be asked: {0}")]
    Provider(#[from] ClientTlsError),
    /// `--revocations-file`.
    #[error(transparent)]
    Revocations(#[from] RevocationsError),
    /// `--admin-…`.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// `--cors-origin`.
    #[error("--cors-origin: {0}")]
    Cors(#[from] CorsOriginError),
    /// The system gives no more threads.
    #[error("cannot start a thread: {0}; raise the limit of processes (ulimit -u)")]
    Threads(io::Error),
}

/// What all requests and tunnels share.
pub(crate) struct App {
    pub(crate) authenticator: Authenticator,
    pub(crate) registry: Arc<Registry>,
    pub(crate) cors: CorsPolicy,
    pub(crate) web: WebClient,
    pub(crate) limits: Limits,
    pub(crate) login: Option<Login>,
    pub(crate) metrics: Arc<Metrics>,
    /// Whether answers of models are looked at for what they say of themselves.
    pub(crate) model_figures: bool,
    pub(crate) started: SystemTime,
    public_url: Option<Url>,
    pub(crate) admission: Admission,
    trusted_proxies: Vec<IpNet>,
    /// The certificate, where this server ends TLS itself.
    pub(crate) certs: Option<Arc<ServerCerts>>,
    /// The server stops: no new work.
    pub(crate) draining: CancellationToken,
    /// No caller is connected any more, nor will be.
    pub(crate) deserted: CancellationToken,
    /// Every task that serves someone.
    pub(crate) tasks: TaskTracker,
}

impl App {
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// The address of who sends this.
    pub(crate) fn client(&self, peer: &Peer, headers: &HeaderMap) -> Arc<str> {
        peer.client(headers, &self.trusted_proxies)
    }

    /// Where callers reach this server: as configured, else as the desktop reached it.
    pub(crate) fn public_url(&self, headers: &HeaderMap) -> String {
        if let Some(url) = &self.public_url {
            return url[..url::Position::BeforePath].to_owned();
        }
        let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
        format!("{}://{host}", if self.certs.is_some() { "https" } else { "http" })
    }
}

impl Server {
    /// Loads what the configuration names, and binds what is not among the sockets that were `passed`. Must be called
    /// within a tokio runtime.
    ///
    /// # Errors
    /// See [`StartError`].
    pub async fn bind(config: Config, passed: Vec<StdListener>) -> Result<Self, StartError> {
        let tls = config.tls.as_ref().map(|files| ServerCerts::load(&files.cert, &files.key)).transpose()?;
        let revocations_file = config.revocations_file;
        let revocations = revocations_file.clone().map(Revocations::open).transpose()?.unwrap_or_default();
        let registry_limits =
            RegistryLimits { tunnels: config.limits.max_tunnels_per_user, streams: config.limits.max_streams_per_user };
        let keys = config.auth.provider.clone();
        let app = Arc::new(App {
            authenticator: Authenticator::with_revocations(config.auth, revocations)?,
            registry: Arc::new(Registry::new(registry_limits)),
            cors: CorsPolicy::new(&config.cors_origins)?,
            web: WebClient::new(config.login.as_ref()),
            login: config.login,
            public_url: config.public_url,
            admission: Admission::new(&config.limits, config.trusted_proxies.clone(), tls.is_none()),
            limits: config.limits,
            metrics: Arc::new(Metrics::new()),
            model_figures: config.model_figures,
            started: SystemTime::now(),
            trusted_proxies: config.trusted_proxies,
            certs: tls.clone(),
            draining: CancellationToken::new(),
            deserted: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let provider = keys.map(|keys| Provider::new(Arc::clone(&app), keys)).transpose()?;
        let public_port = app.public_url.as_ref().and_then(Url::port_or_known_default);
        let is_public = public_port == Some(config.listen.port());
        let bind_error = |error| StartError::Bind { address: config.listen, is_public, error };
        let others = config.admin.as_ref().map(|admin| admin.listen);
        let mut sockets = Sockets::new(passed, config.listen, others.as_slice()).map_err(StartError::Passed)?;
        let (socket, holder) = sockets.listen(config.listen).await.map_err(bind_error)?;
        let address = socket.local_addr().map_err(bind_error)?;
        let admin = match config.admin {
            Some(admin) => Some(Admin::bind(admin, Arc::clone(&app), &mut sockets).await?),
            None => None,
        };
        let mut watch = Watch::new(Arc::clone(&app.metrics));
        watch.keys(&app, config.key_files);
        watch.revocations(&app, revocations_file);
        if let Some((certs, files)) = tls.clone().zip(config.tls) {
            watch.certificate(certs, files);
        }
        if let Some(admin) = &admin {
            watch.admin_token(admin);
        }
        let workers = Arc::new(Workers::start().map_err(StartError::Threads)?);
        let listener = Listener::new(Arc::clone(&app), tls.map(|certs| certs.config()));
        Ok(Self { app, socket, holder, address, listener, workers, admin, provider, watch })
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Where the admin listener is, if there is one.
    #[must_use]
    pub fn admin_addr(&self) -> Option<SocketAddr> {
        self.admin.as_ref().map(Admin::local_addr)
    }

    /// Where to ask how many log lines were lost, for the metrics.
    pub fn count_lost_lines(&self, lost: impl Fn() -> u64 + Send + Sync + 'static) {
        self.app.metrics.ask_for_lost_lines(lost);
    }

    /// Makes it read its files again, while it runs.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        self.watch.reloader()
    }

    /// Serves until `shutdown` resolves, and then until the work in flight is done, for at most 32 s.
    pub async fn run(self, shutdown: impl Future<Output = ()>) {
        let Self { app, socket, holder, address, listener, workers, admin, provider, watch } = self;
        let held = (holder == Holder::ServiceManager).then_some("the service manager's");
        info!(addr = %address, tls = app.certs.is_some(), socket = held, "listening");
        // All end with this function, whatever they are at.
        let _watching = AbortOnDropHandle::new(tokio::spawn(watch.run()));
        let _followed = provider.map(|provider| AbortOnDropHandle::new(tokio::spawn(provider.run())));
        let _administered = admin.map(|admin| AbortOnDropHandle::new(tokio::spawn(admin.run())));
        let accepting = tokio::spawn(listener.accept(socket, holder, Arc::clone(&workers)));
        shutdown.await;
        info!(tunnels = app.registry.count(), "draining");
        app.registry.drain();
        app.draining.cancel();
        let done = async {
            // Each desktop goes elsewhere; each caller's connection finishes the requests it is at; then tunnels end.
            if let Ok(callers_gone) = accepting.await {
                callers_gone.await;
            }
            app.deserted.cancel();
            app.tasks.close();
            app.tasks.wait().await;
        };
        if timeout(DRAIN_WITHIN, done).await.is_err() {
            warn!(tasks = app.tasks.len(), "cut what was still running");
        }
        info!("stopped");
    }
}

pub(crate) fn sentence(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another program listens there".into(),
        io::ErrorKind::PermissionDenied => "that port needs privileges".into(),
        io::ErrorKind::AddrNotAvailable => "this machine does not have that address".into(),
        _ => error.to_string(),
    }
}
