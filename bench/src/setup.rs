//! What is measured, running side by side: nginx, and tunneld with a client, in front of one upstream.

use std::{
    fs, io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::TempDir;

use crate::{caller::Target, cli::Arguments, program::Program};

/// Room for the 400 callers of one user that one workload has; the default is 256.
const STREAMS_PER_USER: &str = "500";

/// Longer than any workload: what is measured here are not deadlines.
const DEADLINE: &str = "10m";

/// The programs that are compared, and the ways to the upstream.
pub(crate) struct Setup {
    pub(crate) direct: Target,
    pub(crate) nginx: Target,
    pub(crate) ours: Target,
    pub(crate) hop: Program,
    pub(crate) wstunnel: Option<Wstunnel>,
    pub(crate) server: Program,
    pub(crate) client: Program,
    pub(crate) stage: Stage,
}

/// wstunnel behind nginx: the edge, its server, its client.
pub(crate) struct Wstunnel {
    pub(crate) target: Target,
    pub(crate) programs: [Program; 3],
}

/// What further clients and callers need: files, and where things are.
#[derive(Debug)]
pub(crate) struct Stage {
    /// The port of tunneld.
    pub(crate) port: u16,
    upstream: SocketAddr,
    bin: PathBuf,
    folder: TempDir,
}

impl Setup {
    /// Starts everything, and returns when each way works.
    pub(crate) async fn start(arguments: &Arguments, upstream: SocketAddr) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix("tunnel-bench.").tempdir()?;
        let mut stage = Stage { port: 0, upstream, bin: arguments.bin.clone(), folder };
        let certs = stage.folder.path();
        run(program(&stage.bin, "tunneld").arg("certs").arg("--out").arg(certs).args(["--host", "localhost"]))?;
        fs::write(stage.path("secret"), uuid::Uuid::now_v7().to_string())?;

        let (hop, nginx) = start_nginx(arguments, certs, "nginx", upstream)?;
        let wstunnel = start_wstunnel(arguments, certs, upstream)?;
        let server = stage.start_server(arguments)?;
        let (client, ours) = stage.desktop("bench", &[])?;
        let setup = Self { direct: Target::plain(upstream), nginx, ours, hop, wstunnel, server, client, stage };
        let wstunnel = setup.wstunnel.as_ref().map(|wstunnel| &wstunnel.target);
        for target in [&setup.direct, &setup.nginx, &setup.ours].into_iter().chain(wstunnel) {
            answering(target).await?;
        }
        Ok(setup)
    }

    /// Which programs have ended, though nobody asked them to.
    pub(crate) fn obituaries(&mut self) -> String {
        let wstunnel = self.wstunnel.iter_mut().flat_map(|wstunnel| &mut wstunnel.programs);
        let all = [&mut self.hop, &mut self.server, &mut self.client].into_iter().chain(wstunnel);
        all.filter_map(Program::obituary).collect()
    }
}

impl Stage {
    fn start_server(&mut self, arguments: &Arguments) -> io::Result<Program> {
        let mut serve = program(&self.bin, "tunneld");
        serve.arg("serve").args(["--listen", "127.0.0.1:0", "--max-streams-per-user", STREAMS_PER_USER]);
        serve.args(["--stream-deadline", DEADLINE, "--max-stream-deadline", DEADLINE, "--stall-timeout", DEADLINE]);
        serve.arg("--tls-cert").arg(self.path("server.pem")).arg("--tls-key").arg(self.path("server-key.pem"));
        serve.arg("--jwt-secret-file").arg(self.path("secret"));
        if arguments.no_access_log {
            serve.args(["--log-level", "warn,tunneld::server=info"]);
        }
        let mut server = Program::start(&mut serve, &self.path("tunneld.log"))?;
        self.port = server.wait_for(listening)?;
        Ok(server)
    }

    /// A desktop of `user`, its client run by `wrapper`, and the way to it.
    pub(crate) fn desktop(&self, user: &str, wrapper: &[&str]) -> io::Result<(Program, Target)> {
        let token = self.token(user)?;
        fs::write(self.path(user), &token)?;
        let connect = program(&self.bin, "tunnel");
        let mut command = match wrapper {
            [] => connect,
            [first, rest @ ..] => {
                let mut command = clean(Command::new(first));
                command.args(rest).arg(connect.get_program());
                command
            }
        };
        command.arg("connect").arg("--token-file").arg(self.path(user));
        command.args([
            "--server",
            &format!("https://localhost:{}", self.port),
            "--to",
            &format!("http://{}", self.upstream),
        ]);
        command.arg("--ca").arg(self.path("ca.pem"));
        let client = Program::start(&mut command, &self.path(&format!("{user}.log")))?;
        Ok((client, Target::tls(self.port, &self.path("ca.pem"), Some(&token))?))
    }

    /// A token for `user`, from the program that is measured.
    pub(crate) fn token(&self, user: &str) -> io::Result<String> {
        let mut command = program(&self.bin, "tunneld");
        command.args(["token", "--user", user]).arg("--jwt-secret-file").arg(self.path("secret"));
        Ok(run(&mut command)?.trim().to_owned())
    }

