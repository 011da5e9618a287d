//! Public keys, from files and bytes.

use std::fs;

use super::*;

#[test]
fn public_keys_come_from_keys_and_certificates() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key.pem");
    for signer in signers() {
        let certificate = rcgen::CertificateParams::default().self_signed(&signer.pair).unwrap();
        for pem in [signer.pair.public_key_pem(), certificate.pem()] {
            fs::write(&path, pem).unwrap();
            let read = AuthConfig { public_key: Some(PublicKey::read(&path).unwrap()), ..public(signer) };
            judge(read, &signer.token(&good(""))).unwrap();
        }
        fs::write(&path, signer.pair.serialize_pem()).unwrap();
        assert!(PublicKey::read(&path).unwrap_err().to_string().contains("private key"));
    }
    // Cut anywhere, a key is refused and nothing panics.
    for signer in signers() {
        let spki = signer.pair.subject_public_key_info();
        for end in 0..spki.len() {
            assert!(PublicKey::from_spki(&spki[..end].into()).is_none());
        }
    }
    let p521 = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P521_SHA512).unwrap();
    fs::write(&path, p521.public_key_pem()).unwrap();
    let error = PublicKey::read(&path).unwrap_err().to_string();
    assert!(error.starts_with(path.to_str().unwrap()) && error.contains("P-384"), "{error}");
}

#[test]
fn t02_weak_rsa_keys_are_refused() {
    // A SubjectPublicKeyInfo as an RSA key of this many bits has it; the number itself does not matter.
    let spki = |bytes: usize| {
        let wrap = |tag: u8, contents: &[u8]| {
            let len = u16::try_from(contents.len()).unwrap().to_be_bytes();
            [&[tag, 0x82], len.as_slice(), contents].concat()
        };
        let modulus = [&[0, 0x80], vec![1; bytes - 1].as_slice()].concat();
        let key = wrap(0x30, &[wrap(0x02, &modulus), vec![2, 3, 1, 0, 1]].concat());
        let kind = wrap(0x30, rustls::pki_types::alg_id::RSA_ENCRYPTION.as_ref());
        wrap(0x30, &[kind, wrap(0x03, &[&[0], key.as_slice()].concat())].concat())
    };
    assert!(PublicKey::from_spki(&spki(128).into()).is_none());
    assert!(PublicKey::from_spki(&spki(255).into()).is_none());
    assert!(PublicKey::from_spki(&spki(256).into()).is_some());
}
