//! Control messages: one small JSON object per WebSocket text message, readable in any WebSocket debugger.
//!
//! Unknown types and unknown fields are ignored, so that either side may learn new ones first.

use serde::{Deserialize, Serialize};

use crate::limits;

/// A control message. The `type` field tells which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum Control {
    /// Server to desktop, first message of a tunnel: it is registered and will get requests.
    Welcome(Welcome),
    /// Either way: no new streams, please; old ones may finish.
    Drain {
        /// Why, for the log of the other side.
        reason: String,
    },
    /// Either way, just before a close: the reason in words.
    Bye {
        /// The same code as the close frame's.
        code: u16,
        /// One sentence for people.
        message: String,
    },
    /// Desktop to server, any number of times: what its upstream offers now.
    Models(Models),
    /// From a newer peer.
    #[serde(other)]
    Unknown,
}

/// What a desktop is told when its tunnel stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The server's id of this tunnel, to find it in the server's log.
    pub tunnel: String,
    /// The subject of the token.
    pub user: String,
    /// The name under which this desktop can be asked for.
    pub name: String,
    /// Where callers reach the server: scheme and authority, no trailing slash.
    pub url: String,
    /// Version of the server, for the log.
    pub version: String,
}

/// What an upstream offers, as far as it fits into one message.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Models {
    /// The version of the upstream, if it tells one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Names of models, as the upstream orders them.
    pub models: Vec<String>,
    /// How many more there are.
    #[serde(default)]
    pub left_out: u32,
}

impl Models {
    /// Longest version and name that are told, in bytes.
    pub const MAX_TEXT: usize = 128;

    /// Bytes of a message that are not names: braces, keys, a version and a number.
    const AROUND: usize = 512;

    /// As many names as fit. What is no name (empty, too long, with control characters) is left out as well.
    #[must_use]
    pub fn fitting(version: Option<String>, names: impl IntoIterator<Item = String>) -> Self {
        let mut fitting = Self { version: version.filter(|version| is_text(version)), ..Self::default() };
        let mut room = limits::CONTROL_ACCEPTED - Self::AROUND;
        for name in names {
            let length = serde_json::to_string(&name).map_or(usize::MAX, |json| json.len() + 1);
            if is_text(&name) && length <= room {
                room -= length;
                fitting.models.push(name);
            } else {
                fitting.left_out = fitting.left_out.saturating_add(1);
            }
        }
        fitting
    }
}

fn is_text(text: &str) -> bool {
    (1..=Models::MAX_TEXT).contains(&text.len()) && !text.chars().any(char::is_control)
}

impl Control {
    /// The JSON text.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers always serialise")
    }

    /// Reads a message; `None` if it is not a JSON object with a `type`.
    #[must_use]
    pub fn from_json(text: &str) -> Option<Self> {
        // serde would also read a list, with the type in front.
        text.trim_ascii_start().starts_with('{').then(|| serde_json::from_str(text).ok()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_plain_json() {
        let drain = Control::Drain { reason: "restart".into() };
        assert_eq!(drain.to_json(), r#"{"type":"drain","reason":"restart"}"#);
        assert_eq!(Control::from_json(&drain.to_json()), Some(drain));
    }

    #[test]
    fn a_list_of_models_fits_or_says_how_much_is_missing() {
        let few = Models::fitting(Some("0.13.1".into()), ["llama3.2:3b".to_owned()]);
        let json = r#"{"type":"models","version":"0.13.1","models":["llama3.2:3b"],"left_out":0}"#;
        assert_eq!(Control::Models(few.clone()).to_json(), json);
        assert_eq!(Control::from_json(r#"{"type":"models","models":[]}"#), Some(Control::Models(Models::default())));
        let names =
            (0..1000).map(|n| format!("model-\"{n}\"-\u{e9}")).chain([String::new(), "x".repeat(200), "a\nb".into()]);
        let many = Models::fitting(Some("v".repeat(200)), names);
        assert!(many.models.len() > 100 && many.version.is_none(), "{many:?}");
        assert_eq!(many.models.len() + many.left_out as usize, 1003);
        let text = Control::Models(many).to_json();
        assert!(text.len() <= limits::CONTROL_ACCEPTED && text.len() > 3000, "{}", text.len());
    }

    #[test]
    fn the_future_is_ignored() {
        assert_eq!(Control::from_json(r#"{"type":"party","hats":3}"#), Some(Control::Unknown));
        let bye = Control::Bye { code: 1000, message: "x".into() };
        assert_eq!(Control::from_json(r#"{"type":"bye","code":1000,"message":"x","new":1}"#), Some(bye));
    }

    #[test]
    fn nonsense_is_nothing() {
        for text in ["", "1", "[]", "{}", "{\"type\":7}", "{\"type\":\"welcome\"}", "[\"drain\",\"x\"]"] {
            assert_eq!(Control::from_json(text), None, "{text}");
        }
    }
}
