//! A real nginx in front of `tunneld`, with `deploy/nginx.conf` as it is, but for addresses and files.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::Command,
};

use crate::{binaries::Program, workshop::Workshop};

/// A port that was free a moment ago: nginx cannot be given a bound one.
#[must_use]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("a bound address").port()
}

/// Whether there is an nginx on this machine.
#[must_use]
pub fn is_here() -> bool {
    Command::new("nginx").arg("-v").output().is_ok()
}

/// Starts it on `port` in front of `to`, with these directives of its `http` block besides, and with nothing outside of
/// the test's directory.
pub async fn start(shop: &Workshop, port: u16, to: SocketAddr, directives: &str) -> Program {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/nginx.conf");
    let mut site = std::fs::read_to_string(path).expect("deploy/nginx.conf");
    for (theirs, ours) in [
        ("127.0.0.1:8080", to.to_string()),
        ("listen 443 ", format!("listen 127.0.0.1:{port} ")),
        ("    listen [::]:443 ssl http2;\n", String::new()),
        ("/etc/ssl/tunnel/fullchain.pem", shop.arg("server.pem")),
        ("/etc/ssl/tunnel/privkey.pem", shop.arg("server-key.pem")),
        ("/var/log/nginx/error.log", "stderr".to_owned()),
    ] {
        assert!(site.contains(theirs), "deploy/nginx.conf has no {theirs}");
        site = site.replace(theirs, &ours);
    }
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {};\n", shop.arg(kind)))
        .concat();
    let (pid, log) = (shop.arg("nginx.pid"), shop.arg("nginx-access.log"));
    let file = shop.file(
        "nginx.conf",
        &format!(
            "daemon off;\nmaster_process off;\npid {pid};\nerror_log stderr notice;\nevents {{}}\nhttp {{\naccess_log \
             {log};\n{temporary}{directives}{site}}}\n"
        ),
    );
    let mut nginx = Program::start(Command::new("nginx").args(["-p", &shop.arg(""), "-e", "stderr", "-c", &file]));
    nginx.logs(&["using the", "event method"]).await;
    nginx
}
