//! What an adapter makes of an event, by provider and by what the event says. The events are those of
//! `tests/fixtures`; what one is, its translation for a chat client tells.

use std::hint::black_box;
use std::path::Path;

use firstbyte::base::buf::Buf;
use firstbyte::llm::dialects::Dialect;
use firstbyte::llm::event::Mark;
use firstbyte::llm::provider::{Framing, Named};
use firstbyte::llm::providers::{Kind, Stream};
use firstbyte::llm::sink::{Sink, Told};
use firstbyte::wire::{aws_event, sse};

use super::{Case, EVENT, framed, memcpy_floor};

/// Adapters by the folder of their cases; all that a kind with a stream may have.
const ADAPTERS: [(&str, Kind); 12] = [
    ("openai", Kind::Openai),
    ("anthropic", Kind::Anthropic),
    ("gemini", Kind::Gemini),
    ("vertex", Kind::Vertex),
    ("bedrock", Kind::Bedrock),
    ("bedrock_invoke", Kind::BedrockInvoke),
    ("cohere", Kind::Cohere),
    ("cohere_v1", Kind::CohereV1),
    ("mistral", Kind::Mistral),
    ("ollama", Kind::Ollama),
    ("responses", Kind::Responses),
    ("tgi_generate", Kind::TgiGenerate),
];

/// Where the sorts of events are.
const FIXTURES: [&str; 4] = ["text", "tool_call", "tool_streamed", "usage"];

pub(super) fn cases() -> Vec<Case> {
    let mut all = vec![memcpy_floor("translate", "one event", EVENT.to_vec())];
    for (folder, kind) in ADAPTERS {
        all.extend(told(folder, kind, Dialect::Chat));
    }
    for dialect in [Dialect::Messages, Dialect::Responses] {
        all.extend(told("openai", Kind::Openai, dialect));
    }
    all
}

/// The cases of an adapter and a client's dialect: the first event of each sort.
fn told(folder: &str, kind: Kind, dialect: Dialect) -> Vec<Case> {
    let (mut found, mut all) = (Vec::new(), Vec::new());
    for fixture in FIXTURES {
        let events = events(folder, fixture, kind);
        let mut telling = Telling::new(kind, Dialect::Chat);
        for at in 0..events.len() {
            let before = telling.stream.usage();
            let over = telling.feed(&events[at]);
            let counted = before != telling.stream.usage();
            for sort in telling.sorts(at, over, counted) {
                if found.contains(&sort) {
                    continue;
                }
                found.push(sort);
                let name = format!("{folder}, {sort}, to {}", dialect.name());
                let (events, bytes) = (events[..=at].to_vec(), events[at].bytes.len());
                // Of a delta many come: the first one is not the one to count.
                let before = if sort.ends_with("delta") { at + 2 } else { at };
                all.push(Case::once("translate", name, bytes, move || {
                    let mut telling = Telling::new(kind, dialect);
                    for index in 0..before {
                        telling.feed(&events[index.min(at)]);
                    }
                    let event = events[at].clone();
                    move || {
                        black_box(telling.feed(black_box(&event)));
                    }
                }));
            }
        }
    }
    for sort in ["start", "text delta"] {
        assert!(found.contains(&sort), "{folder}: no {sort} in {found:?}");
    }
    assert!(
        found.iter().any(|sort| ["stop", "stop with usage", "end"].contains(sort)),
        "{found:?}"
    );
    all
}

/// An event's payload, or a whole message of the AWS event stream.
#[derive(Clone)]
struct Event {
    /// Nothing follows.
    last: bool,
    bytes: Vec<u8>,
    message: Option<aws_event::Message>,
}

/// The events of a case; none if the adapter has no such case.
fn events(folder: &str, fixture: &str, kind: Kind) -> Vec<Event> {
    let path = format!("{}/tests/fixtures/{folder}/{fixture}.in", env!("CARGO_MANIFEST_DIR"));
    let Ok(text) = std::fs::read_to_string(Path::new(&path)) else { return Vec::new() };
    let (_, body) = text.split_once('\n').unwrap();
    let plain = |bytes: &[u8]| Event { last: false, bytes: bytes.to_vec(), message: None };
    let mut events: Vec<Event> = match Stream::new(kind).framing() {
        Framing::Lines => body.lines().map(|line| plain(line.as_bytes())).collect(),
        Framing::AwsEvents => {
            let message = |line: &str| {
                let bytes = framed::wrapped(line, kind == Kind::BedrockInvoke);
                let message = aws_event::next(&bytes, 1 << 20).unwrap();
                Event { last: false, bytes, message }
            };
            body.lines().map(message).collect()
        }
        Framing::Sse => {
            let (mut scanner, mut rest, mut all) = (sse::Scanner::new(1 << 20), body, Vec::new());
            while let Some(frame) = scanner.next(rest.as_bytes(), true).unwrap() {
                let payload = frame.payload(rest.as_bytes(), &mut Vec::new()).to_vec();
                rest = &rest[frame.len..];
                if !payload.is_empty() {
                    all.push(plain(&payload));
                }
            }
            all
        }
    };
    events.last_mut().unwrap().last = true;
    events
}

/// A stream that is told to a client.
struct Telling {
    stream: Stream,
    told: Told,
    out: Buf,
    events: u32,
}

impl Telling {
    fn new(kind: Kind, dialect: Dialect) -> Telling {
        let out = Buf::with_capacity(4096);
        Telling { stream: Stream::new(kind), told: Told::new(dialect), out, events: 0 }
    }

    /// Tells the client of an event; with the last one, of all that it is still owed. Whether it was.
    fn feed(&mut self, event: &Event) -> bool {
        self.out.clear();
        let mut sink = Sink {
            out: &mut self.out,
            shown: "m",
            events: &mut self.events,
            id: "id",
            seconds: 1_750_000_000,
            told: &mut self.told,
        };
        let bytes = &event.bytes;
        let fed = match &event.message {
            None => self.stream.feed(bytes, &mut sink),
            Some(message) => self.stream.feed_named(
                &Named {
                    kind: message.kind,
                    name: message.name.of(bytes),
                    text: message.text.of(bytes),
                    payload: message.payload.of(bytes),
                },
                &mut sink,
            ),
        };
        let over = fed.unwrap() == Mark::End || event.last;
        if over {
            self.stream.close(true, &mut sink).unwrap();
        }
        over
    }

    /// What the event at `at`, which was just told to a chat client, is: the first one may be a delta too.
    fn sorts(&self, at: usize, over: bool, counted: bool) -> impl Iterator<Item = &'static str> {
        let out = String::from_utf8_lossy(self.out.as_slice());
        let says = |key: &str| {
            let mut values = out.split(key).skip(1).filter_map(|rest| rest.strip_prefix('"'));
            values.any(|value| !value.starts_with('"'))
        };
        let sort = match () {
            () if over => Some("end"),
            () if says("\"finish_reason\":") && counted => Some("stop with usage"),
            () if says("\"finish_reason\":") => Some("stop"),
            () if says("\"arguments\":") => Some("tool delta"),
            () if says("\"content\":") => Some("text delta"),
            () if counted => Some("usage"),
            () => None,
        };
        (at == 0).then_some("start").into_iter().chain(sort)
    }
}
