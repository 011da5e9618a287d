//! The upstream of the corpus: reads HTTP/1.1 as strictly as it can be read, and answers 200 with the target.
//!
//! It judges: whatever reaches it must be a whole, well-formed request with our own framing and nothing of the caller's
//! credentials; anything else is noted as a violation.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::task::AbortOnDropHandle;

/// One request, as it was parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The method.
    pub method: String,
    /// The request target.
    pub target: String,
    /// Names in lower case, and values.
    pub fields: Vec<(String, String)>,
    /// The body, without its framing.
    pub body: Vec<u8>,
    /// Whether the body came to its end.
    pub complete: bool,
}

/// The listening judge.
#[derive(Debug)]
pub struct Recorder {
    addr: SocketAddr,
    notes: Arc<Notes>,
    _accepting: AbortOnDropHandle<()>,
}

#[derive(Debug, Default)]
struct Notes {
    seen: Mutex<Vec<Seen>>,
    violations: Mutex<Vec<String>>,
}

impl Recorder {
    /// Starts to listen on a free port, in the test's own runtime.
    pub async fn start() -> Self {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let addr = listener.local_addr().expect("a bound address");
        let notes = Arc::<Notes>::default();
        let accepting = AbortOnDropHandle::new(tokio::spawn(accept(listener, addr, Arc::clone(&notes))));
        Self { addr, notes, _accepting: accepting }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// All requests whose target contains `marker` as a whole segment.
    #[must_use]
    pub fn seen(&self, marker: &str) -> Vec<Seen> {
        let is_of_case = |seen: &&Seen| seen.target.split(['/', '?', '#', '%']).any(|segment| segment == marker);
        lock(&self.notes.seen).iter().filter(is_of_case).cloned().collect()
    }

    /// How many requests there were.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.notes.seen).len()
    }

    /// Everything that was not right about what came.
    #[must_use]
    pub fn violations(&self) -> Vec<String> {
        lock(&self.notes.violations).clone()
    }
}

async fn accept(listener: TcpListener, addr: SocketAddr, notes: Arc<Notes>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _peer)) = listener.accept().await {
        let mut connection = Connection { stream, read: Vec::new(), host: addr.to_string(), notes: Arc::clone(&notes) };
        connections.spawn(async move {
            match connection.serve().await {
                Err(Failed::Violation(what)) => lock(&connection.notes.violations).push(what),
                Err(Failed::Gone(_left)) => {}
                Ok(()) => {}
            }
        });
    }
}

enum Failed {
    Violation(String),
    Gone(#[allow(dead_code, reason = "shows in a debugger")] io::Error),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Gone(error)
    }
}

fn insist(holds: bool, what: &str, bytes: &[u8]) -> Result<(), Failed> {
    if holds { Ok(()) } else { Err(Failed::Violation(format!("{what}: {:?}", String::from_utf8_lossy(bytes)))) }
}

struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
    host: String,
    notes: Arc<Notes>,
}

impl Connection {
    async fn serve(&mut self) -> Result<(), Failed> {
        loop {
            let Some(head) = self.until(b"\r\n\r\n").await? else { return Ok(()) };
            let mut seen = parse(&head, &self.host)?;
            let body = self.body(&mut seen).await;
            seen.complete = body.is_ok();
            let answer = match seen.method.as_str() {
                "HEAD" => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_owned(),
                _ => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", seen.target.len(), seen.target),
            };
            if (seen.method.as_str(), seen.target.as_str()) != ("HEAD", "/") {
                lock(&self.notes.seen).push(seen);
            }
            body?;
            self.stream.write_all(answer.as_bytes()).await?;
        }
    }

    async fn body(&mut self, seen: &mut Seen) -> Result<(), Failed> {
        let field = |name: &str| seen.fields.iter().find(|field| field.0 == name).map(|field| field.1.clone());
        if let Some(length) = field("content-length") {
            let length = length.parse().map_err(|_| Failed::Violation(format!("Content-Length: {length:?}")))?;
            while seen.body.len() < length {
                if self.read.is_empty() {
                    self.more().await?;
                }
                let take = self.read.len().min(length - seen.body.len());
                seen.body.extend(self.read.drain(..take));
            }
        } else if field("transfer-encoding").is_some() {
            while let Some(chunk) = self.chunk().await? {
                seen.body.extend(chunk);
            }
        }
        Ok(())
    }

