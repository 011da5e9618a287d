//! What models did, by their names. The names come from desktops: their number is bounded, for each user too, so that
//! whoever invents some takes no room from others.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Registry};
use tokio::time::Instant;

use super::{counted, register};
use crate::{figures::Figures, id::UserId};

/// Names that get series of their own, first come, first served: about 60 series each. The rest share `other`.
const NAMES: usize = 50;

/// Names that one user may bring in.
const NAMES_OF_A_USER: usize = 10;

/// A name that nobody has used for so long gives its place to a new one, and its series end.
const IDLE: Duration = Duration::from_secs(24 * 60 * 60);

const FIRST_TOKEN: [f64; 10] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];
const LOAD: [f64; 8] = [0.1, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0];
const PER_SECOND: [f64; 10] = [1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 1280.0];

/// Figures of all models.
pub(crate) struct Models {
    names: Mutex<HashMap<Box<str>, Named>>,
    tokens: IntCounterVec,
    first_token: HistogramVec,
    load: HistogramVec,
    per_second: HistogramVec,
}

/// A name with series of its own.
struct Named {
    /// Who brought it in.
    by: UserId,
    used: Instant,
}

impl Models {
    pub(super) fn new(registry: &Registry) -> Self {
        let histogram = |name: &str, help: &str, bounds: &[f64]| {
            let opts = HistogramOpts::new(name, help).buckets(bounds.to_vec());
            register(registry, HistogramVec::new(opts, &["model"]))
        };
        Self {
            names: Mutex::default(),
            tokens: counted(
                registry,
                "tunneld_model_tokens_total",
                "Tokens as desktops report them: in of prompts, out of answers.",
                &["model", "direction"],
            ),
            first_token: histogram(
                "tunneld_model_first_token_seconds",
                "From a request's arrival to the first record of its streamed answer.",
                &FIRST_TOKEN,
            ),
            load: histogram("tunneld_model_load_seconds", "Time that Ollama took to load the model.", &LOAD),
            per_second: histogram(
                "tunneld_model_tokens_per_second",
                "Tokens of an answer per second of generation.",
                &PER_SECOND,
            ),
        }
    }

    /// Once for each answer of a model to a request of `user`.
    pub(crate) fn count(&self, figures: &Figures, user: &UserId) {
        // Without tokens it may be anything that has a key `model`.
        let is_known = |name: &&str| figures.tokens_out.or(figures.tokens_in).is_some() && self.has_series(name, user);
        let name = figures.model.as_deref().filter(is_known).unwrap_or("other");
        for (direction, tokens) in [("in", figures.tokens_in), ("out", figures.tokens_out)] {
            if let Some(tokens) = tokens {
                self.tokens.with_label_values(&[name, direction]).inc_by(tokens);
            }
        }
        for (histogram, seconds) in [
            (&self.first_token, figures.first_token.map(|time| time.as_secs_f64())),
            (&self.load, figures.load.map(|time| time.as_secs_f64())),
            (&self.per_second, figures.tokens_per_second),
        ] {
            if let Some(seconds) = seconds {
                histogram.with_label_values(&[name]).observe(seconds);
            }
        }
    }

    /// Whether a name has series, or gets some now.
    fn has_series(&self, name: &str, user: &UserId) -> bool {
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if let Some(named) = names.get_mut(name) {
            named.used = now;
            return true;
        }
        let of_the_user = names.values().filter(|named| named.by == *user).count();
        if of_the_user >= NAMES_OF_A_USER || names.len() >= NAMES {
            let mut in_the_way = names.iter().filter(|(_, named)| of_the_user < NAMES_OF_A_USER || named.by == *user);
            let Some(idle) = in_the_way.find(|(_, named)| named.used.elapsed() > IDLE) else { return false };
            let idle = idle.0.clone();
            names.remove(&idle);
            self.forget(&idle);
        }
        names.insert(name.into(), Named { by: user.clone(), used: now });
        true
    }

    /// Ends the series of a name. Those that it never had are no loss.
    fn forget(&self, name: &str) {
        for direction in ["in", "out"] {
            _ = self.tokens.remove_label_values(&[name, direction]);
        }
        for histogram in [&self.first_token, &self.load, &self.per_second] {
            _ = histogram.remove_label_values(&[name]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct World {
        registry: Registry,
        models: Models,
    }

    impl World {
        fn new() -> Self {
            let registry = Registry::new();
            Self { models: Models::new(&registry), registry }
        }

        fn count(&self, user: &str, model: impl Into<String>) {
            let figures = Figures { model: Some(model.into()), tokens_out: Some(1), ..Figures::default() };
            self.models.count(&figures, &UserId::new("i", user).unwrap());
        }

        /// Tokens under a name, if it has series.
        fn tokens(&self, model: &str) -> Option<u64> {
            let series = format!("tunneld_model_tokens_total{{direction=\"out\",model=\"{model}\"}} ");
            self.lines().find_map(|line| line.strip_prefix(&series).map(|tokens| tokens.parse().unwrap()))
        }

        fn series(&self) -> usize {
            self.lines().filter(|line| line.starts_with("tunneld_model_tokens_total{")).count()
        }

        fn lines(&self) -> impl Iterator<Item = String> {
            let text = prometheus::TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap();
            text.lines().map(str::to_owned).collect::<Vec<_>>().into_iter()
        }
    }

    #[test]
    fn names_from_outside_are_bounded() {
        let world = World::new();
        for n in 0..3 * NAMES {
            for _ in 0..2 {
                world.count(&format!("u{}", n / 5), format!("m{n}"));
            }
        }
        assert_eq!(world.series(), NAMES + 1);
        assert_eq!(world.tokens("m0"), Some(2));
        assert_eq!(world.tokens("other"), Some(4 * NAMES as u64));
    }

    #[test]
    fn who_invents_names_takes_no_room_from_others() {
        let world = World::new();
        for n in 0..3 * NAMES {
            world.count("mallory", format!("m{n}"));
        }
        assert_eq!(world.series(), NAMES_OF_A_USER + 1);
        world.count("bob", "qwen3:8b");
        assert_eq!(world.tokens("qwen3:8b"), Some(1));
        // What another has brought in is the same model.
        world.count("mallory", "qwen3:8b");
        assert_eq!(world.tokens("qwen3:8b"), Some(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_that_nobody_uses_makes_room() {
        let world = World::new();
        for n in 0..NAMES_OF_A_USER {
            world.count("bob", format!("m{n}"));
        }
        tokio::time::advance(IDLE / 2).await;
        (1..NAMES_OF_A_USER).for_each(|n| world.count("bob", format!("m{n}")));
        world.count("bob", "early");
        assert_eq!((world.tokens("early"), world.tokens("m0")), (None, Some(1)));
        tokio::time::advance(IDLE / 2 + Duration::from_secs(1)).await;
        world.count("bob", "new");
        assert_eq!((world.tokens("new"), world.tokens("m0"), world.tokens("m1")), (Some(1), None, Some(2)));
        world.count("bob", "m0");
        assert_eq!(world.tokens("m0"), None);
    }

    #[test]
    fn an_answer_without_tokens_names_nothing() {
        let world = World::new();
        let figures = Figures { model: Some("x".into()), first_token: Some(Duration::ZERO), ..Figures::default() };
        world.models.count(&figures, &UserId::new("i", "bob").unwrap());
        world.count("bob", "y");
        assert_eq!((world.models.names.lock().unwrap().len(), world.tokens("y")), (1, Some(1)));
    }
}
