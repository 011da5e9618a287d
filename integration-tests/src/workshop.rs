//! A directory with what the real programs need: certificates and a secret made by `tunneld` itself, files of a test.

use std::{
    ffi::OsStr,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::{
    binaries::{Program, command},
    caller::Caller,
    pki::{HOST, SECRET},
};

/// What a program said, and its exit code.
#[derive(Debug)]
pub struct Said {
    /// The exit code.
    pub code: Option<i32>,
    /// The lines on standard output.
    pub output: Vec<String>,
    /// The lines on standard error.
    pub errors: Vec<String>,
}

impl Said {
    /// The one line of an error: nothing else was said, and the code is `code`.
    #[must_use]
    pub fn error(&self, code: i32) -> &str {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!((self.output.len(), self.errors.len()), (0, 1), "one line of error: {self:?}");
        self.errors[0].strip_prefix("error: ").unwrap_or_else(|| panic!("no error: {self:?}"))
    }

    /// The lines of a success.
    #[must_use]
    pub fn success(&self) -> &[String] {
        assert_eq!(self.code, Some(0), "{self:?}");
        &self.output
    }
}

/// Runs one of our programs to its end.
pub async fn run<A: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = A>) -> Said {
    run_command(command(program).args(args)).await
}

/// Runs a command to its end.
pub async fn run_command(command: &mut std::process::Command) -> Said {
    let mut program = Program::start(command);
    let status = program.wait().await;
    Said { code: status.code(), output: program.output(), errors: program.errors() }
}

/// The directory. Removed when dropped.
#[derive(Debug)]
pub struct Workshop {
    directory: TempDir,
}

impl Workshop {
    /// Makes certificates with `tunneld certs`, and a file with the secret of the tests.
    pub async fn new() -> Self {
        let workshop = Self { directory: tempfile::tempdir().expect("a temporary directory") };
        let made = run("tunneld", [OsStr::new("certs"), OsStr::new("--out"), workshop.path("").as_os_str()]).await;
        assert_eq!(made.success().len(), 3, "{made:?}");
        std::fs::write(workshop.path("secret"), format!("{SECRET}\n")).expect("a temporary file");
        workshop
    }

    /// The path of a file here.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The same as text, for a command line.
    #[must_use]
    pub fn arg(&self, name: &str) -> String {
        self.path(name).to_str().expect("a path in UTF-8").to_owned()
    }

    /// Writes a file and gives its path.
    #[must_use]
    pub fn file(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).expect("a temporary file");
        self.arg(name)
    }

    /// The settings of a server on a free port.
    #[must_use]
    pub fn server_args(&self) -> Vec<String> {
        let [cert, key, secret] = ["server.pem", "server-key.pem", "secret"].map(|name| self.arg(name));
        ["--listen", "127.0.0.1:0", "--tls-cert", &cert, "--tls-key", &key, "--jwt-secret-file", &secret]
            .map(str::to_owned)
            .to_vec()
    }

    /// Starts `tunneld serve` with these settings besides; gives where it listens, too.
    pub async fn serve(&self, more: &[&str]) -> (Program, SocketAddr) {
        self.serve_on(SocketAddr::from(([127, 0, 0, 1], 0)), more).await
    }

    /// The same on this address: again, where another was before.
    pub async fn serve_on(&self, addr: SocketAddr, more: &[&str]) -> (Program, SocketAddr) {
        let mut args = vec!["serve".to_owned()];
        args.extend(self.server_args());
        args[2] = addr.to_string();
        args.extend(more.iter().map(|&arg| arg.to_owned()));
        let mut server = Program::tunneld(args);
        let addr = server.listening().await;
        (server, addr)
    }

    /// What `tunneld token` prints.
    pub async fn token(&self, more: &[&str]) -> String {
        let secret = self.arg("secret");
        let said = run("tunneld", [&["token", "--jwt-secret-file", &secret], more].concat()).await;
        let [line] = said.success() else { panic!("not one line: {said:?}") };
        line.clone()
    }

    /// Starts `tunnel connect` with a token file and these settings besides, and waits until it is connected.
    pub async fn connect(&self, server: SocketAddr, upstream: SocketAddr, more: &[&str]) -> Program {
        let server = format!("https://{HOST}:{}", server.port());
        let token = self.file("desktop.token", &self.token(&["--user", "alice", "--server", &server]).await);
        let (ca, to) = (self.arg("ca.pem"), upstream.to_string());
        let args = ["connect", "--token-file", &token, "--ca", &ca, "--to", &to, "--name", "desktop"];
        let mut client = Program::tunnel([&args, more].concat());
        client.logs(&["online"]).await;
        client
    }

    /// A caller without a token who trusts our CA.
    #[must_use]
    pub fn caller(&self, server: SocketAddr) -> Caller {
        let tls = tunnel_certs::client::config(Some(Path::new(&self.arg("ca.pem")))).expect("a CA to trust");
        Caller::new(HOST, server, Some(tls))
    }
}
