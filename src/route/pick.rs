//! The choice: a wish and a table to a plan.

use super::plan::{Plan, Refusal, Table, Wish};
use crate::base::tick::Tick;

/// Makes the whole plan. `turn` rotates the keys of a provider: a counter of the core.
///
/// # Errors
/// Why there is nothing to try.
pub fn pick(table: &Table, wish: &Wish, turn: u32, now: Tick) -> Result<Plan, Refusal> {
    let _ = (table, wish, turn, now);
    Err(Refusal::UnknownModel)
}
