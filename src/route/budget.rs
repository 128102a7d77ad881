//! The retry budget of a provider: extra attempts (retries and hedges) are at most a share of its
//! requests over a sliding window, with a floor below which they are always allowed. A provider that is
//! down sees its own traffic and a fifth more, not four times as much.
//!
//! Shared by all cores, lock-free. A grant is counted before it is judged and taken back if refused, so
//! that two cores at the edge may both be refused but never both be granted.

use super::ring::Ring;
use crate::base::tick::Tick;
use crate::config::BudgetRule;

/// Extra attempts against one provider. Windows step in sixteenths (see `ring`).
#[derive(Debug)]
pub struct Budget {
    rule: BudgetRule,
    requests: Ring,
    extras: Ring,
}

impl Budget {
    /// A fresh budget.
    pub fn new(rule: BudgetRule) -> Budget {
        Budget { rule, requests: Ring::new(rule.window), extras: Ring::new(rule.window) }
    }

    /// The rule that it was made with.
    pub fn rule(&self) -> BudgetRule {
        self.rule
    }

    /// Counts a request: call once for each first attempt against the provider.
    pub fn request(&self, now: Tick) {
        self.requests.add(now);
    }

    /// Asks for one extra attempt; true grants and counts it.
    #[must_use]
    pub fn extra(&self, now: Tick) -> bool {
        self.extras.add(now);
        let granted = self.extras.sum(now) <= self.allowed(now);
        if !granted {
            self.extras.take_back(now);
        }
        granted
    }

    /// Extra attempts that the window ending at `now` allows in all.
    pub fn allowed(&self, now: Tick) -> u32 {
        let share = f64::from(self.requests.sum(now)) * f64::from(self.rule.ratio);
        // The nudge makes up for ratios that f32 holds a little too small: 0.7 x 10 is 7. The cast
        // saturates.
        ((share * (1.0 + 1e-6)) as u32).max(self.rule.floor)
    }

    /// Extra attempts granted within the window ending at `now`.
    pub fn used(&self, now: Tick) -> u32 {
        self.extras.sum(now)
    }
}
