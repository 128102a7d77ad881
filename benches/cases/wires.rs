//! The parsers.

use std::hint::black_box;

use firstbyte::llm::request::{Ask, Surface};
use firstbyte::wire::http1::{body::Body, head};
use firstbyte::wire::{json, sse};

use super::{Case, EVENT, many, memchr_floor, memcpy_floor};

const REQUEST: &[u8] = b"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway:8080\r\n\
    accept-encoding: gzip, deflate\r\nconnection: keep-alive\r\naccept: application/json\r\n\
    content-type: application/json\r\nuser-agent: AsyncOpenAI/Python 2.0.0\r\n\
    authorization: Bearer some-key\r\ncontent-length: 64\r\n\r\n";

const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ndate: Thu, 01 Jan 2026 00:00:00 GMT\r\n\
    content-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\
    connection: keep-alive\r\nopenai-organization: org\r\nopenai-processing-ms: 210\r\n\
    openai-version: 2020-10-01\r\nx-request-id: req_0123456789abcdef\r\n\
    x-ratelimit-remaining-requests: 9999\r\nserver: cloudflare\r\n\r\n";

const BODY: &[u8] = br#"{"model":"m","messages":[{"role":"system","content":"be brief"},{"role":"user","content":"hello there, how are you today?"}],"stream":true,"temperature":0.7}"#;

pub(super) fn cases() -> Vec<Case> {
    let mut all = heads();
    all.extend(chunks());
    all.extend(events());
    all.extend(jsons());
    all
}

fn heads() -> Vec<Case> {
    vec![
        Case::again("head", "floor: httparse, request", REQUEST.len(), || {
            let mut fields = [httparse::EMPTY_HEADER; 32];
            black_box(httparse::Request::new(&mut fields).parse(black_box(REQUEST)).unwrap());
        }),
        Case::again("head", "request", REQUEST.len(), || {
            black_box(head::parse_request(black_box(REQUEST), 65_536).unwrap());
        }),
        Case::again("head", "floor: httparse, response", RESPONSE.len(), || {
            let mut fields = [httparse::EMPTY_HEADER; 32];
            black_box(httparse::Response::new(&mut fields).parse(black_box(RESPONSE)).unwrap());
        }),
        Case::again("head", "response", RESPONSE.len(), || {
            black_box(head::parse_response(black_box(RESPONSE), 65_536, false).unwrap());
        }),
    ]
}

fn chunks() -> Vec<Case> {
    let chunk = |part: &[u8]| {
        let mut chunk = format!("{:x}\r\n", part.len()).into_bytes();
        chunk.extend_from_slice(part);
        chunk.extend_from_slice(b"\r\n");
        chunk
    };
    let one = chunk(EVENT);
    let all: Vec<u8> = many().chunks(EVENT.len()).flat_map(chunk).collect();
    let decoded = |name: &str, bytes: Vec<u8>| {
        Case::once("chunked", name, bytes.len(), move || {
            let (mut body, mut bytes) = (Body::new(head::Framing::Chunked), bytes.clone());
            move || {
                black_box(body.decode(black_box(&mut bytes)).unwrap());
            }
        })
    };
    vec![
        memcpy_floor("chunked", "one event", one.clone()),
        decoded("one event", one),
        memcpy_floor("chunked", "64 KiB", all.clone()),
        decoded("64 KiB of events", all),
    ]
}

fn events() -> Vec<Case> {
    let mut scanner = sse::Scanner::new(1 << 20);
    let mut many_scanner = sse::Scanner::new(1 << 20);
    let all = many();
    vec![
        memchr_floor("sse", "one event", EVENT.to_vec()),
        Case::again("sse", "one event", EVENT.len(), move || {
            black_box(scanner.next(black_box(EVENT), false).unwrap());
        }),
        memchr_floor("sse", "64 KiB", all.clone()),
        Case::again("sse", "64 KiB of events", all.len(), move || {
            let mut rest = black_box(&all[..]);
            while let Some(frame) = many_scanner.next(rest, false).unwrap() {
                rest = &rest[frame.len..];
                black_box(frame);
            }
            assert!(rest.is_empty());
        }),
    ]
}

fn jsons() -> Vec<Case> {
    let payload = &EVENT[6..EVENT.len() - 2];
    let value = json::document(payload).unwrap();
    vec![
        memchr_floor("json", "an event's", payload.to_vec()),
        Case::again("json", "an event's checked", payload.len(), move || {
            let mut top = json::Top::new();
            black_box(json::document_with_top(black_box(payload), &mut top).unwrap());
        }),
        Case::again("json", "a text found in it", payload.len(), move || {
            let payload = black_box(payload);
            let choices = json::get(payload, value, "choices").unwrap();
            let first = json::at(payload, choices, 0).unwrap();
            black_box(json::get_path(payload, first, &["delta", "content"]).unwrap());
        }),
        Case::again("json", "a request's body read", BODY.len(), || {
            black_box(Ask::read(Surface::Chat, black_box(BODY)).unwrap());
        }),
    ]
}
