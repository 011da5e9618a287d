//! The desktop's own commands, as programs: what a person at that machine sees and keeps.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use integration_tests::{
    binaries::{Program, Signal, command},
    ollama::Ollama,
    pki::HOST,
    workshop::{Workshop, run_command},
};

#[tokio::test]
async fn the_file_in_the_users_own_directory_is_found() {
    let shop = Workshop::new().await;
    let ollama = Ollama::start();
    let (_server, addr) = shop.serve(&[]).await;
    let server = format!("https://{HOST}:{}", addr.port());
    fs::create_dir(shop.path("tunnel")).unwrap();
    let token = shop.token(&["--user", "alice", "--server", &server]).await;
    fs::write(shop.path("tunnel/token"), token).unwrap();
    let text = format!("token-file = 'token'\nca = '../ca.pem'\nname = 'attic'\nto = '{}'\n", ollama.addr());
    fs::write(shop.path("tunnel/tunnel.toml"), text).unwrap();
    let connect = |args: &[&str]| {
        let mut tunnel = command("tunnel");
        tunnel.env("XDG_CONFIG_HOME", shop.path("")).arg("connect").args(args);
        tunnel
    };
    Program::start(&mut connect(&[])).logs(&["online", "attic"]).await;
    Program::start(&mut connect(&["--name", "tower"])).logs(&["online", "tower"]).await;

    let empty = shop.file("empty.toml", "");
    let said = run_command(&mut connect(&["--config", &empty])).await;
    assert!(said.error(64).contains("a token is needed"), "{said:?}");
    fs::write(shop.path("tunnel/tunnel.toml"), "\nlisten = '1'\n").unwrap();
    let said = run_command(&mut connect(&[])).await;
    assert!(said.error(64).contains("tunnel.toml, line 2: unknown key `listen`"), "{said:?}");
}

#[tokio::test]
async fn status_tells_how_things_stand() {
    let shop = Workshop::new().await;
    let ollama = Ollama::start();
    let (server, addr) = shop.serve(&[]).await;
    let url = format!("https://{HOST}:{}", addr.port());
    let bearer = shop.token(&["--user", "alice", "--server", &url]).await;
    let token = shop.file("token", &bearer);
    fs::create_dir(shop.path("run")).unwrap();
    let tunnel = |args: &[&str]| {
        let mut tunnel = command("tunnel");
        tunnel.env("XDG_RUNTIME_DIR", shop.path("run")).args(args);
        tunnel
    };
    let status = async |args: &[&str]| run_command(&mut tunnel(&[&["status"], args].concat())).await;
    let said = status(&[]).await;
    assert!(said.error(3).contains("tunnel connect --token-file FILE"), "{said:?}");

    let (ca, to) = (shop.arg("ca.pem"), ollama.addr().to_string());
    let args = ["connect", "--token-file", &token, "--ca", &ca, "--to", &to, "--name", "tower"];
    let mut client = Program::start(&mut tunnel(&args));
    client.logs(&["online"]).await;
    let caller = shop.caller(addr).with_token(&bearer);
    assert_eq!(caller.get("/api/version?key=secret").await.status(), 200);
    assert_eq!(status(&["--name", "other"]).await.code, Some(3));
    let said = status(&["--name", "tower", "--json"]).await;
    let report: serde_json::Value = serde_json::from_str(&said.success()[0]).unwrap();
    assert_eq!((&report["connected"], &report["server"]), (&true.into(), &url.as_str().into()), "{report}");
    let request = &report["requests"][0];
    assert_eq!((&request["path"], &request["status"]), (&"/api/version".into(), &200.into()), "{report}");
    assert!(!said.output[0].contains("secret") && !said.output[0].contains(&bearer), "{said:?}");
    let said = status(&[]).await;
    assert!(said.success()[0].contains("online") && said.output[0].contains("as alice/tower"), "{said:?}");

    drop(server);
    client.logs(&["offline"]).await;
    let said = status(&[]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.output[0].contains("offline") && said.output[1].contains("because"), "{said:?}");
    client.signal(Signal::Terminate);
    assert!(client.wait().await.success());
    assert_eq!(fs::read_dir(shop.path("run/tunnel")).unwrap().count(), 0);
}
