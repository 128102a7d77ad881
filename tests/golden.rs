//! The project's own cases: what each provider may answer, and what a client of each dialect gets for it.
//!
//! `tests/fixtures/<provider>/<case>.in` begins with a line that says whose answer it is and how it came;
//! what follows is the body, byte for byte:
//!
//! ```text
//!   openai openai-chat stream        a stream
//!   bedrock bedrock-converse framed  a stream of the AWS event stream, a message a line
//!   mistral openai-chat whole        a whole answer
//!   cohere cohere-v2-chat 429        an error by its status
//! ```
//!
//! The `.out` beside it has the client's bytes, a part for each dialect. `WRITE_EXPECTED=1` writes them anew:
//! read what changed before it is kept.

#![cfg(feature = "uring")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a test says what is wrong by failing"
)]

mod framed;

use std::path::{Path, PathBuf};

use firstbyte::app::translate::{Order, Translated, known, surface_in, translate};
use firstbyte::llm::dialects::Dialect;

use framed::answer;

const DIALECTS: [Dialect; 3] = [Dialect::Chat, Dialect::Messages, Dialect::Responses];

/// One case.
struct Case {
    path: PathBuf,
    name: String,
    provider: String,
    api: String,
    stream: bool,
    status: u16,
    bytes: Vec<u8>,
    /// Where its events end.
    ends: Vec<usize>,
}

impl Case {
    fn read(path: &Path) -> Case {
        let all = std::fs::read(path).unwrap();
        let at = all.iter().position(|byte| *byte == b'\n').unwrap();
        let head = std::str::from_utf8(&all[..at]).unwrap();
        let [provider, api, mode] = head.split(' ').collect::<Vec<_>>()[..] else {
            panic!("{}: {head}", path.display());
        };
        let mut bytes = all[at + 1..].to_vec();
        let mut ends = Vec::new();
        if mode == "framed" {
            let text = String::from_utf8(bytes).unwrap();
            bytes = Vec::new();
            for line in text.lines() {
                bytes.extend(framed::wrapped(line, api == "bedrock-invoke"));
                ends.push(bytes.len());
            }
        } else {
            ends.extend((1..=bytes.len()).filter(|end| bytes[..*end].ends_with(b"\n")));
        }
        let folder = path.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
        Case {
            path: path.to_owned(),
            name: format!("{folder}/{}", path.file_stem().unwrap().to_string_lossy()),
            provider: provider.to_owned(),
            api: api.to_owned(),
            stream: mode != "whole",
            status: mode.parse().unwrap_or(200),
            bytes,
            ends,
        }
    }

    fn order(&self, dialect: Dialect) -> Order {
        let (kind, surface) = known(&self.provider, &self.api).unwrap();
        let surface = surface_in(surface, dialect).unwrap();
        Order { kind, surface, stream: self.stream, status: self.status }
    }

    fn told(&self, dialect: Dialect) -> Translated {
        translate(&self.order(dialect), [self.bytes.as_slice()])
    }

    /// What its `.out` should hold.
    fn out(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for dialect in DIALECTS {
            let got = self.told(dialect);
            let end = if got.good { "good" } else { "bad" };
            out.extend(format!("== {} {end}\n", dialect.name()).as_bytes());
            out.extend(&got.body);
            if !got.body.ends_with(b"\n") {
                out.push(b'\n');
            }
        }
        out
    }
}

fn cases() -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(root)
        .unwrap()
        .flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap())
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "in"))
        .collect();
    paths.sort();
    assert!(paths.len() > 400, "{} cases", paths.len());
    paths.iter().map(|path| Case::read(path)).collect()
}

#[test]
fn every_case_comes_out_as_expected() {
    let write = std::env::var_os("WRITE_EXPECTED").is_some();
    let mut wrong = Vec::new();
    for case in cases() {
        let (path, out) = (case.path.with_extension("out"), case.out());
        if write {
            std::fs::write(&path, &out).unwrap();
        }
        let want = std::fs::read(&path).unwrap_or_default();
        if want != out {
            let (want, out) = (String::from_utf8_lossy(&want), String::from_utf8_lossy(&out));
            let differ = want.lines().zip(out.lines()).find(|(want, out)| want != out);
            wrong.push(format!("{}: {differ:?}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{} cases differ:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_case_comes_out_the_same_however_it_is_cut() {
    for case in cases() {
        for dialect in DIALECTS {
            let (order, whole) = (case.order(dialect), case.told(dialect).body);
            let same = |pieces: Vec<&[u8]>, how: &str| {
                assert_eq!(translate(&order, pieces).body, whole, "{} {how}", case.name);
            };
            same(case.bytes.chunks(1).collect(), "byte by byte");
            // Every cut in two of the small ones, for one dialect: the reader is the same for all.
            let step = if dialect == Dialect::Chat && case.bytes.len() < SMALL { 1 } else { 199 };
            for at in (0..case.bytes.len()).step_by(step) {
                let (head, tail) = case.bytes.split_at(at);
                same(vec![head, tail], &format!("cut at {at}"));
            }
        }
    }
}

#[test]
fn what_ends_early_is_never_a_good_end_that_says_less() {
    for case in cases().iter().filter(|case| case.stream && case.status == 200) {
        for dialect in DIALECTS {
            let (order, whole) = (case.order(dialect), case.told(dialect));
            let all = answer(&whole.body);
            let every = dialect == Dialect::Chat && case.bytes.len() < SMALL;
            let within = (0..case.bytes.len()).step_by(if every { 1 } else { 149 });
            for at in within.chain(case.ends.iter().copied()) {
                let got = translate(&order, [&case.bytes[..at]]);
                if !got.good {
                    continue;
                }
                let told = answer(&got.body);
                // An error may come after all was said.
                let after = dialect != Dialect::Chat || all.starts_with(&told);
                let kept = if whole.good { told == all } else { after };
                assert!(kept, "{} ends at {at}", case.name);
            }
        }
    }
}

/// Bytes of a case that is cut at every byte.
const SMALL: usize = 450;
