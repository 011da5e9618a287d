//! Control messages: one small JSON object per WebSocket text message, readable in any WebSocket debugger.
//!
//! Unknown types and unknown fields are ignored, so that either side may learn new ones first.

use serde::{Deserialize, Serialize};

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
