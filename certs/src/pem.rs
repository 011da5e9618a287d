//! Certificates and keys from PEM files (RFC 7468).
//!
//! Owns the reading of the files and the sentence that says what is wrong with one. Does not judge whether a
//! certificate and a key belong together ([`crate::server`]), nor whether a certificate is to be trusted.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rustls::{
    pki_types::{
        CertificateDer, PrivateKeyDer, SubjectPublicKeyInfoDer,
        pem::{self, PemObject, SectionKind},
    },
    server::ParsedCertificate,
};
use thiserror::Error;

/// A file that does not hold what was asked of it. Displays as one line: the file, what is wrong, what to do.
#[derive(Debug, Error)]
#[error("{} {problem}", path.display())]
pub struct PemError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: Problem,
}

impl PemError {
    pub(crate) fn new(path: &Path, problem: Problem) -> Self {
        Self { path: path.to_owned(), problem }
    }
}

/// What is wrong with a file, and the way out. Reads as the end of a sentence that starts with the file's name.
#[derive(Debug, Error)]
pub enum Problem {
    /// Missing, a directory, not permitted.
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// Zero bytes, or white space only.
    #[error("is empty")]
    Empty,
    /// DER or PKCS#12.
    #[error(
        "is binary, not PEM; convert it, for DER: openssl x509 -inform der (or openssl pkey), for .p12: openssl pkcs12 -nodes"
    )]
    Binary,
    /// A section is damaged: no end line, or not base64.
    #[error("is damaged PEM (cut off or edited?): {0}")]
    Damaged(pem::Error),
    /// No certificate inside, and nothing that explains why.
    #[error("contains no certificate; it must have a line \"-----BEGIN CERTIFICATE-----\"")]
    NoCertificate,
    /// A key where a certificate belongs.
    #[error("contains a key but no certificate; are the certificate file and the key file swapped?")]
    KeyNotCertificate,
    /// A signing request where a certificate belongs.
    #[error("contains a certificate request; the certificate is what the CA answers to it")]
    RequestNotCertificate,
    /// A certificate section that is no X.509 certificate.
    #[error("contains a damaged certificate: {0}")]
    BadCertificate(rustls::Error),
    /// No key inside, and nothing that explains why.
    #[error("contains no private key; it must have a line \"-----BEGIN PRIVATE KEY-----\" (or RSA or EC PRIVATE KEY)")]
    NoKey,
    /// A certificate where a private key belongs.
    #[error("contains a certificate but no private key; are the certificate file and the key file swapped?")]
    CertificateNotKey,
    /// A public key where a private key belongs.
    #[error("contains a public key; the private key is needed here")]
    PublicNotPrivate,
    /// A private key behind a passphrase.
    #[error("is protected by a passphrase; take it off with: openssl pkey -in FILE -out PLAIN-FILE")]
    Encrypted,
    /// OpenSSH's own format.
    #[error("is in OpenSSH's format; convert it with: ssh-keygen -p -m PKCS8 -f FILE")]
    OpenSsh,
    /// A private key of an unknown kind or too weak a one.
    #[error(
        "contains a private key that cannot be used (RSA of 2048 bits or more, ECDSA P-256/384/521 or Ed25519 can): {0}"
    )]
    BadKey(rustls::Error),
    /// No public key inside, and nothing that explains why.
    #[error("contains no public key; it must have a line \"-----BEGIN PUBLIC KEY-----\"")]
    NoPublicKey,
    /// A private key where a public key belongs.
    #[error("contains a private key, which does not belong here; take the public one: openssl pkey -in FILE -pubout")]
    PrivateNotPublic,
    /// PKCS#1 instead of X.509 around an RSA public key.
    #[error(
        "contains an RSA public key in the old PKCS#1 form; convert it: openssl rsa -RSAPublicKey_in -in FILE -pubout"
    )]
    Pkcs1PublicKey,
}

