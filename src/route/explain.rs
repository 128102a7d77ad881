//! The choice with its reasons, for `firstbyte explain` and `POST /v1/route/explain`. It calls the very
//! function that dispatch calls, and writes down what that leaves silent.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::health::Standing;
use super::pick::{Candidate, LeftOut, choose};
use super::plan::{Attempt, Plan, Refusal, Table, Wish};
use crate::base::ids::TargetId;
use crate::base::tick::{Ms, Tick};
use crate::config::{Commit, OnContentPolicy};

/// What would be done, and why.
#[derive(Clone, Debug)]
pub struct Explained {
    /// Exactly what `pick` returns.
    pub plan: Result<Plan, Refusal>,
    /// The model as asked for.
    asked: String,
    stream: bool,
    /// One for each attempt of the plan.
    rows: Vec<Row>,
    /// Candidates that are not in the plan, and why.
    left_out: Vec<(String, &'static str)>,
}

#[derive(Clone, Debug)]
struct Row {
    target: String,
    standing: &'static str,
    wait: Option<Ms>,
    provider: String,
    attempt: Attempt,
}

/// Shows what `pick` would choose, without sending anything.
pub fn explain(table: &Table, wish: &Wish, turn: u32, now: Tick) -> Explained {
    let mut left_out = Vec::new();
    let mut note = |candidate: &Candidate, why: LeftOut| {
        let name = name_of(table, candidate.line.target, &candidate.model);
        left_out.push((name, why.text()));
    };
    let plan = choose(table, wish, turn, now, &mut note);
    let attempts = plan.as_ref().map(|plan| plan.attempts.as_slice()).unwrap_or_default();
    let rows = attempts.iter().map(|attempt| row(table, attempt, now)).collect();
    let asked = match (wish.model.as_str(), wish.models.first()) {
        ("", Some(first)) => first.clone(),
        (model, _) => model.to_owned(),
    };
    Explained { plan, asked, stream: wish.stream, rows, left_out }
}

fn name_of(table: &Table, target: TargetId, model: &str) -> String {
    let row = &table.targets[target];
    match row.model {
        Some(_) => row.name.to_string(),
        None => format!("{}/{model}", table.providers[row.provider].name),
    }
}

fn row(table: &Table, attempt: &Attempt, now: Tick) -> Row {
    let target = &table.targets[attempt.target];
    let standing = target.breaker.standing(now);
    Row {
        target: name_of(table, attempt.target, &attempt.model),
        standing: target.breaker.state_name(now),
        wait: match standing {
            Standing::Ready | Standing::HalfOpen => None,
            Standing::Open { until } | Standing::Cooling { until, .. } => Some(until - now),
        },
        provider: table.providers[target.provider].name.to_string(),
        attempt: attempt.clone(),
    }
}

impl Explained {
    /// For `POST /v1/route/explain`.
    pub fn to_json(&self) -> Value {
        let left_out: Vec<_> =
            self.left_out.iter().map(|(name, why)| json!({ "target": name, "why": why })).collect();
        let mut out = json!({
            "object": "firstbyte.plan",
            "model": self.asked,
            "stream": self.stream,
            "attempts": self.rows.iter().enumerate().map(|(i, row)| row.to_json(i)).collect::<Vec<_>>(),
            "left_out": left_out,
            "on_failure": ON_FAILURE.iter().map(|(what, then)| json!({ "what": what, "then": then })).collect::<Vec<_>>(),
        });
        match &self.plan {
            Ok(plan) => {
                let rules = &plan.rules;
                out["rules"] = json!({
                    "commit": commit_text(rules.commit),
                    "hold_max_bytes": rules.hold_max,
                    "answer_max_bytes": rules.answer_max,
                    "open_after_ms": rules.open_after.map(|ms| ms.0),
                    "hedge_after_ms": rules.hedge_after.map(|ms| ms.0),
                    "deadline_ms": rules.deadline.0,
                    "total_timeout_ms": rules.total.0,
                    "on_content_policy": policy_text(rules.on_content_policy),
                    "replay": rules.replay,
                });
            }
            Err(refusal) => out["refused"] = json!(refusal_text(refusal)),
        }
        out
    }

