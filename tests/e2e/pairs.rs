//! Every pairing of two kinds of providers, for every dialect of a client: the first fails before the
//! commit, and the second's answer is what the client gets, whole; or it fails after it, and the client
//! is told so. The providers are the sandbox, which speaks all of their formats and checks what it is
//! asked.
//!
//! A kind that can send joins by itself, as one that copies OpenAI; one with a format or an address of its
//! own has a line in `PLACES`.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use firstbyte::app::sandbox::Sandbox;
use firstbyte::llm::dialects::Dialect;
use firstbyte::llm::providers::Kind;
use firstbyte::rt::uring::Loop;
use serde_json::{Value, json};

use crate::client::{Response, ask, post};
use crate::rig::{Driver, Gateway, on_both};

/// A way to a kind of provider.
#[derive(Clone, Copy)]
pub struct Place {
    pub name: &'static str,
    pub kind: &'static str,
    /// The base URL's path.
    path: &'static str,
    /// More lines of the provider's section.
    more: &'static str,
    /// What stands before the script in the model's name.
    family: &'static str,
}

const KEY: &str = "key = \"env:KEY\"\n";

const PLACES: &[Place] = &[
    Place { name: "openai", kind: "openai", path: "/v1", more: KEY, family: "" },
    Place { name: "azure", kind: "azure", path: "/openai/v1", more: KEY, family: "" },
    Place {
        name: "azure-dated",
        kind: "azure",
        path: "",
        more: "key = \"env:KEY\"\napi_version = \"2024-10-21\"\n",
        family: "",
    },
    Place { name: "anthropic", kind: "anthropic", path: "/v1", more: KEY, family: "" },
    Place { name: "gemini", kind: "gemini", path: "/v1beta", more: KEY, family: "" },
    Place {
        name: "vertex",
        kind: "vertex",
        path: "/v1",
        more: "key = \"env:KEY\"\nproject = \"p\"\nlocation = \"here\"\n",
        family: "",
    },
    Place {
        name: "vertex-claude",
        kind: "vertex",
        path: "/v1",
        more: "key = \"env:KEY\"\nproject = \"p\"\nlocation = \"here\"\n",
        family: "claude-x~",
    },
    Place { name: "cohere", kind: "cohere", path: "/v2", more: KEY, family: "" },
    Place { name: "ollama", kind: "ollama", path: "/api", more: "", family: "" },
    Place { name: "mistral", kind: "mistral", path: "/mistral/v1", more: KEY, family: "" },
    Place { name: "responses", kind: "openai-responses", path: "/v1", more: KEY, family: "" },
    Place {
        name: "bedrock",
        kind: "bedrock",
        path: "",
        more: "region = \"here-1\"\naccess_key = \"env:A\"\nsecret_key = \"env:S\"\n",
        family: "",
    },
    Place { name: "invoke", kind: "bedrock-invoke", path: "", more: KEY, family: "claude-x~" },
];

impl Place {
    /// A provider of the config, at `addr`.
    pub fn section(&self, name: &str, addr: SocketAddr) -> String {
        let Place { kind, path, more, .. } = self;
        format!("[providers.{name}]\nkind = \"{kind}\"\nbase_url = \"http://{addr}{path}\"\n{more}")
    }

    /// A script as the name of a model, such that it may stand in a path.
    pub fn model(&self, script: &str) -> String {
        format!("{}{}", self.family, script.replace(',', "~").replace('=', "@"))
    }
}

/// The places of this build's kinds, and the kinds without one.
pub fn places() -> (Vec<Place>, Vec<Place>) {
    let kinds: Vec<_> = Kind::NAMES.iter().filter(|(_, kind)| kind.sends()).collect();
    let has = |name: &str| kinds.iter().any(|(kind, _)| *kind == name);
    let known = PLACES.iter().filter(|place| has(place.kind)).copied().collect();
    let copies = kinds.iter().filter(|(name, _)| PLACES.iter().all(|place| place.kind != *name));
    let copies = copies.map(|(name, _)| Place { name, kind: name, ..PLACES[0] });
    (known, copies.collect())
}

struct Pair {
    first: Place,
    second: Place,
    /// The request has tools, which not every copy takes.
    tools: bool,
}

