//! A list of revocations against its rules: who is out, since when, and what a file may say.

use std::fs;

use super::*;
use crate::auth::{KeyId, Scope};

const NOW: u64 = 1_800_000_000;

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn user(subject: &str) -> UserId {
    UserId::new(OWN_ISSUER, subject).unwrap()
}

fn identity(subject: &str, jti: Option<&str>, issued: Option<u64>) -> Identity {
    Identity {
        user: user(subject),
        scope: Scope::PROXY,
        issued: issued.map(at),
        expires: at(NOW + 60),
        key: KeyId::of("secret", b""),
        tunnel: None,
        jti: jti.map(str::to_owned),
        server: None,
    }
}

fn of_user(subject: &str, when: u64) -> Revocation {
    Revocation { subject: Subject::User(user(subject)), at: at(when), expires: None }
}

fn of_token(jti: &str, expires: Option<u64>) -> Revocation {
    Revocation { subject: Subject::Token(jti.into()), at: at(NOW), expires: expires.map(at) }
}

#[test]
fn t13_a_token_is_revoked_by_its_id() {
    let revocations = Revocations::default();
    revocations.add(of_token("one", None)).unwrap();
    assert_eq!(revocations.check(&identity("bob", Some("one"), Some(NOW))), Err(AuthError::Revoked));
    for other in [Some("two"), Some("One"), None] {
        assert_eq!(revocations.check(&identity("bob", other, Some(NOW))), Ok(()), "{other:?}");
    }
}

#[test]
fn t13_a_user_is_revoked_with_all_tokens_until_then() {
    let revocations = Revocations::default();
    revocations.add(of_user("bob", NOW)).unwrap();
    for old in [Some(0), Some(NOW - 1), Some(NOW), None] {
        assert_eq!(revocations.check(&identity("bob", None, old)), Err(AuthError::Revoked), "{old:?}");
        assert_eq!(revocations.check(&identity("Bob", None, old)), Ok(()));
    }
    assert_eq!(revocations.check(&identity("bob", None, Some(NOW + 1))), Ok(()));
    // A second time, later: newer tokens, too. An earlier one takes nothing back.
    revocations.add(of_user("bob", NOW + 10)).unwrap();
    revocations.add(of_user("bob", NOW - 10)).unwrap();
    assert_eq!(revocations.check(&identity("bob", None, Some(NOW + 10))), Err(AuthError::Revoked));
    let [one] = &revocations.all()[..] else { panic!("two about one user") };
    assert_eq!(revocations.remove(&one.id()).unwrap().unwrap().at, at(NOW + 10));
    assert_eq!(revocations.check(&identity("bob", None, None)), Ok(()));
}

#[test]
fn t36_ids_and_issuers_are_kept_apart() {
    let of = |issuer, subject| Revocation::now(Subject::User(UserId::new(issuer, subject).unwrap())).id();
    assert_ne!(of("ab", "c"), of("a", "bc"));
    assert_ne!(of("a", "b"), Revocation::now(Subject::Token("b".into())).id());
    assert_eq!(of("a", "b"), of("a", "b"));
}

#[test]
fn json_is_read_strictly() {
    let read = |text: &str| Revocation::from_json(text.as_bytes(), at(NOW));
    let full = r#"{"at":"2027-01-15T08:00:00Z","expires":"2027-01-16T08:00:00Z","issuer":"idp","user":"bob"}"#;
    let revocation = read(full).unwrap();
    assert_eq!((revocation.at, revocation.expires), (at(NOW), Some(at(NOW + 86_400))));
    assert_eq!(revocation.to_json().to_string(), full);
    assert_eq!(read(r#"{"user":"bob"}"#).unwrap(), of_user("bob", NOW));
    assert_eq!(read(r#"{"jti":"one"}"#).unwrap(), of_token("one", None));
    for (bad, why) in [
        ("", "EOF"),
        ("{}", "neither"),
        (r#"{"issuer":"idp"}"#, "neither"),
        (r#"{"jti":"a","user":"b"}"#, "not both"),
        (r#"{"jti":"a","issuer":"b"}"#, "not both"),
        (r#"{"jti":""}"#, "1 to 255"),
        (r#"{"user":""}"#, "1 to 255"),
        (r#"{"jti":1}"#, "string"),
        (r#"{"jti":"a","who":"b"}"#, "unknown field"),
        (r#"{"jti":"a","expires":"soon"}"#, "2026-01-31"),
    ] {
        let said = read(bad).unwrap_err().to_string();
        assert!(said.contains(why) && !said.contains('\n'), "{bad}: {said}");
    }
}

#[test]
fn t13_revocations_outlive_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("revoked");
    let revocations = Revocations::open(path.clone()).unwrap();
    assert!(!path.exists() && revocations.are_kept());
    revocations.add(Revocation::now(Subject::User(user("bob")))).unwrap();
    revocations.add(of_token("one", None)).unwrap();
    let again = Revocations::open(path.clone()).unwrap();
    assert_eq!(again.all(), revocations.all());
    assert_eq!(again.all().len(), 2);
    again.remove(&of_token("one", None).id()).unwrap().unwrap();
    assert_eq!(again.remove("0000000000000000").unwrap(), None);
    assert_eq!(Revocations::open(path).unwrap().all().len(), 1);
    assert!(Revocations::open(dir.path().join("no/such")).unwrap_err().to_string().contains("no cannot be read"));
}

#[test]
fn what_has_expired_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("revoked");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let revocations = Revocations::open(path.clone()).unwrap();
    revocations.add(of_token("long ago", Some(now - 100_000))).unwrap();
    revocations.add(of_token("lately", Some(now - 80_000))).unwrap();
    revocations.add(of_token("ever", None)).unwrap();
    assert_eq!(revocations.all().len(), 2);
    assert!(!fs::read_to_string(path).unwrap().contains("long ago"));
}

#[test]
fn edits_of_others_are_taken_over_and_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("revoked");
    let revocations = Revocations::open(path.clone()).unwrap();
    revocations.add(of_token("ours", None)).unwrap();
    assert!(!revocations.reload().unwrap());
    let edited = fs::read_to_string(&path).unwrap() + "\n{\"jti\":\"theirs\"}\n";
    fs::write(&path, &edited).unwrap();
    // A change of ours before we looked: both are in force.
    revocations.add(of_token("more", None)).unwrap();
    assert_eq!(revocations.all().len(), 3);
    fs::write(&path, edited).unwrap();
    assert!(revocations.reload().unwrap());
    assert_eq!(revocations.all().len(), 2);
    // Broken in the middle, or gone: what was in force stays, and what is revoked is in force at once.
    for broken in [Some("{\"jti\":\"ours\"}\n{\"jti\":"), Some("{\"user\":\"bob\"}"), None] {
        match broken {
            Some(text) => fs::write(&path, text).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        let said = revocations.reload().unwrap_err().to_string();
        assert!(said.contains("revoked") && !said.contains('\n'), "{said}");
        assert_eq!(revocations.all().len(), 2);
    }
    fs::write(&path, "{").unwrap();
    revocations.add(of_token("now", None)).unwrap_err();
    assert_eq!(revocations.check(&identity("bob", Some("now"), None)), Err(AuthError::Revoked));
    assert_eq!(fs::read_to_string(&path).unwrap(), "{");
    // What could not be written then is written with the next change.
    fs::remove_file(&path).unwrap();
    revocations.add(of_token("later", None)).unwrap();
    assert_eq!(Revocations::open(path).unwrap().all().len(), 4);
}
