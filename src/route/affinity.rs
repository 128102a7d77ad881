//! Which target served a conversation last, since its prompt cache is warm there. A small table of words,
//! one for each of 4096 slots, shared by all cores: a newer conversation takes the slot of an older one.
//!
//! ```text
//! 63          40 39       24 23       12 11        0
//! | tag of the  | target   | prompt in | when, in   |
//! | thread (24) | (16)     | 256 (12)  | 4 s (12)   |
//! ```
//!
//! A slot speaks for five minutes, the life of most vendors' caches. Two threads that meet in slot and tag
//! (one in 2^36 pairs) share their answer, which costs a preference and nothing else.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::base::ids::TargetId;
use crate::base::tick::{Ms, Tick};

/// Prompts below this are cached by no vendor.
pub const TOKENS_MIN: u32 = 1024;
/// How long a cache is taken for warm.
pub const WARM: Ms = Ms(300_000);

const SLOTS: usize = 4096;
const STEP_MS: u64 = 4_000;
const STEPS: u64 = 1 << 12;
const TOKENS_UNIT: u32 = 256;

/// Conversations and who served them.
#[derive(Debug)]
pub struct Affinity {
    slots: Box<[AtomicU64]>,
}

/// A target whose cache is warm.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Warm {
    /// Which.
    pub target: TargetId,
    /// Tokens of the prompt that it has seen, rounded down.
    pub tokens: u32,
}

impl Default for Affinity {
    fn default() -> Affinity {
        Affinity { slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Affinity {
    /// `target` served a prompt of that many tokens. A prompt that no vendor caches is not noted.
    pub fn note(&self, thread: u64, target: TargetId, tokens: u32, now: Tick) {
        if thread == 0 || tokens < TOKENS_MIN {
            return;
        }
        let tokens = u64::from(tokens / TOKENS_UNIT).min(STEPS - 1);
        let word = tag(thread) << 40 | u64::from(target.0) << 24 | tokens << 12 | step(now);
        self.slot(thread).store(word, Relaxed);
    }

    /// Who served `thread` last, if that was not long ago.
    pub fn warm(&self, thread: u64, now: Tick) -> Option<Warm> {
        let word = self.slot(thread).load(Relaxed);
        if thread == 0 || word == 0 || word >> 40 != tag(thread) {
            return None;
        }
        let age = step(now).wrapping_sub(word & (STEPS - 1)) % STEPS;
        if age * STEP_MS > u64::from(WARM.0) {
            return None;
        }
        let tokens = ((word >> 12) & (STEPS - 1)) as u32 * TOKENS_UNIT;
        Some(Warm { target: TargetId((word >> 24) as u16), tokens })
    }

    /// The same for a table whose targets have other numbers; `new_id` knows them. What is gone is forgotten.
    pub fn carried(&self, new_id: impl Fn(TargetId) -> Option<TargetId>) -> Affinity {
        let slot = |slot: &AtomicU64| {
            let word = slot.load(Relaxed);
            let id = if word == 0 { None } else { new_id(TargetId((word >> 24) as u16)) };
            let word = id.map_or(0, |id| word & !(0xffff << 24) | u64::from(id.0) << 24);
            AtomicU64::new(word)
        };
        Affinity { slots: self.slots.iter().map(slot).collect() }
    }

    fn slot(&self, thread: u64) -> &AtomicU64 {
        &self.slots[thread as usize % SLOTS]
    }
}

fn tag(thread: u64) -> u64 {
    thread >> 40
}

fn step(now: Tick) -> u64 {
    now.0 / (STEP_MS * 1000) % STEPS
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Tick = Tick(7_000_000_000);
    const THREAD: u64 = 0xabcd_ef01_2345_6789;

    #[test]
    fn the_last_one_that_served_is_warm_for_a_while() {
        let table = Affinity::default();
        assert_eq!(table.warm(THREAD, NOW), None);
        table.note(THREAD, TargetId(7), 5_000, NOW);
        table.note(THREAD, TargetId(9), 6_000, NOW);
        let warm = table.warm(THREAD, NOW + Ms(290_000)).unwrap();
        assert_eq!((warm.target, warm.tokens), (TargetId(9), 5_888));
        assert_eq!(table.warm(THREAD, NOW + Ms(310_000)), None);
        assert_eq!(table.warm(THREAD ^ 1 << 50, NOW), None, "another thread in the same slot");
    }

    #[test]
    fn conversations_find_their_targets_under_new_numbers() {
        let (table, other) = (Affinity::default(), THREAD + 1);
        table.note(THREAD, TargetId(7), 5_000, NOW);
        table.note(other, TargetId(8), 5_000, NOW);
        let next = table.carried(|id| (id.0 == 7).then_some(TargetId(u16::MAX)));
        let warm = next.warm(THREAD, NOW).unwrap();
        assert_eq!((warm.target, warm.tokens), (TargetId(u16::MAX), 4_864));
        assert_eq!(next.warm(other, NOW), None, "its target is gone");
    }

    #[test]
    fn short_prompts_and_no_thread_are_not_noted() {
        let table = Affinity::default();
        table.note(THREAD, TargetId(7), 1_023, NOW);
        table.note(0, TargetId(7), 9_999, NOW);
        assert_eq!((table.warm(THREAD, NOW), table.warm(0, NOW)), (None, None));
        table.note(THREAD, TargetId(u16::MAX), u32::MAX, NOW);
        let warm = table.warm(THREAD, NOW).unwrap();
        assert_eq!((warm.target, warm.tokens), (TargetId(u16::MAX), 4_095 * 256));
    }
}
