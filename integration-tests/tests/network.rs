//! A network that loses packets, or all of them, or is too slow: the real programs in network namespaces of their own.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::Write,
    time::{Duration, Instant},
};

use http::Method;
use integration_tests::{
    binaries::Program,
    body::{self, Length},
    caller::{Caller, Protocol, Reply},
    namespace::{Net, inside},
    ollama::{Exchange, Ollama},
    pattern::Check,
    relay::Relay,
};
use tokio::time::sleep;

/// Silence after which a peer is given up (15 s), and a second to look.
const NOTICED_WITHIN: Duration = Duration::from_secs(16);

/// How long a line stays bad.
const BAD_FOR: Duration = Duration::from_secs(20);

/// The pace of a model.
const PACE: Duration = Duration::from_millis(100);

async fn stream(caller: &Caller, ollama: &Ollama) -> (Reply, Exchange) {
    let mut played = ollama.play("/api/chat");
    tokio::join!(caller.post("/api/chat", body::empty()), played.start_ok("application/x-ndjson"))
}

/// Sends one record after the other; the longest that one was on its way.
async fn tokens((reply, exchange): &mut (Reply, Exchange), time: Duration) -> Duration {
    let (started, mut longest, mut number) = (Instant::now(), Duration::ZERO, 0);
    while started.elapsed() < time {
        let record = format!("{{\"n\":{number}}}\n");
        number += 1;
        let sent = Instant::now();
        exchange.send(record.clone()).await.unwrap();
        reply.expect(record).await;
        longest = longest.max(sent.elapsed());
        sleep(PACE).await;
    }
    longest
}

/// Reads a body of the pattern: no byte missing, none twice, none in another place.
async fn bulk(caller: &Caller, length: u64) {
    let mut reply = caller.get(&format!("/bytes?n={length}")).await;
    let mut check = Check::default();
    while let Some(piece) = reply.next().await {
        check.push(&piece.unwrap());
    }
    assert_eq!((check.length(), check.damaged_at()), (length, None));
}

fn times_online(client: &Program) -> usize {
    client.errors().iter().filter(|line| line.contains(" online ")).count()
}

fn tell(what: &str, time: Duration) {
    let _nobody_reads = writeln!(std::io::stderr(), "{what}: {time:?}");
}

#[tokio::test]
#[ignore = "in network namespaces, and long"]
async fn f08_three_seconds_of_total_loss() {
    if !inside("f08_three_seconds_of_total_loss") {
        return;
    }
    let net = Net::start(&[]).await;
    let ollama = Ollama::start();
    let client = net.connect(&format!("https://{}", net.line()), ollama.addr()).await;
    let caller = net.caller();
    let mut open = stream(&caller, &ollama).await;
    tokens(&mut open, PACE).await;
    net.lose(100);
    let asked = tokio::spawn({
        let caller = caller.clone();
        async move { caller.get("/echo").await.status() }
    });
    sleep(Duration::from_secs(3)).await;
    assert!(!asked.is_finished());
    net.heal();
    assert_eq!(asked.await.unwrap(), 200);
    tell("a record after the loss", tokens(&mut open, PACE).await);
    assert_eq!(times_online(&client), 1);
}

#[tokio::test]
#[ignore = "in network namespaces, and long"]
async fn f01_a_line_that_is_cut_without_a_word() {
    if !inside("f01_a_line_that_is_cut_without_a_word") {
        return;
    }
    let mut net = Net::start(&["--stream-deadline", "2m", "--stall-timeout", "2m"]).await;
    let ollama = Ollama::start();
    let mut client = net.connect(&format!("https://{}", net.line()), ollama.addr()).await;
    let caller = net.caller();
    let mut played = ollama.play("/api/show");
    let waiting = tokio::spawn({
        let caller = caller.clone();
        async move { caller.get("/api/show").await.error().1.to_owned() }
    });
    let mut exchange = played.next().await;
    let (mut reply, _open) = stream(&caller, &ollama).await;
    net.lose(100);
    let started = Instant::now();
    let there = async {
        assert_eq!(waiting.await.unwrap(), "tunnel_lost");
        assert!(reply.rest().await.1.is_err(), "a cut stream ended cleanly");
        net.server.logs(&["desktop disconnected"]).await;
        started.elapsed()
    };
    let here = async {
        client.logs(&["offline"]).await;
        exchange.caller_leaves().await;
        started.elapsed()
    };
    let (there, here) = tokio::join!(there, here);
    tell("noticed by the server", there);
    tell("noticed by the desktop", here);
    assert!(there < NOTICED_WITHIN && here < NOTICED_WITHIN);
    net.heal();
    client.logs(&["online"]).await;
}

