//! `tracing` to stderr: text for people, JSON for machines.

use std::{
    fmt,
    io::{self, IsTerminal},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};
use tracing::Level;
use tracing_subscriber::{
    EnvFilter,
    fmt::{MakeWriter, format::Writer, time::FormatTime},
};

pub use crate::lines::LogGuard;
use crate::{
    journal::{self, Prioritized},
    lines::Lines,
    plain::Plain,
    settings,
};

/// The shape of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Which lines are logged, and how.
#[derive(Debug)]
pub struct Log {
    /// `info`, or per module: `info,tunneld=debug`.
    pub filter: EnvFilter,
    /// Text or JSON.
    pub format: Format,
}

impl Log {
    /// Reads a filter as people write it. The error is one sentence.
    pub fn filter(text: &str) -> Result<EnvFilter, String> {
        // A bare word that is no level would be taken for a module name and silence everything.
        let known = ["off", "error", "warn", "info", "debug", "trace"];
        let bare = text
            .split(',')
            .map(str::trim)
            .find(|part| !part.contains(['=', ':', '[', '_']) && !known.contains(&part.to_ascii_lowercase().as_str()));
        if let Some(word) = bare {
            return Err(format!("{word:?} is no level; write error, warn, info, debug or trace"));
        }
        EnvFilter::builder().parse(text).map_err(|error| error.to_string())
    }

    /// Starts logging to stderr; colours only where someone can see them. At most once in a process.
    ///
    /// # Errors
    /// No thread could be started.
    pub fn start(self) -> io::Result<LogGuard> {
        let (reader, mark) = if journal::reads_stderr() {
            (Reader::Journal, journal::priority(Level::WARN))
        } else {
            (Reader::other(settings::colours_allowed() && io::stderr().is_terminal()), "")
        };
        let (lines, guard) = Lines::start(io::stderr(), mark)?;
        self.start_for(reader, lines);
        Ok(guard)
    }

    /// Starts logging to `writer`. At most once in a process: a second call changes nothing.
    pub fn start_on<W>(self, writer: W, colours: bool)
    where
        W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
    {
        self.start_for(Reader::other(colours), writer);
    }

    fn start_for<W>(self, reader: Reader, writer: W)
    where
        W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
    {
        let lines = tracing_subscriber::fmt()
            .with_env_filter(self.filter)
            .with_timer(Clock)
            .with_writer(writer)
            .with_ansi(reader == Reader::Colours)
            // A full disk must not end the program: reporting it on stderr would panic when stderr is that disk.
            .log_internal_errors(false);
        let _already_started = match (self.format, reader) {
            (Format::Text, Reader::Colours) => lines.try_init(),
            (Format::Text, Reader::Plain) => lines.fmt_fields(Plain).try_init(),
            (Format::Text, Reader::Journal) => {
                lines.fmt_fields(Plain).without_time().map_event_format(Prioritized).try_init()
            }
            (Format::Json, Reader::Journal) => {
                lines.json().flatten_event(true).map_event_format(Prioritized).try_init()
            }
            (Format::Json, _) => lines.json().flatten_event(true).try_init(),
        };
    }
}

/// For whom lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reader {
    /// A person at a terminal with colours.
    Colours,
    /// Everyone else.
    Plain,
    /// systemd's journal.
    Journal,
}

impl Reader {
    /// Who it is if not the journal.
    fn other(colours: bool) -> Self {
        if colours { Self::Colours } else { Self::Plain }
    }
}

/// The time of a line (RFC 3339, UTC, microseconds), as `tracing-subscriber` writes it but at a tenth of the cost.
struct Clock;

impl FormatTime for Clock {
    fn format_time(&self, out: &mut Writer<'_>) -> fmt::Result {
        write!(out, "{}", humantime::format_rfc3339_micros(SystemTime::now()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        for good in ["info", "WARN", "off", "info,tunneld=debug", "tunneld::edge=trace", "tunnel_frame"] {
            assert!(Log::filter(good).is_ok(), "{good}");
        }
        for bad in ["verbose", "", "info,loud", "tunneld=loud"] {
            assert!(Log::filter(bad).is_err(), "{bad}");
        }
        assert_eq!(Log::filter("inof").unwrap_err(), "\"inof\" is no level; write error, warn, info, debug or trace");
    }
}
