//! The workloads. Each drives one target for a while and says what its callers saw.

use std::{
    io,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    caller::{Caller, Target},
    clock,
    upstream::THINKING,
};

/// What the callers of one run saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Requests answered, tokens read or bytes moved.
    pub(crate) count: u64,
    /// From the first to the last of them.
    pub(crate) took: Duration,
    /// One per request or token; not in order.
    pub(crate) delays: Vec<Duration>,
}

impl Seen {
    /// The delay that this part of all delays does not exceed: 0.5 is the median.
    pub(crate) fn quantile(&mut self, part: f64) -> Duration {
        assert!(!self.delays.is_empty(), "a run without a single answer fails before");
        self.delays.sort_unstable();
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index"
        )]
        let index = ((self.delays.len() - 1) as f64 * part).round() as usize;
        self.delays[index]
    }

    fn add(&mut self, other: Self) {
        self.count += other.count;
        self.delays.extend(other.delays);
    }
}

/// Small requests, each caller one after the other, for so long.
pub(crate) async fn small(target: &Target, callers: usize, time: Duration) -> io::Result<Seen> {
    together(target, callers, move |mut caller| async move {
        let (mut seen, start) = (Seen::default(), Instant::now());
        while start.elapsed() < time {
            let sent = Instant::now();
            caller.get("/small").await?;
            caller.messages.drain().await?;
            seen.delays.push(sent.elapsed());
            seen.count += 1;
        }
        Ok(seen)
    })
    .await
}

/// Token streams, so many at once, each of `tokens`. The delay of a token but the first: from its writing by the upstream
/// until the caller has it.
pub(crate) async fn tokens(target: &Target, streams: usize, tokens: u64) -> io::Result<Seen> {
    together(target, streams, move |mut caller| async move {
        let mut seen = Seen::default();
        caller.get(&format!("/stream/{tokens}")).await?;
        let mut text = BytesMut::new();
        while let Some(piece) = caller.messages.piece().await? {
            text.extend_from_slice(&piece);
            while let Some(end) = text.windows(2).position(|pair| pair == b"\n\n") {
                let record = text.split_to(end + 2);
                let delay = clock::since(written_at(&record)?);
                // While the first ones come, the requests of other callers still arrive.
                if seen.count > 0 {
                    seen.delays.push(delay);
                }
                seen.count += 1;
            }
        }
        if seen.count == tokens { Ok(seen) } else { Err(io::Error::other("tokens are missing")) }
    })
    .await
}

/// Callers who each ask once and wait long for the first byte. The delay is what came on top of the upstream's own.
pub(crate) async fn slow(target: &Target, callers: usize) -> io::Result<Seen> {
    together(target, callers, move |mut caller| async move {
        let sent = Instant::now();
        caller.get("/slow").await?;
        caller.messages.drain().await?;
        Ok(Seen { count: 1, delays: vec![sent.elapsed().saturating_sub(THINKING)], ..Seen::default() })
    })
    .await
}

/// Bodies toward the caller, so many at once, each of so many MiB. Counts bytes.
pub(crate) async fn download(target: &Target, bodies: usize, mib: u64) -> io::Result<Seen> {
    together(target, bodies, move |mut caller| async move {
        caller.get(&format!("/bulk/{mib}")).await?;
        Ok(Seen { count: caller.messages.drain().await?, ..Seen::default() })
    })
    .await
}

/// Bodies toward the upstream, so many at once, each of so many MiB. Counts bytes.
pub(crate) async fn upload(target: &Target, bodies: usize, mib: u64) -> io::Result<Seen> {
    together(target, bodies, move |mut caller| async move {
        caller.post("/sink", mib).await?;
        Ok(Seen { count: mib * 1024 * 1024, ..Seen::default() })
    })
    .await
}

/// Callers who leave in the middle of a response, one after the other. The delay: until the upstream's socket is closed.
pub(crate) async fn cancel(
    target: &Target,
    times: usize,
    closed: &mut mpsc::UnboundedReceiver<Instant>,
) -> io::Result<Seen> {
    let mut seen = Seen::default();
    for _ in 0..times {
        let mut caller = target.connect().await?;
        caller.get("/hang").await?;
        caller.messages.piece().await?;
        let left = Instant::now();
        drop(caller);
        let limit = tokio::time::timeout(Duration::from_secs(5), closed.recv()).await;
        let at = limit.map_err(|_| io::Error::other("the upstream's socket stayed open for 5 s"))?;
        seen.delays.push(at.expect("the upstream runs").duration_since(left));
        seen.count += 1;
    }
    Ok(seen)
}

/// Connects so many callers, then lets all of them work at once.
async fn together<W, F>(target: &Target, callers: usize, work: W) -> io::Result<Seen>
where
    W: Fn(Caller) -> F,
    F: Future<Output = io::Result<Seen>> + Send + 'static,
{
    let mut connected = Vec::with_capacity(callers);
    for _ in 0..callers {
        connected.push(target.connect().await?);
    }
    let start = Instant::now();
    let mut running: JoinSet<_> = connected.into_iter().map(work).collect();
    let mut seen = Seen::default();
    while let Some(caller) = running.join_next().await {
        seen.add(caller.map_err(io::Error::other)??);
    }
    seen.took = start.elapsed();
    Ok(seen)
}

fn written_at(record: &[u8]) -> io::Result<u64> {
    let number = record.get(6..26).and_then(|digits| std::str::from_utf8(digits).ok());
    number.and_then(|digits| digits.parse().ok()).ok_or_else(|| io::Error::other("not one of our records"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Upstream;

    #[tokio::test]
    async fn each_workload_works_without_anything_in_between() {
        let mut upstream = Upstream::start().unwrap();
        let target = Target::plain(upstream.address);
        assert!(small(&target, 2, Duration::from_millis(20)).await.unwrap().count > 2);
        assert_eq!(tokens(&target, 3, 4).await.unwrap().count, 12);
        assert_eq!(slow(&target, 2).await.unwrap().count, 2);
        assert_eq!(download(&target, 2, 1).await.unwrap().count, 2 * 1024 * 1024);
        assert_eq!(upload(&target, 2, 1).await.unwrap().count, 2 * 1024 * 1024);
        assert_eq!(cancel(&target, 2, &mut upstream.closed).await.unwrap().count, 2);
    }

    #[test]
    fn a_quantile_is_one_of_the_delays() {
        let delays = [5, 1, 4, 2, 3].map(Duration::from_millis).to_vec();
        let mut seen = Seen { delays, ..Seen::default() };
        assert_eq!(seen.quantile(0.5), Duration::from_millis(3));
        assert_eq!(seen.quantile(0.99), Duration::from_millis(5));
    }
}
