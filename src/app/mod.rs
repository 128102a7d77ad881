//! F7: the process. Files, environment, signals, threads, standard streams.

pub mod control;
pub mod resolver;
pub mod say;
pub mod worker;
