//! F7: the process. Files, environment, signals, threads, standard streams.

pub mod admin;
pub mod cli;
pub mod control;
pub mod demo;
pub mod descriptors;
pub mod handover;
pub mod ledger_log;
pub mod machine;
pub mod metrics;
pub mod models;
pub mod reload;
pub mod resolver;
pub mod sandbox;
pub mod say;
pub mod serve;
pub mod signals;
pub mod sockets;
pub mod timeline;
pub mod tokens;
pub mod translate;
pub mod worker;