/// Every pair of places; those that copy OpenAI are paired with OpenAI only, in both roles.
fn pairs() -> Vec<Pair> {
    let (known, copies) = places();
    let pair = |first, second, tools| Pair { first, second, tools };
    let with = |first| known.iter().map(move |second| pair(first, *second, true));
    let all = known.iter().flat_map(|first| with(*first));
    let openai = known[0];
    let copied = copies.iter().flat_map(|copy| [(*copy, openai), (openai, *copy)]);
    all.chain(copied.map(|(first, second)| pair(first, second, false))).collect()
}

/// What a first provider does, and a second one then.
struct Case {
    first: &'static str,
    /// What the ledger's header says of the first.
    outcome: &'static str,
    second: &'static str,
    stream: bool,
}

const EARLY: &[Case] = &[
    Case { first: "503", outcome: "503", second: "ok,tokens=3", stream: true },
    Case {
        first: "error_at=2",
        outcome: "error_event",
        second: "tokens=2,tools=2,reasoning=2",
        stream: true,
    },
    Case {
        first: "cut_event=1",
        outcome: "eof",
        second: "tokens=2,reasoning=1,finish=length",
        stream: true,
    },
    Case { first: "malformed_at=1", outcome: "bad_frame", second: "ok,text=done", stream: true },
    Case {
        first: "malformed_at=1",
        outcome: "bad_frame",
        second: "tokens=2,tools=2,reasoning=2",
        stream: false,
    },
];

/// Two words are said before it.
const LATE: &[&str] = &["error_at=4", "cut_event=3"];

/// What an answer says, in whatever dialect.
#[derive(Debug, Default, PartialEq)]
struct Said {
    text: String,
    thoughts: String,
    calls: Vec<(String, Value)>,
    /// In the words of chat.
    finish: String,
    usage: [u64; 2],
    /// Error events.
    errors: usize,
    /// Terminators.
    ends: usize,
}

/// What the second provider's script says.
fn expected(script: &str, tools: bool, stream: bool) -> Said {
    let call = |k: u64| ("look".to_owned(), json!({ "from": "sandbox b", "call": k }));
    let mut said = Said { ends: usize::from(stream), usage: [3, 0], ..Said::default() };
    let (text, finish, spent) = match script {
        "ok,tokens=3" => ("Hello from sandbox b. token-1 token-2", "stop", 3),
        "tokens=2,tools=2,reasoning=2" => {
            said.thoughts = String::from("thought-0 thought-1 ");
            if tools {
                said.calls = vec![call(0), call(1)];
                ("", "tool_calls", 2 + 2)
            } else {
                ("Hello from sandbox b. token-1", "stop", 2 + 2)
            }
        }
        "tokens=2,reasoning=1,finish=length" => {
            said.thoughts = String::from("thought-0 ");
            ("Hello from sandbox b. token-1", "length", 2 + 1)
        }
        "ok,text=done" => ("done", "stop", 1),
        other => panic!("{other}"),
    };
    said.text = text.to_owned();
    said.finish = finish.to_owned();
    said.usage[1] = spent;
    said
}

fn request(dialect: Dialect, model: &str, tools: bool, stream: bool) -> String {
    let schema = json!({ "type": "object", "properties": { "from": { "type": "string" } } });
    let (path, fields, mut body) = match dialect {
        Dialect::Chat => {
            let tool = json!({ "name": "look", "description": "Looks.", "parameters": schema });
            let body = json!({
                "messages": [{ "role": "user", "content": "What is it?" }],
                "tools": [{ "type": "function", "function": tool }], "max_tokens": 99,
            });
            ("/v1/chat/completions", "", body)
        }
        Dialect::Messages => {
            let tool = json!({ "name": "look", "description": "Looks.", "input_schema": schema });
            let body = json!({
                "messages": [{ "role": "user", "content": "What is it?" }], "tools": [tool],
                "max_tokens": 99,
            });
            ("/v1/messages", "anthropic-version: 2023-06-01\r\n", body)
        }
        Dialect::Responses => {
            let mut tool = json!({ "name": "look", "description": "Looks.", "parameters": schema });
            tool["type"] = json!("function");
            let body = json!({
                "input": "What is it?", "tools": [tool], "max_output_tokens": 99, "store": false,
            });
            ("/v1/responses", "", body)
        }
    };
    if !tools {
        body.as_object_mut().unwrap().remove("tools");
    }
    body["model"] = json!(model);
    body["stream"] = json!(stream);
    if dialect == Dialect::Chat && stream {
        body["stream_options"] = json!({ "include_usage": true });
    }
    post(path, fields, &body.to_string())
}

