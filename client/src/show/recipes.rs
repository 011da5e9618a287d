//! How callers reach the upstream, ready to be pasted: the one thing a person wants after `tunnel connect`.
//!
//! The desktop's own token never appears: it may register a desktop, and callers need one that may not.

use std::{
    fmt::Write,
    path::{Path, absolute},
};

use tunnel::{config, event::Connected};
use url::Url;

/// What the recipes need besides the welcome.
#[derive(Debug, Clone)]
pub(crate) struct Recipes {
    /// Where requests go.
    pub(crate) upstream: Url,
    /// Issuer of the desktop's token, if it is not the server's own: a caller's token must name the same.
    issuer: Option<String>,
    /// The private CA, which callers need as well.
    ca: Option<String>,
}

impl Recipes {
    /// Recipes for a client with this upstream, the issuer that its token names, and its private CA.
    pub(crate) fn new(upstream: Url, issuer: Option<String>, ca: Option<&Path>) -> Self {
        let issuer = issuer.filter(|issuer| issuer != "tunneld");
        // It is pasted into a shell of another directory.
        let whole = |path: &Path| absolute(path).unwrap_or_else(|_| path.to_owned()).display().to_string();
        Self { upstream, issuer, ca: ca.map(whole) }
    }

    /// The command that makes a token for a caller.
    fn mint(&self, user: &str) -> String {
        let issuer = self.issuer.as_ref().map(|issuer| format!(" --issuer {}", quoted(issuer))).unwrap_or_default();
        format!("tunneld token --user {}{issuer} --scope infer", quoted(user))
    }

    /// The block of lines, two spaces in.
    pub(crate) fn block(&self, connected: &Connected) -> String {
        let server = config::origin(&connected.public_url);
        let mut text = format!("\n  {server}  \u{2192}  {}\n\n", config::origin(&self.upstream));
        let server = quoted(&server);
        let mut line = |name: &str, recipe: &str| {
            writeln!(text, "  {name:<8}{recipe}").expect("a String takes everything");
        };
        line("token", &format!("TOKEN=$({})", self.mint(&connected.user)));
        line("", "# on the server: callers need their own");
        line("curl", &format!("curl -H \"Authorization: Bearer $TOKEN\" {server}/api/tags"));
        line("Ollama", &format!("export OLLAMA_HOST={server}/t/$TOKEN"));
        line("OpenAI", &format!("export OPENAI_BASE_URL={server}/v1 OPENAI_API_KEY=$TOKEN"));
        line("Web", &format!("{server}/app/"));
        if let Some(ca) = &self.ca {
            let ca = quoted(ca);
            line("CA", &format!("export SSL_CERT_FILE={ca} CURL_CA_BUNDLE={ca} NODE_EXTRA_CA_CERTS={ca}"));
            line("", "# callers elsewhere need a copy of that file");
        }
        text.push('\n');
        text
    }

    /// The same for a log: one value per variable, with a place where the token goes.
    pub(crate) fn variables(connected: &Connected) -> [(&'static str, String); 2] {
        let server = quoted(&config::origin(&connected.public_url));
        [("OLLAMA_HOST", format!("{server}/t/<token>")), ("OPENAI_BASE_URL", format!("{server}/v1"))]
    }
}

/// A word for a POSIX shell, quoted only if it has to be. Control characters are spelled out first.
fn quoted(word: &str) -> String {
    let word = super::tame(word);
    let plain = |c: char| c.is_ascii_alphanumeric() || "@%_+=:,./-".contains(c);
    if !word.is_empty() && word.chars().all(plain) { word } else { format!("'{}'", word.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connected(user: &str) -> Connected {
        let public_url = Url::parse("https://tunnel.example.com").unwrap();
        Connected { user: user.into(), name: "studio".into(), public_url, token_expires: None }
    }

    fn recipes(issuer: Option<&str>, ca: Option<&Path>) -> Recipes {
        Recipes::new(config::upstream_url("11434").unwrap(), issuer.map(Into::into), ca)
    }

    #[test]
    fn what_is_pasted() {
        let expected = "
  https://tunnel.example.com  \u{2192}  http://127.0.0.1:11434

  token   TOKEN=$(tunneld token --user bob --scope infer)
          # on the server: callers need their own
  curl    curl -H \"Authorization: Bearer $TOKEN\" https://tunnel.example.com/api/tags
  Ollama  export OLLAMA_HOST=https://tunnel.example.com/t/$TOKEN
  OpenAI  export OPENAI_BASE_URL=https://tunnel.example.com/v1 OPENAI_API_KEY=$TOKEN
  Web     https://tunnel.example.com/app/

";
        assert_eq!(recipes(Some("tunneld"), None).block(&connected("bob")), expected);
    }

    #[test]
    fn a_foreign_issuer_and_a_private_ca_are_passed_on() {
        let block = recipes(Some("https://id.example/"), Some(Path::new("my ca.pem"))).block(&connected("it's me"));
        assert!(
            block.contains(r"tunneld token --user 'it'\''s me' --issuer https://id.example/ --scope infer"),
            "{block}"
        );
        assert!(block.contains("SSL_CERT_FILE='/") && block.contains("/my ca.pem' CURL"), "{block}");
    }

    #[test]
    fn a_hostile_name_runs_nothing() {
        assert_eq!(quoted("$(reboot)"), "'$(reboot)'");
        assert_eq!(quoted("a\n'b"), r"'a\n'\''b'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn a_hostile_server_runs_nothing() {
        // A host may look like this (WHATWG URL, forbidden host code points).
        let public_url = config::server_url("https://a;$(reboot)'`id`").unwrap();
        let connected = Connected { public_url, ..connected("bob") };
        let server = r"'https://a;$(reboot)'\''`id`'";
        let block = recipes(None, None).block(&connected);
        for recipe in [
            format!("$TOKEN\" {server}/api/tags\n"),
            format!("OLLAMA_HOST={server}/t/$TOKEN\n"),
            format!("OPENAI_BASE_URL={server}/v1 OPENAI"),
            format!("Web     {server}/app/\n"),
        ] {
            assert!(block.contains(&recipe), "{recipe} in {block}");
        }
        let values = Recipes::variables(&connected).map(|(_, value)| value);
        assert_eq!(values, [format!("{server}/t/<token>"), format!("{server}/v1")]);
    }
}
