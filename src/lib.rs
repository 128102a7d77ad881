//! firstbyte: an LLM gateway whose safe window is before the first byte.
//!
//! Eight floors; imports go only downward (`tests/tidy.rs` checks it):
//!
//! | floor | module | decides |
//! | --- | --- | --- |
//! | F0 | [`base`] | the vocabulary: buffers, time, identifiers, faults, limits |
//! | F1 | [`wire`] | bytes to structure and back: HTTP/1.1, SSE, JSON spans |
//! | F1' | [`rt`] | the runtime seam: io_uring, epoll, or a seeded simulation |
//! | F2 | [`llm`] | what the bytes mean: providers upstream, dialects downstream |
//! | F3 | [`config`] | text to checked values |
//! | F4 | [`route`] | who is tried, in what order |
//! | F5 | [`exchange`] | one exchange; owns the commit point |
//! | F6 | [`net`] | the shell: carries out what the exchange asks for |
//! | F7 | [`app`] | the process |

pub mod base;
pub mod config;
pub mod exchange;
pub mod llm;
pub mod net;
pub mod route;
pub mod rt;
pub mod wire;

#[cfg(feature = "uring")]
pub mod app;
