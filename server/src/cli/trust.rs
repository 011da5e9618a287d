//! The settings about tokens, read into their types: whose are good, who is let in, where people sign in.

use tunnel_cli::settings::{Wrong, read, read_all};
use tunnel_oidc::{Login, discovery::Issuer, fetch};
use tunneld::auth::{Allow, AuthConfig, KeySource, PublicKey, Secret};
use url::Url;

use super::settings::Settings;

/// What every provider of `OpenID` Connect knows, and a refresh token so that a desktop stays signed in.
const DEFAULT_SCOPE: &str = "openid offline_access";

pub(super) fn auth(settings: &Settings) -> Result<AuthConfig, Wrong> {
    let secret = settings.jwt_secret_file.as_deref().map(Secret::read).transpose();
    let secret = secret.map_err(|error| Wrong::new("jwt-secret-file", error))?;
    let public_key = settings.jwt_public_key.as_deref().map(PublicKey::read).transpose();
    let public_key = public_key.map_err(|error| Wrong::new("jwt-public-key", error))?;
    let provider = provider(settings)?;
    if secret.is_none() && public_key.is_none() && provider.is_none() {
        return Err(no_key());
    }
    let has_use_for_issuer = public_key.is_some() || matches!(provider, Some(KeySource::Jwks(_)));
    if settings.jwt_issuer.is_some() && !has_use_for_issuer {
        return Err(Wrong::new(
            "jwt-issuer",
            "it is about tokens of --jwt-public-key and --jwks-url; add one of them, or leave it out",
        ));
    }
    let audience = read("jwt-audience", settings.jwt_audience.as_deref(), not_empty)?;
    if provider.is_some() && audience.is_none() {
        return Err(Wrong::new(
            "jwt-audience",
            "with an identity provider it is needed, or tokens for its other programs would be good here; \
             add the exact aud of the tokens that it issues for this server",
        ));
    }
    Ok(AuthConfig {
        secret,
        public_key,
        issuer: read("jwt-issuer", settings.jwt_issuer.as_deref(), not_empty)?,
        audience,
        allow: allow(settings, provider.is_some())?,
        provider,
        require_scope: settings.require_scope.unwrap_or(false),
    })
}

/// What clients are told that want to sign in.
pub(super) fn login(settings: &Settings) -> Result<Option<Login>, Wrong> {
    let issuer = read("oidc-issuer", settings.oidc_issuer.as_deref(), Issuer::parse)?;
    let client_id = read("oidc-client-id", settings.oidc_client_id.as_deref(), not_empty)?;
    let scope = read("oidc-scope", settings.oidc_scope.as_deref(), not_empty)?;
    match (issuer, client_id, &settings.jwt_audience) {
        (Some(issuer), Some(client_id), Some(audience)) => {
            let scope = scope.unwrap_or_else(|| DEFAULT_SCOPE.to_owned());
            Ok(Some(Login { issuer, client_id, audience: audience.clone(), scope }))
        }
        (None, Some(_), _) => Err(Wrong::new("oidc-client-id", "it is about --oidc-issuer; add that, or leave it out")),
        (_, None, _) if scope.is_some() => {
            Err(Wrong::new("oidc-scope", "it is about --oidc-client-id; add that, or leave it out"))
        }
        _ => Ok(None),
    }
}

/// What is allowed, but perhaps not meant.
pub(super) fn warning(settings: &Settings) -> Option<String> {
    (settings.jwks_url.is_some() && settings.jwt_issuer.is_none()).then(|| {
        "--jwks-url without --jwt-issuer: the owner of those keys may speak for any issuer; add its exact iss"
            .to_owned()
    })
}

fn no_key() -> Wrong {
    Wrong::new(
        "jwt-secret-file",
        "no way to verify tokens: make a secret with `(umask 077 && openssl rand -hex 32 > secret)` and add \
         --jwt-secret-file secret, or add --jwt-public-key FILE, --oidc-issuer URL or --jwks-url URL",
    )
}

fn provider(settings: &Settings) -> Result<Option<KeySource>, Wrong> {
    let url = |text: &str| {
        let url = Url::parse(text).map_err(|error| format!("{text:?} is not a URL ({error})"))?;
        fetch::check(&url).map_err(|error| format!("{text} {error}"))?;
        Ok(url)
    };
    let jwks = read("jwks-url", settings.jwks_url.as_deref(), url)?;
    let issuer = read("oidc-issuer", settings.oidc_issuer.as_deref(), Issuer::parse)?;
    match (jwks, issuer) {
        (Some(_), Some(_)) => {
            Err(Wrong::new("jwks-url", "--oidc-issuer is set as well and finds the keys by itself; keep one"))
        }
        (Some(url), None) => Ok(Some(KeySource::Jwks(url))),
        (None, issuer) => Ok(issuer.map(KeySource::Issuer)),
    }
}

/// Who is let in. A provider has more users than this server: its operator says which, if only that all are meant.
fn allow(settings: &Settings, has_provider: bool) -> Result<Allow, Wrong> {
    let user = |text: &str| if text.is_empty() { Err("a user has no name".to_owned()) } else { Ok(text.to_owned()) };
    let claim = |text: &str| match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is no claim; write NAME=VALUE, for example group=staff")),
    };
    let any = settings.allow_any_user.unwrap_or(false);
    match (&settings.allow_user, &settings.require_claim) {
        (Some(_), Some(_)) => Err(Wrong::new("allow-user", "--require-claim is set as well; keep one of the two")),
        (Some(_), None) | (None, Some(_)) if any => {
            Err(Wrong::new("allow-any-user", "--allow-user or --require-claim is set as well; keep one of them"))
        }
        (Some(users), None) => read_all("allow-user", Some(users), user).map(Allow::Users),
        (None, Some(claims)) => read_all("require-claim", Some(claims), claim).map(Allow::Claims),
        (None, None) if has_provider && !any => Err(Wrong::new(
            "allow-user",
            "say who of the identity provider's users is let in: --allow-user SUB, --require-claim NAME=VALUE, \
             or --allow-any-user",
        )),
        (None, None) => Ok(Allow::Any),
    }
}

fn not_empty(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("it is empty; give a value or leave it out".to_owned()) } else { Ok(text.to_owned()) }
}
