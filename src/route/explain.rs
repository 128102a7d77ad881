//! The choice with its reasons, for `firstbyte explain`, `POST /v1/route/explain` and dry runs. It calls
//! the function that dispatch calls and writes down what that says; it decides nothing itself, and no
//! credential can reach its output: a key appears as its number.

use std::fmt::Write as _;
use std::sync::Arc;

use serde_json::{Value, json};

use super::affinity::Warm;
use super::fit;
use super::health::Standing;
use super::pick::{Candidate, Note, choose};
use super::plan::{Attempt, Plan, Refusal, Rules, Table, Wish};
use super::rank::{self, By, Figures, Terms};
use crate::base::tick::{Ms, Tick};
use crate::config::{Commit, Demand, Fates, Needs, OnContentPolicy};

/// What would be done, and why.
#[derive(Clone, Debug)]
pub struct Explained {
    /// What was asked for: `model`, or the first of `models`.
    pub asked: String,
    /// What was read of the request's demands.
    pub demand: Demand,
    stream: bool,
    /// Exactly what `pick` returns.
    pub plan: Result<Plan, Refusal>,
    /// Every candidate: those of the plan in its order, then those left out as they were met.
    pub candidates: Vec<Shown>,
}

/// One candidate of an explanation.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// The target's name, or the unknown name that the request gave.
    pub target: Arc<str>,
    /// The provider; empty for an unknown name.
    pub provider: Arc<str>,
    /// The upstream model.
    pub upstream: Arc<str>,
    /// The name that a client may ask for.
    pub model: Arc<str>,
    /// Which of the provider's keys, from 1; 0 if it has none.
    pub key: u16,
    /// Its health: `closed`, `half_open`, `open`, `cooling`.
    pub health: &'static str,
    /// Until it is well again, if it is open or cooling.
    pub unwell: Option<Ms>,
    /// What is known of it for this request.
    pub figures: Figures,
    /// What its group is ranked by.
    pub by: By,
    /// By which it stands in its group, where that has a policy; lower is better.
    pub score: f64,
    /// What a balanced score is made of.
    pub terms: Terms,
    /// Window and output limit in tokens, as far as they are known.
    pub limits: (Option<u32>, Option<u32>),
    /// What the request needs and nobody knows of it.
    pub assumed: Needs,
    /// Parameters of the request that it is not given as they came, and what becomes of them.
    pub parameters: Fates,
    /// Why it is tried where it is, as name and text; or why it is left out, as text.
    pub reason: Reason,
}

/// The reason of one candidate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// In the plan.
    Tried {
        /// Its place, from 1.
        place: u16,
        /// The stable name of why.
        name: &'static str,
        /// The same as a phrase.
        text: &'static str,
    },
    /// Not in the plan.
    LeftOut {
        /// Why, as a phrase.
        text: String,
    },
}

/// Shows what `pick` would choose, without sending anything.
pub fn explain(table: &Table, wish: &Wish, turn: u32, now: Tick) -> Explained {
    let (mut tried, mut left) = (Vec::new(), Vec::new());
    let view = View { table, wish, now, warm: table.affinity.warm(wish.demand.thread, now) };
    let plan = choose(table, wish, turn, now, &mut |note| match note {
        Note::Unknown(name) => left.push(unknown(name)),
        Note::Left(candidate, why) => {
            left.push(view.shown(candidate, Reason::LeftOut { text: why.text() }));
        }
        Note::Kept(candidate) => {
            let place = tried.len() as u16 + 1;
            let (name, text) = (candidate.why.name(), candidate.why.text());
            tried.push(view.shown(candidate, Reason::Tried { place, name, text }));
        }
    });
    tried.append(&mut left);
    let asked = if wish.model.is_empty() {
        wish.models.first().cloned().unwrap_or_default()
    } else {
        String::from(&*wish.model)
    };
    Explained { asked, demand: wish.demand, stream: wish.stream, plan, candidates: tried }
}

