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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use proptest::prelude::*;

    use super::super::ring::BUCKETS;
    use super::*;
    use crate::base::tick::Ms;

    fn rule(ratio: f32, floor: u32, window: u32) -> BudgetRule {
        BudgetRule { ratio, floor, window: Ms(window) }
    }

    #[test]
    fn the_floor_holds_without_requests_and_comes_back_with_time() {
        let budget = Budget::new(rule(0.2, 3, 1_600));
        let now = Tick(5_000_000);
        let granted = (0..9).filter(|_| budget.extra(now)).count();
        assert_eq!(granted, 3);
        // A refusal costs nothing.
        assert_eq!(budget.used(now), 3);
        assert!(!budget.extra(now + Ms(1_499)));
        assert!(budget.extra(now + Ms(1_600)));
    }

    #[test]
    fn ratios_are_exact_at_whole_numbers() {
        for (ratio, requests, extras) in [
            (0.2, 100, 20),
            (0.7, 10, 7),
            (0.1, 1_000, 100),
            (1.0, 5, 5),
            (0.2, 99, 19),
            (0.0, 99, 0),
        ] {
            let budget = Budget::new(rule(ratio, 0, 10_000));
            (0..requests).for_each(|_| budget.request(Tick(77)));
            assert_eq!(budget.allowed(Tick(77)), extras, "{ratio} of {requests}");
            assert_eq!(
                (0..requests + 9).filter(|_| budget.extra(Tick(77))).count(),
                extras as usize
            );
        }
    }

    #[test]
    fn cores_together_never_exceed_it() {
        let budget = Budget::new(rule(0.0, 50, 10_000));
        let granted = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for core in 0..4 {
                let (budget, granted) = (&budget, &granted);
                scope.spawn(move || {
                    for i in 0..500 {
                        if budget.extra(Tick(1_000_000 + core * 50 + i)) {
                            granted.fetch_add(1, Ordering::SeqCst);
                        }
                    }
                });
            }
        });
        assert_eq!(budget.used(Tick(1_000_000)), granted.load(Ordering::SeqCst));
        assert!((1..=50).contains(&granted.load(Ordering::SeqCst)));
    }

    proptest! {
        /// The oracle keeps every event, and counts those whose step is among the last sixteen.
        #[test]
        fn it_is_the_naive_count(
            ratio in 0.0f32..=1.0, floor in 0u32..5, window in 1u32..5_000,
            events in prop::collection::vec((0u64..900_000, any::<bool>()), 0..300),
        ) {
            let budget = Budget::new(rule(ratio, floor, window));
            let step = (u64::from(window) * 1000 / BUCKETS as u64).max(1000);
            let (mut requests, mut extras) = (Vec::new(), Vec::new());
            let mut now = Tick(123_456_789);
            for (pause, is_request) in events {
                now = Tick(now.0 + pause);
                let at = now.0 / step;
                let within = |list: &[u64]| {
                    list.iter().filter(|then| **then + BUCKETS as u64 > at).count()
                };
                if is_request {
                    budget.request(now);
                    requests.push(at);
                    continue;
                }
                let share = within(&requests) as f64 * f64::from(ratio) * (1.0 + 1e-6);
                let expected = within(&extras) < (share as usize).max(floor as usize);
                prop_assert_eq!(budget.extra(now), expected);
                if expected {
                    extras.push(at);
                }
            }
        }
    }
}