fn said(dialect: Dialect, answer: &Response, stream: bool) -> Said {
    if !stream {
        let body = answer.json();
        return match dialect {
            Dialect::Chat => chat(&[body], "message"),
            Dialect::Messages => whole_message(&body),
            Dialect::Responses => whole_response(&body),
        };
    }
    let text = answer.text();
    assert!(text.ends_with("\n\n"), "{text}");
    let mut said = Said::default();
    let mut events = Vec::new();
    for block in text.split_terminator("\n\n") {
        let data = block.lines().find_map(|line| line.strip_prefix("data: "));
        let Some(data) = data else { continue };
        if data == "[DONE]" {
            said.ends += 1;
            continue;
        }
        assert_eq!(said.ends, 0, "{text}");
        events.push(serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}")));
    }
    let more = match dialect {
        Dialect::Chat => chat(&events, "delta"),
        Dialect::Messages => message(&events),
        Dialect::Responses => response(&events),
    };
    assert!(dialect == Dialect::Chat || said.ends == 0, "{text}");
    Said { ends: said.ends + more.ends, ..more }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn counts(usage: &Value, names: [&str; 2]) -> [u64; 2] {
    names.map(|name| usage[name].as_u64().unwrap_or_default())
}

/// Calls by their index, name and arguments in pieces.
#[derive(Default)]
struct Calls(Vec<(String, String)>);

impl Calls {
    fn add(&mut self, index: usize, name: &str, arguments: &str) {
        if self.0.len() <= index {
            self.0.resize(index + 1, Default::default());
        }
        self.0[index].0 += name;
        self.0[index].1 += arguments;
    }

    fn parsed(self) -> Vec<(String, Value)> {
        let parse = |(name, text): (String, String)| {
            let value = serde_json::from_str(&text);
            (name, value.unwrap_or_else(|_| Value::String(text)))
        };
        self.0.into_iter().map(parse).collect()
    }
}

fn chat(events: &[Value], part: &str) -> Said {
    let (mut said, mut calls) = (Said::default(), Calls::default());
    for event in events {
        said.errors += usize::from(event["error"].is_object());
        if event["usage"].is_object() {
            said.usage = counts(&event["usage"], ["prompt_tokens", "completion_tokens"]);
        }
        let choice = &event["choices"][0];
        said.text += text(&choice[part]["content"]);
        said.thoughts += text(&choice[part]["reasoning_content"]);
        said.finish += text(&choice["finish_reason"]);
        for (i, call) in choice[part]["tool_calls"].as_array().into_iter().flatten().enumerate() {
            let index = call["index"].as_u64().map_or(i, |index| index as usize);
            calls.add(index, text(&call["function"]["name"]), text(&call["function"]["arguments"]));
        }
    }
    Said { calls: calls.parsed(), ..said }
}

fn stop_reason(reason: &str) -> String {
    match reason {
        "end_turn" => "stop",
        "max_tokens" => "length",
        "tool_use" => "tool_calls",
        other => other,
    }
    .to_owned()
}

fn message(events: &[Value]) -> Said {
    let (mut said, mut calls, mut at) = (Said::default(), Calls::default(), 0);
    for event in events {
        let delta = &event["delta"];
        match text(&event["type"]) {
            "error" => said.errors += 1,
            "message_stop" => said.ends += 1,
            "message_start" => {
                said.usage = counts(&event["message"]["usage"], ["input_tokens", "output_tokens"]);
            }
            "content_block_start" if event["content_block"]["type"] == "tool_use" => {
                at = calls.0.len();
                calls.add(at, text(&event["content_block"]["name"]), "");
            }
            "content_block_delta" => {
                said.text += text(&delta["text"]);
                said.thoughts += text(&delta["thinking"]);
                if delta["type"] == "input_json_delta" {
                    calls.add(at, "", text(&delta["partial_json"]));
                }
            }
            "message_delta" => {
                said.finish += &stop_reason(text(&delta["stop_reason"]));
                let usage = counts(&event["usage"], ["input_tokens", "output_tokens"]);
                // What it leaves out stays as it was.
                said.usage = [usage[0].max(said.usage[0]), usage[1]];
            }
            _ => {}
        }
    }
    Said { calls: calls.parsed(), ..said }
}

fn whole_message(body: &Value) -> Said {
    let mut said = Said { finish: stop_reason(text(&body["stop_reason"])), ..Said::default() };
    said.usage = counts(&body["usage"], ["input_tokens", "output_tokens"]);
    for block in body["content"].as_array().into_iter().flatten() {
        said.text += text(&block["text"]);
        said.thoughts += text(&block["thinking"]);
        if block["type"] == "tool_use" {
            said.calls.push((text(&block["name"]).to_owned(), block["input"].clone()));
        }
    }
    said
}

fn whole_response(body: &Value) -> Said {
    let usage = counts(&body["usage"], ["input_tokens", "output_tokens"]);
    let mut said = Said { usage, ..Said::default() };
    for item in body["output"].as_array().into_iter().flatten() {
        for part in item["content"].as_array().into_iter().flatten() {
            let kept =
                if item["type"] == "reasoning" { &mut said.thoughts } else { &mut said.text };
            *kept += text(&part["text"]);
        }
        for part in item["summary"].as_array().into_iter().flatten() {
            said.thoughts += text(&part["text"]);
        }
        if item["type"] == "function_call" {
            let arguments = serde_json::from_str(text(&item["arguments"])).unwrap();
            said.calls.push((text(&item["name"]).to_owned(), arguments));
        }
    }
    said.finish = match text(&body["status"]) {
        "completed" if said.calls.is_empty() => "stop",
        "completed" => "tool_calls",
        "incomplete" if body["incomplete_details"]["reason"] == "max_output_tokens" => "length",
        other => other,
    }
    .to_owned();
    said
}

fn response(events: &[Value]) -> Said {
    let (mut said, mut calls) = (Said::default(), Calls::default());
    let mut indices = Vec::new();
    let mut last = Said::default();
    for event in events {
        let delta = text(&event["delta"]);
        match text(&event["type"]) {
            "error" => said.errors += 1,
            "response.completed" | "response.incomplete" => {
                said.ends += 1;
                last = whole_response(&event["response"]);
            }
            "response.output_item.added" if event["item"]["type"] == "function_call" => {
                calls.add(indices.len(), text(&event["item"]["name"]), "");
                indices.push(event["output_index"].clone());
            }
            "response.function_call_arguments.delta" => {
                let at = indices.iter().position(|index| *index == event["output_index"]).unwrap();
                calls.add(at, "", delta);
            }
            "response.output_text.delta" => said.text += delta,
            "response.reasoning_summary_text.delta" | "response.reasoning_text.delta" => {
                said.thoughts += delta;
            }
            _ => {}
        }
    }
    said.calls = calls.parsed();
    if said.ends > 0 {
        // The last event says everything again.
        assert_eq!(said.text, last.text);
        assert_eq!(said.thoughts, last.thoughts);
        assert_eq!(said.calls, last.calls);
    }
    Said { finish: last.finish, usage: last.usage, ..said }
}

/// Providers `a-` and `b-` for each place, and a model for each pair and case.
fn gateway(driver: Driver, sandbox: &Sandbox, pairs: &[Pair]) -> Gateway {
    let budget = "retry_budget = { ratio = 1.0, floor = 1000000, window = \"10s\" }";
    let mut config = format!("[defaults]\nbreaker = \"off\"\n{budget}\n");
    let (known, copies) = places();
    for place in known.iter().chain(&copies) {
        for (role, addr) in ["a", "b"].into_iter().zip(&sandbox.addrs) {
            config += &place.section(&format!("{role}-{}", place.name), *addr);
        }
    }
    let scripts = EARLY.iter().map(|case| (case.first, case.second));
    let scripts: Vec<_> = scripts.chain(LATE.iter().map(|first| (*first, "ok"))).collect();
    for (p, Pair { first, second, .. }) in pairs.iter().enumerate() {
        for (c, (script, then)) in scripts.iter().enumerate() {
            let (one, two) = (first.name, second.name);
            let (script, then) = (first.model(script), second.model(then));
            let targets = format!("[\"a-{one}/{script}\", \"b-{two}/{then}\"]");
            config += &format!("[models.m{p}-{c}]\ntargets = {targets}\n");
        }
    }
    Gateway::start(driver, &config)
}

/// The outcomes of the attempts, as the ledger's header has them.
fn outcomes(answer: &Response) -> Vec<(&str, &str)> {
    let field = answer.field("x-firstbyte-attempts").unwrap_or_default();
    let attempt = |text| -> Option<(&str, &str)> {
        let mut parts = str::split(text, ';');
        Some((parts.next()?.split('/').next()?, parts.next()?))
    };
    field.split(", ").filter_map(attempt).collect()
}

fn check_early(dialect: Dialect, case: &Case, pair: &Pair, answer: &Response) {
    let (first, second) = (format!("a-{}", pair.first.name), format!("b-{}", pair.second.name));
    let told = format!(
        "{dialect:?} {} then {}: {} {}",
        case.first,
        case.second,
        answer.head,
        answer.text()
    );
    assert_eq!((answer.status, answer.whole), (200, true), "{told}");
    // An exception of Bedrock's has a name, and so has its fault.
    let named = case.outcome == "error_event" && pair.first.kind.starts_with("bedrock");
    let outcome = if named { "unavailable" } else { case.outcome };
    let want = [(first.as_str(), outcome), (second.as_str(), "ok")];
    assert_eq!(outcomes(answer), want, "{told}");
    assert_eq!(answer.field("x-firstbyte-provider"), Some(second.as_str()), "{told}");
    assert!(!answer.text().contains("sandbox a"), "{told}");
    let mut found = said(dialect, answer, case.stream);
    if !pair.tools {
        // Some copies tell usage unasked, and are not asked; the sandbox is OpenAI, and wants to be.
        found.usage = expected(case.second, false, case.stream).usage;
    }
    assert_eq!(found, expected(case.second, pair.tools, case.stream), "{told}");
}

fn check_late(dialect: Dialect, script: &str, pair: &Pair, answer: &Response) {
    let first = format!("a-{}", pair.first.name);
    let told = format!("{dialect:?} {script}: {} {}", answer.head, answer.text());
    assert_eq!((answer.status, answer.whole), (200, true), "{told}");
    assert_eq!(outcomes(answer), [(first.as_str(), "ok")], "{told}");
    let found = said(dialect, answer, true);
    assert_eq!((found.errors, found.ends), (1, 0), "{told}");
    assert_eq!(found.text, "Hello from sandbox a. token-1", "{told}");
    assert_eq!(found.finish, "", "{told}");
    assert!(!answer.text().contains("sandbox b"), "{told}");
}

#[test]
fn every_pair_of_kinds_falls_over_and_breaks_off_honestly() {
    let pairs = pairs();
    on_both(|driver| {
        let sandbox = Sandbox::start_on(2, move || match driver {
            Driver::IoUring => Loop::io_uring(),
            Driver::Epoll => Loop::epoll(),
        })
        .unwrap();
        let gateway = gateway(driver, &sandbox, &pairs);
        let dialects = Dialect::ALL;
        let count = pairs.len() * dialects.len();
        let next = AtomicUsize::new(0);
        let work = || {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                if at >= count {
                    return;
                }
                let (p, dialect) = (at % pairs.len(), dialects[at / pairs.len()]);
                let pair = &pairs[p];
                for (c, case) in EARLY.iter().enumerate() {
                    let request = request(dialect, &format!("m{p}-{c}"), pair.tools, case.stream);
                    check_early(dialect, case, pair, &ask(gateway.addr, &request));
                }
                for (c, script) in LATE.iter().enumerate() {
                    let model = format!("m{p}-{}", EARLY.len() + c);
                    let request = request(dialect, &model, pair.tools, true);
                    check_late(dialect, script, pair, &ask(gateway.addr, &request));
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(work);
            }
        });
    });
}
