//! A stream through an exchange, without sockets: for counting what an event costs.

use std::sync::Arc;

use firstbyte::base::buf::Buf;
use firstbyte::base::tick::{Ms, Tick, UnixMs};
use firstbyte::config;
use firstbyte::exchange::answer::Client;
use firstbyte::exchange::ledger::{Ending, Ledger};
use firstbyte::exchange::phase::LaneId;
use firstbyte::exchange::{Cx, Exchange, Input, Job, Output, Side, keep_memory};
use firstbyte::llm::request::{Ask, Envelope, Surface};
use firstbyte::net::wish_of;
use firstbyte::route::{self, Table};

/// Plays a stream to an exchange, an event at a time, as the shell does: each write ends, and its memory
/// is given back.
pub struct Play {
    exchange: Exchange,
    table: Table,
    rx: Buf,
    memory: Vec<Buf>,
    /// Bytes that the client got.
    pub written: usize,
}

const LANE: LaneId = LaneId::A;

impl Play {
    /// A stream of a provider of this kind, whose head has come.
    pub fn new(kind: &str) -> Play {
        let text = format!(
            "[providers.p]\nkind = \"{kind}\"\nbase_url = \"http://127.0.0.1:1/v1\"\n\
             [models.m]\ntargets = [\"p/up\"]\n"
        );
        let config = config::load(&text, &|_| Err(String::new())).unwrap();
        let table = route::compile(&config, None).unwrap();
        let body = br#"{"model":"m","stream":true,"messages":[{"role":"user","content":"?"}]}"#;
        let mut ask = Ask::read(Surface::Chat, body).unwrap();
        ask.envelope =
            Envelope { method: "POST", path: "/chat/completions".into(), ..Envelope::default() };
        let plan = route::pick(&table, &wish_of(&ask, None), 0, Tick(1)).unwrap();
        let job = Job { ask, body: Buf::from(&body[..]), plan };
        let client =
            Client { minor: 1, keep_alive: true, patience: Ms(1000).into(), to_head: false };
        let cx = Cx { now: Tick(1), wall: UnixMs(0), table: &table };
        let exchange = Exchange::new(job, client, ledger(), &cx);
        let mut play =
            Play { exchange, table, rx: Buf::with_capacity(4096), memory: Vec::new(), written: 0 };
        play.settle();
        play.step(Input::Dialed { lane: LANE, reused: false });
        play.receive(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n");
        play
    }

    fn step(&mut self, input: Input<'_>) {
        self.exchange.step(input, &Cx { now: Tick(2), wall: UnixMs(0), table: &self.table });
        self.settle();
    }

    /// Bytes come from the provider.
    pub fn receive(&mut self, bytes: &[u8]) {
        let mut rx = self.rx.take();
        rx.extend(bytes);
        self.exchange.lend(LANE, &mut self.memory);
        self.step(Input::Received { lane: LANE, rx: &mut rx });
        self.exchange.reclaim(LANE, &mut self.memory);
        rx.clear();
        self.rx = rx;
    }

    fn settle(&mut self) {
        while let Some(output) = self.exchange.poll() {
            if let Output::Write { side } = output {
                let mut bytes = self.exchange.take_write(side);
                if side == Side::Down {
                    self.written += bytes.len();
                    bytes.clear();
                    keep_memory(bytes, &mut self.memory);
                }
                let cx = Cx { now: Tick(2), wall: UnixMs(0), table: &self.table };
                self.exchange.step(Input::Wrote { side, done: true }, &cx);
            }
        }
    }
}

fn ledger() -> Ledger {
    Ledger {
        id: Arc::from("r"),
        caller: None,
        surface: Surface::Chat,
        stream: true,
        model: Arc::from("m"),
        wall: UnixMs(0),
        began: Tick(1),
        committed: None,
        ended: Tick(1),
        status: 0,
        ending: Ending::Error,
        attempts: smallvec::SmallVec::new(),
        winner: None,
        events: 0,
        bytes_in: 0,
        bytes_out: 0,
        usage: None,
        cost_nanos: None,
        wasted: 0,
        budget_spent: false,
        opened: false,
    }
}

/// Of a kind: what begins a stream, and an event of text.
pub fn streams() -> [(&'static str, &'static str, &'static str); 4] {
    let delta = r#"{"id":"c","object":"chat.completion.chunk","created":7,"model":"up","choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}"#;
    let named = r#"{"id":"c","object":"chat.completion.chunk","created":7,"model":"up","choices":[{"index":0,"delta":{"reasoning":" word"},"finish_reason":null}]}"#;
    let text =
        r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" word"}}"#;
    let part =
        r#"{"candidates":[{"content":{"role":"model","parts":[{"text":" word"}]},"index":0}]}"#;
    let start = r#"{"type":"message_start","message":{"id":"m","content":[],"usage":{}}}"#;
    [
        ("openai", "", delta),
        // Told anew: not quite OpenAI's.
        ("openai", "", named),
        ("anthropic", start, text),
        ("gemini", "", part),
    ]
}
