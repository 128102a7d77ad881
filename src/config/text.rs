//! The small grammars of the config: durations, sizes, commit policies, URLs, references, names. Pure
//! functions from text to a value or to what is wrong with it; none of them echoes what could be a
//! secret.

use super::{BaseUrl, Commit, Ref};
use crate::base::tick::Ms;

/// What is wrong with a value, and what to write instead.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) what: String,
    pub(super) hint: String,
}

impl Wrong {
    pub(super) fn new(what: impl Into<String>, hint: impl Into<String>) -> Wrong {
        Wrong { what: what.into(), hint: hint.into() }
    }
}

pub(super) const DURATION_HINT: &str = "write a whole number with ms, s, m or h, as in \"250ms\"";
pub(super) const SIZE_HINT: &str =
    "write a whole number with B, KiB, MiB or GiB, as in \"64KiB\", below 4GiB";

/// `250ms`, `2s`, `5m`, `1h`: a whole number and a unit, below 49 days. Zero is a duration here.
pub(super) fn duration(value: &str) -> Result<Ms, Wrong> {
    let wrong = || Wrong::new(format!("{value:?} is not a duration"), DURATION_HINT);
    let (number, unit) = split_number(value).ok_or_else(wrong)?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    // Ms::MAX means "never", so it can't be written.
    match number.checked_mul(unit_ms).map(u32::try_from) {
        Some(Ok(ms)) if ms < u32::MAX => Ok(Ms(ms)),
        Some(_) | None => {
            Err(Wrong::new(format!("{value:?} is too long"), "the longest duration is 49 days"))
        }
    }
}

/// `64KiB`, `32MiB`, `512B`: a whole number and a binary unit, in bytes, below 4 GiB.
pub(super) fn size(value: &str) -> Result<u32, Wrong> {
    let too_large = |_| Wrong::new(format!("{value:?} is too large"), SIZE_HINT);
    u32::try_from(large_size(value)?).map_err(too_large)
}

/// The same without that limit.
pub(super) fn large_size(value: &str) -> Result<u64, Wrong> {
    let wrong = || Wrong::new(format!("{value:?} is not a size"), SIZE_HINT);
    let (number, unit) = split_number(value).ok_or_else(wrong)?;
    let unit_bytes = match unit {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err(wrong()),
    };
    let too_large = || Wrong::new(format!("{value:?} is too large"), SIZE_HINT);
    number.checked_mul(unit_bytes).ok_or_else(too_large)
}

/// Decimal digits, then the rest, which is not trimmed.
fn split_number(value: &str) -> Option<(u64, &str)> {
    let digits = value.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = value.split_at(digits);
    Some((number.parse().ok()?, unit))
}

/// The text forms of a commit policy; see [`Commit::parse`].
pub(super) fn commit(value: &str) -> Result<Commit, String> {
    match value.trim() {
        "headers" => Ok(Commit::Headers),
        "first_event" => Ok(Commit::FirstEvent),
        "first_content" => Ok(Commit::FirstContent),
        "complete" => Ok(Commit::Complete),
        other => tokens(other).ok_or_else(|| COMMIT_FORMS.to_owned()),
    }
}

pub(super) const COMMIT_FORMS: &str =
    "expected headers, first_event, first_content, complete or tokens=8,within=500ms";

fn tokens(value: &str) -> Option<Commit> {
    let (first, second) = value.split_once(',')?;
    let count = pair(first, "tokens")?;
    let count = if count.starts_with('+') { None } else { count.parse::<u16>().ok() };
    let within = duration(pair(second, "within")?).ok()?;
    match count {
        Some(count) if count > 0 && within > Ms(0) => Some(Commit::Tokens { count, within }),
        Some(_) | None => None,
    }
}

fn pair<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (left, right) = text.split_once('=')?;
    (left.trim() == name).then(|| right.trim())
}

