//! What to tell a person: sentences when something changes, and one line for how things stand.

use std::time::{Duration, Instant, SystemTime};

use tunnel::{
    board::Request,
    config,
    event::{Connected, Event},
};

use super::{Recipes, in_words, rough, short, tame};

/// How things stand, folded from events.
#[derive(Debug)]
pub(crate) struct Status {
    recipes: Recipes,
    phase: Phase,
    shown: Option<Connected>,
    round_trip: Option<Duration>,
    in_flight: usize,
    total: u64,
    upstream_down: bool,
}

#[derive(Debug)]
enum Phase {
    Connecting { server: String },
    Online { since: Instant },
    Offline { since: Instant, next: Instant },
    Draining,
}

/// How good or bad something is: the colour it is shown in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Good,
    Waiting,
    Bad,
}

/// Something to say once.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Say {
    /// One sentence.
    Line(Mood, String),
    /// Several lines, as they are.
    Block(String),
}

impl Status {
    pub(crate) fn new(recipes: Recipes) -> Self {
        let phase = Phase::Connecting { server: String::new() };
        Self { recipes, phase, shown: None, round_trip: None, in_flight: 0, total: 0, upstream_down: false }
    }

    /// Takes note of an event. Returns what should be said about it.
    pub(crate) fn apply(&mut self, event: Event, now: Instant) -> Vec<Say> {
        match event {
            Event::Connecting { server, .. } => {
                if let Phase::Connecting { server: shown } = &mut self.phase {
                    *shown = config::origin(&server);
                }
                Vec::new()
            }
            Event::Connected(connected) => self.connected(connected, now),
            Event::Disconnected { reason, retry_in } => self.offline(&reason, retry_in, now),
            Event::Refused { code, message, retry_in } => {
                // Said each time: it will not get better by itself.
                let reason = format!("refused ({}): {}", tame(&code), tame(&message));
                let mut say = self.offline(&reason, retry_in, now);
                if say.is_empty() {
                    say.push(Say::Line(Mood::Bad, reason));
                }
                say
            }
            Event::RoundTrip(time) => {
                self.round_trip = Some(time);
                Vec::new()
            }
            Event::UpstreamDown { error } => self.upstream_down(&error),
            Event::UpstreamUp => {
                let was_down = std::mem::take(&mut self.upstream_down);
                let line = format!("{} answers", config::origin(&self.recipes.upstream));
                if was_down { vec![Say::Line(Mood::Good, line)] } else { Vec::new() }
            }
            Event::Requests { in_flight, total } => {
                (self.in_flight, self.total) = (in_flight, total);
                Vec::new()
            }
            Event::Draining { in_flight } => {
                self.phase = Phase::Draining;
                self.in_flight = in_flight;
                Vec::new()
            }
        }
    }

    fn connected(&mut self, connected: Connected, now: Instant) -> Vec<Say> {
        let who = format!("{}/{}", tame(&connected.user), tame(&connected.name));
        let valid = connected.token_expires.and_then(|end| end.duration_since(SystemTime::now()).ok());
        let valid = valid.map(|left| format!(", token valid for {}", rough(left))).unwrap_or_default();
        let after = match self.phase {
            Phase::Offline { since, .. } => format!(" again after {}", rough(now.duration_since(since))),
            Phase::Online { .. } => " on a new tunnel".to_owned(),
            _ => String::new(),
        };
        let mut say = vec![Say::Line(Mood::Good, format!("online{after} as {who}{valid}"))];
        // The recipes come again only if they have changed.
        let known = |shown: &Connected| (&shown.public_url, &shown.user) == (&connected.public_url, &connected.user);
        if !self.shown.as_ref().is_some_and(known) {
            say.push(Say::Block(self.recipes.block(&connected)));
        }
        // A tunnel that replaces a standing one does not begin anew.
        if !matches!(self.phase, Phase::Online { .. }) {
            self.phase = Phase::Online { since: now };
        }
        self.shown = Some(connected);
        say
    }

    /// One sentence when it goes offline; further attempts show only in the line.
    fn offline(&mut self, reason: &str, retry_in: Duration, now: Instant) -> Vec<Say> {
        let next = now + retry_in;
        self.round_trip = None;
        match &mut self.phase {
            Phase::Draining => Vec::new(),
            Phase::Offline { next: shown, .. } => {
                *shown = next;
                Vec::new()
            }
            Phase::Connecting { .. } | Phase::Online { .. } => {
                self.phase = Phase::Offline { since: now, next };
                vec![Say::Line(Mood::Bad, format!("offline: {}", in_words(reason)))]
            }
        }
    }

