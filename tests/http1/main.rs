//! The shipped reader of requests against a naive one (`naive.rs`), over requests that were damaged at
//! random from a seed: whatever the shipped one accepts, both understand alike, one request after another.
//!
//! `HTTP1_ROUNDS=1000000 cargo test --test http1` looks longer.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a test says what is wrong by failing"
)]

mod naive;

use firstbyte::base::rng::Rng;
use firstbyte::wire::http1::body::Body;
use firstbyte::wire::http1::head::{self, Framing, Method};

use naive::Read;

const MAX: usize = 4096;

/// What the shipped reader made of one request.
#[derive(PartialEq, Eq, Debug)]
struct Seen {
    method: Method,
    word: String,
    target: String,
    minor: u8,
    fields: Vec<(String, Vec<u8>)>,
    framing: naive::Framing,
    body: Vec<u8>,
}

/// Reads as the shell does: a head from bytes that come in pieces, then its body. `Ok(None)`: not over.
fn shipped(bytes: &[u8], step: usize) -> Result<Option<(Seen, usize)>, String> {
    let (mut looked, mut end) = (0, 0);
    let head = loop {
        end = (end + step).min(bytes.len());
        match head::parse_request_from(&bytes[..end], &mut looked, MAX) {
            Err(refusal) => return Err(format!("{refusal:?}")),
            Ok(Some(head)) => break head,
            Ok(None) if end == bytes.len() => return Ok(None),
            Ok(None) => {}
        }
    };
    let framing = match head.framing {
        Framing::None => naive::Framing::None,
        Framing::Length(length) => naive::Framing::Length(length),
        Framing::Chunked => naive::Framing::Chunked,
        Framing::UntilClose => return Err("a request until close".to_owned()),
    };
    let (mut decoder, mut body, mut at) = (Body::new(head.framing), Vec::new(), head.len);
    while !decoder.is_done() {
        if at == bytes.len() {
            return Ok(None);
        }
        let mut piece = bytes[at..(at + step).min(bytes.len())].to_vec();
        let decoded = decoder.decode(&mut piece).map_err(|fault| format!("{fault:?}"))?;
        body.extend_from_slice(&piece[..decoded.payload]);
        at += decoded.used;
    }
    let text = |span: &[u8]| String::from_utf8_lossy(span).into_owned();
    let start = bytes.iter().position(|b| !b"\r\n".contains(b)).unwrap();
    let word = bytes[start..].split(|b| *b == b' ').next().unwrap();
    let fields = head
        .fields
        .iter()
        .map(|field| (text(field.name.of(bytes)).to_lowercase(), field.value.of(bytes).to_vec()));
    let seen = Seen {
        method: head.method,
        word: text(word),
        target: text(head.target.of(bytes)),
        minor: head.minor,
        fields: fields.collect(),
        framing,
        body,
    };
    Ok(Some((seen, at)))
}

/// Both readers over all of `bytes`. Gives how many requests both took.
fn compare(bytes: &[u8], step: usize) -> usize {
    let (mut at, mut count) = (0, 0);
    let shown = || format!("{:?}", String::from_utf8_lossy(bytes));
    loop {
        let rest = &bytes[at..];
        let ours = shipped(rest, step);
        assert_eq!(shipped(rest, usize::MAX / 2), ours, "pieces of {step}: {}", shown());
        let theirs = naive::request(rest);
        match ours {
            // Strict where the naive one may be lenient.
            Err(_) => return count,
            Ok(None) => {
                assert!(!matches!(theirs, Read::Whole(..)), "{theirs:?} is not over: {}", shown());
                return count;
            }
            Ok(Some((seen, used))) => {
                let Read::Whole(request, took) = theirs else {
                    panic!("{seen:?} was taken, {theirs:?}: {}", shown())
                };
                let known =
                    if seen.method == Method::Other { &seen.word } else { seen.method.name() };
                assert_eq!((known, &seen.word), (request.method.as_str(), &request.method));
                assert_eq!(seen.target, request.target, "{}", shown());
                assert_eq!(seen.minor, request.minor, "{}", shown());
                assert_eq!(seen.fields, request.fields, "{}", shown());
                assert_eq!(seen.framing, request.framing, "{}", shown());
                assert_eq!(seen.body, request.body, "{}", shown());
                assert_eq!(used, took, "{}", shown());
                at += used;
            }
        }
        count += 1;
    }
}

