//! Events: any cutting gives the same blocks, and a reader of whole lines agrees.

use firstbyte::wire::sse::{Kind, Scanner, TooLarge};

/// What a block shows; stray text with all line ends as LF.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Block {
    event: Vec<u8>,
    data: Option<Vec<u8>>,
    stray: Option<Vec<u8>>,
    comment: bool,
}

/// Checks one input.
pub fn check(data: &[u8]) {
    let (cuts, stream) = crate::cuts(data);
    let whole = read(stream, &[], usize::MAX).unwrap();
    assert_eq!(read(stream, &cuts, usize::MAX).unwrap(), whole);
    let shown: Vec<Block> =
        whole.iter().filter(|block| **block != Block::default()).cloned().collect();
    assert_eq!(shown, naive(stream));
    let max = stream.len() / 2;
    assert_eq!(read(stream, &cuts, max), read(stream, &[], max));
}

fn read(stream: &[u8], cuts: &[usize], max: usize) -> Result<Vec<Block>, TooLarge> {
    let mut scanner = Scanner::new(max);
    let (mut buf, mut scratch, mut from, mut blocks) = (vec![], vec![], 0, vec![]);
    for (i, cut) in cuts.iter().copied().chain([stream.len(), stream.len()]).enumerate() {
        buf.extend_from_slice(&stream[from..cut]);
        from = cut;
        while let Some(frame) = scanner.next(&buf, i > cuts.len())? {
            assert!(frame.len > 0 && frame.len <= buf.len());
            let data = frame.payload(&buf, &mut scratch).to_vec();
            let data = (frame.kind == Kind::Event).then_some(data);
            let stray = frame.stray.map(|span| one_line_end(span.of(&buf)));
            let event = frame.event.of(&buf).to_vec();
            blocks.push(Block { event, data, stray, comment: frame.comment });
            buf.drain(..frame.len);
        }
    }
    Ok(blocks)
}

fn one_line_end(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (i, byte) in text.iter().enumerate() {
        match byte {
            b'\r' => out.push(b'\n'),
            b'\n' if i > 0 && text[i - 1] == b'\r' => {}
            _ => out.push(*byte),
        }
    }
    out
}

fn naive(stream: &[u8]) -> Vec<Block> {
    let text = one_line_end(stream.strip_prefix(b"\xef\xbb\xbf").unwrap_or(stream));
    let mut open = false;
    let (mut blocks, mut block) = (vec![], Block::default());
    // At the end everything that is there counts, so an empty line more changes nothing.
    for line in text.split(|byte| *byte == b'\n').chain([&b""[..]]) {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let name = parts.next().unwrap_or_default();
        let value = parts.next();
        let value = value.map_or(&b""[..], |value| value.strip_prefix(b" ").unwrap_or(value));
        let stray = !matches!(name, b"" | b"event" | b"data" | b"id" | b"retry");
        // Only the first run of stray lines is kept.
        match &mut block.stray {
            None if stray => (block.stray, open) = (Some(line.to_vec()), true),
            Some(text) if stray && open => text.extend([b"\n", line].concat()),
            _ => open = false,
        }
        match name {
            b"" if line.is_empty() => {
                if block != Block::default() {
                    blocks.push(std::mem::take(&mut block));
                }
            }
            b"" => block.comment = true,
            b"event" => block.event = value.to_vec(),
            b"data" => {
                block.data = Some(match block.data.take() {
                    Some(data) => [&data, &b"\n"[..], value].concat(),
                    None => value.to_vec(),
                });
            }
            _ => {}
        }
    }
    blocks
}
