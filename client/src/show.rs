//! Shows what happens to the client, on stderr. Part of the program, not of the library.
//!
//! * [`live`]: one line at the bottom of a terminal that is written over, with sentences above it.
//! * [`plain`]: log lines, for everything that is no terminal.
//! * [`report`]: what `tunnel status` prints.
//! * [`status`]: what to say; knows no terminal.
//! * [`recipes`]: how callers reach the upstream now, ready to be pasted.

pub(crate) mod live;
pub(crate) mod plain;
mod recipes;
pub(crate) mod report;
mod status;

use std::{fmt::Write, time::Duration};

pub(crate) use recipes::Recipes;
use tunnel::doctor::{Finding, Verdict};

/// One finding of `tunnel doctor`, with its advice below.
pub(crate) fn finding(finding: &Finding) -> String {
    let mark = match finding.result {
        Verdict::Good => "\u{2713}",
        Verdict::Doubtful => "!",
        Verdict::Bad => "\u{2717}",
    };
    let advice = finding.advice.as_ref().map(|advice| format!("{:14}\u{2192} {}\n", "", tame(advice)));
    format!("{mark} {:<10}  {}\n{}", finding.step, in_words(&finding.found), advice.unwrap_or_default())
}

/// Text from a peer, made harmless for a terminal: control characters are spelled out, the length is bounded.
fn tame(text: &str) -> String {
    let mut tame = String::new();
    for c in text.chars().take(300) {
        if c.is_control() { tame.extend(c.escape_default()) } else { tame.push(c) }
    }
    tame
}

/// A reason in words: `Connection refused`, without the number that the system has for it.
fn in_words(reason: &str) -> String {
    let reason = tame(reason);
    match reason.split_once(" (os error ") {
        Some((words, rest)) => format!("{words}{}", rest.split_once(')').map_or("", |(_, rest)| rest)),
        None => reason,
    }
}

/// A duration in its two largest units: `5s`, `2m 05s`, `3h 07m`, `4d 11h`.
fn rough(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let mut text = String::new();
    let written = match (days, hours, minutes) {
        (0, 0, 0) => write!(text, "{seconds}s"),
        (0, 0, _) => write!(text, "{minutes}m {:02}s", seconds % 60),
        (0, ..) => write!(text, "{hours}h {:02}m", minutes % 60),
        _ => write!(text, "{days}d {:02}h", hours % 24),
    };
    written.expect("a String takes everything");
    text
}

/// `340ms`, `12.3s`, `2m 05s`.
fn short(milliseconds: u64) -> String {
    let duration = Duration::from_millis(milliseconds);
    match milliseconds {
        0..1000 => format!("{milliseconds}ms"),
        1000..60_000 => format!("{:.1}s", duration.as_secs_f64()),
        _ => rough(duration),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t35_control_characters_are_spelled_out() {
        assert_eq!(tame("a\x1b[2J\nb\u{9b}"), "a\\u{1b}[2J\\nb\\u{9b}");
        assert_eq!(tame(&"x".repeat(1000)).len(), 300);
        assert_eq!(tame("caf\u{e9}"), "caf\u{e9}");
    }

    #[test]
    fn reasons_have_no_numbers() {
        assert_eq!(in_words("tcp: Connection refused (os error 111): x"), "tcp: Connection refused: x");
        assert_eq!(in_words("closed (4001)"), "closed (4001)");
    }

    #[test]
    fn durations_are_rough() {
        let rough = |seconds| rough(Duration::from_secs(seconds));
        assert_eq!([rough(5), rough(125), rough(11_220), rough(385_200)], ["5s", "2m 05s", "3h 07m", "4d 11h"]);
    }
}
