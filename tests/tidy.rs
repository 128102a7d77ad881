//! The rules of the house that a machine can check. Each rule is a function from sources to complaints;
//! one test runs it on the tree, another shows it a tree that breaks it, so that no rule is asleep.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a test says what is wrong by failing"
)]

#[path = "tidy/source.rs"]
mod source;

use std::collections::BTreeSet;

use source::{Source, exists, files, item_end, read, rust_files, words};

/// A floor, what it may import, and which other crates it may name.
struct Floor {
    name: &'static str,
    below: &'static [&'static str],
    crates: &'static [&'static str],
    /// No runtime, no clock, no `async`: bytes and a `now` come in, decisions go out.
    pure: bool,
}

/// `docs/floors.md` draws it.
const FLOORS: &[Floor] = &[
    Floor { name: "base", below: &[], crates: &[], pure: true },
    Floor {
        name: "wire",
        below: &["base"],
        crates: &["crc32fast", "hmac", "httparse", "memchr", "sha2", "simd_json", "smallvec"],
        pure: true,
    },
    Floor {
        name: "rt",
        below: &["base"],
        crates: &["monoio", "io_uring", "socket2", "libc"],
        pure: false,
    },
    Floor {
        name: "llm",
        below: &["base", "wire"],
        crates: &["base64", "memchr", "smallvec", "serde_json"],
        pure: true,
    },
    Floor {
        name: "config",
        below: &["base", "llm"],
        crates: &["serde", "serde_json", "toml", "sha2"],
        pure: true,
    },
    Floor {
        name: "route",
        below: &["base", "config"],
        crates: &["arc_swap", "smallvec", "serde_json", "toml"],
        pure: true,
    },
    Floor {
        name: "exchange",
        below: &["base", "wire", "llm", "config", "route"],
        crates: &["smallvec", "serde_json", "httpdate"],
        pure: true,
    },
    Floor {
        name: "net",
        below: &["base", "wire", "llm", "config", "route", "exchange", "rt"],
        crates: &["smallvec", "serde_json", "sha2", "subtle", "rustls", "webpki_roots"],
        pure: false,
    },
    Floor { name: "app", below: &["*"], crates: &["*"], pure: false },
];

/// What reaches outside, and the only places that may.
const OUTSIDE: &[(&str, &[&str], &str)] = &[
    ("std::env", &["src/app/", "src/main.rs"], "the environment comes in as a lookup function"),
    ("std::fs", &["src/app/", "src/main.rs"], "files come in as text"),
    ("std::process", &["src/app/", "src/main.rs"], "the process belongs to the app"),
    ("Instant", &["src/app/", "src/rt/uring.rs"], "time comes in as `now`"),
    ("SystemTime", &["src/app/", "src/rt/uring.rs"], "the wall clock comes in"),
    ("to_socket_addrs", &["src/app/"], "a core never resolves"),
    ("ToSocketAddrs", &["src/app/"], "a core never resolves"),
    ("std::net::TcpStream", &["src/app/"], "a core never blocks"),
    ("HashMap", &["src/app/", "src/net/names.rs"], "hash order must not reach an output"),
    ("HashSet", &["src/app/"], "hash order must not reach an output"),
    ("UnsafeCell", &[], "nobody needs one"),
    ("monoio", &["src/rt/uring.rs"], "one file names the runtime"),
];

/// Files that may hold `unsafe`.
const UNSAFE: &[&str] = &["src/rt/uring.rs", "src/app/descriptors.rs", "src/app/machine.rs"];

/// Non-test lines with something on them.
const LINES_MAX: usize = 600;
/// Files above it, and why they are one file.
const LONG: &[(&str, &str)] = &[];
/// Lines of one function: past a screen it does a second thing.
const FUNCTION_LINES_MAX: usize = 90;

/// Words that only stand in code that is not done.
const BANNED: &[&str] = &["todo!", "dbg!", "unimplemented!"];

// ---- the rules ----

