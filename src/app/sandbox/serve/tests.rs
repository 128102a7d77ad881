//! In the simulated world: no operation is ever dropped and nothing is left open, whatever the network
//! and the client do, and the same seed gives the same run.

use std::net::SocketAddr;

use super::*;
use crate::rt::Accept as _;
use crate::rt::sim::{Faults, SimStop, World};

const SCRIPTS: [&str; 8] = [
    "ok,tokens=3",
    "drip=1ms,tokens=1",
    "hang",
    "hang,event=2,ping=5ms",
    "reset,event=2",
    "delay=100ms,tokens=30",
    "giant_at=2,size=256KiB",
    "503",
];

/// One connection of a client that goes after `most` bytes; what it got, and the world's trace.
fn visit(seed: u64, faults: Faults, script: &str, most: usize) -> (Vec<u8>, u64) {
    let world = World::new(seed, faults);
    world.cap_steps(1_000_000);
    let addr: SocketAddr = ([127, 0, 0, 1], 80).into();
    let listener = world.listen(addr);
    let site = Rc::new(Site::new(Arc::new(Provider::new("a"))));
    let (rt, stop, serving) = (world.rt(), SimStop::new(), site.clone());
    world.rt().spawn(async move {
        if let Ok((reader, writer, _)) = listener.accept(stop.handle()).await {
            serve_connection(rt, reader, writer, serving).await;
        }
    });
    let rt = world.rt();
    let body = format!(r#"{{"model":"{script}","stream":true}}"#);
    let head = "POST /v1/chat/completions HTTP/1.1\r\ncontent-length:";
    let request = format!("{head} {}\r\n\r\n{body}", body.len());
    let got = world.block_on(async move {
        let stop = SimStop::new();
        let Ok((mut reader, mut writer)) = rt.dial(addr).await else { return Vec::new() };
        let mut out = Buf::from(request.as_bytes());
        while !out.is_empty() {
            let (result, rest) = writer.write(out, stop.handle()).await;
            out = rest;
            match result {
                Ok(count) if count > 0 => out.consume(count),
                _ => return Vec::new(),
            }
        }
        let mut got = Buf::new();
        while got.len() < most {
            // A server that is silent for that long is not going to speak.
            let mut wait = pin!(rt.sleep_until(rt.now() + crate::base::tick::Ms(5_000)));
            let mut ready = pin!(reader.ready());
            let speaks = std::future::poll_fn(|cx| match ready.as_mut().poll(cx) {
                Poll::Ready(_) => Poll::Ready(true),
                Poll::Pending => wait.as_mut().poll(cx).map(|()| false),
            });
            if !speaks.await {
                break;
            }
            got.reserve(most - got.len());
            let (result, buf) = reader.read(got, stop.handle()).await;
            got = buf;
            if !result.is_ok_and(|count| count > 0) {
                break;
            }
        }
        got.as_slice().to_vec()
    });
    world.settle();
    let log = site.provider.log();
    // Nobody came if the dial failed: the accept goes on then.
    let accepting = usize::from(log.accepted() == 0);
    let left = (world.open_sockets(), world.pending_ops(), world.lost_ops());
    assert_eq!(left, (0, accepting, 0), "{}", world.report(script));
    assert!(site.is_idle(), "{}", world.report(script));
    assert!(log.connections.iter().all(|c| c.closed.is_some()), "{}", world.report(script));
    assert!(log.requests.iter().all(|r| r.ended.is_some()), "{}", world.report(script));
    (got, world.trace_hash())
}

#[test]
fn nothing_is_lost_or_left_in_a_hostile_world() {
    let mut served = 0;
    for seed in 0..96 {
        let mut rng = crate::base::rng::Rng::new(seed);
        // A dial into nowhere would show nothing of the provider.
        let faults = Faults { dial_lost: 0, ..Faults::swarm(&mut rng) };
        let script = SCRIPTS[seed as usize % SCRIPTS.len()];
        let most = 1 + rng.below(6_000) as usize;
        let (got, trace) = visit(seed, faults.clone(), script, most);
        served += usize::from(!got.is_empty());
        assert_eq!(visit(seed, faults, script, most), (got, trace), "seed {seed} runs twice alike");
    }
    assert!(served > 24, "most of it never came to an answer: {served}");
}

#[test]
fn a_kind_world_gets_whole_answers() {
    for (script, end) in [
        ("ok,tokens=3", "data: [DONE]\n\n\r\n0\r\n\r\n"),
        ("drip=1ms,tokens=1", "0\r\n\r\n"),
        ("giant_at=2,size=256KiB", "0\r\n\r\n"),
        ("503", "}"),
    ] {
        let (got, _) = visit(1, Faults::none(), script, usize::MAX >> 40);
        let text = String::from_utf8_lossy(&got);
        assert!(text.ends_with(end), "{script}: {text}");
    }
    let (got, _) = visit(1, Faults::none(), "hang,event=2,ping=5ms", 4096);
    assert!(String::from_utf8_lossy(&got).contains("8\r\n: ping\n\n\r\n"));
}
