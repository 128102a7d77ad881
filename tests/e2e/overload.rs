//! Too much, too slow, too long: what is shed, how it is told, and what goes on meanwhile.

use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use firstbyte::base::limits;
use firstbyte::exchange::ledger::Ending;
use firstbyte::net::load::Shed;

use crate::client::{Client, ask, chat, post};
use crate::fallback::{event, events, expected, good, stream};
use crate::rig::{Gateway, PATIENCE, Provider, on_both, providers, read, wait_for};

const MODELS: &str = "GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n";

/// A provider that answers once the gate is open, and tells of each request.
fn gated() -> (Provider, Arc<AtomicBool>, Receiver<()>) {
    let gate = Arc::new(AtomicBool::new(false));
    let (open, (reached_tx, reached)) = (gate.clone(), channel());
    let reached_tx = Mutex::new(reached_tx);
    let provider = Provider::start(move |call| {
        let _ = reached_tx.lock().unwrap().send(());
        while !open.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        call.as_mut().unwrap().say(good("p0"))
    });
    (provider, gate, reached)
}

/// Sends piece by piece with a pause before each, until the gateway answers or all is sent. The pace is
/// what is tested.
fn drip(client: &mut Client, bytes: &str, piece: usize, pause: Duration) {
    let clock = channel::<()>();
    for piece in bytes.as_bytes().chunks(piece) {
        let _ = clock.1.recv_timeout(pause);
        client.send_as_far_as_it_goes(piece);
        if client.has_bytes() {
            return;
        }
    }
}

#[test]
fn drips_that_progress_are_cut() {
    on_both(|driver| {
        let config = "head_timeout = \"600s\"\nbody_timeout = \"600s\"\nrate_min = \"100B\"\n\
                      rate_grace = \"500ms\"\n";
        let config = config.to_owned() + &providers("", &[Provider::refusing()]);
        let gateway = Gateway::start(driver, &config);
        let pause = Duration::from_millis(50);
        let long = format!("GET /v1/models HTTP/1.1\r\nhost: x\r\nx-pad: {}", "x".repeat(60_000));
        let whole = post("/v1/chat/completions", "", &" ".repeat(60_000));
        let at = whole.find("\r\n\r\n").unwrap() + 4;
        for (at_once, dripped, what) in
            [("", &*long, "request head"), (&whole[..at], &whole[at..], "request body")]
        {
            let mut client = Client::connect(gateway.addr);
            client.send(at_once);
            drip(&mut client, dripped, 1, pause);
            let answer = client.receive();
            assert_eq!(answer.status, 408, "{driver:?} {what}: {answer:?}");
            assert!(answer.text().contains(what), "{driver:?}: {answer:?}");
            assert_eq!(answer.field("connection"), Some("close"), "{driver:?}");
            assert!(client.is_closed_or_reset(), "{driver:?} {what}");
        }
        assert_eq!(gateway.notes.too_slow.load(Ordering::SeqCst), 2, "{driver:?}");
    });
}

#[test]
fn a_slow_and_fair_client_is_served() {
    on_both(|driver| {
        let provider = Provider::saying(good("p0"));
        let config = "rate_min = \"20B\"\nrate_grace = \"2s\"\n".to_owned();
        let gateway = Gateway::start(driver, &(config + &providers("", &[provider.addr])));
        // Ten times the least rate, for longer than the grace: head and body.
        let mut client = Client::connect(gateway.addr);
        let body = format!(
            "{{\"model\":\"m\",\"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"{}\"}}]}}",
            "x".repeat(400)
        );
        let request =
            post("/v1/chat/completions", &format!("x-pad: {}\r\n", "x".repeat(400)), &body);
        drip(&mut client, &request, 10, Duration::from_millis(50));
        assert_eq!(client.receive().text(), expected("p0"), "{driver:?}");
    });
}

#[test]
fn idle_connections_are_closed() {
    on_both(|driver| {
        let config = String::from("keep_alive = \"100ms\"\n");
        let gateway = Gateway::start(driver, &(config + &providers("", &[Provider::refusing()])));
        let mut silent = Client::connect(gateway.addr);
        assert!(silent.is_closed(), "{driver:?}");
        let mut used = Client::connect(gateway.addr);
        used.send(MODELS);
        assert_eq!(used.receive().status, 200, "{driver:?}");
        assert!(used.is_closed(), "{driver:?}");
    });
}

