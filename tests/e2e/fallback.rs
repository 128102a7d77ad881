//! What the product is for: a provider fails, and the client sees a whole answer or an honest end.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use std::time::Duration;

use firstbyte::exchange::ledger::Ending;

use crate::client::{Client, Response, ask, chat};
use crate::rig::{Call, Gateway, PATIENCE, Provider, on_both, providers};

const SSE: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
/// Short, since what hangs here is waited for.
pub const SHORT: &str = "head_timeout = \"250ms\"\nfirst_content_timeout = \"250ms\"\nidle_timeout = \"250ms\"\nanswer_timeout = \"250ms\"\n\
    connect_timeout = \"60s\"\nbreaker = \"off\"\nretry_budget = { ratio = 1.0, floor = 100000, window = \"10s\" }\nfirst_content_deadline = \"60s\"\n";

/// The same with limits that only a failing test meets.
pub fn patient() -> String {
    SHORT.replace("250ms", "60s")
}

/// A patient config in which only the first provider has a limit that a test can wait for; none, if the
/// test is about something else.
fn waiting(addrs: &[SocketAddr], limit: Option<&str>) -> String {
    let config = providers(&patient(), addrs);
    let Some(limit) = limit else { return config };
    let target = format!("{{ target = \"p0/up\", {limit} = \"250ms\" }}");
    config.replacen("\"p0/up\"", &target, 1)
}

pub fn event(delta: &str) -> String {
    format!(
        "data: {{\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"created\":7,\"model\":\"up\",\"choices\":[{{\"index\":0,\"delta\":{delta},\"finish_reason\":null}}]}}\n\n"
    )
}

pub fn events(name: &str) -> Vec<String> {
    vec![
        event("{\"role\":\"assistant\",\"content\":\"\"}"),
        event(&format!("{{\"content\":\"hello from {name}\"}}")),
        event("{\"content\":\" and more \u{fc}\"}"),
        event("{}").replace("null", "\"stop\""),
        String::from("data: [DONE]\n\n"),
    ]
}

/// A stream, chunked event by event.
pub fn stream(parts: &[String]) -> String {
    let chunks: String = parts.iter().map(|p| format!("{:x}\r\n{p}\r\n", p.len())).collect();
    format!("{SSE}{chunks}0\r\n\r\n")
}

pub fn good(name: &str) -> String {
    stream(&events(name))
}

/// The good answer as the client must see it.
pub fn expected(name: &str) -> String {
    events(name).concat().replace("\"model\":\"up\"", "\"model\":\"m\"")
}

fn status(code: u16, fields: &str, body: &str) -> String {
    format!("HTTP/1.1 {code} X\r\n{fields}content-length: {}\r\n\r\n{body}", body.len())
}

/// What a primary does before its first content, with the name that the ledger gives it.
#[derive(Clone)]
enum Fail {
    Say(String),
    Reset(String),
    Hang(String),
    Refuse,
}

fn failing(fail: Fail) -> SocketAddr {
    match fail {
        Fail::Refuse => Provider::refusing(),
        Fail::Say(bytes) => Provider::saying(bytes).addr,
        Fail::Reset(bytes) => {
            Provider::start(move |call| {
                let mut call = call.take().unwrap();
                call.say(&bytes);
                call.reset();
                false
            })
            .addr
        }
        Fail::Hang(bytes) => {
            Provider::start(move |call| {
                let call = call.as_mut().unwrap();
                call.say(&bytes);
                call.until_closed();
                false
            })
            .addr
        }
    }
}

fn early() -> Vec<(Fail, &'static str)> {
    let role = event("{\"role\":\"assistant\"}");
    let error = String::from("data: {\"error\":{\"message\":\"overloaded\"}}\n\n");
    vec![
        (Fail::Refuse, "refused"),
        (Fail::Reset(String::new()), "reset"),
        (Fail::Say(String::new()), "eof"),
        (Fail::Hang(String::new()), "head_timeout"),
        (Fail::Hang(String::from(SSE)), "first_content_timeout"),
        (Fail::Reset(String::from("HTTP/1.1 200 OK\r\n")), "reset"),
        (Fail::Say(String::from("SSH-2.0-OpenSSH\r\n\r\n")), "malformed"),
        (Fail::Say(stream(&[])), "truncated"),
        (Fail::Say(stream(std::slice::from_ref(&role))), "truncated"),
        (Fail::Say(stream(&[role, error.clone()])), "error_event"),
        (Fail::Say(stream(&[error])), "error_event"),
        (Fail::Say(stream(&[String::from("data: {oops\n\n")])), "bad_frame"),
        (Fail::Say(status(408, "", "")), "408"),
        (Fail::Say(status(409, "", "")), "409"),
        (Fail::Say(status(429, "retry-after: 1\r\n", "")), "429"),
        (Fail::Say(status(500, "", "")), "500"),
        (Fail::Say(status(502, "", "<html>")), "502"),
        (Fail::Say(status(503, "", "")), "503"),
        (Fail::Say(status(504, "", "")), "504"),
        (Fail::Say(status(529, "", "")), "529"),
        (Fail::Say(status(401, "", "{}")), "401"),
        (Fail::Say(status(403, "", "{}")), "403"),
        (Fail::Say(status(404, "", "{}")), "404"),
    ]
}