/// Imports go downward only, and other crates are named where the floor may.
fn floors(sources: &[Source], dependencies: &[String]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources {
        let Some(name) = source.floor() else { continue };
        let Some(floor) = FLOORS.iter().find(|floor| floor.name == name) else {
            wrong.push(format!("{}: src/{name} is no floor", source.path));
            continue;
        };
        let may = |list: &[&str], what: &str| list == ["*"] || list.contains(&what);
        if source.shipped.contains("crate::{") {
            wrong.push(format!("{}: one `use` per floor, not `crate::{{`", source.path));
        }
        let depth = source.path.matches('/').count();
        for (line, path) in source.paths() {
            let complain =
                |what: &str| format!("{}:{line}: {name} may not name {what}", source.path);
            let mut parts = path.split("::");
            let first = parts.next().unwrap_or_default();
            let second = parts.next();
            if path.starts_with(&"super::".repeat(depth)) {
                wrong.push(complain("another floor by `super`"));
            }
            match (first, second) {
                ("crate" | "firstbyte", Some(other))
                    if other != name && !may(floor.below, other) =>
                {
                    wrong.push(complain(other));
                }
                (first, Some(_))
                    if dependencies.iter().any(|d| d == first) && !may(floor.crates, first) =>
                {
                    wrong.push(complain(first));
                }
                ("async" | "await", None) if floor.pure => wrong.push(complain("async")),
                _ => {}
            }
        }
    }
    wrong
}

/// Clock, environment, files and the runtime are named only where they may be.
fn outside(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources {
        for (line, path) in source.paths() {
            for (word, allowed, why) in OUTSIDE {
                let named = path == *word
                    || path.starts_with(&format!("{word}::"))
                    || (!word.contains("::") && path.split("::").any(|part| part == *word));
                if named && !allowed.iter().any(|place| source.path.starts_with(place)) {
                    wrong.push(format!("{}:{line}: {word}: {why}", source.path));
                }
            }
        }
    }
    wrong
}

/// `unsafe` only in listed files, each use below a comment that says why it is sound.
fn unsafety(sources: &[Source], listed: &[&str]) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut used = BTreeSet::new();
    for source in sources {
        let text: Vec<&str> = source.text.lines().collect();
        for (line, word) in words(&source.code) {
            if word == "unsafe_code" && source.code.contains("allow(unsafe_code") {
                used.insert(source.path.as_str());
                if !listed.contains(&source.path.as_str()) {
                    wrong.push(format!("{}:{line}: not on the list of unsafe files", source.path));
                }
            }
            if word != "unsafe" {
                continue;
            }
            let above = text[..line - 1].iter().rev();
            let comment: Vec<&&str> =
                above.take_while(|line| line.trim_start().starts_with("//")).collect();
            if !comment.iter().any(|line| line.contains("SAFETY:")) {
                wrong.push(format!("{}:{line}: `unsafe` without a SAFETY comment", source.path));
            }
        }
    }
    let idle = listed.iter().filter(|path| !used.contains(**path));
    wrong.extend(idle.map(|path| format!("{path}: on the list of unsafe files without need")));
    wrong
}

/// Every provider file has its two lines, and none imports another.
fn providers(sources: &[Source]) -> Vec<String> {
    let folder = "src/llm/providers/";
    let Some(list) = sources.iter().find(|s| s.path == format!("{folder}mod.rs")) else {
        return vec![format!("{folder}mod.rs: missing")];
    };
    let table = list.code.find("\nproviders! {").map(|at| &list.code[at..]).unwrap_or_default();
    let table = &table[..item_end(table, 0)];
    let names: Vec<&str> = sources
        .iter()
        .filter_map(|s| s.path.strip_prefix(folder)?.strip_suffix(".rs"))
        .filter(|name| *name != "mod" && !name.contains('/'))
        .collect();
    let mut wrong = Vec::new();
    for name in &names {
        if !list.code.contains(&format!("pub mod {name};")) {
            wrong.push(format!("{folder}{name}.rs: no `pub mod {name};` in mod.rs"));
        }
        if !table.contains(&format!("{name}::")) {
            wrong.push(format!("{folder}{name}.rs: not in the `providers!` list"));
        }
    }
    for source in sources.iter().filter(|s| s.path.starts_with(folder) && s.path != list.path) {
        let own = source.path[folder.len()..].split(['/', '.']).next().unwrap_or_default();
        for (line, path) in source.paths() {
            let other = |name: &&&str| {
                **name != own
                    && [format!("providers::{name}"), format!("super::{name}")]
                        .iter()
                        .any(|import| path.contains(import.as_str()))
            };
            if let Some(name) = names.iter().find(other) {
                wrong.push(format!("{}:{line}: imports the provider {name}", source.path));
            }
        }
    }
    wrong
}