#[test]
fn connections_over_the_limit_are_turned_away() {
    on_both(|driver| {
        let config = String::from("connections_max = 2\n");
        let gateway = Gateway::start(driver, &(config + &providers("", &[Provider::refusing()])));
        let mut held: Vec<_> = (0..2).map(|_| Client::connect(gateway.addr)).collect();
        for client in &mut held {
            client.send(MODELS);
            assert_eq!(client.receive().status, 200, "{driver:?}");
        }
        refused(gateway.addr, [127, 0, 0, 1]);
        assert_eq!(gateway.notes.shed(Shed::Connections), 1, "{driver:?}");
        held.pop();
        served_again(gateway.addr, [127, 0, 0, 1]);
    });
}

#[test]
fn one_client_can_not_take_all_connections() {
    on_both(|driver| {
        let config = String::from("connections_per_client = 2\n");
        let gateway = Gateway::start(driver, &(config + &providers("", &[Provider::refusing()])));
        let (one, other) = ([127, 0, 0, 2], [127, 0, 0, 3]);
        let mut held: Vec<_> = (0..2).map(|_| Client::connect_from(one, gateway.addr)).collect();
        for client in &mut held {
            client.send(MODELS);
            assert_eq!(client.receive().status, 200, "{driver:?}");
        }
        refused(gateway.addr, one);
        assert_eq!(gateway.notes.shed(Shed::Client), 1, "{driver:?}");
        let mut client = Client::connect_from(other, gateway.addr);
        client.send(MODELS);
        assert_eq!(client.receive().status, 200, "{driver:?}: another one is served");
        held.pop();
        served_again(gateway.addr, one);
    });
}

/// A connection over a limit is told so once it asks, whole, and closed.
fn refused(addr: SocketAddr, from: [u8; 4]) {
    let mut client = Client::connect_from(from, addr);
    client.send(MODELS);
    let answer = client.receive();
    assert_eq!((answer.status, answer.field("retry-after")), (503, Some("1")), "{answer:?}");
    assert_eq!(answer.json()["error"]["code"], "overloaded");
    assert!(client.is_closed());
}

fn served_again(addr: SocketAddr, from: [u8; 4]) {
    wait_for("a free place", || {
        let mut client = Client::connect_from(from, addr);
        client.send(MODELS);
        (client.receive().status == 200).then_some(())
    });
}

#[test]
fn a_request_too_many_is_shed_and_its_connection_stays() {
    on_both(|driver| {
        let (provider, gate, reached) = gated();
        let config = String::from("in_flight_max = 1\n") + &providers("", &[provider.addr]);
        let gateway = Gateway::start(driver, &config);
        let mut first = Client::connect(gateway.addr);
        first.send(chat(true, ""));
        reached.recv_timeout(PATIENCE).unwrap();
        let mut second = Client::connect(gateway.addr);
        for _ in 0..3 {
            second.send(chat(true, ""));
            let answer = second.receive();
            assert_eq!(
                (answer.status, answer.field("retry-after")),
                (503, Some("1")),
                "{driver:?}"
            );
            assert_eq!(answer.json()["error"]["code"], "overloaded", "{driver:?}");
            assert_eq!(answer.field("connection"), None, "{driver:?}");
        }
        // What is answered from the config alone is answered.
        second.send(MODELS);
        assert_eq!(second.receive().status, 200, "{driver:?}");
        // In its client's dialect.
        second.send(post("/v1/messages", "", "{\"model\":\"m\",\"max_tokens\":1,\"messages\":[]}"));
        let json = second.receive().json();
        let kind = (json["type"].as_str(), json["error"]["type"].as_str());
        assert_eq!(kind, (Some("error"), Some("overloaded_error")), "{driver:?}: {json}");
        // A body that is not read costs the connection.
        let chunked =
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
        let mut third = Client::connect(gateway.addr);
        third.send(chunked);
        let answer = third.receive();
        assert_eq!((answer.status, answer.field("connection")), (503, Some("close")), "{driver:?}");
        assert!(third.is_closed(), "{driver:?}");
        assert_eq!(gateway.notes.shed(Shed::InFlight), 5, "{driver:?}");
        assert_eq!(
            gateway.notes.fresh.load(Ordering::SeqCst),
            1,
            "{driver:?}: nothing was dialled"
        );
        gate.store(true, Ordering::SeqCst);
        assert_eq!(first.receive().text(), expected("p0"), "{driver:?}");
        wait_for("a free place", || {
            second.send(chat(true, ""));
            (second.receive().text() == expected("p0")).then_some(())
        });
    });
}

