//! The real `tunneld`, as a shell and a container runtime start it: exit codes, layers, what goes where.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use tempfile::TempDir;

/// A directory with a secret and a file of settings, and `tunneld` in it.
struct Shell {
    dir: TempDir,
    variables: Vec<(&'static str, &'static str)>,
}

impl Shell {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("secret"), "x".repeat(32)).unwrap();
        let settings = "plain-http = true\njwt-secret-file = 'secret'\nlisten = '127.0.0.1:1'\nstall-timeout = '1s'";
        fs::write(dir.path().join("tunneld.toml"), settings).unwrap();
        Self { dir, variables: Vec::new() }
    }

    fn with(variables: &[(&'static str, &'static str)]) -> Self {
        Self { variables: variables.to_vec(), ..Self::new() }
    }

    fn run(&self, line: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tunneld"));
        command.env_clear().envs(self.variables.iter().copied()).current_dir(self.dir.path());
        command.args(line.split_whitespace()).output().unwrap()
    }

    /// Standard output of a command that succeeds.
    fn result(&self, line: &str) -> String {
        let Output { status, stdout, stderr } = self.run(line);
        assert!(status.success(), "{line}: {}", String::from_utf8_lossy(&stderr));
        String::from_utf8(stdout).unwrap()
    }

    /// The one line on stderr of a command that fails for its user's mistake.
    fn mistake(&self, line: &str) -> String {
        let Output { status, stdout, stderr } = self.run(line);
        let stderr = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(64), "{line}: {stderr}");
        assert!(stdout.is_empty() && stderr.ends_with('\n') && stderr.lines().count() == 1, "{line}: {stderr}");
        stderr.trim_end().to_owned()
    }
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let check = |variables: &[_], line: &str| Shell::with(variables).result(line);
    let environment = [("TUNNELD_CONFIG", "tunneld.toml"), ("TUNNELD_LISTEN", "127.0.0.1:2")];
    assert!(check(&[], "check --config tunneld.toml").contains("http://127.0.0.1:1,"));
    assert!(check(&environment, "check").contains("http://127.0.0.1:2,"));
    let both = "check --sockets --listen 127.0.0.1:3 --admin-listen [::1]:4";
    assert_eq!(check(&environment, both), "127.0.0.1:3\n[::1]:4\n");
    assert!(check(&environment, "check --listen 127.0.0.1:3").contains("http://127.0.0.1:3,"));
    assert!(check(&environment, "check").contains("stall timeout     1s\n"));
}

#[test]
fn an_empty_variable_is_none() {
    let shell = Shell::with(&[("TUNNELD_LISTEN", ""), ("TUNNELD_PLAIN_HTTP", ""), ("TUNNELD_MAX_BODY", "")]);
    assert!(shell.result("check --config tunneld.toml").contains("http://127.0.0.1:1,"));
}

#[test]
fn a_switch_can_be_taken_back() {
    let shell = Shell::with(&[("TUNNELD_REQUIRE_SCOPE", "yes")]);
    assert!(shell.result("check --config tunneld.toml").contains("allows nothing"));
    assert!(
        shell
            .result("check --config tunneld.toml --require-scope=false")
            .contains("allows to connect and to send requests")
    );
}

#[test]
fn a_mistake_is_named_where_it_was_made() {
    let shell = Shell::with(&[("TUNNELD_STALL_TIMEOUT", "soon")]);
    let line = shell.mistake("serve --config tunneld.toml");
    assert_eq!(line, "error: TUNNELD_STALL_TIMEOUT: \"soon\" is no duration; write for example 30s, 10m or 1h");
    let line = shell.mistake("serve --config tunneld.toml --stall-timeout later");
    assert!(line.starts_with("error: --stall-timeout: \"later\""), "{line}");

    let shell = Shell::new();
    fs::write(shell.dir.path().join("bad.toml"), "plain-http = true\nmax-body = 'big'").unwrap();
    assert_eq!(
        shell.mistake("check --config bad.toml").split(", or").next(),
        Some(
            "error: jwt-secret-file in bad.toml: no way to verify tokens: make a secret with `(umask 077 && openssl rand -hex 32 > secret)` \
         and add --jwt-secret-file secret",
        )
    );
    let line = shell.mistake("check --config bad.toml --jwt-secret-file secret");
    assert_eq!(line, "error: max-body in bad.toml: \"big\" is no size; write for example 500MB or 20GiB");
    fs::write(shell.dir.path().join("bad.toml"), "\nplain-htp = true").unwrap();
    let line = shell.mistake("check --config bad.toml");
    assert!(line.starts_with("error: bad.toml, line 2: unknown key `plain-htp`"), "{line}");
}

