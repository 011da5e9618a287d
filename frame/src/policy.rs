//! What may be asked of an upstream: the list of inference endpoints, and the rules of `--allow`.
//!
//! Owns the judgement on a method and a raw path, shared by both programs: the server's scope `tunnel:infer` and the
//! desktop's own policy, which does not trust the server. Every comparison is exact and on the bytes as they were
//! sent. Nothing is decoded or normalised, because a path that reads differently after decoding is how such lists are
//! got round: a spelling that is not in the list is refused.

use std::{fmt, str::FromStr};

use http::Method;
use thiserror::Error;

/// Endpoints that compute, all `POST`. `/api/show` reads a model's description; the Ollama CLI asks for it before
/// each `run`.
const COMPUTE: [&str; 11] = [
    "/api/chat",
    "/api/embed",
    "/api/embeddings",
    "/api/generate",
    "/api/show",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/responses",
];

/// Endpoints that list what there is, `GET` or `HEAD`.
const LIST: [&str; 5] = ["/", "/api/ps", "/api/tags", "/api/version", "/v1/models"];

/// `GET /v1/models/{model}`: one segment after this.
const MODEL: &str = "/v1/models/";

/// Whether a request only runs or lists models. `path` is the raw path without the query.
///
/// Everything that changes what is installed (`delete`, `pull`, `push`, `create`, `copy`, blobs) is out, as is every
/// path that this list does not know.
#[must_use]
pub fn is_inference(method: &Method, path: &str) -> bool {
    match *method {
        Method::POST => COMPUTE.contains(&path),
        Method::GET | Method::HEAD => LIST.contains(&path) || path.strip_prefix(MODEL).is_some_and(is_model_name),
        _ => false,
    }
}

/// A model's name as one raw path segment. The slash of `owner/model` may be encoded.
fn is_model_name(segment: &str) -> bool {
    !segment.contains('/') && has_one_reading(segment)
}

/// Whether the end of a raw path reads the same however careless the reader is. Slashes and colons may be encoded,
/// nothing else, and no part between slashes may be empty or a dot segment.
fn has_one_reading(path: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~:@+".contains(&b);
    let part = |part: &str| !matches!(part, "" | "." | "..") && part.bytes().all(plain);
    let mut decoded = path.to_owned();
    for (encoded, character) in [("%2F", "/"), ("%2f", "/"), ("%3A", ":"), ("%3a", ":")] {
        decoded = decoded.replace(encoded, character);
    }
    decoded.split('/').all(part)
}

/// One `--allow` of the desktop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// `inference`: what [`is_inference`] says.
    Inference,
    /// `all`: any request.
    All,
    /// `METHOD PATH`: this method on exactly this raw path, with any query.
    Exact(Method, String),
    /// `METHOD PATH/*`: this method on every path that begins so, slash included, and goes on without a trick.
    Below(Method, String),
}

impl Rule {
    /// Whether this rule lets a request through. `path` is the raw path without the query.
    #[must_use]
    pub fn allows(&self, method: &Method, path: &str) -> bool {
        match self {
            Self::Inference => is_inference(method, path),
            Self::All => true,
            Self::Exact(only_method, only_path) => method == only_method && path == only_path,
            Self::Below(only_method, start) => {
                method == only_method && path.strip_prefix(start.as_str()).is_some_and(has_one_reading)
            }
        }
    }
}

