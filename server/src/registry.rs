//! Which desktops of which user are connected, in the memory of this process.
//!
//! Owns the rules of replacement and choice. Knows no HTTP and no tokens: it is given a user and compares it. Admit and
//! leave are one RAII guard, and leaving acts only on the tunnel that was admitted.

mod tunnel;
mod users;

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use thiserror::Error;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout_at},
};
use uuid::Uuid;

pub use self::tunnel::Tunnel;
use self::users::{Desktops, Loss, Users};
use crate::id::UserId;

/// How long another desktop of the same name has to show that it lives, before a newcomer takes its place.
const PROBE_WITHIN: Duration = Duration::from_secs(1);

/// A tunnel lost less than this long ago is probably about to come back.
const LOST_LATELY: Duration = Duration::from_secs(10);

/// After a start of the server, every desktop is probably about to come back.
const JUST_STARTED: Duration = Duration::from_secs(5);

/// How long a request waits for a tunnel that is probably about to come back.
const WAIT_FOR_RETURN: Duration = Duration::from_secs(2);

/// How often a server that drains looks whether its desktops have gone elsewhere.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// All tunnels of this process.
#[derive(Debug)]
pub struct Registry {
    users: Mutex<Users>,
    limits: RegistryLimits,
    started: Instant,
    /// The server drains: nobody comes back here.
    draining: AtomicBool,
}

/// Bounds for each user.
#[derive(Debug, Clone, Copy)]
pub struct RegistryLimits {
    /// Desktops connected at a time.
    pub tunnels: usize,
    /// Requests in flight at a time, on all desktops together.
    pub streams: usize,
}

/// Why a desktop is not admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AdmitError {
    /// Another process of the user has this name, and lives.
    #[error("another desktop of this user is connected under this name")]
    NameInUse,
    /// The user has as many tunnels as allowed.
    #[error("too many tunnels of this user")]
    TunnelLimit,
}

/// No tunnel to take a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("no desktop of this user is connected")]
pub struct Offline {
    /// When the last one was lost, if this process saw it.
    pub since: Option<SystemTime>,
    /// Desktops of other names are connected.
    pub others: bool,
}

/// The user has as many requests in flight as allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("too many requests of this user are in flight")]
pub struct TooManyStreams;

/// What a tunnel is to its desktop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// The first of its process, as far as is remembered.
    New,
    /// One after another that was lost.
    Back,
    /// One beside another, whose place it takes.
    Beside,
}

/// A tunnel's place in the registry, given back on drop.
#[derive(Debug)]
pub struct Admitted {
    registry: Arc<Registry>,
    tunnel: Arc<Tunnel>,
    arrival: Arrival,
}

impl Admitted {
    /// The tunnel that was admitted.
    #[must_use]
    pub fn tunnel(&self) -> &Arc<Tunnel> {
        &self.tunnel
    }

    /// What it is to its desktop.
    #[must_use]
    pub fn arrival(&self) -> Arrival {
        self.arrival
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.registry.remove(&self.tunnel);
    }
}

impl Registry {
    /// An empty registry.
    #[must_use]
    pub fn new(limits: RegistryLimits) -> Self {
        Self { users: Mutex::default(), limits, started: Instant::now(), draining: AtomicBool::new(false) }
    }

