//! The work that is measured, once for both benches: `paths` times it, `instr` counts its instructions.
//! What is judged stands beside a floor that anyone can judge it by.

use std::hint::black_box;

mod plans;
mod relays;
mod tellings;
mod wires;

#[path = "../../tests/framed/mod.rs"]
#[allow(dead_code, reason = "only the messages of it")]
mod framed;
#[path = "../../tests/play/mod.rs"]
mod play;

/// One thing that is measured.
pub struct Case {
    /// Whose floor it stands beside.
    pub group: &'static str,
    /// What it is.
    pub name: String,
    /// What it reads; 0 where that says nothing.
    pub bytes: usize,
    /// How it is done.
    pub work: Work,
}

/// How a case is done.
pub enum Work {
    /// It leaves things as they were, and is done over and over.
    Again(Box<dyn FnMut()>),
    /// It is done once on what is made for it.
    Once(Box<dyn FnMut() -> Box<dyn FnMut()>>),
}

impl Case {
    fn again(
        group: &'static str,
        name: impl Into<String>,
        bytes: usize,
        run: impl FnMut() + 'static,
    ) -> Case {
        Case { group, name: name.into(), bytes, work: Work::Again(Box::new(run)) }
    }

    fn once<R: FnMut() + 'static>(
        group: &'static str,
        name: impl Into<String>,
        bytes: usize,
        mut make: impl FnMut() -> R + 'static,
    ) -> Case {
        let make = move || Box::new(make()) as Box<dyn FnMut()>;
        Case { group, name: name.into(), bytes, work: Work::Once(Box::new(make)) }
    }
}

/// All of them.
pub fn cases() -> Vec<Case> {
    let mut all = wires::cases();
    all.extend(tellings::cases());
    all.extend(relays::cases());
    all.extend(plans::cases());
    all
}

/// The floor of what has to look at every byte.
fn memchr_floor(group: &'static str, name: &str, bytes: Vec<u8>) -> Case {
    Case::again(group, format!("floor: memchr, {name}"), bytes.len(), move || {
        black_box(memchr::memchr_iter(b'\n', black_box(&bytes)).count());
    })
}

/// The floor of what has to write every byte. By the kibibyte: a long copy is one instruction that
/// callgrind counts once a byte.
fn memcpy_floor(group: &'static str, name: &str, bytes: Vec<u8>) -> Case {
    let mut out = bytes.clone();
    Case::again(group, format!("floor: memcpy, {name}"), bytes.len(), move || {
        for (to, from) in black_box(&mut out).chunks_mut(1024).zip(black_box(&bytes).chunks(1024)) {
            to.copy_from_slice(from);
        }
    })
}

/// An event as OpenAI sends it, 270 bytes.
const EVENT: &[u8] = b"data: {\"id\":\"chatcmpl-AbCdEfGhIjK\",\"object\":\"chat.completion.chunk\",\
    \"created\":1750000000,\"model\":\"gpt-4o-2024-08-06\",\"service_tier\":\"default\",\
    \"system_fingerprint\":\"fp_0123456789\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"},\
    \"logprobs\":null,\"finish_reason\":null}]}\n\n";

/// Such events, as many as go into 64 KiB.
fn many() -> Vec<u8> {
    EVENT.repeat((64 << 10) / EVENT.len())
}
