//! A TCP relay that fails on request: between the desktop and the server, or anywhere else.
//!
//! It can cut every connection, freeze (bytes stop, no FIN: what a lost network looks like), delay, limit the rate,
//! and refuse new connections; it counts what passes. Loss and reordering need packets and are not its job.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{broadcast, mpsc, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    background::{Background, Flavour},
    eventually::eventually,
    ollama::{Cut, bind},
};

/// The most that one direction of a connection reads at once.
const PIECE: usize = 16 * 1024;

/// How many pieces may be on the way in one direction: 64 * 16 KiB = 1 MiB, 100 ms of delay at 80 Mbit/s.
const ON_THE_WAY: usize = 64;

/// A relay on a free port of the loopback interface.
#[derive(Debug)]
pub struct Relay {
    addr: SocketAddr,
    shared: Arc<Shared>,
    _background: Background,
}

/// What happens to the bytes.
#[derive(Debug, Clone, Copy, Default)]
struct Weather {
    frozen: bool,
    refusing: bool,
    /// One way.
    delay: Duration,
    /// In bytes per second, each direction of each connection.
    rate: Option<u32>,
}

impl Weather {
    /// How much to read at once: on a slow line 5 ms of it, so that the queue is a fraction of a second.
    fn piece(&self) -> usize {
        self.rate.map_or(PIECE, |rate| (rate as usize / 200).clamp(256, PIECE))
    }
}

#[derive(Debug)]
struct Shared {
    target: Mutex<SocketAddr>,
    weather: watch::Sender<Weather>,
    cuts: broadcast::Sender<Cut>,
    accepted: AtomicUsize,
    open: AtomicUsize,
    ended: AtomicUsize,
    up: AtomicU64,
    down: AtomicU64,
}

impl Relay {
    /// Starts a relay to `target`.
    #[must_use]
    pub fn to(target: SocketAddr) -> Self {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0)));
        let addr = listener.local_addr().expect("a bound address");
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            weather: watch::Sender::default(),
            cuts: broadcast::Sender::new(1),
            accepted: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            ended: AtomicUsize::new(0),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
        });
        let background = Background::spawn("relay", Flavour::Current, {
            let shared = Arc::clone(&shared);
            move |stop| accept(listener, shared, stop)
        });
        Self { addr, shared, _background: background }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Carries new connections to `target`: a server that came back on another port. What is open stays.
    pub fn retarget(&self, target: SocketAddr) {
        *self.shared.target.lock().unwrap_or_else(PoisonError::into_inner) = target;
    }

    /// Ends every connection there is, on both sides. New ones are let through.
    pub async fn cut(&self, how: Cut) {
        // Not until none is open: whoever was cut may be back before anybody looks.
        let ended = || self.shared.ended.load(Ordering::SeqCst);
        let all = ended() + self.open();
        let _nobody_is_connected = self.shared.cuts.send(how);
        eventually("the relay has cut its connections", async || (ended() >= all).then_some(())).await;
    }

    /// Stops all bytes, also those of new connections, without closing anything.
    pub fn freeze(&self) {
        self.shared.weather.send_modify(|weather| weather.frozen = true);
    }

    /// Lets them flow again; nothing was lost.
    pub fn thaw(&self) {
        self.shared.weather.send_modify(|weather| weather.frozen = false);
    }

    /// Closes new connections at once, with a RST. What is open stays.
    pub fn refuse(&self) {
        self.shared.weather.send_modify(|weather| weather.refusing = true);
    }

    /// Lets new connections through again.
    pub fn admit(&self) {
        self.shared.weather.send_modify(|weather| weather.refusing = false);
    }

    /// Holds every byte for this long, in each direction: half of a round trip.
    pub fn delay(&self, one_way: Duration) {
        self.shared.weather.send_modify(|weather| weather.delay = one_way);
    }

    /// Lets this many bytes per second through, in each direction of each connection.
    pub fn limit(&self, bytes_per_second: Option<u32>) {
        self.shared.weather.send_modify(|weather| weather.rate = bytes_per_second);
    }

    /// How many connections are open.
    #[must_use]
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// How many connections came, refused ones included.
    #[must_use]
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// How many bytes went to the target.
    #[must_use]
    pub fn bytes_up(&self) -> u64 {
        self.shared.up.load(Ordering::SeqCst)
    }

    /// How many bytes came from the target.
    #[must_use]
    pub fn bytes_down(&self) -> u64 {
        self.shared.down.load(Ordering::SeqCst)
    }
}

