//! Cases, the shared vectors, and a reader that takes one line at a time as the oracle.

use std::path::Path;

use proptest::prelude::*;
use serde_json::Value as Json;

use super::*;

const MAX: usize = 1 << 20;

/// A block as the tests compare it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Block {
    event: Vec<u8>,
    data: Option<Vec<u8>>,
    stray: Option<Vec<u8>>,
    comment: bool,
    ended: bool,
}

/// Reads a stream whose pieces end at `cuts`, dropping what each frame took.
fn read(stream: &[u8], cuts: &[usize], max: usize) -> Result<Vec<Block>, TooLarge> {
    let mut scanner = Scanner::new(max);
    let (mut buf, mut from, mut blocks) = (Vec::new(), 0, Vec::new());
    let mut scratch = Vec::new();
    let pieces = cuts.iter().copied().chain([stream.len(), stream.len()]);
    for (i, cut) in pieces.enumerate() {
        buf.extend_from_slice(&stream[from..cut]);
        from = cut;
        while let Some(frame) = scanner.next(&buf, i == cuts.len() + 1)? {
            assert!(frame.len > 0 && frame.len <= buf.len());
            assert_eq!(frame.kind == Kind::Event, !frame.data.is_empty());
            assert!(frame.data.len() != 1 || !frame.data.spilled());
            let payload = frame.payload(&buf, &mut scratch).to_vec();
            blocks.push(Block {
                event: frame.event.of(&buf).to_vec(),
                data: (frame.kind == Kind::Event).then_some(payload),
                stray: frame.stray.map(|span| span.of(&buf).to_vec()),
                comment: frame.comment,
                ended: frame.ended,
            });
            buf.drain(..frame.len);
        }
    }
    Ok(blocks)
}

fn whole(stream: &[u8]) -> Vec<Block> {
    read(stream, &[], MAX).unwrap()
}

fn events(blocks: &[Block]) -> Vec<(String, String)> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let named = blocks.iter().filter_map(|block| Some((block, block.data.as_ref()?)));
    named.map(|(block, data)| (text(&block.event), text(data))).collect()
}

/// The same, one line at a time over the whole stream.
fn oracle(stream: &[u8]) -> Vec<Block> {
    let stream = stream.strip_prefix(b"\xef\xbb\xbf").unwrap_or(stream);
    let mut lines: Vec<(&[u8], &[u8])> = Vec::new();
    let mut rest = stream;
    while !rest.is_empty() {
        let end = rest.iter().position(|b| matches!(b, b'\r' | b'\n')).unwrap_or(rest.len());
        let stop = match &rest[end..] {
            [b'\r', b'\n', ..] => end + 2,
            [] => end,
            _ => end + 1,
        };
        lines.push((&rest[..end], &rest[..stop]));
        rest = &rest[stop..];
    }
    let (mut blocks, mut block, mut last_stray) = (Vec::new(), Block::default(), None);
    for (i, (line, _)) in lines.iter().enumerate() {
        let colon = line.iter().position(|b| *b == b':');
        let (name, value) = match colon {
            Some(at) => (&line[..at], line[at + 1..].strip_prefix(b" ").unwrap_or(&line[at + 1..])),
            None => (*line, &b""[..]),
        };
        match name {
            b"" if line.is_empty() => {
                block.ended = true;
                blocks.push(std::mem::take(&mut block));
            }
            b"" => block.comment = true,
            b"data" => match &mut block.data {
                None => block.data = Some(value.to_vec()),
                Some(data) => {
                    data.push(b'\n');
                    data.extend_from_slice(value);
                }
            },
            b"event" => block.event = value.to_vec(),
            b"id" | b"retry" => {}
            _ => {
                match &mut block.stray {
                    None => block.stray = Some(line.to_vec()),
                    Some(stray) if last_stray == i.checked_sub(1) => {
                        stray.extend_from_slice(&lines[i - 1].1[lines[i - 1].0.len()..]);
                        stray.extend_from_slice(line);
                    }
                    Some(_) => continue,
                }
                last_stray = Some(i);
            }
        }
    }
    if block != Block::default() {
        blocks.push(block);
    }
    blocks
}

#[test]
fn the_drawn_example() {
    let stream = b"event: delta\ndata: {\"a\":1}\r\n: ping\n\nrest";
    let frame = Scanner::new(MAX).next(stream, false).unwrap().unwrap();
    assert_eq!(frame.len, 36);
    assert_eq!(frame.event.of(stream), b"delta");
    assert_eq!(frame.payload(stream, &mut Vec::new()), b"{\"a\":1}");
    assert!(frame.comment && frame.ended && frame.kind == Kind::Event && frame.stray.is_none());
}

