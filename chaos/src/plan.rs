//! Which faults there will be, and in which order: a function of the seed.

use std::{fmt, time::Duration};

use fastrand::Rng;
use integration_tests::ollama::Cut;

use crate::ticket::User;

/// Something that goes wrong. Times are how long it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL, and a start this much later.
    ServerKill(Duration),
    /// SIGTERM, and a start this much later.
    ServerTerm(Duration),
    /// A successor is started first; then SIGTERM.
    ServerRoll,
    /// SIGSTOP, SIGCONT.
    ServerStop(Duration),
    /// Its files are written anew, and SIGHUP.
    ServerReload,
    /// SIGKILL of a client, and a start this much later.
    ClientKill(User, Duration),
    /// SIGTERM of a client, and a start when it has ended.
    ClientTerm(User),
    /// SIGSTOP of a client, SIGCONT.
    ClientStop(User, Duration),
    /// An upstream dies with its sockets, and is back this much later.
    OllamaKill(User, Duration),
    /// An upstream stands still.
    OllamaStop(User, Duration),
    /// The connections between client and server end.
    LineCut(User, Cut),
    /// No byte passes between client and server.
    LineFreeze(User, Duration),
    /// Connections are cut, and new ones refused.
    LineRefuse(User, Duration),
    /// Bytes pass late and slowly.
    LineSlow(User, Duration),
    /// The client's token is about to expire; another is put into its file this much later.
    TokenRenew(User, Duration),
    /// Another client under the same name is refused.
    Rival(User),
    /// Another client under the same name takes over from one that stands still.
    Takeover(User),
    /// Another client under another name takes the requests for a while, and ends with SIGTERM.
    TwinTerm(User, Duration),
    /// The same, and it ends with SIGKILL.
    TwinKill(User, Duration),
}

/// What one injector does; there is one for the server and alice, and one for bob, so that faults overlap.
#[derive(Debug)]
pub(crate) struct Plan {
    rng: Rng,
    user: User,
    only: String,
    /// Faults since the client was started after which it waits longer each time before it connects again.
    bumps: u32,
}

/// The longest that is noticed by nobody: half of what a peer may be silent, and less than the ten seconds in which
/// a stream must be accepted.
const SHORT: u64 = 6_000;

/// Enough for both ends of a tunnel to give each other up.
const LONG: std::ops::Range<u64> = 18_000..22_000;

/// After this many, the next fault is a restart of the client, or it would wait half a minute before it connects.
const BUMPS: u32 = 4;

impl Plan {
    pub(crate) fn new(seed: u64, user: User, only: &str) -> Self {
        Self { rng: Rng::with_seed(seed ^ ((user as u64 + 1) << 40)), user, only: only.to_owned(), bumps: 0 }
    }

    /// The pause before the next fault, and the fault; `None` where none is wanted.
    pub(crate) fn next(&mut self) -> Option<(Duration, Fault)> {
        let pause = Duration::from_millis(self.rng.u64(300..3000));
        if self.bumps >= BUMPS && self.only.is_empty() {
            self.bumps = 0;
            let down = self.millis(0..1000);
            return Some((pause, Fault::ClientKill(self.user, down)));
        }
        for _ in 0..10_000 {
            let fault = self.any();
            if fault.to_string().contains(&self.only) {
                self.bumps = if fault.restarts_client() { 0 } else { self.bumps + u32::from(fault.breaks_line()) };
                return Some((pause, fault));
            }
        }
        None
    }

    fn any(&mut self) -> Fault {
        let user = self.user;
        // The server is alice's injector's, or two would restart it at once.
        let first = if user == User::Alice { 0 } else { 6 };
        match self.rng.u8(first..25) {
            0 | 1 => Fault::ServerKill(self.millis(0..2500)),
            2 => Fault::ServerTerm(self.millis(0..1500)),
            3 => Fault::ServerRoll,
            4 => Fault::ServerStop(self.short_or_long()),
            5 => Fault::ServerReload,
            6 => Fault::ClientKill(user, self.millis(0..2500)),
            7 | 8 => Fault::ClientTerm(user),
            9 => Fault::ClientStop(user, self.short_or_long()),
            10 | 11 => Fault::OllamaKill(user, self.millis(0..2500)),
            12 => Fault::OllamaStop(user, self.short_or_long()),
            13 => Fault::LineCut(user, Cut::Fin),
            14 => Fault::LineCut(user, Cut::Reset),
            15 => Fault::LineFreeze(user, self.short_or_long()),
            16 => Fault::LineRefuse(user, self.millis(300..2500)),
            17 | 18 => Fault::LineSlow(user, self.millis(2000..8000)),
            19 => Fault::TokenRenew(user, self.millis(3000..25_000)),
            20 => Fault::Rival(user),
            21 => Fault::Takeover(user),
            22 | 23 => Fault::TwinTerm(user, self.millis(500..4000)),
            _ => Fault::TwinKill(user, self.millis(500..4000)),
        }
    }

