//! Clients that leave, cores that drain, tasks that panic.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use firstbyte::exchange::ledger::Ending;
use firstbyte::net::beacon::Level;
use firstbyte::net::core::End;

use crate::client::{Client, ask, chat, post};
use crate::fallback::{event, expected, good};
use crate::rig::{Gateway, PATIENCE, Provider, on_both, providers, read};

/// Where the provider is when the client leaves.
const PLACES: [(&str, &str); 4] = [
    ("waiting for the head", ""),
    ("held", "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"),
    ("streaming", "STREAM"),
    ("not streaming", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{"),
];

#[test]
fn a_client_that_leaves_closes_its_attempt_in_every_phase() {
    on_both(|driver| {
        for (place, says) in PLACES {
            let (reached_tx, reached) = channel();
            let (closed_tx, closed) = channel();
            let (reached_tx, closed_tx) = (Mutex::new(reached_tx), Mutex::new(closed_tx));
            let primary = Provider::start(move |call| {
                let call = call.as_mut().unwrap();
                match says {
                    "STREAM" => {
                        call.say("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n");
                        call.say(event("{\"content\":\"begun\"}"));
                    }
                    _ => {
                        call.say(says);
                    }
                }
                reached_tx.lock().unwrap().send(()).unwrap();
                call.until_closed();
                closed_tx.lock().unwrap().send(Instant::now()).unwrap();
                false
            });
            let second = Provider::saying(good("p1"));
            let gateway = Gateway::start(driver, &providers("", &[primary.addr, second.addr]));
            let mut took = Vec::new();
            for round in 0..30 {
                let mut client = Client::connect(gateway.addr);
                client.send(chat(place != "not streaming", ""));
                reached.recv_timeout(PATIENCE).unwrap();
                if place == "streaming" {
                    client.receive_until("begun");
                }
                let left = Instant::now();
                drop(client);
                let at = closed.recv_timeout(PATIENCE).unwrap();
                took.push(at.saturating_duration_since(left));
                let ledger = gateway.ledgers(round + 1).pop().unwrap();
                assert_eq!(ledger.ending, Ending::Gone, "{driver:?} {place}");
                assert_eq!(
                    ledger.attempts.len(),
                    1,
                    "nothing further is tried: {driver:?} {place}"
                );
                let status = if place == "streaming" { 200 } else { 499 };
                assert_eq!(ledger.status, status, "{driver:?} {place}");
            }
            took.sort();
            println!(
                "{driver:?}, client leaves while {place}: closed upstream after {:?} (median), {:?} (slowest of 30)",
                took[15], took[29]
            );
            assert!(second.accepted.lock().unwrap().try_recv().is_err(), "{driver:?} {place}");
        }
    });
}

#[test]
fn a_client_that_leaves_while_dialling_gives_the_dial_up() {
    on_both(|driver| {
        // TCP is accepted, the TLS handshake never answers: the dial is under way.
        let (closed_tx, closed) = channel();
        let closed_tx = Mutex::new(closed_tx);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (reached_tx, reached) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut hello = [0; 4096];
                read(&mut stream, &mut hello).unwrap();
                reached_tx.send(()).unwrap();
                while matches!(read(&mut stream, &mut hello), Ok(n) if n > 0) {}
                closed_tx.lock().unwrap().send(()).unwrap();
            }
        });
        let config = format!(
            "[providers.p0]\nkind = \"openai\"\nbase_url = \"https://localhost:{}/v1\"\n[models.m]\ntargets = [\"p0/up\"]\n",
            addr.port()
        );
        let gateway = Gateway::start(driver, &config);
        for round in 0..10 {
            let mut client = Client::connect(gateway.addr);
            client.send(chat(true, ""));
            reached.recv_timeout(PATIENCE).unwrap();
            drop(client);
            closed.recv_timeout(PATIENCE).expect("the dial is given up");
            let ledger = gateway.ledgers(round + 1).pop().unwrap();
            assert_eq!((ledger.ending, ledger.status), (Ending::Gone, 499), "{driver:?}");
        }
    });
}

#[test]
fn draining_lets_exchanges_end_and_closes_what_is_idle() {
    on_both(|driver| {
        let go = Arc::new(AtomicBool::new(false));
        let gate = go.clone();
        let provider = Provider::start(move |call| {
            let call = call.as_mut().unwrap();
            let whole = good("p0");
            let at = whole.find(" and more").unwrap();
            call.say(&whole[..at]);
            while !gate.load(Ordering::SeqCst) {
                std::thread::yield_now();
            }
            call.say(&whole[at..])
        });
        let mut gateway = Gateway::start(driver, &providers("", &[provider.addr]));
        let mut idle = Client::connect(gateway.addr);
        idle.send("GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n");
        assert_eq!(idle.receive().status, 200);
        let mut busy = Client::connect(gateway.addr);
        busy.send(chat(true, ""));
        busy.receive_until("hello from p0");
        gateway.raise(Level::Draining);
        assert!(idle.is_closed(), "{driver:?}");
        go.store(true, Ordering::SeqCst);
        assert_eq!(busy.receive().text(), expected("p0"), "{driver:?}");
        assert!(busy.is_closed(), "{driver:?}");
        assert_eq!(gateway.join(), End::Drained, "{driver:?}");
    });
}