    fn lock(&self) -> MutexGuard<'_, Users> {
        self.users.lock().expect("no panic while the registry is locked")
    }

    /// The server drains. Desktops that have gone elsewhere still take the requests of callers that have not.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Waits until no desktop takes requests here any more: each has said so, or has left.
    pub async fn deserted(&self) {
        while self.all().iter().any(|tunnel| tunnel.takes_requests()) {
            sleep(LOOK_EVERY).await;
        }
    }

    fn choose(&self, users: &Users, user: &UserId, name: Option<&str>) -> Option<Arc<Tunnel>> {
        let last = || users.choose(user, name, |tunnel| tunnel.session.ended().is_none());
        let chosen = users.choose(user, name, Tunnel::takes_requests);
        chosen.or_else(|| self.draining.load(Ordering::Relaxed).then(last).flatten())
    }

    /// Whether this desktop would be admitted. A tunnel of another process under the same name is asked for a sign of
    /// life; if it gives none, it loses its place to the newcomer.
    ///
    /// # Errors
    /// See [`AdmitError`].
    pub async fn may_admit(&self, user: &UserId, name: &str, instance: Uuid) -> Result<(), AdmitError> {
        let rival = self.lock().rival(user, name, instance, self.limits.tunnels)?;
        let Some(rival) = rival else { return Ok(()) };
        if rival.session.is_alive(PROBE_WITHIN).await {
            return Err(AdmitError::NameInUse);
        }
        rival.drain();
        rival.replaced.cancel();
        Ok(())
    }

    /// Admits a tunnel. A predecessor of the same process drains.
    ///
    /// # Errors
    /// See [`AdmitError`]: someone else was faster since [`Self::may_admit`].
    pub fn admit(self: &Arc<Self>, tunnel: Tunnel) -> Result<Admitted, AdmitError> {
        let tunnel = Arc::new(tunnel);
        let mut users = self.lock();
        if users.rival(&tunnel.user, &tunnel.name, tunnel.instance, self.limits.tunnels)?.is_some() {
            return Err(AdmitError::NameInUse);
        }
        let desktops = users.connected.entry(tunnel.user.clone()).or_insert_with(|| Desktops {
            tunnels: Vec::new(),
            lost: Vec::new(),
            streams: Arc::new(Semaphore::new(self.limits.streams)),
        });
        let is_beside = desktops.tunnels.iter().any(|old| old.instance == tunnel.instance);
        for old in desktops.tunnels.iter().filter(|old| old.name == tunnel.name && old.takes_requests()) {
            old.drain();
            old.replaced.cancel();
        }
        desktops.tunnels.push(Arc::clone(&tunnel));
        let arrival = match users.lost.remove(&tunnel.user) {
            _ if is_beside => Arrival::Beside,
            Some(Loss { instance, .. }) if instance == tunnel.instance => Arrival::Back,
            _ => Arrival::New,
        };
        if let Some(waiting) = users.awaited.remove(&tunnel.user) {
            waiting.notify_waiters();
        }
        drop(users);
        Ok(Admitted { registry: Arc::clone(self), tunnel, arrival })
    }

    fn remove(&self, tunnel: &Arc<Tunnel>) {
        let mut users = self.lock();
        let Some(desktops) = users.connected.get_mut(&tunnel.user) else { return };
        desktops.tunnels.retain(|other| other.id != tunnel.id);
        desktops.lost.retain(|(name, at)| *name != tunnel.name && at.elapsed() < LOST_LATELY);
        desktops.lost.push((tunnel.name.clone(), Instant::now()));
        if desktops.tunnels.is_empty() {
            users.connected.remove(&tunnel.user);
            users.remember_loss(tunnel);
        }
    }

    /// A slot for one more request of a user, given back on drop. `None`: the user has no tunnel, and needs none.
    ///
    /// # Errors
    /// See [`TooManyStreams`].
    pub fn admit_stream(&self, user: &UserId) -> Result<Option<OwnedSemaphorePermit>, TooManyStreams> {
        let streams = self.lock().connected.get(user).map(|desktops| Arc::clone(&desktops.streams));
        streams.map(|streams| streams.try_acquire_owned().map_err(|_| TooManyStreams)).transpose()
    }

    /// The tunnel for a request: the one of this name, else the one whose process started last. One that was lost a
    /// moment ago is waited for, until `deadline` at the latest.
    ///
    /// # Errors
    /// See [`Offline`].
    pub async fn find(&self, user: &UserId, name: Option<&str>, deadline: Instant) -> Result<Arc<Tunnel>, Offline> {
        let give_up = deadline.min(Instant::now() + WAIT_FOR_RETURN);
        loop {
            let waiting = {
                let mut users = self.lock();
                if let Some(tunnel) = self.choose(&users, user, name) {
                    return Ok(tunnel);
                }
                let offline = Offline {
                    since: users.lost.get(user).map(|loss| loss.since),
                    others: self.choose(&users, user, None).is_some(),
                };
                if !self.may_return(&users, user, name) || Instant::now() >= give_up {
                    return Err(offline);
                }
                Arc::clone(users.awaited.entry(user.clone()).or_default())
            };
            {
                let mut arrived = std::pin::pin!(waiting.notified());
                arrived.as_mut().enable();
                // It may have come between the look and the registration.
                if self.lock().choose(user, name, Tunnel::takes_requests).is_none() {
                    _ = timeout_at(give_up, arrived).await;
                }
            }
            drop(waiting);
            self.lock().forget_awaited(user);
        }
    }

    /// Whether a tunnel for this request is probably about to come back.
    fn may_return(&self, users: &Users, user: &UserId, name: Option<&str>) -> bool {
        let lately = |at: &Instant| at.elapsed() < LOST_LATELY;
        match (users.connected.get(user), name) {
            _ if self.draining.load(Ordering::Relaxed) => false,
            // All that there is drains or has just ended.
            (Some(_), None) => true,
            (Some(desktops), Some(name)) => {
                let is_leaving = desktops.tunnels.iter().any(|tunnel| *tunnel.name == *name);
                is_leaving || desktops.lost.iter().any(|(lost, at)| **lost == *name && lately(at))
            }
            (None, _) => match users.lost.get(user) {
                Some(loss) => lately(&loss.at),
                None => self.started.elapsed() < JUST_STARTED,
            },
        }
    }

    /// The tunnels of a user that take requests, the preferred first, and since when there are none.
    #[must_use]
    pub fn list(&self, user: &UserId) -> (Vec<Arc<Tunnel>>, Option<SystemTime>) {
        let users = self.lock();
        let mut tunnels: Vec<_> = users.connected.get(user).map_or(&[][..], |d| &d.tunnels).to_vec();
        tunnels.retain(|tunnel| tunnel.takes_requests());
        tunnels.sort_by_key(|tunnel| std::cmp::Reverse(tunnel.instance));
        (tunnels, users.lost.get(user).map(|loss| loss.since))
    }

    /// Every tunnel of every user, draining ones too, in the order in which they connected.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Tunnel>> {
        let mut tunnels: Vec<_> = self.lock().connected.values().flat_map(|d| d.tunnels.iter().cloned()).collect();
        tunnels.sort_by_key(|tunnel| tunnel.id);
        tunnels
    }

    /// Tunnels in all.
    #[must_use]
    pub fn count(&self) -> usize {
        self.lock().connected.values().map(|desktops| desktops.tunnels.len()).sum()
    }
}

#[cfg(test)]
mod tests;
