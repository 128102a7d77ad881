//! F7 the process.
