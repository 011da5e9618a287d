//! How many write system calls the client makes per token, counted by strace.

use std::{fs, io, time::Duration};

use crate::{
    load,
    setup::{self, Stage},
};

/// What counts as a write.
const WRITES: &str = "trace=write,writev,sendto,sendmsg,sendmmsg";

/// The two runs that are compared: what both have in common (heads, the first token) cancels out.
const SHORT: u64 = 25;
const LONG: u64 = 125;

/// Writes toward the server per token, with so many streams at once.
pub(crate) async fn per_token(stage: &Stage, streams: usize) -> io::Result<f64> {
    let trace = stage.path(&format!("writes-{streams}"));
    let trace = trace.to_str().ok_or_else(|| io::Error::other("a path of odd bytes"))?;
    // A seccomp filter stops the client at these calls only, so that strace hardly slows it.
    let strace = ["strace", "-f", "--seccomp-bpf", "-qq", "-yy", "-s", "0", "-e", WRITES, "-o", trace];
    let (_client, target) = stage.desktop(&format!("traced-{streams}"), &strace)?;
    setup::answering(&target).await?;
    let mut counted = [0; 3];
    for (run, tokens) in [(1, SHORT), (2, LONG)] {
        counted[0] = writes(trace, stage.port)?;
        load::tokens(&target, streams, tokens).await?;
        tokio::time::sleep(Duration::from_millis(300)).await; // strace writes its lines a little later
        counted[run] = writes(trace, stage.port)? - counted[0];
    }
    let tokens = u32::try_from((LONG - SHORT) * streams as u64).expect("few");
    Ok(f64::from(counted[2].saturating_sub(counted[1])) / f64::from(tokens))
}

/// The lines that show a write to the server.
fn writes(trace: &str, port: u16) -> io::Result<u32> {
    let to_the_server = format!("->127.0.0.1:{port}]>");
    let lines = fs::read_to_string(trace)?;
    Ok(u32::try_from(lines.lines().filter(|line| line.contains(&to_the_server)).count()).unwrap_or(u32::MAX))
}
