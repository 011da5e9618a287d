//! How `tunnel status` reaches the clients that run on this machine for the same user. The only file that knows how
//! this differs between platforms.
//!
//! Each client leaves one file in a directory that only its user can enter: a socket, or, where there are none, the
//! port on the loopback interface and a secret without which nothing is told. Who connects is told the report as one
//! line of JSON. A client that cannot do this goes without.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};
use tunnel_cli::settings;

#[cfg(not(unix))]
use loopback as platform;
#[cfg(unix)]
use unix as platform;

/// A program on the same machine that takes longer is stuck.
const WITHIN: Duration = Duration::from_secs(2);

/// A report is some kilobytes.
const LARGEST: u64 = 1024 * 1024;

/// The directory of the clients of this user.
pub(crate) fn directory() -> io::Result<PathBuf> {
    match settings::runtime_directory() {
        Some(base) => Ok(base.join("tunnel")),
        None => Ok(std::env::temp_dir().join(format!("tunnel-{}", platform::user()?))),
    }
}

/// A place at which this process can be asked. Its file is removed when it is dropped.
pub(crate) struct Place {
    listener: platform::Listener,
    file: PathBuf,
}

impl Place {
    /// Opens a place for this process in `directory`, which is made if it does not exist.
    pub(crate) async fn open(directory: &Path) -> io::Result<Self> {
        platform::make_private(directory)?;
        let file = directory.join(format!("{}.{}", std::process::id(), platform::EXTENSION));
        _ = fs::remove_file(&file); // of a process that had the same number and was killed
        let listener = platform::Listener::bind(&file).await?;
        Ok(Self { listener, file })
    }

    /// Tells everyone who asks, for ever.
    pub(crate) async fn serve(&self, report: impl Fn() -> String) -> ! {
        loop {
            let told = async {
                let mut stream = self.listener.accept().await?;
                timeout(WITHIN, stream.write_all(report().as_bytes())).await?
            };
            if told.await.is_err() {
                // Out of file descriptors, perhaps.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        _ = fs::remove_file(&self.file);
    }
}

/// What all clients of this directory tell; nothing if others could have put something there. Files of those that are
/// gone are removed.
pub(crate) async fn ask(directory: &Path) -> Vec<String> {
    let mut told = Vec::new();
    if platform::check_private(directory).is_err() {
        return told;
    }
    let entries = fs::read_dir(directory).into_iter().flatten().filter_map(Result::ok);
    for file in entries.map(|entry| entry.path()) {
        let is_place = fs::symlink_metadata(&file).is_ok_and(|found| platform::is_place(found.file_type()));
        if !is_place || file.extension().is_none_or(|extension| extension != platform::EXTENSION) {
            continue;
        }
        let ask = async {
            let mut text = String::new();
            platform::connect(&file).await?.take(LARGEST).read_to_string(&mut text).await?;
            io::Result::Ok(text)
        };
        match timeout(WITHIN, ask).await {
            Ok(Ok(text)) => told.push(text),
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => _ = fs::remove_file(&file),
            Ok(Err(_)) | Err(_) => {}
        }
    }
    told
}

#[cfg(unix)]
mod unix {
    use std::{
        fs, io,
        os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt},
        path::Path,
    };

    use tokio::net::{UnixListener, UnixStream};

    pub(super) const EXTENSION: &str = "sock";

    pub(super) struct Listener(UnixListener);

    impl Listener {
        #[expect(clippy::unused_async, reason = "another platform's may wait")]
        pub(super) async fn bind(file: &Path) -> io::Result<Self> {
            let listener = UnixListener::bind(file)?;
            fs::set_permissions(file, fs::Permissions::from_mode(0o600))?;
            Ok(Self(listener))
        }

        pub(super) async fn accept(&self) -> io::Result<UnixStream> {
            self.0.accept().await.map(|(stream, _)| stream)
        }
    }

    pub(super) async fn connect(file: &Path) -> io::Result<UnixStream> {
        UnixStream::connect(file).await
    }

    /// Who we are.
    pub(super) fn user() -> io::Result<u32> {
        Ok(UnixStream::pair()?.0.peer_cred()?.uid())
    }

    /// Makes a directory that is ours alone, or checks that it is: in a temporary directory anyone may have been first.
    pub(super) fn make_private(directory: &Path) -> io::Result<()> {
        match fs::DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => check_private(directory),
        }
    }

    /// Checks that a directory is ours alone, and no link to another.
    pub(super) fn check_private(directory: &Path) -> io::Result<()> {
        let found = fs::symlink_metadata(directory)?;
        if found.is_dir() && found.uid() == user()? && found.mode() & 0o777 == 0o700 {
            Ok(())
        } else {
            Err(io::Error::other(format!("{} is not a directory of this user alone", directory.display())))
        }
    }

