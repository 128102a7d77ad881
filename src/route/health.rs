//! The health of one target, shared by all cores without locks: its circuit breaker and its cool-down.
//!
//! ```text
//!            failures in a row, or error rate                open has passed, one caller gets the slot
//!   closed ------------------------------------> open(until) ------------------------> probing(until)
//!     ^                                             ^  ^                                  |   |   |
//!     |                                             |  +--- Bad: open again --------------+   |   |
//!     +-------------------------------------------- | ----- Good ----------------------------+   |
//!                                                   +------ Nothing: the slot is free at once ----+
//! ```
//!
//! The state is one word, changed by compare-and-swap. A probe that never reports holds its slot for a
//! bounded time and then counts as `Nothing`. A breaker never forbids anything: the plan puts an open
//! target last, and who is tried all the same gets `Pass::Extra`, whose outcome does not count.
//!
//! A cool-down is what the provider itself asked for with Retry-After: the longest one wins, it is
//! never shortened, and a success does not end it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::ring::Ring;
use crate::base::tick::{Ms, Tick};
use crate::config::BreakerRule;

/// Outcomes within the window below which an error rate says nothing.
pub const SAMPLE_MIN: u32 = 10;
/// How long a probe may take to report before another may be sent: past the usual time to first
/// content, at which an attempt is judged.
pub const PROBE_SLOT: Ms = Ms(30_000);

/// What a target looks like to the plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// As good as any.
    Ready,
    /// Was open; the next attempt is the probe. Keeps its place in a plan.
    HalfOpen,
    /// Left alone.
    Open {
        /// When a probe may be sent, at the latest.
        until: Tick,
    },
    /// Asked to be left alone.
    Cooling {
        /// Until when.
        until: Tick,
        /// 429 or 503: the status that it asked with.
        status: u16,
    },
}

impl Standing {
    /// The stable short name, `[a-z_]`.
    pub const fn name(self) -> &'static str {
        match self {
            Standing::Ready => "closed",
            Standing::HalfOpen => "half_open",
            Standing::Open { .. } => "open",
            Standing::Cooling { .. } => "cooling",
        }
    }
}

/// What an attempt got from [`Breaker::begin`] and gives back to [`Breaker::end`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// The breaker is closed.
    Normal,
    /// The one probe of a half-open breaker.
    Probe {
        /// Which slot it holds, so that a probe that outlived its slot can't speak for the next one.
        slot: Tick,
    },
    /// Tried although it is open. Its outcome does not count.
    Extra,
}

/// How an attempt ended, for the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It delivered.
    Good,
    /// The provider failed.
    Bad,
    /// Says nothing about the provider: client fault, client gone, lost race, shutdown.
    Nothing,
}

/// What metrics show of a breaker, since the process started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Counts {
    /// How often it opened, from closed or from half-open.
    pub opened: u32,
    /// Probes sent.
    pub probes: u32,
    /// Attempts made while it was open.
    pub extras: u32,
    /// Cool-downs asked for.
    pub cooled: u32,
}

/// Breaker and cool-down of one target.
#[derive(Debug)]
pub struct Breaker {
    rule: Option<BreakerRule>,
    gate: AtomicU64,
    /// Shared with the breakers of the same target under other rules.
    cool: Arc<AtomicU64>,
    row: AtomicU32,
    good: Ring,
    bad: Ring,
    opened: AtomicU32,
    probes: AtomicU32,
    extras: AtomicU32,
    cooled: AtomicU32,
}

impl Breaker {
    /// A closed breaker; with `None` it never opens, and only cools down.
    pub fn new(rule: Option<BreakerRule>) -> Breaker {
        let window = rule.unwrap_or_default().window;
        Breaker {
            rule,
            gate: AtomicU64::new(Gate::Closed.pack()),
            cool: Arc::new(AtomicU64::new(0)),
            row: AtomicU32::new(0),
            good: Ring::new(window),
            bad: Ring::new(window),
            opened: AtomicU32::new(0),
            probes: AtomicU32::new(0),
            extras: AtomicU32::new(0),
            cooled: AtomicU32::new(0),
        }
    }

    /// A breaker with another rule for the same target: keeps the cool-down and the counters, and
    /// starts closed.
    pub fn renewed(&self, rule: Option<BreakerRule>) -> Breaker {
        let next = Breaker { cool: self.cool.clone(), ..Breaker::new(rule) };
        let counts = self.counts();
        next.opened.store(counts.opened, Ordering::Relaxed);
        next.probes.store(counts.probes, Ordering::Relaxed);
        next.extras.store(counts.extras, Ordering::Relaxed);
        next.cooled.store(counts.cooled, Ordering::Relaxed);
        next
    }

    /// A closed breaker with a rule of its own for the same target: the provider's wish to be left alone
    /// holds for both.
    pub fn beside(&self, rule: Option<BreakerRule>) -> Breaker {
        Breaker { cool: self.cool.clone(), ..Breaker::new(rule) }
    }

    /// Whether it is of the same target, so that one cool-down holds for both.
    pub fn is_beside(&self, other: &Breaker) -> bool {
        Arc::ptr_eq(&self.cool, &other.cool)
    }

    /// The rule that it was made with.
    pub fn rule(&self) -> Option<BreakerRule> {
        self.rule
    }

    /// What the target looks like at `now`. A cool-down outranks the breaker's own state.
    pub fn standing(&self, now: Tick) -> Standing {
        let (until, status) = unpack_cool(self.cool.load(Ordering::SeqCst));
        if now < until {
            return Standing::Cooling { until, status };
        }
        match Gate::unpack(self.gate.load(Ordering::SeqCst)) {
            Gate::Closed => Standing::Ready,
            Gate::Open { until } | Gate::Probing { until } if now < until => {
                Standing::Open { until }
            }
            Gate::Open { .. } | Gate::Probing { .. } => Standing::HalfOpen,
        }
    }