/// Every provider that is sent to has its own cases of what every provider does, `cases` being files.
fn cases(sources: &[Source], cases: &[String]) -> Vec<String> {
    let folder = "src/llm/providers/";
    let mut wrong = Vec::new();
    for source in sources {
        let name = source.path.strip_prefix(folder).and_then(|path| path.strip_suffix(".rs"));
        let Some(name) = name.filter(|name| *name != "mod" && !name.contains('/')) else {
            continue;
        };
        if source.code.contains("const SENDS: bool = false") {
            continue;
        }
        for case in CASES {
            let start = format!("tests/fixtures/{name}/{case}");
            let has = |end: &str| cases.iter().any(|c| c.starts_with(&start) && c.ends_with(end));
            if !has(".in") || !has(".out") {
                wrong.push(format!("{}: no case {start}*", source.path));
            }
        }
    }
    wrong
}

/// How the names of a provider's cases begin.
const CASES: &[&str] =
    &["text", "tool_call", "parallel_tools", "usage", "stop_", "early_error", "midstream_", "cut"];

/// Every limit is in force somewhere.
fn limits(sources: &[Source]) -> Vec<String> {
    let home = "src/base/limits.rs";
    let Some(list) = sources.iter().find(|s| s.path == home) else {
        return vec![format!("{home}: missing")];
    };
    let names = list.shipped.lines().filter_map(|line| {
        let name = line.trim().strip_prefix("pub const ")?.split(':').next()?;
        Some(name.to_owned())
    });
    let used: BTreeSet<String> = sources
        .iter()
        .filter(|s| s.path != home)
        .flat_map(Source::paths)
        .map(|(_, path)| path.rsplit("::").next().unwrap_or_default().to_owned())
        .collect();
    let idle = names.filter(|name| !used.contains(name));
    idle.map(|name| format!("{home}: {name} limits nothing")).collect()
}

/// Credentials are kept as what can't be shown: no field that is named as one is text or plain bytes.
fn credentials(sources: &[Source]) -> Vec<String> {
    let named = ["key", "keys", "secret", "token", "password", "credential", "assertion"];
    let plain = ["String", "Vec<u8>", "Arc<str>", "Box<str>", "Arc<[u8]>", "Box<[u8]>"];
    let mut wrong = Vec::new();
    for source in sources.iter().filter(|s| s.path.starts_with("src/")) {
        for (index, line) in source.shipped.lines().enumerate() {
            let Some((name, kind)) = line.trim().trim_end_matches(',').split_once(": ") else {
                continue;
            };
            let name = name.rsplit(' ').next().unwrap_or_default();
            let is_field =
                line.ends_with(',') && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            let last = name.rsplit('_').next().unwrap_or_default();
            let is_plain = plain.iter().any(|plain| kind.contains(plain));
            let known = PLAIN_CREDENTIALS.contains(&(source.path.as_str(), name));
            if is_field && named.contains(&last) && is_plain && !known {
                wrong.push(format!(
                    "{}:{}: {name} is {kind}, and no Secret",
                    source.path,
                    index + 1
                ));
            }
        }
    }
    wrong
}

/// What a parser needs for a moment and gives on to a `Secret` with its memory, and keys that are names.
const PLAIN_CREDENTIALS: &[(&str, &str)] = &[
    ("src/app/ledger_log.rs", "keys"),
    ("src/app/tokens/mod.rs", "access_token"),
    ("src/config/cloud.rs", "private_key"),
];

/// What a config may set is in force: somebody above reads the field.
fn settings(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    let above = |s: &&Source| s.path.starts_with("src/") && s.floor() != Some("config");
    let read: String = sources.iter().filter(above).map(|s| s.shipped.as_str()).collect();
    let is_read = |field: &str| {
        read.match_indices(&format!(".{field}")).any(|(at, found)| {
            let next = read[at + found.len()..].chars().next().unwrap_or(' ');
            !(next.is_alphanumeric() || next == '_')
        })
    };
    for source in sources.iter().filter(|s| s.floor() == Some("config")) {
        for name in ["Server", "Settings", "BreakerRule", "BudgetRule"] {
            let Some(at) = source.shipped.find(&format!("pub struct {name} {{")) else { continue };
            let body = &source.shipped[at..item_end(&source.shipped, at)];
            let fields = body.lines().filter_map(|line| line.trim().strip_prefix("pub "));
            let fields = fields.filter_map(|field| field.split_once(':'));
            let idle = fields.filter(|(field, _)| !is_read(field));
            wrong.extend(
                idle.map(|(field, _)| format!("{}: nobody reads {name}.{field}", source.path)),
            );
        }
    }
    wrong
}

