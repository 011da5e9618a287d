//! The operator's own listener: who may ask, and what is told.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use base64::prelude::{BASE64_STANDARD, Engine};
use http::{HeaderName, HeaderValue, Method, Request};
use integration_tests::{
    admin::{Administered, LISTEN, TOKEN, send},
    body::{self, Body},
    caller::Caller,
    eventually::{eventually, with_deadline},
    ollama::Ollama,
    pki::{self, SECRET},
    setup::{ALICE, Setup},
    workshop::{Workshop, run},
};
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use tunnel::event::Event;
use tunneld::config::AdminConfig;

#[tokio::test]
async fn tunnels_are_listed_and_kicked() {
    let this = Administered::start(Setup::new()).await;
    let other = this.world.connect("zoe", "laptop", this.world.ollama().addr()).await;
    let listed = this.admin().get("/tunnels").await.json().await;
    let tunnels = listed["tunnels"].as_array().unwrap();
    assert_eq!(tunnels.len(), 2);
    let [first, second] = [&tunnels[0], &tunnels[1]];
    assert_eq!((&first["user"], &first["issuer"]), (&json!(ALICE), &json!("tunneld")));
    assert_eq!((&second["user"], &second["name"]), (&json!("zoe"), &json!("laptop")));
    assert_eq!((&second["in_flight"], &second["draining"]), (&json!(0), &json!(false)));
    assert!(second["client"].as_str().unwrap().starts_with("tunnel/") && second["since"].is_string());
    let path = format!("/tunnels/{}/kick", second["id"].as_str().unwrap());
    assert_eq!(send(&this.admin(), Method::POST, &path).await.status(), 200);
    let kicked = |event: &Event| match event {
        Event::Disconnected { reason, .. } => Some(reason.clone()),
        _ => None,
    };
    assert!(other.event("a kick", kicked).await.contains("operator"));
    other.connected(2).await;
    assert_eq!(send(&this.admin(), Method::POST, &path).await.status(), 404);
    assert_eq!(this.world.client().connections(), 1);
}

fn with_header(request: Request<Body>, name: &'static str, value: &str) -> Request<Body> {
    let (mut parts, body) = request.into_parts();
    parts.headers.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    Request::from_parts(parts, body)
}

/// What is for nobody with a browser.
const ROUTES: [(Method, &str); 5] = [
    (Method::GET, "/tunnels"),
    (Method::POST, "/tunnels/t1/kick"),
    (Method::GET, "/revocations"),
    (Method::POST, "/revocations"),
    (Method::DELETE, "/revocations/0000000000000000"),
];

/// What needs no token.
const OPEN: [&str; 3] = ["/healthz", "/readyz", "/metrics"];

#[tokio::test]
async fn only_the_admin_token_opens_more_than_health() {
    let this = Administered::start(Setup::new()).await;
    let admin = this.admin();
    let user = pki::token(ALICE);
    let wrong = [None, Some("x"), Some(&TOKEN[1..]), Some(user.as_str()), Some(SECRET.split(' ').next().unwrap())];
    for token in wrong {
        let caller = token.map_or(admin.anonymous(), |token| admin.with_token(token));
        for (method, path) in ROUTES {
            let reply = send(&caller, method, path).await;
            assert_eq!((reply.status().as_u16(), reply.header("www-authenticate")), (401, "Bearer"), "{path}");
        }
        for path in OPEN {
            assert_eq!(caller.get(path).await.status(), 200, "{path}");
        }
    }
    assert_eq!(admin.get("/elsewhere").await.status(), 404);
    assert_eq!(admin.get("/api/version").await.status(), 404);
    // Nor does the public port know any of it.
    assert_eq!(this.world.caller().with_token(TOKEN).get("/tunnels").await.status(), 401);
    // A new token in the file, and the old one is nobody's.
    let fresh = "another-admin-token-another-admin-token";
    fs::write(this.file("admin"), fresh).unwrap();
    this.world.server().reload();
    eventually("the new token", async || (admin.with_token(fresh).get("/tunnels").await.status() == 200).then_some(()))
        .await;
    assert_eq!(admin.get("/tunnels").await.status(), 401);
}

