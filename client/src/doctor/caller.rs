//! What a caller needs of the other side: a desktop that is online. Read off the server's status; nothing is sent to it.

use serde::Deserialize;
use tunnel_frame::Models;

use super::Finding;

/// `GET /api/tunnel/status`, as far as a caller asks.
#[derive(Deserialize)]
struct Status {
    offline_since: Option<String>,
    tunnels: Vec<Desktop>,
}

#[derive(Deserialize)]
struct Desktop {
    name: String,
    since: String,
    upstream: Option<Models>,
}

/// Whether a request of this token would find a desktop. A token may be bound to one by its name.
pub(super) fn desktop(status: &[u8], bound_to: Option<&str>) -> Finding {
    let Ok(Status { offline_since, tunnels }) = serde_json::from_slice(status) else {
        return Finding::doubtful("desktop", "the server's status cannot be read", "is it older than this client?");
    };
    let online = |desktop: &Desktop| {
        let Desktop { name, since, upstream } = desktop;
        let models = upstream.as_ref().map(|Models { models, left_out, .. }| match models.len() + *left_out as usize {
            1 => ", with 1 model".to_owned(),
            count => format!(", with {count} models"),
        });
        format!("{name} is online since {since}{}", models.unwrap_or_default())
    };
    let wanted: Vec<_> = tunnels.iter().filter(|desktop| bound_to.is_none_or(|name| name == desktop.name)).collect();
    match (&wanted[..], bound_to) {
        ([], Some(name)) if !tunnels.is_empty() => {
            let others: Vec<_> = tunnels.iter().map(|desktop| desktop.name.as_str()).collect();
            let found =
                format!("{name}, the only one that this token is for, is offline; online: {}", others.join(", "));
            Finding::bad("desktop", found).advise(format!("run `tunnel connect --name {name}` on it"))
        }
        ([], _) => {
            let since = offline_since.map(|since| format!(" since {since}")).unwrap_or_default();
            Finding::bad("desktop", format!("none of this user is online{since}")).advise(
                "run `tunnel connect` on it, or have it run; `tunnel doctor` there says why it does not connect",
            )
        }
        (wanted, _) => Finding::good("desktop", wanted.iter().map(|it| online(it)).collect::<Vec<_>>().join("; ")),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Verdict, *};

    #[test]
    fn online_since_when_and_what_to_do_if_not() {
        let two = r#"{"user":"bob","connected":true,"tunnels":[
            {"name":"attic","since":"2026-01-31T13:17:00Z","rtt_ms":null,"in_flight":0,"client":"x"},
            {"name":"desk","since":"2026-01-31T13:18:00Z","rtt_ms":2.5,"in_flight":1,"client":"x",
             "upstream":{"version":"0.12.0","models":["a"],"left_out":0}}]}"#;
        let found = |status: &str, bound_to| desktop(status.as_bytes(), bound_to);
        let all = "attic is online since 2026-01-31T13:17:00Z; desk is online since 2026-01-31T13:18:00Z, with 1 model";
        assert_eq!(found(two, None), Finding::good("desktop", all));
        assert!(found(two, Some("desk")).found.starts_with("desk is online since 2026-01-31T13:18:00Z"));
        let elsewhere = found(two, Some("lab"));
        assert_eq!(elsewhere.result, Verdict::Bad);
        assert!(elsewhere.found.starts_with("lab, ") && elsewhere.found.ends_with("attic, desk"), "{elsewhere:?}");

        let lost = r#"{"user":"bob","connected":false,"offline_since":"2026-01-31T13:19:00Z","tunnels":[]}"#;
        for bound_to in [None, Some("desk")] {
            let offline = found(lost, bound_to);
            assert_eq!(offline.result, Verdict::Bad);
            assert_eq!(offline.found, "none of this user is online since 2026-01-31T13:19:00Z");
            assert!(offline.advice.unwrap().contains("tunnel connect"));
        }
        assert_eq!(found("<html>", None).result, Verdict::Doubtful);
    }
}
