//! What the hot paths cost in instructions: every case of `cases`, one after the other, in one run of
//! callgrind, which counts inside of `counted` and writes down what it has at each `case_over`.
//! `scripts/instructions` does that, prints the table and compares it with the record.
//!
//! ```text
//!   instr             all cases, a line for each: how often it was counted, its bytes, its name
//!   instr WORD        those with WORD in their name, for looking closer with callgrind_annotate
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    reason = "a bench stops where it is wrong"
)]

use std::hint::black_box;

mod cases;

use cases::{Work, cases};

/// How often a case runs before it is counted, and counted.
const WARM: u32 = 4;
const COUNT: u32 = 16;

fn main() {
    let word = std::env::args().skip(1).find(|word| word != "--bench").unwrap_or_default();
    for case in cases() {
        let name = format!("{}: {}", case.group, case.name);
        if !name.contains(&word) {
            continue;
        }
        match case.work {
            Work::Again(mut run) => {
                (0..WARM).for_each(|_| run());
                (0..COUNT).for_each(|_| counted(&mut run));
            }
            Work::Once(mut make) => {
                (0..WARM).for_each(|_| make()());
                (0..COUNT).for_each(|_| counted(&mut make()));
            }
        }
        case_over();
        println!("{COUNT}\t{}\t{name}", case.bytes);
    }
}

#[inline(never)]
fn counted(run: &mut dyn FnMut()) {
    black_box(run)();
}

#[inline(never)]
fn case_over() {
    black_box(());
}
