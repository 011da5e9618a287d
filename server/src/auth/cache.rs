//! Tokens that were verified before.
//!
//! Owns their number and which are dropped. Only good tokens get in, so nobody without one can push others out; the
//! key is a hash, so the tokens themselves are not kept in memory.

use std::{
    collections::HashMap,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sha2::{Digest as _, Sha256};

use super::Identity;

/// How many tokens one generation holds. There are two: 4,096 tokens, some 2 MB.
const GENERATION: usize = 2048;

/// SHA-256 of a token.
pub(super) type Digest = [u8; 32];

pub(super) fn digest(token: &str) -> Digest {
    Sha256::digest(token).into()
}

/// A map that forgets what has not been asked for lately: a full generation becomes the old one, in place of the one
/// before; what is found in the old one is young again.
#[derive(Debug, Default)]
pub(super) struct Cache(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Digest, Arc<Identity>>,
    old: HashMap<Digest, Arc<Identity>>,
}

impl Cache {
    pub(super) fn get(&self, digest: &Digest) -> Option<Arc<Identity>> {
        let mut generations = self.lock();
        if let Some(identity) = generations.young.get(digest) {
            return Some(Arc::clone(identity));
        }
        let identity = generations.old.remove(digest)?;
        generations.insert(*digest, Arc::clone(&identity));
        Some(identity)
    }

    pub(super) fn insert(&self, digest: Digest, identity: Arc<Identity>) {
        self.lock().insert(digest, identity);
    }

    pub(super) fn forget(&self, stale: impl Fn(&Identity) -> bool) {
        let mut generations = self.lock();
        generations.young.retain(|_, identity| !stale(identity));
        generations.old.retain(|_, identity| !stale(identity));
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Generations {
    fn insert(&mut self, digest: Digest, identity: Arc<Identity>) {
        if self.young.len() >= GENERATION {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(digest, identity);
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::{
        auth::{KeyId, Scope},
        id::UserId,
    };

    fn identity(subject: &str) -> Arc<Identity> {
        Arc::new(Identity {
            user: UserId::new("tunneld", subject).unwrap(),
            scope: Scope::PROXY,
            issued: None,
            expires: SystemTime::UNIX_EPOCH,
            key: KeyId::of("secret", b""),
            tunnel: None,
            jti: None,
            server: None,
        })
    }

    fn len(cache: &Cache) -> usize {
        let generations = cache.lock();
        generations.young.len() + generations.old.len()
    }

    #[test]
    fn it_is_bounded_and_keeps_what_is_used() {
        let cache = Cache::default();
        let used = digest("used");
        cache.insert(used, identity("used"));
        for number in 0..10 * GENERATION {
            cache.insert(digest(&number.to_string()), identity("bob"));
            assert!(len(&cache) <= 2 * GENERATION);
            assert!(number % 1000 != 0 || cache.get(&used).is_some());
        }
        assert!(cache.get(&digest("0")).is_none());
        assert!(cache.get(&used).is_some());
    }

    #[test]
    fn it_forgets_on_request_in_both_generations() {
        let cache = Cache::default();
        for number in 0..GENERATION + 10 {
            let subject = if number % 2 == 0 { "alice" } else { "bob" };
            cache.insert(digest(&number.to_string()), identity(subject));
        }
        cache.forget(|identity| identity.user.subject() == "bob");
        assert_eq!(len(&cache), GENERATION / 2 + 5);
        assert!(cache.get(&digest("1")).is_none());
        assert!(cache.get(&digest("2")).is_some());
    }
}