fn unknown(name: &str) -> Shown {
    Shown {
        target: name.into(),
        provider: Arc::default(),
        upstream: Arc::default(),
        model: Arc::default(),
        key: 0,
        health: "",
        unwell: None,
        figures: Figures::default(),
        by: By::Order,
        score: 0.0,
        terms: Terms::default(),
        limits: (None, None),
        assumed: Needs::NONE,
        parameters: Fates::new(),
        reason: Reason::LeftOut { text: "no model, route or provider of that name".to_owned() },
    }
}

/// From where candidates are looked at.
struct View<'v> {
    table: &'v Table,
    wish: &'v Wish<'v>,
    now: Tick,
    warm: Option<Warm>,
}

impl View<'_> {
    fn shown(&self, candidate: &Candidate<'_>, reason: Reason) -> Shown {
        let target = &self.table.targets[candidate.line.target];
        let unwell = match candidate.standing {
            Standing::Ready | Standing::HalfOpen => None,
            Standing::Open { until } | Standing::Cooling { until, .. } => Some(until - self.now),
        };
        let figures = rank::figures(self.table, self.wish, self.warm, candidate, self.now);
        Shown {
            target: target.name.clone(),
            provider: self.table.providers[target.provider].name.clone(),
            upstream: candidate.model.get().clone(),
            model: candidate.shown.get().clone(),
            key: if target.key.is_some() { target.key_index + 1 } else { 0 },
            health: candidate.standing.name(),
            unwell,
            figures,
            by: candidate.by,
            score: candidate.score,
            terms: rank::terms(&figures, &candidate.best),
            limits: (candidate.facts.context, candidate.facts.output),
            assumed: fit::assumed(candidate.facts, self.wish),
            parameters: candidate.fates.as_deref().cloned().unwrap_or_default(),
            reason,
        }
    }
}

impl Explained {
    /// For `POST /v1/route/explain`: `model`, then `attempts` and `rules` or `refused`, and `left_out`.
    /// Times are in milliseconds.
    pub fn to_json(&self) -> Value {
        let mut attempts = Vec::new();
        let mut left_out = Vec::new();
        for candidate in &self.candidates {
            match &candidate.reason {
                Reason::Tried { place, name, text } => {
                    let mut row = candidate.to_json();
                    row["place"] = json!(place);
                    row["why"] = json!(name);
                    row["why_text"] = json!(text);
                    let attempt = self
                        .plan
                        .as_ref()
                        .ok()
                        .and_then(|plan| plan.attempts.get(usize::from(*place) - 1));
                    if let Some(attempt) = attempt {
                        row["timeouts"] = timeouts(attempt);
                    }
                    attempts.push(row);
                }
                Reason::LeftOut { text } => {
                    let mut row = candidate.to_json();
                    row["why_text"] = json!(text);
                    left_out.push(row);
                }
            }
        }
        let mut out = json!({
            "model": self.asked, "stream": self.stream, "demand": demand(&self.demand),
            "attempts": attempts, "left_out": left_out, "on_failure": on_failure(),
        });
        match &self.plan {
            Ok(plan) => out["rules"] = rules(&plan.rules),
            Err(refusal) => out["refused"] = refused(refusal),
        }
        out
    }

    /// A table for a terminal: a line for each candidate, then the rules or the refusal.
    pub fn to_text(&self) -> String {
        let head = ["#", "target", "model", "health", "cost", "first", "tok/s", "score", "why"];
        let mut rows = vec![head.map(str::to_owned)];
        for candidate in &self.candidates {
            rows.push(candidate.cells());
        }
        let widths: [usize; 9] = std::array::from_fn(|i| {
            rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0)
        });
        let mut out = String::new();
        for row in &rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(widths) {
                let _ = write!(line, "{cell:width$}  ");
            }
            out += line.trim_end();
            out.push('\n');
        }
        let Demand { needs, prompt, output, .. } = self.demand;
        let _ = write!(out, "\nabout {prompt} prompt tokens");
        if let Some(output) = output {
            let _ = write!(out, ", an answer of at most {output}");
        }
        let _ = writeln!(
            out,
            "; needs {}",
            if needs.is_empty() { "nothing".to_owned() } else { needs.to_string() }
        );
        out.push('\n');
        match &self.plan {
            Ok(plan) => {
                for (what, then) in ON_FAILURE {
                    let _ = writeln!(out, "{what}: {then}");
                }
                out.push('\n');
                let Rules { commit, deadline, total, hold_max, .. } = &plan.rules;
                let commit = commit_text(*commit);
                let _ = writeln!(
                    out,
                    "commit {commit}, hold {hold_max} bytes, deadline {deadline}, total {total}"
                );
            }
            Err(refusal) => {
                let _ = writeln!(out, "refused: {}", refusal.text());
            }
        }
        out
    }
}

