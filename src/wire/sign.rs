//! AWS Signature Version 4: what a request is signed with, from the request itself, keys and the wall
//! clock. Source: "Create a signed AWS API request" in the IAM user guide.
//!
//! ```text
//!   POST                                    method
//!   /model/a.b-v1%253A0/converse            path as it is sent, encoded once more: %3A is %253A
//!                                           query, sorted
//!   content-type:application/json           fields, lower case, trimmed, sorted
//!   host:bedrock-runtime...
//!   x-amz-date:20240229T235959Z
//!
//!   content-type;host;x-amz-date            their names
//!   0a1b...                                 SHA-256 of the body
//! ```
//!
//! The hash of that text is signed under a key made of the secret, the day, the region and the service.
//! It never reads a clock, and what it returns holds the key's id but nothing of the secret. Of S3's own
//! rules (a path encoded once, unsigned bodies) it knows nothing. Dot segments are not resolved: callers
//! have none.

use std::fmt::Write as _;

use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};

use crate::base::secret::AwsKeys;
use crate::base::tick::UnixMs;

/// What is signed.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// In capitals.
    pub method: &'a str,
    /// As the request line has it, percent-encoded, without query.
    pub path: &'a str,
    /// After the question mark, percent-encoded; may be empty.
    pub query: &'a str,
    /// Names, in any case, and values of the fields to sign. `host` must be one of them; `x-amz-date` and
    /// `x-amz-security-token` are added here.
    pub fields: &'a [(&'a str, &'a [u8])],
    /// The body.
    pub body: &'a [u8],
}

/// For whom and when.
#[derive(Clone, Copy, Debug)]
pub struct Scope<'a> {
    /// As `us-east-1`.
    pub region: &'a str,
    /// As `bedrock`.
    pub service: &'a str,
    /// The time of the request; the service refuses one that is five minutes off.
    pub wall: UnixMs,
}

/// The fields that make a signed request of it; with a session token, `x-amz-security-token` too.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Signed {
    /// For `x-amz-date`.
    pub date: String,
    /// For `authorization`.
    pub authorization: String,
}

/// Signs a request.
pub fn sign(request: &Request<'_>, keys: &AwsKeys, scope: &Scope<'_>) -> Signed {
    let date = date(scope.wall);
    let day = &date[..DAY];
    let mut fields: Vec<(String, Vec<u8>)> =
        request.fields.iter().map(|(name, value)| canonical_field(name, value)).collect();
    fields.push(canonical_field("x-amz-date", date.as_bytes()));
    if let Some(token) = &keys.session_token {
        fields.push(canonical_field("x-amz-security-token", token.expose()));
    }
    fields.sort();
    debug_assert!(fields.iter().any(|(name, _)| name == "host"));
    let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
    let names = names.join(";");

    let mut hash = Sha256::new();
    for part in [request.method, "\n", &path(request.path), "\n", &query(request.query), "\n"] {
        hash.update(part);
    }
    for (name, value) in &fields {
        for part in [name.as_bytes(), b":", value, b"\n"] {
            hash.update(part);
        }
    }
    for part in ["\n", &names, "\n", &hex(&Sha256::digest(request.body))] {
        hash.update(part);
    }

    let Scope { region, service, .. } = scope;
    let place = format!("{day}/{region}/{service}/{END}");
    let text = format!("{ALGORITHM}\n{date}\n{place}\n{}", hex(&hash.finalize()));
    let mut key = mac(&[b"AWS4", keys.secret_key.expose()].concat(), day);
    for part in [*region, *service, END] {
        key = mac(&key, part);
    }
    let id = String::from_utf8_lossy(keys.access_key.expose());
    let signature = hex(&mac(&key, &text));
    let authorization = format!(
        "{ALGORITHM} Credential={id}/{place}, SignedHeaders={names}, Signature={signature}"
    );
    Signed { date, authorization }
}

/// One segment of a path, percent-encoded (RFC 3986, 2.3): `/` and `:` too.
pub fn encode_segment(segment: &str) -> String {
    encode(segment, b"")
}

fn encode(text: &str, kept: &[u8]) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || kept.contains(&byte) {
            out.push(char::from(byte));
        } else {
            // Writing to a String can't fail.
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

fn path(path: &str) -> String {
    if path.is_empty() { String::from("/") } else { encode(path, b"/") }
}

/// A name without a value gets an empty one.
fn query(query: &str) -> String {
    let mut pairs: Vec<(&str, &str)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .collect();
    pairs.sort_unstable();
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join("&")
}

/// The name in lower case, the value trimmed, runs of blanks in it made one.
fn canonical_field(name: &str, value: &[u8]) -> (String, Vec<u8>) {
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let words: Vec<&[u8]> =
        value.split(|byte| blank(byte)).filter(|word| !word.is_empty()).collect();
    (name.to_ascii_lowercase(), words.join(&b' '))
}

fn mac(key: &[u8], text: &str) -> [u8; 32] {
    // A key of any length will do, so the error is of the type alone.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().into()
}

fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        // Writing to a String can't fail.
        let _ = write!(out, "{byte:02x}");
    }
    out
}

/// `20240229T235959Z`.
fn date(wall: UnixMs) -> String {
    let seconds = wall.0 / 1000;
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

/// Year, month and day of a day since 1970, by the Gregorian calendar. Years begin in March here, so that
/// the leap day is the last one.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + DAYS_BEFORE_1970;
    let (era, day) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
    (era * 400 + year + next, month, day)
}

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const END: &str = "aws4_request";
/// Letters of a date that name the day.
const DAY: usize = 8;
/// From the first of March of the year 0.
const DAYS_BEFORE_1970: u64 = 719_468;
const DAYS_OF_400_YEARS: u64 = 146_097;

#[cfg(test)]
mod tests;