/// `env:NAME` or `file:PATH`, both not empty. `None` for anything else, which may be a secret.
pub(super) fn reference(value: &str) -> Option<Ref> {
    match value.split_once(':') {
        Some(("env", name)) if is_variable(name) => Some(Ref::Env(name.to_owned())),
        Some(("file", path)) if !path.is_empty() => Some(Ref::File(path.to_owned())),
        Some(_) | None => None,
    }
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// A base URL. Neither query nor user, and the URL itself is never echoed: people put keys in both.
pub(super) fn base_url(value: &str) -> Result<BaseUrl, Wrong> {
    let wrong = |what: &str| Wrong::new(what, "as in \"https://api.openai.com/v1\"");
    let (scheme, rest) = value.split_once("://").ok_or_else(|| wrong("not a URL"))?;
    let tls = match scheme.to_ascii_lowercase().as_str() {
        "https" => true,
        "http" => false,
        _ => return Err(wrong("only http and https are spoken")),
    };
    if rest.contains(['?', '#']) {
        return Err(wrong("a base URL has no query and no fragment"));
    }
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err(wrong("a base URL has no user; give the credential as key"));
    }
    if !path.bytes().all(is_path_byte) || path.split('/').any(|s| s == "." || s == "..") {
        return Err(wrong("the path has a character or segment that may not stand there"));
    }
    let (host, port) = host_port(authority).ok_or_else(|| wrong("host or port is not valid"))?;
    let port = port.unwrap_or(if tls { 443 } else { 80 });
    Ok(BaseUrl { tls, host, port, path: path.trim_end_matches('/').to_owned() })
}

/// RFC 3986 section 3.3: pchar and the slash.
fn is_path_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@%/".contains(&byte)
}

fn host_port(authority: &str) -> Option<(String, Option<u16>)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, rest) = rest.split_once(']')?;
            let address: std::net::Ipv6Addr = address.parse().ok()?;
            (
                address.to_string(),
                if rest.is_empty() { None } else { rest.strip_prefix(':').or(Some("x")) },
            )
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host.to_ascii_lowercase(), Some(port)),
            None => (authority.to_ascii_lowercase(), None),
        },
    };
    let host_ok = host.contains(':') || is_host_name(&host);
    let port = match port {
        None => None,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => {
            Some(digits.parse().ok().filter(|port: &u16| *port != 0)?)
        }
        Some(_) => return None,
    };
    host_ok.then_some((host, port))
}

/// RFC 1123 labels, with underscores, which container networks use.
fn is_host_name(host: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    host.len() <= 253 && host.split('.').all(label)
}

/// 64 hex digits.
pub(super) fn sha256(value: &str) -> Option<[u8; 32]> {
    let digits = value.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut hash = [0; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = (high << 4 | low) as u8;
    }
    Some(hash)
}

/// Names of models, upstream or ours, go into response headers and label values: visible ASCII, but for
/// what separates there.
pub(super) fn is_model_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 256
        && name.bytes().all(|b| b.is_ascii_graphic() && !b";,\"\\".contains(&b))
}

/// Names of providers and keys.
pub(super) fn is_plain_name(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 64
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
}

/// The candidate that was probably meant: at most a third of the letters wrong, the first of the
/// nearest.
pub(super) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let limit = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(far, _)| *far <= limit)
        .min_by_key(|(far, _)| *far)
        .map(|(_, candidate)| candidate)
}

