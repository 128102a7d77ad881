//! The choice with its reasons, for `firstbyte explain` and `POST /v1/route/explain`.

use serde_json::Value;

use super::plan::{Plan, Refusal, Table, Wish};
use crate::base::tick::Tick;

/// What would be done, and why.
#[derive(Clone, Debug)]
pub struct Explained {
    /// Exactly what `pick` returns.
    pub plan: Result<Plan, Refusal>,
}

impl Explained {
    /// For `POST /v1/route/explain`.
    pub fn to_json(&self) -> Value {
        Value::Null
    }

    /// A table for a terminal, with a line end.
    pub fn to_text(&self) -> String {
        String::new()
    }
}

/// Shows what `pick` would choose, without sending anything.
pub fn explain(table: &Table, wish: &Wish, turn: u32, now: Tick) -> Explained {
    Explained { plan: super::pick(table, wish, turn, now) }
}
