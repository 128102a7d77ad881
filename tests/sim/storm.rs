//! Many requests and few, known faults: what retries, breakers, measures and hedges do in the large. Time is
//! simulated, so that numbers are exact and the same in every run.

use super::*;
use firstbyte::llm::request::{Ask, Surface};
use firstbyte::net::wish_of;

/// What a provider does with one request.
#[derive(Clone, Copy)]
enum Deed {
    /// A good stream, its first content after this long.
    Serve(Ms),
    /// 503.
    Refuse,
}

/// A provider's habits: what it does at a moment with its n-th request, from 1.
type Habit = Rc<dyn Fn(Tick, u32) -> Deed>;

fn host(world: &World, addr: SocketAddr, index: usize, habit: Habit) {
    let (listener, rt) = (world.listen(addr), world.rt());
    let count = Rc::new(RefCell::new(0u32));
    world.rt().spawn(async move {
        let stop = SimStop::new();
        while let Ok((reader, writer, _)) = listener.accept(stop.handle()).await {
            rt.spawn(serve(rt.clone(), reader, writer, index, habit.clone(), count.clone()));
        }
    });
}

async fn serve(
    rt: SimRt,
    mut reader: SimReader,
    mut writer: SimWriter,
    index: usize,
    habit: Habit,
    count: Rc<RefCell<u32>>,
) {
    let (mut rx, mut rng) = (Buf::new(), Rng::new(7));
    while receive(&mut reader, &mut rx).await.is_some() {
        let number = {
            let mut count = count.borrow_mut();
            *count += 1;
            *count
        };
        let act = match habit(rt.now(), number) {
            Deed::Serve(after) => {
                rt.sleep_until(rt.now() + after).await;
                Act::Good
            }
            Deed::Refuse => Act::Status(503),
        };
        let response = respond(act, &format!("p{index}r{number}"), true, &mut rng);
        if !send(&mut writer, &response.bytes).await {
            return;
        }
    }
}

/// One client on one connection, with its share of a load.
async fn keep_asking(
    rt: SimRt,
    gateway: SocketAddr,
    load: Load,
    results: Rc<RefCell<Vec<Answer>>>,
) {
    let Ok((mut reader, mut writer)) = rt.dial(gateway).await else { panic!("no gateway") };
    let stop = SimStop::new();
    for _ in 0..load.each {
        let body = format!("{{\"model\":\"{}\",\"messages\":[],\"stream\":true}}", load.model);
        let request = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        assert!(send(&mut writer, request.as_bytes()).await, "the gateway hung up");
        let (mut raw, mut rx) = (Vec::new(), Buf::new());
        let mut answer = Answer { stream: true, ..Answer::default() };
        while !answer.complete {
            more(&mut reader, &mut rx, &stop).await.expect("a whole answer");
            raw.extend_from_slice(rx.as_slice());
            rx.clear();
            answer.take(&raw);
        }
        results.borrow_mut().push(answer);
        rt.sleep_until(rt.now() + load.gap).await;
    }
}

/// So many clients, each with so many requests and a pause between the end of one and the next.
#[derive(Clone, Copy)]
struct Load {
    model: &'static str,
    clients: u32,
    each: u32,
    gap: Ms,
}

struct Storm {
    ledgers: Vec<Ledger>,
    answers: Vec<Answer>,
}

impl Storm {
    fn attempts(&self) -> usize {
        self.ledgers.iter().map(|ledger| ledger.attempts.len()).sum()
    }
}