#[tokio::test]
async fn web_pages_and_rebound_names_are_kept_out() {
    let this = Administered::start(Setup::new()).await;
    let admin = this.admin();
    let typed = [("sec-fetch-site", "same-origin"), ("sec-fetch-site", "none")];
    let viewable = OPEN.into_iter().chain(["/"]).map(|path| (Method::GET, path));
    for (method, path) in ROUTES.into_iter().chain(viewable.clone()) {
        for (name, value) in [
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("host", "evil.example"),
            ("host", "evil.example:9464"),
            ("host", "10.0.0.1"),
        ] {
            let request = with_header(admin.request(method.clone(), path, body::empty()), name, value);
            assert_eq!(admin.send(request).await.status(), 403, "{path} {name}: {value}");
        }
    }
    // A person may type an address that changes nothing, and only such.
    for (name, value) in typed {
        for (method, path) in ROUTES {
            let request = with_header(admin.request(method, path, body::empty()), name, value);
            assert_eq!(admin.send(request).await.status(), 403, "{path} {name}: {value}");
        }
        for (method, path) in viewable.clone() {
            let request = with_header(admin.request(method, path, body::empty()), name, value);
            assert_eq!(admin.send(request).await.status(), 200, "{path} {name}: {value}");
        }
    }
    let addr = this.world.server().admin_addr();
    for host in [format!("127.0.0.1:{}", addr.port()), "[::1]".into(), "LOCALHOST".into()] {
        let request = with_header(admin.request(Method::GET, "/tunnels", body::empty()), "host", &host);
        assert_eq!(admin.send(request).await.status(), 200, "{host}");
    }
    assert_eq!(this.admin().get("/revocations").await.json().await["revocations"], json!([]));
}

#[tokio::test]
async fn without_an_admin_token_there_are_only_health_and_metrics() {
    let world = Setup::new().server(|config| config.admin = Some(AdminConfig { listen: LISTEN, token_file: None }));
    let world = world.start().await;
    let admin = Caller::new("localhost", world.server().admin_addr(), None);
    assert_eq!(admin.get("/healthz").await.text().await, "{\"status\":\"ok\"}\n");
    assert_eq!(admin.get("/metrics").await.status(), 200);
    for caller in [admin.with_token(TOKEN), admin.with_token(""), admin.clone()] {
        for (method, path) in ROUTES.into_iter().chain([(Method::GET, "/")]) {
            assert_eq!(send(&caller, method, path).await.status(), 404, "{path}");
        }
    }
}

