//! Dense failure: chains of up to eight targets, every harm at every place of each of them, before the
//! commit and after it, under each policy of commit. A world does one exchange after the other, so that
//! for each of them it is known beforehand who is asked and how it ends.
//!
//! `DENSE=1000000 cargo test --release --test sim dense -- --nocapture` does that many exchanges;
//! `DENSE_FROM` is the number of the first.

use std::rc::Weak;

use super::*;

/// Targets of the longest chain.
const CHAIN_MAX: usize = 8;
/// Exchanges of one world.
const EXCHANGES: usize = 64;
/// Exchanges of a plain test run.
const USUAL: u64 = 1_024;
/// Numbers are spread over the cases by it, so that a short run meets some of everything. Prime, and no
/// divisor of their count.
const STRIDE: u64 = 7_919;

/// What a provider does to one request.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Harm {
    Good,
    /// Good, but slow to be dialled.
    Slow,
    Refused,
    Lost,
    /// Before the head is whole.
    Head(What),
    Status(u16),
    /// After so many events; of an answer that is no stream, after so many sixths of it.
    Body(What, u8),
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum What {
    Reset,
    Close,
    Hang,
    Malformed,
    Error,
    NamedError,
}

const WHATS: [What; 6] =
    [What::Reset, What::Close, What::Hang, What::Malformed, What::Error, What::NamedError];
const STATUSES: [u16; 17] =
    [408, 409, 425, 429, 500, 502, 503, 504, 520, 524, 529, 401, 402, 403, 404, 400, 422];

fn harms() -> Vec<Harm> {
    let mut all = vec![Harm::Good, Harm::Slow, Harm::Refused, Harm::Lost];
    all.extend(WHATS[..4].iter().map(|what| Harm::Head(*what)));
    all.extend(STATUSES.map(Harm::Status));
    all.extend(WHATS.iter().flat_map(|what| (0..6).map(|after| Harm::Body(*what, after))));
    all
}

/// How a request is made: the policy of its commit, and how many events that waits for; `None`: no stream.
#[derive(Clone, Copy)]
struct Way(&'static str, Option<u8>);

const WAYS: [Way; 5] = [
    Way("first_content", Some(2)),
    Way("first_event", Some(1)),
    Way("headers", Some(0)),
    Way("complete", Some(u8::MAX)),
    Way("first_content", None),
];

/// What a harm makes of an attempt.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Turn {
    Good,
    Next,
    /// The client's fault.
    Stop,
    Cut,
}

fn turn(harm: Harm, way: Way) -> Turn {
    match harm {
        Harm::Good | Harm::Slow => Turn::Good,
        Harm::Refused | Harm::Lost | Harm::Head(_) => Turn::Next,
        Harm::Status(400 | 422) => Turn::Stop,
        Harm::Status(_) => Turn::Next,
        Harm::Body(_, after) if way.1.is_some_and(|needed| after >= needed) => Turn::Cut,
        Harm::Body(..) => Turn::Next,
    }
}

/// One exchange.
struct Case {
    way: Way,
    chain: Vec<Harm>,
}

impl Case {
    /// The case of a number: harm, place, length and way follow from it, the rest of the chain is drawn.
    fn of(number: u64, harms: &[Harm], rng: &mut Rng) -> Case {
        let pairs = CHAIN_MAX * (CHAIN_MAX + 1) / 2;
        let cases = (harms.len() * WAYS.len() * pairs) as u64;
        let mut left = (number % cases * STRIDE % cases) as usize;
        let mut digit = |base: usize| {
            let digit = left % base;
            left /= base;
            digit
        };
        let harm = harms[digit(harms.len())];
        let way = WAYS[digit(WAYS.len())];
        // Places and lengths as pairs: 1 of 1, 1 and 2 of 2, and so on.
        let mut pair = digit(pairs);
        let mut length = 1;
        while pair >= length {
            pair -= length;
            length += 1;
        }
        // Behind the harm half of them serve, so that many an exchange ends well.
        let mut draw = |good: u32| match rng.one_in(good) {
            true => Harm::Good,
            false => harms[rng.below(harms.len() as u32) as usize],
        };
        let chain = (0..length).map(|place| match place.cmp(&pair) {
            // It must come to the harm's turn.
            std::cmp::Ordering::Less => loop {
                let before = draw(0);
                if turn(before, way) == Turn::Next {
                    break before;
                }
            },
            std::cmp::Ordering::Equal => harm,
            std::cmp::Ordering::Greater => draw(2),
        });
        Case { way, chain: chain.collect() }
    }

