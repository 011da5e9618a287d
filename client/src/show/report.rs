//! What `tunnel status` prints for people.

use std::{fmt::Write, time::SystemTime};

use bytesize::ByteSize;
use tunnel::board::{Report, Request};

use super::{in_words, rough, short, tame};

/// A block of lines about one client.
pub(crate) fn text(report: &Report) -> String {
    let since = humantime::parse_rfc3339(&report.since).unwrap_or(SystemTime::UNIX_EPOCH);
    let age = rough(SystemTime::now().duration_since(since).unwrap_or_default());
    let state = if report.connected { "\u{25cf} online" } else { "\u{25cb} offline" };
    let mut lines = format!("{state} {age}");
    if let (Some(user), Some(name)) = (&report.user, &report.name) {
        add(&mut lines, format_args!(" as {}/{}", tame(user), tame(name)));
    }
    if let Some(rtt) = report.rtt_ms {
        add(&mut lines, format_args!(" \u{b7} rtt {rtt:.1} ms"));
    }
    if report.reconnects > 0 {
        add(&mut lines, format_args!(" \u{b7} {} reconnects", report.reconnects));
    }
    add(&mut lines, format_args!(" \u{b7} pid {}\n", report.pid));
    if let Some(reason) = &report.reason {
        add(&mut lines, format_args!("  because   {}\n", in_words(reason)));
    }
    add(&mut lines, format_args!("  server    {}\n", report.server.as_deref().map_or("-".into(), tame)));
    add(&mut lines, format_args!("  upstream  {}", tame(&report.upstream)));
    match &report.upstream_error {
        Some(error) => add(&mut lines, format_args!(" does not answer: {}\n", in_words(error))),
        None => add(&mut lines, format_args!("\n")),
    }
    let served = report.total.saturating_sub(report.in_flight as u64);
    add(&mut lines, format_args!("  requests  {} in flight, {served} served\n", report.in_flight));
    if !report.requests.is_empty() {
        add(&mut lines, format_args!("\n  STATUS     BYTES  FIRST BYTE    TOTAL\n"));
    }
    for request in &report.requests {
        add(&mut lines, format_args!("{}\n", row(request)));
    }
    lines
}

fn row(request: &Request) -> String {
    let status = request.status.map_or("-".into(), |status| status.to_string());
    let first = request.first_byte_ms.map_or("-".into(), short);
    let bytes = ByteSize(request.bytes).display().si_short().to_string();
    let total = short(request.duration_ms);
    let outcome = match request.outcome.as_str() {
        "complete" => String::new(),
        "running" => "  (running)".into(),
        other => format!("  ({})", tame(other)),
    };
    let (method, path) = (tame(&request.method), tame(&request.path));
    format!("  {status:>6} {bytes:>9} {first:>11} {total:>8}  {method} {path}{outcome}")
}

fn add(text: &mut String, more: std::fmt::Arguments<'_>) {
    text.write_fmt(more).expect("a String takes everything");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn request(status: Option<u16>, bytes: u64, outcome: &str) -> Request {
        Request {
            id: "1".into(),
            method: "POST".into(),
            path: "/api/chat".into(),
            status,
            bytes,
            first_byte_ms: status.map(|_| 340),
            duration_ms: 12_345,
            outcome: outcome.into(),
        }
    }

    fn report() -> Report {
        let since = SystemTime::now() - Duration::from_secs(7500);
        Report {
            connected: true,
            since: humantime::format_rfc3339_seconds(since).to_string(),
            reason: None,
            server: Some("https://tunnel.example.com".into()),
            user: Some("bob".into()),
            name: Some("tower".into()),
            rtt_ms: Some(23.4),
            reconnects: 2,
            upstream: "http://127.0.0.1:11434".into(),
            upstream_error: None,
            in_flight: 1,
            total: 132,
            requests: vec![
                request(Some(200), 12_345, "running"),
                request(Some(200), 0, "complete"),
                request(None, 0, "upstream_unreachable"),
            ],
            pid: 7,
            version: "1".into(),
        }
    }

    #[test]
    fn a_client_that_is_online() {
        let expected = "\
\u{25cf} online 2h 05m as bob/tower \u{b7} rtt 23.4 ms \u{b7} 2 reconnects \u{b7} pid 7
  server    https://tunnel.example.com
  upstream  http://127.0.0.1:11434
  requests  1 in flight, 131 served

  STATUS     BYTES  FIRST BYTE    TOTAL
     200     12.3k       340ms    12.3s  POST /api/chat  (running)
     200        0B       340ms    12.3s  POST /api/chat
       -        0B           -    12.3s  POST /api/chat  (upstream_unreachable)
";
        assert_eq!(text(&report()), expected);
    }

    #[test]
    fn a_client_that_is_not() {
        let report = Report {
            connected: false,
            reason: Some("cannot connect to a:1: refused (os error 111)\x1b[2J".into()),
            upstream_error: Some("refused (os error 111)".into()),
            rtt_ms: None,
            reconnects: 0,
            requests: Vec::new(),
            ..report()
        };
        let expected = "\
\u{25cb} offline 2h 05m as bob/tower \u{b7} pid 7
  because   cannot connect to a:1: refused\\u{1b}[2J
  server    https://tunnel.example.com
  upstream  http://127.0.0.1:11434 does not answer: refused
  requests  1 in flight, 131 served
";
        assert_eq!(text(&report), expected);
    }
}
