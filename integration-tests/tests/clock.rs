//! A wall clock that jumps: the real programs under libfaketime, which lies about the time of day alone.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::PathBuf, process::Command};

use integration_tests::{
    binaries::{Program, command},
    body,
    eventually::eventually,
    ollama::Ollama,
    pki::HOST,
    workshop::Workshop,
};

/// Debian's package faketime has it, in a folder named after the architecture.
fn libfaketime() -> Option<PathBuf> {
    let folders = fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok).map(|folder| folder.path());
    folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|library| library.exists())
}

#[tokio::test]
#[ignore = "needs libfaketime"]
async fn f14_a_clock_that_jumps_changes_what_tokens_are_worth_and_nothing_else() {
    let Some(library) = libfaketime() else { return println!("skipped: libfaketime is missing (package faketime)") };
    let shop = Workshop::new().await;
    let clock = shop.file("clock", "+0");
    let jump = |by: &str| fs::write(&clock, by).unwrap();
    let faked = |mut program: Command| {
        program.env("LD_PRELOAD", &library).env("FAKETIME_TIMESTAMP_FILE", &clock);
        program.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        program
    };
    let upstream = Ollama::start();
    let mut server = Program::start(faked(command("tunneld")).arg("serve").args(shop.server_args()));
    let addr = server.listening().await;
    let at = format!("https://{HOST}:{}", addr.port());
    let token = shop.file("desktop.token", &shop.token(&["--user", "alice"]).await);
    let (ca, to) = (shop.arg("ca.pem"), upstream.addr().to_string());
    let args = ["connect", "--token-file", &token, "--server", &at, "--ca", &ca, "--to", &to];
    let mut desktop = Program::start(faked(command("tunnel")).args(args));
    desktop.logs(&["online"]).await;
    let short = shop.caller(addr).with_token(&shop.token(&["--user", "alice", "--ttl", "30m"]).await);
    let long = shop.caller(addr).with_token(&shop.token(&["--user", "alice", "--ttl", "12h"]).await);
    assert_eq!(short.get("/api/version").await.status(), 200);

    let mut played = upstream.play("/api/chat");
    let (mut reply, mut exchange) =
        tokio::join!(long.post("/api/chat", body::empty()), played.start_ok("application/x-ndjson"));
    for (number, (jumped, worth)) in [("+1h", 401), ("-1h", 200), ("+0", 200)].into_iter().enumerate() {
        jump(jumped);
        eventually("a token is worth what the clock says", async || {
            (short.get("/api/version").await.status() == worth).then_some(())
        })
        .await;
        assert_eq!(long.get("/api/version").await.status(), 200, "{jumped}");
        // No deadline fired, no heartbeat was missed.
        let record = format!("{{\"n\":{number}}}\n");
        exchange.send(record.clone()).await.unwrap();
        reply.expect(record).await;
    }
    exchange.end();
    assert!(reply.rest().await.1.is_ok());
    let dials = desktop.errors().iter().filter(|line| line.contains("online")).count();
    assert_eq!(dials, 1, "the tunnel lived through all of it: {:?}", desktop.errors());
}
