//! F6: the shell. It owns sockets, TLS and the pool, and carries out what an exchange asks for, on any
//! runtime. It decides nothing about attempts: that is the exchange's.
//!
//! `accept` takes sockets, `conn` reads requests from one through `down`, `route_in` finds what a request is for,
//! `drive` runs one exchange over `dial`, `pool` and `tls`, `core` holds what a core's tasks share.

pub mod accept;
pub mod beacon;
pub mod conn;
pub mod core;
pub mod dial;
pub mod down;
mod drive;
pub mod gate;
mod intake;
pub mod load;
pub mod names;
mod pace;
pub mod pool;
mod shed;
pub mod watch;

pub use intake::wish_of;

#[cfg(feature = "uring")]
pub mod tls;
#[cfg(not(feature = "uring"))]
#[path = "tls_none.rs"]
pub mod tls;
