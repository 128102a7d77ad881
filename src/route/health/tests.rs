//! The breaker: case by case, from several threads, and against a model that keeps everything in plain
//! fields.

use std::sync::atomic::{AtomicU32, Ordering};

use proptest::prelude::*;

use super::super::ring::BUCKETS;
use super::*;

const NOW: Tick = Tick(1_000_000_000);
const RULE: BreakerRule =
    BreakerRule { failures: 3, error_rate: 0.5, window: Ms(10_000), open: Ms(5_000) };

fn finish(breaker: &Breaker, outcome: Outcome, now: Tick) -> Pass {
    let pass = breaker.begin(now);
    breaker.end(pass, outcome, now);
    pass
}

fn opened(now: Tick) -> Breaker {
    let breaker = Breaker::new(Some(RULE));
    for _ in 0..RULE.failures {
        finish(&breaker, Outcome::Bad, now);
    }
    assert_eq!(breaker.standing(now), Standing::Open { until: now + RULE.open });
    breaker
}

#[test]
fn failures_in_a_row_open_it_and_a_success_starts_the_row_anew() {
    let breaker = Breaker::new(Some(RULE));
    for outcome in [Outcome::Bad, Outcome::Bad, Outcome::Good, Outcome::Bad, Outcome::Bad] {
        finish(&breaker, outcome, NOW);
    }
    finish(&breaker, Outcome::Nothing, NOW);
    assert_eq!(breaker.standing(NOW), Standing::Ready);
    finish(&breaker, Outcome::Bad, NOW);
    assert_eq!(breaker.state_name(NOW), "open");
    assert_eq!(breaker.counts().opened, 1);
}

#[test]
fn a_rate_opens_it_only_with_a_sample() {
    let rule = BreakerRule { failures: 100, ..RULE };
    let breaker = Breaker::new(Some(rule));
    for i in 0..SAMPLE_MIN - 1 {
        finish(&breaker, if i % 2 == 0 { Outcome::Bad } else { Outcome::Good }, NOW);
    }
    assert_eq!(breaker.standing(NOW), Standing::Ready);
    finish(&breaker, Outcome::Bad, NOW);
    assert_eq!(breaker.state_name(NOW), "open");
    // The same spread over more than the window is no sample.
    let breaker = Breaker::new(Some(rule));
    for i in 0..40 {
        finish(&breaker, Outcome::Bad, NOW + Ms(2_000 * i));
    }
    assert_eq!(breaker.standing(NOW + Ms(80_000)), Standing::Ready);
}

#[test]
fn one_probe_closes_it_or_opens_it_again() {
    let breaker = opened(NOW);
    assert_eq!(finish(&breaker, Outcome::Good, NOW + Ms(4_999)), Pass::Extra);
    assert_eq!(breaker.state_name(NOW + Ms(4_999)), "open", "an extra does not count");
    let later = NOW + Ms(5_000);
    assert_eq!(breaker.standing(later), Standing::HalfOpen);
    let probe = breaker.begin(later);
    assert!(matches!(probe, Pass::Probe { .. }));
    assert_eq!(breaker.state_name(later), "open", "others see it open meanwhile");
    assert_eq!(breaker.begin(later), Pass::Extra);
    breaker.end(probe, Outcome::Bad, later);
    assert_eq!(breaker.standing(later), Standing::Open { until: later + RULE.open });
    let again = later + RULE.open;
    finish(&breaker, Outcome::Good, again);
    assert_eq!(breaker.standing(again), Standing::Ready);
    // Closed means from the start: the old row is forgotten.
    finish(&breaker, Outcome::Bad, again);
    assert_eq!(breaker.standing(again), Standing::Ready);
    let counts = Counts { opened: 2, probes: 2, extras: 2, cooled: 0 };
    assert_eq!(breaker.counts(), counts);
}

#[test]
fn a_probe_that_says_nothing_frees_its_slot() {
    let breaker = opened(NOW);
    let later = NOW + RULE.open;
    assert!(matches!(finish(&breaker, Outcome::Nothing, later), Pass::Probe { .. }));
    assert_eq!(breaker.standing(later), Standing::HalfOpen);
}

#[test]
fn a_lost_probe_does_not_wedge_it_and_can_not_speak_later() {
    let breaker = opened(NOW);
    let later = NOW + RULE.open;
    let lost = breaker.begin(later);
    let expired = later + PROBE_SLOT;
    assert_eq!(breaker.state_name(Tick(expired.0 - 1)), "open");
    assert_eq!(breaker.standing(expired), Standing::HalfOpen);
    let second = breaker.begin(expired);
    assert!(matches!(second, Pass::Probe { .. }));
    for outcome in [Outcome::Good, Outcome::Bad, Outcome::Nothing] {
        breaker.end(lost, outcome, expired);
        assert_eq!(breaker.standing(expired), Standing::Open { until: expired + PROBE_SLOT });
    }
    breaker.end(second, Outcome::Good, expired);
    assert_eq!(breaker.standing(expired), Standing::Ready);
}

#[test]
fn an_attempt_that_began_before_it_opened_changes_nothing_after() {
    let breaker = Breaker::new(Some(RULE));
    let early = breaker.begin(NOW);
    for _ in 0..RULE.failures {
        finish(&breaker, Outcome::Bad, NOW);
    }
    for outcome in [Outcome::Good, Outcome::Bad] {
        breaker.end(early, outcome, NOW + Ms(1_000));
        assert_eq!(breaker.standing(NOW + Ms(1_000)), Standing::Open { until: NOW + RULE.open });
    }
}