/// No file grows past what a head can hold, and no exception outlives its need.
fn sizes(sources: &[Source], long: &[(&str, &str)]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources {
        let lines = source.shipped_lines();
        let excused = long.iter().any(|(path, _)| *path == source.path);
        if lines > LINES_MAX && !excused {
            wrong.push(format!("{}: {lines} lines, more than {LINES_MAX}", source.path));
        }
        if lines <= LINES_MAX && excused {
            wrong.push(format!("{}: {lines} lines need no exception any more", source.path));
        }
    }
    let gone = long.iter().filter(|(path, _)| !sources.iter().any(|s| s.path == *path));
    wrong.extend(gone.map(|(path, _)| format!("{path}: an exception for no file")));
    wrong
}

/// A function fits a screen.
fn functions(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources {
        let code = &source.shipped;
        for (at, _) in code.match_indices("fn ") {
            let starts = code[..at].chars().next_back().is_none_or(char::is_whitespace);
            let body = &code[at..item_end(code, at)];
            let lines = body.lines().count();
            if starts && lines > FUNCTION_LINES_MAX {
                let line = code[..at].lines().count();
                let name = body[3..].split(['(', '<']).next().unwrap_or_default();
                wrong.push(format!("{}:{line}: {name} has {lines} lines", source.path));
            }
        }
    }
    wrong
}

/// Every file is part of the build: its parent names it.
fn orphans(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources {
        let Some(inner) = source.path.strip_prefix("src/").and_then(|p| p.strip_suffix(".rs"))
        else {
            continue;
        };
        let module = inner.strip_suffix("/mod").unwrap_or(inner);
        if matches!(module, "lib" | "main") {
            continue;
        }
        let (parent, name) = module.rsplit_once('/').unwrap_or(("lib", module));
        let parents = [format!("src/{parent}.rs"), format!("src/{parent}/mod.rs")];
        let named = sources.iter().filter(|s| parents.contains(&s.path)).any(|s| {
            s.code.contains(&format!("mod {name};")) || s.text.contains(&format!("\"{name}.rs\""))
        });
        if !named {
            wrong.push(format!("{}: no module names it", source.path));
        }
    }
    wrong
}

/// Words of unfinished work: never in code, and in prose only beside the decision that covers them.
fn unfinished(sources: &[Source], prose: &[(String, String)], decisions: &[String]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources {
        for (index, line) in source.code.lines().enumerate() {
            let banned = BANNED.iter().filter(|word| line.contains(**word));
            wrong.extend(banned.map(|w| format!("{}:{}: {w}", source.path, index + 1)));
        }
    }
    let marks = ["TO", "FIX", "XX", "HA"].iter().zip(["DO", "ME", "X", "CK"]);
    let marks: Vec<String> = marks.map(|(a, b)| format!("{a}{b}")).collect();
    let texts = sources.iter().map(|s| (&s.path, &s.text));
    for (path, text) in texts.chain(prose.iter().map(|(path, text)| (path, text))) {
        for (index, line) in text.lines().enumerate() {
            let marked = line
                .split(|c: char| !c.is_alphanumeric())
                .any(|word| marks.iter().any(|mark| mark == word));
            let covered = decisions.iter().any(|number| line.contains(&format!("({number})")));
            if marked && !covered {
                wrong.push(format!("{path}:{}: unfinished, and no decision says why", index + 1));
            }
        }
    }
    wrong
}

/// A test that sleeps to be right is wrong on a slow machine; one that is ignored is no test.
fn patience(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources {
        for (line, path) in words(&source.code) {
            let in_test = source.path.starts_with("tests/") || source.path.ends_with("/tests.rs");
            if in_test && path.ends_with("thread::sleep") {
                wrong.push(format!("{}:{line}: a test sleeps", source.path));
            }
        }
        let ignored = source.code.lines().enumerate().filter(|(_, l)| l.trim() == "#[ignore]");
        wrong.extend(ignored.map(|(i, _)| format!("{}:{}: ignored", source.path, i + 1)));
    }
    wrong
}

