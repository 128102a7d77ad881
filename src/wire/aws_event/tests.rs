//! Messages made here, damaged in every byte and cut at every place; and vectors that lie beside the
//! checkout, where they do.

use super::*;

const MAX: usize = 32 * 1024 * 1024;

/// A sound message.
fn message(headers: &[u8], payload: &[u8]) -> Vec<u8> {
    let total = (PRELUDE + headers.len() + payload.len() + SUM) as u32;
    let mut out = [total.to_be_bytes(), (headers.len() as u32).to_be_bytes()].concat();
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out.extend(headers);
    out.extend(payload);
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out
}

fn text(name: &str, value: &str) -> Vec<u8> {
    let mut out = vec![name.len() as u8];
    out.extend(name.as_bytes());
    out.push(7);
    out.extend((value.len() as u16).to_be_bytes());
    out.extend(value.as_bytes());
    out
}

fn event(name: &str, payload: &str) -> Vec<u8> {
    let headers = [text(":event-type", name), text(":message-type", "event")].concat();
    message(&headers, payload.as_bytes())
}

/// A prelude whose lengths are whatever is asked for, with a sound checksum.
fn prelude(total: u32, headers: u32) -> Vec<u8> {
    let mut out = [total.to_be_bytes(), headers.to_be_bytes()].concat();
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out
}

/// All messages of bytes that arrive in pieces, as kind, name, text and payload; and how it ended.
fn run<'p>(pieces: impl IntoIterator<Item = &'p [u8]>) -> (Vec<[String; 4]>, Result<(), Unsound>) {
    let (mut buffer, mut seen) = (Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match next(&buffer, MAX) {
                Ok(None) => break,
                Ok(Some(m)) => {
                    let part = |span: Span| String::from_utf8_lossy(span.of(&buffer)).into_owned();
                    let kind = format!("{:?}", m.kind);
                    seen.push([kind, part(m.name), part(m.text), part(m.payload)]);
                    buffer.drain(..m.len);
                }
                Err(unsound) => return (seen, Err(unsound)),
            }
        }
    }
    (seen, Ok(()))
}

fn is(kind: &str, name: &str, text: &str, payload: &str) -> [String; 4] {
    [kind, name, text, payload].map(str::to_owned)
}