#[tokio::test]
#[ignore = "in network namespaces, and long"]
async fn f09_a_long_way_that_loses_one_packet_in_a_hundred() {
    if !inside("f09_a_long_way_that_loses_one_packet_in_a_hundred") {
        return;
    }
    let net = Net::start(&["--stream-deadline", "2m"]).await;
    let ollama = Ollama::start();
    let relay = Relay::to(net.line());
    let client = net.connect(&format!("https://localhost:{}", relay.addr().port()), ollama.addr()).await;
    relay.delay(Duration::from_millis(100));
    net.lose(1);
    let caller = net.caller();
    let mut open = stream(&caller, &ollama).await;
    let until = Instant::now() + BAD_FOR;
    let bodies = async {
        let mut read = 0_u64;
        while Instant::now() < until {
            bulk(&caller, 1 << 20).await;
            let upload = caller.post("/sink", body::generated(1 << 20, Length::Unknown)).await.json().await;
            assert_eq!((&upload["length"], &upload["damaged_at"]), (&(1 << 20).into(), &serde_json::Value::Null));
            read += 2;
        }
        read
    };
    let (longest, mebibytes) = tokio::join!(tokens(&mut open, BAD_FOR), bodies);
    tell(&format!("{mebibytes} MiB beside; the slowest record"), longest);
    assert_eq!(times_online(&client), 1);
    assert!(relay.open() == 1 && mebibytes > 2);
}

#[tokio::test]
#[ignore = "in network namespaces, and long"]
async fn f10_a_line_of_one_megabit_that_is_full() {
    if !inside("f10_a_line_of_one_megabit_that_is_full") {
        return;
    }
    let net = Net::start(&["--stream-deadline", "2m"]).await;
    let ollama = Ollama::start();
    let client = net.connect(&format!("https://{}", net.line()), ollama.addr()).await;
    net.limit("1mbit");
    let caller = net.caller();
    let mut open = stream(&caller, &ollama).await;
    let mut down = caller.get("/bytes?n=1000000000").await;
    let mut up = caller.connect(Protocol::Http1).await;
    let request = caller.request(Method::POST, "/sink", body::generated(1_000_000_000, Length::Unknown));
    let full = async {
        let mut check = Check::default();
        let reading = async {
            while let Some(piece) = down.next().await {
                check.push(&piece.unwrap());
            }
        };
        tokio::select! {
            () = reading => unreachable!("a gigabyte in {BAD_FOR:?}"),
            _ = up.try_send(request) => unreachable!("a gigabyte in {BAD_FOR:?}"),
            longest = tokens(&mut open, BAD_FOR) => (longest, check),
        }
    };
    let (longest, check) = full.await;
    tell(&format!("{} KiB down beside; the slowest record", check.length() / 1024), longest);
    assert_eq!(check.damaged_at(), None);
    // Of 125 KB/s: the line was full, and not of repetitions.
    assert!(check.length() > BAD_FOR.as_secs() * 40_000, "{} bytes", check.length());
    assert!(longest < Duration::from_secs(8), "a record took {longest:?}");
    assert_eq!(times_online(&client), 1);
    let status = caller.get("/api/tunnel/status").await.json().await;
    assert!(status["tunnels"][0]["rtt_ms"].is_f64(), "{status}");
}
