//! `tunneld tunnels` and `tunneld kick`: who is connected to a running server, and to be so no more.

use http::Method;
use serde_json::Value;
use tunnel_cli::{exit::Exit, settings::Origin};

use super::{Output, admin};

const EXAMPLES: &str = "\
Examples:
  tunneld tunnels --config tunneld.toml
  tunneld tunnels --config tunneld.toml --json | jq -r '.tunnels[].user'";

const KICK_EXAMPLES: &str = "\
Examples:
  tunneld kick t7 --config tunneld.toml        `tunneld tunnels` says the ids
  tunneld kick laptop --config tunneld.toml    by its name, if one desktop alone has it

What runs on it is cut. Its desktop connects again by itself: `tunneld revoke` keeps it out.";

/// The flags of `tunnels`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The server's answer as it is
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    admin: admin::AdminArgs,
}

/// The flags of `kick`.
#[derive(Debug, clap::Args)]
#[command(after_help = KICK_EXAMPLES)]
pub(super) struct KickArgs {
    /// Which tunnel: its id, such as t7, or the name of its desktop
    #[arg(value_name = "ID|NAME")]
    which: String,

    #[command(flatten)]
    admin: admin::AdminArgs,
}

pub(super) fn list(args: &Args, origin: Origin) -> Result<Output, Exit> {
    let (interface, _) = args.admin.interface(origin)?;
    let answer = interface.ask(Method::GET, "/tunnels", &Value::Null)?;
    if args.json {
        return Ok(Output { result: format!("{answer}\n"), hint: String::new() });
    }
    let tunnels = answer["tunnels"].as_array().map(Vec::as_slice).unwrap_or_default();
    let hint = if tunnels.is_empty() { "no desktop is connected\n" } else { "" };
    Ok(Output { result: table(tunnels), hint: hint.to_owned() })
}

pub(super) fn kick(args: &KickArgs, origin: Origin) -> Result<Output, Exit> {
    let (interface, _) = args.admin.interface(origin)?;
    let tunnels = interface.ask(Method::GET, "/tunnels", &Value::Null)?;
    let tunnels = tunnels["tunnels"].as_array().map(Vec::as_slice).unwrap_or_default();
    let id = meant(&args.which, tunnels).map_err(Exit::failed)?;
    let answer = interface.ask(Method::POST, &format!("/tunnels/{id}/kick"), &Value::Null)?;
    Ok(Output { result: format!("{answer}\n"), hint: String::new() })
}

/// The id of the tunnel that has this id, or whose desktop alone has this name.
fn meant<'a>(which: &str, tunnels: &'a [Value]) -> Result<&'a str, String> {
    let with = |key: &str| -> Vec<&'a Value> { tunnels.iter().filter(|tunnel| tunnel[key] == which).collect() };
    let id = |tunnel: &'a Value| tunnel["id"].as_str().unwrap_or_default();
    match (&with("id")[..], &with("name")[..]) {
        (&[tunnel], _) | (_, &[tunnel]) => Ok(id(tunnel)),
        (_, []) => Err(format!("no tunnel has the id or name {which:?}; `tunneld tunnels` lists those that are there")),
        (_, several) => {
            let each =
                |tunnel: &&'a Value| format!("{} of {}", id(tunnel), visible(tunnel["user"].as_str().unwrap_or("?")));
            let each: Vec<_> = several.iter().map(each).collect();
            Err(format!("several desktops are called {which:?}; name one by its id: {}", each.join(", ")))
        }
    }
}

/// A line for each tunnel, under a line of titles; columns as wide as they need to be.
fn table(tunnels: &[Value]) -> String {
    let titles = ["ID", "USER", "ISSUER", "NAME", "SINCE", "CLIENT", "RTT", "IN FLIGHT", ""].map(str::to_owned);
    let rows: Vec<[String; 9]> = [titles].into_iter().chain(tunnels.iter().map(row)).collect();
    let mut widths = [0; 9];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.chars().count().max(*width);
        }
    }
    let line = |row: &[String; 9]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

fn row(tunnel: &Value) -> [String; 9] {
    let text = |key: &str| visible(tunnel[key].as_str().unwrap_or_default());
    let rtt = tunnel["rtt_ms"].as_f64().map(|rtt| format!("{rtt:.1} ms")).unwrap_or_default();
    let draining = if tunnel["draining"] == true { "draining" } else { "" };
    let in_flight = tunnel["in_flight"].to_string();
    let [id, user, issuer, name] = ["id", "user", "issuer", "name"].map(text);
    [id, user, issuer, name, text("since"), text("client"), rtt, in_flight, draining.to_owned()]
}

/// What comes from tokens and desktops cannot move a cursor or start a line.
fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_tunnel_is_meant_by_its_id_or_by_a_name_of_its_own() {
        let tunnel = |id: &str, user: &str, name: &str| json!({"id": id, "user": user, "name": name});
        let tunnels = [
            tunnel("t1", "bob", "laptop"),
            tunnel("t2", "eve", "laptop"),
            tunnel("t3", "eve", "attic"),
            tunnel("t4", "eve", "t1"),
        ];
        assert_eq!(meant("t1", &tunnels), Ok("t1"));
        assert_eq!(meant("attic", &tunnels), Ok("t3"));
        let several = meant("laptop", &tunnels).unwrap_err();
        assert!(several.ends_with("by its id: t1 of bob, t2 of eve"), "{several}");
        for unknown in ["t9", "cellar", ""] {
            assert!(meant(unknown, &tunnels).unwrap_err().contains("`tunneld tunnels` lists"), "{unknown}");
        }
    }

    #[test]
    fn a_table_for_people() {
        let tunnels = [
            json!({"id": "t1", "user": "bob", "issuer": "tunneld", "name": "laptop", "since": "2026-01-31T13:17:00Z",
                "client": "tunnel/0.1.0", "rtt_ms": 20.25, "in_flight": 3, "draining": false}),
            json!({"id": "t10", "user": "e\u{1b}[31mve\n", "issuer": "tunneld", "name": "x", "since": "2026-01-31T13:18:00Z",
                "client": "", "rtt_ms": null, "in_flight": 0, "draining": true}),
        ];
        assert_eq!(
            table(&tunnels),
            "ID   USER       ISSUER   NAME    SINCE                 CLIENT        RTT      IN FLIGHT\n\
             t1   bob        tunneld  laptop  2026-01-31T13:17:00Z  tunnel/0.1.0  20.2 ms  3\n\
             t10  e\u{fffd}[31mve\u{fffd}  tunneld  x       2026-01-31T13:18:00Z                         0          draining\n"
        );
    }
}
