//! What the hot paths cost in instructions: each case runs so often as it is told, under callgrind, and
//! two runs of different length give the cost of one. `scripts/instructions` does that, prints the
//! table and compares it with the record.
//!
//! ```text
//!   instr list            the cases
//!   instr CASE COUNT      runs one
//! ```

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs,
    reason = "a bench says what is wrong by failing"
)]

use std::hint::black_box;

use firstbyte::llm::request::{Ask, Surface};
use firstbyte::wire::http1::{body::Body, head};
use firstbyte::wire::{json, sse};

#[path = "../tests/play/mod.rs"]
mod play;

use play::{Play, streams};

const REQUEST: &[u8] = b"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway:8080\r\n\
    accept-encoding: gzip, deflate\r\nconnection: keep-alive\r\naccept: application/json\r\n\
    content-type: application/json\r\nuser-agent: AsyncOpenAI/Python 2.0.0\r\n\
    authorization: Bearer some-key\r\ncontent-length: 64\r\n\r\n";

const BODY: &[u8] = br#"{"model":"m","messages":[{"role":"system","content":"be brief"},{"role":"user","content":"hello there, how are you today?"}],"stream":true,"temperature":0.7}"#;

/// An event as OpenAI sends it, 270 bytes or so.
const EVENT: &[u8] = b"data: {\"id\":\"chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxYz012\",\"object\":\"chat.completion.chunk\",\
    \"created\":1750000000,\"model\":\"gpt-4o-2024-08-06\",\"service_tier\":\"default\",\
    \"system_fingerprint\":\"fp_0123456789\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"},\
    \"logprobs\":null,\"finish_reason\":null}]}\n\n";

/// A case runs `count` times.
type Case = (String, Box<dyn FnMut(usize)>);

fn main() {
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    let name = words.next().unwrap_or_else(|| String::from("list"));
    let count = words.next().map_or(1, |count| count.parse().unwrap());
    for (known, mut run) in cases() {
        if name == "list" {
            println!("{known}");
        } else if name == known {
            run(count);
        }
    }
}

fn cases() -> Vec<Case> {
    let mut all: Vec<Case> = Vec::new();
    let mut add = |name: &str, run: Box<dyn FnMut(usize)>| all.push((name.to_owned(), run));
    add(
        "floor: memchr over an event",
        Box::new(|count| {
            for _ in 0..count {
                black_box(memchr::memchr(b'\n', black_box(EVENT)));
            }
        }),
    );
    add(
        "floor: httparse on a head",
        Box::new(|count| {
            for _ in 0..count {
                let mut fields = [httparse::EMPTY_HEADER; 32];
                black_box(httparse::Request::new(&mut fields).parse(black_box(REQUEST)).unwrap());
            }
        }),
    );
    add(
        "head of a request",
        Box::new(|count| {
            for _ in 0..count {
                black_box(head::parse_request(black_box(REQUEST), 65_536).unwrap());
            }
        }),
    );
    add(
        "chunk of an event, decoded",
        Box::new(|count| {
            let mut chunk = format!("{:x}\r\n", EVENT.len()).into_bytes();
            chunk.extend_from_slice(EVENT);
            chunk.extend_from_slice(b"\r\n");
            let (mut body, mut bytes) = (Body::new(head::Framing::Chunked), chunk.clone());
            for _ in 0..count {
                bytes.copy_from_slice(&chunk);
                black_box(body.decode(black_box(&mut bytes)).unwrap().payload);
            }
        }),
    );
    add(
        "event found",
        Box::new(|count| {
            let mut scanner = sse::Scanner::new(1 << 20);
            for _ in 0..count {
                black_box(scanner.next(black_box(EVENT), false).unwrap());
            }
        }),
    );
    add(
        "event's JSON checked",
        Box::new(|count| {
            let payload = &EVENT[6..EVENT.len() - 2];
            for _ in 0..count {
                let mut top = json::Top::new();
                black_box(json::document_with_top(black_box(payload), &mut top).unwrap());
            }
        }),
    );
    add(
        "request's body read",
        Box::new(|count| {
            for _ in 0..count {
                black_box(Ask::read(Surface::Chat, black_box(BODY)).unwrap());
            }
        }),
    );
    add(
        "exchange of one event, passed",
        Box::new(|count| {
            for _ in 0..count {
                Play::new("openai").receive(EVENT);
            }
        }),
    );
    add("event relayed: openai", Box::new(|count| relay("openai", "", EVENT, count)));
    for (name, place) in [("told anew", 1), ("anthropic", 2), ("gemini", 3)] {
        let (kind, begin, event) = streams()[place];
        let event = format!("data: {event}\n\n").into_bytes();
        add(
            &format!("event relayed: {name}"),
            Box::new(move |count| {
                relay(kind, begin, &event, count);
            }),
        );
    }
    all
}

fn relay(kind: &str, begin: &str, event: &[u8], count: usize) {
    let mut play = Play::new(kind);
    if !begin.is_empty() {
        play.receive(format!("data: {begin}\n\n").as_bytes());
    }
    for _ in 0..count {
        play.receive(event);
    }
    assert!(play.written > count * 100);
}