#[test]
fn early_failures_are_invisible() {
    on_both(|driver| {
        for (fail, outcome) in early() {
            let second = Provider::saying(good("p1"));
            let limit = outcome.ends_with("_timeout").then_some(outcome);
            let config = waiting(&[failing(fail), second.addr], limit);
            let gateway = Gateway::start(driver, &config);
            let answer = ask(gateway.addr, &chat(true, ""));
            let case = format!("{driver:?} {outcome}: {answer:?}");
            assert_eq!((answer.status, answer.text()), (200, expected("p1")), "{case}");
            let attempts = answer.field("x-firstbyte-attempts").unwrap();
            assert!(attempts.starts_with(&format!("p0/up;{outcome};")), "{case}");
            assert!(attempts.contains(", p1/up;ok;"), "{case}");
            assert_eq!(answer.field("x-firstbyte-provider"), Some("p1"), "{case}");
            let ledger = &gateway.ledgers(1)[0];
            assert_eq!((ledger.attempts.len(), ledger.ending), (2, Ending::Good), "{case}");
        }
    });
}

fn assert_cut(answer: &Response, code: &str, case: &str) {
    let text = answer.text();
    assert_eq!(answer.status, 200, "{case}");
    assert!(answer.whole, "the body must be ended properly: {case}");
    assert!(text.contains("hello from p0"), "{case}");
    assert_eq!(text.matches("\"error\"").count(), 1, "{case}");
    assert!(text.contains(code) && text.ends_with("\n\n"), "{case}");
    assert!(!text.contains("[DONE]") && !text.contains("hello from p1"), "{case}");
}

#[test]
fn late_failures_are_told_once() {
    let begun = || events("p0")[..2].to_vec();
    let with = |last: &str| {
        let mut parts = begun();
        parts.push(last.into());
        stream(&parts)
    };
    let open = |parts: &[String]| stream(parts).trim_end_matches("0\r\n\r\n").to_owned();
    let cases = [
        (Fail::Say(open(&begun())), "stream_interrupted"),
        (Fail::Say(stream(&begun())), "stream_interrupted"),
        (Fail::Reset(open(&begun())), "stream_interrupted"),
        (Fail::Hang(open(&begun())), "stream_timeout"),
        (Fail::Say(with("data: {\"error\":{\"message\":\"boom\"}}\n\n")), "stream_interrupted"),
        (Fail::Say(with("data: {oops\n\n")), "stream_interrupted"),
        (Fail::Say(with(&format!("data: \"{}", "x".repeat(9 << 20)))), "stream_interrupted"),
    ];
    on_both(|driver| {
        for (index, (fail, code)) in cases.iter().enumerate() {
            let second = Provider::saying(good("p1"));
            let limit = (*code == "stream_timeout").then_some("idle_timeout");
            let config = waiting(&[failing(fail.clone()), second.addr], limit);
            let gateway = Gateway::start(driver, &config);
            let answer = ask(gateway.addr, &chat(true, ""));
            assert_cut(&answer, code, &format!("{driver:?} case {index}: {}", answer.text()));
            assert!(matches!(gateway.ledgers(1)[0].ending, Ending::Cut(_)));
        }
    });
}

/// Which behaviour the next request to a provider meets; requests come one at a time.
fn numbered(
    behave: impl Fn(&mut Option<Call>, usize) -> bool + Send + Sync + 'static,
) -> (Provider, Arc<AtomicUsize>) {
    let at = Arc::new(AtomicUsize::new(0));
    let now = at.clone();
    let provider = Provider::start(move |call| behave(call, now.load(Ordering::SeqCst)));
    (provider, at)
}