#[test]
fn a_key_can_not_take_all_places() {
    on_both(|driver| {
        let (provider, gate, reached) = gated();
        // Of two keys, one is limited. The rig resolves every variable to the same secret.
        let config = providers("", &[provider.addr])
            + "[auth]\nkeys = [{ name = \"limited\", key = \"env:KEY\", in_flight_max = 1 }, \
               { name = \"free\", sha256 = \"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08\" }]\n";
        let gateway = Gateway::start(driver, &config);
        let limited = chat(true, "authorization: Bearer secret-key\r\n");
        let free = chat(true, "authorization: Bearer test\r\n");
        let mut first = Client::connect(gateway.addr);
        first.send(&limited);
        reached.recv_timeout(PATIENCE).unwrap();
        let answer = ask(gateway.addr, &limited);
        assert_eq!((answer.status, answer.field("retry-after")), (429, Some("1")), "{driver:?}");
        assert_eq!(answer.json()["error"]["code"], "rate_limit_exceeded", "{driver:?}");
        assert_eq!(gateway.notes.shed(Shed::Key), 1, "{driver:?}");
        let mut other = Client::connect(gateway.addr);
        other.send(&free);
        reached.recv_timeout(PATIENCE).expect("the other key's request goes on");
        gate.store(true, Ordering::SeqCst);
        assert_eq!(first.receive().text(), expected("p0"), "{driver:?}");
        assert_eq!(other.receive().text(), expected("p0"), "{driver:?}");
        wait_for("a free place", || (ask(gateway.addr, &limited).status == 200).then_some(()));
    });
}

#[test]
fn short_memory_sheds_bodies_and_streams_go_on() {
    on_both(|driver| {
        let (provider, gate, reached) = gated();
        let gateway = Gateway::start(driver, &providers("", &[provider.addr]));
        let mut stream = Client::connect(gateway.addr);
        stream.send(chat(true, ""));
        reached.recv_timeout(PATIENCE).unwrap();
        // One body is half here when memory runs short.
        let mut half = Client::connect(gateway.addr);
        let long = post("/v1/chat/completions", "", &" ".repeat(400_000));
        half.send(&long[..200_000]);
        gateway.shared.load.tell_resident(2, 1);
        let answer = ask(gateway.addr, &chat(true, ""));
        assert_eq!((answer.status, answer.field("retry-after")), (503, Some("1")), "{driver:?}");
        assert_eq!(ask(gateway.addr, MODELS).status, 200, "{driver:?}: nothing is kept for it");
        half.send_as_far_as_it_goes(&long[200_000..]);
        assert_eq!(half.receive().status, 503, "{driver:?}");
        assert_eq!(gateway.notes.shed(Shed::Memory), 2, "{driver:?}");
        gate.store(true, Ordering::SeqCst);
        assert_eq!(stream.receive().text(), expected("p0"), "{driver:?}");
        // What no request holds would never come down by refusing: one at a time goes on.
        wait_for("an answer", || (ask(gateway.addr, &chat(true, "")).status == 200).then_some(()));
        gateway.shared.load.tell_resident(1, 2);
        assert_eq!(ask(gateway.addr, &chat(true, "")).text(), expected("p0"), "{driver:?}");
    });
}

#[test]
fn a_core_that_is_late_sheds_and_recovers() {
    on_both(|driver| {
        let provider = Provider::saying(good("p0"));
        let config = String::from("lag_max = \"60ms\"\n") + &providers("", &[provider.addr]);
        let gateway = Gateway::start(driver, &config);
        gateway.notes.stall.store(true, Ordering::SeqCst);
        // Each request holds the core for 50 ms, and there are always some that wait.
        let done = Arc::new(AtomicBool::new(false));
        let busy: Vec<_> = (0..6)
            .map(|_| {
                let (addr, done) = (gateway.addr, done.clone());
                std::thread::spawn(move || {
                    let mut client = Client::connect(addr);
                    while !done.load(Ordering::SeqCst) {
                        client.send(MODELS);
                        assert_eq!(client.receive().status, 200);
                    }
                })
            })
            .collect();
        let answer = wait_for("a shed request", || {
            let answer = ask(gateway.addr, &chat(true, ""));
            (answer.status == 503).then_some(answer)
        });
        assert_eq!(answer.field("retry-after"), Some("1"), "{driver:?}");
        assert!(gateway.notes.shed(Shed::Lag) > 0, "{driver:?}");
        done.store(true, Ordering::SeqCst);
        gateway.notes.stall.store(false, Ordering::SeqCst);
        busy.into_iter().for_each(|thread| thread.join().unwrap());
        wait_for("an answer", || (ask(gateway.addr, &chat(true, "")).status == 200).then_some(()));
    });
}

