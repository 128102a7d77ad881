//! What goes wrong in a world, and how often. A rate is "one in so many" on average, and 0 is never;
//! a range is inclusive at both ends.
//!
//! Faults are drawn at four places: when a connection is dialled, when it is made (its *weather*,
//! which stays with it), when an operation runs, and when it is stopped. The clocks have four of their own.

use crate::base::rng::Rng;

/// Rates and ranges of the faults of a world, or of one address in it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Faults {
    /// How long a segment, a handshake, a FIN or a RST travels, in microseconds.
    pub latency_us: (u32, u32),
    /// Bytes that one direction of a connection holds before its writer must wait.
    pub buffer_bytes: (u32, u32),
    /// One read in so many takes less than there is, half of these a single byte.
    pub short_read: u32,
    /// One write in so many takes less than there is room for, half of these a single byte.
    pub short_write: u32,
    /// One operation in so many is told late that it is done, so that completions change order.
    pub late_done: u32,
    /// By how much, in microseconds.
    pub late_done_us: (u32, u32),
    /// Whether tasks that can run do so in any order, and events may come between them.
    pub shuffle: bool,
    /// One dial in so many is refused.
    pub dial_refused: u32,
    /// One dial in so many is never answered.
    pub dial_lost: u32,
    /// One dial in so many is slow.
    pub dial_slow: u32,
    /// By how much, in microseconds.
    pub dial_slow_us: (u32, u32),
    /// One direction in so many is reset when its byte k would be sent.
    pub reset: u32,
    /// Where k lies.
    pub reset_at: (u32, u32),
    /// One reset in so many overtakes the bytes that were sent before it.
    pub reset_overtakes: u32,
    /// One direction in so many stalls once at byte k.
    pub stall: u32,
    /// Where k lies.
    pub stall_at: (u32, u32),
    /// For how long, in microseconds.
    pub stall_us: (u32, u32),
    /// One direction in so many drips: small pieces, a pause before each.
    pub drip: u32,
    /// Bytes of a piece.
    pub drip_bytes: (u32, u32),
    /// The pause, in microseconds.
    pub drip_us: (u32, u32),
    /// One stop in so many takes effect late.
    pub stop_late: u32,
    /// By how much, in microseconds.
    pub stop_late_us: (u32, u32),
    /// One stop in so many of a read loses against bytes that are already on their way.
    pub stop_loses: u32,
    /// Whether timers fire up to 1 ms late.
    pub late_timers: bool,
    /// One event in so many finds that the clock has jumped forward.
    pub clock_jump: u32,
    /// By how much, in microseconds.
    pub clock_jump_us: (u32, u32),
    /// One event in so many finds that the clock stands: what happens goes on, but no time is seen to
    /// pass and no timer fires until it goes again, all at once.
    pub clock_stall: u32,
    /// For how long, in microseconds.
    pub clock_stall_us: (u32, u32),
    /// One event in so many finds that somebody has set the wall clock, forward or back.
    pub wall_step: u32,
    /// By how much at most, in milliseconds.
    pub wall_step_ms: u32,
}

impl Faults {
    /// A world where all goes well: 20 us of latency, 64 KiB for each direction, nothing else.
    pub fn none() -> Faults {
        Faults {
            latency_us: (20, 20),
            buffer_bytes: (65_536, 65_536),
            short_read: 0,
            short_write: 0,
            late_done: 0,
            late_done_us: (0, 0),
            shuffle: false,
            dial_refused: 0,
            dial_lost: 0,
            dial_slow: 0,
            dial_slow_us: (0, 0),
            reset: 0,
            reset_at: (0, 0),
            reset_overtakes: 0,
            stall: 0,
            stall_at: (0, 0),
            stall_us: (0, 0),
            drip: 0,
            drip_bytes: (1, 1),
            drip_us: (0, 0),
            stop_late: 0,
            stop_late_us: (0, 0),
            stop_loses: 0,
            late_timers: false,
            clock_jump: 0,
            clock_jump_us: (0, 0),
            clock_stall: 0,
            clock_stall_us: (0, 0),
            wall_step: 0,
            wall_step_ms: 0,
        }
    }

