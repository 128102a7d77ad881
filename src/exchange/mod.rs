//! F5: one exchange, from request bytes to the last response byte. Pure.

pub mod ledger;