fn storm(extra: &str, habits: Vec<Habit>, load: &Load) -> Storm {
    let world = World::new(11, Faults::none());
    world.cap_steps(50_000_000);
    let gateway: SocketAddr = "10.0.0.1:80".parse().unwrap();
    let mut text = format!("{CONFIG}{DEFAULTS}{extra}\n");
    let mut targets = Vec::new();
    for (index, habit) in habits.into_iter().enumerate() {
        let addr: SocketAddr = format!("10.0.1.{}:80", index + 1).parse().unwrap();
        host(&world, addr, index, habit);
        text +=
            &format!("[providers.p{index}]\nkind = \"openai\"\nbase_url = \"http://{addr}/v1\"\n");
        targets.push(format!("\"p{index}/up\""));
    }
    text += &format!("[models.m]\ntargets = [{}]\n", targets.join(","));
    let config = config::load(&text, &|_| Err("none".into())).unwrap();
    let table = route::compile(&config, None).unwrap();
    let snapshot = Snapshot::new(1, config.server, config.auth, table).unwrap();
    let notes = Arc::new(Notes::default());
    let shared = Arc::new(Shared::new(snapshot, Names::default(), notes.clone()));
    let listener = world.listen(gateway);
    let results = Rc::new(RefCell::new(Vec::new()));
    let left = Rc::new(RefCell::new(load.clients));
    for _ in 0..load.clients {
        let (rt, results) = (world.rt(), results.clone());
        let (left, control, load) = (left.clone(), shared.clone(), *load);
        world.rt().spawn(async move {
            keep_asking(rt, gateway, load, results).await;
            *left.borrow_mut() -= 1;
            if *left.borrow() == 0 {
                control.raise(Level::Draining);
            }
        });
    }
    let end = world.block_on(core::serve(world.rt(), vec![listener], shared, CoreId(0), 3));
    world.settle();
    assert_eq!((end, world.lost_ops()), (core::End::Drained, 0), "{}", world.report("storm"));
    let ledgers = std::mem::take(&mut *notes.ledgers.lock().unwrap());
    let answers = std::mem::take(&mut *results.borrow_mut());
    assert_eq!(answers.len() as u32, load.clients * load.each);
    assert_eq!(ledgers.len(), answers.len(), "one ledger for each request");
    for answer in &answers {
        answer.judge(11);
    }
    Storm { ledgers, answers }
}

fn always(deed: Deed) -> Habit {
    Rc::new(move |_, _| deed)
}

#[test]
fn with_everything_down_retries_do_not_multiply() {
    // 600 requests in one window of ten seconds, three providers that are down.
    let load = Load { model: "m", clients: 20, each: 30, gap: Ms(200) };
    let storm = storm("", vec![always(Deed::Refuse); 3], &load);
    let most = 600 * 12 / 10 + 3 * 10;
    assert!(storm.attempts() <= most, "{} attempts", storm.attempts());
    assert!(storm.attempts() >= 600, "each request is tried once");
    assert!(storm.answers.iter().all(|answer| answer.status >= 500));
    assert!(storm.ledgers.iter().any(|ledger| ledger.budget_spent), "the budget was the reason");
}

#[test]
fn a_flapping_provider_costs_no_request_and_gets_its_traffic_back() {
    let minute = 60_000_000;
    // Down for three seconds of every six, for a minute; well afterwards.
    let flaps: Habit = Rc::new(move |now: Tick, _| {
        let is_down = now.0 < minute && (now.0 / 3_000_000).is_multiple_of(2);
        if is_down { Deed::Refuse } else { Deed::Serve(Ms(50)) }
    });
    let load = Load { model: "m", clients: 4, each: 400, gap: Ms(150) };
    let storm = storm("", vec![flaps, always(Deed::Serve(Ms(80)))], &load);
    let bad = storm.answers.iter().filter(|answer| answer.status != 200).count();
    assert_eq!(bad, 0, "a healthy target could have served them");
    assert!(storm.ledgers.iter().all(|ledger| ledger.ending == Ending::Good));
    // Ten seconds after the recovery every request begins where it should.
    let late = |ledger: &&Ledger| ledger.began.0 > minute + 10_000_000;
    let back: Vec<_> = storm.ledgers.iter().filter(late).collect();
    assert!(back.len() > 50, "{} requests after the recovery", back.len());
    assert!(back.iter().all(|ledger| &*ledger.attempts[0].name == "p0/up"));
    // And while it flapped it was neither hammered nor forgotten.
    let failed = storm.ledgers.iter().filter(|ledger| ledger.attempts.len() > 1).count();
    assert!((5..160).contains(&failed), "{failed} requests met it while it was down");
}

