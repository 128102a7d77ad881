//! F7: the process. Config, workers, signals, metrics, the admin listener, the command line, and the
//! sandbox providers.

pub mod sandbox;