    /// How many attempts there will be, and how the last of them turns out.
    fn outcome(&self) -> (usize, Turn) {
        let turns = self.chain.iter().map(|harm| turn(*harm, self.way));
        let ended = turns.enumerate().find(|(_, turn)| *turn != Turn::Next);
        ended.map_or((self.chain.len(), Turn::Next), |(place, turn)| (place + 1, turn))
    }
}

/// The whole of a response to this harm.
fn harmed(harm: Harm, tag: &str, stream: bool, rng: &mut Rng) -> Response {
    let mut response = Response { bytes: Vec::new(), close: Some(false), hang: false };
    let mut ends_by = |what: What| {
        response.hang = what == What::Hang;
        response.close = Some(what == What::Reset);
    };
    match harm {
        Harm::Good | Harm::Slow | Harm::Refused | Harm::Lost => {
            response.bytes = respond(Act::Good, tag, stream, rng).bytes;
        }
        Harm::Status(status) => {
            response.bytes = respond(Act::Status(status), tag, stream, rng).bytes;
        }
        Harm::Head(What::Malformed) => response.bytes = b"HTTP/1.1 2oo OK\r\n\r\n".to_vec(),
        Harm::Head(what) => {
            ends_by(what);
            response.bytes = respond(Act::Good, tag, stream, rng).bytes;
            response.bytes.truncate(rng.below(40) as usize);
        }
        Harm::Body(what @ (What::Reset | What::Close | What::Hang), after) => {
            ends_by(what);
            let good = respond(Act::Good, tag, false, rng).bytes;
            let head = good.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
            let sixth = (good.len() - head) / 6;
            response.bytes = if stream {
                let mut bytes = STREAM_HEAD.to_vec();
                events(tag)[..usize::from(after)].iter().for_each(|e| chunk(&mut bytes, e));
                bytes
            } else {
                good[..head + sixth * usize::from(after)].to_vec()
            };
        }
        Harm::Body(what, after) => {
            let at = u32::from(after);
            let act = match what {
                What::Malformed => Act::MalformedAt(at),
                What::NamedError if stream => Act::NamedErrorAt(at),
                _ => Act::ErrorAt(at),
            };
            response.bytes = respond(act, tag, stream, rng).bytes;
        }
    }
    response
}

const STREAM_HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

fn chunk(out: &mut Vec<u8>, text: &str) {
    out.extend(format!("{:x}\r\n{text}\r\n", text.len()).bytes());
}

/// What the client has in mind for the exchange under way.
type Script = Rc<RefCell<Vec<Harm>>>;

async fn obey(
    rt: SimRt,
    mut reader: SimReader,
    mut writer: SimWriter,
    index: usize,
    script: Script,
    rng: Rc<RefCell<(Rng, u32)>>,
) {
    let mut rx = Buf::new();
    while let Some((_, body)) = receive(&mut reader, &mut rx).await {
        let stream = String::from_utf8(body).unwrap().contains("\"stream\":true");
        let harm = script.borrow()[index];
        let (response, at) = {
            let (rng, served) = &mut *rng.borrow_mut();
            *served += 1;
            let response = harmed(harm, &format!("p{index}r{served}"), stream, rng);
            let at = rng.below(response.bytes.len() as u32 + 1) as usize;
            (response, at)
        };
        // In two writes, with a pause that no limit minds.
        if !send(&mut writer, &response.bytes[..at]).await {
            return;
        }
        rt.sleep_until(rt.now() + Ms(3)).await;
        if !send(&mut writer, &response.bytes[at..]).await {
            return;
        }
        if response.hang {
            let stop = SimStop::new();
            while more(&mut reader, &mut rx, &stop).await.is_some() {}
            return;
        }
        match response.close {
            Some(true) => return SimRt::abort(reader, writer),
            Some(false) => return,
            None => {}
        }
    }
}

fn addr(index: usize) -> SocketAddr {
    format!("10.0.1.{}:80", index + 1).parse().unwrap()
}

/// Everything of the machine's own that changes no outcome.
fn weather(rng: &mut Rng) -> Faults {
    let rate = |rng: &mut Rng| [0, 0, 4, 20][rng.below(4) as usize];
    Faults {
        latency_us: [(0, 0), (20, 20), (1, 400), (1, 20_000)][rng.below(4) as usize],
        buffer_bytes: [(65_536, 65_536), (512, 4_096)][rng.below(2) as usize],
        short_read: rate(rng),
        short_write: rate(rng),
        late_done: rate(rng),
        late_done_us: (0, 2_000),
        shuffle: rng.one_in(2),
        late_timers: rng.one_in(2),
        ..Faults::none()
    }
}

