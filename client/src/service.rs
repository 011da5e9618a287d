//! The client as a systemd service of its user: the unit's text, where it lies, and what systemd is told.
//!
//! The token never stands in the unit, which other programs of the user may read and show.

use std::{
    fmt::Write,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use tunnel_cli::settings;

/// The unit's name.
pub(crate) const UNIT: &str = "tunnel.service";

/// What a user's own manager can enforce without privileges. Anything that needs a mount namespace is left out: it
/// fails where users may not make them.
const HARDENING: &str = "\
NoNewPrivileges=yes
LockPersonality=yes
MemoryDenyWriteExecute=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictNamespaces=yes
RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
UMask=0077
";

/// The unit that runs `program` with `args`.
pub(crate) fn unit(program: &Path, args: &[String]) -> String {
    let mut command = quoted(&program.display().to_string());
    for arg in args {
        write!(command, " {}", quoted(arg)).expect("a String takes everything");
    }
    format!(
        "# Written by `tunnel service install`, which overwrites it.
[Unit]
Description=Makes this desktop's Ollama reachable through a tunneld server

[Service]
ExecStart={command}
Restart=on-failure
RestartSec=5
# Wrong configuration, and refused for good: waiting changes nothing.
RestartPreventExitStatus=64 77
# Requests may finish for 30 s.
TimeoutStopSec=40
{HARDENING}
[Install]
WantedBy=default.target
"
    )
}

/// A word of `ExecStart`: quoted, and free of what systemd would replace (systemd.service(5), "Command lines").
fn quoted(word: &str) -> String {
    let escaped = word.replace('\\', r"\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    let plain = |c: char| c.is_ascii_alphanumeric() || "_./:=@+-,".contains(c);
    if !word.is_empty() && word.chars().all(plain) { escaped } else { format!("\"{escaped}\"") }
}

/// Where the unit lies.
pub(crate) fn path() -> io::Result<PathBuf> {
    let directory = settings::config_directory("systemd").ok_or_else(|| io::Error::other("this user has no home"))?;
    Ok(directory.join("user").join(UNIT))
}

/// Writes a file that only its user can read, in directories that are made if need be. Whole or not at all.
pub(crate) fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(directory)?;
    let partial = path.with_extension("partial");
    _ = fs::remove_file(&partial);
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    io::Write::write_all(&mut options.open(&partial)?, text.as_bytes())?;
    fs::rename(partial, path)
}

/// Runs `systemctl --user`. What it printed; the error is what it said, in one line.
pub(crate) fn systemctl(args: &[&str]) -> Result<String, String> {
    let output = Command::new("systemctl").arg("--user").args(args).output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => "there is no systemctl on this machine".to_owned(),
        _ => format!("systemctl: {error}"),
    })?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        let said = [text(&output.stderr), text(&output.stdout)].concat();
        Err(said.lines().next().unwrap_or("systemctl failed").to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_program_as_they_are() {
        assert_eq!(quoted("/usr/bin/tunnel"), "/usr/bin/tunnel");
        assert_eq!(quoted("GET /v1/*"), "\"GET /v1/*\"");
        assert_eq!(quoted(r#"100% "$HOME" \n"#), r#""100%% \"$$HOME\" \\n""#);
        assert_eq!(quoted(""), "\"\"");
    }

    #[cfg(unix)]
    #[test]
    fn a_private_file_is_private_from_the_start_and_replaced_whole() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        for text in ["one", "two"] {
            write_private(&path, text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(fs::read_dir(dir.path().join("a")).unwrap().count(), 1);
    }
}
