//! A counter over a sliding window, without locks: sixteen buckets of a sixteenth of the window each.
//!
//! Each bucket is one word, `epoch << 32 | count`, where the epoch is `now / step`. A bucket whose epoch
//! is out of the window counts as empty, so nothing needs to sweep it. The sum covers the bucket under
//! way and the fifteen before it: between fifteen and sixteen sixteenths of the window.
//!
//! Cores read their clocks at slightly different times. A caller up to a window behind the newest one
//! still finds its bucket; one further behind is not counted.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::base::tick::{Ms, Tick};

/// Buckets in a window: the error of the window's length is one part in this.
pub(super) const BUCKETS: usize = 16;

/// A count of things over a sliding window.
#[derive(Debug)]
pub(super) struct Ring {
    step: u64,
    buckets: [AtomicU64; BUCKETS],
}

impl Ring {
    /// A ring over `window`; below 16 ms the window is 16 ms.
    pub(super) fn new(window: Ms) -> Ring {
        let step = (window.micros() / BUCKETS as u64).max(1000);
        Ring { step, buckets: [const { AtomicU64::new(0) }; BUCKETS] }
    }

    /// Counts one at `now`. Saturates.
    pub(super) fn add(&self, now: Tick) {
        let epoch = self.epoch(now);
        self.change(epoch, |count| count.saturating_add(1));
    }

    /// Takes back one that was counted at `now`, if its bucket still stands.
    pub(super) fn take_back(&self, now: Tick) {
        let epoch = self.epoch(now);
        self.change(epoch, |count| count.saturating_sub(1));
    }

    /// How many there are in the window that ends at `now`.
    pub(super) fn sum(&self, now: Tick) -> u32 {
        let epoch = self.epoch(now);
        let mut sum = 0u32;
        for bucket in &self.buckets {
            let (at, count) = split(bucket.load(Ordering::SeqCst));
            // Either sign: a bucket that a core ahead of us has begun counts too.
            if (epoch.wrapping_sub(at) as i32).unsigned_abs() < BUCKETS as u32 {
                sum = sum.saturating_add(count);
            }
        }
        sum
    }

    /// Forgets everything.
    pub(super) fn clear(&self) {
        for bucket in &self.buckets {
            bucket.store(0, Ordering::SeqCst);
        }
    }

    fn epoch(&self, now: Tick) -> u32 {
        (now.0 / self.step) as u32
    }

    fn change(&self, epoch: u32, count_after: impl Fn(u32) -> u32) {
        let bucket = &self.buckets[epoch as usize % BUCKETS];
        let _unchanged = bucket.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |word| {
            let (at, count) = split(word);
            let behind = at.wrapping_sub(epoch);
            match behind {
                0 => Some(join(epoch, count_after(count))),
                // A core one window ahead owns the bucket now.
                _ if behind == BUCKETS as u32 => None,
                _ => Some(join(epoch, count_after(0))),
            }
        });
    }
}

fn split(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

fn join(epoch: u32, count: u32) -> u64 {
    u64::from(epoch) << 32 | u64::from(count)
}
