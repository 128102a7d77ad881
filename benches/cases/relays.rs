//! A stream's event from the receive buffer to the client's bytes, through the whole exchange.

use super::play::{Play, streams};
use super::{Case, EVENT, many, memcpy_floor};

pub(super) fn cases() -> Vec<Case> {
    let all = many();
    let mut cases = vec![
        memcpy_floor("relay", "one event", EVENT.to_vec()),
        relay("openai", "openai", "", EVENT),
        memcpy_floor("relay", "64 KiB", all.clone()),
        relay("openai, 64 KiB of events", "openai", "", &all),
    ];
    for (name, place) in [("told anew", 1), ("anthropic", 2), ("gemini", 3)] {
        let (kind, begin, event) = streams()[place];
        cases.push(relay(name, kind, begin, format!("data: {event}\n\n").as_bytes()));
    }
    cases.push(Case::again("relay", "a whole exchange of one event", EVENT.len(), || {
        Play::new("openai").receive(EVENT);
    }));
    cases
}

fn relay(name: &str, kind: &str, begin: &str, event: &[u8]) -> Case {
    let (mut play, event) = (Play::new(kind), event.to_vec());
    if !begin.is_empty() {
        play.receive(format!("data: {begin}\n\n").as_bytes());
    }
    Case::again("relay", name, event.len(), move || {
        let before = play.written;
        play.receive(&event);
        assert!(play.written > before + 100);
    })
}