#[test]
fn quiet_blocks_are_reported_and_empty() {
    let blocks = whole(b"\n: ping\n\nevent: ping\n\nid: 7\nretry: 5\n\n");
    assert_eq!(blocks.len(), 4);
    assert!(blocks.iter().all(|block| block.data.is_none() && block.stray.is_none()));
    assert_eq!(
        blocks.iter().map(|block| block.comment).collect::<Vec<_>>(),
        [false, true, false, false]
    );
    assert_eq!(blocks[2].event, b"ping");
}

#[test]
fn errors_outside_of_data_are_kept() {
    let json = |stream: &[u8]| {
        let mut scanner = Scanner::new(MAX);
        let frame = scanner.next(stream, true).unwrap().unwrap();
        frame.stray_json(stream).map(|json| String::from_utf8(json.to_vec()).unwrap())
    };
    assert_eq!(json(b"error: {\"a\":1}\n\n").as_deref(), Some("{\"a\":1}"));
    assert_eq!(json(b"error:{\"a\":1}").as_deref(), Some("{\"a\":1}"));
    assert_eq!(json(b"{\"a\":1}").as_deref(), Some("{\"a\":1}"));
    assert_eq!(json(b"[{\"a\":\r\n1}\r\n]\r\n").as_deref(), Some("[{\"a\":\r\n1}\r\n]"));
    assert_eq!(
        json(b"{\n  \"error\": 1\n}\ndata: x\n}\n\n").as_deref(),
        Some("{\n  \"error\": 1\n}")
    );
    assert_eq!(json(b"<html>\n\n"), None);
    assert_eq!(json(b"data: {}\n\n"), None);
}

/// Once a second run grew the span of the first one over the lines between them.
#[test]
fn only_the_first_run_of_stray_lines_is_kept() {
    let blocks = whole(b"{\n}\ndata: 1\n{\n}\n\n");
    assert_eq!(blocks[0].stray.as_deref(), Some(&b"{\n}"[..]));
    assert_eq!(blocks[0].data.as_deref(), Some(&b"1"[..]));
}

#[test]
fn a_last_block_without_its_empty_line_counts() {
    for end in ["", "\n", "\r\n", "\r"] {
        let stream = format!("data: 1\n\ndata: [DONE]{end}");
        let blocks = whole(stream.as_bytes());
        assert_eq!(blocks.len(), 2, "{end:?}");
        assert_eq!(blocks[1].data.as_deref(), Some(&b"[DONE]"[..]));
        assert_eq!((blocks[0].ended, blocks[1].ended), (true, false));
    }
    assert_eq!(whole(b""), []);
    assert_eq!(whole(b"\xef\xbb\xbf"), []);
    assert_eq!(whole(b"\xef\xbb")[0].stray.as_deref(), Some(&b"\xef\xbb"[..]));
}

#[test]
fn a_lone_return_ends_a_block_at_once() {
    let mut scanner = Scanner::new(MAX);
    let frame = scanner.next(b"data: 1\r\r", false).unwrap().unwrap();
    assert_eq!((frame.len, frame.ended), (9, true));
    // The line feed that comes later is the other half, not an empty block.
    assert_eq!(scanner.next(b"\n", false), Ok(None));
    let frame = scanner.next(b"\ndata: 2\n\n", false).unwrap().unwrap();
    assert_eq!((frame.len, frame.data[0].of(b"\ndata: 2\n\n")), (10, &b"2"[..]));
}

#[test]
fn blocks_are_bounded_wherever_they_are_cut() {
    let stream = b"\xef\xbb\xbfdata: 1\r\n\r\ndata: 23\r\n\r\n";
    let all: Vec<_> = (0..stream.len()).collect();
    for max in 0..30 {
        // Measured up to the byte that ends the empty line, without the second half of a CRLF.
        let expected = if max >= 11 { Ok(2) } else { Err(TooLarge) };
        for cuts in [&[][..], &all] {
            assert_eq!(read(stream, cuts, max).map(|blocks| blocks.len()), expected, "{max}");
        }
    }
    let endless = [b'x'; 100];
    assert_eq!(Scanner::new(99).next(&endless, false), Err(TooLarge));
    assert_eq!(Scanner::new(99).next(&endless, true), Err(TooLarge));
    assert_eq!(Scanner::new(100).next(&endless, false), Ok(None));
}

#[test]
fn the_scanner_stays_small() {
    assert!(size_of::<Scanner>() <= 128, "{}", size_of::<Scanner>());
    assert!(size_of::<Frame>() <= 72, "{}", size_of::<Frame>());
}