const REQUESTS: &[&str] = &[
    "GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 7\r\n\r\n{\"a\":1}",
    "POST /v1/x?y=%20z HTTP/1.1\r\nHost: a:80\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n5;x=\"y z\"\r\n\r\nGET\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: Chunked\r\n\r\n1\r\nx\r\n0\r\nA: b\r\n\r\n",
    "GET http://b/v1/models?x HTTP/1.1\r\nHost: a\r\n\r\n",
    "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "POST /old HTTP/1.0\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nabc",
    "PURGE /a HTTP/1.1\r\nHost: [::1]\r\nExpect: 100-continue\r\nX: a, b\t\r\n\r\n",
    "POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 34\r\n\r\nGET /evil HTTP/1.1\r\nHost: evil\r\n\r\n",
];

const PIECES: &[&str] = &[
    "\r\n",
    "\r",
    "\n",
    " ",
    "\t",
    ":",
    ";",
    ",",
    "=",
    "\"",
    "\\",
    "\0",
    "\x0b",
    "\x7f",
    "%",
    "%2f",
    "#",
    "0",
    "1",
    "5",
    "+",
    "-",
    "0x",
    "A",
    "chunked",
    "identity",
    "gzip, ",
    "\r\n\r\n",
    "0\r\n\r\n",
    "\r\n ",
    "Host: b\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "Content-Length: 5, 5\r\n",
    " : ",
    "HTTP/1.1",
    "HTTP/1.0",
    "http://",
    "/",
    "@",
    "*",
    "é",
    "GET / HTTP/1.1\r\n",
    ";a=b",
    "ffffffff",
];

/// Damages bytes in up to four places.
fn damage(bytes: &mut Vec<u8>, rng: &mut Rng) {
    let mut below = |n: usize| rng.below(n as u32) as usize;
    for _ in 0..below(4) {
        let (at, to) = (below(bytes.len()), below(bytes.len()));
        match below(7) {
            0 => drop(bytes.remove(at)),
            1 => bytes[at] = below(256) as u8,
            2 | 3 => drop(bytes.splice(at..at, PIECES[below(PIECES.len())].bytes())),
            4 => {
                let end = (at + 1 + below(4)).min(bytes.len());
                drop(bytes.splice(at..end, PIECES[below(PIECES.len())].bytes()));
            }
            5 => {
                // A line comes twice, or a piece of one somewhere else.
                let end = bytes[at..]
                    .iter()
                    .position(|b| *b == b'\n')
                    .map_or(bytes.len(), |n| at + n + 1);
                let piece = bytes[at..end].to_vec();
                drop(bytes.splice(to..to, piece));
            }
            _ => bytes[at] = bytes[at].wrapping_add(if below(2) == 0 { 1 } else { 0xff }),
        }
    }
}

#[test]
fn the_naive_reader_reads() {
    for text in REQUESTS {
        assert_eq!(compare(text.as_bytes(), 1), 1, "{text}");
        assert_eq!(compare([*text, *text].concat().as_bytes(), 3), 2, "{text}");
    }
}

/// Found by fuzzing: two quoted strings side by side, and white space at the end, passed as extensions.
#[test]
fn the_naive_reader_takes_extensions_by_their_grammar() {
    let good: [&[u8]; 8] = [
        b"",
        b";a",
        b" ; a",
        b";a=b;c",
        b";a = b\t;c",
        b";a=\"\"",
        b";a=\"b;\\\"c\"",
        b";a=\"b\\\\\";c",
    ];
    let bad: [&[u8]; 10] = [
        b"a",
        b";",
        b";a;",
        b";a ",
        b";a=b\t",
        b";a=",
        b";a=\"",
        b";a=\"b\"\"c\"",
        b";a=\"b\"c",
        b";a=\"b\\\"",
    ];
    for text in good {
        assert!(naive::is_extensions(text), "{}", String::from_utf8_lossy(text));
    }
    for text in bad {
        assert!(!naive::is_extensions(text), "{}", String::from_utf8_lossy(text));
    }
}

#[test]
fn what_is_accepted_has_one_meaning() {
    let rounds = std::env::var("HTTP1_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(60_000);
    let (mut taken, mut pairs) = (0, 0);
    for seed in 0..rounds {
        let mut rng = Rng::new(seed);
        let mut bytes = Vec::new();
        for _ in 0..1 + rng.below(3) {
            let mut request =
                REQUESTS[rng.below(REQUESTS.len() as u32) as usize].as_bytes().to_vec();
            damage(&mut request, &mut rng);
            bytes.extend(request);
        }
        let step = 1 + rng.below(40) as usize;
        let count = compare(&bytes, step);
        taken += u64::from(count > 0);
        pairs += u64::from(count > 1);
    }
    println!("{rounds} rounds: {taken} began with a request that was taken, {pairs} with two");
    assert!(taken * 5 > rounds && pairs * 20 > rounds, "the damage is too great to test anything");
}