/// Decisions are numbered from 1 without gaps, named after their number, and listed.
fn decisions(pages: &[(String, String)], index: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (at, (path, text)) in pages.iter().enumerate() {
        let file = path.rsplit('/').next().unwrap_or_default();
        let number = format!("{:04}", at + 1);
        if !file.starts_with(&format!("{number}-")) {
            wrong.push(format!("{path}: number {number} is expected here"));
        }
        let title = format!("# {number}: ");
        if !text.starts_with(&title) {
            wrong.push(format!("{path}: must begin with \"{title}\""));
        }
        if !index.contains(&format!("({file})")) {
            wrong.push(format!("{path}: not listed in docs/decisions/README.md"));
        }
    }
    wrong
}

/// Files and tests that the documentation names exist: `src/a.rs`, `tests/b.rs::name`.
fn references(prose: &[(String, String)]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (path, text) in prose {
        let mut line = 1;
        for (index, quoted) in text.split('`').enumerate() {
            let (file, name) = quoted.split_once("::").unwrap_or((quoted, ""));
            let roots = ["src/", "tests/", "docs/", "scripts/", "fuzz/", "config/", ".ci/"];
            let plain = !file.contains([' ', '<', '*', '{', '\n']);
            if index % 2 == 1 && plain && roots.iter().any(|root| file.starts_with(root)) {
                if !exists(file) {
                    wrong.push(format!("{path}:{line}: there is no {file}"));
                } else if !name.is_empty() && !words(&read(file)).iter().any(|(_, w)| w == name) {
                    wrong.push(format!("{path}:{line}: {file} has no {name}"));
                }
            }
            line += quoted.matches('\n').count();
        }
    }
    wrong
}

/// Each row of what the threat model defends names a test, a fuzz target or a script, each test that it
/// names is one, and what is not defended is said once.
fn defences(path: &str, text: &str) -> Vec<String> {
    let section = |title: &str| {
        let rest = text.split_once(title).map_or("", |(_, rest)| rest);
        rest.split("\n## ").next().unwrap_or_default()
    };
    let mut wrong = Vec::new();
    let rows = section("## What is defended").lines().filter(|line| line.starts_with("| "));
    for row in rows.skip(2) {
        let threat = row.split('|').nth(1).unwrap_or_default().trim();
        let shown = row.trim_end_matches(['|', ' ']).rsplit('|').next().unwrap_or_default();
        let quoted: Vec<&str> = shown.split('`').skip(1).step_by(2).collect();
        let tests: Vec<_> = quoted.iter().filter_map(|quoted| quoted.split_once("::")).collect();
        let others = quoted.iter().any(|quoted| quoted.starts_with("scripts/"));
        if tests.is_empty() && !others && !shown.contains("fuzz target") {
            wrong.push(format!("{path}: nothing shows: {threat}"));
        }
        let no_test =
            tests.iter().filter(|(file, name)| !exists(file) || !is_test(&read(file), name));
        wrong.extend(no_test.map(|(file, name)| format!("{path}: {file}::{name} is no test")));
    }
    let mut said = BTreeSet::new();
    let points = section("## What is not defended yet").split("\n- ").skip(1);
    for point in points {
        let claim = point.split(['.', ',', ';', ':']).next().unwrap_or_default();
        if !said.insert(claim) {
            wrong.push(format!("{path}: said twice: {claim}"));
        }
    }
    wrong
}

/// Whether a function of this name is a test.
fn is_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let head = format!("fn {name}(");
    lines.iter().enumerate().filter(|(_, line)| line.starts_with(&head)).any(|(at, _)| {
        let above = lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
        above.into_iter().any(|line| *line == "#[test]")
    })
}

/// Every dependency is named somewhere.
fn dependencies_used(sources: &[Source], dependencies: &[String]) -> Vec<String> {
    let named: BTreeSet<String> = sources
        .iter()
        .flat_map(|s| words(&s.code))
        .flat_map(|(_, path)| path.split("::").map(str::to_owned).collect::<Vec<_>>())
        .collect();
    let idle = dependencies.iter().filter(|name| !named.contains(*name));
    idle.map(|name| format!("Cargo.toml: nothing names {name}")).collect()
}

// ---- the tree ----

fn tree() -> Vec<Source> {
    rust_files(&["src"])
}

fn everything() -> Vec<Source> {
    rust_files(&["src", "tests", "benches", "fuzz"])
}