/// The time to first content of the request at `share` of all, in milliseconds, a warm-up apart.
fn first_content(storm: &Storm, share: f64) -> u32 {
    let mut times: Vec<u32> = storm
        .ledgers
        .iter()
        .skip(200)
        .filter_map(|ledger| ledger.committed.map(|(at, _)| at.ms_since(ledger.began)))
        .collect();
    times.sort_unstable();
    times[((times.len() - 1) as f64 * share) as usize]
}

#[test]
fn a_hedge_at_p95_halves_the_late_starts_for_few_attempts() {
    // One start in twenty is slow.
    let habits = || -> Vec<Habit> {
        let slow = |_: Tick, number: u32| {
            Deed::Serve(if number.is_multiple_of(20) {
                Ms(1_800)
            } else {
                Ms(90 + number % 7 * 10)
            })
        };
        vec![Rc::new(slow), always(Deed::Serve(Ms(100)))]
    };
    let load = Load { model: "m", clients: 4, each: 300, gap: Ms(50) };
    let plain = storm("", habits(), &load);
    let hedged = storm("hedge_after = \"p95\"\n", habits(), &load);
    let (before, after) = (first_content(&plain, 0.99), first_content(&hedged, 0.99));
    assert!(after * 2 <= before, "p99 of first content: {before} ms without, {after} ms with");
    let extra = hedged.attempts() - hedged.ledgers.len();
    assert!(extra * 10 < hedged.ledgers.len(), "{extra} extra attempts");
    assert!(hedged.ledgers.iter().any(|ledger| ledger.attempts.iter().any(|a| a.hedge)));
    // `judge` has held each answer to be one attempt's.
    assert!(hedged.answers.iter().all(|answer| answer.status == 200));
}

#[test]
fn fastest_follows_the_providers_as_they_are() {
    // p0 is quick for ten seconds, then slow, then quick again.
    let turns: Habit = Rc::new(|now: Tick, _| {
        let slow = (10_000_000..40_000_000).contains(&now.0);
        Deed::Serve(if slow { Ms(1_500) } else { Ms(40) })
    });
    let route = "[routes.quick]\nmodels = [\"m\"]\npolicy = \"fastest\"\n";
    let load = Load { model: "quick", clients: 1, each: 700, gap: Ms(50) };
    let habits = vec![turns, always(Deed::Serve(Ms(120))), always(Deed::Serve(Ms(300)))];
    let storm = storm(route, habits, &load);
    let first: Vec<_> = storm
        .ledgers
        .iter()
        .map(|ledger| (ledger.began.0 / 1_000_000, &*ledger.attempts[0].name))
        .collect();
    let share = |from: u64, to: u64, name: &str| {
        let within: Vec<_> = first.iter().filter(|(at, _)| (from..to).contains(at)).collect();
        let own = within.iter().filter(|(_, first)| *first == name).count();
        own as f64 / within.len().max(1) as f64
    };
    for (from, to, name) in [(2, 10, "p0/up"), (12, 40, "p1/up"), (55, 70, "p0/up")] {
        let own = share(from, to, name);
        assert!(own > 0.85, "{name} has {own:.2} of the requests from {from} s to {to} s");
    }
    // Slow at ten seconds, left within twenty requests.
    let slow = first.iter().filter(|(at, name)| (10..40).contains(at) && *name == "p0/up").count();
    assert!(slow < 20, "{slow} requests began at a target that was slow");
}

#[test]
fn the_attempts_of_dispatch_are_the_plan_of_explain() {
    let mut seen = (0, 0);
    for (seed, policy) in
        ["order", "cheapest", "fastest", "balanced", "weighted"].iter().enumerate()
    {
        let (agreed, fell_over) = compare(seed as u64, policy);
        seen = (seen.0 + agreed, seen.1 + fell_over);
    }
    assert!(seen.0 >= 1_000 && seen.1 > 100, "{seen:?}: nothing was shown");
}

