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

/// A `systemctl` that writes down what it is asked, and fails if the file `fail` lies beside it.
const SYSTEMCTL: &str = "#!/bin/sh
here=$(dirname \"$0\")
echo \"$@\" >> \"$here/asked\"
if [ -e \"$here/fail\" ]; then echo 'Failed to connect to bus: No medium found' >&2; exit 1; fi
";

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_service_is_installed_with_its_settings_and_without_its_token() {
    use std::os::unix::fs::PermissionsExt;
    let shop = Workshop::new().await;
    let bearer = shop.token(&["--user", "alice", "--server", "https://tunnel.example.com"]).await;
    for directory in ["bin", "config"] {
        fs::create_dir(shop.path(directory)).unwrap();
    }
    let systemctl = shop.file("bin/systemctl", SYSTEMCTL);
    fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", shop.arg("bin"));
    let service = async |args: &[&str]| {
        let mut tunnel = command("tunnel");
        tunnel.env_remove("TUNNEL_NO_REPORT_MODELS").env("PATH", &path);
        tunnel.env("XDG_CONFIG_HOME", shop.path("config")).env("TUNNEL_TOKEN", &bearer);
        run_command(tunnel.arg("service").args(args)).await
    };
    let asked = || fs::read_to_string(shop.path("bin/asked")).unwrap_or_default();
    let unit = shop.path("config/systemd/user/tunnel.service");

    assert_eq!(service(&["status"]).await.code, Some(3));
    let said = service(&["install", "--allow", "GET /v1/*", "--print"]).await;
    assert!(said.success().iter().any(|line| line.starts_with("ExecStart=/")), "{said:?}");
    assert!(!unit.exists() && asked().is_empty(), "--print changes nothing");
    let said = service(&["install", "--to", "https://x"]).await;
    assert!(said.error(64).starts_with("--to: an https upstream"), "{said:?}");

    let said = service(&["install", "--allow", "GET /v1/*", "--name", "tower"]).await;
    assert_eq!(said.success().len(), 3, "{said:?}");
    let text = fs::read_to_string(&unit).unwrap();
    let kept = shop.path("config/tunnel/token");
    let command = format!("connect --token-file {} --name tower --allow \"GET /v1/*\"\n", kept.display());
    assert!(text.contains(&command), "{text}");
    assert!(!text.contains(&bearer));
    assert_eq!(fs::read_to_string(&kept).unwrap().trim(), bearer);
    assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(asked(), "--user daemon-reload\n--user enable tunnel.service\n--user restart tunnel.service\n");
    let mut verify = std::process::Command::new("systemd-analyze");
    verify.args(["--user", "verify"]).arg(&unit).env("XDG_RUNTIME_DIR", shop.path("bin"));
    if let Ok(verified) = verify.output() {
        assert!(verified.status.success() && verified.stderr.is_empty(), "{verified:?}");
    }
    assert!(service(&["status"]).await.success()[0].starts_with("tunnel.service runs"));

    let _fails = shop.file("bin/fail", "");
    let said = service(&["install"]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.errors[0].contains("No medium found") && said.errors[0].contains("enable --now"), "{said:?}");
    fs::remove_file(shop.path("bin/fail")).unwrap();
    assert_eq!(service(&["uninstall"]).await.code, Some(0));
    assert!(!unit.exists() && kept.exists());
    assert!(asked().ends_with("--user disable --now tunnel.service\n--user daemon-reload\n"), "{}", asked());
    assert_eq!(service(&["uninstall"]).await.success().len(), 1);
}

#[tokio::test]
async fn shells_are_given_completions_and_a_person_alone_a_beginning() {
    for (shell, word) in [
        ("bash", "complete "),
        ("zsh", "#compdef tunnel"),
        ("fish", "complete -c tunnel"),
        ("powershell", "Register-ArgumentCompleter"),
    ] {
        let said = run_command(command("tunnel").args(["completions", shell])).await;
        let script = said.success().join("\n");
        assert!(script.contains(word) && script.contains("doctor"), "{shell}");
    }
    let said = run_command(&mut command("tunnel")).await;
    assert_eq!(said.code, Some(64));
    assert!(said.errors.iter().any(|line| line.contains("tunnel connect --token-file token")), "{said:?}");
}
