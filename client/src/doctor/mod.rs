//! Looks at everything between an app and the upstream, one step at a time, and says what to do about what it finds.
//!
//! * `way`: names, TCP, proxy, TLS.
//! * `server`: tunneld itself, the clocks, the token, the upgrade, what holds answers back.
//! * `local`: the upstream, where a desktop is to be connected; `caller`: the desktop, where one is to be asked.
//!
//! Registers no desktop and sends no request through a tunnel.

mod caller;
mod local;
mod server;
mod way;

use serde::Serialize;
use url::Url;

use crate::{connector::Connector, token::Token};

/// What is looked at.
#[derive(Debug)]
pub struct Patient {
    /// The server.
    pub server: Url,
    /// The way to it.
    pub connector: Connector,
    /// The token, or why there is none.
    pub token: Result<Token, NoToken>,
    /// The name under which this desktop would connect.
    pub name: String,
    /// The upstream.
    pub to: Url,
}

/// Why there is no token to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoToken {
    /// None was named.
    NotAsked,
    /// One sentence about the one that was.
    Unusable(String),
}

impl Patient {
    /// Whether the token says that requests are sent from here, and none answered.
    fn is_caller(&self) -> bool {
        self.token.as_ref().is_ok_and(|token| token.claims().is_callers())
    }
}

/// What one step has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The step.
    pub step: &'static str,
    /// How it went.
    pub result: Verdict,
    /// What was found, in a line.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// How a step went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It works, and could be better.
    Doubtful,
    /// The tunnel does not work, or not as it should.
    Bad,
}

impl Finding {
    fn good(step: &'static str, found: impl Into<String>) -> Self {
        Self { step, result: Verdict::Good, found: found.into(), advice: None }
    }

    fn doubtful(step: &'static str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { step, result: Verdict::Doubtful, found: found.into(), advice: Some(advice.into()) }
    }

    /// `found` may say what to do by itself.
    fn bad(step: &'static str, found: impl Into<String>) -> Self {
        Self { step, result: Verdict::Bad, found: found.into(), advice: None }
    }

    fn advise(mut self, advice: impl Into<String>) -> Self {
        self.advice = Some(advice.into());
        self
    }
}

/// Takes all steps that make sense, and tells each finding as it comes. Whether nothing bad was among them.
pub async fn examine(patient: &Patient, mut tell: impl FnMut(&Finding)) -> bool {
    let mut well = true;
    let mut tell = |finding: Finding| {
        well &= finding.result != Verdict::Bad;
        tell(&finding);
    };
    if way::examine(patient, &mut tell).await {
        server::examine(patient, &mut tell).await;
    }
    if !patient.is_caller() {
        local::examine(&patient.to, &mut tell).await;
    }
    well
}