#[test]
fn cut_after_each_byte_of_the_first_three_events() {
    let parts = events("p0");
    let whole = good("p0");
    let three = stream(&parts[..3]).len() - "0\r\n\r\n".len();
    // The commit comes with the chunk that ends the first content event.
    let content = stream(&parts[..2]).len() - "\r\n0\r\n\r\n".len();
    on_both(|driver| {
        for reset in [false, true] {
            let bytes = whole.clone();
            let (primary, at) = numbered(move |call, at| {
                let mut call = call.take().unwrap();
                call.say(&bytes.as_bytes()[..at]);
                if reset {
                    call.reset();
                }
                false
            });
            let second = Provider::saying(good("p1"));
            let config = waiting(&[primary.addr, second.addr], None);
            let gateway = Gateway::start(driver, &config);
            let mut client = Client::connect(gateway.addr);
            for cut in 0..=three {
                at.store(cut, Ordering::SeqCst);
                client.send(chat(true, ""));
                let answer = client.receive();
                let case = format!("{driver:?} cut at {cut}, reset {reset}: {}", answer.text());
                if cut < content {
                    assert_eq!(answer.text(), expected("p1"), "{case}");
                } else {
                    assert_cut(&answer, "stream_interrupted", &case);
                }
            }
        }
    });
}

#[test]
fn each_split_in_two_is_delivered_without_loss() {
    let whole = good("p0");
    on_both(|driver| {
        let bytes = whole.clone();
        let (primary, at) = numbered(move |call, at| {
            let call = call.as_mut().unwrap();
            call.say(&bytes.as_bytes()[..at]);
            std::thread::yield_now();
            call.say(&bytes.as_bytes()[at..])
        });
        let gateway = Gateway::start(driver, &providers("", &[primary.addr]));
        let mut client = Client::connect(gateway.addr);
        for cut in 1..whole.len() {
            at.store(cut, Ordering::SeqCst);
            client.send(chat(true, ""));
            assert_eq!(client.receive().text(), expected("p0"), "{driver:?} split at {cut}");
        }
        // A split within the end of the body may make the next request find the connection not yet
        // back; all others find it.
        let fresh = gateway.notes.fresh.load(Ordering::SeqCst);
        assert!(fresh <= 20, "{driver:?}: {fresh} connections");
    });
}

#[test]
fn all_chains_of_three() {
    let kinds = ["ok", "503", "reset", "hang", "error", "empty"];
    let outcomes = ["ok", "503", "reset", "head_timeout", "error_event", "truncated"];
    on_both(|driver| {
        // One gateway, one provider a place: the request's own text says what each place does.
        let place = |index: usize| {
            Provider::start(move |call| {
                let mut call = call.take().unwrap();
                let body = String::from_utf8_lossy(&call.body).into_owned();
                let chain = body.split("chain:").nth(1).unwrap().as_bytes();
                match chain[index] - b'0' {
                    0 => return call.say(good(&format!("p{index}"))),
                    1 => return call.say(status(503, "", "")),
                    2 => call.reset(),
                    3 => call.until_closed(),
                    4 => {
                        let error = String::from("data: {\"error\":{\"message\":\"x\"}}\n\n");
                        call.say(stream(&[error]));
                    }
                    _ => {
                        call.say(stream(&[]));
                    }
                }
                false
            })
        };
        let places = [place(0), place(1), place(2)];
        let addrs: Vec<_> = places.iter().map(|p| p.addr).collect();
        let chain_of = |code: usize| [code / 36, code / 6 % 6, code % 6];
        // A model for each chain: only what hangs has a limit that comes.
        let mut config = providers(&patient(), &addrs);
        for code in 0..216 {
            let targets: Vec<_> = (0..3)
                .map(|i| match chain_of(code)[i] {
                    3 => format!("{{ target = \"p{i}/up\", head_timeout = \"250ms\" }}"),
                    _ => format!("\"p{i}/up\""),
                })
                .collect();
            config += &format!("[models.m{code}]\ntargets = [{}]\n", targets.join(", "));
        }
        let gateway = Gateway::start(driver, &config);
        let run = |code: usize| {
            let chain = chain_of(code);
            let request = chat(true, "").replace(
                "\"content\":\"hi\"",
                &format!("\"content\":\"chain:{}{}{}\"", chain[0], chain[1], chain[2]),
            );
            let request = request.replace("\"m\"", &format!("\"m{code}\""));
            let length = request.split("\r\n\r\n").nth(1).unwrap().len();
            let request: Vec<_> = request
                .split("\r\n")
                .map(|line| match line.starts_with("content-length") {
                    true => format!("content-length: {length}"),
                    false => line.to_owned(),
                })
                .collect();
            let answer = ask(gateway.addr, &request.join("\r\n"));
            let winner = chain.iter().position(|kind| *kind == 0);
            let tried = winner.map_or(3, |w| w + 1);
            let case = format!("{driver:?} {:?}: {answer:?}", chain.map(|k| kinds[k]));
            let attempts = match winner {
                Some(w) => {
                    let text = expected(&format!("p{w}")).replace("\"m\"", &format!("\"m{code}\""));
                    assert_eq!(answer.text(), text, "{case}");
                    answer.field("x-firstbyte-attempts").unwrap().to_owned()
                }
                None => {
                    let all_hang = chain == [3, 3, 3];
                    assert_eq!(answer.status, if all_hang { 504 } else { 502 }, "{case}");
                    answer.field("x-firstbyte-attempts").unwrap().to_owned()
                }
            };
            let got: Vec<_> = attempts.split(", ").map(|a| a.rsplit_once(';').unwrap().0).collect();
            let want: Vec<_> =
                (0..tried).map(|i| format!("p{i}/up;{}", outcomes[chain[i]])).collect();
            assert_eq!(got, want, "{case}");
        };
        std::thread::scope(|scope| {
            for worker in 0..12 {
                let run = &run;
                scope.spawn(move || (worker..216).step_by(12).for_each(run));
            }
        });
        assert_eq!(gateway.ledgers(216).len(), 216);
    });
}

