//! F6: the shell. Carries out what the exchange asks for, on any `Rt`.

pub mod watch;
