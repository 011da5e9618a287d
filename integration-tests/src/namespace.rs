//! A network of our own, for what loopback cannot show: packets that are lost, a line that is slow.
//!
//! The test runs itself again inside a new network namespace, and the server in a second one; two pairs of veth join
//! them. Over the *line* goes the tunnel, and it can be made bad; over the *side* go callers, untouched. Neither
//! namespace has a name, so that both vanish with their last process, however it ends. Linux, root, `ip`, `tc`, `nft`.

use std::{
    env, fmt,
    io::Write,
    net::SocketAddr,
    path::Path,
    process::{Command, Stdio},
};

use crate::{
    binaries::{Program, path},
    caller::Caller,
    jwt::{claims, hs256},
    workshop::{Workshop, run},
};

/// Set in the test that runs within.
const INSIDE: &str = "INSIDE_OWN_NAMESPACE";

/// Where the server is for its desktop, and for callers: addresses for documentation (RFC 5737).
const LINE: (&str, &str) = ("198.51.100.1/30", "198.51.100.2");
const SIDE: (&str, &str) = ("192.0.2.1/30", "192.0.2.2");

/// Whether this is the run inside. Outside: runs the test `name` inside, and fails as it does; where that cannot be,
/// says why and passes.
#[must_use]
pub fn inside(name: &str) -> bool {
    if env::var_os(INSIDE).is_some() {
        return true;
    }
    if let Some(reason) = missing() {
        let _nobody_reads = writeln!(std::io::stderr(), "skipped: {reason}");
        return false;
    }
    let test = env::current_exe().expect("the test has a path");
    let mut command = Command::new("unshare");
    command.args(["--net", "--fork", "--kill-child"]).arg(test);
    command.args([name, "--exact", "--ignored", "--nocapture"]).env(INSIDE, "1");
    let status = command.status().expect("unshare");
    assert!(status.success(), "{name} failed within its namespace");
    false
}

fn missing() -> Option<String> {
    let works = |program: &str, args: &[&str]| {
        let silent = Command::new(program).args(args).stdout(Stdio::null()).stderr(Stdio::null()).status();
        silent.is_ok_and(|status| status.success())
    };
    for (tool, version) in [("ip", "-V"), ("tc", "-V"), ("nft", "-v"), ("nsenter", "-V")] {
        if !works(tool, &[version]) {
            return Some(format!("{tool} is missing (Debian: iproute2, nftables, util-linux)"));
        }
    }
    let allowed = works("unshare", &["--net", "--fork", "--kill-child", "nft", "list", "ruleset"]);
    (!allowed).then(|| "network namespaces need root".to_owned())
}

/// Both namespaces, and the server in its own.
#[derive(Debug)]
pub struct Net {
    /// Certificates and secret.
    pub shop: Workshop,
    /// `tunneld`.
    pub server: Program,
    port: u16,
}

impl Net {
    /// Starts the server and joins the namespaces.
    pub async fn start(settings: &[&str]) -> Self {
        let shop = Workshop::new().await;
        let out = shop.arg("");
        let hosts = ["certs", "--force", "--out", &out, "--host", "localhost", "--host", LINE.1, "--host", SIDE.1];
        assert_eq!(run("tunneld", hosts).await.success().len(), 3);
        let mut args = shop.server_args();
        "0.0.0.0:0".clone_into(&mut args[1]); // addresses are yet to come
        let mut command = Command::new("unshare");
        command.arg("--net").arg(path("tunneld")).arg("serve").args(args).args(settings).env("NO_COLOR", "1");
        let mut server = Program::start(&mut command);
        let port = server.listening().await.port();
        let net = Self { shop, server, port };
        tool("ip link set lo up");
        for (link, (here, there)) in [("line", LINE), ("side", SIDE)] {
            tool(format_args!("ip link add {link} type veth peer name {link} netns {}", net.server.id()));
            tool(format_args!("ip address add {here} dev {link}"));
            tool(format_args!("ip link set {link} up"));
            net.there(format_args!("ip address add {there}/30 dev {link}"));
            net.there(format_args!("ip link set {link} up"));
        }
        net
    }

    /// The server on the line.
    #[must_use]
    pub fn line(&self) -> SocketAddr {
        SocketAddr::new(LINE.1.parse().expect("an address"), self.port)
    }

    /// A caller of alice, beside the line.
    #[must_use]
    pub fn caller(&self) -> Caller {
        let tls = tunnel_certs::client::config(Some(Path::new(&self.shop.arg("ca.pem")))).expect("a CA to trust");
        let server = SocketAddr::new(SIDE.1.parse().expect("an address"), self.port);
        Caller::new(SIDE.1, server, Some(tls)).with_token(&hs256(&claims("alice")))
    }

    /// Starts the desktop of alice on its way to `server`, and waits until it is online.
    pub async fn connect(&self, server: &str, upstream: SocketAddr) -> Program {
        let token = self.shop.file("desktop.token", &self.shop.token(&["--user", "alice"]).await);
        let (ca, to) = (self.shop.arg("ca.pem"), upstream.to_string());
        let args =
            ["connect", "--token-file", &token, "--server", server, "--ca", &ca, "--to", &to, "--name", "desktop"];
        let mut client = Program::tunnel(args);
        client.logs(&["online"]).await;
        client
    }

    /// Loses this share of the line's packets, in percent, each way. All of them: a network that is gone.
    pub fn lose(&self, percent: u32) {
        self.heal();
        let verdict = match percent {
            100.. => "drop".to_owned(),
            some => format!("numgen random mod 100 < {some} drop"),
        };
        for command in [
            "add table inet faults".to_owned(),
            "add chain inet faults here { type filter hook input priority 0 ; }".to_owned(),
            "add chain inet faults there { type filter hook output priority 0 ; }".to_owned(),
            format!("add rule inet faults here iifname line {verdict}"),
            format!("add rule inet faults there oifname line {verdict}"),
        ] {
            tool(format_args!("nft {command}"));
        }
    }

    /// Loses nothing any more.
    pub fn heal(&self) {
        tool("nft add table inet faults");
        tool("nft delete table inet faults");
    }

    /// Lets the line carry no more than this each way (tc-tbf(8)), with a queue of a fifth of a second.
    pub fn limit(&self, rate: &str) {
        let shape = format!("tc qdisc add dev line root tbf rate {rate} burst 4kb latency 200ms");
        tool(&shape);
        self.there(&shape);
    }

    /// Runs a tool where the server is.
    fn there(&self, command: impl fmt::Display) {
        tool(format_args!("nsenter --net --target {} {command}", self.server.id()));
    }
}

/// Runs a tool, whose arguments hold no spaces.
fn tool(command: impl fmt::Display) {
    let command = command.to_string();
    let mut words = command.split(' ');
    let status = Command::new(words.next().unwrap_or_default()).args(words).status();
    assert!(status.as_ref().is_ok_and(std::process::ExitStatus::success), "{command}: {status:?}");
}