fn chains() -> Snapshot {
    let mut text = String::from(CONFIG) + DEFAULTS;
    text = text.replace("first_content_deadline = \"6s\"", "first_content_deadline = \"100s\"");
    text = text.replace("total_timeout = \"20s\"", "total_timeout = \"200s\"");
    text += "breaker = \"off\"\nretry_budget = { floor = 1000000 }\n";
    let mut targets = Vec::new();
    for index in 0..CHAIN_MAX {
        let addr = addr(index);
        text +=
            &format!("[providers.p{index}]\nkind = \"openai\"\nbase_url = \"http://{addr}/v1\"\n");
        targets.push(format!("\"p{index}/up\""));
        text += &format!("[models.m{}]\ntargets = [{}]\n", index + 1, targets.join(","));
    }
    let config = config::load(&text, &|_| Err("none".into())).unwrap();
    let table = route::compile(&config, None).unwrap();
    Snapshot::new(1, config.server, config.auth, table).unwrap()
}

/// The exchanges of one world, one after the other.
async fn exchange_all(
    world: Weak<World>,
    calm: Faults,
    gateway: SocketAddr,
    cases: Rc<Vec<Case>>,
    script: Script,
    answers: Rc<RefCell<Vec<Answer>>>,
) {
    let rt = world.upgrade().unwrap().rt();
    for case in cases.iter() {
        {
            let world = world.upgrade().unwrap();
            for (index, harm) in case.chain.iter().enumerate() {
                let slow = if *harm == Harm::Slow { 1 } else { 0 };
                let faults =
                    Faults { dial_slow: slow, dial_slow_us: (1_000, 300_000), ..calm.clone() };
                world.faults_at(addr(index), faults);
                match harm {
                    Harm::Refused => world.refuse(addr(index)),
                    Harm::Lost => world.blackhole(addr(index)),
                    _ => world.restore(addr(index)),
                }
            }
        }
        *script.borrow_mut() = case.chain.clone();
        let (commit, stream) = (case.way.0, case.way.1.is_some());
        let body =
            format!("{{\"model\":\"m{}\",\"messages\":[],\"stream\":{stream}}}", case.chain.len());
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-firstbyte-commit: {commit}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        let (mut reader, mut writer) = rt.dial(gateway).await.unwrap();
        assert!(send(&mut writer, request.as_bytes()).await);
        let (mut raw, mut rx, stop) = (Vec::new(), Buf::new(), SimStop::new());
        while more(&mut reader, &mut rx, &stop).await.is_some() {
            raw.extend_from_slice(rx.as_slice());
            rx.clear();
        }
        let mut answer = Answer { stream, ..Answer::default() };
        answer.take(&raw);
        answers.borrow_mut().push(answer);
        // Whoever asked to be left alone has been by then.
        rt.sleep_until(rt.now() + Ms(120_000)).await;
    }
}

/// How many came to what.
#[derive(Default, Debug)]
struct Tally {
    /// By the place of the target that served.
    good_at: [u64; CHAIN_MAX],
    cut: u64,
    all_failed: u64,
    clients_fault: u64,
    attempts: u64,
}

