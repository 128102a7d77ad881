//! What the paths allocate, counted: nothing for an event once a stream runs, however it is written, and
//! little for a small request.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    reason = "a test says what is wrong by failing"
)]

use allocation_counter::measure;

#[path = "play/mod.rs"]
mod play;
#[cfg(feature = "uring")]
#[path = "allocs/shell.rs"]
mod shell;

use play::{Play, streams};

#[test]
fn an_event_costs_no_allocation_once_warm() {
    for (kind, begin, event) in streams() {
        let mut play = Play::new(kind);
        if !begin.is_empty() {
            play.receive(format!("data: {begin}\n\n").as_bytes());
        }
        let event = format!("data: {event}\n\n");
        for _ in 0..8 {
            play.receive(event.as_bytes());
        }
        let before = play.written;
        let cost = measure(|| {
            for _ in 0..1000 {
                play.receive(event.as_bytes());
            }
        });
        let each = (play.written - before) / 1000;
        println!("{kind}: {} allocations, {each} bytes for an event", cost.count_total);
        assert!(each > event.len() / 2, "{kind}: the events went out");
        assert_eq!(cost.count_total, 0, "{kind}: {event}");
    }
}
