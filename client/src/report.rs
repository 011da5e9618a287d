//! What the upstream offers, told to the server for its status: looked up when a tunnel stands, when the upstream comes
//! back, and every few minutes; told when it has changed.
//!
//! Owns what is asked of an upstream for that. A path that the desktop's own policy forbids to callers is not asked for
//! either. An upstream that is no Ollama, and has no such list, has none.

use std::{sync::Arc, time::Duration};

use http::{Method, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;
use tokio::time::timeout;
use tracing::debug;
use tunnel_frame::{Control, Models, Session};

use crate::{
    shared::{Shared, Upstream},
    stream::Service,
};

/// Between two looks: Ollama reads a small file for each model.
const LOOK_EVERY: Duration = Duration::from_secs(180);

/// The same while it says nothing of use.
const LOOK_AGAIN: Duration = Duration::from_secs(20);

/// How long an answer may take, and how long it may be: a thousand models.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const MAX_ANSWER: usize = 1024 * 1024;

/// Looks and tells until the session is over.
pub(crate) async fn run(shared: Arc<Shared>, session: Session) {
    let (service, mut upstream) = (shared.service(), shared.upstream());
    let mut told = None;
    let looking = async {
        while upstream.wait_for(|state| *state == Upstream::Up).await.is_ok() {
            let offers = look(&service).await;
            let wait = if offers.is_some() { LOOK_EVERY } else { LOOK_AGAIN };
            if offers.is_some() && offers != told {
                told.clone_from(&offers);
                session.send(Control::Models(offers.unwrap_or_default()));
            }
            _ = timeout(wait, upstream.changed()).await;
        }
    };
    tokio::select! {
        () = looking => {}
        () = session.over() => {}
    }
}

/// What is there now; `None` if nothing answers, or nobody may know.
async fn look(service: &Service) -> Option<Models> {
    let version = json(service, "/api/version").await.and_then(|json| Some(json["version"].as_str()?.to_owned()));
    let names = match json(service, "/api/tags").await {
        Some(json) => names(&json["models"], "name"),
        None => None,
    };
    let names = match names {
        Some(names) => Some(names),
        None => names_of_openai(service).await,
    };
    (version.is_some() || names.is_some()).then(|| Models::fitting(version, names.unwrap_or_default()))
}

/// llama.cpp, vLLM and others list their models only there.
async fn names_of_openai(service: &Service) -> Option<Vec<String>> {
    names(&json(service, "/v1/models").await?["data"], "id")
}

fn names(list: &Value, key: &str) -> Option<Vec<String>> {
    Some(list.as_array()?.iter().filter_map(|model| Some(model[key].as_str()?.to_owned())).collect())
}

async fn json(service: &Service, path: &str) -> Option<Value> {
    if !service.policy.allows(&Method::GET, path) {
        return None;
    }
    let asked = async {
        let response = service.upstream.ask(Method::GET, path).await.ok()?;
        let good = response.status() == StatusCode::OK;
        let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.ok()?.to_bytes();
        serde_json::from_slice(&body).ok().filter(|_| good)
    };
    let json = timeout(ANSWER_WITHIN, asked).await.ok().flatten();
    if json.is_none() {
        debug!(path, "the upstream does not say what it offers");
    }
    json
}
