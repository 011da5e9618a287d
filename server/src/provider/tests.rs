//! When keys are fetched, in paused time, against a provider that says what a test wants.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio_util::task::AbortOnDropHandle;

use super::*;
use crate::auth::{
    AuthError,
    tests::{
        ED, P256, Signer,
        provider::{idp, jwk, set},
    },
};

// What is promised, whatever the code's own constants say.
const HALF_A_MINUTE: Duration = Duration::from_secs(30);
const TEN_MINUTES: Duration = Duration::from_secs(10 * 60);
const A_DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A provider.
#[derive(Default)]
struct Fake(Mutex<State>);

#[derive(Default)]
struct State {
    /// The labels of its keys; `None` while it is down.
    labels: Option<Vec<&'static str>>,
    fetches: Vec<Instant>,
}

/// It, and an authenticator that follows it.
struct World {
    provider: Arc<Fake>,
    authenticator: Arc<Authenticator>,
    _following: AbortOnDropHandle<()>,
}

impl Fake {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self, labels: &[&'static str]) {
        self.lock().labels = Some(labels.to_vec());
    }

    fn fail(&self) {
        self.lock().labels = None;
    }

    fn fetches(&self) -> Vec<Instant> {
        self.lock().fetches.clone()
    }

    /// Takes 100 ms, as a provider does.
    async fn fetch(&self) -> Result<KeySet, String> {
        self.lock().fetches.push(Instant::now());
        sleep(Duration::from_millis(100)).await;
        let labels = self.lock().labels.clone().ok_or("cannot be reached")?;
        // The label says which key it is.
        let keys: Vec<_> = labels.iter().map(|label| jwk(signer(label), label)).collect();
        Ok(set(&keys).unwrap())
    }
}

fn signer(label: &str) -> &'static Signer {
    if label.starts_with("ed") { &ED } else { &P256 }
}

fn token(label: &str) -> String {
    let claims = r#"{"iss":"https://issuer.example","sub":"alice","aud":"tunnel","exp":4000000000}"#;
    let alg = if label.starts_with("ed") { "EdDSA" } else { "ES256" };
    signer(label).sign(&format!(r#"{{"alg":"{alg}","kid":"{label}"}}"#), claims)
}

impl World {
    fn new(labels: Option<&[&'static str]>) -> Self {
        let provider = Arc::<Fake>::default();
        provider.lock().labels = labels.map(<[_]>::to_vec);
        let authenticator = Arc::new(Authenticator::new(idp()).unwrap());
        let following = {
            let (provider, authenticator) = (Arc::clone(&provider), Arc::clone(&authenticator));
            tokio::spawn(async move { follow(&authenticator, || provider.fetch()).await })
        };
        Self { provider, authenticator, _following: AbortOnDropHandle::new(following) }
    }

    /// The verdict on a token of the key with this label, and how long it took.
    async fn judge(&self, label: &str) -> (Result<(), AuthError>, Duration) {
        let started = Instant::now();
        let verdict = self.authenticator.identify(&token(label)).await.map(|_| ());
        (verdict, started.elapsed())
    }
}

#[tokio::test(start_paused = true)]
async fn t14_a_new_key_is_accepted_at_once_and_a_withdrawn_one_within_ten_minutes() {
    let world = World::new(Some(&["one"]));
    // Who comes before the first keys waits for them, and asks for no others.
    assert_eq!(world.judge("one").await, (Ok(()), Duration::from_millis(100)));
    assert_eq!(world.provider.fetches().len(), 1);
    world.provider.publish(&["one", "ed2"]);
    assert_eq!(world.judge("ed2").await, (Ok(()), Duration::from_millis(100)));
    assert_eq!(world.judge("one").await, (Ok(()), Duration::ZERO));
    world.provider.publish(&["ed2"]);
    sleep(HALF_A_MINUTE + TEN_MINUTES + Duration::from_secs(1)).await;
    assert_eq!(world.judge("one").await.0, Err(AuthError::KeyUnknown));
    assert_eq!(world.judge("ed2").await.0, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn t15_a_flood_of_labels_is_one_fetch_in_30_s_and_hides_no_new_key() {
    let world = World::new(Some(&["one"]));
    world.judge("one").await.0.unwrap();
    let started = Instant::now();
    let mut rotated = None;
    for number in 0..3000 {
        let (verdict, took) = world.judge(&format!("random{number}")).await;
        assert_eq!(verdict, Err(AuthError::KeyUnknown));
        assert!(took <= Duration::from_millis(100), "{took:?}");
        assert_eq!(world.judge("one").await, (Ok(()), Duration::ZERO), "others do not wait");
        if number == 1000 {
            world.provider.publish(&["one", "ed2"]);
            rotated = Some(Instant::now());
        }
        if let Some(at) = rotated
            && world.judge("ed2").await.0.is_ok()
        {
            assert!(at.elapsed() <= HALF_A_MINUTE + Duration::from_secs(1), "{:?}", at.elapsed());
            rotated = None;
        }
        sleep(Duration::from_millis(40)).await;
    }
    assert_eq!(rotated, None, "the new key was accepted");
    let fetches = world.provider.fetches();
    assert!(fetches.len() > 3, "{fetches:?} in {:?}", started.elapsed());
    for pair in fetches[1..].windows(2) {
        assert!(pair[1] - pair[0] >= HALF_A_MINUTE, "{pair:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn t16_known_keys_outlive_the_provider_for_a_day() {
    let world = World::new(Some(&["one"]));
    world.judge("one").await.0.unwrap();
    world.provider.fail();
    // A key that nobody can look up is neither good nor bad; that is said at once from then on.
    assert_eq!(world.judge("ed2").await, (Err(AuthError::KeysUnavailable), Duration::from_millis(100)));
    assert_eq!(world.judge("ed2").await, (Err(AuthError::KeysUnavailable), Duration::ZERO));
    sleep(A_DAY.mul_f64(0.99)).await;
    assert_eq!(world.judge("one").await, (Ok(()), Duration::ZERO));
    assert_eq!(world.judge("ed2").await, (Err(AuthError::KeysUnavailable), Duration::ZERO));
    sleep(A_DAY.mul_f64(0.02)).await;
    assert_eq!(world.judge("one").await, (Err(AuthError::KeysUnavailable), Duration::ZERO));
    // Back again.
    world.provider.publish(&["one", "ed2"]);
    sleep(RETRY_AFTER_AT_MOST * 2).await;
    assert_eq!(world.judge("one").await.0, Ok(()));
    assert_eq!(world.judge("ed2").await.0, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn t16_a_provider_that_is_down_at_the_start_is_asked_again() {
    let world = World::new(None);
    assert_eq!(world.judge("one").await, (Err(AuthError::KeysUnavailable), Duration::from_millis(100)));
    world.provider.publish(&["one"]);
    sleep(Duration::from_secs(4)).await;
    assert_eq!(world.judge("one").await, (Ok(()), Duration::ZERO));
}