    /// A file of this run.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Waits until requests get through.
pub(crate) async fn answering(target: &Target) -> io::Result<()> {
    let mut last = None;
    for _ in 0..200 {
        let tried = async {
            let mut caller = target.connect().await?;
            caller.get("/small").await?;
            caller.messages.drain().await
        };
        match tried.await {
            Ok(_) => return Ok(()),
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Err(last.unwrap_or_else(|| io::Error::other("no answer")))
}

/// nginx as a TLS hop: as many workers as processors, kept-alive connections behind it, nothing buffered.
fn start_nginx(arguments: &Arguments, certs: &Path, name: &str, upstream: SocketAddr) -> io::Result<(Program, Target)> {
    let port = free_port()?;
    let folder = certs.join(name);
    fs::create_dir(&folder)?;
    let (at, certs_at) = (folder.display(), certs.display());
    let log = if arguments.no_access_log { "off".to_owned() } else { format!("{at}/access.log") };
    let configuration = format!(
        "worker_processes auto; pid {at}/nginx.pid; error_log {at}/nginx-error.log; daemon off;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\n\
           access_log {log}; keepalive_requests 1000000000; client_max_body_size 0; tcp_nodelay on;\n\
           client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;\n\
           uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi;\n\
           upstream behind {{ server {upstream} max_fails=0; keepalive 512; keepalive_requests 1000000000; }}\n\
           server {{\n\
             listen 127.0.0.1:{port} ssl; ssl_protocols TLSv1.2 TLSv1.3;\n\
             ssl_certificate {certs_at}/server.pem; ssl_certificate_key {certs_at}/server-key.pem;\n\
             location / {{\n\
               proxy_pass http://behind; proxy_http_version 1.1; proxy_set_header Connection \"\";\n\
               proxy_buffering off; proxy_request_buffering off; proxy_read_timeout 600s;\n\
             }}\n\
           }}\n\
         }}\n"
    );
    fs::write(folder.join("nginx.conf"), configuration)?;
    let mut command = clean(Command::new("nginx"));
    command.arg("-p").arg(&folder).arg("-c").arg(folder.join("nginx.conf"));
    command.arg("-e").arg(folder.join("nginx-error.log"));
    let program = Program::start(&mut command, &folder.join("nginx.log"))?;
    Ok((program, Target::tls(port, &certs.join("ca.pem"), None)?))
}

/// wstunnel with TLS between its two sides, and nginx as its TLS edge: it has none for HTTP.
fn start_wstunnel(arguments: &Arguments, certs: &Path, upstream: SocketAddr) -> io::Result<Option<Wstunnel>> {
    let Some(wstunnel) = &arguments.wstunnel else { return Ok(None) };
    let (port, entry) = (free_port()?, free_port()?);
    let url = format!("wss://127.0.0.1:{port}");
    let mut serve = clean(Command::new(wstunnel));
    serve.args(["--log-lvl", "WARN", "server", &url]);
    serve.arg("--tls-certificate").arg(certs.join("server.pem"));
    serve.arg("--tls-private-key").arg(certs.join("server-key.pem"));
    let server = Program::start(&mut serve, &certs.join("wstunnel-server.log"))?;
    let mut connect = clean(Command::new(wstunnel));
    connect.args(["--log-lvl", "WARN", "client", "-R", &format!("tcp://127.0.0.1:{entry}:{upstream}"), &url]);
    let client = Program::start(&mut connect, &certs.join("wstunnel-client.log"))?;
    let (edge, target) = start_nginx(arguments, certs, "edge", SocketAddr::from(([127, 0, 0, 1], entry)))?;
    Ok(Some(Wstunnel { target, programs: [edge, server, client] }))
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// The port in tunneld's line `listening addr=…`.
fn listening(log: &str) -> Option<u16> {
    let line = log.lines().find(|line| line.contains("listening"))?;
    let address = line.split_once("addr=")?.1.split_whitespace().next()?;
    address.parse().ok().map(|address: SocketAddr| address.port())
}

/// One of ours, free of settings in the environment.
fn program(bin: &Path, name: &str) -> Command {
    clean(Command::new(bin.join(name)))
}

fn clean(mut command: Command) -> Command {
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).env("NO_COLOR", "true"); // wstunnel takes no other word
    command
}

/// Runs it to its end; returns what it printed.
fn run(command: &mut Command) -> io::Result<String> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let (program, said) = (command.get_program().to_string_lossy(), String::from_utf8_lossy(&output.stderr));
    Err(io::Error::other(format!("{program}: {said}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_read_from_the_log() {
        let log = "2026-01-01T00:00:00Z  INFO tunneld: starting\n2026-01-01T00:00:00Z  INFO tunneld::server: listening addr=127.0.0.1:43211 tls=true\n";
        assert_eq!(listening(log), Some(43211));
        assert_eq!(listening("listen"), None);
    }
}
