//! Reading the tree for the rules: files, and of Rust files three views of the same length, so that
//! a line number means the same in each.
//!
//! ```text
//!   text   let a = "// no"; // yes     as it is
//!   code   let a = "     ";            comments, and what stands in quotes, are blanks
//!   shipped                            code without what stands under #[cfg(test)]
//! ```

use std::fs;
use std::path::{Path, PathBuf};

/// One file of the tree.
pub struct Source {
    /// Its path from the root, with `/`.
    pub path: String,
    /// As it is.
    pub text: String,
    /// Without comments and without what stands in quotes.
    pub code: String,
    /// `code` without tests.
    pub shipped: String,
}

impl Source {
    /// A Rust file of that text.
    pub fn rust(path: &str, text: &str) -> Source {
        let code = blank(text);
        let shipped = if is_test_file(path) { spaces(&code) } else { without_tests(&code) };
        Source { path: path.to_owned(), text: text.to_owned(), code, shipped }
    }

    /// The floor that it belongs to: the folder under `src`.
    pub fn floor(&self) -> Option<&str> {
        let (floor, _) = self.path.strip_prefix("src/")?.split_once('/')?;
        Some(floor)
    }

    /// Lines with something on them that a test doesn't own.
    pub fn shipped_lines(&self) -> usize {
        self.text
            .lines()
            .zip(self.shipped.lines())
            .zip(self.code.lines())
            .filter(|((text, shipped), code)| {
                let own = code.trim().is_empty() || !shipped.trim().is_empty();
                !text.trim().is_empty() && own
            })
            .count()
    }

    /// The words of `shipped` with their lines, from 1. A word is a path: `crate::wire::Span`.
    pub fn paths(&self) -> Vec<(usize, String)> {
        words(&self.shipped)
    }
}

/// The words of code, paths kept together, with their lines from 1.
pub fn words(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let in_word = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
        let words = line.split(|c| !in_word(c)).map(|word| word.trim_matches(':'));
        found.extend(words.filter(|w| !w.is_empty()).map(|w| (index + 1, w.to_owned())));
    }
    found
}

/// Every Rust file under these folders, in the order of their paths.
pub fn rust_files(folders: &[&str]) -> Vec<Source> {
    let mut sources: Vec<Source> = files(folders)
        .into_iter()
        .filter(|path| path.ends_with(".rs"))
        .map(|path| Source::rust(&path, &read(&path)))
        .collect();
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(!sources.is_empty(), "no Rust file under {folders:?}");
    sources
}

/// Every file under these folders (or a file of that name), as paths from the root, sorted.
pub fn files(folders: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(path) = open.pop() {
        if path.is_dir() {
            if matches!(path.file_name().and_then(|n| n.to_str()), Some("target" | "node_modules"))
            {
                continue;
            }
            let entries = fs::read_dir(&path).unwrap();
            open.extend(entries.map(|entry| entry.unwrap().path()));
        } else if path.is_file() {
            found.push(path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned());
        }
    }
    found.sort();
    found
}

/// The text of a file of the tree.
pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|why| panic!("{path}: {why}"))
}

/// Whether there is such a file or folder.
pub fn exists(path: &str) -> bool {
    root().join(path).exists()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn is_test_file(path: &str) -> bool {
    path.ends_with("/tests.rs") || path.contains("/tests/") || path.starts_with("tests/")
}

fn spaces(code: &str) -> String {
    code.chars().map(|c| if c == '\n' { '\n' } else { ' ' }).collect()
}

/// Blanks comments and the inside of quotes.
pub fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out: String = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = skip(&chars, at);
        if end > at + 1 {
            let quotes = matches!(chars[at], '"' | 'r' | 'b' | 'c' | '\'');
            for (index, c) in chars[at..end].iter().enumerate() {
                let edge = index == 0 || index == end - at - 1;
                let keep = *c == '\n' || (quotes && edge);
                out.push(if keep { *c } else { ' ' });
            }
            at = end;
        } else {
            out.push(chars[at]);
            at += 1;
        }
    }
    out
}

