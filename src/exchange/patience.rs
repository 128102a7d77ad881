//! How slowly a client may read. Two limits, both only while octets wait for it: it must take something
//! within `timeout`, and at least `rate` on average, after a grace.
//!
//! What a client *takes* is what its system has acknowledged, not what our kernel accepts: a send buffer
//! of 128 KiB accepts nothing for as long as a slow client needs for half of it, which looks like a
//! client that is gone. What its own system holds for it can't be seen: a window that was closed opens
//! by a segment or a part of the receive buffer, so steady reading shows in steps (on loopback of
//! 64 KiB). Steps up to what the grace is worth at the least rate are no reason to cut.
//!
//! ```text
//! rate 4 KiB/s, grace 20 s:  64 KiB every 15 s      -> never cut
//!                            1 KiB a second         -> cut after 27 s
//! waits for the provider:    no octets wait, no time passes here
//! ```
//!
//! Nothing is asked of the kernel while a client reads well: it is looked at when a write has been under
//! way for long, by a timer that is armed anyway.

use crate::base::tick::{Ms, Tick};

/// What a client is allowed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Patience {
    /// How long it may take nothing.
    pub timeout: Ms,
    /// Octets a second, on average; 0: any.
    pub rate: u32,
    /// How long it may take less than that; what may be saved is the longer of the two times.
    pub grace: Ms,
}

impl From<Ms> for Patience {
    /// Any rate.
    fn from(timeout: Ms) -> Patience {
        Patience { timeout, rate: 0, grace: timeout }
    }
}

impl Patience {
    /// Between two looks at a client for which octets wait.
    fn interval(self) -> Ms {
        let nearer = if self.rate > 0 { self.timeout.min(self.grace) } else { self.timeout };
        Ms(nearer.0 / 4).max(Ms(1))
    }
}

/// What a look at the client came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Look {
    /// It reads, or nothing waits for it.
    Well,
    /// It has taken nothing for too long.
    Stuck,
    /// It takes less than it must.
    Slow,
}

/// What is known of a client's reading.
#[derive(Debug)]
pub(super) struct Reading {
    /// The write under way began; `NEVER`: none is.
    since: Tick,
    /// How long writes have waited before that, in microseconds.
    waited_us: u64,
    /// When to look.
    look_at: Tick,
    /// What the shell said last of what the client has taken, since the last look.
    told: Option<u64>,
    /// The shell says so at all.
    tells: bool,
    /// What the kernel accepted, in writes: all that is known if the shell says nothing.
    accepted: u64,
    last: Option<Last>,
}

/// As of the last look.
#[derive(Clone, Copy, Debug)]
struct Last {
    taken: u64,
    waited_us: u64,
    /// How long had been waited when something had last been taken.
    moved_us: u64,
    /// The time that it may still spend.
    saved_us: u64,
}

impl Default for Reading {
    fn default() -> Reading {
        let (since, look_at) = (Tick::NEVER, Tick::NEVER);
        Reading { since, look_at, waited_us: 0, told: None, tells: false, accepted: 0, last: None }
    }
}

impl Reading {
    /// When to look at the client.
    pub(super) fn look_at(&self) -> Tick {
        self.look_at
    }

    /// A write began. An alarm that is `armed` and near enough serves for the first look.
    pub(super) fn began(&mut self, now: Tick, armed: Tick, patience: Patience) {
        self.since = now;
        if self.look_at == Tick::NEVER {
            let near = now < armed && armed <= now + patience.timeout;
            self.look_at = if near { armed } else { now + patience.interval() };
        }
    }

    /// The kernel accepted something; `done`: all of the write.
    pub(super) fn accepted(&mut self, done: bool, now: Tick) {
        self.accepted += 1;
        if done && self.since != Tick::NEVER {
            self.waited_us += now.since(self.since);
            self.since = Tick::NEVER;
        }
    }

    /// So many octets of the connection's have been taken so far.
    pub(super) fn told(&mut self, taken: u64) {
        self.told = Some(taken);
        self.tells = true;
    }

