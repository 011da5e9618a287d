//! The fields of a log line as text without colours: `name=value`, what came from outside quoted or escaped (T35).
//!
//! `tracing-subscriber`'s own writes each name and value through its machinery of styles, colours or not. An access line
//! has twenty fields.

use std::fmt::{self, Write};

use tracing::field::{Field, Visit};
use tracing_subscriber::{
    field::RecordFields,
    fmt::{FormatFields, format::Writer},
};

/// Writes fields without colours.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plain;

/// Room for an access line.
const USUAL: usize = 512;

impl<'w> FormatFields<'w> for Plain {
    fn format_fields<R: RecordFields>(&self, mut out: Writer<'w>, fields: R) -> fmt::Result {
        let mut line = Line(String::with_capacity(USUAL));
        fields.record(&mut line);
        out.write_str(&line.0)
    }
}

/// All fields, so that they reach `tracing-subscriber` in one piece.
struct Line(String);

impl Line {
    /// A space behind the field before, and the name; the message has none.
    fn name(&mut self, field: &Field) {
        if !self.0.is_empty() {
            self.0.push(' ');
        }
        if !is_message(field) {
            self.0.push_str(field.name().strip_prefix("r#").unwrap_or(field.name()));
            self.0.push('=');
        }
    }
}

impl Visit for Line {
    fn record_u64(&mut self, field: &Field, value: u64) {
        self.name(field);
        self.0.push_str(&value.to_string()); // which is faster than to write it
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let is_plain = |b: u8| is_printable(b) && b != b'"' && b != b'\\';
        self.name(field);
        if is_message(field) {
            escape(value, &mut self.0);
        } else if all(value, is_plain) {
            self.0.push('"');
            self.0.push_str(value);
            self.0.push('"');
        } else {
            _ = write!(self.0, "{value:?}"); // a String takes everything
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.name(field);
        // A value that cannot be written is cut.
        _ = write!(Escaped(&mut self.0), "{value:?}");
    }
}

fn is_message(field: &Field) -> bool {
    field.name() == "message"
}

fn is_printable(b: u8) -> bool {
    (b' '..=b'~').contains(&b)
}

/// Whether all bytes are like that; several at a time, as `Iterator::all` does not look.
fn all(text: &str, is_good: impl Fn(u8) -> bool) -> bool {
    text.bytes().fold(true, |all, b| all & is_good(b))
}

/// Writes text on one line and without commands for a terminal.
struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        escape(text, self.0);
        Ok(())
    }
}

fn escape(text: &str, line: &mut String) {
    if all(text, is_printable) {
        return line.push_str(text);
    }
    for c in text.chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use tracing::subscriber::with_default;

    use super::*;

    /// What is logged within `log`, without the time.
    fn logged(log: impl FnOnce()) -> String {
        #[derive(Clone, Default)]
        struct Sink(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Sink {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let sink = Sink::default();
        let writer = sink.clone();
        let lines = tracing_subscriber::fmt().with_ansi(false).without_time().with_target(false).fmt_fields(Plain);
        with_default(lines.with_writer(move || writer.clone()).finish(), log);
        let bytes = sink.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn fields_follow_the_message_and_absent_ones_are_left_out() {
        let none: Option<u64> = None;
        let line = logged(
            || tracing::info!(user = "bob", bytes = 7u64, none, id = %"x1", done = true, r#type = 1.5, "request"),
        );
        assert_eq!(line, " INFO request user=\"bob\" bytes=7 id=x1 done=true type=1.5\n");
    }

    #[test]
    fn spans_stand_in_front() {
        let line = logged(|| tracing::info_span!("tunnel", user = "bob").in_scope(|| tracing::info!("connected")));
        assert_eq!(line, " INFO tunnel{user=\"bob\"}: connected\n");
    }

    #[test]
    fn t35_nothing_from_outside_breaks_a_line_or_commands_a_terminal() {
        let evil = "a\"\n\u{1b}[2J\u{9b}2J\u{7}";
        let line = logged(|| tracing::info!(quoted = evil, shown = %evil, debug = ?evil, "evil {evil}"));
        assert_eq!(line.matches('\n').count(), 1, "{line:?}");
        assert!(!line.trim_end().contains(char::is_control), "{line:?}");
        assert!(line.contains(r#"quoted="a\"\n\u{1b}[2J"#), "{line}");
    }
}