/// README, docs and scripts.
fn prose() -> Vec<(String, String)> {
    let paths = files(&["README.md", "docs", "scripts", "deploy", ".ci", "config", "tests/sdk"]);
    let text = paths.into_iter().filter(|p| !p.ends_with(".pem") && !p.ends_with(".lock"));
    text.map(|path| (path.clone(), read(&path))).collect()
}

/// The names under `[dependencies]`, as code has them.
fn dependencies() -> Vec<String> {
    let manifest = read("Cargo.toml");
    let section = manifest.split("\n[dependencies]\n").nth(1).unwrap();
    let section = section.split("\n[").next().unwrap();
    let names = section.lines().filter_map(|line| line.split_once(" = "));
    names.map(|(name, _)| name.replace('-', "_")).filter(|name| !name.starts_with('#')).collect()
}

fn decision_pages() -> Vec<(String, String)> {
    let paths = files(&["docs/decisions"]).into_iter().filter(|p| !p.ends_with("/README.md"));
    paths.map(|path| (path.clone(), read(&path))).collect()
}

fn decision_numbers() -> Vec<String> {
    let name = |path: &String| path.rsplit('/').next()?.get(..4).map(str::to_owned);
    decision_pages().iter().filter_map(|(path, _)| name(path)).collect()
}

#[track_caller]
fn assert_tidy(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "{} complaints:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn imports_go_downward() {
    assert_tidy(floors(&tree(), &dependencies()));
}

#[test]
fn the_outside_is_named_where_it_may_be() {
    assert_tidy(outside(&tree()));
}

#[test]
fn unsafe_is_listed_and_explained() {
    assert_tidy(unsafety(&tree(), UNSAFE));
}

#[test]
fn providers_are_registered() {
    assert_tidy(providers(&tree()));
}

#[test]
fn providers_have_their_cases() {
    assert_tidy(cases(&tree(), &files(&["tests/fixtures"])));
}

#[test]
fn limits_are_in_force() {
    assert_tidy(limits(&tree()));
}

#[test]
fn credentials_are_secrets() {
    assert_tidy(credentials(&tree()));
}

#[test]
fn settings_are_in_force() {
    assert_tidy(settings(&tree()));
}

#[test]
fn files_fit_a_head() {
    assert_tidy(sizes(&tree(), LONG));
}

#[test]
fn functions_fit_a_screen() {
    assert_tidy(functions(&tree()));
}

#[test]
fn no_file_is_left_out_of_the_build() {
    assert_tidy(orphans(&tree()));
}

#[test]
fn nothing_is_unfinished() {
    assert_tidy(unfinished(&everything(), &prose(), &decision_numbers()));
}

#[test]
fn tests_do_not_sleep() {
    assert_tidy(patience(&everything()));
}

#[test]
fn decisions_are_numbered_and_listed() {
    let pages = decision_pages();
    assert!(!pages.is_empty(), "no decisions found");
    assert_tidy(decisions(&pages, &read("docs/decisions/README.md")));
}

#[test]
fn documentation_names_what_exists() {
    assert_tidy(references(&prose()));
    let threats = "docs/threat-model.md";
    assert_tidy(defences(threats, &read(threats)));
}

#[test]
fn dependencies_are_used() {
    assert_tidy(dependencies_used(&tree(), &dependencies()));
}

// ---- each rule wakes ----

/// One file of a made-up tree that follows every rule but what `text` says.
fn made(path: &str, text: &str) -> Vec<Source> {
    vec![Source::rust(path, text)]
}

fn page(path: &str, text: &str) -> Vec<(String, String)> {
    vec![(path.to_owned(), text.to_owned())]
}

/// The rule complains once of the bad text and not of the good one.
#[track_caller]
fn wakes(rule: impl Fn(&[Source]) -> Vec<String>, path: &str, bad: &str, good: &str) {
    let complaints = rule(&made(path, bad));
    assert_eq!(complaints.len(), 1, "{bad}: {complaints:?}");
    assert_tidy(rule(&made(path, good)));
}

