//! How fast a target is, as far as it was measured: time to first content, tokens a second, and how often
//! it failed of late. Shared by all cores without locks; one for each provider and upstream model, whatever
//! the key.
//!
//! Each measure is an average that forgets: a new sample weighs three tenths, and more the longer it is
//! since the last one (two thirds after three seconds), so that both a target that became slow and one
//! that recovered show after a few requests. Percentiles come from a histogram of 32 buckets, each a third
//! wider than the one before, that is halved when it is full.
//!
//! Two cores that report at once may each overwrite the other's sample: a measure is never wrong by more
//! than a sample.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::base::tick::{Ms, Tick};

/// What is known of a target's speed.
#[derive(Clone, Copy, Debug, PartialEq, Default)]
pub struct Reading {
    /// Time to first content in seconds; `None`: never measured.
    pub first: Option<f32>,
    /// Tokens a second after it; `None`: never measured.
    pub rate: Option<f32>,
    /// Share of failures of late, 0 to 1; fades within half a minute.
    pub errors: f32,
    /// When the last attempt was reported; 0: never.
    pub at: Tick,
}

/// Measures of one target.
#[derive(Debug)]
pub struct Speed {
    /// Seconds, as the bits of an `f32`; 0: none.
    first: AtomicU32,
    /// Tokens a second, likewise.
    rate: AtomicU32,
    errors: AtomicU32,
    at: AtomicU64,
    buckets: [AtomicU32; BUCKETS],
    filled: AtomicU32,
}

/// Weight of a sample that comes right after another.
const WEIGHT: f32 = 0.3;
/// In seconds: after this long, all but a third of what the last samples say is forgotten.
const FORGET: f32 = 3.0;
/// How long a failure is held against a target that is not tried.
const FORGIVE: f32 = 30.0;
const BUCKETS: usize = 32;
/// The upper bound of the first bucket, in milliseconds; each further one is `GROWTH` times as far.
const BUCKET_MS: f32 = 10.0;
const GROWTH: f32 = 1.33;
/// Samples at which the histogram is halved.
const FULL: u32 = 512;
/// Samples below which a percentile says nothing.
pub const PERCENTILE_SAMPLES: u32 = 20;

impl Default for Speed {
    fn default() -> Speed {
        Speed {
            first: AtomicU32::new(0),
            rate: AtomicU32::new(0),
            errors: AtomicU32::new(0),
            at: AtomicU64::new(0),
            buckets: [const { AtomicU32::new(0) }; BUCKETS],
            filled: AtomicU32::new(0),
        }
    }
}

impl Speed {
    /// An attempt gave its first content after that long.
    pub fn first(&self, after: Ms, now: Tick) {
        let weight = self.weight(now);
        mix(&self.first, (after.0 as f32 / 1e3).max(1e-3), weight);
        self.verdict(0.0, weight, now);
        self.count(after);
    }

    /// An attempt gave nothing for that long, and was not waited for any more.
    pub fn waited(&self, after: Ms, now: Tick) {
        let seconds = after.0 as f32 / 1e3;
        if seconds > f32::from_bits(self.first.load(Relaxed)) {
            mix(&self.first, seconds, self.weight(now));
            self.at.fetch_max(now.0, Relaxed);
            self.count(after);
        }
    }

    /// An answer came to its end: so many tokens in that long since its first content.
    pub fn rate(&self, tokens: u64, during: Ms) {
        // Fewer, or sooner, is the network's measure rather than the model's.
        if tokens >= 8 && during.0 >= 20 {
            mix(&self.rate, tokens as f32 * 1e3 / during.0 as f32, WEIGHT);
        }
    }

    /// An attempt failed.
    pub fn failed(&self, now: Tick) {
        self.verdict(1.0, self.weight(now), now);
    }

    /// What is known at `now`.
    pub fn read(&self, now: Tick) -> Reading {
        let at = Tick(self.at.load(Relaxed));
        let value = |word: &AtomicU32| match word.load(Relaxed) {
            0 => None,
            bits => Some(f32::from_bits(bits)),
        };
        let faded = 1.0 - now.since(at) as f32 / 1e6 / FORGIVE;
        let errors = f32::from_bits(self.errors.load(Relaxed)) * faded.max(0.0);
        Reading { first: value(&self.first), rate: value(&self.rate), errors, at }
    }

    /// The time within which `percent` of the first contents came, to the bound of its bucket; `None`
    /// below [`PERCENTILE_SAMPLES`].
    pub fn percentile(&self, percent: u8) -> Option<Ms> {
        let counts: [u32; BUCKETS] = std::array::from_fn(|i| self.buckets[i].load(Relaxed));
        let all: u64 = counts.iter().map(|count| u64::from(*count)).sum();
        if all < u64::from(PERCENTILE_SAMPLES) {
            return None;
        }
        let wanted = (all * u64::from(percent.min(100))).div_ceil(100).max(1);
        let mut seen = 0;
        let index = counts.iter().position(|count| {
            seen += u64::from(*count);
            seen >= wanted
        });
        Some(Ms((BUCKET_MS * GROWTH.powi(index.unwrap_or(BUCKETS - 1) as i32)).ceil() as u32))
    }