/// More come at once than a late core has time to refuse: the rest waits unread, and is answered too.
#[test]
fn a_flood_at_a_late_core_is_answered_to_the_last() {
    on_both(|driver| {
        let provider = Provider::saying(good("p0"));
        let config = String::from("lag_max = \"20ms\"\n") + &providers("", &[provider.addr]);
        let gateway = Gateway::start(driver, &config);
        let mut clients: Vec<_> = (0..1_000).map(|_| Client::connect(gateway.addr)).collect();
        gateway.notes.stall.store(true, Ordering::SeqCst);
        // Each of the first holds the core for 50 ms: it is late when the others come.
        let (first, others) = clients.split_at_mut(10);
        first.iter_mut().for_each(|client| client.send(MODELS));
        others.iter_mut().for_each(|client| client.send(chat(true, "")));
        wait_for("a shed request", || (gateway.notes.shed(Shed::Lag) > 0).then_some(()));
        gateway.notes.stall.store(false, Ordering::SeqCst);
        assert!(first.iter_mut().all(|client| client.receive().status == 200), "{driver:?}");
        let answers: Vec<_> = others.iter_mut().map(|client| client.receive()).collect();
        let served = answers.iter().filter(|answer| answer.status == 200).count();
        let shed = answers.iter().filter(|answer| answer.status == 503).count();
        let waited = gateway.notes.waited.load(Ordering::SeqCst);
        println!("{driver:?}: {served} served, {shed} shed, up to {waited} waited");
        assert_eq!((served + shed, gateway.notes.shed(Shed::Lag)), (others.len(), shed));
    });
}

/// Heads of requests that are refused before their body has come, and with what.
pub fn refused_uploads() -> Vec<(&'static str, String, u16)> {
    let head = |line: &str, fields: &str| {
        format!("{line} HTTP/1.1\r\nhost: x\r\n{fields}content-length: {UPLOAD}\r\n\r\n")
    };
    let key = "authorization: Bearer secret-key\r\n";
    let chat = "POST /v1/chat/completions";
    let chunked = format!(
        "{chat} HTTP/1.1\r\nhost: x\r\n{key}transfer-encoding: chunked\r\n\r\n{UPLOAD:x}\r\n"
    );
    vec![
        ("too large", head(chat, key), 413),
        ("too large a chunk", chunked, 413),
        ("no key", head(chat, ""), 401),
        ("no such path", head("POST /nowhere", key), 404),
        ("no such method", head("DELETE /v1/chat/completions", key), 405),
        ("no such version", head("POST /", key).replace("/1.1", "/3.1"), 505),
        ("two hosts", head(chat, "host: y\r\n"), 400),
        ("an expectation", head(chat, &format!("{key}expect: gold\r\n")), 417),
    ]
}

/// The config that they are refused by.
pub const REFUSING: &str = "body_max = \"64KiB\"\n";
pub const KEYED: &str = "[auth]\nkeys = [{ name = \"one\", key = \"env:KEY\" }]\n";

/// Octets of an upload: far more than the kernels of both ends hold.
pub const UPLOAD: usize = 20 << 20;

/// What is uploaded: requests, in case somebody takes a body for some.
pub fn upload() -> Vec<u8> {
    let smuggled = post("/v1/chat/completions", "authorization: Bearer secret-key\r\n", "{}");
    smuggled.bytes().cycle().take(UPLOAD).collect()
}

