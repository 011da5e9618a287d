//! Files that may be replaced while the server runs: certificate, keys, admin token, revocations.
//!
//! Owns when they are read again: on request ([`Reloader`]), or when a file has changed and then stayed the same for a
//! look, so that nothing is read in the middle of being written. What is loaded, and that the old stays when the new is
//! broken, is the business of who holds it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use tokio::{
    sync::Notify,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval},
};
use tracing::{error, info, warn};
use tunnel_certs::server::{Reload, ServerCerts};

use crate::{
    admin::Admin,
    auth::{PublicKey, Secret},
    config::{KeyFiles, TlsFiles},
    metrics::{Metrics, Reloaded},
    server::App,
};

/// Between two looks. A change is taken over after one to two of them, well within the 5 s that a revocation may take.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Makes a running server read its files again at once.
#[derive(Debug, Clone)]
pub struct Reloader(Arc<Notify>);

impl Reloader {
    /// Reads them soon after, in the server's own time.
    pub fn reload(&self) {
        self.0.notify_one();
    }
}

/// Every file that is watched.
pub(crate) struct Watch {
    sources: Vec<Source>,
    asked: Arc<Notify>,
    metrics: Arc<Metrics>,
}

/// One thing to load, from one or several files.
struct Source {
    setting: &'static str,
    files: Vec<PathBuf>,
    /// Loads it; whether it is another than before.
    load: Box<dyn Fn() -> Result<bool, String> + Send>,
    /// The files at the last look, and as they were last loaded.
    seen: Vec<Option<Stamp>>,
    loaded: Option<Vec<Option<Stamp>>>,
}

/// What changes with a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    len: u64,
    /// Which file it is, and when it was last touched in any way.
    inode: (u64, i64, i64),
}

/// Why files are looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    Time,
    Asked,
}

impl Watch {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self { sources: Vec::new(), asked: Arc::default(), metrics }
    }

    pub(crate) fn reloader(&self) -> Reloader {
        Reloader(Arc::clone(&self.asked))
    }

    pub(crate) fn certificate(&mut self, certs: Arc<ServerCerts>, files: TlsFiles) {
        self.add("tls-cert, tls-key", vec![files.cert, files.key], move || {
            certs.reload().map(|reload| reload == Reload::Replaced).map_err(|error| error.to_string())
        });
    }

    pub(crate) fn keys(&mut self, app: &Arc<App>, files: KeyFiles) {
        if let Some(path) = files.secret {
            let app = Arc::clone(app);
            self.add("jwt-secret-file", vec![path.clone()], move || {
                let secret = Secret::read(&path).map_err(|error| error.to_string())?;
                Ok(app.authenticator.replace_secret(&secret))
            });
        }
        if let Some(path) = files.public_key {
            let app = Arc::clone(app);
            self.add("jwt-public-key", vec![path.clone()], move || {
                let key = PublicKey::read(&path).map_err(|error| error.to_string())?;
                Ok(app.authenticator.replace_public_key(key))
            });
        }
    }

    pub(crate) fn revocations(&mut self, app: &Arc<App>, file: Option<PathBuf>) {
        let Some(path) = file else { return };
        let app = Arc::clone(app);
        self.add("revocations-file", vec![path], move || {
            app.authenticator.reload_revocations().map_err(|error| error.to_string())
        });
    }

    pub(crate) fn admin_token(&mut self, admin: &Admin) {
        if let Some((token, path)) = admin.token() {
            self.add("admin-token-file", vec![path], move || token.reload().map_err(|error| error.to_string()));
        }
    }

    fn add(
        &mut self,
        setting: &'static str,
        files: Vec<PathBuf>,
        load: impl Fn() -> Result<bool, String> + Send + 'static,
    ) {
        self.sources.push(Source { setting, files, load: Box::new(load), seen: Vec::new(), loaded: None });
    }

    /// Looks for ever.
    pub(crate) async fn run(self) {
        let Self { mut sources, asked, metrics } = self;
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let why = tokio::select! {
                _ = ticks.tick() => Why::Time,
                () = asked.notified() => Why::Asked,
            };
            let metrics = Arc::clone(&metrics);
            let looked = spawn_blocking(move || {
                for source in &mut sources {
                    if let Some(reloaded) = source.look(why) {
                        metrics.reloaded(source.setting, reloaded);
                    }
                }
                sources
            });
            match looked.await {
                Ok(back) => sources = back,
                Err(failed) => return error!(%failed, "files are not watched any more; restart to read them"),
            }
        }
    }
}

impl Source {
    /// What became of it, if it was read.
    fn look(&mut self, why: Why) -> Option<Reloaded> {
        let now: Vec<_> = self.files.iter().map(|file| Stamp::of(file)).collect();
        let is_settled = self.seen == now;
        self.seen.clone_from(&now);
        if why == Why::Time && (!is_settled || self.loaded.as_ref() == Some(&now)) {
            return None;
        }
        self.loaded = Some(now);
        match (self.load)() {
            Ok(true) => {
                info!(setting = self.setting, "took over what changed in the file");
                Some(Reloaded::Changed)
            }
            Ok(false) => {
                if why == Why::Asked {
                    info!(setting = self.setting, "read again: nothing new");
                }
                Some(Reloaded::Unchanged)
            }
            Err(error) => {
                warn!(setting = self.setting, error, "kept what was in force before");
                Some(Reloaded::Failed)
            }
        }
    }
}

impl Stamp {
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self { modified: metadata.modified().ok(), len: metadata.len(), inode: inode(&metadata) })
    }
}

#[cfg(unix)]
fn inode(metadata: &fs::Metadata) -> (u64, i64, i64) {
    use std::os::unix::fs::MetadataExt;
    (metadata.ino(), metadata.ctime(), metadata.ctime_nsec())
}

#[cfg(not(unix))]
fn inode(_: &fs::Metadata) -> (u64, i64, i64) {
    (0, 0, 0)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_change_is_loaded_once_and_only_when_it_has_settled() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        fs::write(&one, "1").unwrap();
        let loads = Arc::new(AtomicUsize::new(0));
        let mut watch = Watch::new(Arc::new(Metrics::new()));
        let count = Arc::clone(&loads);
        watch.add("x", vec![one.clone(), two.clone()], move || {
            count.fetch_add(1, Ordering::SeqCst);
            Err("broken".into())
        });
        let mut source = watch.sources.pop().unwrap();
        let mut loads_after = |why| {
            source.look(why);
            loads.load(Ordering::SeqCst)
        };
        // What changed between its reading and the first look is not missed.
        assert_eq!([Why::Time; 4].map(&mut loads_after), [0, 1, 1, 1]);
        fs::write(&two, "2").unwrap();
        assert_eq!(loads_after(Why::Time), 1);
        fs::write(&one, "longer").unwrap();
        assert_eq!([Why::Time; 4].map(&mut loads_after), [1, 2, 2, 2]);
        assert_eq!(loads_after(Why::Asked), 3);
        assert_eq!(loads_after(Why::Time), 3);
        // Another file in its place, of the same length: what is moved there keeps its times.
        let three = dir.path().join("three");
        fs::write(&three, "length").unwrap();
        fs::rename(three, one).unwrap();
        assert_eq!([Why::Time; 3].map(&mut loads_after), [3, 4, 4]);
        fs::remove_file(two).unwrap();
        assert_eq!([Why::Time; 3].map(&mut loads_after), [4, 5, 5]);
    }
}