fn on_failure() -> Vec<Value> {
    ON_FAILURE.iter().map(|(what, then)| json!({ "what": what, "then": then })).collect()
}

/// What would follow each class of failure: the exchange's verdict (`exchange::verdict`) in words.
const ON_FAILURE: &[(&str, &str)] = &[
    ("connect, TLS, reset, malformed response, time-out, 408, 409, 425, 5xx", "the next attempt"),
    ("429, or 503 with Retry-After", "the next attempt; the target is left alone for that long"),
    ("401, 402, 403, 404, a spent quota", "the next attempt, and a warning"),
    (
        "context length exceeded",
        "the next attempt with another model and no smaller a window, else that error",
    ),
    ("400, 422 and other client faults", "that error, no further attempt"),
    ("an error event, a bad event or the end before the commit", "the next attempt"),
    ("anything after the commit", "one error event, no terminator, no further attempt"),
];

fn demand(demand: &Demand) -> Value {
    json!({
        "needs": demand.needs.names().collect::<Vec<_>>(),
        "prompt_tokens": demand.prompt,
        "prompt_tokens_least": demand.least(),
        "prompt_tokens_most": demand.most(),
        "max_output_tokens": demand.output,
    })
}

impl Shown {
    /// The cells of its line in the table.
    fn cells(&self) -> [String; 9] {
        let (place, mut why) = match &self.reason {
            Reason::Tried { place, text, .. } => (place.to_string(), (*text).to_owned()),
            Reason::LeftOut { text } => ("-".to_owned(), text.clone()),
        };
        if !self.assumed.is_empty() {
            let _ = write!(why, " (assumed: {})", self.assumed);
        }
        if !self.parameters.is_empty() {
            let told = self.parameters.iter();
            let told: Vec<_> = told.map(|(name, fate)| format!("{name} {}", fate.name())).collect();
            let _ = write!(why, " ({})", told.join(", "));
        }
        let health = match self.unwell {
            Some(ms) => format!("{} {ms}", self.health),
            None => self.health.to_owned(),
        };
        let figures = &self.figures;
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        [
            place,
            self.target.to_string(),
            self.model.to_string(),
            health,
            or_dash(figures.cost.map(|cost| format!("${cost:.6}"))),
            or_dash(figures.reading.first.map(|first| format!("{:.0}ms", first * 1e3))),
            or_dash(figures.reading.rate.map(|rate| format!("{rate:.0}"))),
            or_dash(
                (self.by != By::Order && self.score < 1e9).then(|| format!("{:.4}", self.score)),
            ),
            why,
        ]
    }

    fn figures_json(&self) -> Value {
        let figures = &self.figures;
        let rounded = |value: f64, steps: f64| (value * steps).round() / steps;
        let mut out = json!({
            "cost_usd": figures.cost.map(|cost| rounded(cost, 1e9)),
            "first_content_ms": figures.reading.first.map(|first| (first * 1e3).round()),
            "tokens_per_second": figures.reading.rate.map(|rate| rounded(f64::from(rate), 10.0)),
            "failures": rounded(f64::from(figures.reading.errors), 1e3),
            "cached_prompt_tokens": figures.cached,
            "context_window": self.limits.0,
            "output_limit": self.limits.1,
        });
        if self.by != By::Order {
            out["ranked_by"] = json!(self.by.name());
            out["score"] = json!((self.score < 1e9).then(|| rounded(self.score, 1e9)));
        }
        if self.by == By::Balance {
            let Terms { price, time, failures, warm } = self.terms;
            out["terms"] = json!({
                "price": rounded(price, 1e4), "time": rounded(time, 1e4),
                "failures": rounded(failures, 1e4), "warm": warm,
            });
        }
        out
    }