/// The end of the comment or literal that begins at `at`; `at + 1` if none does.
fn skip(chars: &[char], at: usize) -> usize {
    let here = |offset: usize| chars.get(at + offset).copied().unwrap_or('\0');
    let starts_word = at == 0 || !(chars[at - 1].is_alphanumeric() || chars[at - 1] == '_');
    match here(0) {
        '/' if here(1) == '/' => find(chars, at, |i| chars[i] == '\n'),
        '/' if here(1) == '*' => block_end(chars, at),
        '"' => string_end(chars, at),
        'b' | 'c' if starts_word && here(1) == '"' => string_end(chars, at + 1),
        'b' if starts_word && here(1) == '\'' => skip(chars, at + 1),
        'r' | 'b' | 'c' if starts_word => raw_end(chars, at).unwrap_or(at + 1),
        '\'' if here(1) == '\\' => find(chars, at + 3, |i| chars[i] == '\'') + 1,
        '\'' if here(2) == '\'' => at + 3,
        _ => at + 1,
    }
}

fn find(chars: &[char], from: usize, ends: impl Fn(usize) -> bool) -> usize {
    (from..chars.len()).find(|i| ends(*i)).unwrap_or(chars.len())
}

fn string_end(chars: &[char], quote: usize) -> usize {
    let mut at = quote + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    (at + 1).min(chars.len())
}

/// `r"..."`, `br#"..."#`.
fn raw_end(chars: &[char], at: usize) -> Option<usize> {
    let r = if chars[at] == 'r' { at } else { at + 1 };
    let hashes = chars.get(r + 1..)?.iter().take_while(|c| **c == '#').count();
    if chars.get(r) != Some(&'r') || chars.get(r + 1 + hashes) != Some(&'"') {
        return None;
    }
    let closes = |i: usize| {
        chars[i] == '"'
            && chars[i + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
    };
    Some(find(chars, r + 2 + hashes, closes) + 1 + hashes)
}

/// Block comments nest.
fn block_end(chars: &[char], at: usize) -> usize {
    let (mut depth, mut i) = (0usize, at);
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    chars.len()
}

/// Blanks each item that stands under `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    let mut out = code.to_owned();
    while let Some(start) = out.find("#[cfg(test)]") {
        let end = item_end(&out, start + "#[cfg(test)]".len());
        let blanked = spaces(&out[start..end]);
        out.replace_range(start..end, &blanked);
    }
    out
}

/// Where the item after `from` ends: at its closing brace, or at a semicolon before any brace.
pub fn item_end(code: &str, from: usize) -> usize {
    let mut depth = 0usize;
    for (offset, c) in code[from..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth <= 1 => return from + offset + 1,
            '}' => depth -= 1,
            ';' if depth == 0 => return from + offset + 1,
            _ => {}
        }
    }
    code.len()
}

#[test]
fn comments_and_quotes_are_blank_and_nothing_else_is() {
    for (text, code) in [
        ("a // b\nc", "a     \nc"),
        ("a /* b /* c */ d */ e", "a                   e"),
        (r#"let a = "x\"y"; b"#, r#"let a = "    "; b"#),
        (r##"r#"a"b"# c"##, r##"r      # c"##),
        (r"'a' '\'' 'b: &'static c", r"' ' '  ' 'b: &'static c"),
        (r#"b"unsafe" br"x" var"y""#, r#"b       " b   " var" ""#),
        ("for r in x { r }", "for r in x { r }"),
    ] {
        assert_eq!(blank(text), code, "{text}");
    }
}

#[test]
fn tests_are_not_shipped() {
    let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    fn b() { c }\n}\nfn d() {}\n";
    let source = Source::rust("src/base/x.rs", text);
    let shipped: Vec<&str> = source.shipped.split_whitespace().collect();
    assert_eq!(shipped, ["fn", "a()", "{}", "fn", "d()", "{}"]);
    assert_eq!(source.shipped_lines(), 2);
    assert_eq!(Source::rust("src/base/x/tests.rs", text).shipped.trim(), "");
    assert_eq!(words("use crate::a::{B, c::D};").len(), 4);
}
