//! One line at the bottom of a terminal that is written over. Sentences and log lines scroll by above it.

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use tokio::sync::Notify;
use tracing_subscriber::fmt::MakeWriter;
use tunnel::{board::Board, event::Event};
use tunnel_cli::settings;

use super::{
    Recipes,
    status::{Mood, Say, Status},
};

/// Back to the start of the line and clear it.
const ERASE: &str = "\r\x1b[K";
/// No line wrap: a line wider than the terminal is cut there, and can still be written over.
const CUT: &str = "\x1b[?7l";
const WRAP: &str = "\x1b[?7h";

/// From one drawing of the line to the next, however much happens.
const FRAME: Duration = Duration::from_millis(100);

/// And if nothing happens: the line shows ages in seconds.
const IDLE: Duration = Duration::from_millis(900);

/// The terminal. Clones share it.
#[derive(Clone)]
pub(crate) struct Terminal(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

struct State {
    status: Status,
    board: Option<Board>,
    out: Box<dyn Write + Send>,
    colours: Colours,
    open: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Colours {
    On,
    Off,
}

impl Terminal {
    /// Takes over stderr.
    pub(crate) fn new(recipes: Recipes) -> Self {
        let colours = if settings::colours_allowed() { Colours::On } else { Colours::Off };
        Self::on(Box::new(io::stderr()), recipes, colours)
    }

    fn on(out: Box<dyn Write + Send>, recipes: Recipes, colours: Colours) -> Self {
        let state = Mutex::new(State { status: Status::new(recipes), board: None, out, colours, open: true });
        Self(Arc::new(Shared { state, changed: Notify::new() }))
    }

    /// Shows the requests of this client as well.
    pub(crate) fn watch(&self, board: Board) {
        self.lock().board = Some(board);
    }

    /// Takes note of an event.
    pub(crate) fn show(&self, event: Event) {
        let mut state = self.lock();
        let said = state.status.apply(event, Instant::now());
        if !said.is_empty() {
            let text: String = said.iter().map(|say| state.said(say)).collect();
            state.above(text.as_bytes());
        }
        drop(state);
        self.0.changed.notify_one();
    }

    /// Keeps the line fresh, for ever.
    pub(crate) async fn refresh(&self) -> ! {
        loop {
            self.lock().draw();
            tokio::time::sleep(FRAME).await;
            let _ = tokio::time::timeout(IDLE, self.0.changed.notified()).await;
        }
    }

    /// Leaves the terminal as it was found, without the line.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        state.open = false;
        state.write(ERASE.as_bytes());
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn said(&self, say: &Say) -> String {
        match say {
            Say::Block(text) => text.clone(),
            Say::Line(mood, text) => format!("{} {} {text}\n", self.painted("2", &clock()), self.dot(*mood)),
        }
    }

    /// Writes whole lines where the live line is, and the live line below them.
    fn above(&mut self, lines: &[u8]) {
        let line = self.line();
        self.write(&[ERASE.as_bytes(), lines, line.as_bytes()].concat());
    }

    fn draw(&mut self) {
        let line = self.line();
        self.write(line.as_bytes());
    }

    fn line(&self) -> String {
        if !self.open {
            return String::new();
        }
        let requests = self.board.as_ref().map(Board::requests).unwrap_or_default();
        // Two columns are the dot's.
        let width = settings::terminal_width().saturating_sub(2);
        let (mood, text) = self.status.line(Instant::now(), width, &requests);
        format!("{CUT}{ERASE}{} {text}{WRAP}", self.dot(mood))
    }

    fn dot(&self, mood: Mood) -> String {
        match mood {
            Mood::Good => self.painted("32", "\u{25cf}"),
            Mood::Waiting => self.painted("33", "\u{25cb}"),
            Mood::Bad => self.painted("31", "\u{25cf}"),
        }
    }

    fn painted(&self, colour: &str, text: &str) -> String {
        if self.colours == Colours::On { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// In one write, so that nothing comes between. A terminal that is gone is no reason to stop.
    fn write(&mut self, bytes: &[u8]) {
        let _ = self.out.write_all(bytes).and_then(|()| self.out.flush());
    }
}

/// The time of day, UTC, as in the log: `12:03:41Z`.
fn clock() -> String {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    now.split_once('T').map_or_else(String::new, |(_, time)| time.to_owned())
}

/// Log lines go above the live line.
impl<'w> MakeWriter<'w> for Terminal {
    type Writer = Above<'w>;

    fn make_writer(&'w self) -> Above<'w> {
        Above(self)
    }
}

/// Writes whole log lines above the live line.
pub(crate) struct Above<'w>(&'w Terminal);

impl Write for Above<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().above(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tunnel::config;

    use super::*;

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Paper {
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut *self.0.lock().unwrap())).unwrap()
        }
    }

    fn terminal() -> (Terminal, Paper) {
        let paper = Paper::default();
        let recipes = Recipes::new(config::upstream_url("11434").unwrap(), None, None);
        (Terminal::on(Box::new(paper.clone()), recipes, Colours::Off), paper)
    }

    #[test]
    fn lines_go_above_the_live_line() {
        let (terminal, paper) = terminal();
        terminal.make_writer().write_all(b"WARN hello\n").unwrap();
        assert_eq!(paper.take(), "\r\x1b[KWARN hello\n\x1b[?7l\r\x1b[K\u{25cb} connecting to \x1b[?7h");
        terminal.close();
        assert_eq!(paper.take(), "\r\x1b[K");
        terminal.make_writer().write_all(b"bye\n").unwrap();
        assert_eq!(paper.take(), "\r\x1b[Kbye\n");
    }

    #[test]
    fn what_changes_often_is_not_drawn_at_once() {
        let (terminal, paper) = terminal();
        terminal.show(Event::Requests { in_flight: 1, total: 1 });
        assert_eq!(paper.take(), "");
        terminal.show(Event::UpstreamDown { error: "refused".into() });
        assert!(paper.take().contains("Z \u{25cf} http://127.0.0.1:11434 does not answer"));
    }

    #[tokio::test(start_paused = true)]
    async fn the_line_is_drawn_once_a_second_and_at_most_ten_times() {
        let (terminal, paper) = terminal();
        let drawn = |paper: &Paper| paper.take().matches(CUT).count();
        let _ = tokio::time::timeout(Duration::from_millis(10_050), terminal.refresh()).await;
        assert_eq!(drawn(&paper), 11);
        let busy = async {
            loop {
                terminal.show(Event::RoundTrip(FRAME));
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            () = busy => {}
            () = terminal.refresh() => {}
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
        assert!((9..=11).contains(&drawn(&paper)));
    }
}