#[test]
fn a_refused_upload_gets_its_answer_whole() {
    on_both(|driver| {
        let provider = Provider::saying(good("p0"));
        let config = REFUSING.to_owned() + &providers("", &[provider.addr]) + KEYED;
        let gateway = Gateway::start(driver, &config);
        let body = upload();
        let cases = refused_uploads();
        for (what, head, status) in &cases {
            let mut client = Client::connect(gateway.addr);
            client.send(head);
            assert!(client.send_blindly(&body), "{driver:?}: {what} is reset");
            let answer = client.receive();
            assert_eq!(answer.status, *status, "{driver:?} {what}: {answer:?}");
            assert!(answer.whole && answer.field("connection") == Some("close"), "{answer:?}");
            assert!(client.is_closed(), "{driver:?}: one answer, and an end, to {what}");
        }
        assert_eq!(gateway.ledgers(cases.len()).len(), cases.len(), "{driver:?}");
        assert!(provider.accepted.lock().unwrap().try_recv().is_err(), "{driver:?}");
    });
}

#[test]
fn a_shed_upload_gets_its_answer_whole() {
    on_both(|driver| {
        let (provider, gate, reached) = gated();
        let config = String::from("in_flight_max = 1\n") + &providers("", &[provider.addr]);
        let gateway = Gateway::start(driver, &config);
        // Made before anything is sent: a client that pauses for as long as that takes is given up.
        let body = upload();
        let mut first = Client::connect(gateway.addr);
        first.send(chat(true, ""));
        reached.recv_timeout(PATIENCE).unwrap();
        let mut client = Client::connect(gateway.addr);
        client.send(format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {UPLOAD}\r\n\r\n"
        ));
        assert!(client.send_blindly(&body), "{driver:?}: reset");
        assert_eq!(client.receive().status, 503, "{driver:?}");
        assert!(client.is_closed(), "{driver:?}");
        gate.store(true, Ordering::SeqCst);
        assert_eq!(first.receive().text(), expected("p0"), "{driver:?}");
    });
}

#[test]
fn an_upload_without_end_is_not_read_for_ever() {
    on_both(|driver| {
        let config = REFUSING.to_owned() + &providers("", &[Provider::refusing()]);
        let gateway = Gateway::start(driver, &config);
        let mut client = Client::connect(gateway.addr);
        client.send("POST /nowhere HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n");
        let piece = vec![b'x'; 1 << 20];
        let most = limits::LINGER_BYTES_MAX / piece.len() + 64;
        let sent = (0..most).take_while(|_| client.send_blindly(&piece)).count();
        assert!((20..most).contains(&sent), "{driver:?}: {sent} MiB");
        wait_for("its end", || (gateway.notes.open.load(Ordering::SeqCst) == 0).then_some(()));
    });
}

#[test]
fn a_half_close_is_what_the_config_says() {
    on_both(|driver| {
        for serve in [false, true] {
            let (provider, gate, reached) = gated();
            let word = if serve { "serve" } else { "cancel" };
            let config = format!("half_close = \"{word}\"\n") + &providers("", &[provider.addr]);
            let gateway = Gateway::start(driver, &config);
            let mut client = Client::connect(gateway.addr);
            client.send(chat(true, ""));
            reached.recv_timeout(PATIENCE).unwrap();
            client.stream.shutdown(Shutdown::Write).unwrap();
            if serve {
                gate.store(true, Ordering::SeqCst);
                assert_eq!(client.receive().text(), expected("p0"), "{driver:?}");
                assert!(client.is_closed(), "{driver:?}");
                assert_eq!(gateway.ledgers(1)[0].ending, Ending::Good, "{driver:?}");
            } else {
                assert!(client.is_closed(), "{driver:?}");
                assert_eq!(gateway.ledgers(1)[0].ending, Ending::Gone, "{driver:?}");
                gate.store(true, Ordering::SeqCst);
            }
        }
    });
}

#[test]
fn a_client_that_stops_reading_is_cut() {
    on_both(|driver| {
        let (closed_tx, closed) = channel();
        let closed_tx = Mutex::new(closed_tx);
        let provider = Provider::start(move |call| {
            let call = call.as_mut().unwrap();
            call.say("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n");
            let event = event(&format!("{{\"content\":\"{}\"}}", "f".repeat(4000)));
            // Until the gateway hangs up.
            while call.say(&event) {}
            closed_tx.lock().unwrap().send(()).unwrap();
            false
        });
        let config = String::from("write_timeout = \"300ms\"\n") + &providers("", &[provider.addr]);
        let gateway = Gateway::start(driver, &config);
        let mut client = Client::connect(gateway.addr);
        client.send(chat(true, ""));
        client.receive_until("fff");
        closed.recv_timeout(PATIENCE).expect("the provider is hung up on");
        assert_eq!(gateway.ledgers(1)[0].ending, Ending::Gone, "{driver:?}");
    });
}