    fn upstream_down(&mut self, error: &str) -> Vec<Say> {
        self.upstream_down = true;
        let upstream = config::origin(&self.recipes.upstream);
        let what_to_do = if upstream == config::DEFAULT_UPSTREAM {
            "start it with `ollama serve`"
        } else if self.recipes.upstream.port().is_none() {
            "that is port 80; name another as in --to 127.0.0.1:11434"
        } else {
            "start it, or name another with --to"
        };
        let error = in_words(error);
        vec![Say::Line(
            Mood::Bad,
            format!("{upstream} does not answer ({error}): {what_to_do}; callers get 502 until then"),
        )]
    }

    /// The line that is always there, in at most `width` columns: what matters most comes first, and what does not fit
    /// is left out. `requests` are those that run and those that ran last.
    pub(crate) fn line(&self, now: Instant, width: usize, requests: &[Request]) -> (Mood, String) {
        let (mood, state) = match &self.phase {
            Phase::Connecting { server } => (Mood::Waiting, format!("connecting to {server}")),
            Phase::Online { since } => (Mood::Good, format!("online {}", rough(now.duration_since(*since)))),
            Phase::Offline { since, next } => {
                let next = rough(next.saturating_duration_since(now));
                (Mood::Bad, format!("offline {} \u{b7} next attempt in {next}", rough(now.duration_since(*since))))
            }
            Phase::Draining => (Mood::Waiting, "stopping, Ctrl-C ends at once".to_owned()),
        };
        let mut parts = Vec::new();
        if self.upstream_down {
            let upstream = &self.recipes.upstream;
            parts.push(format!("{} down", &upstream[url::Position::BeforeHost..url::Position::AfterPort]));
        }
        parts.extend(self.running(requests));
        if matches!(self.phase, Phase::Online { .. } | Phase::Draining) {
            parts.push(format!("{} served", self.total.saturating_sub(self.in_flight as u64)));
            parts.extend(self.last(requests));
        }
        if let Some(time) = self.round_trip {
            parts.push(format!("rtt {} ms", time.as_millis().max(1)));
        }
        let mut line = state;
        for part in parts {
            if line.chars().count() + 3 + part.chars().count() <= width {
                line.push_str(" \u{b7} ");
                line.push_str(&part);
            }
        }
        let line = line.chars().take(width).collect();
        (if self.upstream_down { Mood::Bad } else { mood }, line)
    }

    /// One request with its name, several as a number.
    fn running(&self, requests: &[Request]) -> Option<String> {
        let named = requests.first().filter(|request| request.outcome == "running");
        match (self.in_flight, named) {
            (0, _) => None,
            (1, Some(request)) => {
                Some(format!("{} {}", what(request), rough(Duration::from_millis(request.duration_ms))))
            }
            (in_flight, _) => Some(format!("{in_flight} in flight")),
        }
    }

    /// How the last one ended, while none runs.
    fn last(&self, requests: &[Request]) -> Option<String> {
        let request = requests.first().filter(|_| self.in_flight == 0)?;
        let result = request.status.filter(|_| request.outcome == "complete");
        let result = result.map_or_else(|| tame(&request.outcome), |status| status.to_string());
        Some(format!("last {} {result} in {}", what(request), short(request.duration_ms)))
    }
}

/// A request in few columns.
fn what(request: &Request) -> String {
    const PATH: usize = 24;
    let path: String = tame(&request.path).chars().take(PATH).collect();
    format!("{} {path}", tame(&request.method))
}

#[cfg(test)]
mod tests {
    use url::Url;

    use super::*;

    fn status() -> Status {
        Status::new(Recipes::new(config::upstream_url("11434").unwrap(), None, None))
    }

    fn connected() -> Event {
        let public_url = Url::parse("https://tunnel.example.com").unwrap();
        Event::Connected(Connected { user: "bob".into(), name: "studio".into(), public_url, token_expires: None })
    }

    fn lost() -> Event {
        Event::Disconnected { reason: "connection reset".into(), retry_in: Duration::from_secs(9) }
    }