#[test]
fn the_rules_on_imports_wake() {
    let names = [String::from("monoio"), String::from("memchr")];
    let rule = |sources: &[Source]| floors(sources, &names);
    for (path, bad, good) in [
        ("src/wire/x.rs", "use crate::llm::event;", "use crate::base::buf; // crate::llm::event"),
        ("src/wire/x.rs", "fn f() { crate::rt::until() }", "fn f() { crate::wire::Span }"),
        ("src/llm/x.rs", "use super::super::base;", "use super::event;"),
        ("src/llm/x.rs", "use crate::{base};", "const A: &str = \"use crate::net::\";"),
        ("src/route/x.rs", "use monoio::net;", "#[cfg(test)]\nmod tests { use crate::net::x; }"),
        ("src/exchange/x.rs", "async fn f() {}", "fn f() {}"),
    ] {
        wakes(rule, path, bad, good);
    }
    assert_eq!(rule(&made("src/cellar/x.rs", "")).len(), 1);
    wakes(outside, "src/net/x.rs", "let a = Instant::now();", "let instant = now;");
    wakes(outside, "src/config/x.rs", "std::env::var(a)", "lookup(a)");
    wakes(outside, "src/exchange/x.rs", "use std::collections::HashMap;", "// HashMap");
}

#[test]
fn the_rule_on_unsafe_wakes() {
    let path = "src/rt/uring.rs";
    let listed = |sources: &[Source]| unsafety(sources, &[path]);
    let allow = "#[allow(unsafe_code)]\n";
    let bad = format!("{allow}let a = unsafe {{ b }};");
    let good = format!("{allow}// SAFETY: b is alive,\n// for ever.\nlet a = unsafe {{ b }};");
    wakes(listed, path, &bad, &good);
    wakes(listed, path, "fn safe() {}", &good);
    wakes(|s| unsafety(s, &[]), "src/net/x.rs", allow, "// unsafe, allow(unsafe_code)");
}

#[test]
fn the_rules_on_lists_wake() {
    let list = "pub mod a;\n\nproviders! {\n    A => a::A,\n}\n";
    let with = |name: &str, text: &str, list: &str| {
        let path = format!("src/llm/providers/{name}.rs");
        let list = Source::rust("src/llm/providers/mod.rs", list);
        providers(&[list, Source::rust(&path, text)])
    };
    assert_tidy(with("a", "", list));
    assert_eq!(with("b", "", list).len(), 2);
    assert_eq!(with("a", "", "pub mod a;\n\nproviders! {\n}\n").len(), 1);
    let both = "pub mod a;\npub mod b;\n\nproviders! {\n    A => a::A,\n    B => b::B,\n}\n";
    let both = Source::rust("src/llm/providers/mod.rs", both);
    let a = Source::rust("src/llm/providers/a.rs", "use super::b::B;");
    let b = Source::rust("src/llm/providers/b.rs", "");
    assert_eq!(providers(&[both, a, b]).len(), 1);

    let all = CASES
        .iter()
        .flat_map(|case| [".in", ".out"].map(|end| format!("tests/fixtures/a/{case}{end}")));
    let all: Vec<String> = all.collect();
    let has = |text: &str, all: &[String]| {
        cases(&[Source::rust("src/llm/providers/a.rs", text)], all).len()
    };
    assert_eq!((has("", &all), has("", &all[1..]), has("", &[])), (0, 1, CASES.len()));
    assert_eq!(has("const SENDS: bool = false;", &[]), 0);

    let home = || Source::rust("src/base/limits.rs", "pub const A: u8 = 1;\npub const B: u8 = A;");
    let user = |text: &str| Source::rust("src/wire/x.rs", text);
    assert_eq!(limits(&[home(), user("limits::A")]).len(), 1);
    assert_eq!(limits(&[home(), user("limits::A + limits::AB // limits::B")]).len(), 1);
    assert_tidy(limits(&[home(), user("limits::A.max(B)")]));

    let home = || Source::rust("src/config/mod.rs", "pub struct Server {\n    pub cores: u16,\n}");
    let user = |text: &str| Source::rust("src/net/x.rs", text);
    assert_eq!(settings(&[home(), user("server.cores_max // server.cores")]).len(), 1);
    assert_tidy(settings(&[home(), user("server.cores")]));

    let names = [String::from("httparse")];
    wakes(|s| dependencies_used(s, &names), "src/a.rs", "// httparse", "httparse::parse()");
}

#[test]
fn the_rule_on_credentials_wakes() {
    for (bad, good) in [
        ("struct A {\n    pub key: String,\n}", "struct A {\n    pub key: Secret,\n}"),
        ("struct A {\n    keys: Vec<String>,\n}", "struct A {\n    keys: Vec<Secret>,\n}"),
        (
            "struct A {\n    api_key: Option<Vec<u8>>,\n}",
            "struct A {\n    key_id: Option<String>,\n}",
        ),
        ("struct A {\n    access_token: Arc<str>,\n}", "struct A {\n    tokens: u32,\n}"),
    ] {
        wakes(credentials, "src/config/x.rs", bad, good);
    }
}