async fn accept(listener: std::net::TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let listener = TcpListener::from_std(listener).expect("a reactor");
    let connections = TaskTracker::new();
    loop {
        let near = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((near, _peer)) => near,
                Err(_reset_before_accept) => continue,
            },
            () = stop.cancelled() => return,
        };
        shared.accepted.fetch_add(1, Ordering::SeqCst);
        if shared.weather.borrow().refusing {
            let _reset_on_drop = near.set_zero_linger();
            continue;
        }
        shared.open.fetch_add(1, Ordering::SeqCst);
        let cuts = shared.cuts.subscribe();
        let target = *shared.target.lock().unwrap_or_else(PoisonError::into_inner);
        let shared = Arc::clone(&shared);
        connections.spawn(async move {
            connection(near, target, &shared, cuts).await;
            shared.open.fetch_sub(1, Ordering::SeqCst);
            shared.ended.fetch_add(1, Ordering::SeqCst);
        });
    }
}

/// One connection and its twin to the target, until both directions have ended or it is cut.
async fn connection(mut near: TcpStream, target: SocketAddr, shared: &Shared, mut cuts: broadcast::Receiver<Cut>) {
    let Ok(mut far) = TcpStream::connect(target).await else {
        let _reset_on_drop = near.set_zero_linger();
        return;
    };
    let _best_effort = (near.set_nodelay(true), far.set_nodelay(true));
    let (near_read, near_write) = near.split();
    let (far_read, far_write) = far.split();
    let up = direction(near_read, far_write, &shared.weather, &shared.up);
    let down = direction(far_read, near_write, &shared.weather, &shared.down);
    let how = tokio::select! {
        ended = async { tokio::try_join!(up, down) } => ended.map_or(Cut::Reset, |_| Cut::Fin),
        cut = cuts.recv() => cut.unwrap_or(Cut::Fin),
    };
    if how == Cut::Reset {
        let _reset_on_drop = (near.set_zero_linger(), far.set_zero_linger());
    }
}

/// Carries bytes one way, then the FIN. An error, a RST in most cases, is for both ends of both connections.
async fn direction(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    weather: &watch::Sender<Weather>,
    count: &AtomicU64,
) -> io::Result<()> {
    let (queue, mut on_the_way) = mpsc::channel(ON_THE_WAY);
    let read = async move {
        loop {
            let mut piece = BytesMut::with_capacity(weather.borrow().piece());
            let read = from.read_buf(&mut piece).await.map(|_length| piece);
            let last = read.as_ref().map_or(true, BytesMut::is_empty);
            let due = Instant::now() + weather.borrow().delay;
            if queue.send((due, read)).await.is_err() || last {
                return;
            }
        }
    };
    let write = async {
        let mut weather = weather.subscribe();
        let mut free = Instant::now(); // when the line has sent what was written so far
        while let Some((due, piece)) = on_the_way.recv().await {
            tokio::time::sleep_until(due.max(free)).await;
            let rate = weather.wait_for(|weather| !weather.frozen).await.map_or(None, |now| now.rate);
            let piece = piece?;
            count.fetch_add(piece.len() as u64, Ordering::SeqCst);
            to.write_all(&piece).await?;
            if let Some(rate) = rate {
                let length = u32::try_from(piece.len()).expect("at most a PIECE");
                free = free.max(Instant::now()) + Duration::from_secs(1) * length / rate;
            }
        }
        to.shutdown().await
    };
    tokio::join!(read, write).1
}
