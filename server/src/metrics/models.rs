//! What models did, by their names. The names come from desktops, so their number is bounded.

use std::{
    collections::HashSet,
    sync::{PoisonError, RwLock},
};

use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Registry};

use super::{counted, register};
use crate::figures::Figures;

/// Names that get series of their own, first come, first served: about 60 series each. The rest share `other`.
const NAMES: usize = 50;

const FIRST_TOKEN: [f64; 10] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 120.0];
const LOAD: [f64; 8] = [0.1, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0];
const PER_SECOND: [f64; 10] = [1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0, 320.0, 1280.0];

/// Figures of all models.
pub(crate) struct Models {
    names: RwLock<HashSet<Box<str>>>,
    tokens: IntCounterVec,
    first_token: HistogramVec,
    load: HistogramVec,
    per_second: HistogramVec,
}

impl Models {
    pub(super) fn new(registry: &Registry) -> Self {
        let histogram = |name: &str, help: &str, bounds: &[f64]| {
            let opts = HistogramOpts::new(name, help).buckets(bounds.to_vec());
            register(registry, HistogramVec::new(opts, &["model"]))
        };
        Self {
            names: RwLock::default(),
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

    /// Once for each answer of a model.
    pub(crate) fn count(&self, figures: &Figures) {
        let name = figures.model.as_deref().filter(|name| self.has_series(name)).unwrap_or("other");
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

    fn has_series(&self, name: &str) -> bool {
        if self.names.read().unwrap_or_else(PoisonError::into_inner).contains(name) {
            return true;
        }
        let mut names = self.names.write().unwrap_or_else(PoisonError::into_inner);
        names.contains(name) || (names.len() < NAMES && names.insert(name.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_outside_are_bounded() {
        let registry = Registry::new();
        let models = Models::new(&registry);
        for n in 0..3 * NAMES {
            let figures = Figures { model: Some(format!("m{n}")), tokens_out: Some(1), ..Figures::default() };
            models.count(&figures);
            models.count(&figures);
        }
        let text = prometheus::TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let series = |line: &&str| line.starts_with("tunneld_model_tokens_total{");
        assert_eq!(text.lines().filter(series).count(), NAMES + 1);
        assert!(text.contains("{direction=\"out\",model=\"m0\"} 2\n"), "{text}");
        assert!(text.contains(&format!("{{direction=\"out\",model=\"other\"}} {}\n", 4 * NAMES)), "{text}");
    }
}
