//! Who may take up room before anybody knows who they are: connections per address and in all, and new tunnels per
//! second.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ipnet::IpNet;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::config::Limits;

/// New tunnels that a server takes per second, and at once.
const TUNNELS_PER_SECOND: u32 = 500;
const TUNNELS_AT_ONCE: u32 = 1000;

/// Looks by `tunnel doctor` at a time. They last seconds, and are counted nowhere else.
const PROBES: usize = 32;

/// All that is bounded before anybody is known.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) connections: Arc<Connections>,
    pub(crate) tunnels: Rate,
    probes: Arc<Semaphore>,
    /// Peers that stand for many.
    proxies: Vec<IpNet>,
    /// Every peer is a proxy: there is no TLS here.
    behind_proxy: bool,
}

impl Admission {
    pub(crate) fn new(limits: &Limits, proxies: Vec<IpNet>, behind_proxy: bool) -> Self {
        Self {
            connections: Connections::new(limits.max_connections, limits.max_connections_per_address),
            tunnels: Rate::new(TUNNELS_PER_SECOND, TUNNELS_AT_ONCE),
            probes: Arc::new(Semaphore::new(PROBES)),
            proxies,
            behind_proxy,
        }
    }

    /// A place for one look, given back on drop; `None` if there are as many as may be.
    pub(crate) fn probe(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.probes).try_acquire_owned().ok()
    }

    /// A place for a connection of this peer; `None` if it has as many as it may.
    pub(crate) fn connection(&self, peer: IpAddr, room: OwnedSemaphorePermit) -> Option<Place> {
        let peer = peer.to_canonical();
        if self.behind_proxy || self.proxies.iter().any(|net| net.contains(&peer)) {
            return Some(self.connections.admit_proxy(room));
        }
        self.connections.admit(peer, room)
    }
}

/// Callers' connections that are open. Desktops that have become tunnels no longer count: their number is bounded by
/// user.
#[derive(Debug)]
pub(crate) struct Connections {
    room: Arc<Semaphore>,
    in_all: usize,
    per_address: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// The place of one connection, given back on drop.
#[derive(Debug)]
pub(crate) struct Place {
    connections: Arc<Connections>,
    /// `None`: the address does not count.
    address: Option<IpAddr>,
    _room: OwnedSemaphorePermit,
}

impl Connections {
    pub(crate) fn new(in_all: usize, per_address: usize) -> Arc<Self> {
        let in_all = in_all.min(Semaphore::MAX_PERMITS);
        Arc::new(Self { room: Arc::new(Semaphore::new(in_all)), in_all, per_address, open: Mutex::default() })
    }

    /// Waits until there is room for one more. Until then whoever connects waits in the kernel's queue.
    pub(crate) async fn room(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.room).acquire_owned().await.expect("the semaphore is never closed")
    }

    /// Connections that are open.
    pub(crate) fn count(&self) -> usize {
        // One place is kept for who comes next.
        (self.in_all - self.room.available_permits()).saturating_sub(1)
    }

    /// A place for a connection from this address; `None` if it has as many as it may.
    pub(crate) fn admit(self: &Arc<Self>, address: IpAddr, room: OwnedSemaphorePermit) -> Option<Place> {
        let address = network(address);
        let mut open = self.lock();
        let count = open.entry(address).or_default();
        if *count >= self.per_address {
            return None;
        }
        *count += 1;
        Some(Place { connections: Arc::clone(self), address: Some(address), _room: room })
    }

    /// A place for a connection of a proxy, behind which are many.
    pub(crate) fn admit_proxy(self: &Arc<Self>, room: OwnedSemaphorePermit) -> Place {
        Place { connections: Arc::clone(self), address: None, _room: room }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(address) = self.address else { return };
        let mut open = self.connections.lock();
        if let Some(count) = open.get_mut(&address) {
            *count -= 1;
            if *count == 0 {
                open.remove(&address);
            }
        }
    }
}

/// What one subscriber has: an IPv4 address, or an IPv6 network of 64 bits (RFC 6177).
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from(u128::from(address) & !u128::from(u64::MAX)).into(),
    }
}

/// A bounded rate: after a restart all desktops come at once, and each costs a handshake and its memory.
#[derive(Debug)]
pub(crate) struct Rate {
    /// When the next one is due, if they came evenly.
    next: Mutex<Instant>,
    every: Duration,
    burst: u32,
}

impl Rate {
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        Self { next: Mutex::new(Instant::now()), every: Duration::from_secs(1) / per_second, burst }
    }

    /// Whether one more may come now.
    pub(crate) fn admit(&self) -> bool {
        let now = Instant::now();
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let due = (*next).max(now);
        if due.duration_since(now) > self.every * self.burst {
            return false;
        }
        *next = due + self.every;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn t44_an_address_has_its_share_and_no_more() {
        let connections = Connections::new(10, 2);
        let address = |text: &str| text.parse().unwrap();
        let room = async || connections.room().await;
        let one = connections.admit(address("192.0.2.1"), room().await).unwrap();
        let _two = connections.admit(address("::ffff:192.0.2.1"), room().await).unwrap();
        assert!(connections.admit(address("192.0.2.1"), room().await).is_none());
        assert!(connections.admit(address("192.0.2.2"), room().await).is_some());
        drop(one);
        assert!(connections.admit(address("192.0.2.1"), room().await).is_some());
    }

    #[test]
    fn t44_looks_are_few_at_a_time() {
        let limits = Limits { max_connections: 1, ..Limits::default() };
        let admission = Admission::new(&limits, Vec::new(), false);
        let mut places: Vec<_> = (0..PROBES).map(|_| admission.probe().unwrap()).collect();
        assert!(admission.probe().is_none());
        places.pop();
        assert!(admission.probe().is_some());
    }

    #[tokio::test]
    async fn t44_an_ipv6_network_counts_as_one_and_a_proxy_as_none() {
        let connections = Connections::new(10, 1);
        let room = async || connections.room().await;
        let _one = connections.admit("2001:db8::1".parse().unwrap(), room().await).unwrap();
        assert!(connections.admit("2001:db8::ffff:1".parse().unwrap(), room().await).is_none());
        assert!(connections.admit("2001:db8:0:1::1".parse().unwrap(), room().await).is_some());
        let _proxies = [connections.admit_proxy(room().await), connections.admit_proxy(room().await)];
    }

    #[tokio::test]
    async fn t44_all_together_are_bounded_and_every_place_comes_back() {
        let connections = Connections::new(2, 2);
        let place = connections.admit("192.0.2.1".parse().unwrap(), connections.room().await);
        let _room = connections.room().await;
        assert!(tokio::time::timeout(Duration::from_millis(1), connections.room()).await.is_err());
        drop(place);
        let _room = connections.room().await;
        assert!(connections.lock().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn t50_a_storm_is_let_in_evenly() {
        let rate = Rate::new(100, 50);
        let let_in = |n: usize| (0..n).filter(|_| rate.admit()).count();
        assert_eq!(let_in(1000), 51);
        tokio::time::advance(Duration::from_millis(100)).await;
        assert_eq!(let_in(1000), 10);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(let_in(1000), 51); // no more at once for having waited long
    }
}
