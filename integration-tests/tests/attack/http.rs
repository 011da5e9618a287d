//! HTTP/1 on a raw socket: what the tables in `http_framing`, `http_targets` and `http_heads` send, and its judge.

use integration_tests::{
    attack::{
        self, DECIDED,
        recorder::Seen,
        stage::{Stage, Way},
        wire,
    },
    caller::Protocol,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::{http_framing, http_heads, http_targets};

/// One attack: its name, what is sent, and what must come of it.
pub(crate) type Case = (&'static str, &'static str, Expect);

/// What must come of a case. In every case the connection ends.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expect {
    /// This status, and nothing at the upstream. A proxy in front may refuse it in other words.
    Refused(u16),
    /// The same; a proxy in front may instead mend it into this one request.
    Mendable(u16, &'static str),
    /// This request, and 400 to what comes behind it. A proxy in front may mend that into a request.
    RefusedBehind(&'static str),
    /// Either a refusal and nothing at the upstream, or this one request.
    RefusedOr(&'static str),
    /// No answer that looks like a success, and no complete request at the upstream. A proxy in front may mend it into
    /// this one.
    Cut(&'static str),
    /// These requests, in this order, each answered with 200.
    Passes(&'static [&'static str]),
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t20_t21_no_framing_makes_two_requests_of_one() {
    run("T20 T21 framing", Way::Direct, http_framing::CASES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t22_t24_t25_a_target_has_one_reading() {
    run("T22 T24 T25 targets", Way::Direct, http_targets::CASES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn t19_t23_t26_t28_t29_t31_a_head_is_judged_and_stripped() {
    run("T19 T23 T26 T28 T29 T31 heads", Way::Direct, http_heads::CASES).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs nginx"]
async fn t20_t21_t22_t24_t25_t29_behind_nginx() {
    let cases = [http_framing::CASES, http_targets::CASES, http_heads::CASES].concat();
    run("HTTP/1", Way::Nginx, &cases).await;
}

async fn run(family: &str, way: Way, cases: &[Case]) {
    let mut stage = Stage::start(way, &[]).await;
    let family = format!("{family}, {way:?}");
    attack::run(&family, cases, async |number, case| judge(&stage, number, case).await).await;
    let passed = (0..cases.len()).map(|number| stage.recorder.seen(&wire::marker(number)).len()).sum();
    stage.is_unharmed(passed).await;
}

async fn judge(stage: &Stage, number: usize, (name, text, expect): &Case) -> Result<(), String> {
    let marker = wire::marker(number);
    let bytes = wire::bytes(text, &stage.terms(marker.clone()));
    let answer = exchange(stage, &bytes).await.ok_or_else(|| format!("{name}: the connection does not end"))?;
    let statuses = statuses(&answer);
    let mut seen = stage.recorder.seen(&marker);
    let each_is_answered = statuses.iter().filter(|status| **status == 200).count() == complete(&seen);
    if stage.way == Way::Nginx {
        // What nginx has read as a second request is one. Two readings would show as a request without an answer.
        seen.retain(|seen| !seen.target.ends_with("/smuggled"));
    }
    let refused = seen.is_empty() && each_is_answered;
    let passed = |requests: &[&str]| {
        let wanted = requests.iter().map(|request| request.replace('§', &marker));
        each_is_answered && complete(&seen) == seen.len() && seen.iter().map(in_one_line).eq(wanted)
    };
    let good = match (expect, stage.way) {
        (Expect::Refused(status) | Expect::Mendable(status, _), Way::Direct) => refused && statuses == [*status],
        (Expect::Refused(_), Way::Nginx) => refused,
        (Expect::Mendable(_, request), Way::Nginx) | (Expect::RefusedOr(request), _) => refused || passed(&[request]),
        (Expect::Cut(_), Way::Direct) => statuses.iter().all(|status| *status >= 400) && complete(&seen) == 0,
        (Expect::Cut(request), Way::Nginx) => complete(&seen) == 0 && each_is_answered || passed(&[request]),
        (Expect::RefusedBehind(request), Way::Direct) => passed(&[request]) && statuses == [200, 400],
        (Expect::RefusedBehind(request), Way::Nginx) => passed(&[request]),
        (Expect::Passes(requests), _) => passed(requests),
    };
    if good {
        return Ok(());
    }
    let seen: Vec<_> = seen.iter().map(|seen| (in_one_line(seen), seen.complete)).collect();
    let start: String = answer.chars().take(300).collect();
    Err(format!("{name}: {expect:?} but {statuses:?}, upstream {seen:?}, {start:?}"))
}

/// Sends everything, says that there is no more where that can be said, and reads until the connection ends.
async fn exchange(stage: &Stage, bytes: &[u8]) -> Option<String> {
    let mut socket = stage.caller().socket(Protocol::Http1).await;
    let talk = async {
        let _refused_early = socket.write_all(bytes).await;
        let _refused_early = socket.flush().await;
        let mut answer = Vec::new();
        let _closed_without_a_word = socket.read_to_end(&mut answer).await;
        answer
    };
    let answer = timeout(DECIDED, talk).await.ok()?;
    Some(answer.into_iter().map(char::from).collect())
}

/// The statuses of all final answers.
fn statuses(answer: &str) -> Vec<u16> {
    let found = answer.split("HTTP/1.").skip(1).filter_map(|rest| rest.get(2..5)?.parse().ok());
    found.filter(|status| *status != 100).collect()
}

fn complete(seen: &[Seen]) -> usize {
    seen.iter().filter(|seen| seen.complete).count()
}

pub(crate) fn in_one_line(seen: &Seen) -> String {
    let body: String = seen.body.iter().copied().map(char::from).collect();
    format!("{} {} {body}", seen.method, seen.target).trim_end().to_owned()
}