    fn short_or_long(&mut self) -> Duration {
        if self.rng.u8(..4) == 0 { self.millis(LONG) } else { self.millis(200..SHORT) }
    }

    fn millis(&mut self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.rng.u64(range))
    }
}

impl Fault {
    /// Whether a peer that stands still for this long is given up.
    pub(crate) fn is_long(time: Duration) -> bool {
        time > Duration::from_millis(SHORT)
    }

    /// Whether everybody involved is told at once, by a FIN or a RST.
    pub(crate) fn is_sudden(self) -> bool {
        matches!(self, Self::ServerKill(_) | Self::ClientKill(..) | Self::LineCut(..) | Self::LineRefuse(..))
    }

    fn restarts_client(self) -> bool {
        matches!(self, Self::ClientKill(..) | Self::ClientTerm(_) | Self::Takeover(_))
    }

    fn breaks_line(self) -> bool {
        match self {
            Self::ServerKill(_) | Self::ServerTerm(_) | Self::ServerRoll | Self::LineCut(..) | Self::LineRefuse(..) => {
                true
            }
            Self::ServerStop(time) | Self::LineFreeze(_, time) => Self::is_long(time),
            _ => false,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, user, time) = match self {
            Self::ServerKill(time) => ("server killed", None, Some(time)),
            Self::ServerTerm(time) => ("server terminated", None, Some(time)),
            Self::ServerRoll => ("server rolled over", None, None),
            Self::ServerReload => ("server reloaded", None, None),
            Self::ServerStop(time) => ("server stopped", None, Some(time)),
            Self::ClientKill(user, time) => ("client killed", Some(user), Some(time)),
            Self::ClientTerm(user) => ("client terminated", Some(user), None),
            Self::ClientStop(user, time) => ("client stopped", Some(user), Some(time)),
            Self::OllamaKill(user, time) => ("ollama killed", Some(user), Some(time)),
            Self::OllamaStop(user, time) => ("ollama stopped", Some(user), Some(time)),
            Self::LineCut(user, Cut::Fin) => ("line cut by FIN", Some(user), None),
            Self::LineCut(user, Cut::Reset) => ("line cut by RST", Some(user), None),
            Self::LineFreeze(user, time) => ("line frozen", Some(user), Some(time)),
            Self::LineRefuse(user, time) => ("line refused", Some(user), Some(time)),
            Self::LineSlow(user, time) => ("line slowed", Some(user), Some(time)),
            Self::TokenRenew(user, time) => ("token renewed", Some(user), Some(time)),
            Self::Rival(user) => ("rival", Some(user), None),
            Self::Takeover(user) => ("takeover", Some(user), None),
            Self::TwinTerm(user, time) => ("twin terminated", Some(user), Some(time)),
            Self::TwinKill(user, time) => ("twin killed", Some(user), Some(time)),
        };
        f.write_str(name)?;
        if let Some(user) = user {
            write!(f, " of {}", user.name())?;
        }
        if let Some(time) = time {
            write!(f, " ({time:?})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_the_same_plan() {
        let plan = |seed| {
            let mut plan = Plan::new(seed, User::Alice, "");
            (0..100).map_while(|_| plan.next()).collect::<Vec<_>>()
        };
        assert_eq!(plan(3), plan(3));
        assert_ne!(plan(3), plan(4));
    }

    #[test]
    fn only_alice_injects_faults_of_the_server() {
        let names = |user| {
            let mut plan = Plan::new(1, user, "");
            (0..2000).filter_map(|_| plan.next()).map(|(_, fault)| fault.to_string()).collect::<String>()
        };
        assert!(names(User::Alice).contains("server killed"));
        assert!(!names(User::Bob).contains("server"));
    }
}