#[tokio::test]
async fn a_person_sees_the_page_with_the_token_as_the_password() {
    let this = Administered::start(Setup::new()).await;
    let _other = this.world.connect("<script>zoe</script>", "a-b.c", this.world.ollama().addr()).await;
    this.revoke(json!({"user": "<eve>", "at": "2026-01-31T12:00:00Z"})).await;
    this.revoke(json!({"jti": "abc", "at": "2026-01-31T12:00:00Z", "expires": "2999-01-31T12:00:00Z"})).await;
    let basic = |password: &str| format!("Basic {}", BASE64_STANDARD.encode(format!("anybody:{password}")));
    let nobody = this.admin().anonymous();
    let challenge = nobody.get("/").await;
    assert_eq!(challenge.status(), 401);
    assert!(challenge.header("www-authenticate").starts_with("Basic realm="), "{:?}", challenge.headers());
    let ask = async |method: Method, path: &str, credential: &str| {
        nobody.send(with_header(nobody.request(method, path, body::empty()), "authorization", credential)).await
    };
    let page = ask(Method::GET, "/", &basic(TOKEN)).await;
    assert_eq!((page.status().as_u16(), page.header("content-type")), (200, "text/html; charset=utf-8"));
    let policy = page.header("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-") && !policy.contains("script"), "{policy}");
    assert_eq!((page.header("cache-control"), page.header("x-content-type-options")), ("no-store", "nosniff"));
    let html = page.text().await;
    for shown in [ALICE, "&lt;script&gt;zoe&lt;/script&gt;", "a-b.c", "tunnel/", "ready", "<td>t", "tabindex"] {
        assert!(html.contains(shown), "{shown} is not in {html}");
    }
    for revoked in [
        "<tr><td>user <bdi>&lt;eve&gt;</bdi><br><small><bdi>tunneld</bdi></small><td>2026-01-31T12:00:00Z<td>for good</tr>",
        "<tr><td>token <bdi>abc</bdi><td>2026-01-31T12:00:00Z<td>2999-01-31T12:00:00Z</tr>",
    ] {
        assert!(html.contains(revoked), "{revoked} is not in {html}");
    }
    assert!(!html.contains("<script") && !html.contains(TOKEN), "{html}");
    for wrong in [basic(""), basic("x"), basic(&TOKEN[1..]), format!("Basic {TOKEN}"), "Basic".into(), "Basic *".into()]
    {
        assert_eq!(ask(Method::GET, "/", &wrong).await.status(), 401, "{wrong}");
    }
    // What a browser repeats by itself changes nothing.
    for (method, path) in ROUTES {
        assert_eq!(ask(method, path, &basic(TOKEN)).await.status(), 401, "{path}");
    }
}

#[tokio::test]
async fn the_commands_list_and_kick() {
    let shop = Workshop::new().await;
    let upstream = Ollama::start();
    let admin_token = shop.file("admin", TOKEN);
    let (mut server, addr) = shop.serve(&["--admin-listen", "127.0.0.1:0", "--admin-token-file", &admin_token]).await;
    let line = server.logs(&["admin interface is open"]).await;
    let listen = line.split("addr=").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    let ask = async |args: &[&str]| {
        run("tunneld", [args, &["--admin-listen", &listen, "--admin-token-file", &admin_token]].concat()).await
    };
    let nobody = ask(&["tunnels"]).await;
    assert!(nobody.success().len() == 1 && nobody.success()[0].starts_with("ID"), "{nobody:?}");
    let mut desktop = shop.connect(addr, upstream.addr(), &[]).await;
    let lines = ask(&["tunnels"]).await;
    let [_, line] = lines.success() else { panic!("{lines:?}") };
    assert!(["t1 ", " alice ", " tunneld ", " desktop ", " tunnel/"].iter().all(|part| line.contains(part)), "{line}");
    let json: Value = serde_json::from_str(&ask(&["tunnels", "--json"]).await.success()[0]).unwrap();
    assert_eq!(json["tunnels"][0]["id"], "t1");
    assert_eq!(ask(&["kick", "t1"]).await.success(), ["{\"kicked\":\"t1\"}"]);
    desktop.logs(&["the operator disconnected this desktop"]).await;
    server.logs(&["desktop connected", "t2"]).await;
    assert!(ask(&["kick", "t1"]).await.error(1).contains("no tunnel has the id or name \"t1\""));
    assert_eq!(ask(&["kick", "desktop"]).await.success(), ["{\"kicked\":\"t2\"}"]);
    let public = addr.to_string();
    let said = run("tunneld", ["tunnels", "--admin-listen", &public, "--admin-token-file", &admin_token]).await;
    assert!(said.error(1).contains("is where callers are served; name the admin interface: --admin-listen"));
}

/// The patience of the interface is 10 s.
#[tokio::test]
async fn t43_who_asks_and_does_not_read_is_cut() {
    let this = Administered::start(Setup::new().without_desktop()).await;
    let mut socket = TcpStream::connect(this.world.server().admin_addr()).await.unwrap();
    let requests = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    let asks = async { while socket.write_all(requests.as_bytes()).await.is_ok() {} };
    with_deadline("the interface gives up", asks).await;
    assert_eq!(this.admin().get("/healthz").await.status(), 200);
}
