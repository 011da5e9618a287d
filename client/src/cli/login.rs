//! `tunnel login` and `tunnel logout`: tokens from the server's identity provider, instead of a token file.

use std::{
    path::{self, PathBuf},
    time::SystemTime,
};

use tunnel::{
    config::{origin, server_url},
    connector::Connector,
    login::{
        self, LoginError, device,
        store::{Store, StoreError},
    },
};
use tunnel_cli::{
    exit::{self, Exit},
    settings::{self, Origin, Wrong},
};
use tunnel_oidc::fetch::Fetcher;
use url::Url;

use super::{
    Job,
    settings::{PROXY_HELP, proxies},
};

const LOGIN_EXAMPLES: &str = "\
Examples:
  tunnel login --server https://tunnel.example.com
  tunnel connect                                     as whom you signed in

It shows an address and a code, for a browser on this or any other device. The tokens are kept in
~/.config/tunnel/login.json, readable for you alone, and renewed before they expire.";

const LOGOUT_EXAMPLES: &str = "\
Gives the tokens back to the identity provider, where it takes them, and removes them from this machine.
A `tunnel connect` that runs with them goes on until its token expires.";

/// Sign in at the server's identity provider, with a browser on any device
#[derive(Debug, clap::Args)]
#[command(after_help = LOGIN_EXAMPLES)]
pub(super) struct Args {
    /// Server to sign in for
    #[arg(long, value_name = "URL", env = "TUNNEL_SERVER")]
    server: String,

    #[command(flatten)]
    way: Way,
}

/// Sign out: remove the tokens of `tunnel login`
#[derive(Debug, clap::Args)]
#[command(after_help = LOGOUT_EXAMPLES)]
pub(super) struct LogoutArgs {
    #[command(flatten)]
    way: Way,
}

/// The way to server and provider.
#[derive(Debug, clap::Args)]
struct Way {
    /// PEM file of a private CA to trust besides the system's
    #[arg(long, value_name = "FILE", env = "TUNNEL_CA")]
    ca: Option<PathBuf>,

    #[arg(long, value_name = "URL", env = "TUNNEL_PROXY", help = PROXY_HELP)]
    proxy: Option<String>,
}

/// Where the tokens of this user are.
pub(super) fn store() -> Option<Store> {
    settings::config_directory("tunnel").map(|directory| Store::within(&directory))
}

/// The same, if there are any.
pub(super) fn existing() -> Option<Store> {
    store().filter(|store| store.path().exists())
}

/// Signs in.
pub(super) fn login(args: Args, origin: Origin) -> Job {
    Box::pin(async move { sign_in(args).await.map_err(|problem| problem.exit(&origin)) })
}

/// Signs out.
pub(super) fn logout(args: LogoutArgs, origin: Origin) -> Job {
    Box::pin(async move { sign_out(args).await.map_err(|problem| problem.exit(&origin)) })
}

/// What can go wrong.
enum Problem {
    Setting(Wrong),
    Login(LoginError),
}

impl Problem {
    fn exit(self, origin: &Origin) -> Exit {
        match self {
            Self::Setting(wrong) => origin.error(&wrong),
            Self::Login(error @ (LoginError::Refused { .. } | LoginError::Grant(_))) if !error.may_pass() => {
                Exit::refused(error)
            }
            Self::Login(error @ (LoginError::NoLogin(_) | LoginError::Unsupported(..))) => Exit::usage(error),
            Self::Login(error) => Exit::failed(error),
        }
    }
}

impl From<Wrong> for Problem {
    fn from(wrong: Wrong) -> Self {
        Self::Setting(wrong)
    }
}

impl From<LoginError> for Problem {
    fn from(error: LoginError) -> Self {
        Self::Login(error)
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        Self::Login(error.into())
    }
}

impl Way {
    fn fetcher(&self, server: &Url) -> Result<Fetcher, Wrong> {
        let proxies = proxies(self.proxy.as_deref())?;
        proxies.for_server(server).map_err(|problem| Wrong::new("proxy", problem))?;
        let connector = Connector::new(self.ca.as_deref(), proxies).map_err(|error| Wrong::new("ca", error))?;
        Ok(Fetcher::over(connector))
    }
}

async fn sign_in(Args { server, way }: Args) -> Result<(), Problem> {
    let server = server_url(&server).map_err(|problem| Wrong::new("server", problem))?;
    let store = store().ok_or_else(|| Wrong::new("server", "no home directory to keep the tokens in; set HOME"))?;
    let fetcher = way.fetcher(&server)?;
    let login = login::ask(&fetcher, &server).await?;
    let pending = device::begin(fetcher.clone(), login).await?;
    exit::print(&format!("To sign in, open  {}\nand enter         {}\n", pending.page, pending.user_code));
    if let Some(page) = &pending.page_with_code {
        exit::hint(&format!("\nor open, with the code in it:\n{page}\n"));
    }
    exit::hint("\nWaiting for you…\n");
    // The file is read from elsewhere later.
    let ca = way.ca.map(|ca| path::absolute(&ca).unwrap_or(ca));
    let account = pending.wait(server.clone(), ca).await?;
    let user = login::check(&fetcher, &server, &account).await?;
    store.sign_in(&account).await?;
    exit::print(&format!("Signed in at {} as {}.\n", origin(&server), user.escape_debug()));
    if account.refresh_token.is_none() {
        let until = account
            .expires()
            .map_or_else(|| "its token expires".to_owned(), |at| humantime::format_rfc3339_seconds(at).to_string());
        exit::print(&format!("The identity provider gave nothing to renew it with: sign in again before {until}.\n"));
    } else {
        exit::hint("Now run: tunnel connect\n");
    }
    Ok(())
}

async fn sign_out(LogoutArgs { way }: LogoutArgs) -> Result<(), Problem> {
    let Some(store) = store() else { return Ok(()) };
    // Whatever the provider says: here they are gone.
    let account = match store.sign_out().await {
        Ok(account) => account,
        Err(StoreError::NotSignedIn(_)) => {
            exit::print("Nobody is signed in.\n");
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let way = Way { ca: way.ca.or_else(|| account.ca.clone()), ..way };
    let revoked = match way.fetcher(&account.server) {
        Ok(fetcher) => login::revoke(&fetcher, &account).await.map_err(|error| error.to_string()),
        Err(wrong) => Err(wrong.problem),
    };
    let server = origin(&account.server);
    exit::print(&match revoked {
        Ok(true) => format!("Signed out of {server}; the identity provider has taken the tokens back.\n"),
        Ok(false) => format!("Signed out of {server}; the identity provider takes no tokens back.\n"),
        Err(problem) => format!("Signed out of {server}, but the tokens could not be given back: {problem}\n"),
    });
    if let Some(until) = account.expires().filter(|until| *until > SystemTime::now()) {
        exit::hint(&format!("A copy of the last token is good until {}.\n", humantime::format_rfc3339_seconds(until)));
    }
    Ok(())
}