    fn to_json(&self) -> Value {
        let mut row = json!({ "target": &*self.target });
        if !self.provider.is_empty() {
            row["provider"] = json!(&*self.provider);
            row["upstream_model"] = json!(&*self.upstream);
            row["model"] = json!(&*self.model);
            row["key"] = json!(self.key);
            row["health"] = json!(self.health);
            row["figures"] = self.figures_json();
            let fates = self.parameters.iter();
            row["parameters"] = fates.map(|(name, fate)| (&**name, fate.name())).collect();
            row["assumed"] = json!(self.assumed.names().collect::<Vec<_>>());
        }
        if let Some(ms) = self.unwell {
            row["unwell_ms"] = json!(ms.0);
        }
        row
    }
}

impl Refusal {
    /// The stable short name, `[a-z_]`.
    pub const fn name(&self) -> &'static str {
        match self {
            Refusal::UnknownModel => "unknown_model",
            Refusal::NothingLeft => "nothing_left",
            Refusal::Unfit(_) => "incompatible",
            Refusal::Cooling { .. } => "cooling",
        }
    }

    /// A phrase for a person.
    pub fn text(&self) -> String {
        let text = match self {
            Refusal::UnknownModel => "no model, route or provider of that name",
            Refusal::NothingLeft => "the request's provider rules leave no target",
            Refusal::Unfit(lacks) => {
                let mut text = "no target can serve the request".to_owned();
                for (index, (target, lack)) in lacks.iter().take(8).enumerate() {
                    let _ = write!(text, "{} {target}: {lack}", if index == 0 { ":" } else { "." });
                }
                return text;
            }
            Refusal::Cooling { .. } => "every target asked to be left alone for a while",
        };
        text.to_owned()
    }
}

fn refused(refusal: &Refusal) -> Value {
    let mut out = json!({ "reason": refusal.name(), "text": refusal.text() });
    if let Refusal::Cooling { retry_after, status } = refusal {
        out["status"] = json!(status);
        out["retry_after_ms"] = json!(retry_after.0);
    }
    out
}

fn timeouts(attempt: &Attempt) -> Value {
    json!({
        "connect_ms": attempt.connect.0,
        "head_ms": attempt.head.0,
        "first_content_ms": attempt.first.0,
        "idle_ms": attempt.idle.0,
        "answer_ms": limited(attempt.answer),
        "throughput_floor": attempt.floor,
        "hedge_after_ms": attempt.hedge.map(|ms| ms.0),
    })
}

fn rules(rules: &Rules) -> Value {
    json!({
        "commit": commit_text(rules.commit),
        "hold_max": rules.hold_max,
        "answer_max": rules.answer_max,
        "open_after_ms": rules.open_after.map(|ms| ms.0),
        "deadline_ms": rules.deadline.0,
        "total_ms": rules.total.0,
        "on_content_policy": match rules.on_content_policy {
            OnContentPolicy::Return => "return",
            OnContentPolicy::Next => "next",
        },
        "replay": rules.replay,
    })
}

fn limited(ms: Ms) -> Option<u32> {
    (ms != Ms::MAX).then_some(ms.0)
}

/// The form that `Commit::parse` reads.
fn commit_text(commit: Commit) -> String {
    match commit {
        Commit::Headers => "headers".to_owned(),
        Commit::FirstEvent => "first_event".to_owned(),
        Commit::FirstContent => "first_content".to_owned(),
        Commit::Tokens { count, within } => format!("tokens={count},within={within}"),
        Commit::Complete => "complete".to_owned(),
    }
}