    /// Draws the rates of one seed. Each fault is off in about half of the worlds: a fault that is
    /// always on hides what the others would show.
    pub fn swarm(rng: &mut Rng) -> Faults {
        let quiet = Faults {
            latency_us: [(0, 0), (20, 20), (1, 400), (1, 20_000)][rng.below(4) as usize],
            buffer_bytes: [(65_536, 65_536), (512, 4096), (1, 262_144)][rng.below(3) as usize],
            shuffle: rng.one_in(2),
            late_timers: rng.one_in(2),
            ..Faults::none()
        };
        Faults {
            short_read: rate(rng, [1, 4, 40]),
            short_write: rate(rng, [1, 4, 40]),
            late_done: rate(rng, [2, 10, 50]),
            late_done_us: (0, 2_000),
            stop_late: rate(rng, [1, 2, 10]),
            stop_late_us: (0, 5_000),
            stop_loses: rate(rng, [1, 2, 10]),
            ..quiet.swarm_network(rng)
        }
    }

    fn swarm_network(self, rng: &mut Rng) -> Faults {
        Faults {
            dial_refused: rate(rng, [3, 10, 30]),
            dial_lost: rate(rng, [3, 10, 30]),
            dial_slow: rate(rng, [2, 10, 30]),
            dial_slow_us: (1_000, 5_000_000),
            reset: rate(rng, [3, 10, 30]),
            reset_at: [(0, 64), (0, 4_096), (0, 65_536)][rng.below(3) as usize],
            reset_overtakes: rate(rng, [1, 2, 4]),
            stall: rate(rng, [3, 10, 30]),
            stall_at: (0, 4_096),
            stall_us: (1_000, 60_000_000),
            drip: rate(rng, [2, 6, 20]),
            drip_bytes: (1, 64),
            drip_us: (10, 20_000),
            clock_jump: rate(rng, [500, 2_000, 5_000]),
            clock_jump_us: [(1, 2_000_000), (1, 2_000_000), (1, 90_000_000)][rng.below(3) as usize],
            clock_stall: rate(rng, [500, 2_000, 5_000]),
            clock_stall_us: (1_000, 10_000_000),
            wall_step: rate(rng, [500, 2_000, 5_000]),
            wall_step_ms: 7_200_000,
            ..self
        }
    }
}

fn rate(rng: &mut Rng, rates: [u32; 3]) -> u32 {
    if rng.one_in(2) { 0 } else { rates[rng.below(3) as usize] }
}

/// A number of the range, both ends included.
pub(super) fn within(rng: &mut Rng, (low, high): (u32, u32)) -> u64 {
    let width = high.saturating_sub(low).saturating_add(1);
    u64::from(low) + u64::from(rng.below(width))
}

/// What is wrong with one direction of a connection, drawn when it is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Weather {
    /// Nothing.
    Calm,
    /// Both ends are reset when byte `at` would be sent.
    Reset { at: u64 },
    /// What follows byte `at` comes `us` microseconds later.
    Stall { at: u64, us: u64 },
    /// Pieces of `bytes`, `us` microseconds before each.
    Drip { bytes: usize, us: u64 },
}

impl Weather {
    pub(super) fn draw(faults: &Faults, rng: &mut Rng) -> Weather {
        if rng.one_in(faults.reset) {
            Weather::Reset { at: within(rng, faults.reset_at) }
        } else if rng.one_in(faults.stall) {
            let at = within(rng, faults.stall_at);
            Weather::Stall { at, us: within(rng, faults.stall_us) }
        } else if rng.one_in(faults.drip) {
            let bytes = within(rng, faults.drip_bytes).max(1) as usize;
            Weather::Drip { bytes, us: within(rng, faults.drip_us) }
        } else {
            Weather::Calm
        }
    }
}