/// All certificates of a file, in order; at least one. Other sections are ignored.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, PemError> {
    let file = PemFile::read(path)?;
    file.check(file.certificates().ok_or_else(|| file.why_no_certificate()))
}

/// The first private key of a file. Other sections, such as certificates, are ignored.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, PemError> {
    let file = PemFile::read(path)?;
    file.check(file.private_key().ok_or_else(|| file.why_no_key()))
}

/// The public key of a file: of its first "PUBLIC KEY" section, else of its first certificate.
///
/// A file with a private key is refused even if the public one is there too: who verifies must not hold it.
pub fn public_key(path: &Path) -> Result<SubjectPublicKeyInfoDer<'static>, PemError> {
    let file = PemFile::read(path)?;
    file.check(file.public_key())
}

/// A file, taken apart.
struct PemFile<'a> {
    path: &'a Path,
    text: Vec<u8>,
    sections: Vec<(SectionKind, Vec<u8>)>,
}

impl<'a> PemFile<'a> {
    fn read(path: &'a Path) -> Result<Self, PemError> {
        let refuse = |problem| PemError::new(path, problem);
        let text = fs::read(path).map_err(|error| refuse(error.into()))?;
        if text.trim_ascii().is_empty() {
            return Err(refuse(Problem::Empty));
        }
        // Both DER and PKCS#12 start with the tag of a SEQUENCE.
        if text[0] == 0x30 && std::str::from_utf8(&text).is_err() {
            return Err(refuse(Problem::Binary));
        }
        let mut file = Self { path, text, sections: Vec::new() };
        // In the old format the base64 is preceded by headers, so this must be seen before decoding.
        if file.mentions("Proc-Type: 4,ENCRYPTED") {
            return Err(refuse(Problem::Encrypted));
        }
        file.sections = PemObject::pem_slice_iter(&file.text)
            .collect::<Result<_, _>>()
            .map_err(|error| refuse(Problem::Damaged(error)))?;
        Ok(file)
    }

    fn check<T>(&self, result: Result<T, Problem>) -> Result<T, PemError> {
        result.map_err(|problem| PemError::new(self.path, problem))
    }