/// One client, one request after the other, each explained just before it is sent.
fn compare(seed: u64, policy: &str) -> (usize, usize) {
    let world = World::new(seed, Faults::none());
    world.cap_steps(50_000_000);
    let gateway: SocketAddr = "10.0.0.1:80".parse().unwrap();
    let mut text = format!("{CONFIG}{DEFAULTS}retry_budget = {{ floor = 100000 }}\n");
    for index in 0..6 {
        let addr: SocketAddr = format!("10.0.1.{}:80", index + 1).parse().unwrap();
        let rng = RefCell::new(Rng::new(seed * 100 + index));
        let habit: Habit = Rc::new(move |_, _| {
            let mut rng = rng.borrow_mut();
            if rng.one_in(3) { Deed::Refuse } else { Deed::Serve(Ms(10 + rng.below(200))) }
        });
        host(&world, addr, index as usize, habit);
        text += &format!(
            "[providers.p{index}]\nkind = \"openai\"\nbase_url = \"http://{addr}/v1\"\n\
             [catalog.\"p{index}/up\"]\nprice_in = {}\nprice_out = 1\ncontext = {}\n",
            7 - index,
            if index == 3 { 64 } else { 100_000 },
        );
    }
    text += "[models.m]\ntargets = [\"p0/up\", \"p1/up\", \"p2/up\"]\n\
             [models.n]\ntargets = [\"p3/up\", \"p4/up\"]\nfallbacks = [\"o\"]\n\
             [models.o]\ntargets = [\"p5/up\"]\n";
    text += &format!("[routes.r]\nmodels = [\"m\", \"n\"]\npolicy = \"{policy}\"\n");
    let config = config::load(&text, &|_| Err("none".into())).unwrap();
    let table = route::compile(&config, None).unwrap();
    let notes = Arc::new(Notes::default());
    let snapshot = Snapshot::new(1, config.server, config.auth, table).unwrap();
    let shared = Arc::new(Shared::new(snapshot, Names::default(), notes.clone()));
    let listener = world.listen(gateway);
    let plans = Rc::new(RefCell::new(Vec::new()));
    let (rt, control, told) = (world.rt(), shared.clone(), plans.clone());
    world.rt().spawn(async move {
        let mut rng = Rng::new(seed);
        for turn in 0..250 {
            let words = "word ".repeat(1 + rng.below(200) as usize);
            let body = format!(
                "{{\"model\":\"r\",\"stream\":true,\"messages\":[{{\"role\":\"user\",\"content\":\"{words}\"}}]}}"
            );
            let asked = Ask::read(Surface::Chat, body.as_bytes()).unwrap();
            let snapshot = control.snapshot();
            let explained = route::explain(&snapshot.table, &wish_of(&asked, None), turn, rt.now());
            let names = |plan: &route::Plan| {
                let name = |a: &route::Attempt| snapshot.table.targets[a.target].name.to_string();
                plan.attempts.iter().map(name).collect::<Vec<_>>()
            };
            told.borrow_mut().push(explained.plan.as_ref().map(names).unwrap_or_default());
            let (mut reader, mut writer) = rt.dial(gateway).await.unwrap();
            let request = format!(
                "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            assert!(send(&mut writer, request.as_bytes()).await);
            let (mut rx, stop) = (Buf::new(), SimStop::new());
            while more(&mut reader, &mut rx, &stop).await.is_some() {}
            rt.sleep_until(rt.now() + Ms(rng.below(900))).await;
        }
        control.raise(Level::Draining);
    });
    world.block_on(core::serve(world.rt(), vec![listener], shared, CoreId(0), seed));
    world.settle();
    let ledgers = std::mem::take(&mut *notes.ledgers.lock().unwrap());
    let plans = plans.borrow();
    assert_eq!(ledgers.len(), plans.len());
    let mut fell_over = 0;
    for (turn, (ledger, plan)) in ledgers.iter().zip(plans.iter()).enumerate() {
        let tried: Vec<_> = ledger.attempts.iter().map(|a| a.name.to_string()).collect();
        let case = format!("{policy}, turn {turn}: planned {plan:?}, tried {tried:?}");
        assert!(plan.starts_with(&tried), "{case}");
        // It went on until somebody served, or to the end of the plan.
        assert!(ledger.ending == Ending::Good || tried.len() == plan.len(), "{case}");
        fell_over += usize::from(tried.len() > 1);
    }
    (plans.len(), fell_over)
}
