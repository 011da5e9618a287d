//! Hostile tokens in real requests, each in every place where a token may stand: `Authorization`, a path, and the
//! handshake of a desktop. The tables are in `jwt_cases`.

use std::io::Write;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD as BASE64};
use integration_tests::{
    attack::{
        self,
        stage::{Stage, Way},
    },
    handshake,
    jwt::{self, claims, hs256, seconds},
    pki::SECRET,
    workshop::{Workshop, run},
};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::json;

use crate::jwt_cases::{CASES, RAW, SECRETS};

/// Who signs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sign {
    /// Nobody: the signature is empty.
    Nobody,
    /// The server's secret, with this algorithm.
    Secret(Algorithm),
    /// The identity provider's key.
    Idp,
    /// An ES256 key of the attacker's.
    Stranger,
    /// HMAC (HS256) with these bytes for a secret.
    Hmac(&'static [u8]),
    /// HMAC (HS256) with the identity provider's public key, as PEM, as its body, and as bytes.
    PublicPem,
    PublicBody,
    PublicDer,
}

/// What must come of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    /// 401, whatever the code.
    No,
    /// 401 `token_expired`.
    Expired,
    /// A good token of somebody who is not alice: no desktop.
    Nobody,
    /// Alice's.
    Yes,
}

/// A header, claims and who signs them. `@` is now, `$` the members of a good token of alice's, `%` those of the
/// identity provider's, `{x*9}` nine times x.
pub(crate) type Case = (&'static str, &'static str, &'static str, Sign, Expect);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t01_t02_t03_t04_t05_t06_t07_t08_t09_t10_t11_t36_hostile_tokens() {
    hostile_tokens(Way::Direct).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nginx"]
async fn t01_t02_t03_t04_t05_t06_t07_t08_t09_t11_t36_hostile_tokens_behind_nginx() {
    hostile_tokens(Way::Nginx).await;
}

#[tokio::test]
async fn t18_no_server_starts_with_a_secret_that_is_none() {
    let shop = Workshop::new().await;
    attack::run("T18 secrets", SECRETS, async |number, (name, secret): &(&str, &[u8])| {
        let file = shop.path(&format!("secret-{number}"));
        std::fs::write(&file, secret).unwrap();
        let args = ["serve", "--plain-http", "--listen", "127.0.0.1:0", "--jwt-secret-file", file.to_str().unwrap()];
        let said = run("tunneld", args).await;
        if said.code == Some(64) { Ok(()) } else { Err(format!("{name}: {said:?}")) }
    })
    .await;
}

async fn hostile_tokens(way: Way) {
    let keys = Keys { idp: jwt::Issuer::new(), stranger: jwt::Issuer::new() };
    let mut public = tempfile::NamedTempFile::new().unwrap();
    public.write_all(keys.idp.public_pem().as_bytes()).unwrap();
    let key = public.path().to_str().unwrap().to_owned();
    let settings = ["--jwt-public-key", &key, "--jwt-issuer", "https://idp.example", "--jwt-audience", "tunnel"];
    let mut stage = Stage::start(way, &settings).await;
    let good = hs256(&jwt::with(claims("alice"), &json!({"aud": "tunnel"})));
    let made = CASES.iter().map(|(name, header, claims, sign, expect)| {
        (*name, format!("{} ({header} {claims})", keys.token(header, claims, *sign)), *expect)
    });
    let raw = RAW.iter().map(|(name, change, expect)| (*name, change(&good), *expect));
    let cases: Vec<_> = made.chain(raw).collect();
    attack::run(&format!("tokens, {way:?}"), &cases, async |_, (name, token, expect)| {
        let token = token.split(" (").next().unwrap_or_default();
        judge(&stage, token, *expect).await.map_err(|what| format!("{name}: {expect:?} but {what}"))
    })
    .await;
    stage.serves_with(&good).await;
}

struct Keys {
    idp: jwt::Issuer,
    stranger: jwt::Issuer,
}

impl Keys {
    fn token(&self, header: &str, claims: &str, sign: Sign) -> String {
        let alice = r#""sub":"alice","iss":"tunneld","aud":"tunnel","exp":@+600"#;
        let idp = r#""sub":"alice","iss":"https://idp.example","aud":"tunnel","exp":@+600"#;
        let [header, claims] = [header, claims].map(|text| {
            let text = repeated(&text.replace('$', alice).replace('%', idp));
            BASE64.encode(at_times(&text).chars().map(|c| c as u32).flat_map(bytes_of).collect::<Vec<u8>>())
        });
        let message = format!("{header}.{claims}");
        let sign_with = |key: EncodingKey, algorithm| crypto::sign(message.as_bytes(), &key, algorithm).unwrap();
        let hmac = |secret: &[u8]| sign_with(EncodingKey::from_secret(secret), Algorithm::HS256);
        let pem = self.idp.public_pem();
        let body: String = pem.lines().filter(|line| !line.starts_with("--")).collect();
        let signature = match sign {
            Sign::Nobody => String::new(),
            Sign::Secret(algorithm) => sign_with(EncodingKey::from_secret(SECRET.as_bytes()), algorithm),
            Sign::Idp => self.idp.sign(&message),
            Sign::Stranger => self.stranger.sign(&message),
            Sign::Hmac(secret) => hmac(secret),
            Sign::PublicPem => hmac(pem.as_bytes()),
            Sign::PublicBody => hmac(body.as_bytes()),
            Sign::PublicDer => {
                hmac(&base64::engine::general_purpose::STANDARD.decode(&body).expect("the body of a PEM file"))
            }
        };
        format!("{message}.{signature}")
    }
}

/// U+00FF stands for that byte, which is no UTF-8; everything else for itself.
fn bytes_of(code: u32) -> Vec<u8> {
    match char::from_u32(code) {
        Some('\u{ff}') => vec![0xff],
        Some(c) => c.to_string().into_bytes(),
        None => Vec::new(),
    }
}

/// `@+5`: five seconds from now.
fn at_times(text: &str) -> String {
    let mut pieces = text.split('@');
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let end = piece.find(|c: char| !c.is_ascii_digit() && c != '+' && c != '-').unwrap_or(piece.len());
        let offset = piece[..end].trim_start_matches('+').parse().unwrap_or(0);
        out += &seconds(offset).to_string();
        out += &piece[end..];
    }
    out
}