    async fn chunk(&mut self) -> Result<Option<Vec<u8>>, Failed> {
        let line = self.until(b"\r\n").await?.ok_or(io::Error::from(io::ErrorKind::UnexpectedEof))?;
        let size = &line[..line.len() - 2];
        insist(!size.is_empty() && size.iter().all(u8::is_ascii_hexdigit), "a chunk's size", &line)?;
        let text = std::str::from_utf8(size).expect("hexadecimal digits");
        let size = usize::from_str_radix(text, 16).map_err(|_| Failed::Violation(format!("a chunk of {text}")))?;
        while self.read.len() < size + 2 {
            self.more().await?;
        }
        let data: Vec<u8> = self.read.drain(..size).collect();
        let end: Vec<u8> = self.read.drain(..2).collect();
        insist(end == b"\r\n", "no line end behind a chunk, or a trailer", &end)?;
        Ok((size > 0).then_some(data))
    }

    /// Bytes up to and with `end`; `None` where the peer has finished before the first one.
    async fn until(&mut self, end: &[u8]) -> Result<Option<Vec<u8>>, Failed> {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|window| window == end) {
                return Ok(Some(self.read.drain(..at + end.len()).collect()));
            }
            match self.more().await {
                Err(Failed::Gone(_)) if self.read.is_empty() => return Ok(None),
                other => other?,
            }
        }
    }

    async fn more(&mut self) -> Result<(), Failed> {
        match self.stream.read_buf(&mut self.read).await? {
            0 => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            _ => Ok(()),
        }
    }
}

/// A head, read by the letter of RFC 9112 and by what our client promises on top of it.
fn parse(head: &[u8], host: &str) -> Result<Seen, Failed> {
    let text: String = head.iter().copied().map(char::from).collect();
    let mut lines = text[..text.len() - 4].split("\r\n");
    let mut start = lines.next().unwrap_or_default().split(' ');
    let is_token = |text: &str| !text.is_empty() && text.bytes().all(is_tchar);
    let (Some(method), Some(target), Some("HTTP/1.1"), None) = (start.next(), start.next(), start.next(), start.next())
    else {
        return Err(Failed::Violation(format!("request line of {text:?}")));
    };
    insist(is_token(method), "method", head)?;
    insist(target.starts_with('/') && target.chars().all(|c| c > ' ' && c != '\x7f'), "target", head)?;
    let mut fields = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').unwrap_or_default();
        insist(is_token(name), "field name", line.as_bytes())?;
        insist(value.chars().all(|c| c == '\t' || c >= ' ' && c != '\x7f'), "field value", line.as_bytes())?;
        fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let all = |wanted: &str| fields.iter().filter(|f| f.0 == wanted).map(|f| f.1.as_str()).collect::<Vec<_>>();
    insist(all("host") == [host], "Host", head)?;
    let (lengths, codings) = (all("content-length"), all("transfer-encoding"));
    insist(lengths.len() + codings.len() <= 1, "two framings", head)?;
    insist(codings.iter().all(|coding| *coding == "chunked"), "Transfer-Encoding", head)?;
    insist(lengths.iter().all(|l| !l.is_empty() && l.bytes().all(|b| b.is_ascii_digit())), "Content-Length", head)?;
    for (name, _) in &fields {
        insist(!stays_outside(name), &format!("{name} at the upstream"), head)?;
    }
    let (method, target) = (method.to_owned(), target.to_owned());
    Ok(Seen { method, target, fields, body: Vec::new(), complete: false })
}

/// What must never reach an upstream (T21, T23, T28, T31).
fn stays_outside(name: &str) -> bool {
    let names = [
        "authorization",
        "connection",
        "cookie",
        "expect",
        "forwarded",
        "http2-settings",
        "keep-alive",
        "origin",
        "referer",
        "te",
        "trailer",
        "upgrade",
        "x-api-key",
        "x-real-ip",
        "x-request-id",
    ];
    let prefixes = ["proxy-", "sec-", "tunnel-", "x-forwarded-"];
    names.contains(&name) || prefixes.iter().any(|prefix| name.starts_with(prefix))
}

fn is_tchar(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