#[test]
fn a_client_that_reads_slowly_and_steadily_is_not_gone() {
    on_both(|driver| {
        // More than any socket buffer takes at once.
        let event = |text: &str| {
            format!(
                "data: {{\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{text}\"}},\"finish_reason\":null}}]}}\n\n"
            )
        };
        let end = "data: {\"id\":\"c\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: [DONE]\n\n";
        let sse = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n";
        let answer = format!("{sse}{}{end}", event(&"x".repeat(2000)).repeat(6000));
        let provider = Provider::saying(answer);
        let config = String::from("write_timeout = \"1s\"\n") + &providers("", &[provider.addr]);
        let gateway = Gateway::start(driver, &config);
        let mut client = Client::connect(gateway.addr);
        client.send(chat(true, ""));
        let (began, pause) = (Instant::now(), channel::<()>());
        while began.elapsed() < Duration::from_secs(3) {
            client.receive_some(16 * 1024);
            // The pace is what is tested.
            let _ = pause.1.recv_timeout(Duration::from_millis(25));
        }
        let text = client.receive().text();
        let ledger = &gateway.ledgers(1)[0];
        let end = &text[text.len().saturating_sub(200)..];
        assert!(text.ends_with("data: [DONE]\n\n"), "{driver:?}: {end} {ledger:?}");
        assert_eq!(gateway.ledgers(1)[0].ending, Ending::Good, "{driver:?}");
    });
}

#[test]
fn stopping_cuts_honestly() {
    on_both(|driver| {
        let provider = Provider::start(|call| {
            let call = call.as_mut().unwrap();
            let whole = good("p0");
            call.say(&whole[..whole.find(" and more").unwrap()]);
            call.until_closed();
            false
        });
        let hanging = Provider::start(|call| {
            call.as_mut().unwrap().until_closed();
            false
        });
        let config =
            providers("", &[provider.addr, hanging.addr]) + "[models.n]\ntargets = [\"p1/up\"]\n";
        let mut gateway = Gateway::start(driver, &config);
        let mut begun = Client::connect(gateway.addr);
        begun.send(chat(true, ""));
        begun.receive_until("hello from p0");
        let mut waiting = Client::connect(gateway.addr);
        waiting.send(chat(true, "").replace("\"m\"", "\"n\""));
        hanging.accepted.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        gateway.raise(Level::Stopping);
        let cut = begun.receive().text();
        assert!(cut.contains("stream_interrupted") && !cut.contains("[DONE]"), "{driver:?}: {cut}");
        let answer = waiting.receive();
        assert_eq!((answer.status, answer.field("connection")), (503, Some("close")), "{driver:?}");
        assert_eq!(gateway.join(), End::Drained, "{driver:?}");
    });
}

#[test]
fn a_panic_costs_the_core_its_connections_and_nothing_else() {
    on_both(|driver| {
        let provider = Provider::saying(good("p0"));
        let mut gateway = Gateway::start(driver, &providers("", &[provider.addr]));
        assert_eq!(ask(gateway.addr, &chat(true, "")).text(), expected("p0"));
        gateway.notes.panic_next.store(true, Ordering::SeqCst);
        let mut client = Client::connect(gateway.addr);
        client.send(chat(true, ""));
        assert!(client.is_closed(), "{driver:?}");
        // The core ends in good order; starting it anew is its supervisor's part.
        assert_eq!(gateway.join(), End::Panicked, "{driver:?}");
        assert_eq!(gateway.notes.open.load(Ordering::SeqCst), 0, "{driver:?}");
    });
}

#[test]
fn a_panic_tells_no_secret() {
    let heard = Arc::new(Mutex::new(String::new()));
    let (listens, usual) = (heard.clone(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        listens.lock().unwrap().push_str(&panic.to_string());
        usual(panic);
    }));
    on_both(|driver| {
        let provider = Provider::saying(good("canary-answer"));
        let config = String::from("[auth]\nkeys = [{ name = \"app\", key = \"env:KEY\" }]\n")
            + &providers("", &[provider.addr]);
        let mut gateway = Gateway::start(driver, &config);
        gateway.notes.panic_at_end.store(true, Ordering::SeqCst);
        let mut client = Client::connect(gateway.addr);
        let body = "{\"model\":\"m\",\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"canary\"}]}";
        let key = "authorization: Bearer secret-key\r\n";
        client.send(post("/v1/chat/completions", key, body));
        assert_eq!(gateway.join(), End::Panicked, "{driver:?}");
    });
    let heard = heard.lock().unwrap();
    assert!(heard.contains("a panic on purpose: Ledger"), "{heard}");
    assert!(heard.contains("ending: Good"), "{heard}");
    for canary in ["secret-key", "canary"] {
        assert!(!heard.contains(canary), "{canary}: {heard}");
    }
}

#[test]
fn several_addresses_are_tried_within_one_attempt() {
    on_both(|driver| {
        let provider = Provider::saying(good("p0"));
        let config = |host: &str| {
            format!(
                "[providers.p0]\nkind = \"openai\"\nbase_url = \"http://{host}:{}/v1\"\n[models.m]\ntargets = [\"p0/up\"]\n",
                provider.addr.port()
            )
        };
        let gateway = Gateway::start(driver, &config("several.test"));
        let answer = ask(gateway.addr, &chat(true, ""));
        assert_eq!(answer.text(), expected("p0"), "{driver:?}");
        assert_eq!(gateway.ledgers(1)[0].attempts.len(), 1, "{driver:?}");
        // A name without an address is a failed attempt with a name of its own.
        let gateway = Gateway::start(driver, &config("unknown.test"));
        let answer = ask(gateway.addr, &chat(true, ""));
        assert_eq!(answer.status, 502, "{driver:?}");
        assert!(answer.field("x-firstbyte-attempts").unwrap().starts_with("p0/up;dns;"));
    });
}