/// `{x*9}`, where x holds no brace.
fn repeated(text: &str) -> String {
    let Some((before, times)) = text.rsplit_once('*') else { return text.to_owned() };
    let (Some(open), Some(close)) = (before.rfind('{'), times.find('}')) else { return text.to_owned() };
    match times[..close].parse() {
        Ok(count) => format!("{}{}{}", &before[..open], before[open + 1..].repeat(count), &times[close + 1..]),
        Err(_) => text.to_owned(),
    }
}

async fn judge(stage: &Stage, token: &str, expect: Expect) -> Result<(), String> {
    let caller = stage.caller().with_token(token);
    let told = |place: &str, (status, code): (u16, &str)| Err(format!("{status} {code} {place}"));
    let reply = caller.get("/x").await;
    let (status, code) = reply.error();
    let good = match expect {
        Expect::No if status == 401 => code.starts_with("token_"),
        Expect::No => stage.way == Way::Nginx && status == 400, // fields over 8 KiB end there
        Expect::Expired => (status, code) == (401, "token_expired"),
        Expect::Nobody => (status, code) == (503, "tunnel_offline"),
        Expect::Yes => status == 200,
    };
    if !good {
        return told("in Authorization", (status, code));
    }
    if !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        // A token that may connect is refused here, so nothing may pass.
        let reply = caller.anonymous().get(&format!("/t/{token}/x")).await;
        if !matches!(reply.status().as_u16(), 400 | 403 | 414) {
            return told("in a path", reply.error());
        }
    }
    if matches!(expect, Expect::No | Expect::Expired) {
        let reply = handshake::knock(&caller, "another").await;
        if reply.error() != (status, code) {
            return told("in a handshake", reply.error());
        }
    }
    Ok(())
}
