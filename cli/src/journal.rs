//! Log lines for systemd's journal, which keeps time and priority of each itself.
//!
//! A line begins with its priority, `<6>` (sd-daemon(3)), which the journal takes off again. Text lines have no time.

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use crate::settings;

/// Whether stderr goes to the journal.
pub(crate) fn reads_stderr() -> bool {
    settings::journal_stream().is_some_and(|stream| is_stderr(&stream))
}

/// Whether stderr has this device and inode (`JOURNAL_STREAM`, systemd.exec(5)). The variable alone says nothing: a
/// program inherits it, and may have another stderr.
#[cfg(unix)]
fn is_stderr(stream: &str) -> bool {
    use std::os::{fd::AsFd, unix::fs::MetadataExt};
    let stderr = std::io::stderr().as_fd().try_clone_to_owned().map(std::fs::File::from);
    let found = stderr.and_then(|stderr| stderr.metadata());
    found.is_ok_and(|found| stream == format!("{}:{}", found.dev(), found.ino()))
}

#[cfg(not(unix))]
fn is_stderr(_stream: &str) -> bool {
    false
}

/// What a line of this level begins with.
pub(crate) fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "<3>",
        Level::WARN => "<4>",
        Level::INFO => "<6>",
        _ => "<7>",
    }
}

/// Puts the priority before each line of another format.
pub(crate) struct Prioritized<F>(pub(crate) F);

impl<S, N, F> FormatEvent<S, N> for Prioritized<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'w> FormatFields<'w> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        out.write_str(priority(*event.metadata().level()))?;
        self.0.format_event(context, out, event)
    }
}