    fn certificates(&self) -> Option<Vec<CertificateDer<'static>>> {
        let certificates: Vec<_> = self.all().collect();
        (!certificates.is_empty()).then_some(certificates)
    }

    fn why_no_certificate(&self) -> Problem {
        if self.private_key().is_some() || self.mentions("PRIVATE KEY-----") {
            Problem::KeyNotCertificate
        } else if self.has(SectionKind::Csr) || self.mentions("-----BEGIN NEW CERTIFICATE REQUEST-----") {
            Problem::RequestNotCertificate
        } else {
            Problem::NoCertificate
        }
    }

    fn private_key(&self) -> Option<PrivateKeyDer<'static>> {
        self.all().next()
    }

    fn why_no_key(&self) -> Problem {
        if self.mentions("-----BEGIN ENCRYPTED PRIVATE KEY-----") {
            Problem::Encrypted
        } else if self.mentions("-----BEGIN OPENSSH PRIVATE KEY-----") {
            Problem::OpenSsh
        } else if self.has(SectionKind::Certificate) {
            Problem::CertificateNotKey
        } else if self.has(SectionKind::PublicKey) {
            Problem::PublicNotPrivate
        } else {
            Problem::NoKey
        }
    }

    fn public_key(&self) -> Result<SubjectPublicKeyInfoDer<'static>, Problem> {
        if self.mentions("PRIVATE KEY-----") {
            return Err(Problem::PrivateNotPublic);
        }
        if let Some(key) = self.all().next() {
            return Ok(key);
        }
        if let Some(certificate) = self.all::<CertificateDer<'static>>().next() {
            let parsed = ParsedCertificate::try_from(&certificate).map_err(Problem::BadCertificate)?;
            return Ok(parsed.subject_public_key_info());
        }
        Err(if self.mentions("-----BEGIN RSA PUBLIC KEY-----") {
            Problem::Pkcs1PublicKey
        } else {
            Problem::NoPublicKey
        })
    }

    /// Every section of one kind.
    fn all<T: PemObject>(&self) -> impl Iterator<Item = T> {
        self.sections.iter().filter_map(|(kind, der)| T::from_pem(*kind, der.clone()))
    }

    fn has(&self, wanted: SectionKind) -> bool {
        self.sections.iter().any(|(kind, _)| *kind == wanted)
    }

    /// Whether the text contains this: the parser skips sections that it does not know.
    fn mentions(&self, label: &str) -> bool {
        self.text.windows(label.len()).any(|window| window == label.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &str = "CERTIFICATE";

    fn section(label: &str, body: &str) -> String {
        format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
    }

    /// The whole line for a file with these bytes.
    fn line<T>(bytes: impl AsRef<[u8]>, read: impl Fn(&Path) -> Result<T, PemError>) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("some.pem");
        fs::write(&path, bytes).unwrap();
        let line = read(&path).map(|_| ()).unwrap_err().to_string();
        assert!(line.starts_with(path.to_str().unwrap()), "{line}");
        assert!(!line.contains('\n'), "{line}");
        line
    }

    #[test]
    fn unreadable_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("none.pem");
        assert!(certificates(&missing).unwrap_err().to_string().contains("none.pem cannot be read: No such file"));
        assert!(private_key(dir.path()).unwrap_err().to_string().contains("cannot be read"));
    }

    #[test]
    fn certificate_files_are_explained() {
        let cases = [
            (" \n".to_owned(), "is empty"),
            ("hello".to_owned(), "contains no certificate"),
            (section("PRIVATE KEY", "AAAA"), "swapped"),
            (section("ENCRYPTED PRIVATE KEY", "AAAA"), "swapped"),
            (section("CERTIFICATE REQUEST", "AAAA"), "request"),
            (section(CERTIFICATE, "%%%%"), "damaged PEM"),
            ("-----BEGIN CERTIFICATE-----\nAAAA\n".to_owned(), "damaged PEM"),
        ];
        for (text, expected) in cases {
            let line = line(&text, certificates);
            assert!(line.contains(expected), "{text}: {line}");
        }
        assert!(line([0x30, 0x82, 0x01, 0xff], certificates).contains("binary"));
    }

    #[test]
    fn key_files_are_explained() {
        let old_encrypted = "Proc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA";
        let cases = [
            ("hello".to_owned(), "contains no private key"),
            (section(CERTIFICATE, "AAAA"), "swapped"),
            (section("PUBLIC KEY", "AAAA"), "public key"),
            (section("ENCRYPTED PRIVATE KEY", "AAAA"), "passphrase"),
            (section("RSA PRIVATE KEY", old_encrypted), "passphrase"),
            (section("OPENSSH PRIVATE KEY", "AAAA"), "ssh-keygen"),
        ];
        for (text, expected) in cases {
            let line = line(&text, private_key);
            assert!(line.contains(expected), "{text}: {line}");
        }
    }

    #[test]
    fn public_key_files_are_explained() {
        let cases = [
            ("hello".to_owned(), "contains no public key"),
            (section("PUBLIC KEY", "AAAA") + &section("PRIVATE KEY", "AAAA"), "openssl pkey"),
            (section("RSA PUBLIC KEY", "AAAA"), "PKCS#1"),
            (section(CERTIFICATE, "AAAA"), "damaged certificate"),
        ];
        for (text, expected) in cases {
            let line = line(&text, public_key);
            assert!(line.contains(expected), "{text}: {line}");
        }
    }

    #[test]
    fn the_public_key_of_a_certificate_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        let (in_certificate, alone) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&in_certificate, certificate.pem()).unwrap();
        fs::write(&alone, key.public_key_pem()).unwrap();
        assert_eq!(public_key(&in_certificate).unwrap(), public_key(&alone).unwrap());
    }
}
