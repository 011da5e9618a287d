//! The page for an operator with a browser: what runs and who is connected, at one look.
//!
//! No script, no form, nothing from elsewhere. Names come from desktops and tokens: each is escaped, and isolated so
//! that letters of another direction change nothing around it.

use std::{
    fmt::{self, Display, Write},
    time::{Duration, SystemTime},
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use http::HeaderValue;
use humantime::format_rfc3339_seconds;
use sha2::{Digest, Sha256};

use crate::{
    auth::revocation::{Revocation, Subject},
    registry::Tunnel,
    server::App,
};

const STYLE: &str = "\
:root{color-scheme:light dark;font:16px/1.5 system-ui,sans-serif}\
body{max-width:72rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}\
table{border-collapse:collapse;width:100%}\
th,td{text-align:left;padding:.35rem .75rem .35rem 0;border-bottom:1px solid #8884;vertical-align:top}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}\
.w{overflow-x:auto;background:\
linear-gradient(90deg,Canvas 40%,#0000) 0/3rem 100% local,linear-gradient(270deg,Canvas 40%,#0000) 100%/3rem 100% local,\
linear-gradient(90deg,#8888,#0000) 0/1rem 100%,linear-gradient(270deg,#8888,#0000) 100%/1rem 100%;background-repeat:no-repeat}\
.r bdi{overflow-wrap:anywhere}footer{margin-top:2rem;color:#777}";

/// The page, and the policy under which a browser shows it.
pub(super) fn page(app: &App) -> (String, HeaderValue) {
    let style = BASE64.encode(Sha256::digest(STYLE));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{style}'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let mut html = String::new();
    write(&mut html, app).expect("a String takes everything");
    (html, HeaderValue::try_from(policy).expect("words and base64"))
}

fn write(html: &mut String, app: &App) -> fmt::Result {
    let tunnels = app.registry.all();
    let state = if app.is_draining() { "draining" } else { "ready" };
    writeln!(
        html,
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<meta http-equiv=\"refresh\" content=\"10\">\n\
         <title>tunneld, desktops: {}</title>\n<style>{STYLE}</style>\n\
         <h1>tunneld {}</h1>\n<p>{state}, up for {}</p>",
        tunnels.len(),
        env!("CARGO_PKG_VERSION"),
        since(app.started),
    )?;
    writeln!(html, "<h2>Desktops</h2>")?;
    if tunnels.is_empty() {
        writeln!(html, "<p>None is connected.</p>")?;
    } else {
        writeln!(
            html,
            "{}<table>\n<tr><th>id<th>user<th>name<th>client<th>upstream<th>connected<th class=\"n\">round trip\
             <th class=\"n\">in flight<th></tr>",
            wide("Desktops"),
        )?;
        tunnels.iter().try_for_each(|tunnel| row(html, tunnel))?;
        writeln!(html, "</table></div>")?;
    }
    writeln!(html, "<h2>Requests since the start</h2>\n{}<table>", wide("Requests"))?;
    writeln!(html, "<tr><th>outcome<th class=\"n\">requests</tr>")?;
    for (outcome, count) in app.metrics.outcomes() {
        writeln!(html, "<tr><td>{}<td class=\"n\">{count}</tr>", Text(&outcome))?;
    }
    writeln!(html, "</table></div>\n<h2>Revoked</h2>")?;
    let revocations = app.authenticator.revocations().all();
    if revocations.is_empty() {
        writeln!(html, "<p>Nothing.</p>")?;
    }
    if !revocations.is_empty() {
        writeln!(html, "{}<table class=\"r\">\n<tr><th>what<th>since<th>until</tr>", wide("Revoked"))?;
        revocations.iter().try_for_each(|revocation| revoked(html, revocation))?;
        writeln!(html, "</table></div>")?;
    }
    writeln!(
        html,
        "<footer>All figures: <a href=\"/metrics\">/metrics</a>. To disconnect a desktop: tunneld kick ID; to keep it \
         out: tunneld revoke.</footer>\n</html>"
    )
}

/// The beginning of what holds a table: it scrolls sideways where there is no room, by keys as well.
fn wide(name: &str) -> String {
    format!("<div class=\"w\" tabindex=\"0\" role=\"group\" aria-label=\"{name}\">")
}

fn row(html: &mut String, tunnel: &Tunnel) -> fmt::Result {
    let rtt = tunnel.session.rtt().map_or(String::new(), |rtt| format!("{:.1} ms", rtt.as_secs_f64() * 1e3));
    let upstream = tunnel.models().map_or(String::new(), |offers| {
        let count = offers.models.len() + offers.left_out as usize;
        let version = offers.version.map_or(String::new(), |version| format!("{}, ", Text(&version)));
        format!("{version}models: {count}")
    });
    writeln!(
        html,
        "<tr><td>{}<td>{}<br><small>{}</small><td>{}<td>{}<td>{upstream}<td>{} ago<td class=\"n\">{rtt}<td class=\"n\">{}<td>{}</tr>",
        tunnel.id,
        Text(tunnel.user.subject()),
        Text(tunnel.user.issuer()),
        Text(&tunnel.name),
        Text(&tunnel.client),
        since(tunnel.since),
        tunnel.session.streams(),
        if tunnel.takes_requests() { "" } else { "draining" },
    )
}

fn revoked(html: &mut String, revocation: &Revocation) -> fmt::Result {
    match &revocation.subject {
        Subject::Token(jti) => write!(html, "<tr><td>token {}", Text(jti))?,
        Subject::User(user) => {
            write!(html, "<tr><td>user {}<br><small>{}</small>", Text(user.subject()), Text(user.issuer()))?;
        }
    }
    let until = revocation.expires.map_or("for good".into(), |time| format_rfc3339_seconds(time).to_string());
    writeln!(html, "<td>{}<td>{until}</tr>", format_rfc3339_seconds(revocation.at))
}

/// How long ago, to the second.
fn since(time: SystemTime) -> impl Display {
    let elapsed = SystemTime::now().duration_since(time).unwrap_or_default();
    humantime::format_duration(Duration::from_secs(elapsed.as_secs()))
}

/// Text from outside.
struct Text<'a>(&'a str);

impl Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<bdi>")?;
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;"),
                '<' => f.write_str("&lt;"),
                '>' => f.write_str("&gt;"),
                '"' => f.write_str("&quot;"),
                '\'' => f.write_str("&#39;"),
                c if c.is_control() => f.write_char('\u{fffd}'),
                c => f.write_char(c),
            }?;
        }
        f.write_str("</bdi>")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_outside_are_text() {
        let shown = Text("<script>alert('1')</script> \"&\" \u{1b}[31m").to_string();
        assert_eq!(shown, "<bdi>&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt; &quot;&amp;&quot; \u{fffd}[31m</bdi>");
    }
}
