//! What the registry keeps of each user: who is connected, who was lost, and who is waited for. Bounded, and without a
//! clock of its own: what is long ago is judged by the registry.

use std::{collections::HashMap, sync::Arc, time::SystemTime};

use tokio::{
    sync::{Notify, Semaphore},
    time::Instant,
};
use uuid::Uuid;

use super::{AdmitError, Tunnel};
use crate::id::UserId;

/// Users without a tunnel whose loss is remembered, for "offline since": about 100 bytes each.
const LOSSES_REMEMBERED: usize = 16_384;

/// All users who have a tunnel, had one, or are asked for.
#[derive(Debug, Default)]
pub(super) struct Users {
    pub(super) connected: HashMap<UserId, Desktops>,
    pub(super) lost: HashMap<UserId, Loss>,
    /// Who waits for a user's tunnel to come back; gone with the last waiter.
    pub(super) awaited: HashMap<UserId, Arc<Notify>>,
}

/// What a user has connected.
#[derive(Debug)]
pub(super) struct Desktops {
    pub(super) tunnels: Vec<Arc<Tunnel>>,
    /// Names that were lost lately while others stayed.
    pub(super) lost: Vec<(Box<str>, Instant)>,
    pub(super) streams: Arc<Semaphore>,
}

/// When the last tunnel of a user was lost, on both clocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Loss {
    /// Whose tunnel it was.
    pub(super) instance: Uuid,
    pub(super) at: Instant,
    pub(super) since: SystemTime,
}

impl Users {
    /// The live tunnel of another process that has this name, if any.
    pub(super) fn rival(
        &self,
        user: &UserId,
        name: &str,
        instance: Uuid,
        limit: usize,
    ) -> Result<Option<Arc<Tunnel>>, AdmitError> {
        let Some(desktops) = self.connected.get(user) else { return Ok(None) };
        let mut active = desktops.tunnels.iter().filter(|tunnel| tunnel.takes_requests());
        match active.clone().find(|tunnel| &*tunnel.name == name) {
            Some(same) if same.instance == instance => Ok(None),
            Some(other) => Ok(Some(Arc::clone(other))),
            None if active.by_ref().count() >= limit => Err(AdmitError::TunnelLimit),
            None => Ok(None),
        }
    }

    pub(super) fn choose(
        &self,
        user: &UserId,
        name: Option<&str>,
        fits: impl Fn(&Tunnel) -> bool,
    ) -> Option<Arc<Tunnel>> {
        let tunnels = &self.connected.get(user)?.tunnels;
        let fitting = tunnels.iter().filter(|tunnel| fits(tunnel));
        let fitting = fitting.filter(|tunnel| name.is_none_or(|name| *tunnel.name == *name));
        fitting.max_by_key(|tunnel| tunnel.instance).cloned()
    }

    pub(super) fn remember_loss(&mut self, tunnel: &Tunnel) {
        if self.lost.len() >= LOSSES_REMEMBERED
            && let Some(oldest) = self.lost.iter().min_by_key(|(_, loss)| loss.at).map(|(user, _)| user.clone())
        {
            self.lost.remove(&oldest);
        }
        let loss = Loss { instance: tunnel.instance, at: Instant::now(), since: SystemTime::now() };
        self.lost.insert(tunnel.user.clone(), loss);
    }

    /// Forgets the meeting point of those who waited for a user, once the last of them is gone.
    pub(super) fn forget_awaited(&mut self, user: &UserId) {
        if self.awaited.get(user).is_some_and(|waiting| Arc::strong_count(waiting) == 1) {
            self.awaited.remove(user);
        }
    }
}
