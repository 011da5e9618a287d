//! Keys that are replaced and tokens that are revoked while they are in use.

use std::pin::pin;

use futures_util::FutureExt;

use super::*;
use crate::auth::revocation::Subject;

/// Another secret.
const FRESH: &str = "the secret after the first one, never used elsewhere";

fn fresh_token() -> String {
    hmac(FRESH.as_bytes(), r#"{"alg":"HS256"}"#, &good(""))
}

#[test]
fn a_replaced_secret_ends_its_tokens_and_no_others() {
    let both = AuthConfig { secret: config().secret, ..public(&P256) };
    let authenticator = Authenticator::new(both).unwrap();
    let (old, fresh, idp) = (hs256(&good("")), fresh_token(), P256.token(&good("")));
    let identity = authenticator.verify_at(&old, at(NOW)).unwrap();
    let other = authenticator.verify_at(&idp, at(NOW)).unwrap();
    authenticator.verify_at(&fresh, at(NOW)).unwrap_err();
    let (mut ours, mut theirs) = (pin!(authenticator.refused(&identity)), pin!(authenticator.refused(&other)));
    assert!(!authenticator.replace_secret(&Secret::new(SECRET).unwrap()), "the same is no change");
    assert_eq!(ours.as_mut().now_or_never(), None);
    assert!(authenticator.replace_secret(&Secret::new(FRESH).unwrap()));
    assert!(matches!(authenticator.verify_at(&old, at(NOW)), Err(AuthError::Invalid(_))));
    assert_eq!(ours.as_mut().now_or_never(), Some(AuthError::KeyReplaced));
    authenticator.verify_at(&fresh, at(NOW)).unwrap();
    // The other key's tokens are not even judged anew.
    assert!(Arc::ptr_eq(&other, &authenticator.verify_at(&idp, at(NOW)).unwrap()));
    assert_eq!(theirs.as_mut().now_or_never(), None);
}

#[test]
fn a_replaced_public_key_ends_its_tokens_whatever_its_kind() {
    let authenticator = Authenticator::new(public(&P256)).unwrap();
    let (old, fresh) = (P256.token(&good("")), ED.token(&good("")));
    let identity = authenticator.verify_at(&old, at(NOW)).unwrap();
    assert!(!authenticator.replace_public_key(P256.public()));
    assert!(authenticator.replace_public_key(ED.public()));
    authenticator.verify_at(&old, at(NOW)).unwrap_err();
    authenticator.verify_at(&fresh, at(NOW)).unwrap();
    assert_eq!(authenticator.refused(&identity).now_or_never(), Some(AuthError::KeyReplaced));
    // A source of trust that was not there at the start does not come in later.
    assert!(!authenticator.replace_secret(&Secret::new(SECRET).unwrap()));
    authenticator.verify_at(&hs256(&good("")), at(NOW)).unwrap_err();
}

#[test]
fn t13_a_revocation_holds_for_remembered_tokens_and_ends_waits() {
    let authenticator = Authenticator::new(config()).unwrap();
    let token = hs256(&good(r#""jti":"one""#));
    let identity = authenticator.verify_at(&token, at(NOW)).unwrap();
    let mut ended = pin!(authenticator.refused(&identity));
    let of = |jti: &str| Revocation::now(Subject::Token(jti.into()));
    authenticator.revoke(of("two")).unwrap();
    assert_eq!(ended.as_mut().now_or_never(), None);
    authenticator.revoke(of("one")).unwrap();
    assert_eq!(ended.as_mut().now_or_never(), Some(AuthError::Revoked));
    assert_eq!(authenticator.verify_at(&token, at(NOW)), Err(AuthError::Revoked));
    // Who comes too late for the news is told at once.
    assert_eq!(authenticator.refused(&identity).now_or_never(), Some(AuthError::Revoked));
    // Taken back, it is good again.
    authenticator.revocations().remove(&of("one").id()).unwrap().unwrap();
    authenticator.verify_at(&token, at(NOW)).unwrap();
}
