//! One connected desktop.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use tokio_util::sync::CancellationToken;
use tunnel_frame::{Models, Session};
use uuid::Uuid;

use crate::id::{TunnelId, UserId};

/// One connected desktop.
#[derive(Debug)]
pub struct Tunnel {
    /// This connection; a reconnect has another.
    pub id: TunnelId,
    /// Whose desktop it is.
    pub user: UserId,
    /// The name it is asked for by.
    pub name: Box<str>,
    /// The process that connected: a UUIDv7, so that processes sort by their start.
    pub instance: Uuid,
    /// `User-Agent` of the client.
    pub client: Box<str>,
    /// When it connected.
    pub since: SystemTime,
    /// Opens streams to it.
    pub session: Session,
    draining: AtomicBool,
    /// What the desktop says that its upstream offers.
    models: Mutex<Option<Models>>,
    /// Another tunnel has taken the place of this one.
    pub(crate) replaced: CancellationToken,
}

impl Tunnel {
    /// A tunnel that is about to be admitted.
    #[must_use]
    pub fn new(user: UserId, name: Box<str>, instance: Uuid, client: Box<str>, session: Session) -> Self {
        Self {
            id: TunnelId::next(),
            user,
            name,
            instance,
            client,
            since: SystemTime::now(),
            session,
            draining: AtomicBool::new(false),
            models: Mutex::default(),
            replaced: CancellationToken::new(),
        }
    }

    /// The desktop says what its upstream offers. What would not have fitted into its message is not kept.
    pub(crate) fn offers(&self, models: Models) {
        let Models { version, models, left_out } = models;
        let mut fitting = Models::fitting(version, models);
        fitting.left_out = fitting.left_out.saturating_add(left_out);
        *self.models.lock().unwrap_or_else(PoisonError::into_inner) = Some(fitting);
    }

    /// What its upstream offers, if the desktop says so.
    #[must_use]
    pub fn models(&self) -> Option<Models> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes the tunnel out of the choice; its streams go on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Whether new requests may go here.
    #[must_use]
    pub fn takes_requests(&self) -> bool {
        !self.draining.load(Ordering::Relaxed) && self.session.ended().is_none()
    }
}
