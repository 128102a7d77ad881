//! Every way in which the sandbox misbehaves, as a primary behind the gateway.

use std::sync::atomic::{AtomicUsize, Ordering};

use firstbyte::app::sandbox::Sandbox;
use firstbyte::rt::uring::Loop;

use crate::client::{Response, ask, post};
use crate::pairs::{Place, places};
use crate::rig::{Driver, Gateway, PATIENCE, on_both};

/// What a client gets of an answer whose primary does as its script says.
enum Want {
    /// The second provider's answer; the ledger names this outcome for the first.
    Second(&'static str),
    /// The first provider's answer, whole.
    First,
    /// The first provider's answer, cut honestly, with this code.
    Cut(&'static str),
    /// An error of the client's, with this status.
    Error(u16),
}

/// Longer than anything takes on a machine that is busy with the tests beside this one. What hangs has a
/// limit of its own.
const TIMES: &str = "connect_timeout = \"60s\"\nhead_timeout = \"60s\"\nfirst_content_timeout = \"60s\"\n\
    idle_timeout = \"60s\"\nanswer_timeout = \"60s\"\nbreaker = \"off\"\nfirst_content_deadline = \"60s\"\n\
    retry_budget = { ratio = 1.0, floor = 100000, window = \"10s\" }\n";

const SCRIPTS: &[(&str, Want)] = &[
    ("ok", Want::First),
    ("ok,tokens=40", Want::First),
    ("ok,split=300", Want::First),
    ("ok,at_once", Want::First),
    ("ok,crlf", Want::First),
    ("ok,early_100=3", Want::First),
    ("ok,framing=close", Want::First),
    ("ok,close_after", Want::First),
    ("ok,close_after=rst", Want::First),
    ("ok,reasoning=2", Want::First),
    ("ok,no_done", Want::First),
    ("reset_reused", Want::First),
    ("500", Want::Second("500")),
    ("502", Want::Second("502")),
    ("503,retry_after=1s", Want::Second("503")),
    ("429,retry_after=1s", Want::Second("429")),
    ("401", Want::Second("401")),
    ("404", Want::Second("404")),
    ("insufficient_quota", Want::Second("429")),
    ("html_502", Want::Second("502")),
    ("redirect", Want::Second("307")),
    ("reset", Want::Second("reset")),
    ("reset,at=head", Want::Second("reset")),
    ("hang", Want::Second("head_timeout")),
    ("hang,at=head", Want::Second("first_content_timeout")),
    ("hang,at=head,ping=20ms", Want::Second("first_content_timeout")),
    ("hang,event=1", Want::Second("first_content_timeout")),
    ("empty", Want::Second("truncated")),
    ("garbage", Want::Second("malformed")),
    ("two_lengths", Want::Second("malformed")),
    ("error_first", Want::Second("error_event")),
    ("malformed_at=1", Want::Second("bad_frame")),
    ("cut_event=1", Want::Second("eof")),
    ("cut_event=1,how=rst", Want::Second("reset")),
    ("cut_byte=20", Want::Second("eof")),
    ("bad_chunk_at=1", Want::Second("malformed")),
    ("giant_at=1,size=9MiB", Want::Second("frame_too_large")),
    ("context_length", Want::Second("400")),
    ("400", Want::Error(400)),
    ("422", Want::Error(422)),
    ("content_policy", Want::Error(400)),
    ("error_at=4", Want::Cut("stream_interrupted")),
    ("malformed_at=4", Want::Cut("stream_interrupted")),
    ("giant_at=4,size=9MiB", Want::Cut("stream_interrupted")),
    ("bad_chunk_at=4", Want::Cut("stream_interrupted")),
    ("cut_event=4", Want::Cut("stream_interrupted")),
    ("cut_event=4,how=rst", Want::Cut("stream_interrupted")),
    ("no_finish", Want::Cut("stream_interrupted")),
    ("hang,event=4", Want::Cut("stream_timeout")),
    ("hang,event=4,ping=20ms", Want::Cut("stream_timeout")),
];

/// The script of each item as a model whose first target does as it says.
fn gateway(driver: Driver, sandbox: &Sandbox, items: &[(Place, usize)]) -> Gateway {
    let mut text = format!("[defaults]\n{TIMES}\n");
    text += &places().0[0].section("b", sandbox.addrs[1]);
    let mut named: Vec<&str> = Vec::new();
    for (place, script) in items {
        let name = place.name;
        if !named.contains(&name) {
            named.push(name);
            text += &place.section(&format!("a-{name}"), sandbox.addrs[0]);
        }
        let (script_text, want) = &SCRIPTS[*script];
        let limit = match want {
            Want::Second(outcome) if outcome.ends_with("_timeout") => {
                format!(", {outcome} = \"300ms\"")
            }
            Want::Cut("stream_timeout") => String::from(", idle_timeout = \"300ms\""),
            _ => String::new(),
        };
        let first = place.model(script_text);
        let first = format!("{{ target = \"a-{name}/{first}\"{limit} }}");
        let targets = format!("[{first}, \"b/ok,text=the second\"]");
        text += &format!("[models.{name}-{script}]\ntargets = {targets}\n");
    }
    Gateway::start(driver, &text)
}

/// What comes of a script in a format, where that is not the same as in OpenAI's.
fn of_format(place: &Place, script: &str) -> Option<Want> {
    let claude = place.name == "vertex-claude" || place.name == "invoke";
    match script {
        // The last event is what tells the end, not the finish reason.
        "ok,no_done" if claude || matches!(place.kind, "anthropic" | "openai-responses") => {
            Some(Want::Cut("stream_interrupted"))
        }
        // An exception has a name, and so has its fault.
        "error_first" if place.kind.starts_with("bedrock") => Some(Want::Second("unavailable")),
        _ => None,
    }
}

fn check(answer: &Response, want: &Want, case: &str) {
    let text = answer.text();
    let attempts = answer.field("x-firstbyte-attempts").unwrap_or_default();
    let first = attempts.split(';').nth(1).unwrap_or_default();
    match want {
        Want::First | Want::Second(_) => {
            let outcome = if let Want::Second(outcome) = want { outcome } else { "ok" };
            assert_eq!((answer.status, first), (200, outcome), "{case}");
            assert!(text.ends_with("data: [DONE]\n\n") && !text.contains("\"error\""), "{case}");
            let second = text.contains("second");
            assert_eq!(second, matches!(want, Want::Second(_)), "{case}");
        }
        Want::Cut(code) => {
            assert_eq!((answer.status, first), (200, "ok"), "{case}");
            assert!(answer.whole && text.contains(code), "{case}");
            assert_eq!(text.matches("\"error\"").count(), 1, "{case}");
            assert!(!text.contains("[DONE]") && !text.contains("second"), "{case}");
        }
        Want::Error(status) => {
            assert_eq!(answer.status, *status, "{case}");
            assert!(answer.json()["error"]["message"].is_string(), "{case}");
            assert!(!attempts.contains("b/ok"), "{case}");
        }
    }
}

#[test]
fn each_script_comes_out_as_it_must() {
    let openai = places().0[0];
    let items: Vec<_> = (0..SCRIPTS.len()).map(|script| (openai, script)).collect();
    on_both(|driver| play(driver, &items));
}

#[test]
fn each_script_comes_out_as_it_must_in_every_format() {
    let (places, _) = places();
    // Giants keep a debug build too busy for the times of the others.
    let scripts = (0..SCRIPTS.len()).filter(|i| !SCRIPTS[*i].0.starts_with("giant"));
    let of = |script| places[1..].iter().map(move |place| (*place, script));
    let items: Vec<_> = scripts.flat_map(of).collect();
    play(Driver::Epoll, &items);
}

fn play(driver: Driver, items: &[(Place, usize)]) {
    let sandbox = Sandbox::start_on(2, move || match driver {
        Driver::IoUring => Loop::io_uring(),
        Driver::Epoll => Loop::epoll(),
    })
    .unwrap();
    let gateway = gateway(driver, &sandbox, items);
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some((place, index)) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (script, want) = &SCRIPTS[*index];
            let own = of_format(place, script);
            let body = format!(
                "{{\"model\":\"{}-{index}\",\"messages\":[{{\"role\":\"user\",\"content\":\"hi\"}}],\"stream\":true}}",
                place.name
            );
            let answer = ask(gateway.addr, &post("/v1/chat/completions", "", &body));
            let told = format!("{} {}", answer.head, answer.text());
            let case = format!("{driver:?} {} {script}: {told}", place.name);
            check(&answer, own.as_ref().unwrap_or(want), &case);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(work);
        }
    });
    // Whatever was given up was closed, as the provider itself saw it.
    drop(gateway);
    for provider in [sandbox.provider(0), sandbox.provider(1)] {
        let closed = provider.wait(PATIENCE, |log| {
            log.connections.iter().all(|c| c.closed.is_some() || c.peer_closed.is_some())
        });
        assert!(closed, "{driver:?}: a connection was left open");
    }
}
