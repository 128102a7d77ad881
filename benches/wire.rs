//! The parsers of the hot path, each beside a floor that anyone can judge it by: `memchr` over the same
//! bytes. `cargo bench --bench wire`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    reason = "a test says what is wrong by failing"
)]

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;

use firstbyte::wire::http1::{body::Body, head};
use firstbyte::wire::{json, sse};

const REQUEST: &[u8] = b"POST /v1/chat/completions HTTP/1.1\r\nhost: gateway:8080\r\n\
    accept-encoding: gzip, deflate\r\nconnection: keep-alive\r\naccept: application/json\r\n\
    content-type: application/json\r\nuser-agent: AsyncOpenAI/Python 2.0.0\r\n\
    authorization: Bearer some-key\r\ncontent-length: 64\r\n\r\n";

/// An event as OpenAI sends it, 270 bytes or so.
fn event() -> Vec<u8> {
    b"data: {\"id\":\"chatcmpl-AbCdEfGhIjKlMnOpQrStUvWxYz012\",\"object\":\"chat.completion.chunk\",\
      \"created\":1750000000,\"model\":\"gpt-4o-2024-08-06\",\"service_tier\":\"default\",\
      \"system_fingerprint\":\"fp_0123456789\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" word\"},\
      \"logprobs\":null,\"finish_reason\":null}]}\n\n"
        .to_vec()
}

fn parsers(c: &mut Criterion) {
    let one = event();
    let many: Vec<u8> = event().repeat((64 << 10) / one.len());
    let payload = one[6..one.len() - 2].to_vec();

    let mut group = c.benchmark_group("wire");
    group.throughput(Throughput::Bytes(REQUEST.len() as u64));
    group.bench_function("head", |b| {
        b.iter(|| head::parse_request(black_box(REQUEST), 65_536));
    });

    group.throughput(Throughput::Bytes(many.len() as u64));
    let chunked: Vec<u8> = many
        .chunks(one.len())
        .flat_map(|part| {
            let mut chunk = format!("{:x}\r\n", part.len()).into_bytes();
            chunk.extend_from_slice(part);
            chunk.extend_from_slice(b"\r\n");
            chunk
        })
        .collect();
    group.bench_function("chunked", |b| {
        b.iter_batched_ref(
            || chunked.clone(),
            |bytes| Body::new(head::Framing::Chunked).decode(bytes).map(|d| d.payload),
            BatchSize::LargeInput,
        );
    });

    group.throughput(Throughput::Bytes(one.len() as u64));
    group.bench_function("sse, one event", |b| {
        b.iter(|| sse::Scanner::new(1 << 20).next(black_box(&one), false).map(|f| f.is_some()));
    });
    group.throughput(Throughput::Bytes(many.len() as u64));
    group.bench_function("sse, 64 KiB", |b| {
        b.iter(|| {
            let (mut scanner, mut at) = (sse::Scanner::new(1 << 20), 0);
            while let Ok(Some(frame)) = scanner.next(black_box(&many[at..]), false) {
                at += frame.len;
            }
            at
        });
    });
    group.bench_function("floor: memchr, 64 KiB", |b| {
        b.iter(|| memchr::memchr_iter(b'\n', black_box(&many)).count());
    });

    group.throughput(Throughput::Bytes(payload.len() as u64));
    group.bench_function("json, one event", |b| {
        b.iter(|| {
            let mut top = json::Top::new();
            json::document_with_top(black_box(&payload), &mut top).map(|_| top.len())
        });
    });
    group.finish();
}

criterion_group!(benches, parsers);
criterion_main!(benches);