#[test]
fn the_rules_on_files_wake() {
    let long = "a;\n".repeat(LINES_MAX + 1);
    let short = "a;\n\n".repeat(LINES_MAX);
    wakes(|s| sizes(s, &[]), "src/a.rs", &long, &short);
    wakes(|s| sizes(s, &[("src/a.rs", "why")]), "src/a.rs", &short, &long);
    let tests = format!("#[cfg(test)]\nmod tests {{\n{long}}}\n");
    assert_tidy(sizes(&made("src/a.rs", &tests), &[]));
    assert_eq!(sizes(&made("src/a.rs", ""), &[("src/b.rs", "why")]).len(), 1);

    let long = format!("pub fn a() {{\n{}}}\nfn b() {{}}\n", "a;\n".repeat(FUNCTION_LINES_MAX));
    let short = format!("pub fn a() {{\n{}}}\n", "a;\n".repeat(FUNCTION_LINES_MAX - 2));
    wakes(functions, "src/a.rs", &long, &short.repeat(2));

    let child = || Source::rust("src/base/x.rs", "");
    let parent = |text: &str| Source::rust("src/base/mod.rs", text);
    let lib = || Source::rust("src/lib.rs", "pub mod base;");
    assert_eq!(orphans(&[lib(), parent("// mod x;"), child()]).len(), 1);
    assert_tidy(orphans(&[lib(), parent("pub mod x;"), child()]));
}

#[test]
fn the_rules_on_words_wake() {
    let mark = ["TO", "DO"].concat();
    let known = [String::from("0001")];
    let rule = |sources: &[Source]| unfinished(sources, &[], &known);
    let later = format!("// {mark} later");
    wakes(rule, "src/a.rs", &later, &format!("// {mark} (0001) later, MASTO"));
    assert_eq!(unfinished(&[], &page("README.md", &later), &known).len(), 1);
    wakes(rule, "src/a.rs", &format!("{}!(x)", ["db", "g"].concat()), "a_dbg(x)");
    wakes(patience, "tests/a.rs", "std::thread::sleep(a)", "// thread::sleep");
    wakes(patience, "src/a.rs", "#[ignore]\nfn a() {}", "fn ignore() {}");
}

#[test]
fn the_rules_on_pages_wake() {
    let two = |a: &str, b: &str| {
        let text = |path: &str| format!("# {}: title\n", &path[..4]);
        vec![(a.to_owned(), text(a)), (b.to_owned(), text(b))]
    };
    let index = "[a](0001-a.md) [b](0002-b.md)";
    assert_tidy(decisions(&two("0001-a.md", "0002-b.md"), index));
    assert_eq!(decisions(&two("0001-a.md", "0002-c.md"), index).len(), 1);
    assert!(!decisions(&two("0001-a.md", "0003-b.md"), index).is_empty());
    assert_eq!(decisions(&page("0001-a.md", "# Title"), index).len(), 1);

    let here = "tests/tidy.rs";
    assert_tidy(references(&page("a.md", &format!("`{here}` `{here}::tree` `src/<name>.rs`"))));
    assert_eq!(
        references(&page("a.md", "see\n`src/no/such.rs`"))[0],
        "a.md:2: there is no src/no/such.rs"
    );
    let table = |shown: &str, points: &str| {
        let head = "## What is defended\n\n| a | b | c |\n| --- | --- | --- |\n";
        format!("{head}| x | y | {shown} |\n\n## What is not defended yet\n\n{points}")
    };
    let row = |shown: &str| defences("a.md", &table(shown, "- One. More.\n- Two.\n"));
    assert_tidy(row(&format!("`{here}::the_rules_on_pages_wake`")));
    assert_tidy(row("`scripts/fuzz`"));
    assert_eq!(row(&format!("`{here}::table`")), ["a.md: tests/tidy.rs::table is no test"]);
    assert_eq!(row("a lot of thought"), ["a.md: nothing shows: x"]);
    let twice = table("`scripts/fuzz`", "- One. More.\n- One, again.\n");
    assert_eq!(defences("a.md", &twice), ["a.md: said twice: One"]);
    let name = ["no", "where"].concat();
    assert_eq!(references(&page("a.md", &format!("`{here}::{name}`"))).len(), 1);
}
