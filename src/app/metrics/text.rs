//! Prometheus' text exposition, version 0.0.4: families of samples, one line each.
//!
//! ```text
//! # HELP firstbyte_events_total Events passed to clients.
//! # TYPE firstbyte_events_total counter
//! firstbyte_events_total 42
//! firstbyte_dials_total{kind="fresh"} 7
//! ```
//!
//! Label values may hold anything: backslash, quote and line feed are escaped as the format has it.

use std::fmt::{Display, Write as _};

/// What a family's numbers mean.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Only rises, until the process starts anew.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Cumulative buckets, a sum and a count.
    Histogram,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        }
    }
}

/// The text so far.
#[derive(Default)]
pub(super) struct Text {
    out: String,
    family: &'static str,
}

impl Text {
    /// Begins a family; its samples follow before the next one begins.
    pub(super) fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        debug_assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        debug_assert!(!help.contains(['\\', '\n']));
        self.family = name;
        // Writing to a String can't fail; here and below.
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {}", kind.name());
    }

    /// One sample of the family under way.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.line("", labels, value);
    }

    /// A family that is one number.
    pub(super) fn single(
        &mut self,
        name: &'static str,
        kind: Kind,
        help: &str,
        value: impl Display,
    ) {
        self.family(name, kind, help);
        self.sample(&[], value);
    }

    /// A histogram's samples: `counts` per bucket, not cumulative, the last without bound.
    pub(super) fn histogram(
        &mut self,
        label: Option<(&str, &str)>,
        bounds: &[&str],
        counts: &[u64],
        sum: f64,
    ) {
        debug_assert_eq!(counts.len(), bounds.len() + 1);
        let mut labels: Vec<(&str, &str)> = label.into_iter().collect();
        let mut total = 0u64;
        for (bound, count) in bounds.iter().chain(&["+Inf"]).zip(counts) {
            total = total.saturating_add(*count);
            labels.push(("le", bound));
            self.line("_bucket", &labels, total);
            labels.pop();
        }
        self.line("_sum", &labels, sum);
        self.line("_count", &labels, total);
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], value: impl Display) {
        self.out += self.family;
        self.out += suffix;
        for (i, (name, value)) in labels.iter().enumerate() {
            self.out.push(if i == 0 { '{' } else { ',' });
            self.out += name;
            self.out += "=\"";
            escape(value, &mut self.out);
            self.out.push('"');
        }
        if !labels.is_empty() {
            self.out.push('}');
        }
        let _ = writeln!(self.out, " {value}");
    }

    /// The whole text.
    pub(super) fn finish(self) -> String {
        self.out
    }
}

fn escape(value: &str, out: &mut String) {
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}