/// A client with little room for what it has not read, so that its reading shows.
fn narrow(addr: SocketAddr) -> Client {
    let kind = socket2::Type::STREAM;
    let socket = socket2::Socket::new(socket2::Domain::IPV4, kind, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.connect(&addr.into()).unwrap();
    Client::of(socket.into())
}

/// A provider that says more than all buffers on the way hold, and then no more.
fn wordy(bytes: usize) -> Provider {
    let text = event(&format!("{{\"content\":\"{}\"}}", "f".repeat(2000)));
    let mut parts = vec![text.clone(); bytes / text.len()];
    parts.extend(events("p0"));
    Provider::saying(stream(&parts))
}

/// Reads some, now and then, until the end or `enough`; says how much. The pace is what is tested.
fn sip(client: &mut Client, bytes: usize, pause: Duration, enough: usize) -> usize {
    let (clock, mut sum, mut sink) = (channel::<()>(), 0, vec![0; bytes]);
    while sum < enough {
        let _ = clock.1.recv_timeout(pause);
        match read(&mut client.stream, &mut sink) {
            Ok(0) | Err(_) => break,
            Ok(count) => sum += count,
        }
    }
    sum
}

#[test]
fn a_client_that_sips_is_left() {
    on_both(|driver| {
        let provider = wordy(8 << 20);
        // It takes 20 KiB a second at most.
        let config =
            "write_timeout = \"600s\"\nread_rate_min = \"200KiB\"\nrate_grace = \"500ms\"\n";
        let gateway =
            Gateway::start(driver, &(config.to_owned() + &providers("", &[provider.addr])));
        let mut client = narrow(gateway.addr);
        client.send(chat(true, ""));
        let all = 8 << 20;
        assert!(sip(&mut client, 1024, Duration::from_millis(50), all) < all, "{driver:?}");
        let ledger = gateway.ledgers(1).remove(0);
        assert_eq!((ledger.ending, ledger.status), (Ending::Slow, 200), "{driver:?}");
        wait_for("its end", || (gateway.notes.open.load(Ordering::SeqCst) == 0).then_some(()));
    });
}

#[test]
fn a_steady_reader_behind_full_buffers_is_not_left() {
    on_both(|driver| {
        let provider = wordy(320 << 10);
        // The kernel takes more only when it has less than 64 KiB: for 6 seconds of this client it takes
        // nothing. Its least rate is a tenth of what it reads.
        let config = "write_timeout = \"3s\"\nread_rate_min = \"1100B\"\nrate_grace = \"3s\"\n";
        let gateway =
            Gateway::start(driver, &(config.to_owned() + &providers("", &[provider.addr])));
        let mut client = narrow(gateway.addr);
        client.send(chat(true, "connection: close\r\n"));
        let slowly = sip(&mut client, 1024, Duration::from_millis(90), 100_000);
        assert!(slowly >= 100_000, "{driver:?}: left after {slowly} octets");
        sip(&mut client, 65_536, Duration::ZERO, usize::MAX);
        assert_eq!(gateway.ledgers(1)[0].ending, Ending::Good, "{driver:?}");
    });
}

#[test]
fn a_client_that_waits_for_a_slow_provider_is_not_left() {
    on_both(|driver| {
        let provider = Provider::start(|call| {
            let (call, clock) = (call.as_mut().unwrap(), channel::<()>());
            // Far below the rate, for many times the grace.
            let whole = good("p0");
            for piece in whole.as_bytes().chunks(whole.len() / 40) {
                let _ = clock.1.recv_timeout(Duration::from_millis(50));
                call.say(piece);
            }
            false
        });
        let config =
            "write_timeout = \"200ms\"\nread_rate_min = \"1MiB\"\nrate_grace = \"200ms\"\n";
        let gateway =
            Gateway::start(driver, &(config.to_owned() + &providers("", &[provider.addr])));
        let answer = ask(gateway.addr, &chat(true, ""));
        assert_eq!(answer.text(), expected("p0"), "{driver:?}");
        assert_eq!(gateway.ledgers(1)[0].ending, Ending::Good, "{driver:?}");
    });
}
