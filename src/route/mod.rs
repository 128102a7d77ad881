//! F4: who is tried, in what order.
//!
//! `compile` turns a checked config into a [`Table`]: dense targets, endpoints and names, made once for
//! each load. `pick` makes the whole, immutable plan of one exchange from a table and a [`Wish`] before
//! the first byte goes upstream; nothing is added to a plan later. `explain` is the same choice with
//! its reasons. Health (`health`, `budget`) is what cores share: atomics only, no locks, no clock; every
//! call is handed `now`.
//!
//! This floor never opens anything, never sees a byte of a request body, and never decides whether a
//! failure may be followed by another attempt (that is the exchange's verdict).

pub mod affinity;
pub mod budget;
mod compile;
pub mod explain;
pub mod fit;
pub mod health;
#[cfg(test)]
mod laws;
mod pick;
mod plan;
mod rank;
mod ring;
pub mod speed;
#[cfg(test)]
mod tests;
pub mod token;

pub use compile::compile;
pub use explain::{Explained, Reason, Shown, explain};
pub use pick::pick;
pub use plan::{
    Attempt, Endpoint, Judge, Line, MaxPrice, ModelRow, OwnBreaker, Plan, ProviderRow, Refusal,
    RouteRow, Rules, Table, Target, Why, Wish,
};
pub use rank::{By, Figures, Terms};
