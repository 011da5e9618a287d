//! The desktop's own commands, as programs: what a person at that machine sees and keeps.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use integration_tests::{
    binaries::{Program, command},
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
