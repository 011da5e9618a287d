//! tunneld itself: is it one, do the clocks agree, is the token good, does the upgrade pass, do answers stream.

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use serde::Deserialize;
use tokio::time::timeout;
use tunnel_certs::client::reason;

use super::{Finding, NoToken, Patient, caller};
use crate::{
    config::origin,
    connector::{self, Connector},
    dial::{DialError, Dialer, PROXYS, Probed, wants_tls},
    token::Token,
};

/// Clocks that differ by more than this make good tokens bad: tunneld's own leeway.
const CLOCKS: Duration = Duration::from_secs(30);

/// A token that ends sooner than this should be replaced.
const TOKEN_SOON: Duration = Duration::from_secs(60 * 60);

/// The answers that are read are small.
const LARGEST: usize = 64 * 1024;

/// Ticks come for about a second; who holds them back may do so for long.
const TICKS_WITHIN: Duration = Duration::from_secs(15);

pub(super) async fn examine(patient: &Patient, tell: &mut impl FnMut(Finding)) {
    let asking = Asking::new(patient);
    let head = match asking.get("/api/tunnel/health", None).await {
        Ok(answer) if answer.status == StatusCode::OK && &*answer.body == b"{\"status\":\"ok\"}\n" => {
            tell(Finding::good("server", format!("{} is a tunneld", asking.origin)));
            answer.headers
        }
        Ok(answer) if wants_tls(&patient.server, answer.status, &answer.body) => {
            let found = format!("{} does not answer in plain HTTP (status 400)", asking.origin);
            return tell(Finding::bad("server", found).advise("if it speaks TLS, write https://"));
        }
        Ok(answer) if PROXYS.contains(&answer.status) => {
            let found = format!("a proxy answers at {} and does not reach tunneld ({})", asking.origin, answer.status);
            return tell(
                Finding::bad("server", found).advise("is tunneld running there? While it restarts, wait a moment"),
            );
        }
        Ok(answer) => {
            let found = format!("{} answers, but is no tunneld (status {})", asking.origin, answer.status.as_u16());
            return tell(
                Finding::bad("server", found).advise("check --server; a proxy in front must pass every path on"),
            );
        }
        Err(problem) => {
            let finding = Finding::bad("server", format!("{} does not answer in HTTP: {problem}", asking.origin));
            let plain = patient.server.scheme() == "http";
            return tell(if plain { finding.advise("if it speaks TLS, write https://") } else { finding });
        }
    };
    tell(clock(&head, SystemTime::now()));
    let token = match &patient.token {
        Ok(token) => token,
        Err(NoToken::Unusable(problem)) => return tell(Finding::bad("token", problem.clone())),
        Err(NoToken::NotAsked) => {
            return tell(Finding::doubtful(
                "token",
                "none given: what needs one is left out",
                "add --token-file FILE to look at all that `tunnel connect` needs",
            ));
        }
    };
    let status = asking.get("/api/tunnel/status", Some(token)).await;
    let finding = accepted(token, &status);
    let accepted = finding.result != super::Verdict::Bad;
    tell(finding);
    if patient.is_caller() {
        tell(Finding::good(
            "caller",
            "the token sends requests and connects no desktop: what only one needs is left out",
        ));
    }
    let (Ok(Answer { body: status, .. }), true) = (status, accepted) else { return };
    if patient.is_caller() {
        tell(caller::desktop(&status, token.claims().tunnel.as_deref()));
    } else {
        tell(upgrade(patient, token).await);
    }
    tell(buffering(&asking, token).await);
}

/// Asks the server, on connections as the tunnel's.
struct Asking {
    origin: String,
    client: Client<Connector, Empty<Bytes>>,
}

struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Asking {
    fn new(patient: &Patient) -> Self {
        let client =
            Client::builder(TokioExecutor::new()).pool_timer(TokioTimer::new()).build(patient.connector.clone());
        Self { origin: origin(&patient.server), client }
    }

    async fn send(&self, path: &str, token: Option<&Token>) -> Result<Response<Incoming>, String> {
        let mut request = Request::get(format!("{}{path}", self.origin))
            .header(header::USER_AGENT, crate::USER_AGENT)
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        if let Some(token) = token {
            let bearer = HeaderValue::try_from(format!("Bearer {}", token.secret()));
            let mut bearer = bearer.map_err(|error| error.to_string())?;
            bearer.set_sensitive(true);
            request.headers_mut().insert(header::AUTHORIZATION, bearer);
        }
        let sent = timeout(connector::WITHIN, self.client.request(request)).await;
        sent.map_err(|_| "no answer in time".to_owned())?.map_err(|error| reason(&error))
    }

    async fn get(&self, path: &str, token: Option<&Token>) -> Result<Answer, String> {
        let (head, body) = self.send(path, token).await?.into_parts();
        let body = timeout(connector::WITHIN, Limited::new(body, LARGEST).collect()).await;
        let body = body.map_err(|_| "no answer in time".to_owned())?.map_err(|error| error.to_string())?;
        Ok(Answer { status: head.status, headers: head.headers, body: body.to_bytes() })
    }
}

/// Compares the `Date` of an answer with our time.
fn clock(head: &HeaderMap, now: SystemTime) -> Finding {
    let date = head.get(header::DATE).and_then(|date| httpdate::parse_http_date(date.to_str().ok()?).ok());
    let Some(date) = date else {
        return Finding::doubtful("clock", "the server says no time", "a proxy on the way drops the header Date");
    };
    // A date has whole seconds.
    let apart = now.duration_since(date).unwrap_or_else(|error| error.duration());
    let seconds = apart.as_secs();
    match seconds {
        0..=2 => Finding::good("clock", "this computer and the server agree"),
        _ if apart <= CLOCKS => Finding::good("clock", format!("{seconds} s apart from the server's")),
        _ => Finding::bad("clock", format!("this computer and the server are {seconds} s apart"))
            .advise("set both clocks (NTP): tokens are judged by time"),
    }
}

/// What the token says, and what the server says to it.
fn accepted(token: &Token, answer: &Result<Answer, String>) -> Finding {
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
    }
    let claims = token.claims();
    let left = claims.expires().map(|end| end.duration_since(SystemTime::now()).unwrap_or_default());
    let scope = claims.scope().unwrap_or_else(|| "connect and proxy, by default".to_owned());
    let user = claims.subject.as_deref().unwrap_or("nobody");
    let said = match left {
        Some(Duration::ZERO) => format!("of {user}, expired, scope: {scope}"),
        Some(left) => format!("of {user}, for {}, scope: {scope}", rough(left)),
        None => format!("of {user}, scope: {scope}"),
    };
    match answer {
        Ok(answer) if answer.status == StatusCode::OK => match left {
            Some(left) if left < TOKEN_SOON => Finding::doubtful(
                "token",
                format!("accepted: {said}"),
                "it ends soon: put a new one into the token file, without a restart (tunneld token --ttl 90d)",
            ),
            _ => Finding::good("token", format!("accepted: {said}")),
        },
        Ok(answer) => {
            let code = answer.headers.get("tunnel-error").and_then(|code| code.to_str().ok()).unwrap_or("?");
            let sentence = serde_json::from_slice::<Refusal>(&answer.body).map(|refusal| refusal.error);
            let sentence = sentence.unwrap_or_else(|_| format!("status {}", answer.status.as_u16()));
            Finding::bad("token", format!("refused ({code}): {said}")).advise(sentence)
        }
        Err(problem) => Finding::bad("token", format!("no answer: {problem}")),
    }
}

/// In one unit: `89 days`, `11 hours`, `5 minutes`.
fn rough(duration: Duration) -> String {
    const HOUR: u64 = 3600;
    const DAY: u64 = 24 * HOUR;
    match duration.as_secs() {
        seconds if seconds >= 2 * DAY => format!("{} days", seconds / DAY),
        seconds if seconds >= 2 * HOUR => format!("{} hours", seconds / HOUR),
        seconds => format!("{} minutes", seconds / 60),
    }
}

/// A handshake as the tunnel's own that registers nothing.
async fn upgrade(patient: &Patient, token: &Token) -> Finding {
    let dialer = Dialer::new(patient.connector.clone());
    match dialer.probe(&patient.server, token, &patient.name).await {
        Ok(Probed { version, rtt }) => {
            let rtt = rtt.as_secs_f64() * 1e3;
            Finding::good("upgrade", format!("WebSocket passes, tunneld {version}, rtt {rtt:.1} ms"))
        }
        Err(DialError::Refused(refusal)) => {
            let finding = Finding::bad("upgrade", format!("refused ({}): {}", refusal.code, refusal.message));
            if refusal.code == "upgrade_required" {
                return finding.advise(
                    "a proxy on the way drops the header Upgrade; nginx needs proxy_http_version 1.1 and \
                     proxy_set_header Upgrade $http_upgrade at /ws/tunnel",
                );
            }
            finding
        }
        Err(DialError::Unreachable(problem)) => Finding::bad("upgrade", problem)
            .advise("a proxy on the way may not pass WebSocket on: look at its configuration for /ws/tunnel"),
    }
}

