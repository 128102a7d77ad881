//! Raw cases from tables: what a client may send (`requests.txt`), what a provider may answer
//! (`answers.txt`), octet by octet over real sockets, and what must come of it.

mod answers;
mod requests;

/// A line of a table, ready to be played.
pub struct Case {
    /// Where it stands.
    pub line: usize,
    /// The words of its expectation.
    pub want: Vec<String>,
    /// What is played, with its macros.
    pub text: String,
}

/// What a played text does, one after another.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    Send(Vec<u8>),
    /// `<word>` of those that are no octets.
    Do(String),
}

/// Reads a table; its grammar stands at its head.
pub fn cases(table: &str) -> Vec<Case> {
    let mut cases = Vec::new();
    let (mut want, mut template) = (String::new(), String::from("{}"));
    for (at, text) in table.lines().enumerate() {
        if text.is_empty() || text.starts_with("# ") || text == "#" || text.starts_with("## ") {
            continue;
        }
        if let Some(header) = text.strip_prefix("== ") {
            let words: Vec<_> = header.splitn(3, ' ').collect();
            want = format!("{} {}", words[0], words[1]);
            template = words[2].to_owned();
            continue;
        }
        let (own, text) = match text.strip_prefix('[').and_then(|text| text.split_once("] ")) {
            Some((own, text)) if own.contains(' ') => (own.to_owned(), text),
            _ => (want.clone(), text),
        };
        let parts = match text.strip_prefix('%') {
            Some(ranges) => octets(ranges),
            None => vec![text.to_owned()],
        };
        for part in parts {
            cases.push(Case {
                line: at + 1,
                want: own.split(' ').map(str::to_owned).collect(),
                text: template.replacen("{}", &part, 1),
            });
        }
    }
    cases
}

fn octets(ranges: &str) -> Vec<String> {
    let hex = |text: &str| u8::from_str_radix(text, 16).expect(text);
    let ranges = ranges.split(',').map(|range| range.split_once('-').unwrap_or((range, range)));
    ranges.flat_map(|(a, b)| (hex(a)..=hex(b)).map(|octet| format!("\\x{octet:02x}"))).collect()
}

/// Expands a text; `known` gives the octets of a macro.
pub fn steps(text: &str, known: &dyn Fn(&str) -> Option<Vec<u8>>) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut octets = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        rest = &rest[first.len_utf8()..];
        match first {
            '\\' => {
                let (octet, used) = escaped(rest);
                octets.push(octet);
                rest = &rest[used..];
            }
            '<' => {
                let end = closing(rest);
                let name = &rest[..end];
                rest = &rest[end + 1..];
                if let Some((count, text)) = name.strip_prefix('*').and_then(|n| n.split_once(':'))
                {
                    let once = self::steps(text, known);
                    for _ in 0..count.parse().expect(count) {
                        for step in &once {
                            match step {
                                Step::Send(more) => octets.extend(more),
                                Step::Do(_) => {
                                    steps.push(Step::Send(std::mem::take(&mut octets)));
                                    steps.push(step.clone());
                                }
                            }
                        }
                    }
                } else if let Some(known) = known(name) {
                    octets.extend(known);
                } else {
                    steps.push(Step::Send(std::mem::take(&mut octets)));
                    steps.push(Step::Do(name.to_owned()));
                }
            }
            other => octets.extend(other.to_string().bytes()),
        }
    }
    steps.push(Step::Send(octets));
    steps.retain(|step| *step != Step::Send(Vec::new()));
    steps
}

/// The octet of an escape, and how many letters it took.
fn escaped(text: &str) -> (u8, usize) {
    match text.as_bytes()[0] {
        b'r' => (b'\r', 1),
        b'n' => (b'\n', 1),
        b't' => (b'\t', 1),
        b'0' => (0, 1),
        b'x' => (u8::from_str_radix(&text[1..3], 16).expect(text), 3),
        other => (other, 1),
    }
}

/// Where the `>` of a `<` is.
fn closing(text: &str) -> usize {
    let mut depth = 0;
    for (at, letter) in text.char_indices() {
        match letter {
            '<' => depth += 1,
            '>' if depth == 0 => return at,
            '>' => depth -= 1,
            _ => {}
        }
    }
    panic!("no end of a macro in {text:?}")
}