/// Edits between two words: insertions, deletions, replacements, and swaps of neighbours. Only the
/// first 64 letters count, which bounds the work.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(64).collect();
    let b: Vec<char> = b.chars().take(64).collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(before[j - 2] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        let good = [("0s", 0), ("250ms", 250), ("2s", 2_000), ("5m", 300_000), ("1h", 3_600_000)];
        for (text, ms) in good {
            assert_eq!(duration(text), Ok(Ms(ms)), "{text}");
        }
        for text in ["", "5", "s", "1.5s", "-1s", "+1s", " 1s", "1 s", "1S", "1d", "2s2s", "²s"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(duration("4294967294ms"), Ok(Ms(u32::MAX - 1)));
        for text in ["4294967295ms", "1194h", "99999999999999999999s", "18446744073709551615h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn sizes() {
        let good = [("1B", 1), ("64KiB", 65_536), ("32MiB", 33_554_432), ("3GiB", 3_221_225_472)];
        for (text, bytes) in good {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "64", "64KB", "64kib", "4GiB", "1.5MiB", "64 KiB", "-1B", "KiB"] {
            assert!(size(text).is_err(), "{text}");
        }
        assert_eq!(large_size("64GiB"), Ok(64 << 30));
        assert!(large_size("18446744073709551615KiB").is_err());
    }

    #[test]
    fn commit_policies() {
        let tokens = |count, within| Ok(Commit::Tokens { count, within: Ms(within) });
        assert_eq!(commit("headers"), Ok(Commit::Headers));
        assert_eq!(commit("first_event"), Ok(Commit::FirstEvent));
        assert_eq!(commit(" first_content "), Ok(Commit::FirstContent));
        assert_eq!(commit("complete"), Ok(Commit::Complete));
        assert_eq!(commit("tokens=8,within=500ms"), tokens(8, 500));
        assert_eq!(commit("tokens = 1 , within = 2s"), tokens(1, 2_000));
        for text in [
            "",
            "Headers",
            "tokens",
            "tokens=8",
            "tokens=0,within=1s",
            "tokens=8,within=0s",
            "within=1s,tokens=8",
            "tokens=65536,within=1s",
            "tokens=+8,within=1s",
            "tokens=8,within=1s,x=1",
            "tokens=8;within=1s",
        ] {
            assert!(commit(text).is_err(), "{text}");
        }
    }

    #[test]
    fn base_urls() {
        let url = |tls, host: &str, port, path: &str| {
            Ok(BaseUrl { tls, host: host.into(), port, path: path.into() })
        };
        assert_eq!(base_url("https://api.openai.com/v1"), url(true, "api.openai.com", 443, "/v1"));
        assert_eq!(base_url("HTTP://Local_Host:8000/"), url(false, "local_host", 8000, ""));
        assert_eq!(base_url("http://127.0.0.1"), url(false, "127.0.0.1", 80, ""));
        assert_eq!(base_url("http://[::1]:81/a/b//"), url(false, "::1", 81, "/a/b"));
        assert_eq!(base_url("https://h/a%20b"), url(true, "h", 443, "/a%20b"));
        for text in [
            "",
            "api.openai.com",
            "ftp://h/",
            "https://",
            "https:///v1",
            "https://u:p@h/",
            "https://h?k=1",
            "https://h/#f",
            "https://h:0/",
            "https://h:65536",
            "https://h:",
            "https://h:+1",
            "https://[::1",
            "https://[::1]x",
            "https://[h]",
            "https://-h",
            "https://a..b",
            "https://h/a b",
            "https://h/a\r\nb",
            "https://h/../x",
            "https://h\u{e9}/",
        ] {
            let wrong = base_url(text).expect_err(text);
            assert!(text.len() < 9 || !wrong.what.contains(text), "{text}");
        }
    }

    #[test]
    fn authorities() {
        let authority = |text| base_url(text).map(|url| url.authority());
        assert_eq!(authority("https://h/v1"), Ok("h".into()));
        assert_eq!(authority("https://h:80/v1"), Ok("h:80".into()));
        assert_eq!(authority("http://[::1]:8000"), Ok("[::1]:8000".into()));
    }

    #[test]
    fn references_and_hashes() {
        assert_eq!(reference("env:A_1"), Some(Ref::Env("A_1".into())));
        assert_eq!(reference("file:/run/key"), Some(Ref::File("/run/key".into())));
        for text in ["", "env:", "file:", "sk-abc", "env:A B", "ENV:A", "https://x"] {
            assert_eq!(reference(text), None, "{text}");
        }
        assert_eq!(sha256(&"0f".repeat(32)), Some([15; 32]));
        assert_eq!(sha256(&"F0".repeat(32)), Some([0xF0; 32]));
        for text in ["", &"0".repeat(63), &"0".repeat(65), &"0g".repeat(32), &"é".repeat(32)] {
            assert_eq!(sha256(text), None, "{text}");
        }
    }

    #[test]
    fn the_nearest_name() {
        let names = ["openai", "azure", "anthropic"];
        assert_eq!(nearest("opnai", names), Some("openai"));
        assert_eq!(nearest("oepnai", names), Some("openai"));
        assert_eq!(nearest("azur", names), Some("azure"));
        assert_eq!(nearest("bedrock", names), None);
        assert_eq!(nearest("", names), None);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("", "abc"), 3);
    }
}
