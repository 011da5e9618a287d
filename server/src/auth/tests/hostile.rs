//! Tokens of every hostile kind, against every kind of key.

use super::*;

#[test]
fn t01_unsigned_tokens() {
    for alg in ["none", "NONE", "nOnE", "None", ""] {
        let message = message(&format!(r#"{{"alg":"{alg}"}}"#), &good(""));
        for signature in ["", "AAAA"] {
            refused(config(), &format!("{message}.{signature}"), "not a JSON web token");
            refused(public(&RSA), &format!("{message}.{signature}"), "not a JSON web token");
        }
        // Signed all the same.
        refused(config(), &hmac(SECRET.as_bytes(), &format!(r#"{{"alg":"{alg}"}}"#), &good("")), "not a JSON web");
    }
    refused(config(), &format!("{}.", message(r#"{"alg":"HS256"}"#, &good(""))), "signature does not match");
    refused(config(), &message(r#"{"alg":"HS256"}"#, &good("")), "not a JSON web token");
}

#[test]
fn t02_the_algorithm_is_the_keys() {
    for signer in signers() {
        let spki = signer.pair.subject_public_key_info();
        let header = r#"{"alg":"HS256"}"#;
        for public_bytes in [spki.as_slice(), signer.pair.public_key_pem().as_bytes(), signer.pair.public_key_raw()] {
            let forged = hmac(public_bytes, header, &good(""));
            refused(public(signer), &forged, "no key for this algorithm");
            let both = AuthConfig { secret: config().secret, ..public(signer) };
            refused(both, &forged, "signature does not match");
        }
        for alg in ["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA", "HS384", "HS512"] {
            if alg != signer.alg {
                let token = signer.sign(&format!(r#"{{"alg":"{alg}"}}"#), &good(""));
                refused(public(signer), &token, "no key for this algorithm");
            }
        }
        refused(public(signer), &Signer::new(signer.alg, signer.pair.algorithm()).token(&good("")), "does not match");
    }
    refused(config(), &hmac(b"", r#"{"alg":"HS256"}"#, &good("")), "signature does not match");
    refused(config(), &hmac(SECRET.as_bytes(), r#"{"alg":"HS512"}"#, &good("")), "no key for this algorithm");
    refused(config(), &hmac(SECRET.as_bytes(), r#"{"alg":"hs256"}"#, &good("")), "not a JSON web token");
    refused(config(), &hmac(SECRET.as_bytes(), r#"{"alg":["HS256"]}"#, &good("")), "not a JSON web token");
    refused(config(), &hmac(SECRET.as_bytes(), r#"{"alg":"HS256","alg":"none"}"#, &good("")), "not a JSON web token");
}

#[test]
fn t03_a_key_id_opens_nothing() {
    let with = |kid: &str| hmac(SECRET.as_bytes(), &format!(r#"{{"alg":"HS256","kid":{kid}}}"#), &good(""));
    let hostile =
        ["../../etc/passwd", "/dev/null", "' OR 1=1 --", "https://evil.example/keys", "a b", "", "a\\\\b", "\\u0000"];
    for kid in hostile {
        refused(config(), &with(&format!(r#""{kid}""#)), "no label");
    }
    refused(config(), &with(&format!(r#""{}""#, "k".repeat(256))), "no label");
    refused(config(), &with(&format!(r#""{}""#, "k".repeat(10_000))), "longer than 8 KiB");
    refused(config(), &with("7"), "not a JSON web token");
    for kid in ["1", "rsa-2024.06", "NjVBRjY5MDlCMUIwNzU4RTA2QzZFMDQ4QzQ2MDAyQjVDNjk1RTM2Qg", "/9j+4AAQ=", "urn:key:1"]
    {
        judge(config(), &with(&format!(r#""{kid}""#))).unwrap();
    }
}

#[test]
fn t04_keys_and_addresses_in_the_header_are_ignored() {
    let evil = Signer::new("ES256", &PKCS_ECDSA_P256_SHA256);
    let point = evil.pair.public_key_raw();
    let (x, y) = (BASE64.encode(&point[1..33]), BASE64.encode(&point[33..]));
    for extra in [
        r#""jku":"https://evil.example/jwks""#.to_owned(),
        r#""x5u":"https://evil.example/cert""#.to_owned(),
        r#""x5c":["AAAA"]"#.to_owned(),
        format!(r#""jwk":{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}"}}"#),
    ] {
        let header = format!(r#"{{"alg":"ES256",{extra}}}"#);
        refused(public(&P256), &evil.sign(&header, &good("")), "signature does not match");
        judge(public(&P256), &P256.sign(&header, &good(""))).unwrap();
    }
}

#[test]
fn t05_critical_extensions() {
    for crit in [r#"["exp"]"#, r#"["b64"],"b64":false"#, r#"["x"],"x":1"#, "[]"] {
        let header = format!(r#"{{"alg":"HS256","crit":{crit}}}"#);
        refused(config(), &hmac(SECRET.as_bytes(), &header, &good("")), "critical");
    }
    refused(config(), &hmac(SECRET.as_bytes(), r#"{"alg":"HS256","crit":"exp"}"#, &good("")), "not a JSON web token");
}

#[test]
fn t06_required_claims() {
    let exp = NOW + 60;
    refused_claims(r#"{"sub":"alice"}"#, "exp is missing");
    refused_claims(&format!(r#"{{"exp":{exp}}}"#), "sub is missing");
    refused_claims(&format!(r#"{{"exp":{exp},"sub":7}}"#), "sub is no text");
    refused_claims(&format!(r#"{{"exp":{exp},"sub":null}}"#), "sub is no text");
    refused_claims(&format!(r#"{{"exp":{exp},"sub":"alice","iss":["a"]}}"#), "iss is no text");
    refused_claims(&format!(r#"{{"exp":{exp},"sub":"alice","sub":"bob"}}"#), "no JSON object");
    for payload in ["", "null", "[]", "\"alice\"", "{", "{}{}", &format!("{}1{}", "[".repeat(500), "]".repeat(500))] {
        refused(config(), &hs256(payload), "no JSON object");
    }

    let no_issuer = format!(r#"{{"exp":{exp},"sub":"alice"}}"#);
    refused(public(&P256), &P256.token(&no_issuer), "iss is missing");
    refused(AuthConfig { issuer: None, ..public(&P256) }, &P256.token(&no_issuer), "iss is missing");
    for other in ["https://issuer.example/", "https://ISSUER.example", "", OWN_ISSUER] {
        let payload = format!(r#"{{"exp":{exp},"sub":"alice","iss":"{other}"}}"#);
        refused(public(&P256), &P256.token(&payload), "another issuer");
    }
    // Without a configured issuer any will do, but not the one of the tokens minted here.
    let any = || AuthConfig { issuer: None, ..public(&P256) };
    judge(any(), &P256.token(&good(""))).unwrap();
    let ours = format!(r#"{{"exp":{exp},"sub":"alice","iss":"{OWN_ISSUER}"}}"#);
    refused(any(), &P256.token(&ours), "another issuer");
    judge(AuthConfig { issuer: Some(OWN_ISSUER.into()), ..any() }, &P256.token(&ours)).unwrap();
}

#[test]
fn t07_times_are_whole_numbers() {
    for wrong in
        [r#""1800000060""#, "1800000060.0", "1800000060.5", "1.8e9", "-1", "null", "true", "[1800000060]", "{}"]
    {
        refused_claims(&format!(r#"{{"sub":"alice","exp":{wrong}}}"#), "exp is no whole number");
        refused_claims(&good(&format!(r#""nbf":{wrong}"#)), "nbf is no whole number");
        refused_claims(&good(&format!(r#""iat":{wrong}"#)), "iat is no whole number");
    }
    refused_claims(r#"{"sub":"alice","exp":1e309}"#, "no JSON object");
    refused_claims(&good(r#""nbf":1e309"#), "no JSON object");
    for huge in [u64::MAX.to_string(), i64::MAX.to_string()] {
        refused_claims(&format!(r#"{{"sub":"alice","exp":{huge}}}"#), "exp is");
    }
    refused_claims(r#"{"sub":"alice","exp":18446744073709551616}"#, "exp is no whole number");
}

#[test]
fn t08_tokens_from_the_future() {
    refused_claims(&good(&format!(r#""nbf":{}"#, NOW + 31)), "not valid yet");
    refused_claims(&good(&format!(r#""iat":{}"#, NOW + 61)), "issued in the future");
    judge(config(), &hs256(&good(&format!(r#""iat":{}"#, NOW + 60)))).unwrap();
    judge(config(), &hs256(&good(r#""iat":0,"nbf":0"#))).unwrap();
}

#[test]
fn t09_audience() {
    let for_us = || AuthConfig { audience: Some("tunnel".into()), ..config() };
    for aud in [r#""tunnel""#, r#"["tunnel"]"#, r#"["other","tunnel"]"#] {
        judge(for_us(), &hs256(&good(&format!(r#""aud":{aud}"#)))).unwrap();
    }
    for aud in [r#""other""#, r#""Tunnel""#, r#""tunnel ""#, r#"["other"]"#, "[]", r#"["tunnel",7]"#, "null", "{}", "7"]
    {
        refused(for_us(), &hs256(&good(&format!(r#""aud":{aud}"#))), "another audience");
    }
    refused(for_us(), &hs256(&good("")), "another audience");
    refused(AuthConfig { audience: Some("tunnel".into()), ..public(&ED) }, &ED.token(&good("")), "another audience");
    judge(config(), &hs256(&good(r#""aud":"whoever""#))).unwrap();
}

#[test]
fn t10_clock_skew_of_30_s() {
    let expired = |by: u64| hs256(&format!(r#"{{"sub":"alice","exp":{}}}"#, NOW - by));
    judge(config(), &expired(30)).unwrap();
    assert_eq!(judge(config(), &expired(31)), Err(AuthError::Expired));
    assert_eq!(judge(config(), &expired(NOW)), Err(AuthError::Expired));
    judge(config(), &hs256(&good(&format!(r#""nbf":{}"#, NOW + 30)))).unwrap();
    // Whether a forged token is expired is nobody's business.
    let forged = hmac(&[7; 32], r#"{"alg":"HS256"}"#, r#"{"sub":"alice","exp":1}"#);
    refused(config(), &forged, "signature does not match");
}

#[test]
fn t11_size() {
    let padded = |len: usize| {
        let token = |padding: usize| hs256(&good(&format!(r#""x":"{}""#, "x".repeat(padding))));
        (0..len).rev().map(token).find(|token| token.len() <= len).unwrap()
    };
    let largest = padded(MAX_TOKEN_BYTES);
    assert!(largest.len() > MAX_TOKEN_BYTES - 4);
    judge(config(), &largest).unwrap();
    refused(config(), &hs256(&good(&format!(r#""x":"{}""#, "x".repeat(8 * 1024)))), "longer than 8 KiB");
    refused(config(), &"a.".repeat(1 << 20), "longer than 8 KiB");
}

#[test]
fn tokens_that_are_not_quite_tokens() {
    let token = hs256(&good(""));
    for not in ["", ".", "..", "...", "a.b.c", "Bearer x", &token[1..], &format!("{token}."), &format!(".{token}")] {
        assert!(matches!(judge(config(), not), Err(AuthError::Invalid(_))), "{not}");
    }
    for (near, part) in
        [(format!("{token}="), "padding"), (format!(" {token}"), "space"), (format!("{token}\n"), "newline")]
    {
        assert!(matches!(judge(config(), &near), Err(AuthError::Invalid(_))), "{part}");
    }
    // One spelling only: the last character of a signature has bits that do not count, which must be zero.
    let (start, last) = token.split_at(token.len() - 1);
    let others = ('A'..='Z').chain('a'..='z').chain('0'..='9').filter(|other| !last.starts_with(*other));
    for other in others {
        assert!(judge(config(), &format!("{start}{other}")).is_err(), "{other}");
    }
    for typ in ["JWT", "jwt", "at+jwt", "application/at+jwt"] {
        judge(config(), &hmac(SECRET.as_bytes(), &format!(r#"{{"alg":"HS256","typ":"{typ}"}}"#), &good(""))).unwrap();
    }
    for typ in ["logout+jwt", "dpop+jwt", "secevent+jwt", ""] {
        let token = hmac(SECRET.as_bytes(), &format!(r#"{{"alg":"HS256","typ":"{typ}"}}"#), &good(""));
        refused(config(), &token, "another type");
    }
    for (claim, reason) in [
        (r#""tunnel":"""#, "tunnel is"),
        (r#""tunnel":null"#, "tunnel is"),
        (r#""tunnel":["a"]"#, "tunnel is"),
        (r#""jti":7"#, "jti is"),
        (r#""tunnel_server":7"#, "tunnel_server is"),
    ] {
        refused_claims(&good(claim), reason);
    }
}