    /// The name of the standing at `now`: `closed`, `half_open`, `open` or `cooling`.
    pub fn state_name(&self, now: Tick) -> &'static str {
        self.standing(now).name()
    }

    /// Counters for metrics.
    pub fn counts(&self) -> Counts {
        Counts {
            opened: self.opened.load(Ordering::Relaxed),
            probes: self.probes.load(Ordering::Relaxed),
            extras: self.extras.load(Ordering::Relaxed),
            cooled: self.cooled.load(Ordering::Relaxed),
        }
    }

    /// An attempt starts. What it returns must come back through [`Breaker::end`], once.
    #[must_use]
    pub fn begin(&self, now: Tick) -> Pass {
        let word = self.gate.load(Ordering::SeqCst);
        match Gate::unpack(word) {
            Gate::Closed => Pass::Normal,
            Gate::Open { until } | Gate::Probing { until } => {
                let slot = self.slot_end(now);
                if until <= now && self.swap(word, Gate::Probing { until: slot }) {
                    self.probes.fetch_add(1, Ordering::Relaxed);
                    return Pass::Probe { slot };
                }
                self.extras.fetch_add(1, Ordering::Relaxed);
                Pass::Extra
            }
        }
    }

    /// An attempt ended.
    pub fn end(&self, pass: Pass, outcome: Outcome, now: Tick) {
        match pass {
            Pass::Extra => {}
            Pass::Normal => self.end_normal(outcome, now),
            Pass::Probe { slot } => self.end_probe(slot, outcome, now),
        }
    }

    /// The provider asked to be left alone until then, with this status (429 or 503; capped at 1023).
    pub fn cool(&self, until: Tick, status: u16) {
        self.cool.fetch_max(pack_cool(until, status), Ordering::SeqCst);
        self.cooled.fetch_add(1, Ordering::Relaxed);
    }

    fn end_normal(&self, outcome: Outcome, now: Tick) {
        let Some(rule) = self.rule else { return };
        match outcome {
            Outcome::Nothing => {}
            Outcome::Good => {
                self.row.store(0, Ordering::SeqCst);
                self.good.add(now);
            }
            Outcome::Bad => {
                let row = self.row.fetch_add(1, Ordering::SeqCst).saturating_add(1);
                self.bad.add(now);
                if row >= rule.failures || self.rate_is_over(rule, now) {
                    // Whoever comes late, after it opened, finds the gate changed and does nothing.
                    self.open(Gate::Closed.pack(), rule, now);
                }
            }
        }
    }

    fn end_probe(&self, slot: Tick, outcome: Outcome, now: Tick) {
        let Some(rule) = self.rule else { return };
        let mine = Gate::Probing { until: slot }.pack();
        match outcome {
            Outcome::Good => {
                // Counters first: once the gate is closed, other cores' outcomes count.
                if self.gate.load(Ordering::SeqCst) == mine {
                    self.row.store(0, Ordering::SeqCst);
                    self.good.clear();
                    self.bad.clear();
                    self.swap(mine, Gate::Closed);
                }
            }
            Outcome::Bad => self.open(mine, rule, now),
            Outcome::Nothing => {
                self.swap(mine, Gate::Open { until: now });
            }
        }
    }

    fn rate_is_over(&self, rule: BreakerRule, now: Tick) -> bool {
        let (good, bad) = (self.good.sum(now), self.bad.sum(now));
        let all = good.saturating_add(bad);
        all >= SAMPLE_MIN && f64::from(bad) >= f64::from(all) * f64::from(rule.error_rate)
    }

    fn open(&self, from: u64, rule: BreakerRule, now: Tick) {
        if self.swap(from, Gate::Open { until: now + rule.open }) {
            self.opened.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn slot_end(&self, now: Tick) -> Tick {
        let open = self.rule.map_or(Ms(0), |rule| rule.open);
        now + open.max(PROBE_SLOT)
    }

    fn swap(&self, from: u64, to: Gate) -> bool {
        self.gate.compare_exchange(from, to.pack(), Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }
}

/// The breaker's state, packed as `until << 2 | kind`. Ticks fit 62 bits for 146,000 years.
#[derive(Clone, Copy)]
enum Gate {
    Closed,
    Open { until: Tick },
    Probing { until: Tick },
}

impl Gate {
    const TICK_MAX: u64 = u64::MAX >> 2;

    fn pack(self) -> u64 {
        match self {
            Gate::Closed => 0,
            Gate::Open { until } => until.0.min(Gate::TICK_MAX) << 2 | 1,
            Gate::Probing { until } => until.0.min(Gate::TICK_MAX) << 2 | 2,
        }
    }

    fn unpack(word: u64) -> Gate {
        let until = Tick(word >> 2);
        match word & 3 {
            0 => Gate::Closed,
            1 => Gate::Open { until },
            _ => Gate::Probing { until },
        }
    }
}

/// `until << 10 | status`: the larger word is the later end, so that `fetch_max` keeps the longest.
fn pack_cool(until: Tick, status: u16) -> u64 {
    until.0.min(u64::MAX >> 10) << 10 | u64::from(status.min(1023))
}

fn unpack_cool(word: u64) -> (Tick, u16) {
    (Tick(word >> 10), (word & 1023) as u16)
}

#[cfg(test)]
mod tests;