    fn weight(&self, now: Tick) -> f32 {
        let at = self.at.load(Relaxed);
        let idle = if at == 0 { 0.0 } else { now.since(Tick(at)) as f32 / 1e6 };
        WEIGHT.max(1.0 - (-idle / FORGET).exp())
    }

    fn verdict(&self, failed: f32, weight: f32, now: Tick) {
        let old = f32::from_bits(self.errors.load(Relaxed));
        let new = old + (failed - old) * weight;
        self.errors.store(if new < 1e-3 { 0.0f32 } else { new }.to_bits(), Relaxed);
        self.at.fetch_max(now.0.max(1), Relaxed);
    }

    fn count(&self, after: Ms) {
        let steps = (after.0.max(1) as f32 / BUCKET_MS).ln() / GROWTH.ln();
        let bucket = (steps.ceil().max(0.0) as usize).min(BUCKETS - 1);
        self.buckets[bucket].fetch_add(1, Relaxed);
        if self.filled.fetch_add(1, Relaxed) + 1 == FULL {
            for bucket in &self.buckets {
                let _always = bucket.fetch_update(Relaxed, Relaxed, |count| Some(count / 2));
            }
            self.filled.store(FULL / 2, Relaxed);
        }
    }
}

/// Moves an average towards a sample; the first sample is the average.
fn mix(word: &AtomicU32, sample: f32, weight: f32) {
    let _always = word.fetch_update(Relaxed, Relaxed, |bits| {
        let old = f32::from_bits(bits);
        let new = if bits == 0 { sample } else { old + (sample - old) * weight };
        Some(new.max(f32::MIN_POSITIVE).to_bits())
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Tick = Tick(1_000_000_000);

    #[test]
    fn a_change_shows_within_a_few_requests() {
        let speed = Speed::default();
        assert_eq!(speed.read(NOW), Reading::default());
        (0..50).for_each(|_| speed.first(Ms(100), NOW));
        assert!((speed.read(NOW).first.unwrap() - 0.1).abs() < 1e-3);
        (0..4).for_each(|_| speed.first(Ms(2_000), NOW));
        assert!(speed.read(NOW).first.unwrap() > 1.4);
        // Back, measured again after a while.
        speed.first(Ms(100), NOW + Ms(20_000));
        assert!(speed.read(NOW).first.unwrap() < 0.5);
    }

    #[test]
    fn a_wait_only_makes_it_slower() {
        let speed = Speed::default();
        speed.first(Ms(500), NOW);
        speed.waited(Ms(100), NOW);
        assert!((speed.read(NOW).first.unwrap() - 0.5).abs() < 1e-3);
        speed.waited(Ms(5_000), NOW);
        assert!(speed.read(NOW).first.unwrap() > 1.5);
    }

    #[test]
    fn failures_are_forgiven() {
        let speed = Speed::default();
        (0..10).for_each(|_| speed.failed(NOW));
        assert!(speed.read(NOW).errors > 0.9);
        assert!(speed.read(NOW + Ms(15_000)).errors < 0.5);
        assert_eq!(speed.read(NOW + Ms(30_000)).errors, 0.0);
        (0..20).for_each(|_| speed.first(Ms(9), NOW));
        assert!(speed.read(NOW).errors < 0.01);
    }

    #[test]
    fn rates_need_a_sample_worth_the_name() {
        let speed = Speed::default();
        speed.rate(2, Ms(1_000));
        speed.rate(100, Ms(3));
        assert_eq!(speed.read(NOW).rate, None);
        speed.rate(100, Ms(2_000));
        assert_eq!(speed.read(NOW).rate, Some(50.0));
    }

    #[test]
    fn percentiles_are_bounds_within_a_third() {
        let speed = Speed::default();
        (0..19).for_each(|_| speed.first(Ms(100), NOW));
        assert_eq!(speed.percentile(50), None);
        (0..76).for_each(|_| speed.first(Ms(100), NOW));
        (0..5).for_each(|_| speed.first(Ms(8_000), NOW));
        let within = |percent, exact: u32| {
            let found = speed.percentile(percent).unwrap().0;
            assert!(found >= exact && found as f32 <= exact as f32 * 1.34, "{percent}: {found}");
        };
        within(50, 100);
        within(95, 100);
        within(99, 8_000);
        // A new time takes over once the old samples were halved away.
        (0..2_000).for_each(|_| speed.first(Ms(1_000), NOW));
        within(50, 1_000);
        let edge = Speed::default();
        (0..40).for_each(|_| edge.first(Ms(u32::MAX), NOW));
        assert!(edge.percentile(95).unwrap() >= Ms(60_000));
    }
}