    /// Looks at the client, and says when to look again.
    pub(super) fn look(&mut self, now: Tick, patience: Patience) -> Look {
        if self.since == Tick::NEVER {
            self.look_at = Tick::NEVER;
            return Look::Well;
        }
        self.look_at = now + patience.interval();
        let taken = match self.told.take() {
            Some(taken) => taken,
            None if self.tells => return Look::Well,
            None => self.accepted,
        };
        let waited_us = self.waited_us + now.since(self.since);
        let Some(last) = &mut self.last else {
            let saved_us = patience.grace.micros();
            self.last = Some(Last { taken, waited_us, moved_us: waited_us, saved_us });
            return Look::Well;
        };
        let came = taken.saturating_sub(last.taken);
        if came > 0 {
            last.moved_us = waited_us;
        }
        let spent_us = waited_us - last.waited_us;
        (last.taken, last.waited_us) = (taken, waited_us);
        if waited_us - last.moved_us >= patience.timeout.micros() {
            return Look::Stuck;
        }
        if patience.rate == 0 || !self.tells {
            return Look::Well;
        }
        // Both at once: what comes in steps was earned over the time that it is charged for.
        let earned_us = came.saturating_mul(1_000_000) / u64::from(patience.rate);
        let most_us = patience.grace.max(patience.timeout).micros();
        match last.saved_us.saturating_add(earned_us).checked_sub(spent_us) {
            Some(saved_us) => {
                last.saved_us = saved_us.min(most_us);
                Look::Well
            }
            None => Look::Slow,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Patience = Patience { timeout: Ms(30_000), rate: 4096, grace: Ms(20_000) };

    /// A client that takes `bytes` every `every_ms` while a write waits for `busy_ms` of each second;
    /// what becomes of it within an hour, and when, in seconds.
    fn becomes(rules: Patience, bytes: u64, every_ms: u64, busy_ms: u64) -> (Look, u64) {
        let mut reading = Reading::default();
        let (mut writing, mut taken) = (false, 1 << 20);
        for now_ms in 1..3_600_000 {
            let now = Tick(now_ms * 1000);
            if now_ms % every_ms == 0 {
                taken += bytes;
            }
            let busy = now_ms % 1000 < busy_ms;
            if busy && !writing {
                reading.began(now, Tick::NEVER, rules);
            } else if !busy && writing {
                reading.accepted(true, now);
            }
            writing = busy;
            if reading.look_at() <= now {
                reading.told(taken);
                let look = reading.look(now, rules);
                if look != Look::Well {
                    return (look, now_ms / 1000);
                }
            }
        }
        (Look::Well, 3_600)
    }

    #[test]
    fn steady_clients_above_the_rate_are_never_cut() {
        // In small steps, and in such that both the kernel and its own system hide.
        for (bytes, every_ms) in
            [(42, 10), (4_200, 1_000), (64 * 1024, 15_000), (80 * 1024, 19_500), (1 << 20, 29_000)]
        {
            let end = becomes(RULES, bytes, every_ms, 1000);
            assert_eq!(end.0, Look::Well, "{bytes} octets every {every_ms} ms: {end:?}");
        }
    }

    #[test]
    fn slow_and_stuck_clients_are_told_apart() {
        for (bytes, every_ms, within) in [(1, 10, 35), (1_024, 1_000, 40), (3_900, 1_000, 700)] {
            let (look, at) = becomes(RULES, bytes, every_ms, 1000);
            assert_eq!(look, Look::Slow, "{bytes} octets every {every_ms} ms");
            assert!((20..within).contains(&at), "{bytes} octets every {every_ms} ms: {at} s");
        }
        let any = Patience { rate: 0, ..RULES };
        assert_eq!(becomes(any, 1, 29_000, 1000).0, Look::Well);
        let (look, at) = becomes(any, 0, 1, 1000);
        assert_eq!(look, Look::Stuck);
        assert!((30..50).contains(&at), "{at}");
    }

    #[test]
    fn only_time_in_which_octets_wait_is_counted() {
        // A provider that says little: the client takes each event at once.
        assert_eq!(becomes(RULES, 10, 1_000, 2).0, Look::Well);
        assert_eq!(becomes(RULES, 0, 1, 1).0, Look::Well, "hardly anything ever waits");
        // A quarter of the time octets wait, and it takes a quarter of the rate and a little more.
        assert_eq!(becomes(RULES, 1_100, 1_000, 250).0, Look::Well);
        let (look, at) = becomes(RULES, 500, 1_000, 250);
        assert_eq!(look, Look::Slow);
        assert!(at > 80, "four times as late: {at}");
    }

    #[test]
    fn a_look_waits_for_an_alarm_that_is_near_and_asks_for_none_when_all_is_well() {
        let mut reading = Reading::default();
        reading.began(Tick(0), Tick(0) + Ms(20_000), RULES);
        assert_eq!(reading.look_at(), Tick(0) + Ms(20_000));
        reading.accepted(true, Tick(9));
        reading.began(Tick(10), Tick(0) + Ms(20_000), RULES);
        assert_eq!(reading.look_at(), Tick(0) + Ms(20_000), "one look, however many writes");
        reading.accepted(true, Tick(11));
        assert_eq!(reading.look(Tick(0) + Ms(20_000), RULES), Look::Well);
        assert_eq!(reading.look_at(), Tick::NEVER);
        reading.began(Tick(0) + Ms(21_000), Tick::NEVER, RULES);
        assert_eq!(reading.look_at(), Tick(0) + Ms(26_000));
    }

    #[test]
    fn a_shell_that_tells_nothing_leaves_what_the_kernel_accepts() {
        let mut reading = Reading::default();
        let mut now = Tick(0);
        reading.began(now, Tick::NEVER, RULES);
        for _ in 0..20 {
            now = now + Ms(25_000);
            reading.accepted(false, now);
            assert_eq!(reading.look(now, RULES), Look::Well);
        }
        assert_eq!(reading.look(now + Ms(31_000), RULES), Look::Stuck);
    }
}
