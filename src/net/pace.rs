//! How slowly a client may send. Time is what it spends: it begins with a grace, each byte earns it the
//! time that a byte takes at the least rate, and what it has saved is capped. A drip that makes progress
//! runs out of time, a client that is slow and fair does not.
//!
//! ```text
//! rate 512 B/s, grace 20 s:  one byte a second  -> cut after 20 s
//!                            1 KiB a second     -> never cut
//! ```

use crate::base::tick::{Ms, Tick};
use crate::config::Server;

/// One head's or body's time.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    due: Tick,
    /// Bytes a second; 0: any.
    rate: u32,
    /// What may be saved.
    most: Ms,
}

impl Pace {
    /// From now on. A client may save as much as the time-out beside it allows it to be silent.
    pub(super) fn new(now: Tick, server: &Server, timeout: Ms) -> Pace {
        let (rate, most) = (server.rate_min, server.rate_grace.max(timeout));
        let due = if rate == 0 { Tick::NEVER } else { now + server.rate_grace };
        Pace { due, rate, most }
    }

    /// So many bytes came.
    pub(super) fn came(&mut self, bytes: usize, now: Tick) {
        if self.rate == 0 {
            return;
        }
        let earned = (bytes as u64).saturating_mul(1_000_000) / u64::from(self.rate);
        self.due = Tick(self.due.0.saturating_add(earned)).min(now + self.most);
    }

    /// When its time is over, unless bytes come.
    pub(super) fn due(&self) -> Tick {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(rate_min: u32, grace: u32) -> Server {
        Server { rate_min, rate_grace: Ms(grace), ..Server::default() }
    }

    /// Sends `bytes` every `every` ms; when it is cut, in ms, within ten minutes.
    fn cut(rate: u32, bytes: usize, every: u32) -> Option<u64> {
        let mut pace = Pace::new(Tick(0), &server(rate, 20_000), Ms(30_000));
        for step in 1..=600_000 / every {
            let now = Tick(0) + Ms(step * every);
            if pace.due() <= now {
                return Some(pace.due().0 / 1000);
            }
            pace.came(bytes, now);
        }
        None
    }

    #[test]
    fn drips_are_cut_and_fair_clients_are_not() {
        assert_eq!(cut(512, 0, 1_000), Some(20_000));
        let drip = cut(512, 1, 1_000).unwrap();
        assert!((20_000..20_100).contains(&drip), "{drip}");
        let drip = cut(512, 480, 1_000).unwrap();
        assert!(drip > 200_000, "just below the rate is cut late: {drip}");
        for (bytes, every) in [(513, 1_000), (64, 100), (10_000, 19_000), (1 << 20, 19_000)] {
            assert_eq!(cut(512, bytes, every), None, "{bytes} bytes every {every} ms");
        }
        assert_eq!(cut(0, 1, 10_000), None, "any rate");
    }

    #[test]
    fn what_came_at_once_is_not_saved_for_ever() {
        let mut pace = Pace::new(Tick(0), &server(512, 20_000), Ms(30_000));
        pace.came(32 << 20, Tick(0));
        assert_eq!(pace.due(), Tick(0) + Ms(30_000));
        pace.came(usize::MAX, Tick(1));
        assert_eq!(pace.due(), Tick(1) + Ms(30_000));
    }
}