fn run_world(seed: u64, first: u64, count: usize, tally: &mut Tally) {
    let mut rng = Rng::new(seed);
    let harms = harms();
    let cases: Vec<_> = (0..count as u64).map(|i| Case::of(first + i, &harms, &mut rng)).collect();
    let (cases, calm) = (Rc::new(cases), weather(&mut rng));
    let world = Rc::new(World::new(seed, calm.clone()));
    world.cap_steps(50_000_000);
    let gateway: SocketAddr = "10.0.0.1:80".parse().unwrap();
    let script: Script = Rc::default();
    for index in 0..CHAIN_MAX {
        let (listener, rt, script) = (world.listen(addr(index)), world.rt(), script.clone());
        let state = Rc::new(RefCell::new((Rng::new(rng.next()), 0)));
        world.rt().spawn(async move {
            let stop = SimStop::new();
            while let Ok((reader, writer, _)) = listener.accept(stop.handle()).await {
                let (script, state) = (script.clone(), state.clone());
                rt.spawn(obey(rt.clone(), reader, writer, index, script, state));
            }
        });
    }
    let notes = Arc::new(Notes::default());
    let shared = Arc::new(Shared::new(chains(), Names::default(), notes.clone()));
    let listener = world.listen(gateway);
    let answers = Rc::new(RefCell::new(Vec::new()));
    let (control, told) = (shared.clone(), answers.clone());
    let client = exchange_all(Rc::downgrade(&world), calm, gateway, cases.clone(), script, told);
    world.rt().spawn(async move {
        client.await;
        control.raise(Level::Draining);
    });
    let end = world.block_on(core::serve(world.rt(), vec![listener], shared, CoreId(0), seed));
    world.settle();
    assert_eq!((end, world.lost_ops()), (core::End::Drained, 0), "{}", world.report("dense"));
    assert_eq!(notes.open.load(Ordering::Relaxed), 0, "seed {seed}: connections");
    assert_eq!(notes.running.load(Ordering::Relaxed), 0, "seed {seed}: exchanges");
    let ledgers = std::mem::take(&mut *notes.ledgers.lock().unwrap());
    let answers = answers.borrow();
    assert_eq!((ledgers.len(), answers.len()), (count, count), "seed {seed}");
    for ((case, ledger), answer) in cases.iter().zip(&ledgers).zip(answers.iter()) {
        check(case, ledger, answer, seed, tally);
    }
}

fn check(case: &Case, ledger: &Ledger, answer: &Answer, seed: u64, tally: &mut Tally) {
    let (tried, turn) = case.outcome();
    let why = || {
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        format!(
            "seed {seed}, {} {:?}, {:?}: expected {turn:?} at {tried}, got {:?} {:?}\n{} {body}",
            case.way.0, case.way.1, case.chain, ledger.ending, ledger.attempts, answer.status
        )
    };
    let names: Vec<_> = ledger.attempts.iter().map(|a| a.name.to_string()).collect();
    let planned: Vec<_> = (0..tried).map(|index| format!("p{index}/up")).collect();
    assert_eq!(names, planned, "{}", why());
    assert!(answer.complete && !answer.broken, "{}", why());
    answer.judge_of(&format!("m{}", case.chain.len()), seed);
    audit(ledger, case.chain.len(), 0, seed);
    // The client has the words of the last one tried, and of nobody else.
    let text = String::from_utf8_lossy(&answer.body);
    for other in (0..case.chain.len()).filter(|index| index + 1 != tried) {
        assert!(!text.contains(&format!("\"id\":\"p{other}r")), "{}", why());
    }
    match turn {
        Turn::Good => {
            assert_eq!((ledger.ending, answer.status), (Ending::Good, 200), "{}", why());
            tally.good_at[tried - 1] += 1;
        }
        Turn::Cut => {
            assert!(matches!(ledger.ending, Ending::Cut(_)), "{}", why());
            assert_eq!(answer.status, 200, "{}", why());
            tally.cut += 1;
        }
        Turn::Stop => {
            let status = match case.chain[tried - 1] {
                Harm::Status(status) => status,
                _ => 0,
            };
            assert_eq!((ledger.ending, answer.status), (Ending::Error, status), "{}", why());
            tally.clients_fault += 1;
        }
        Turn::Next => {
            assert_eq!(ledger.ending, Ending::Error, "{}", why());
            assert!(answer.status >= 429, "{}", why());
            tally.all_failed += 1;
        }
    }
    tally.attempts += tried as u64;
}

#[test]
fn dense_failure() {
    let exchanges = number("DENSE").unwrap_or(USUAL);
    // The worlds of a run that is long can be spread over several.
    let from = number("DENSE_FROM").unwrap_or(0);
    let (began, mut tally, mut done) = (std::time::Instant::now(), Tally::default(), 0);
    while done < exchanges {
        let count = EXCHANGES.min((exchanges - done) as usize);
        run_world(from + done, from + done, count, &mut tally);
        done += count as u64;
        if done.is_multiple_of(100_032) {
            println!("{done} exchanges, {tally:?}");
        }
    }
    println!("{done} exchanges in {:.1} s: {tally:?}", began.elapsed().as_secs_f64());
    assert!(tally.good_at[1] > 0 && tally.cut > 0 && tally.all_failed > 0, "{tally:?}");
    assert!(tally.clients_fault > 0 && tally.good_at[4..].iter().sum::<u64>() > 0, "{tally:?}");
}
