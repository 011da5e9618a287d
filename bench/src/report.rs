//! What was measured, judged by the gates, as a table or as JSON.

use std::{fmt::Write, time::Duration};

use serde_json::{Value, json};

/// Whose figure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    Direct,
    Nginx,
    Ours,
}

/// What is compared with the gate.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Judged {
    /// Nothing: only shown.
    No,
    /// Our figure itself.
    Itself,
    /// Our figure in units of nginx's.
    OfNginx,
    /// What we add to the direct figure, in units of what nginx adds.
    AddedOfNginx,
}

/// The side of the gate that is good.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Gate {
    AtMost(f64),
    AtLeast(f64),
}

/// One line of the table: a figure of each, over the rounds.
#[derive(Debug)]
pub(crate) struct Measure {
    name: &'static str,
    judged: Judged,
    gate: Option<Gate>,
    figures: Vec<(Whose, f64)>,
}

impl Measure {
    /// A figure that is only shown.
    pub(crate) fn shown(name: &'static str) -> Self {
        Self { name, judged: Judged::No, gate: None, figures: Vec::new() }
    }

    /// A figure with a gate.
    pub(crate) fn gated(name: &'static str, judged: Judged, gate: Gate) -> Self {
        Self { name, judged, gate: Some(gate), figures: Vec::new() }
    }

    /// What it is called in the table.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Adds the figure of one round.
    pub(crate) fn add(&mut self, whose: Whose, figure: f64) {
        self.figures.push((whose, figure));
    }

    /// The median over the rounds.
    fn median(&self, whose: Whose) -> Option<f64> {
        let mut figures: Vec<_> = self.figures.iter().filter(|one| one.0 == whose).map(|one| one.1).collect();
        figures.sort_by(f64::total_cmp);
        match figures.len() {
            0 => None,
            n if n % 2 == 1 => Some(figures[n / 2]),
            n => Some(f64::midpoint(figures[n / 2 - 1], figures[n / 2])),
        }
    }

    /// What is compared with the gate.
    fn verdict(&self) -> Option<f64> {
        let ours = self.median(Whose::Ours)?;
        match self.judged {
            Judged::No => None,
            Judged::Itself => Some(ours),
            Judged::OfNginx => Some(ours / self.median(Whose::Nginx)?),
            Judged::AddedOfNginx => {
                let direct = self.median(Whose::Direct)?;
                Some((ours - direct) / (self.median(Whose::Nginx)? - direct))
            }
        }
    }

    /// Whether the gate is met; `None` without one or without figures.
    fn passed(&self) -> Option<bool> {
        let verdict = self.verdict()?;
        // What is shown as met is met: as many digits as the table has.
        let shown = (verdict * 100.0).round() / 100.0;
        Some(match self.gate? {
            Gate::AtMost(most) => shown <= most,
            Gate::AtLeast(least) => shown >= least,
        })
    }
}

/// How many gates are not met.
pub(crate) fn failures(measures: &[Measure]) -> usize {
    measures.iter().filter(|measure| measure.passed() == Some(false)).count()
}

/// For people.
pub(crate) fn table(measures: &[Measure]) -> String {
    let mut text = format!(
        "{:<44}{:>10}{:>10}{:>10}   {:<16}{:<10}\n",
        "median over the rounds", "direct", "nginx", "ours", "judged", "gate"
    );
    for measure in measures.iter().filter(|measure| !measure.figures.is_empty()) {
        let of = |whose| measure.median(whose).map_or_else(|| "-".to_owned(), figure);
        let verdict = measure.verdict().map_or_else(String::new, |verdict| match measure.judged {
            Judged::No | Judged::Itself => figure(verdict),
            Judged::OfNginx => format!("{verdict:.2} x nginx"),
            Judged::AddedOfNginx => format!("added {verdict:.2} x"),
        });
        let gate = measure.gate.map_or_else(String::new, |gate| match gate {
            Gate::AtMost(most) => format!("<= {most}"),
            Gate::AtLeast(least) => format!(">= {least}"),
        });
        let passed = measure.passed().map_or("", |passed| if passed { "ok" } else { "NOT MET" });
        let (direct, nginx, ours) = (of(Whose::Direct), of(Whose::Nginx), of(Whose::Ours));
        let line = format!("{:<44}{direct:>10}{nginx:>10}{ours:>10}   {verdict:<16}{gate:<10}{passed}", measure.name);
        writeln!(text, "{}", line.trim_end()).expect("a String takes everything");
    }
    text
}

/// For machines.
pub(crate) fn json(measures: &[Measure]) -> String {
    let measures = measures.iter().filter(|measure| !measure.figures.is_empty()).map(|measure| {
        let gate = measure.gate.map_or(Value::Null, |gate| match gate {
            Gate::AtMost(most) => json!({"at_most": most}),
            Gate::AtLeast(least) => json!({"at_least": least}),
        });
        json!({
            "name": measure.name,
            "direct": measure.median(Whose::Direct),
            "nginx": measure.median(Whose::Nginx),
            "ours": measure.median(Whose::Ours),
            "judged": measure.verdict(),
            "gate": gate,
            "passed": measure.passed(),
        })
    });
    format!("{:#}\n", Value::Array(measures.collect()))
}

/// Three significant digits, or all that stand before the point.
fn figure(value: f64) -> String {
    match value.abs() {
        ..1.0 => format!("{value:.3}"),
        ..10.0 => format!("{value:.2}"),
        ..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// A duration in microseconds.
pub(crate) fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// A duration in milliseconds.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn judged_by_the_median() {
        let mut measure = Measure::gated("p50", Judged::AddedOfNginx, Gate::AtMost(2.8));
        assert_eq!(measure.passed(), None);
        for (whose, figures) in
            [(Whose::Direct, [30.0, 10.0, 90.0]), (Whose::Nginx, [50.0; 3]), (Whose::Ours, [70.0, 90.0, 600.0])]
        {
            for figure in figures {
                measure.add(whose, figure);
            }
        }
        assert_eq!(measure.verdict(), Some(3.0));
        assert_eq!(measure.passed(), Some(false));
        let measures = [measure, Measure::shown("nothing")];
        assert_eq!(failures(&measures), 1);
        assert!(table(&measures).ends_with("added 3.00 x    <= 2.8    NOT MET\n"), "{}", table(&measures));
        assert!(!json(&measures).contains("nothing"));
    }
}
