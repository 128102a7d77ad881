//! What a text weighs, and a hash of it: both are of a whole prompt, on the way of each request.
//!
//! A text of some pages is weighed whole; of a longer one, windows are, ever sparser, each for the stretch that
//! it was taken from. A run of letters or digits belongs to the window that it begins in, so that none is
//! counted twice or cut. Where in its stretch a window lies is drawn from the stretch's place, lest a text that
//! repeats in step be looked at in one place only; the same text always weighs the same.
//!
//! ```text
//!   |== 4 KiB, whole ==|.[w]....|...[w]..|[w]...................|.........[w]..........|
//!                       a fourth         an eighth, a sixteenth
//! ```

use super::QUARTERS;

/// What a text weighs, in quarters of a token: see the text of `demand`.
pub(super) fn weight(text: &[u8]) -> u64 {
    if text.len() <= WHOLE {
        return window(text, 0, text.len());
    }
    let mut quarters = window(text, 0, WHOLE);
    let mut at = WHOLE;
    while at < text.len() {
        let share = share(at);
        let stretch = (WINDOW * share).min(text.len() - at);
        // The last stretch may be shorter than a window.
        let size = WINDOW.min(stretch);
        let place = mix(0, at as u64) as usize % (stretch - size + 1);
        let found = window(text, at + place, at + place + size);
        quarters += found * stretch as u64 / size as u64;
        at += stretch;
    }
    quarters
}

/// One byte in so many is weighed, so far into a text.
const fn share(at: usize) -> usize {
    match at {
        0..0x4000 => 4,
        0x4000..0x10000 => 8,
        _ => 16,
    }
}

/// Up to so many bytes nothing is left out.
const WHOLE: usize = 4096;
/// What is weighed of a stretch.
const WINDOW: usize = 256;
/// A run that is longer than this beyond its window is no word: it belongs to each window by its part.
const OVERHANG: usize = 64;

/// What the runs weigh that begin in `text[start..end]`.
fn window(text: &[u8], start: usize, end: usize) -> u64 {
    let (mut quarters, mut at) = (0u64, start);
    let last = text.len().min(end + OVERHANG);
    if start > 0 {
        let before = CLASSES[usize::from(text[start - 1])];
        if matches!(before, Class::Letter | Class::Digit) {
            at += run(&text[start..text.len().min(start + OVERHANG)], before);
        }
    }
    while at < end {
        let byte = text[at];
        let class = CLASSES[usize::from(byte)];
        let run = match class {
            Class::Letter | Class::Digit => run(&text[at..last], class),
            // An escape is its second byte; `\u00e9` is one character.
            Class::Escape => match text.get(at + 1) {
                Some(b'u') => 6,
                Some(_) | None => 2,
            },
            Class::Mark => text[at..last].iter().take_while(|b| **b == byte).count(),
            Class::Space | Class::Two | Class::Indic | Class::Three | Class::Four | Class::Rest => {
                1
            }
        };
        quarters += match class {
            Class::Letter => QUARTERS + (run as u64).saturating_sub(7).div_ceil(6) * QUARTERS,
            Class::Digit => (run as u64).div_ceil(3) * QUARTERS,
            Class::Mark => (run as u64).div_ceil(9) * QUARTERS,
            Class::Two => QUARTERS / 4,
            Class::Escape | Class::Indic => QUARTERS / 2,
            Class::Three => QUARTERS * 3 / 4,
            Class::Four => QUARTERS * 2,
            Class::Space | Class::Rest => 0,
        };
        at += run;
    }
    quarters
}

/// How many bytes of one class a text begins with.
fn run(text: &[u8], class: Class) -> usize {
    text.iter().take_while(|b| CLASSES[usize::from(**b)] == class).count()
}

/// What a byte is to a tokenizer, roughly.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Class {
    Letter,
    Digit,
    Space,
    Mark,
    Escape,
    /// Begins a character of two bytes.
    Two,
    /// Of three, in the scripts of India and its neighbours.
    Indic,
    /// Of three.
    Three,
    /// Of four.
    Four,
    /// Goes on with a character.
    Rest,
}

const CLASSES: [Class; 256] = {
    let mut classes = [Class::Mark; 256];
    let mut byte = 0;
    while byte < 256 {
        classes[byte] = match byte as u8 {
            b'a'..=b'z' | b'A'..=b'Z' => Class::Letter,
            b'0'..=b'9' => Class::Digit,
            b' ' | b'\t' | b'\n' | b'\r' => Class::Space,
            b'\\' => Class::Escape,
            0x80..=0xbf => Class::Rest,
            0xc0..=0xdf => Class::Two,
            0xe0..=0xe1 => Class::Indic,
            0xe2..=0xef => Class::Three,
            0xf0..=0xff => Class::Four,
            _ => Class::Mark,
        };
        byte += 1;
    }
    classes
};