#[test]
fn the_shared_vectors() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/fixtures/vectors/sse.json");
    let Ok(text) = std::fs::read(&path) else {
        println!("skipped: {} is not there", path.display());
        return;
    };
    let json: Json = serde_json::from_slice(&text).unwrap();
    let vectors = json["vectors"].as_array().unwrap();
    assert!(vectors.len() > 20);
    for vector in vectors {
        let name = vector["name"].as_str().unwrap();
        let stream = base64(vector["input_b64"].as_str().unwrap());
        let mut expected: Vec<(String, String)> = vector["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| {
                let name = event["event"].as_str().unwrap();
                let name = if name == "message" { "" } else { name };
                (name.to_owned(), event["data"].as_str().unwrap().to_owned())
            })
            .collect();
        // The one deviation: a last block without its empty line counts here.
        if name.starts_with("unterminated_last_event_dropped") {
            expected.push((String::new(), "2".to_owned()));
        }
        let got = whole(&stream);
        assert_eq!(events(&got), expected, "{name}");
        let all: Vec<_> = (0..stream.len()).collect();
        assert_eq!(read(&stream, &all, MAX).unwrap(), got, "{name} byte by byte");
        let step = stream.len() / 2000 + 1;
        for cut in (0..stream.len()).step_by(step) {
            assert_eq!(read(&stream, &[cut], MAX).unwrap(), got, "{name} cut at {cut}");
        }
    }
}

/// Every recorded stream of the shared fixtures agrees with the oracle.
#[test]
fn the_shared_recordings() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/fixtures");
    let mut folders = vec![root.clone()];
    let mut streams = 0;
    while let Some(folder) = folders.pop() {
        let Ok(entries) = std::fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "sse") {
                let stream = std::fs::read(&path).unwrap();
                let expected = oracle(&stream);
                assert_eq!(whole(&stream), expected, "{}", path.display());
                let cuts: Vec<_> = (0..stream.len()).step_by(97).collect();
                let got = read(&stream, &cuts, 8 << 20).unwrap();
                assert_eq!(got, expected, "{}", path.display());
                streams += 1;
            }
        }
    }
    match streams {
        0 => println!("skipped: no recordings below {}", root.display()),
        _ => println!("{streams} recordings"),
    }
}

fn base64(text: &str) -> Vec<u8> {
    let (mut bits, mut held, mut out) = (0_u32, 0, Vec::new());
    for byte in text.bytes().filter(|byte| *byte != b'=') {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => panic!("not base64: {byte}"),
        };
        bits = bits << 6 | u32::from(digit);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    out
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        3 => Just(&b"data: {\"a\":1}"[..]),
        1 => Just(&b"data"[..]),
        1 => Just(&b"data:"[..]),
        1 => Just(&b"data:  x"[..]),
        1 => Just(&b"datax: y"[..]),
        2 => Just(&b"event: e"[..]),
        1 => Just(&b"id: 1"[..]),
        1 => Just(&b"idx"[..]),
        1 => Just(&b"retry: 1"[..]),
        1 => Just(&b": c"[..]),
        1 => Just(&b":"[..]),
        1 => Just(&b"error: {}"[..]),
        1 => Just(&b"{}"[..]),
        1 => Just(&b"\xef\xbb\xbf"[..]),
        6 => Just(&b"\n"[..]),
        4 => Just(&b"\r\n"[..]),
        3 => Just(&b"\r"[..]),
        3 => Just(&b"\n\n"[..]),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn equals_the_oracle_however_it_is_cut(
        stream in stream(),
        seeds in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let expected = oracle(&stream);
        prop_assert_eq!(&whole(&stream), &expected);
        let mut cuts: Vec<_> = seeds.iter().map(|seed| seed.index(stream.len() + 1)).collect();
        cuts.sort_unstable();
        prop_assert_eq!(&read(&stream, &cuts, MAX).unwrap(), &expected);
        for cut in 0..=stream.len() {
            prop_assert_eq!(&read(&stream, &[cut], MAX).unwrap(), &expected);
        }
        let all: Vec<_> = (0..stream.len()).collect();
        prop_assert_eq!(&read(&stream, &all, MAX).unwrap(), &expected);
    }

    #[test]
    fn the_limit_does_not_depend_on_the_cuts(stream in stream(), max in 0_usize..60) {
        let all: Vec<_> = (0..stream.len()).collect();
        prop_assert_eq!(read(&stream, &all, max), read(&stream, &[], max));
    }

    #[test]
    fn noise_equals_the_oracle(stream in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(whole(&stream), oracle(&stream));
    }
}
