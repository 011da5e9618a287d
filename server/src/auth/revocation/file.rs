//! The file of revocations: JSON lines, replaced as a whole.
//!
//! Owns that what was revoked stays so over a restart, and that a change which somebody else made to the file is never
//! overwritten unseen. Everything here blocks on a disk.

use std::{
    fs, io,
    io::Write,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use thiserror::Error;

use super::{List, NoRevocation, Revocation, Revocations};

/// A file of revocations that cannot be used. Displays as one line: the file, what is wrong, what to do.
#[derive(Debug, Error)]
pub enum RevocationsError {
    /// Not permitted, a directory, gone.
    #[error("{} cannot be read: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// A line that is no revocation.
    #[error("{}, line {line}: {problem}", path.display())]
    BadLine {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        problem: NoRevocation,
    },
    /// What was changed is in force and not on disk.
    #[error("{} cannot be written: {error}; the change is lost with this process", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
}

/// Where the list is kept, and what was there when we last looked; `None`: no such file.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    known: Mutex<Option<String>>,
}

impl Revocations {
    /// The revocations in a file. It may be missing, and is made with the first revocation; its directory must exist.
    pub fn open(path: PathBuf) -> Result<Self, RevocationsError> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if let Err(error) = fs::metadata(folder) {
            return Err(RevocationsError::Unreadable { path: folder.to_owned(), error });
        }
        let file = File { path, known: Mutex::new(None) };
        let known = file.read()?;
        let list = known.as_deref().map(|text| file.parse(text)).transpose()?.unwrap_or_default();
        *file.lock() = known;
        Ok(Self { list: list.into(), file: Some(file) })
    }

    /// Whether revocations outlive this process.
    #[must_use]
    pub fn are_kept(&self) -> bool {
        self.file.is_some()
    }

    /// Adds one. It is in force in any case; an error says that it could not be written down.
    pub fn add(&self, revocation: Revocation) -> Result<(), RevocationsError> {
        self.change(|list| list.add(revocation.clone()));
        self.save(|list| list.add(revocation))
    }

    /// Takes one back; `None` if there is none of this id. Tokens that it covered are good again.
    pub fn remove(&self, id: &str) -> Result<Option<Revocation>, RevocationsError> {
        let removed = self.change(|list| list.remove(id));
        self.save(|list| _ = list.remove(id))?;
        Ok(removed)
    }

    /// Takes the file as it is now; whether it says anything else. On an error, also when the file is gone, what was in
    /// force stays so.
    pub(in crate::auth) fn reload(&self) -> Result<bool, RevocationsError> {
        let Some(file) = &self.file else { return Ok(false) };
        let mut known = file.lock();
        match file.read()? {
            None if known.is_none() => Ok(false),
            None => Err(file.gone()),
            text if text == *known => Ok(false),
            Some(text) => {
                let fresh = file.parse(&text)?;
                *known = Some(text);
                Ok(self.change(|list| std::mem::replace(list, fresh.clone()) != fresh))
            }
        }
    }

    /// Writes the list, after `change` was applied to it. If the file is another than we know, somebody has edited it:
    /// `change` is made to what they wrote.
    fn save(&self, change: impl FnOnce(&mut List)) -> Result<(), RevocationsError> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut known = file.lock();
        let text = file.read()?;
        if let Some(text) = text.filter(|text| Some(text) != known.as_ref()) {
            let mut edited = file.parse(&text)?;
            change(&mut edited);
            self.change(|list| *list = edited);
        }
        let list = self.change(|list| {
            list.forget_expired(SystemTime::now());
            list.all()
        });
        let text: String =
            list.iter().flat_map(|revocation| [revocation.to_json().to_string(), "\n".to_owned()]).collect();
        file.write(&text)?;
        *known = Some(text);
        Ok(())
    }
}

impl File {
    fn lock(&self) -> MutexGuard<'_, Option<String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> Result<Option<String>, RevocationsError> {
        match fs::read_to_string(&self.path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(RevocationsError::Unreadable { path: self.path.clone(), error }),
        }
    }

    fn gone(&self) -> RevocationsError {
        RevocationsError::Unreadable { path: self.path.clone(), error: io::ErrorKind::NotFound.into() }
    }

    /// One object a line; empty lines are left out. `at` must be there, or a restart would revoke what was issued since.
    fn parse(&self, text: &str) -> Result<List, RevocationsError> {
        let mut list = List::default();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let bad = |problem| RevocationsError::BadLine { path: self.path.clone(), line: number + 1, problem };
            let revocation = Revocation::from_json(line.as_bytes(), SystemTime::UNIX_EPOCH).map_err(bad)?;
            if revocation.at == SystemTime::UNIX_EPOCH && matches!(revocation.subject, super::Subject::User(_)) {
                return Err(bad(NoRevocation(
                    "a user is revoked since a time, \"at\":\"2026-01-31T12:00:00Z\"".into(),
                )));
            }
            list.add(revocation);
        }
        list.forget_expired(SystemTime::now());
        Ok(list)
    }

    /// Replaces the file as a whole: whoever reads it sees the old one or the new one, also after a power cut.
    fn write(&self, text: &str) -> Result<(), RevocationsError> {
        // Behind a symbolic link, the file itself.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let mut temporary = path.clone().into_os_string();
        temporary.push(".new");
        let temporary = PathBuf::from(temporary);
        let write = || {
            let mut file = fs::File::create(&temporary)?;
            file.write_all(text.as_bytes())?;
            if let Ok(old) = fs::metadata(&path) {
                file.set_permissions(old.permissions())?;
            }
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            #[cfg(unix)]
            if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
                fs::File::open(folder)?.sync_all()?;
            }
            Ok(())
        };
        write().map_err(|error| RevocationsError::Unwritable { path: self.path.clone(), error })
    }
}
