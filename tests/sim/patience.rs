//! Worlds in which nothing fails and much is slow: paced providers, clients that read in their own time,
//! small buffers, a throughput floor. Whoever is well served here must be left alone: every answer
//! comes whole from the first target, and nobody is blamed.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use firstbyte::base::buf::Buf;
use firstbyte::base::ids::CoreId;
use firstbyte::base::rng::Rng;
use firstbyte::base::tick::Ms;
use firstbyte::config;
use firstbyte::exchange::ledger::Ending;
use firstbyte::net::beacon::Level;
use firstbyte::net::core::{self, Shared, Snapshot};
use firstbyte::net::names::Names;
use firstbyte::route;
use firstbyte::rt::sim::{Faults, SimReader, SimRt, SimStop, SimWriter, World};
use firstbyte::rt::{Accept as _, Reader as _, Rt, Stop as _};

use super::{Answer, Notes, event, number, receive, send};

/// Content events of an answer, and the bytes of each one's text: together more than waits for a client
/// before the provider is no longer read.
const EVENTS: usize = 160;
const TEXT_BYTES: usize = 900;

/// The slowest client reads, through the smallest buffer, some 300 bytes a second.
const CONFIG: &str = "
[server]
listen = [\"127.0.0.1:80\"]
admin = \"off\"
read_rate_min = \"64B\"
[defaults]
first_content_timeout = \"2s\"
idle_timeout = \"2s\"
total_timeout = \"600s\"
throughput_floor = 2
";

/// At least this many content events a second: above the floor, whatever the pace.
const PAUSE_MAX_MS: u32 = 400;

#[test]
fn whoever_is_slow_and_well_is_left_alone() {
    let seeds = number("SIM_SEEDS").unwrap_or(256).div_ceil(8);
    let (mut exchanges, mut slowest) = (0, 0);
    for seed in number("SIM_SEED").map_or(0..seeds, |seed| seed..seed + 1) {
        let (count, lasted) = run(seed);
        exchanges += count;
        slowest = slowest.max(lasted);
    }
    println!("{exchanges} patient exchanges, the longest took {slowest} simulated ms");
    // A world in which nobody waits proves nothing.
    assert!(slowest > 10_000);
}

fn answer() -> Vec<String> {
    let text = "x".repeat(TEXT_BYTES);
    let mut all = vec![event("a", "\"delta\":{\"role\":\"assistant\",\"content\":\"\"}")];
    for index in 0..EVENTS {
        all.push(event("a", &format!("\"delta\":{{\"content\":\"{index} {text}\"}}")));
    }
    all.push(event("a", "\"delta\":{},\"finish_reason\":\"stop\""));
    all.push(String::from("data: [DONE]\n\n"));
    all
}

/// A provider that takes its time, and never too much of it.
async fn provide(rt: SimRt, mut reader: SimReader, mut writer: SimWriter, seed: u64) {
    let (mut rng, mut rx) = (Rng::new(seed), Buf::new());
    while receive(&mut reader, &mut rx).await.is_some() {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        if !send(&mut writer, head.as_bytes()).await {
            return;
        }
        // Together at once, or one by one; pings now and then.
        let paced = rng.one_in(2);
        for event in answer() {
            let ping = if rng.one_in(10) { ": ping\n\n" } else { "" };
            let block = format!("{ping}{event}");
            let chunk = format!("{:x}\r\n{block}\r\n", block.len());
            if !send(&mut writer, chunk.as_bytes()).await {
                return;
            }
            if paced {
                rt.sleep_until(rt.now() + Ms(rng.below(PAUSE_MAX_MS))).await;
            }
        }
        if !send(&mut writer, b"0\r\n\r\n").await {
            return;
        }
    }
}

/// A client that reads a little, and waits.
async fn ask(rt: SimRt, gateway: SocketAddr, seed: u64, results: Rc<RefCell<Vec<Answer>>>) {
    let mut rng = Rng::new(seed);
    let Ok((mut reader, mut writer)) = rt.dial(gateway).await else { return };
    let body = "{\"model\":\"m\",\"messages\":[],\"stream\":true}";
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    assert!(send(&mut writer, request.as_bytes()).await);
    let (size, pause) = [(65_536, 0), (4_096, 300), (16_384, 2_500)][rng.below(3) as usize];
    let (mut raw, stop) = (Vec::new(), SimStop::new());
    loop {
        rt.sleep_until(rt.now() + Ms(pause)).await;
        let (result, buf) = reader.read(Buf::with_capacity(size), stop.handle()).await;
        raw.extend_from_slice(buf.as_slice());
        if !matches!(result, Ok(count) if count > 0) || raw.ends_with(b"\r\n0\r\n\r\n") {
            break;
        }
    }
    let mut answer = Answer { stream: true, ..Answer::default() };
    answer.take(&raw);
    results.borrow_mut().push(answer);
}

/// Gives the number of exchanges, and the milliseconds that the longest one took.
fn run(seed: u64) -> (usize, u32) {
    let mut rng = Rng::new(seed);
    let faults = Faults {
        latency_us: (1, 20_000),
        buffer_bytes: [(65_536, 65_536), (1_024, 8_192)][rng.below(2) as usize],
        short_read: 4,
        short_write: 4,
        shuffle: true,
        late_timers: true,
        ..Faults::none()
    };
    let world = World::new(seed, faults);
    world.cap_steps(4_000_000);
    let gateway: SocketAddr = "10.0.0.1:80".parse().unwrap();
    let places: [SocketAddr; 2] = ["10.0.1.1:80".parse().unwrap(), "10.0.1.2:80".parse().unwrap()];
    for place in places {
        let (listener, rt, seed) = (world.listen(place), world.rt(), rng.next());
        world.rt().spawn(async move {
            let stop = SimStop::new();
            while let Ok((reader, writer, _)) = listener.accept(stop.handle()).await {
                rt.spawn(provide(rt.clone(), reader, writer, seed));
            }
        });
    }
    let notes = Arc::new(Notes::default());
    let shared = Arc::new(Shared::new(snapshot(&places), Names::default(), notes.clone()));
    let listener = world.listen(gateway);
    let results = Rc::new(RefCell::new(Vec::new()));
    let clients = 1 + rng.below(3) as usize;
    for _ in 0..clients {
        world.rt().spawn(ask(world.rt(), gateway, rng.next(), results.clone()));
    }
    let (rt, control) = (world.rt(), shared.clone());
    world.rt().spawn(async move {
        rt.sleep_until(rt.now() + Ms(500_000)).await;
        control.raise(Level::Draining);
    });
    world.block_on(core::serve(world.rt(), vec![listener], shared, CoreId(0), seed));
    world.settle();
    let good = answer().concat().replace("\"up\"", "\"m\"");
    let results = results.borrow();
    assert_eq!(results.len(), clients, "seed {seed}");
    for answer in results.iter() {
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        let events: String =
            text.split_inclusive("\n\n").filter(|block| !block.starts_with(':')).collect();
        let end = &text[text.len().saturating_sub(300)..];
        assert!(answer.complete && events == good, "seed {seed}: {end}");
    }
    let ledgers = notes.ledgers.lock().unwrap();
    for ledger in ledgers.iter() {
        assert_eq!(ledger.ending, Ending::Good, "seed {seed}: {ledger:?}");
        assert_eq!(ledger.attempts.len(), 1, "seed {seed}: {ledger:?}");
    }
    let lasted = ledgers.iter().map(|ledger| ledger.ended.ms_since(ledger.began));
    (ledgers.len(), lasted.max().unwrap_or(0))
}

fn snapshot(places: &[SocketAddr; 2]) -> Snapshot {
    let mut text = String::from(CONFIG);
    for (index, place) in places.iter().enumerate() {
        text += &format!("[providers.p{index}]\nkind = \"openai\"\n");
        text += &format!("base_url = \"http://{place}/v1\"\n");
    }
    text += "[models.m]\ntargets = [\"p0/up\", \"p1/up\"]\n";
    let config = config::load(&text, &|_| Err("none".into())).unwrap();
    let table = route::compile(&config, None).unwrap();
    Snapshot::new(1, config.server, config.auth, table).unwrap()
}
