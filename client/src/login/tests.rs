//! Signing in and staying so, in paused time, against a provider without a network.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    future::{Ready, ready},
    io,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex},
    time::Instant,
};

use super::{store::Store, *};

const ISSUER: &str = "http://localhost/realm";
const FIRST: &str = "a.first.token";
const SECOND: &str = "a.second.token";

/// A provider, and the way to it.
#[derive(Clone, Default)]
struct Provider(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    /// By path; the last one of each stays.
    answers: HashMap<&'static str, VecDeque<(u16, Value)>>,
    asked: Vec<(String, HashMap<String, String>, Instant)>,
    /// Happens before the next token is given.
    meanwhile: Option<Box<dyn FnOnce() + Send>>,
}

impl Provider {
    fn new() -> Self {
        let provider = Self::default();
        let at = |path: &str| format!("http://localhost{path}");
        let document = json!({
            "issuer": ISSUER, "jwks_uri": at("/keys"), "token_endpoint": at("/token"),
            "device_authorization_endpoint": at("/device"), "revocation_endpoint": at("/revoke"),
        });
        let begun = json!({"device_code": "d", "user_code": "AB\u{1b}[31m-CD", "verification_uri": at("/go"), "expires_in": 600});
        provider.answers("/realm/.well-known/openid-configuration", &[(200, document)]);
        provider.answers("/device", &[(200, begun)]);
        provider
    }

    fn answers(&self, path: &'static str, answers: &[(u16, Value)]) {
        self.lock().answers.insert(path, answers.iter().cloned().collect());
    }

    fn fetcher(&self) -> Fetcher {
        Fetcher::over(self.clone())
    }

    /// The forms that came to a path, and when.
    fn asked(&self, path: &str) -> Vec<(HashMap<String, String>, Instant)> {
        let asked = self.lock().asked.clone();
        asked.into_iter().filter(|(asked, ..)| asked == path).map(|(_, form, at)| (form, at)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let path = request.uri().path().to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let form = url::form_urlencoded::parse(&body).into_owned().collect();
        let mut state = self.lock();
        state.asked.push((path.clone(), form, Instant::now()));
        if let Some(meanwhile) = state.meanwhile.take_if(|_| path == "/token") {
            meanwhile();
        }
        let answers = state.answers.get_mut(path.as_str()).unwrap_or_else(|| panic!("nothing for {path}"));
        let (status, body) = if answers.len() > 1 { answers.pop_front().unwrap() } else { answers[0].clone() };
        Ok(Response::builder().status(status).body(Full::from(body.to_string())).unwrap())
    }
}

impl tower_service::Service<Uri> for Provider {
    type Response = TokioIo<Pipe>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let (ours, theirs) = duplex(64 * 1024);
        let provider = self.clone();
        let service = service_fn(move |request| provider.clone().answer(request));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(theirs), service));
        ready(Ok(TokioIo::new(Pipe(ours))))
    }
}

/// A connection in memory.
struct Pipe(DuplexStream);

