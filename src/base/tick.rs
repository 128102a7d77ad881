//! Time as a number. A `Tick` is microseconds since an epoch that only the runtime knows; pure floors
//! are handed `now` and never read a clock. Durations are `Ms`, whole milliseconds: timers have a
//! 1 ms step, so a finer unit would promise what nobody keeps.

use std::fmt;
use std::ops::{Add, Sub};

/// A moment on the monotonic clock, in microseconds since the runtime's own epoch.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug, Hash)]
pub struct Tick(pub u64);

/// A duration in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug, Hash)]
pub struct Ms(pub u32);

/// Milliseconds since the Unix epoch: the wall clock, for the ledger and for signatures only.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Debug)]
pub struct UnixMs(pub u64);

impl Tick {
    /// Later than any deadline: "never".
    pub const NEVER: Tick = Tick(u64::MAX);

    /// Microseconds from `earlier` to `self`; 0 if `earlier` is later.
    pub fn since(self, earlier: Tick) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Whole milliseconds from `earlier` to `self`, saturating at both ends.
    pub fn ms_since(self, earlier: Tick) -> u32 {
        u32::try_from(self.since(earlier) / 1000).unwrap_or(u32::MAX)
    }
}

impl Ms {
    /// No limit, where a limit is optional.
    pub const MAX: Ms = Ms(u32::MAX);

    /// The duration in microseconds.
    pub fn micros(self) -> u64 {
        u64::from(self.0) * 1000
    }
}

impl Add<Ms> for Tick {
    type Output = Tick;
    /// Saturates at `NEVER`, and `Ms::MAX` means `NEVER`.
    fn add(self, ms: Ms) -> Tick {
        if ms == Ms::MAX { Tick::NEVER } else { Tick(self.0.saturating_add(ms.micros())) }
    }
}

impl Sub<Tick> for Tick {
    type Output = Ms;
    fn sub(self, earlier: Tick) -> Ms {
        Ms(self.ms_since(earlier))
    }
}

impl fmt::Display for Ms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) {
            write!(f, "{}s", self.0 / 1000)
        } else {
            write!(f, "{}ms", self.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Tick(5_000) + Ms(2), Tick(7_000));
        assert_eq!(Tick(5) + Ms::MAX, Tick::NEVER);
        assert_eq!(Tick(u64::MAX - 1) + Ms(2), Tick::NEVER);
        assert_eq!(Tick(5_000) - Tick(7_000), Ms(0));
        assert_eq!(Tick(7_999) - Tick(5_000), Ms(2));
        assert_eq!(Tick::NEVER - Tick(0), Ms::MAX);
    }

    #[test]
    fn durations_read_like_the_config() {
        assert_eq!(Ms(2_000).to_string(), "2s");
        assert_eq!(Ms(2_500).to_string(), "2500ms");
    }
}
