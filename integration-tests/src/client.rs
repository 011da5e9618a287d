//! `tunnel connect` inside the test's process.

use std::sync::{Arc, Mutex, PoisonError};

use tunnel::{
    client::Client,
    config::Config,
    event::{Connected, Event},
};

use crate::{
    background::{Background, Flavour},
    eventually::eventually,
};

/// A running client. Dropped, it is asked to stop as by Ctrl-C, and cut if that takes long.
#[derive(Debug)]
pub struct TestClient {
    seen: Arc<Mutex<Seen>>,
    background: Background,
}

#[derive(Debug, Default)]
struct Seen {
    events: Vec<Event>,
    refusal: Option<String>,
}

impl TestClient {
    /// Starts with `config`. Whether it connects is in its events.
    #[must_use]
    pub fn start(config: Config) -> Self {
        let seen = Arc::<Mutex<Seen>>::default();
        let background = Background::spawn("tunnel", Flavour::Current, {
            let seen = Arc::clone(&seen);
            move |stop| async move {
                let note = {
                    let seen = Arc::clone(&seen);
                    move |event| lock(&seen).events.push(event)
                };
                let client = Client::new(config, note).expect("a usable configuration");
                if let Err(refusal) = client.run(stop.cancelled_owned()).await {
                    lock(&seen).refusal = Some(refusal.to_string());
                }
            }
        });
        Self { seen, background }
    }

    /// Everything that has happened, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        lock(&self.seen).events.clone()
    }

    /// The first event, past or future, for which `pick` gives something.
    pub async fn event<T>(&self, what: &str, pick: impl Fn(&Event) -> Option<T>) -> T {
        eventually(what, async || lock(&self.seen).events.iter().find_map(&pick)).await
    }

    /// How many times it has connected.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.events().iter().filter(|event| matches!(event, Event::Connected(_))).count()
    }

    /// Waits until it has connected `times` times; what it was told then.
    pub async fn connected(&self, times: usize) -> Connected {
        let what = format!("the client connects ({times})");
        let nth = || {
            let mut connected = self.events().into_iter().filter_map(|event| match event {
                Event::Connected(connected) => Some(connected),
                _ => None,
            });
            connected.nth(times - 1)
        };
        eventually(&what, async || nth()).await
    }

    /// Waits until it has given up; the reason for good.
    pub async fn refused(&self) -> String {
        eventually("the client is refused for good", async || lock(&self.seen).refusal.clone()).await
    }

    /// Asks it to stop, as Ctrl-C does, and returns at once.
    pub fn ask_to_stop(&self) {
        self.background.ask_to_stop();
    }

    /// Whether it has stopped.
    #[must_use]
    pub fn has_stopped(&self) -> bool {
        self.background.has_ended()
    }

    /// Ends it as `kill -9` does.
    pub fn kill(self) {
        self.background.cut();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