    #[test]
    fn a_day_in_the_life() {
        let (mut status, start) = (status(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);

        let server = Url::parse("https://tunnel.example.com").unwrap();
        assert!(status.apply(Event::Connecting { server, attempt: 1 }, start).is_empty());
        assert_eq!(status.line(start, 80, &[]), (Mood::Waiting, "connecting to https://tunnel.example.com".into()));

        let said = status.apply(connected(), start);
        assert_eq!(said[0], Say::Line(Mood::Good, "online as bob/studio".into()));
        assert!(matches!(&said[1], Say::Block(block) if block.contains("OLLAMA_HOST=https://tunnel.example.com/t/")));

        status.apply(Event::RoundTrip(Duration::from_millis(23)), start);
        status.apply(Event::Requests { in_flight: 2, total: 133 }, start);
        let line = "online 2h 05m \u{b7} 2 in flight \u{b7} 131 served \u{b7} rtt 23 ms";
        assert_eq!(status.line(after(7505), 80, &[]), (Mood::Good, line.into()));

        assert_eq!(status.apply(lost(), after(100)), [Say::Line(Mood::Bad, "offline: connection reset".into())]);
        // A server that restarts lets requests end on the old tunnel.
        let line = "offline 3s \u{b7} next attempt in 6s \u{b7} 2 in flight";
        assert_eq!(status.line(after(103), 80, &[]), (Mood::Bad, line.into()));
        assert!(status.apply(lost(), after(109)).is_empty(), "one outage is one sentence");

        let said = status.apply(connected(), after(112));
        assert_eq!(said, [Say::Line(Mood::Good, "online again after 12s as bob/studio".into())]);

        status.apply(Event::Draining { in_flight: 1 }, after(120));
        assert!(status.line(after(120), 80, &[]).1.starts_with("stopping, Ctrl-C ends at once \u{b7} 1 in flight"));
    }

    #[test]
    fn an_upstream_that_is_down_is_always_visible() {
        let (mut status, now) = (status(), Instant::now());
        let [Say::Line(Mood::Bad, line)] = &status.apply(Event::UpstreamDown { error: "refused".into() }, now)[..]
        else {
            panic!("nothing said");
        };
        assert!(
            line.contains("http://127.0.0.1:11434 does not answer (refused): start it with `ollama serve`"),
            "{line}"
        );
        status.apply(connected(), now);
        assert_eq!(status.line(now, 80, &[]).0, Mood::Bad);
        assert!(status.line(now, 80, &[]).1.contains("127.0.0.1:11434 down"));
        assert_eq!(status.apply(Event::UpstreamUp, now).len(), 1);
        assert_eq!(status.apply(Event::UpstreamUp, now).len(), 0);
        assert_eq!(status.line(now, 80, &[]).0, Mood::Good);
    }

    #[test]
    fn a_narrow_line_keeps_what_matters() {
        let (mut status, now) = (status(), Instant::now());
        status.apply(connected(), now);
        status.apply(Event::RoundTrip(Duration::from_millis(23)), now);
        let mut request = Request {
            id: "1".into(),
            method: "POST".into(),
            path: "/api/chat".into(),
            status: Some(200),
            bytes: 1,
            first_byte_ms: Some(1),
            duration_ms: 12_345,
            outcome: "running".into(),
        };
        status.apply(Event::Requests { in_flight: 1, total: 8 }, now);
        let line = |status: &Status, width, request: &Request| status.line(now, width, std::slice::from_ref(request)).1;
        let all = "online 0s \u{b7} POST /api/chat 12s \u{b7} 7 served \u{b7} rtt 23 ms";
        assert_eq!(line(&status, 78, &request), all);
        assert_eq!(line(&status, 38, &request), "online 0s \u{b7} POST /api/chat 12s");
        assert_eq!(line(&status, 5, &request), "onlin");
        request.outcome = "complete".into();
        status.apply(Event::Requests { in_flight: 0, total: 8 }, now);
        let all = "online 0s \u{b7} 8 served \u{b7} last POST /api/chat 200 in 12.3s \u{b7} rtt 23 ms";
        assert_eq!(line(&status, 78, &request), all);
        assert_eq!(line(&status, 38, &request), "online 0s \u{b7} 8 served \u{b7} rtt 23 ms");
        status.apply(Event::UpstreamDown { error: "refused".into() }, now);
        assert_eq!(line(&status, 38, &request), "online 0s \u{b7} 127.0.0.1:11434 down");
    }

    #[test]
    fn a_refusal_is_said_each_time() {
        let (mut status, now) = (status(), Instant::now());
        let refused = || Event::Refused {
            code: "token_expired".into(),
            message: "the token expired\x1b[2J".into(),
            retry_in: Duration::from_secs(30),
        };
        for _ in 0..2 {
            let [Say::Line(Mood::Bad, line)] = &status.apply(refused(), now)[..] else { panic!("nothing said") };
            assert!(line.contains("refused (token_expired): the token expired\\u{1b}"), "{line}");
        }
    }
}