/// The server sends ticks with pauses: whether they arrive with pauses.
async fn buffering(asking: &Asking, token: &Token) -> Finding {
    let arrivals = async {
        let response = asking.send("/api/tunnel/ticks", Some(token)).await?;
        if response.status() != StatusCode::OK {
            return Err(format!("status {}", response.status().as_u16()));
        }
        let mut body = response.into_body();
        let mut arrivals = Vec::new();
        while let Some(frame) = body.frame().await {
            let data = frame.map_err(|error| error.to_string())?.into_data().unwrap_or_default();
            let now = Instant::now();
            arrivals.extend(data.iter().filter(|byte| **byte == b'\n').map(|_| now));
        }
        Ok(arrivals)
    };
    match timeout(TICKS_WITHIN, arrivals).await {
        Ok(Ok(arrivals)) => spread(&arrivals),
        Ok(Err(problem)) => Finding::bad("streaming", format!("cannot be measured: {problem}")),
        Err(_) => Finding::bad("streaming", "answers are held back for longer than 15 s").advise(UNBUFFERED),
    }
}

const UNBUFFERED: &str = "a proxy on the way collects answers: switch that off (nginx: proxy_buffering off)";

/// Ticks are 200 ms apart when they leave; one whose gap has gone came together with the one before.
fn spread(arrivals: &[Instant]) -> Finding {
    const APART: Duration = Duration::from_millis(50);
    let gaps = arrivals.windows(2).map(|pair| pair[1].duration_since(pair[0]));
    let together = gaps.filter(|gap| *gap < APART).count();
    match arrivals.len() {
        0 | 1 => Finding::bad("streaming", "the server sent no ticks").advise("is the server older than this client?"),
        ticks if together == 0 => Finding::good("streaming", format!("{ticks} ticks arrived one by one")),
        ticks if together == ticks - 1 => {
            Finding::bad("streaming", format!("{ticks} ticks arrived in one lump")).advise(UNBUFFERED)
        }
        ticks => {
            Finding::doubtful("streaming", format!("{} of {ticks} ticks arrived together", together + 1), UNBUFFERED)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::Verdict, *};

    #[test]
    fn ticks_that_come_together_are_noticed() {
        let start = Instant::now();
        let found = |at: &[u64]| {
            let arrivals: Vec<_> = at.iter().map(|ms| start + Duration::from_millis(*ms)).collect();
            spread(&arrivals).result
        };
        assert_eq!(found(&[0, 200, 400, 600, 800]), Verdict::Good);
        assert_eq!(found(&[0, 190, 410, 480, 800]), Verdict::Good); // a busy line
        assert_eq!(found(&[800, 800, 801, 801, 801]), Verdict::Bad);
        assert_eq!(found(&[400, 400, 400, 800, 800]), Verdict::Doubtful);
        assert_eq!(found(&[]), Verdict::Bad);
    }

    #[test]
    fn what_is_left_of_a_token() {
        let rough = |seconds| rough(Duration::from_secs(seconds));
        assert_eq!([rough(90 * 86_400 - 1), rough(43_199), rough(200)], ["89 days", "11 hours", "3 minutes"]);
    }

    #[test]
    fn clocks() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let found = |seconds: i64| {
            let shift = Duration::from_secs(seconds.unsigned_abs());
            let server = if seconds < 0 { now - shift } else { now + shift };
            let date = HeaderValue::try_from(httpdate::fmt_http_date(server)).unwrap();
            clock(&HeaderMap::from_iter([(header::DATE, date)]), now).result
        };
        assert_eq!([found(0), found(-1), found(20)], [Verdict::Good; 3]);
        assert_eq!([found(31), found(-3600)], [Verdict::Bad; 2]);
        assert_eq!(clock(&HeaderMap::new(), now).result, Verdict::Doubtful);
    }
}
