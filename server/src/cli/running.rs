//! `tunneld check --running`: whether the server that runs with these settings is ready. For health checks of containers,
//! where nothing else may be there to ask with.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use tunnel_cli::exit::Exit;
use tunneld::config::Config;

use super::{Output, resolve::from_here};

/// To connect, and then for each piece of the answer.
const WITHIN: Duration = Duration::from_secs(3);

/// The most of an answer that is read: more than there is.
const ANSWER: u64 = 16 * 1024;

pub(super) fn run(config: &Config) -> Result<Output, Exit> {
    // Its own certificate is for another name than this machine's, so TLS would prove nothing here.
    let listen = config.admin.as_ref().map(|admin| admin.listen).or(config.tls.is_none().then_some(config.listen));
    let address = from_here(listen.ok_or_else(|| {
        Exit::usage("--running: the server is asked on its admin interface; add --admin-listen 127.0.0.1:9464")
    })?);
    match ask(address) {
        Ok(answer) if answer.starts_with("HTTP/1.1 200 ") => {
            Ok(Output { result: format!("ready, says the server on {address}\n"), hint: String::new() })
        }
        Ok(answer) => {
            let status = answer.split_whitespace().nth(1).unwrap_or("no status");
            Err(Exit::failed(format_args!("the server on {address} is not ready ({status})")))
        }
        Err(error) => Err(Exit::failed(format_args!("no server answers on {address}: {error}"))),
    }
}

fn ask(address: SocketAddr) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, WITHIN)?;
    stream.set_read_timeout(Some(WITHIN))?;
    stream.set_write_timeout(Some(WITHIN))?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(ANSWER).read_to_string(&mut answer)?;
    Ok(answer)
}