#[test]
fn messages_are_what_their_headers_say() {
    let exception =
        [text(":exception-type", "throttlingException"), text(":message-type", "exception")];
    let error = [
        text(":message-type", "error"),
        text(":error-code", "InternalError"),
        text(":error-message", "Sorry"),
    ];
    let bytes = [
        event("messageStart", r#"{"role":"assistant"}"#),
        message(&exception.concat(), br#"{"message":"slow down"}"#),
        message(&error.concat(), b""),
        message(&text(":message-type", "novelty"), b"x"),
        message(b"", b""),
    ]
    .concat();
    let expected = vec![
        is("Event", "messageStart", "", r#"{"role":"assistant"}"#),
        is("Exception", "throttlingException", "", r#"{"message":"slow down"}"#),
        is("Error", "InternalError", "Sorry", ""),
        is("Other", "", "", "x"),
        is("Other", "", "", ""),
    ];
    assert_eq!(run([&bytes[..]]), (expected.clone(), Ok(())));
    assert_eq!(run(bytes.chunks(1)), (expected.clone(), Ok(())));
    for at in 0..bytes.len() {
        let (head, tail) = bytes.split_at(at);
        assert_eq!(run([head, tail]), (expected.clone(), Ok(())), "cut at {at}");
    }
}

#[test]
fn every_damaged_byte_is_noticed() {
    let sound = event("contentBlockDelta", r#"{"delta":{"text":"Hi"}}"#);
    for at in 0..sound.len() {
        for bit in 0..8 {
            let mut bytes = sound.clone();
            bytes[at] ^= 1 << bit;
            let expected = if at < PRELUDE { Unsound::PreludeSum } else { Unsound::MessageSum };
            assert_eq!(next(&bytes, MAX), Err(expected), "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn lengths_are_refused_before_their_bytes_come() {
    let refused = |total, headers, max| next(&prelude(total, headers), max);
    assert_eq!(refused(0, 0, MAX), Err(Unsound::TotalLength));
    assert_eq!(refused(15, 0, MAX), Err(Unsound::TotalLength));
    assert_eq!(refused(16, 1, MAX), Err(Unsound::HeadersLength));
    assert_eq!(refused(16, u32::MAX, MAX), Err(Unsound::HeadersLength));
    assert_eq!(refused(1 << 20, (128 << 10) + 1, MAX), Err(Unsound::HeadersLength));
    assert_eq!(refused(1 << 20, 128 << 10, MAX), Ok(None));
    assert_eq!(refused((24 << 20) + 17, 0, MAX), Err(Unsound::TooLarge));
    assert_eq!(refused((24 << 20) + 16, 0, MAX), Ok(None));
    assert_eq!(refused(u32::MAX, 0, usize::MAX), Err(Unsound::TooLarge));
    assert_eq!(refused(101, 0, 100), Err(Unsound::TooLarge));
    assert_eq!(refused(100, 0, 100), Ok(None));
    let wrong = [&prelude(16, 0)[..8], &[0; 4]].concat();
    assert_eq!(next(&wrong, MAX), Err(Unsound::PreludeSum));
    assert_eq!(next(&wrong[..11], MAX), Ok(None));
}

#[test]
fn headers_of_every_type_are_read() {
    let all = b"\x01a\x00\x01b\x01\x01c\x02\xff\x01d\x03\xff\xfe\x01e\x04\0\0\0\x05\
        \x01f\x05\xff\xff\xff\xff\xff\xff\xff\xfa\x01g\x06\x00\x02\x00\xff\x01h\x07\x00\x03\xc5\xbc!\
        \x01i\x08\0\0\0\0\0\0\x03\xe8\x01j\x090123456789abcdef";
    let bytes = message(all, b"p");
    let found = next(&bytes, MAX).unwrap().unwrap();
    let read: Vec<Header> = headers(&bytes, found.headers).map(Result::unwrap).collect();
    let names: Vec<u8> = read.iter().flat_map(|(name, _)| name.of(&bytes).to_vec()).collect();
    assert_eq!(names, b"abcdefghij");
    let [.., (_, Value::Bytes(g)), (_, Value::Text(h)), i, (_, Value::Uuid(j))] = read[..] else {
        panic!("{read:?}");
    };
    let values: Vec<Value> = read[..6].iter().map(|(_, value)| *value).collect();
    let expected = [Value::Bool(true), Value::Bool(false), Value::Int(-1), Value::Int(-2)];
    assert_eq!(values[..4], expected);
    assert_eq!(values[4..], [Value::Int(5), Value::Int(-6)]);
    assert_eq!((g.of(&bytes), h.of(&bytes)), (&b"\x00\xff"[..], "ż!".as_bytes()));
    assert_eq!((i.1, j.of(&bytes)), (Value::Time(1000), &b"0123456789abcdef"[..]));
    // A header that is cut anywhere, but between two of them, does not parse.
    let ends: Vec<usize> = read.iter().skip(1).map(|(name, _)| name.start as usize - 1).collect();
    for cut in 1..all.len() {
        let whole = ends.contains(&(PRELUDE + cut));
        assert_eq!(next(&message(&all[..cut], b""), MAX).is_ok(), whole, "cut at {cut}");
    }
}

#[test]
fn headers_that_mean_nothing_are_refused() {
    let refused = |headers: &[u8]| next(&message(headers, b""), MAX) == Err(Unsound::Headers);
    assert!(refused(b"\x00\x00"), "no name");
    assert!(refused(b"\x01a\x0a"), "no such type");
    assert!(refused(&[text("a", "1"), text("a", "2")].concat()), "twice");
    assert!(!refused(&[text("a", "1"), text("A", "2")].concat()));
    let many = |count: u8| (0..count).flat_map(|i| [1, i, 0]).collect::<Vec<u8>>();
    assert!(!refused(&many(HEADER_COUNT_MAX as u8)));
    assert!(refused(&many(HEADER_COUNT_MAX as u8 + 1)));
    // A name that is no text names nothing.
    let number = [text(":message-type", "event"), b"\x0b:event-type\x00".to_vec()].concat();
    assert_eq!(run([&message(&number, b"")[..]]).0, [is("Event", "", "", "")]);
}

#[test]
fn no_bytes_make_it_panic() {
    let sound = event("x", "payload");
    let mut state = 1u64;
    for _ in 0..20_000 {
        let mut bytes = sound.clone();
        for _ in 0..3 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = PRELUDE + (state >> 33) as usize % (bytes.len() - PRELUDE);
            bytes[at] = (state >> 56) as u8;
        }
        let body = bytes.len() - SUM;
        let sum = crc32fast::hash(&bytes[..body]).to_be_bytes();
        bytes[body..].copy_from_slice(&sum);
        if let Ok(Some(found)) = next(&bytes, MAX) {
            assert_eq!(found.len, bytes.len());
            assert!(headers(&bytes, found.headers).all(|header| header.is_ok()));
        }
    }
    assert_eq!(headers(b"", Span::new(3, 9)).count(), 0);
}

#[test]
fn the_vectors_are_read_as_they_say() {
    let path =
        concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/fixtures/vectors/aws-eventstream.json");
    let Ok(text) = std::fs::read_to_string(path) else {
        eprintln!("SKIPPED: there are no vectors at ../shared/fixtures/vectors");
        return;
    };
    let file: serde_json::Value = serde_json::from_str(&text).unwrap();
    let vectors = file["vectors"].as_array().unwrap();
    assert!(vectors.len() > 20);
    for vector in vectors {
        let name = vector["name"].as_str().unwrap();
        let bytes = unhex(vector["hex"].as_str().unwrap());
        let whole = play(&bytes, bytes.len());
        for size in 1..bytes.len().min(200) {
            assert_eq!(play(&bytes, size), whole, "{name} in pieces of {size}");
        }
        let (messages, end) = whole;
        let mut expected = vector["messages"].as_array().cloned().unwrap_or_default();
        for header in expected.iter_mut().flat_map(|m| m["headers"].as_object_mut().unwrap()) {
            // All whole numbers are one kind here.
            if matches!(header.1["type"].as_str(), Some("byte" | "short" | "long")) {
                header.1["type"] = "int".into();
            }
        }
        assert_eq!(messages, expected, "{name}");
        let expected = match vector["error"].as_str() {
            None => "end",
            Some("prelude_crc") => "PreludeSum",
            Some("message_crc") => "MessageSum",
            Some("total_length") => "TotalLength",
            Some("headers_length") => "HeadersLength",
            Some("payload_length") => "TooLarge",
            Some("duplicate_header") => "Headers",
            Some("unexpected_eof") => "cut",
            Some(other) => panic!("{name}: {other}"),
        };
        assert_eq!(end, expected, "{name}");
        assert_eq!(vector["ok"] == true, end == "end", "{name}");
    }
}

/// The messages in the vectors' own words, and how it ended.
fn play(bytes: &[u8], size: usize) -> (Vec<serde_json::Value>, String) {
    let (mut buffer, mut seen) = (Vec::new(), Vec::new());
    for piece in bytes.chunks(size) {
        buffer.extend_from_slice(piece);
        loop {
            match next(&buffer, MAX) {
                Ok(None) => break,
                Err(unsound) => return (seen, format!("{unsound:?}")),
                Ok(Some(found)) => {
                    seen.push(words(&buffer, &found));
                    buffer.drain(..found.len);
                }
            }
        }
    }
    (seen, if buffer.is_empty() { "end" } else { "cut" }.to_owned())
}

fn words(bytes: &[u8], found: &Message) -> serde_json::Value {
    let mut named = serde_json::Map::new();
    for header in headers(bytes, found.headers) {
        let (name, value) = header.unwrap();
        let (kind, value) = match value {
            Value::Bool(value) => ("bool", value.into()),
            Value::Int(value) => ("int", value.into()),
            Value::Bytes(span) => ("bytes_hex", hex(span.of(bytes)).into()),
            Value::Text(span) => ("string", String::from_utf8_lossy(span.of(bytes)).into()),
            Value::Time(value) => ("timestamp_ms", value.into()),
            Value::Uuid(span) => ("uuid_hex", hex(span.of(bytes)).into()),
        };
        let value: serde_json::Value = value;
        let name = String::from_utf8_lossy(name.of(bytes)).into_owned();
        named.insert(name, serde_json::json!({ "type": kind, "value": value }));
    }
    let payload = String::from_utf8_lossy(found.payload.of(bytes));
    serde_json::json!({ "headers": named, "payload": payload })
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}