impl Connection for Pipe {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl AsyncRead for Pipe {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

fn login() -> Login {
    let told = json!({"issuer": ISSUER, "client_id": "app", "audience": "https://tunnel.example", "scope": "openid"});
    serde_json::from_value(told).unwrap()
}

fn server() -> Url {
    Url::parse("https://tunnel.example").unwrap()
}

fn refusal(code: &str) -> (u16, Value) {
    (400, json!({"error": code}))
}

fn tokens(token: &str, refresh_token: &str) -> (u16, Value) {
    (200, json!({"access_token": token, "refresh_token": refresh_token, "expires_in": 3600}))
}

async fn signed_in(provider: &Provider) -> Result<Account, LoginError> {
    device::begin(provider.fetcher(), login()).await?.wait(server(), None).await
}

#[tokio::test(start_paused = true)]
async fn the_provider_sets_the_pace_and_may_break_down_meanwhile() {
    let provider = Provider::new();
    let (pending, slow_down) = (refusal("authorization_pending"), refusal("slow_down"));
    let broken = (503, json!(null));
    provider.answers("/token", &[pending.clone(), slow_down, pending, broken, tokens(FIRST, "r")]);
    let started = Instant::now();
    let account = signed_in(&provider).await.unwrap();
    assert_eq!((account.token.secret(), account.refresh_token.as_deref()), (FIRST, Some("r")));
    let asked = provider.asked("/token");
    let seconds: Vec<u64> = asked.iter().map(|(_, at)| (*at - started).as_secs()).collect();
    assert_eq!(seconds, [5, 10, 20, 30, 50]);
    let form = &asked[0].0;
    assert_eq!(form["grant_type"], "urn:ietf:params:oauth:grant-type:device_code");
    assert_eq!(
        (&*form["device_code"], &*form["client_id"], &*form["resource"]),
        ("d", "app", "https://tunnel.example")
    );
    assert_eq!(provider.asked("/device")[0].0["scope"], "openid");
}

#[tokio::test(start_paused = true)]
async fn a_user_who_refuses_or_takes_too_long_ends_it() {
    let provider = Provider::new();
    for (code, said) in [("access_denied", "access_denied"), ("expired_token", "not entered in time"), ("x\ny", "(xy)")]
    {
        provider.answers("/token", &[refusal(code)]);
        let error = signed_in(&provider).await.unwrap_err();
        assert!(error.to_string().contains(said) && !error.may_pass(), "{error}");
    }
    // The provider never says so.
    provider.answers("/token", &[refusal("authorization_pending")]);
    let started = Instant::now();
    assert!(signed_in(&provider).await.unwrap_err().to_string().contains("run `tunnel login` again"));
    assert_eq!(started.elapsed().as_secs(), 600);
}

#[tokio::test(start_paused = true)]
async fn t35_what_a_provider_shows_is_tame_and_only_safe_pages_are_shown() {
    let provider = Provider::new();
    let pending = device::begin(provider.fetcher(), login()).await.unwrap();
    assert_eq!((pending.user_code.as_str(), pending.page.as_str()), ("AB[31m-CD", "http://localhost/go"));
    for page in ["http://id.example/go", "file:///go", "javascript:alert(1)"] {
        let begun = json!({"device_code": "d", "user_code": "c", "verification_uri": page, "expires_in": 600});
        provider.answers("/device", &[(200, begun)]);
        device::begin(provider.fetcher(), login()).await.unwrap_err();
    }
    provider.answers("/device", &[refusal("invalid_client")]);
    let error = device::begin(provider.fetcher(), login()).await.unwrap_err();
    assert!(error.to_string().contains("(invalid_client)"), "{error}");
}

/// Somebody who has signed in, and whose token has this much of an hour left, in seconds.
async fn account_with(provider: &Provider, left: i64) -> (TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::within(&directory.path().join("not/yet/there"));
    provider.answers("/token", &[tokens(FIRST, "r1")]);
    let mut account = serde_json::to_value(signed_in(provider).await.unwrap()).unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    account["expires"] = now.saturating_add_signed(left).into();
    account["obtained"] = now.saturating_add_signed(left - 3600).into();
    store.save(&serde_json::from_value(account).unwrap()).unwrap();
    provider.answers("/token", &[tokens(SECOND, "r2")]);
    provider.lock().asked.clear();
    (directory, store)
}

#[tokio::test(start_paused = true)]
async fn two_processes_renew_once() {
    let provider = Provider::new();
    let (_directory, store) = account_with(&provider, 60).await;
    let renewal = || Renewal::new(store.clone(), provider.fetcher(), server());
    let (one, two) = (renewal(), renewal());
    let (first, second) = tokio::join!(one.fresh(), two.fresh());
    assert_eq!((first.unwrap().secret(), second.unwrap().secret()), (SECOND, SECOND));
    let asked = provider.asked("/token");
    assert_eq!(asked.len(), 1);
    assert_eq!((&*asked[0].0["grant_type"], &*asked[0].0["refresh_token"]), ("refresh_token", "r1"));
    assert_eq!(store.load().unwrap().refresh_token.as_deref(), Some("r2"));
    // It is fresh now. A provider that does not rotate sends no refresh token: the one at hand stays.
    renewal().fresh().await.unwrap();
    assert_eq!(provider.asked("/token").len(), 1);
    let (_directory, store) = account_with(&provider, 60).await;
    provider.answers("/token", &[(200, json!({"access_token": SECOND, "expires_in": 3600}))]);
    Renewal::new(store.clone(), provider.fetcher(), server()).fresh().await.unwrap();
    assert_eq!(store.load().unwrap().refresh_token.as_deref(), Some("r1"));
}

#[tokio::test(start_paused = true)]
async fn while_the_provider_is_down_a_token_serves_until_its_end() {
    let provider = Provider::new();
    for (left, token) in [(3000, Some(FIRST)), (60, Some(FIRST)), (-1, None)] {
        let (_directory, store) = account_with(&provider, left).await;
        provider.answers("/token", &[(500, json!(null))]);
        let fresh = Renewal::new(store, provider.fetcher(), server()).fresh().await;
        match (fresh, token) {
            (Ok(fresh), Some(token)) => assert_eq!(fresh.secret(), token),
            (Err(error), None) => assert!(error.may_pass(), "{error}"),
            (other, _) => panic!("{left}: {other:?}"),
        }
        assert_eq!(provider.asked("/token").len(), usize::from(left < 300), "{left}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sign_in_that_has_ended_says_what_to_do() {
    let provider = Provider::new();
    let (_directory, store) = account_with(&provider, 60).await;
    provider.answers("/token", &[refusal("invalid_grant")]);
    let renewal = Renewal::new(store.clone(), provider.fetcher(), server());
    let error = renewal.fresh().await.unwrap_err();
    assert!(
        error.to_string().contains("invalid_grant") && error.to_string().ends_with("run `tunnel login`"),
        "{error}"
    );
    // Signed in again, while it runs.
    provider.answers("/token", &[tokens(SECOND, "r3")]);
    store.sign_in(&signed_in(&provider).await.unwrap()).await.unwrap();
    assert_eq!(renewal.fresh().await.unwrap().secret(), SECOND);
    // At another server: its token is not for this one.
    let elsewhere = Renewal::new(store.clone(), provider.fetcher(), Url::parse("https://other.example").unwrap());
    assert!(matches!(elsewhere.token(), Err(LoginError::OtherServer(..))));
    assert_eq!(store.sign_out().await.unwrap().refresh_token.as_deref(), Some("r3"));
    assert!(matches!(store.sign_out().await, Err(StoreError::NotSignedIn(_))));
    assert!(renewal.token().unwrap_err().to_string().contains("tunnel login --server"));
}

#[tokio::test(start_paused = true)]
async fn a_token_is_renewed_before_its_end_by_the_clock_on_the_wall() {
    let provider = Provider::new();
    let (_directory, store) = account_with(&provider, 299).await;
    let renewal = Renewal::new(store.clone(), provider.fetcher(), server());
    let renewed = async {
        while store.load().unwrap().token.secret() != SECOND {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::select! {
        () = renewal.run() => {}
        () = renewed => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_without_a_life_is_not_renewed_without_end() {
    let provider = Provider::new();
    let (_directory, store) = account_with(&provider, 60).await;
    // Over when it comes, as also where a clock is wrong.
    provider.answers("/token", &[(200, json!({"access_token": SECOND, "expires_in": 0}))]);
    let renewal = Renewal::new(store.clone(), provider.fetcher(), server());
    let asked = || provider.asked("/token").len();
    // Looked at whenever the renewal is, since one without a pause lets no time pass.
    let too_often = std::future::poll_fn(|_| if asked() > 1 { Poll::Ready(()) } else { Poll::Pending });
    tokio::select! {
        () = renewal.run() => {}
        () = too_often => panic!("renewed without end"),
        () = tokio::time::sleep(Duration::from_secs(600)) => {} // of which the clock on the wall shows nothing
    }
    for _ in 0..3 {
        renewal.fresh().await.unwrap();
    }
    assert_eq!(asked(), 1);
}

#[test]
fn when_a_token_is_renewed() {
    let account = |obtained: u64, expires: Option<u64>| {
        let mut account = json!({"server": server(), "login": login(), "token": FIRST});
        account["obtained"] = obtained.into();
        account["expires"] = expires.into();
        serde_json::from_value::<Account>(account).unwrap()
    };
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    for (expires, renewed) in [(4600, 4300), (1060, 1040), (1006, 1005), (1001, 1005), (1000, 1060), (7, 1060)] {
        let account = account(1000, Some(expires));
        assert_eq!(account.renew_at(), Some(at(renewed)), "{expires}");
        assert!(!account.is_due(at(renewed - 1)) && account.is_due(at(renewed)), "{expires}");
        assert!(account.is_due(at(999)), "the clock was set back: {expires}");
    }
    assert!(!account(1000, None).is_due(at(u64::from(u32::MAX))));
}

#[tokio::test(start_paused = true)]
async fn a_renewal_brings_back_nobody_who_has_signed_out_meanwhile() {
    let provider = Provider::new();
    let (_directory, store) = account_with(&provider, 60).await;
    let renewal = Renewal::new(store.clone(), provider.fetcher(), server());
    let other = store.clone();
    provider.lock().meanwhile = Some(Box::new(move || assert!(other.remove().unwrap())));
    assert!(matches!(renewal.fresh().await, Err(LoginError::Store(StoreError::NotSignedIn(_)))));
    assert!(!store.path().exists());
    // Or who has signed in as somebody else.
    let (_directory, store) = account_with(&provider, 60).await;
    let renewal = Renewal::new(store.clone(), provider.fetcher(), server());
    provider.answers("/token", &[tokens("another.users.token", "r9")]);
    let (other, another) = (store.clone(), signed_in(&provider).await.unwrap());
    provider.lock().meanwhile = Some(Box::new(move || other.save(&another).unwrap()));
    provider.answers("/token", &[tokens(SECOND, "r2")]);
    assert_eq!(renewal.fresh().await.unwrap().secret(), "another.users.token");
    assert_eq!(store.load().unwrap().refresh_token.as_deref(), Some("r9"));
}

#[tokio::test(start_paused = true)]
async fn who_signs_in_or_out_waits_for_a_renewal_but_not_for_ever() {
    let provider = Provider::new();
    let (_directory, store) = account_with(&provider, 60).await;
    let account = store.load().unwrap();
    let lock = store.lock().await.unwrap();
    let started = Instant::now();
    for error in [store.sign_in(&account).await.unwrap_err(), store.sign_out().await.unwrap_err()] {
        assert!(error.to_string().contains("locked by another tunnel process for 30 s"), "{error}");
        assert!(LoginError::from(error).may_pass());
    }
    assert_eq!(started.elapsed().as_secs(), 60);
    // The token at hand is still good.
    let fresh = Renewal::new(store.clone(), provider.fetcher(), server()).fresh().await;
    assert_eq!(fresh.unwrap().secret(), FIRST);
    drop(lock);
    store.sign_out().await.unwrap();
    assert!(!store.path().exists());
}

#[cfg(unix)]
#[tokio::test(start_paused = true)]
async fn t32_the_file_is_for_its_owner_and_debug_shows_nothing() {
    use std::os::unix::fs::PermissionsExt;
    let provider = Provider::new();
    let (_directory, store) = account_with(&provider, 60).await;
    let mode = || std::fs::metadata(store.path()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(), 0o600);
    Renewal::new(store.clone(), provider.fetcher(), server()).fresh().await.unwrap();
    assert_eq!(mode(), 0o600);
    assert_eq!(std::fs::metadata(store.path().with_extension("lock")).unwrap().permissions().mode() & 0o777, 0o600);
    let shown = format!("{:?}", store.load().unwrap());
    assert!(!shown.contains("second") && !shown.contains("r2"), "{shown}");
    std::fs::write(store.path(), "{").unwrap();
    assert!(store.load().unwrap_err().to_string().contains("damaged"));
}
