//! End to end over real sockets, on io_uring and on epoll: the shell as the process runs it, raw
//! providers that say exactly which bytes come when, raw clients that see exactly which bytes leave.
//!
//! Where the machine refuses io_uring, that half says so and is skipped.

#![cfg(feature = "uring")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a test says what is wrong by failing"
)]

mod bedrock;
mod bounds;
mod client;
mod fallback;
mod http;
mod life;
mod messages;
#[path = "../http1/naive.rs"]
mod naive;
mod natives;
mod overload;
mod pairs;
mod raw;
mod reload;
mod responses;
mod rig;
mod sandbox;
mod secure;
mod tls;
mod translated;
mod vertex;