/// A hash of bytes over another: quick, the same on every core and in every run, and not meant to
/// withstand anybody. Four chains, since one would wait for its own multiplications.
pub(super) fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let [mut a, mut b, mut c, mut d] = [mix(seed, bytes.len() as u64), 1, 2, 3];
    let (blocks, rest) = bytes.as_chunks::<8>();
    let (fours, left) = blocks.as_chunks::<4>();
    for [w, x, y, z] in fours {
        a = mix(a, u64::from_le_bytes(*w));
        b = mix(b, u64::from_le_bytes(*x));
        c = mix(c, u64::from_le_bytes(*y));
        d = mix(d, u64::from_le_bytes(*z));
    }
    let mut all = left.iter().fold(a, |all, block| mix(all, u64::from_le_bytes(*block)));
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    for word in [u64::from_le_bytes(last), b, c, d] {
        all = mix(all, word);
    }
    all ^ (all >> 29)
}

fn mix(hash: u64, word: u64) -> u64 {
    (hash.rotate_left(23) ^ word).wrapping_mul(SPREAD)
}

const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::demand::tokens;

    #[test]
    fn weights_by_class() {
        let count = |text: &str| tokens(weight(text.as_bytes()));
        for (text, expected) in [
            ("", 0),
            ("hello", 1),
            ("hello world", 2),
            ("internationalization", 4),
            ("tokens", 1),
            ("123456", 2),
            ("a,b", 3),
            ("\u{4e2d}\u{6587}", 2),
            ("\u{1f600}", 2),
            ("\u{43f}\u{440}\u{438}\u{432}", 1),
            ("==================", 2),
            ("\\n\\n", 1),
        ] {
            assert_eq!(count(text), expected, "{text}");
        }
        let long = "the quick brown fox jumps over the lazy dog ".repeat(1_000);
        assert_eq!(count(&long), 9_000);
    }

    /// Texts that sampling could misjudge: rows of one length, halves of different density, another
    /// script, escapes, numbers.
    fn long_texts() -> Vec<String> {
        let row = format!("{:<60}{:>60}{:>135}\n", "name of something", "1234567.89", "x,y;z");
        let prose = "The quick brown fox, aged 7, jumps over 13 lazy dogs; internationalization! ";
        let noise: String = (0..90_000u32)
            .map(|n| char::from(b'!' + (n.wrapping_mul(2_654_435_761) >> 24) as u8 % 90))
            .collect();
        vec![
            row.repeat(800),
            prose.repeat(3_000),
            prose.repeat(700) + &noise,
            noise.clone() + &prose.repeat(700),
            "\u{4e2d}\u{6587}\u{3002}\u{43f}\u{440}\u{438} ".repeat(9_000),
            "\\u4e2d\\n\\t\\\"".repeat(9_000),
            "a".repeat(100_000),
            prose.repeat(900) + &"a".repeat(50_000),
            " ".repeat(100_000),
            (0..40_000).map(|n| n.to_string() + ",").collect(),
        ]
    }

    #[test]
    fn a_long_text_weighs_what_all_of_it_does() {
        for text in long_texts() {
            for cut in [text.len(), text.len() / 2 + 1, WHOLE + 1, WHOLE + WINDOW + 3] {
                let text = &text.as_bytes()[..cut.min(text.len())];
                let (told, whole) = (weight(text), window(text, 0, text.len()));
                let off = told.abs_diff(whole);
                let start = String::from_utf8_lossy(&text[..40]).into_owned();
                assert!(off <= whole / 12 + 200, "{start}: {told} of {whole}, {cut} bytes");
            }
        }
    }

    #[test]
    fn windows_side_by_side_weigh_what_the_whole_does() {
        for text in long_texts().iter().filter(|text| !text.starts_with("aaa")) {
            let text = &text.as_bytes()[..text.len().min(20_000)];
            let step = 37;
            let parts = (0..text.len()).step_by(step);
            let sum: u64 = parts.map(|at| window(text, at, (at + step).min(text.len()))).sum();
            let whole = window(text, 0, text.len());
            // What is cut: runs of marks, and escapes in their middle.
            assert!(sum.abs_diff(whole) <= whole / 3, "{sum} of {whole}");
        }
        let plain = "some words and 12345 numbers internationalization ".repeat(50);
        for step in 1..60 {
            let parts = (0..plain.len()).step_by(step);
            let end = |at: usize| (at + step).min(plain.len());
            let sum: u64 = parts.map(|at| window(plain.as_bytes(), at, end(at))).sum();
            assert_eq!(sum, window(plain.as_bytes(), 0, plain.len()), "step {step}");
        }
    }

    #[test]
    fn a_hash_sees_every_byte() {
        let bytes: Vec<u8> = (0..100).collect();
        let mut seen = std::collections::HashSet::new();
        for len in 0..=bytes.len() {
            assert!(seen.insert(hash(0, &bytes[..len])), "length {len}");
        }
        for at in 0..bytes.len() {
            let mut other = bytes.clone();
            other[at] ^= 0x40;
            assert!(seen.insert(hash(0, &other)), "byte {at}");
        }
        assert_ne!(hash(1, &bytes), hash(2, &bytes));
    }
}