    /// A table for a terminal, with a line end.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        // Writing to a String can't fail.
        let _ = match &self.plan {
            Ok(plan) => writeln!(
                out,
                "{}: {} attempt{} at most, released at {}, within {}",
                self.asked,
                self.rows.len(),
                if self.rows.len() == 1 { "" } else { "s" },
                commit_text(plan.rules.commit),
                plan.rules.deadline,
            ),
            Err(refusal) => writeln!(out, "{}: {}", self.asked, refusal_text(refusal)),
        };
        let width = self.rows.iter().map(|row| row.target.len()).max().unwrap_or(0).max(6);
        if !self.rows.is_empty() {
            let _ = writeln!(out, "  #  {:width$}  {:9}  first content  why", "target", "standing");
        }
        for (i, row) in self.rows.iter().enumerate() {
            let limit = row.attempt.first.to_string();
            let why = row.attempt.why.text();
            let _ = writeln!(
                out,
                "  {}  {:width$}  {:9}  {limit:13}  {why}",
                i + 1,
                row.target,
                row.standing,
            );
        }
        for (name, why) in &self.left_out {
            let _ = writeln!(out, "  -  {name:width$}  {why}");
        }
        out.push_str("then\n");
        for (what, then) in ON_FAILURE {
            let _ = writeln!(out, "  {what}: {then}");
        }
        out
    }
}

impl Row {
    fn to_json(&self, index: usize) -> Value {
        let attempt = &self.attempt;
        let finite = |ms: Ms| (ms != Ms::MAX).then_some(ms.0);
        json!({
            "rank": index + 1,
            "target": self.target,
            "provider": self.provider,
            "upstream_model": &*attempt.model,
            "shown_as": &*attempt.shown,
            "why": attempt.why.name(),
            "why_text": attempt.why.text(),
            "standing": self.standing,
            "standing_ends_in_ms": self.wait.map(|ms| ms.0),
            "connect_timeout_ms": attempt.connect.0,
            "head_timeout_ms": attempt.head.0,
            "first_content_timeout_ms": attempt.first.0,
            "idle_timeout_ms": attempt.idle.0,
            "answer_timeout_ms": finite(attempt.answer),
            "throughput_floor": attempt.floor,
        })
    }
}

/// What would follow each class of failure before commit; the exchange's verdict in words.
const ON_FAILURE: &[(&str, &str)] = &[
    ("connect, TLS, reset, malformed response, time-out, 408, 409, 425, 5xx", "the next attempt"),
    ("429, or 503 with Retry-After", "the next attempt; the target cools down for that long"),
    ("401, 402, 403, 404, spent quota", "the next attempt, with a warning"),
    ("context length exceeded", "the next attempt with another upstream model, else that error"),
    ("400, 422 and other client faults", "that error, no further attempt"),
    ("an error event, a bad frame or the end before content", "the next attempt"),
    ("anything after commit", "one error event, no terminator, no further attempt"),
];

fn commit_text(commit: Commit) -> String {
    match commit {
        Commit::Headers => String::from("headers"),
        Commit::FirstEvent => String::from("first_event"),
        Commit::FirstContent => String::from("first_content"),
        Commit::Tokens { count, within } => format!("tokens={count},within={}ms", within.0),
        Commit::Complete => String::from("complete"),
    }
}

const fn policy_text(policy: OnContentPolicy) -> &'static str {
    match policy {
        OnContentPolicy::Return => "return",
        OnContentPolicy::Next => "next",
    }
}

fn refusal_text(refusal: &Refusal) -> String {
    match refusal {
        Refusal::UnknownModel => String::from("no model, route or provider of that name"),
        Refusal::NothingLeft => {
            String::from("provider.only, ignore and allow_fallbacks leave nothing to try")
        }
        Refusal::Cooling { retry_after, status } => {
            format!("every target is cooling down; {status} for another {retry_after}")
        }
    }
}