#[test]
fn a_large_body_still_falls_back() {
    on_both(|driver| {
        let failing = Provider::saying(status(503, "", ""));
        let second = Provider::start(|call| {
            let call = call.as_mut().unwrap();
            let body = String::from_utf8_lossy(&call.body).into_owned();
            let length = body.len();
            let name = format!("p1 got {length} {}", body.matches('z').count());
            call.say(good(&name))
        });
        let config = providers("", &[failing.addr, second.addr]);
        let gateway = Gateway::start(driver, &config);
        let text = "z".repeat(20 << 20);
        let body = format!(
            "{{\"messages\":[{{\"role\":\"user\",\"content\":\"{text}\"}}],\"model\":\"m\",\"stream\":true}}"
        );
        let answer = ask(gateway.addr, &crate::client::post("/v1/chat/completions", "", &body));
        let name = format!("p1 got {} {}", body.len() + 1, 20 << 20);
        assert_eq!(answer.text(), expected(&name), "{driver:?}");
    });
}

#[test]
fn a_reader_that_stops_stops_the_reading_upstream() {
    on_both(|driver| {
        let (stuck_tx, stuck) = channel();
        let stuck_tx = Mutex::new(stuck_tx);
        let flood = Provider::start(move |call| {
            let call = call.as_mut().unwrap();
            call.say("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n");
            let part = event(&format!("{{\"content\":\"{}\"}}", "f".repeat(4000)));
            // Once the kernel's buffers are full a write waits for ever: nobody reads any more.
            call.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
            let mut sent = 0;
            while sent < 512 << 20 && call.say(&part) {
                sent += part.len();
            }
            stuck_tx.lock().unwrap().send(sent).unwrap();
            call.until_closed();
            false
        });
        let gateway = Gateway::start(driver, &providers("", &[flood.addr]));
        let mut client = Client::connect(gateway.addr);
        client.send(chat(true, ""));
        client.receive_until("fff");
        let sent = stuck.recv_timeout(PATIENCE).unwrap();
        assert!(sent < 128 << 20, "{driver:?}: {sent} bytes were taken");
        drop(client);
        assert_eq!(gateway.ledgers(1)[0].ending, Ending::Gone, "{driver:?}");
    });
}

#[test]
fn opening_and_racing_over_real_sockets() {
    on_both(|driver| {
        let slow = failing(Fail::Hang(String::from(SSE)));
        let second = Provider::saying(good("p1"));
        let config = waiting(&[slow, second.addr], Some("first_content_timeout"));
        let config = config.replacen("[defaults]\n", "[defaults]\nopen_after = \"50ms\"\n", 1);
        let gateway = Gateway::start(driver, &config);
        let answer = ask(gateway.addr, &chat(true, ""));
        let text = answer.text();
        assert!(text.starts_with(": waiting for a provider\n\n"), "{driver:?}: {text}");
        assert!(text.ends_with(&expected("p1")), "{driver:?}: {text}");
        assert!(text.contains(": x-firstbyte-attempts: p0/up;first_content_timeout;"), "{text}");
        drop(gateway);
        let defaults = "hedge_after = \"50ms\"\n";
        let gateway = Gateway::start(driver, &providers(defaults, &[slow, second.addr]));
        let answer = ask(gateway.addr, &chat(true, ""));
        assert_eq!(answer.text(), expected("p1"), "{driver:?}");
        let ledger = &gateway.ledgers(1)[0];
        assert_eq!(ledger.attempts[0].outcome().to_string(), "lost_race", "{driver:?}");
        assert!(ledger.attempts[1].hedge);
    });
}
