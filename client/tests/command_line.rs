//! The real `tunnel`, as a shell and a service manager start it: exit codes, layers, no secret in sight.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    process::{Command, Output},
    thread,
};

/// Claims: `{"tunnel_server":"http://127.0.0.1:1"}`.
const TOKEN: &str = "e30.eyJ0dW5uZWxfc2VydmVyIjoiaHR0cDovLzEyNy4wLjAuMToxIn0.c2ln";

fn tunnel(line: &str, variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tunnel"));
    command
        .env_clear()
        .env("XDG_CONFIG_HOME", "/nonexistent")
        .envs(variables.iter().copied())
        .args(line.split_whitespace())
        .output()
        .unwrap()
}

/// The one line on stderr of a command that fails for its user's mistake.
fn mistake(line: &str, variables: &[(&str, &str)]) -> String {
    let Output { status, stdout, stderr } = tunnel(line, variables);
    let stderr = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(64), "{line}: {stderr}");
    assert!(stdout.is_empty() && stderr.lines().count() == 1, "{line}: {stderr}");
    assert!(!stderr.contains(TOKEN), "{stderr}");
    stderr.trim_end().to_owned()
}

/// A server that answers every connection with this, and tells what it was asked.
fn answering(answer: &'static str) -> (String, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = thread::spawn(move || {
        let (mut peer, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            peer.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        peer.write_all(answer.as_bytes()).unwrap();
        String::from_utf8(head).unwrap()
    });
    (url, asked)
}

#[test]
fn a_mistake_is_named_where_it_was_made() {
    let with_token = |more: &[(&'static str, &'static str)]| [&[("TUNNEL_TOKEN", TOKEN)], more].concat();
    assert!(mistake("connect", &[]).starts_with("error: --token-file: a token is needed"));
    assert!(mistake("connect", &[("TUNNEL_TOKEN", "x")]).starts_with("error: TUNNEL_TOKEN: that is no token"));
    assert!(mistake("connect", &with_token(&[("TUNNEL_TO", "https://x")])).starts_with("error: TUNNEL_TO: an https"));
    assert!(mistake("connect", &with_token(&[("TUNNEL_ALLOW", "chat")])).starts_with("error: TUNNEL_ALLOW: 'chat'"));
    assert!(mistake("connect --ca none.pem", &with_token(&[])).contains("none.pem"));
    let both = with_token(&[("TUNNEL_TOKEN_FILE", "x")]);
    assert!(mistake("connect", &both).starts_with("error: TUNNEL_TOKEN: TUNNEL_TOKEN_FILE is set as well"));
    // A flag is meant, whatever the environment has.
    assert!(mistake("connect --token-file none", &both).starts_with("error: --token-file: cannot read none"));
}

#[test]
fn t32_help_shows_no_token_from_the_environment() {
    let Output { status, stdout, .. } = tunnel("connect --help", &[("TUNNEL_TOKEN", TOKEN)]);
    let help = String::from_utf8(stdout).unwrap();
    assert!(status.success() && help.contains("--token-file"));
    assert!(!help.contains(TOKEN) && help.lines().all(|line| line.chars().count() <= 100), "{help}");
}

#[test]
fn wrong_usage_is_64() {
    assert!(mistake("conect", &[]).contains("a similar subcommand exists: 'connect'"));
    assert!(mistake("connect --tokn x", &[]).contains("a similar argument exists: '--token'"));
    assert_eq!(tunnel("", &[]).status.code(), Some(64));
    assert_eq!(tunnel("--version", &[]).stdout, format!("tunnel {}\n", env!("CARGO_PKG_VERSION")).as_bytes());
}

#[test]
fn refused_for_good_is_77_and_one_line() {
    let (server, asked) = answering(
        "HTTP/1.1 401 Unauthorized\r\nTunnel-Error: token_expired\r\nContent-Type: application/json\r\n\
         Content-Length: 58\r\nConnection: close\r\n\r\n\
         {\"error\":\"The token has expired; ask for a new one.\",\"x\":1}",
    );
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tunnel.toml");
    fs::write(dir.path().join("token"), format!("{TOKEN}\n")).unwrap();
    fs::write(&file, format!("token-file = 'token'\nserver = '{server}'\nname = 'attic'\nto = '1'")).unwrap();
    let Output { status, stderr, .. } = tunnel(&format!("connect --config {}", file.display()), &[]);
    let stderr = String::from_utf8(stderr).unwrap();
    let head = asked.join().unwrap();
    assert_eq!(status.code(), Some(77), "{stderr}");
    let last = stderr.lines().last().unwrap();
    let token = dir.path().join("token");
    let next = format!("Put another token into {} and start again.", token.display());
    assert_eq!(last, format!("error: The token has expired; ask for a new one. (token_expired) {next}"));
    assert!(
        head.contains(&format!("authorization: Bearer {TOKEN}"))
            || head.contains(&format!("Authorization: Bearer {TOKEN}"))
    );
    assert!(head.to_lowercase().contains("tunnel-name: attic\r\n"), "{head}");
    assert!(!stderr.contains(TOKEN), "{stderr}");
}