/// Why the text of a rule is none.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RuleError {
    /// Neither a keyword nor two words.
    #[error("'{0}' is not a rule: write inference, all, or a method and a path as in 'GET /api/tags'")]
    Shape(String),
    /// Methods are case-sensitive (RFC 9110 §9.1).
    #[error("'{0}' is not a method: write it in capitals, as in GET")]
    Method(String),
    /// Rules match a whole raw path.
    #[error("'{0}' is not a path: begin with '/', without query or fragment; a '*' only at the end, as in '/v1/*'")]
    Path(String),
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        match words[..] {
            ["inference"] => Ok(Self::Inference),
            ["all"] => Ok(Self::All),
            [method, path] => {
                let known = Method::from_bytes(method.as_bytes())
                    .ok()
                    .filter(|_| !method.bytes().any(|b| b.is_ascii_lowercase()))
                    .ok_or_else(|| RuleError::Method(method.into()))?;
                let start = path.strip_suffix('*');
                let rest = start.unwrap_or(path);
                if !rest.starts_with('/') || rest.contains(['?', '#', '*']) || start.is_some_and(|s| !s.ends_with('/'))
                {
                    return Err(RuleError::Path(path.into()));
                }
                Ok(if start.is_some() { Self::Below(known, rest.into()) } else { Self::Exact(known, rest.into()) })
            }
            _ => Err(RuleError::Shape(text.into())),
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inference => f.write_str("inference"),
            Self::All => f.write_str("all"),
            Self::Exact(method, path) => write!(f, "{method} {path}"),
            Self::Below(method, start) => write!(f, "{method} {start}*"),
        }
    }
}

/// The rules of a desktop: a request passes if one of them lets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy(Vec<Rule>);

impl Policy {
    /// A policy of these rules. None means that `--allow` was not given: all is allowed.
    #[must_use]
    pub fn new(mut rules: Vec<Rule>) -> Self {
        if rules.is_empty() {
            rules.push(Rule::All);
        }
        Self(rules)
    }