    /// Whether a file is of the kind that a client leaves.
    pub(super) fn is_place(kind: fs::FileType) -> bool {
        kind.is_socket()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[tokio::test]
        async fn a_directory_that_others_can_enter_is_not_used() {
            let dir = tempfile::tempdir().unwrap();
            let (private, open, link) = (dir.path().join("a"), dir.path().join("b"), dir.path().join("c"));
            make_private(&private).unwrap();
            make_private(&private).unwrap();
            fs::create_dir(&open).unwrap();
            fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).unwrap();
            std::os::unix::fs::symlink(&private, &link).unwrap();
            for bad in [open, link] {
                assert!(make_private(&bad).unwrap_err().to_string().contains("of this user alone"));
            }
        }
    }
}

/// For Windows, whose per-user directories are private. Built for tests everywhere, so that it stays whole.
#[cfg(any(not(unix), test))]
mod loopback {
    use std::{fs, io, net::Ipv4Addr, path::Path, time::Duration};

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        time::timeout,
    };
    use uuid::Uuid;

    pub(super) const EXTENSION: &str = "port";

    /// Who knows the secret sends it at once.
    const SECRET_WITHIN: Duration = Duration::from_millis(500);

    pub(super) struct Listener {
        listener: TcpListener,
        secret: String,
    }

    impl Listener {
        pub(super) async fn bind(file: &Path) -> io::Result<Self> {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            // 74 of its bits are random.
            let secret = Uuid::now_v7().simple().to_string();
            fs::write(file, format!("{} {secret}", listener.local_addr()?.port()))?;
            Ok(Self { listener, secret })
        }

        pub(super) async fn accept(&self) -> io::Result<TcpStream> {
            let (mut stream, _) = self.listener.accept().await?;
            let mut told = vec![0; self.secret.len()];
            timeout(SECRET_WITHIN, stream.read_exact(&mut told)).await??;
            if told == self.secret.as_bytes() { Ok(stream) } else { Err(io::ErrorKind::PermissionDenied.into()) }
        }
    }

    pub(super) async fn connect(file: &Path) -> io::Result<TcpStream> {
        let text = fs::read_to_string(file)?;
        let known = text.split_once(' ').and_then(|(port, secret)| Some((port.parse::<u16>().ok()?, secret)));
        let (port, secret) = known.ok_or(io::ErrorKind::InvalidData)?;
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.write_all(secret.as_bytes()).await?;
        Ok(stream)
    }

    /// The temporary directory is each user's own.
    #[cfg(not(unix))]
    pub(super) fn user() -> io::Result<&'static str> {
        Ok("client")
    }

    #[cfg(not(unix))]
    pub(super) fn make_private(directory: &Path) -> io::Result<()> {
        fs::create_dir_all(directory)
    }

    /// Nobody else can make one.
    #[cfg(not(unix))]
    pub(super) fn check_private(_directory: &Path) -> io::Result<()> {
        Ok(())
    }

    /// Whether a file is of the kind that a client leaves.
    #[cfg(not(unix))]
    pub(super) fn is_place(kind: fs::FileType) -> bool {
        kind.is_file()
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[tokio::test]
        async fn only_who_can_read_the_file_is_told() {
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join(format!("1.{EXTENSION}"));
            let listener = Listener::bind(&file).await.unwrap();
            let (accepted, connected) = tokio::join!(listener.accept(), connect(&file));
            assert_eq!((accepted.is_ok(), connected.is_ok()), (true, true));
            let port = listener.listener.local_addr().unwrap().port();
            fs::write(&file, format!("{port} {}", Uuid::now_v7().simple())).unwrap();
            let (accepted, _connected) = tokio::join!(listener.accept(), connect(&file));
            assert_eq!(accepted.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_asks_is_told_and_who_is_gone_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let directory = dir.path().join("tunnel");
        assert!(ask(&directory).await.is_empty());
        let place = Place::open(&directory).await.unwrap();
        let file = place.file.clone();
        let report = || "x".repeat(100_000);
        tokio::select! {
            told = ask(&directory) => assert_eq!(told, [report()]),
            never = place.serve(report) => never,
        }
        drop(place);
        assert!(!file.exists());
        drop(platform::Listener::bind(&directory.join("1.sock")).await.unwrap()); // as a killed process leaves it
        assert!(ask(&directory).await.is_empty());
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 0);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn nobody_is_asked_where_others_could_answer_and_only_sockets_are_removed() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let dir = tempfile::tempdir().unwrap();
        let (directory, link) = (dir.path().join("tunnel"), dir.path().join("link"));
        let place = Place::open(&directory).await.unwrap();
        symlink(&directory, &link).unwrap();
        let (mine, gone) = (directory.join("1.sock"), directory.join("2.sock"));
        fs::write(&mine, "").unwrap(); // refuses connections, too
        drop(platform::Listener::bind(&gone).await.unwrap());
        let open_to = |mode| fs::set_permissions(&directory, fs::Permissions::from_mode(mode)).unwrap();
        let asking = async {
            assert!(ask(&link).await.is_empty());
            open_to(0o755);
            assert!(ask(&directory).await.is_empty());
            assert!(gone.exists());
            open_to(0o700);
            assert_eq!(ask(&directory).await, ["here"]);
        };
        tokio::select! {
            () = asking => {}
            never = place.serve(|| "here".to_owned()) => never,
        }
        assert_eq!((mine.exists(), gone.exists()), (true, false));
    }
}
