//! The documents say what is there: settings, links, and which test guards which threat.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// All Rust source files of the workspace.
fn sources() -> Vec<String> {
    let crates = ["bench", "certs", "cli", "client", "frame", "fuzz/cases", "integration-tests", "oidc", "server"];
    let mut folders: Vec<PathBuf> = crates.iter().map(|name| root().join(name)).collect();
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                files.push(fs::read_to_string(entry).expect("a source file"));
            }
        }
    }
    files
}

/// Names of tests by the ids that they carry: `t34_t39_every_error` has two.
fn tests_by_id() -> BTreeMap<String, Vec<String>> {
    let is_id = |word: &str| word.len() == 3 && word.starts_with(['t', 'f']) && word[1..].parse::<u8>().is_ok();
    let mut tests = BTreeMap::<String, Vec<String>>::new();
    for source in sources() {
        for line in source.lines().map(str::trim_start) {
            let Some(rest) = line.strip_prefix("fn ").or_else(|| line.strip_prefix("async fn ")) else { continue };
            let name = rest.split('(').next().unwrap_or_default();
            for id in name.split('_').take_while(|word| is_id(word)) {
                tests.entry(id.to_uppercase()).or_default().push(name.to_owned());
            }
        }
    }
    for names in tests.values_mut() {
        names.sort();
    }
    tests
}

#[test]
fn security_names_the_tests_that_there_are() {
    let mut tests = tests_by_id();
    let mut fresh = String::new();
    let document = read("docs/security.md");
    for line in document.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let known = match cells[..] {
            ["", id, what, _, ""] => tests.remove(id).map(|names| (id, what, names)),
            _ => None,
        };
        let result = match known {
            Some((id, what, names)) => writeln!(fresh, "| {id} | {what} | `{}` |", names.join("` `")),
            None => writeln!(fresh, "{line}"),
        };
        result.expect("a String takes everything");
    }
    assert!(tests.is_empty(), "docs/security.md has no row for {tests:?}");
    if std::env::var_os("UPDATE").is_some() {
        fs::write(root().join("docs/security.md"), &fresh).expect("the document can be written");
    } else {
        assert!(document == fresh, "run: UPDATE=1 cargo test -p integration-tests --test documents");
    }
    for row in fresh.lines().filter(|line| line.starts_with("| T") || line.starts_with("| F")) {
        assert!(row.contains('`') && !row.ends_with("|  |"), "nothing guards this: {row}");
    }
}

#[test]
fn operations_has_each_setting_once() {
    let document = read("docs/operations.md");
    for source in ["server/src/cli/settings.rs", "client/src/cli/settings.rs", "client/src/cli/connect.rs"] {
        let source = read(source);
        let variables = source.split("env = \"").skip(1).filter_map(|rest| rest.split('"').next());
        for variable in variables.filter(|variable| variable.starts_with("TUNNEL")) {
            let (_, name) = variable.split_once('_').expect("a prefix");
            let flag = format!("| `--{}", name.to_lowercase().replace('_', "-"));
            let is_row = |line: &&str| {
                line.contains(&format!("`{variable}`"))
                    && line.strip_prefix(&flag).is_some_and(|rest| rest.starts_with([' ', '`']))
            };
            assert_eq!(document.lines().filter(is_row).count(), 1, "{variable} in docs/operations.md");
        }
    }
}

#[test]
fn links_lead_somewhere() {
    let documents = [
        "README.md",
        "SECURITY.md",
        "CHANGELOG.md",
        "docs/architecture.md",
        "docs/operations.md",
        "docs/protocol.md",
        "docs/security.md",
    ];
    for document in documents {
        let text = read(document);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.starts_with("http") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let folder = root().join(document).parent().expect("a folder").to_owned();
            let linked = if path.is_empty() { root().join(document) } else { folder.join(path) };
            let linked = fs::read_to_string(linked).unwrap_or_else(|error| panic!("{document} to {target}: {error}"));
            let anchors = linked.lines().filter(|line| line.starts_with('#')).map(anchor_of).collect::<Vec<_>>();
            assert!(anchor.is_empty() || anchors.iter().any(|known| known == anchor), "{document} to {target}");
        }
    }
}

#[test]
fn deployments_name_settings_and_files_that_there_are() {
    let settings = read("server/src/cli/settings.rs");
    for file in ["deploy/Dockerfile", "deploy/compose.yaml"] {
        let text = read(file);
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for variable in words.filter(|word| word.starts_with("TUNNELD_")) {
            assert!(settings.contains(&format!("env = \"{variable}\"")), "{variable} in {file}");
        }
    }
    let compose = read("deploy/compose.yaml");
    for (named, path) in
        [("./nginx.conf:", "deploy/nginx.conf"), ("dockerfile: deploy/Dockerfile", "deploy/Dockerfile")]
    {
        assert!(compose.contains(named) && root().join(path).exists(), "{named}");
    }
    // nginx finds tunneld where it listens by default with --plain-http, and the certificate where compose puts it.
    let nginx = read("deploy/nginx.conf");
    assert!(nginx.contains(&tunneld::config::DEFAULT_LISTEN_PLAIN.to_string()), "{nginx}");
    assert!(nginx.contains("/etc/ssl/tunnel/fullchain.pem") && compose.contains("./certs:/etc/ssl/tunnel:ro"));
    // Each secret that tunneld is told to read is handed to it.
    let secrets = compose.split("/run/secrets/").skip(1).filter_map(|rest| rest.lines().next()).collect::<Vec<_>>();
    assert!(secrets.contains(&"secret") && secrets.contains(&"admin-token"), "{secrets:?}");
    for secret in secrets {
        assert!(compose.contains(&format!("\n  {secret}:\n    file: ./secrets/{secret}\n")), "{secret}");
    }
    // What lies beside compose.yaml then is neither committed nor sent to the build.
    let ignored = read(".dockerignore");
    assert!(ignored.contains("\n*\n") && !ignored.contains("!deploy"), "{ignored}");
    for folder in ["certs", "secrets"] {
        assert!(read(".gitignore").contains(&format!("\n/deploy/{folder}\n")), "{folder}");
    }
    let workspace = read("Cargo.toml");
    let members = workspace.split_once("members = [").and_then(|(_, rest)| rest.split_once(']')).expect("members").0;
    for member in members.split('"').skip(1).step_by(2).chain(["web"]) {
        assert!(ignored.contains(&format!("!{member}\n")), "the image cannot be built without {member}");
    }
}

/// As GitHub makes it from a heading.
fn anchor_of(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
    text.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect()
}
