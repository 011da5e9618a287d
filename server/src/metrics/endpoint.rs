//! Which endpoint a request is for, as one of a known list: what a label may say of a path.

/// The endpoints of Ollama's and OpenAI's APIs, and ours. What has a part of its own (a model, a digest) is one.
const ENDPOINTS: [&str; 31] = [
    "other",
    "own",
    "/ws/tunnel",
    "/",
    "/api/blobs/{digest}",
    "/api/chat",
    "/api/copy",
    "/api/create",
    "/api/delete",
    "/api/embed",
    "/api/embeddings",
    "/api/generate",
    "/api/ps",
    "/api/pull",
    "/api/push",
    "/api/show",
    "/api/tags",
    "/api/version",
    "/v1/audio/transcriptions",
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/images/generations",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/models",
    "/v1/models/{model}",
    "/v1/responses",
    "/health",
    "/metrics",
    "/props",
];

/// One of [`ENDPOINTS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Endpoint(usize);

impl Endpoint {
    /// How many there are.
    pub(super) const COUNT: usize = ENDPOINTS.len();

    /// The endpoint of a request target, taken after any capability prefix; its query is ignored.
    pub(crate) fn of(target: &str) -> Self {
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        let label = match path {
            "/healthz" | "/readyz" => "own",
            _ if path.starts_with("/api/tunnel/") || path.starts_with("/app/") || path == "/app" => "own",
            _ if path.starts_with("/api/blobs/") => "/api/blobs/{digest}",
            _ if path.starts_with("/v1/models/") => "/v1/models/{model}",
            path => path,
        };
        Self(ENDPOINTS.iter().position(|known| *known == label).unwrap_or(0))
    }

    pub(super) fn index(self) -> usize {
        self.0
    }

    /// As a label says it.
    pub(crate) fn as_str(self) -> &'static str {
        ENDPOINTS[self.0]
    }

    /// Whether a model computes the answer, which then tells of tokens.
    pub(crate) fn runs_a_model(self) -> bool {
        matches!(
            self.as_str(),
            "/api/chat"
                | "/api/embed"
                | "/api/embeddings"
                | "/api/generate"
                | "/v1/chat/completions"
                | "/v1/completions"
                | "/v1/embeddings"
                | "/v1/messages"
                | "/v1/responses"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_one_of_a_known_list() {
        for (target, label) in [
            ("/", "/"),
            ("/api/chat", "/api/chat"),
            ("/api/chat?x=/api/tags", "/api/chat"),
            ("/v1/models/hf.co%2Fx", "/v1/models/{model}"),
            ("/api/blobs/sha256:00", "/api/blobs/{digest}"),
            ("/api/tunnel/status", "own"),
            ("/healthz", "own"),
            ("/app/", "own"),
            ("/ws/tunnel", "/ws/tunnel"),
            ("/api/chat/", "other"),
            ("own", "own"),
            ("/some/path", "other"),
            ("", "other"),
        ] {
            assert_eq!(Endpoint::of(target).as_str(), label, "{target}");
        }
        assert!(Endpoint::of("/v1/messages").runs_a_model() && !Endpoint::of("/api/pull").runs_a_model());
    }
}