#[test]
fn wrong_usage_is_64_and_help_is_0() {
    let shell = Shell::new();
    assert!(shell.mistake("serv").contains("a similar subcommand exists: 'serve'"));
    assert!(shell.mistake("token --config tunneld.toml").contains("--user"));
    assert!(shell.mistake("certs --out").contains("--out"));
    assert_eq!(shell.run("").status.code(), Some(64));
    for line in ["--help", "serve --help", "token --help", "certs --help", "check --help"] {
        let help = shell.result(line);
        assert!(help.contains("Usage: tunneld") && help.lines().all(|line| line.chars().count() <= 100), "{help}");
    }
    assert_eq!(shell.result("--version"), format!("tunneld {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn what_keeps_a_server_from_starting_is_one_line() {
    let shell = Shell::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let line = shell.mistake(&format!("serve --config tunneld.toml --listen {taken}"));
    assert!(line.contains(&taken.to_string()) && line.contains("--listen"), "{line}");
    let line = shell.mistake("serve --tls-cert none.pem --tls-key none.pem --jwt-secret-file secret");
    assert!(line.contains("none.pem"), "{line}");
    let line = shell.mistake("check --tls-cert none.pem --tls-key none.pem --jwt-secret-file secret");
    assert!(line.contains("none.pem"), "{line}");
}

#[test]
fn a_token_is_all_that_stdout_gets() {
    let shell = Shell::new();
    let token = shell.result("token --user bob --config tunneld.toml");
    assert_eq!(token.trim_end().split('.').count(), 3, "{token}");
    assert_eq!(token.lines().count(), 1);
    let url = shell.result("token --user bob --url --server tunnel.example.com --config tunneld.toml");
    let token = url.trim_end().strip_prefix("https://tunnel.example.com/t/").unwrap();
    assert_eq!(token.split('.').count(), 3, "{url}");
    assert!(shell.mistake("token --user bob --url --config tunneld.toml").contains("--server"));
    let line = shell.mistake("token --user bob --url --server x --scope connect --config tunneld.toml");
    assert!(line.starts_with("error: --scope: "), "{line}");
}

#[test]
fn certificates_serve_at_once_and_are_not_replaced_by_accident() {
    let shell = Shell::new();
    let files = shell.result("certs --out certs --host localhost");
    assert!(files.lines().all(|file| Path::new(shell.dir.path()).join(file).exists()), "{files}");
    let tls = "--tls-cert certs/server.pem --tls-key certs/server-key.pem --jwt-secret-file secret";
    let report = shell.result(&format!("check {tls} --public-url https://other.example"));
    for part in [
        "https://0.0.0.0:8443,",
        "  for             localhost\n",
        " days left\n",
        "(HS256)",
        "Worth a thought\n",
        "is not for other.example",
        "longer than 30s are cut",
        "no --admin-listen",
    ] {
        assert!(report.contains(part), "{part} is not in {report}");
    }
    assert!(report.lines().all(|line| line.chars().count() <= 120), "{report}");
    assert!(shell.mistake("certs --out certs").contains("--force"));
    shell.result("certs --out certs --force");
    assert!(shell.mistake("certs --out other --host https://x").starts_with("error: --host: "));
}

#[test]
fn the_example_file_has_only_known_keys() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/tunneld.example.toml");
    // Its certificate is not there, which is noticed after every key has been read.
    let line = Shell::new().mistake(&format!("check --config {}", example.display()));
    assert!(line.contains("server.pem cannot be read"), "{line}");
}
