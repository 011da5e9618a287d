//! The real server without file descriptors (T51).

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{net::SocketAddr, process::Command, time::Duration};

use http::Method;
use integration_tests::{
    binaries::{Program, path},
    body,
    caller::Protocol,
    eventually::eventually,
    jwt::{claims, hs256},
    ollama::Ollama,
    workshop::Workshop,
};
use tokio::{net::TcpStream, time::sleep};

/// Few, and enough for a server that does nothing but begin.
const FILES: usize = 64;

/// How long the server stays without.
const TIME: Duration = Duration::from_secs(3);

/// `tunneld` that may open this many files. It would raise a soft limit itself, so this is the hard one.
async fn serve_with_few_files(shop: &Workshop) -> (Program, SocketAddr) {
    let limited = format!("ulimit -n {FILES} && exec \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &limited, "sh"]).arg(path("tunneld")).arg("serve").args(shop.server_args());
    command.env("NO_COLOR", "1");
    let mut server = Program::start(&mut command);
    let addr = server.listening().await;
    (server, addr)
}

/// Processor time of a process so far: user and system, fields 14 and 15 of proc(5), in ticks of 10 ms.
fn processor_time(of: &Program) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", of.id())).unwrap();
    let after_name = stat.rsplit_once(')').unwrap().1;
    let ticks = after_name.split_whitespace().skip(11).take(2).map(|field| field.parse::<u64>().unwrap());
    Duration::from_millis(ticks.sum::<u64>() * 10)
}

fn open_files(of: &Program) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", of.id())).unwrap().count()
}

#[tokio::test]
async fn t51_without_file_descriptors_accepting_pauses_and_comes_back() {
    let shop = Workshop::new().await;
    let upstream = Ollama::start();
    let mut played = upstream.play("/api/chat");
    let (mut server, addr) = serve_with_few_files(&shop).await;
    let mut client = shop.connect(addr, upstream.addr(), &[]).await;
    let caller = shop.caller(addr).with_token(&hs256(&claims("alice")));
    let mut open = caller.connect(Protocol::Http2).await;
    let request = caller.request(Method::POST, "/api/chat", body::empty());
    let (mut reply, mut exchange) = tokio::join!(open.send(request), played.start_ok("application/x-ndjson"));
    let mut idle = caller.connect(Protocol::Http2).await;

    // More than it has room for: the kernel takes the rest, and they wait.
    let mut crowd = Vec::new();
    for _ in 0..FILES * 2 {
        crowd.push(TcpStream::connect(addr).await.unwrap());
    }
    server.logs(&["cannot accept connections"]).await;
    assert!(open_files(&server) >= FILES);

    // What is there goes on, and waiting costs nothing.
    let before = processor_time(&server);
    let mut records = 0;
    let started = tokio::time::Instant::now();
    while started.elapsed() < TIME {
        exchange.send("{}\n").await.unwrap();
        reply.expect("{}\n").await;
        records += 1;
        let request = caller.request(Method::GET, "/api/version", body::empty());
        assert_eq!(idle.send(request).await.status(), 200);
        sleep(Duration::from_millis(100)).await; // the pace of a model
    }
    let spent = processor_time(&server).saturating_sub(before);
    assert!(spent < TIME / 4, "{spent:?} of processor time for {records} records and as many requests");
    let complaints = server.errors().iter().filter(|line| line.contains("cannot accept connections")).count();
    assert!(complaints < 5, "{complaints} lines of log for one shortage");

    // Room again, and whoever has waited is served.
    let waiting = tokio::spawn({
        let caller = caller.clone();
        async move { caller.get("/api/version").await.status() }
    });
    drop(crowd);
    assert_eq!(waiting.await.unwrap(), 200);
    server.logs(&["accepting connections again"]).await;
    exchange.end();
    assert!(reply.rest().await.1.is_ok());
    let connected = client.errors().iter().filter(|line| line.contains("online")).count();
    assert_eq!(connected, 1, "the tunnel did not notice");
    drop((open, idle));
    eventually("the files are closed", async || (open_files(&server) < FILES / 2).then_some(())).await;
    client.signal(integration_tests::binaries::Signal::Terminate);
    client.wait().await;
}
