//! F0: the vocabulary every other floor speaks. `std` only: no net, no files, no clock.

pub mod buf;
pub mod fail;
pub mod ids;
pub mod limits;
pub mod rng;
pub mod secret;
pub mod tick;