#[test]
fn the_longest_cool_down_wins_and_outlives_success_and_rules() {
    let breaker = Breaker::new(None);
    breaker.cool(NOW + Ms(2_000), 503);
    breaker.cool(NOW + Ms(9_000), 429);
    breaker.cool(NOW + Ms(3_000), 503);
    finish(&breaker, Outcome::Good, NOW);
    let cooling = Standing::Cooling { until: NOW + Ms(9_000), status: 429 };
    assert_eq!(breaker.standing(NOW), cooling);
    assert_eq!(breaker.renewed(Some(RULE)).standing(NOW), cooling);
    assert_eq!(breaker.standing(NOW + Ms(9_000)), Standing::Ready);
    assert_eq!(breaker.counts().cooled, 3);
}

#[test]
fn without_a_rule_it_never_opens() {
    let breaker = Breaker::new(None);
    for _ in 0..1_000 {
        assert_eq!(finish(&breaker, Outcome::Bad, NOW), Pass::Normal);
    }
    assert_eq!(breaker.standing(NOW), Standing::Ready);
}

#[test]
fn of_many_cores_one_gets_the_probe() {
    for _ in 0..50 {
        let breaker = opened(NOW);
        let probes = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    if let Pass::Probe { .. } = breaker.begin(NOW + RULE.open) {
                        probes.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
        });
        assert_eq!(probes.load(Ordering::SeqCst), 1);
    }
}

/// The breaker as one would write it for one thread: states by name, every outcome kept.
struct Model {
    rule: BreakerRule,
    state: State,
    row: u32,
    outcomes: Vec<(u64, bool)>,
    cool: (Tick, u16),
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum State {
    Closed,
    Open(Tick),
    Probing(Tick),
}

impl Model {
    fn standing(&self, now: Tick) -> Standing {
        if now < self.cool.0 {
            return Standing::Cooling { until: self.cool.0, status: self.cool.1 };
        }
        match self.state {
            State::Closed => Standing::Ready,
            State::Open(until) | State::Probing(until) if now < until => Standing::Open { until },
            State::Open(_) | State::Probing(_) => Standing::HalfOpen,
        }
    }

    fn begin(&mut self, now: Tick) -> Pass {
        match self.state {
            State::Closed => Pass::Normal,
            State::Open(until) | State::Probing(until) if now < until => Pass::Extra,
            State::Open(_) | State::Probing(_) => {
                let slot = now + self.rule.open.max(PROBE_SLOT);
                self.state = State::Probing(slot);
                Pass::Probe { slot }
            }
        }
    }

    fn end(&mut self, pass: Pass, outcome: Outcome, now: Tick) {
        let opened = State::Open(now + self.rule.open);
        match (pass, outcome) {
            (Pass::Extra, _) | (Pass::Normal, Outcome::Nothing) => {}
            (Pass::Normal, Outcome::Good) => {
                self.row = 0;
                self.outcomes.push((self.step(now), true));
            }
            (Pass::Normal, Outcome::Bad) => {
                self.row += 1;
                self.outcomes.push((self.step(now), false));
                let at = self.step(now);
                let recent = || self.outcomes.iter().filter(|(then, _)| then + BUCKETS as u64 > at);
                let (all, bad) = (recent().count(), recent().filter(|(_, good)| !good).count());
                let rate = bad as f64 / all as f64 >= f64::from(self.rule.error_rate);
                let over = all >= SAMPLE_MIN as usize && rate;
                if self.state == State::Closed && (self.row >= self.rule.failures || over) {
                    self.state = opened;
                }
            }
            (Pass::Probe { slot }, outcome) if self.state == State::Probing(slot) => {
                match outcome {
                    Outcome::Good => {
                        self.state = State::Closed;
                        self.row = 0;
                        self.outcomes.clear();
                    }
                    Outcome::Bad => self.state = opened,
                    Outcome::Nothing => self.state = State::Open(now),
                }
            }
            (Pass::Probe { .. }, _) => {}
        }
    }

    fn step(&self, now: Tick) -> u64 {
        now.0 / (self.rule.window.micros() / BUCKETS as u64).max(1000)
    }
}

proptest! {
    #[test]
    fn it_is_the_naive_model(
        failures in 1u32..8, rate in prop::sample::select(vec![0.25f32, 0.5, 0.75, 1.0]),
        window in 16u32..20_000, open in 1u32..20_000,
        steps in prop::collection::vec((0u64..3_000_000, 0u8..8, any::<prop::sample::Index>()), 0..200),
    ) {
        let rule = BreakerRule { failures, error_rate: rate, window: Ms(window), open: Ms(open) };
        let breaker = Breaker::new(Some(rule));
        let mut model =
            Model { rule, state: State::Closed, row: 0, outcomes: Vec::new(), cool: (Tick(0), 0) };
        let mut under_way = Vec::new();
        let mut now = NOW;
        for (pause, what, which) in steps {
            now = Tick(now.0 + pause);
            match what {
                0..=2 => {
                    let pass = breaker.begin(now);
                    prop_assert_eq!(pass, model.begin(now));
                    under_way.push(pass);
                }
                3 => {
                    let until = now + Ms(which.index(5_000) as u32);
                    let status = if which.index(2) == 0 { 429 } else { 503 };
                    breaker.cool(until, status);
                    model.cool = model.cool.max((until, status));
                }
                _ if !under_way.is_empty() => {
                    let pass = under_way.swap_remove(which.index(under_way.len()));
                    let outcome = match what { 4 => Outcome::Good, 5 => Outcome::Nothing, _ => Outcome::Bad };
                    breaker.end(pass, outcome, now);
                    model.end(pass, outcome, now);
                }
                _ => {}
            }
            prop_assert_eq!(breaker.standing(now), model.standing(now));
        }
    }
}
