//! F7: the process. Files, environment, signals, threads, standard streams.

pub mod admin;
pub mod control;
pub mod ledger_log;
pub mod metrics;
pub mod resolver;
pub mod say;
pub mod timeline;
pub mod worker;
