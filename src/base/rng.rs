//! A small seeded generator (SplitMix64). Not for secrets: for jitter, turns and the simulator, where
//! the same seed must give the same run.

/// Deterministic generator; one per core, its seed logged at start.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator that yields the same sequence for the same `seed`.
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// The next 64 bits.
    #[allow(clippy::should_implement_trait, reason = "an endless iterator says less than this")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`; 0 for a bound of 0. The bias of the multiply is below 2^-32 here.
    pub fn below(&mut self, bound: u32) -> u32 {
        let wide = (self.next() >> 32) * u64::from(bound);
        (wide >> 32) as u32
    }

    /// True once in `one_in` on average; never for 0.
    pub fn one_in(&mut self, one_in: u32) -> bool {
        one_in != 0 && self.below(one_in) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn same_seed_same_sequence_and_bounds_hold() {
        let (mut a, mut b) = (Rng::new(7), Rng::new(7));
        for bound in [1, 2, 3, 10, 1000] {
            for _ in 0..100 {
                let x = a.below(bound);
                assert_eq!(x, b.below(bound));
                assert!(x < bound);
            }
        }
        assert_eq!(a.below(0), 0);
        assert!(!a.one_in(0));
        assert!(a.one_in(1));
    }
}