    /// Whether a request may reach the upstream. `target` is the request target as it was sent; its query is ignored.
    #[must_use]
    pub fn allows(&self, method: &Method, target: &str) -> bool {
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        self.0.iter().any(|rule| rule.allows(method, path))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn t64_inference_is_what_clients_need() {
        for path in COMPUTE {
            assert!(is_inference(&Method::POST, path), "{path}");
            assert!(!is_inference(&Method::GET, path), "{path}");
            assert!(!is_inference(&Method::DELETE, path), "{path}");
        }
        for path in LIST {
            assert!(is_inference(&Method::GET, path), "{path}");
            assert!(is_inference(&Method::HEAD, path), "{path}");
            assert!(!is_inference(&Method::POST, path), "{path}");
        }
        for model in ["smollm2", "llama3.2:3b", "hf.co%2Fowner%2FModel-GGUF:Q4_K_M", "m%3Alatest"] {
            assert!(is_inference(&Method::GET, &format!("{MODEL}{model}")), "{model}");
        }
    }

    #[test]
    fn t64_management_is_never_inference() {
        let spellings = |name: &str| {
            let bare = name.trim_start_matches('/');
            let first = format!("%{:02x}", bare.as_bytes()[0]);
            [
                name.to_owned(),
                format!("/{name}"),
                format!("{name}/"),
                format!("{name}?x"),
                format!("/%2f{bare}"),
                format!("/{first}{}", &bare[1..]),
                format!("/v1/..{name}"),
                format!("/v1/models/..%2f..{}", name.replace('/', "%2F")),
                format!("/v1/models/%2e%2e{name}"),
                format!("/api/chat/..{name}"),
                format!("/api/chat%00{name}"),
                format!("/api/chat;{name}"),
                name.to_uppercase(),
            ]
        };
        let names = ["delete", "pull", "push", "create", "copy", "blobs/sha256:00"];
        for name in names {
            for path in spellings(&format!("/api/{name}")) {
                for method in [Method::GET, Method::HEAD, Method::POST, Method::DELETE, Method::PUT] {
                    assert!(!is_inference(&method, &path), "{method} {path}");
                }
            }
        }
    }

    #[test]
    fn t64_only_exact_paths_are_inference() {
        for path in ["", "*", "api/chat", "/api/chat/", "/api//chat", "/API/chat", "/api/%63hat"] {
            assert!(!is_inference(&Method::POST, path), "{path}");
        }
        for model in ["", ".", "..", "a/b", "a%2F..%2Fb", "%2Fa", "a%2f", "a%00", "a%", "a%2", "é", "a;b"] {
            assert!(!is_inference(&Method::GET, &format!("{MODEL}{model}")), "{model}");
        }
    }

    #[test]
    fn t53_rules_are_parsed_strictly() {
        assert_eq!("inference".parse(), Ok(Rule::Inference));
        assert_eq!("all".parse(), Ok(Rule::All));
        assert_eq!("GET /api/tags".parse(), Ok(Rule::Exact(Method::GET, "/api/tags".into())));
        let refused = |text: &str| text.parse::<Rule>().unwrap_err().to_string();
        assert!(refused("everything").contains("is not a rule"));
        assert!(refused("").contains("is not a rule"));
        assert!(refused("GET /a b").contains("is not a rule"));
        assert!(refused("get /api/tags").contains("capitals"));
        assert!(refused("GET api/tags").contains("not a path"));
        assert_eq!("GET /v1/*".parse(), Ok(Rule::Below(Method::GET, "/v1/".into())));
        for path in ["/api*", "*", "/*/x", "/api/**", "/api/*/"] {
            assert!(refused(&format!("GET {path}")).contains("not a path"), "{path}");
        }
        assert!(refused("GET /api?x").contains("not a path"));
    }

    #[test]
    fn t53_policy_is_the_union_of_its_rules() {
        let policy = Policy::new(vec![Rule::Inference, "DELETE /api/delete".parse().unwrap()]);
        assert!(policy.allows(&Method::POST, "/api/chat?x=/y"));
        assert!(policy.allows(&Method::DELETE, "/api/delete"));
        assert!(!policy.allows(&Method::POST, "/api/pull"));
        assert!(!policy.allows(&Method::DELETE, "/api/delete/"));
        assert!(Policy::new(Vec::new()).allows(&Method::POST, "/api/pull"));
    }

    #[test]
    fn t53_a_star_at_the_end_covers_what_is_below_and_nothing_else() {
        let policy = Policy::new(vec!["GET /v1/*".parse().unwrap(), "POST /api/chat/*".parse().unwrap()]);
        for path in ["/v1/models", "/v1/models/a%2Fb:7b", "/v1/files/x/content?y=/.."] {
            assert!(policy.allows(&Method::GET, path), "{path}");
            assert!(!policy.allows(&Method::POST, path), "{path}");
        }
        for path in [
            "/v1",
            "/v1/",
            "/v10",
            "/V1/x",
            "/api/tags",
            "/v1/../api/delete",
            "/v1/%2e%2e/api/delete",
            "/v1/..%2fapi/delete",
            "/v1//api/delete",
            "/v1/./x",
            "/v1/a\\..\\b",
            "/v1/x%00",
            "/v1/x;y",
            "//v1/x",
        ] {
            assert!(!policy.allows(&Method::GET, path), "{path}");
        }
        assert!(!policy.allows(&Method::POST, "/api/chat"));
        assert!("GET /*".parse::<Rule>().unwrap().allows(&Method::GET, "/anything"));
    }

    proptest! {
        #[test]
        fn t53_rules_print_as_they_parse(path in "/[!-~&&[^?#*]]{0,20}(/[*])?") {
            let rule: Rule = format!("POST {path}").parse().unwrap();
            prop_assert_eq!(rule.to_string().parse::<Rule>(), Ok(rule));
        }

        /// Whatever is accepted reads the same after decoding and normalising: no dot segment, no empty one.
        #[test]
        fn t64_an_accepted_path_has_one_reading(model in "([a-z./:%]|%2[Ff]|%2[Ee]){0,12}") {
            let path = format!("{MODEL}{model}");
            if is_inference(&Method::GET, &path) {
                let decoded = path.to_lowercase().replace("%2f", "/").replace("%3a", ":");
                prop_assert!(!decoded.contains('%'));
                prop_assert!(decoded.split('/').skip(1).all(|part| !matches!(part, "" | "." | "..")));
            }
        }
    }
}
