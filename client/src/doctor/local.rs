//! The upstream: is it there, is it Ollama, does it take requests as they come out of a tunnel.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde::Deserialize;
use tokio::time::timeout;
use tunnel_frame::{BodySize, RequestHead};
use url::Url;

use super::Finding;
use crate::{
    body::RequestBody,
    config::{DEFAULT_UPSTREAM, origin},
    upstream::Upstream,
};

/// An upstream that is there answers such questions at once.
const WITHIN: Duration = Duration::from_secs(5);

/// Bytes of a list of models.
const LARGEST: usize = 1024 * 1024;

/// Names of models that are shown.
const SHOWN: usize = 5;

#[derive(Deserialize)]
struct Version {
    version: String,
}

#[derive(Deserialize)]
struct Models {
    models: Vec<Model>,
}

#[derive(Deserialize)]
struct Model {
    name: String,
}

pub(super) async fn examine(to: &Url, tell: &mut impl FnMut(Finding)) {
    let (upstream, origin) = (Upstream::new(to), origin(to));
    let (status, body) = match get(&upstream, "/api/version").await {
        Ok(answer) => answer,
        Err(problem) => {
            let start = if origin == DEFAULT_UPSTREAM { "`ollama serve`" } else { "it" };
            let found = format!("{origin} does not answer: {problem}");
            return tell(Finding::bad("upstream", found).advise(format!("start {start}, or name another with --to")));
        }
    };
    if status == StatusCode::FORBIDDEN {
        // What Ollama does with a Host that it does not know; an Origin is never sent.
        tell(Finding::good("upstream", format!("{origin} answers")));
        let found = format!("{origin} refuses requests with its own address as Host (403)");
        return tell(
            Finding::bad("host", found)
                .advise("reach it as --to http://127.0.0.1:PORT, or set OLLAMA_HOST=0.0.0.0 there"),
        );
    }
    let Some(Version { version }) = read(&body).filter(|_| status == StatusCode::OK) else {
        let found = format!("{origin} answers, but is not Ollama (status {} for /api/version)", status.as_u16());
        let advice = match status {
            // What a server of HTTPS answers to plain HTTP.
            StatusCode::BAD_REQUEST => "does this port speak HTTPS? --to takes one that speaks plain HTTP",
            _ => "fine, if you mean it: paths under /v1/ and others are passed on",
        };
        return tell(Finding::doubtful("upstream", found, advice));
    };
    tell(Finding::good("upstream", format!("{origin} is Ollama {version}")));
    tell(Finding::good("host", "it takes requests as they come out of the tunnel: its own Host, no Origin"));
    tell(match get(&upstream, "/api/tags").await.map(|(_, body)| read::<Models>(&body)) {
        Ok(Some(Models { models })) if models.is_empty() => {
            Finding::doubtful("models", "none", "pull one: ollama pull llama3.2")
        }
        Ok(Some(Models { models })) => Finding::good("models", listed(&models)),
        Ok(None) => Finding::doubtful("models", "the list cannot be read", "look at `ollama list`"),
        Err(problem) => Finding::bad("models", problem),
    });
}

fn listed(models: &[Model]) -> String {
    let names: Vec<_> = models.iter().take(SHOWN).map(|model| model.name.as_str()).collect();
    let more = models.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", names.join(", "))
}

fn read<T: for<'de> Deserialize<'de>>(body: &[u8]) -> Option<T> {
    serde_json::from_slice(body).ok()
}

/// Asks just as a request from a tunnel is asked.
async fn get(upstream: &Upstream, path: &str) -> Result<(StatusCode, Bytes), String> {
    let head = RequestHead {
        method: Method::GET,
        target: path.to_owned(),
        headers: HeaderMap::new(),
        deadline: WITHIN,
        request_id: String::new(),
        scope: 0,
        body: BodySize::Empty,
    };
    let asked = async {
        let response = upstream.send(head, RequestBody::empty()).await.map_err(|abort| abort.message)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), LARGEST).collect().await.map_err(|error| error.to_string())?;
        Ok((status, body.to_bytes()))
    };
    timeout(WITHIN, asked).await.unwrap_or_else(|_| Err(format!("nothing within {} s", WITHIN.as_secs())))
}
