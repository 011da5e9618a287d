//! What was measured, judged by the gates, as a table or as JSON.

use std::{fmt::Write, time::Duration};

use serde_json::{Value, json};

/// Whose figure it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whose {
    Direct,
    Nginx,
    /// wstunnel behind nginx.
    Wstunnel,
    Ours,
}

/// What is compared with the gate.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Judged {
    /// Our figure itself.
    Itself,
    /// Our figure in units of nginx's.
    OfNginx,
    /// Our figure in units of wstunnel's.
    OfWstunnel,
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
    gates: Vec<(Judged, Gate)>,
    figures: Vec<(Whose, f64)>,
}

impl Measure {
    /// A figure that is only shown.
    pub(crate) fn shown(name: &'static str) -> Self {
        Self::gated(name, [])
    }

    /// A figure with gates.
    pub(crate) fn gated(name: &'static str, gates: impl Into<Vec<(Judged, Gate)>>) -> Self {
        Self { name, gates: gates.into(), figures: Vec::new() }
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

    /// What is compared with a gate.
    fn verdict(&self, judged: Judged) -> Option<f64> {
        let ours = self.median(Whose::Ours)?;
        match judged {
            Judged::Itself => Some(ours),
            Judged::OfNginx => Some(ours / self.median(Whose::Nginx)?),
            Judged::OfWstunnel => Some(ours / self.median(Whose::Wstunnel)?),
            Judged::AddedOfNginx => {
                let direct = self.median(Whose::Direct)?;
                Some((ours - direct) / (self.median(Whose::Nginx)? - direct))
            }
        }
    }

    /// The gates, each with what is compared with it.
    fn judgements(&self) -> impl Iterator<Item = (Judged, Gate, f64)> {
        self.gates.iter().filter_map(|(judged, gate)| Some((*judged, *gate, self.verdict(*judged)?)))
    }
}

impl Gate {
    fn is_met(self, verdict: f64) -> bool {
        // What is shown as met is met: as many digits as the table has.
        let shown = (verdict * 100.0).round() / 100.0;
        match self {
            Self::AtMost(most) => shown <= most,
            Self::AtLeast(least) => shown >= least,
        }
    }
}

/// How many gates are not met.
pub(crate) fn failures(measures: &[Measure]) -> usize {
    measures.iter().flat_map(Measure::judgements).filter(|(_, gate, verdict)| !gate.is_met(*verdict)).count()
}

/// For people.
pub(crate) fn table(measures: &[Measure]) -> String {
    let mut text = String::new();
    let mut line = |name: &str, figures: [&str; 4], judged: &str, gate: &str, passed: &str| {
        let [direct, nginx, wstunnel, ours] = figures;
        let line =
            format!("{name:<44}{direct:>10}{nginx:>10}{wstunnel:>10}{ours:>10}   {judged:<16}{gate:<10}{passed}");
        writeln!(text, "{}", line.trim_end()).expect("a String takes everything");
    };
    line("median over the rounds", ["direct", "nginx", "wstunnel", "ours"], "judged", "gate", "");
    for measure in measures.iter().filter(|measure| !measure.figures.is_empty()) {
        let of = |whose| measure.median(whose).map_or_else(|| "-".to_owned(), figure);
        let figures = [Whose::Direct, Whose::Nginx, Whose::Wstunnel, Whose::Ours].map(of);
        let mut first = Some((measure.name, figures.each_ref().map(String::as_str)));
        for (judged, gate, verdict) in measure.judgements() {
            let shown = match judged {
                Judged::Itself => figure(verdict),
                Judged::OfNginx => format!("{verdict:.2} x nginx"),
                Judged::OfWstunnel => format!("{verdict:.2} x wstunnel"),
                Judged::AddedOfNginx => format!("added {verdict:.2} x"),
            };
            let bound = match gate {
                Gate::AtMost(most) => format!("<= {most}"),
                Gate::AtLeast(least) => format!(">= {least}"),
            };
            let (name, figures) = first.take().unwrap_or_default();
            line(name, figures, &shown, &bound, if gate.is_met(verdict) { "ok" } else { "NOT MET" });
        }
        if let Some((name, figures)) = first {
            line(name, figures, "", "", "");
        }
    }
    text
}

/// For machines.
pub(crate) fn json(measures: &[Measure]) -> String {
    let measures = measures.iter().filter(|measure| !measure.figures.is_empty()).map(|measure| {
        let gates = measure.judgements().map(|(judged, gate, verdict)| {
            let (bound, value) = match gate {
                Gate::AtMost(most) => ("at_most", most),
                Gate::AtLeast(least) => ("at_least", least),
            };
            json!({"judged": format!("{judged:?}"), "figure": verdict, bound: value, "met": gate.is_met(verdict)})
        });
        json!({
            "name": measure.name,
            "direct": measure.median(Whose::Direct),
            "nginx": measure.median(Whose::Nginx),
            "wstunnel": measure.median(Whose::Wstunnel),
            "ours": measure.median(Whose::Ours),
            "gates": gates.collect::<Vec<_>>(),
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
        let gates = [(Judged::AddedOfNginx, Gate::AtMost(2.8)), (Judged::OfWstunnel, Gate::AtLeast(0.8))];
        let mut measure = Measure::gated("p50", gates);
        assert_eq!(measure.judgements().count(), 0);
        for (whose, figures) in
            [(Whose::Direct, [30.0, 10.0, 90.0]), (Whose::Nginx, [50.0; 3]), (Whose::Ours, [70.0, 90.0, 600.0])]
        {
            for figure in figures {
                measure.add(whose, figure);
            }
        }
        assert_eq!(measure.verdict(Judged::AddedOfNginx), Some(3.0));
        assert_eq!(measure.verdict(Judged::OfWstunnel), None, "not measured");
        measure.add(Whose::Wstunnel, 100.0);
        let measures = [measure, Measure::shown("nothing")];
        assert_eq!(failures(&measures), 1);
        let table = table(&measures);
        assert!(table.contains("added 3.00 x    <= 2.8    NOT MET\n"), "{table}");
        assert!(table.ends_with("0.90 x wstunnel >= 0.8    ok\n"), "{table}");
        assert!(!json(&measures).contains("nothing"));
    }
}
