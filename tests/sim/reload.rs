//! Configs that change under a running core: targets come, go and change places, keys and names; so do
//! routes and callers. Each load is a [`Version`] that knows, apart from the code that compiles it, who
//! may be asked for what, under which name, with which key. A request belongs to one version, which was
//! in force between its first byte and the end of its head, and everything about it must be of that one:
//! whether its caller is known, whom it went to, what was sent there, and what its ledger says.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use firstbyte::base::ids::CoreId;
use firstbyte::base::rng::Rng;
use firstbyte::base::tick::{Ms, Tick};
use firstbyte::config::{self, Ref};
use firstbyte::exchange::ledger::{Ending, Ledger};
use firstbyte::net::beacon::Level;
use firstbyte::net::core::{self, Shared, Snapshot};
use firstbyte::net::names::Names;
use firstbyte::route;
use firstbyte::rt::sim::{Faults, SimRt, SimStop, World};
use firstbyte::rt::{Accept as _, Rt as _, Stop as _};

use super::{Answer, CONFIG, DEFAULTS, Notes, respond};

/// One provider of a version.
#[derive(Clone, Debug, PartialEq)]
struct Here {
    place: usize,
    /// What it calls the model.
    model: String,
    keys: Vec<String>,
    base: String,
}

/// One load of the config.
#[derive(Clone, Debug)]
pub struct Version {
    server: String,
    defaults: String,
    /// As they stand in the file.
    providers: Vec<Here>,
    /// Places, in the order that model `m` tries them.
    order: Vec<usize>,
    /// The first place alone is model `n`, too.
    has_n: bool,
    has_route: bool,
    policy: &'static str,
    /// Names and keys; nobody: everybody may call.
    callers: Vec<(String, String)>,
}

impl Version {
    fn draw(rng: &mut Rng, places: usize) -> Version {
        let mut server = String::from(CONFIG);
        for line in [
            "connections_max = 2\n",
            "connections_per_client = 1\n",
            "in_flight_max = 1\n",
            "rate_min = \"64KiB\"\nrate_grace = \"1s\"\n",
            "half_close = \"serve\"\n",
        ] {
            if rng.one_in(16) {
                server += line;
            }
        }
        let mut defaults = String::from(DEFAULTS);
        let hedge = ["hedge_after = \"300ms\"\n", "hedge_after = \"p90\"\n"][rng.below(2) as usize];
        for line in [hedge, "open_after = \"700ms\"\n", "throughput_floor = 1\n"] {
            if rng.one_in(4) {
                defaults += line;
            }
        }
        let policies = ["order", "weighted", "cheapest", "fastest", "balanced"];
        let here = |place| Here { place, model: "up".into(), keys: Vec::new(), base: "v1".into() };
        Version {
            server,
            defaults,
            providers: (0..places).map(here).collect(),
            order: (0..places).collect(),
            has_n: rng.one_in(4),
            has_route: true,
            policy: policies[rng.below(5) as usize],
            callers: Vec::new(),
        }
    }

    /// The next one, some of which is new. `number` makes new names new.
    fn changed(&self, rng: &mut Rng, places: usize, number: usize) -> Version {
        let mut next = self.clone();
        for _ in 0..rng.below(4) {
            let one = rng.below(next.providers.len() as u32) as usize;
            match rng.below(12) {
                0 | 1 => next.add(rng, places),
                2 if next.providers.len() > 1 => {
                    let gone = next.providers.remove(one);
                    next.order.retain(|place| *place != gone.place);
                }
                2 | 3 => shuffle(&mut next.order, rng),
                4 => shuffle(&mut next.providers, rng),
                5 => next.providers[one].model = format!("up{number}"),
                6 => next.providers[one].base = format!("v{number}/x"),
                7 => {
                    let key = format!("SK_{}_{number}", next.providers[one].place);
                    let keys = &mut next.providers[one].keys;
                    // A key stands once.
                    match rng.below(3) {
                        _ if keys.contains(&key) => {}
                        0 => *keys = vec![key],
                        1 => keys.insert(0, key),
                        _ => keys.push(key),
                    }
                }
                8 => {
                    let keys = &mut next.providers[one].keys;
                    shuffle(keys, rng);
                    keys.truncate(2);
                }
                9 => next.callers = callers(rng, number),
                10 => (next.has_n, next.has_route) = (rng.one_in(2), !rng.one_in(3)),
                _ => shuffle(&mut next.callers, rng),
            }
        }
        next
    }

    fn add(&mut self, rng: &mut Rng, places: usize) {
        let absent = (0..places).find(|place| !self.order.contains(place));
        let Some(place) = absent else { return };
        let here = Here { place, model: "up".into(), keys: Vec::new(), base: "v1".into() };
        let mut at = |count: usize| rng.below(count as u32 + 1) as usize;
        self.providers.insert(at(self.providers.len()), here);
        self.order.insert(at(self.order.len()), place);
    }

    fn text(&self, places: &[SocketAddr]) -> String {
        let mut text = self.server.clone();
        if !self.callers.is_empty() {
            let key = |(name, key): &(String, String)| {
                format!("{{ name = \"{name}\", key = \"env:{key}\" }}")
            };
            let keys: Vec<_> = self.callers.iter().map(key).collect();
            text += &format!("[auth]\nkeys = [{}]\n", keys.join(","));
        }
        text += &self.defaults;
        for here in &self.providers {
            let Here { place, base, keys, .. } = here;
            let addr = places[*place];
            text += &format!(
                "[providers.p{place}]\nkind = \"openai\"\nbase_url = \"http://{addr}/{base}\"\n"
            );
            if !keys.is_empty() {
                let keys: Vec<_> = keys.iter().map(|key| format!("\"env:{key}\"")).collect();
                text += &format!("keys = [{}]\n", keys.join(","));
            }
        }
        let target = |place: &usize| {
            let here = self.providers.iter().find(|here| here.place == *place).unwrap();
            format!("\"p{place}/{}\"", here.model)
        };
        let targets: Vec<_> = self.order.iter().map(target).collect();
        text += &format!("[models.m]\ntargets = [{}]\n", targets.join(","));
        if self.has_n {
            text += &format!("[models.n]\ntargets = [{}]\n", targets[0]);
        }
        if self.has_route {
            text += &format!("[routes.r]\npolicy = \"{}\"\nmodels = [\"m\"]\n", self.policy);
        }
        text
    }

    fn snapshot(&self, places: &[SocketAddr], current: Option<&Snapshot>) -> Snapshot {
        let text = self.text(places);
        let lookup = |reference: &Ref| match reference {
            Ref::Env(name) => Ok(name.clone().into_bytes()),
            Ref::File(_) => Err("none".into()),
        };
        let config = config::load(&text, &lookup).unwrap_or_else(|e| panic!("{e:?}\n{text}"));
        let table = route::compile(&config, current.map(|old| &old.table)).unwrap();
        match current {
            Some(old) => old.next(config.server, config.auth, table),
            None => Snapshot::new(1, config.server, config.auth, table),
        }
        .unwrap()
    }

    /// The provider, model and key of a target's name.
    fn parts<'a>(&self, name: &'a str) -> Option<(&Here, &'a str, Option<String>)> {
        let (place, rest) = name.strip_prefix('p')?.split_once('/')?;
        let (model, number) = rest.split_once('#').unwrap_or((rest, "1"));
        let place: usize = place.parse().ok()?;
        let here = self.providers.iter().find(|here| here.place == place)?;
        let index = number.parse::<usize>().ok()?.checked_sub(1)?;
        let key = here.keys.get(index).cloned();
        (key.is_some() || here.keys.is_empty() && index == 0).then_some((here, model, key))
    }

    /// Who a target's name is, among those that serve `model`.
    fn who(&self, name: &str, model: &str) -> Option<Who> {
        let (here, there, key) = self.parts(name)?;
        let fits = here.model == there && (model != "n" || self.order[0] == here.place);
        let (place, base) = (here.place, here.base.clone());
        fits.then(|| Who { place, model: here.model.clone(), key, base })
    }

    fn knows(&self, model: &str) -> bool {
        match model {
            "n" => self.has_n,
            "r" => self.has_route,
            _ => true,
        }
    }

    fn targets(&self) -> usize {
        self.providers.iter().map(|here| here.keys.len().max(1)).sum()
    }
}

fn callers(rng: &mut Rng, number: usize) -> Vec<(String, String)> {
    // A key that stays may get another name, and a name another key.
    let mut all: Vec<_> =
        (0..4).map(|k| (format!("who{}", k + number % 3), format!("CALLER_{k}"))).collect();
    shuffle(&mut all, rng);
    all.truncate(rng.below(5) as usize);
    all
}

fn shuffle<T>(items: &mut [T], rng: &mut Rng) {
    for at in (1..items.len()).rev() {
        items.swap(at, rng.below(at as u32 + 1) as usize);
    }
}

/// Whom a request goes to, and how.
#[derive(Clone, Debug, PartialEq)]
struct Who {
    place: usize,
    model: String,
    key: Option<String>,
    base: String,
}

/// A request as a provider saw it.
#[derive(Debug)]
pub struct Visit {
    /// The client's name for it.
    id: String,
    /// What its answer is marked with.
    tag: String,
    who: Who,
}

/// All of them.
pub type Visits = Rc<RefCell<Vec<Visit>>>;

impl Visit {
    pub fn of(place: usize, tag: &str, head: &str, body: &str) -> Visit {
        let field = |name: &str| {
            let value = head.lines().find_map(|line| line.strip_prefix(name));
            value.map(|value| value.trim().to_owned())
        };
        let path = head.strip_prefix("POST /").and_then(|rest| rest.split(' ').next());
        let base = path.and_then(|path| path.strip_suffix("/chat/completions"));
        let key = field("authorization:").map(|auth| auth.replacen("Bearer ", "", 1));
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        let model = body["model"].as_str().unwrap().to_owned();
        let id = field("x-client-request-id:").unwrap_or_default();
        let base = base.unwrap_or_else(|| panic!("{head}")).to_owned();
        Visit { id, tag: tag.to_owned(), who: Who { place, model, key, base } }
    }
}

/// What a client asked for.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    pub id: String,
    pub model: &'static str,
    key: Option<String>,
    /// The version in force when its first byte was sent.
    low: usize,
}

impl Asked {
    /// The field that names its key.
    pub fn auth(&self) -> String {
        let key = self.key.as_ref();
        key.map(|key| format!("authorization: Bearer {key}\r\n")).unwrap_or_default()
    }
}

/// The versions of one world, in order.
pub struct History {
    places: Vec<SocketAddr>,
    loads: RefCell<Vec<Load>>,
    /// Whether callers of this world bring keys.
    named: bool,
}

struct Load {
    version: Version,
    at: Tick,
    /// `None` until the first one is shared.
    snapshot: Option<Arc<Snapshot>>,
}

/// What changes came to in one world.
#[derive(Default)]
pub struct Mixed {
    pub reloads: u64,
    pub straddled: u64,
    pub old_ways: u64,
    pub refused: u64,
}

impl History {
    pub fn begin(rng: &mut Rng, places: Vec<SocketAddr>) -> History {
        let mut version = Version::draw(rng, places.len());
        let named = rng.one_in(4);
        if named && rng.one_in(2) {
            version.callers = callers(rng, 0);
        }
        History::of(version, places, named)
    }

    fn of(version: Version, places: Vec<SocketAddr>, named: bool) -> History {
        let load = Load { version, at: Tick(0), snapshot: None };
        History { places, loads: RefCell::new(vec![load]), named }
    }

    /// The snapshot of the first version.
    pub fn first(&self) -> Snapshot {
        self.loads.borrow()[0].version.snapshot(&self.places, None)
    }

    /// Takes note of the first snapshot, now that it is shared.
    pub fn adopt(&self, shared: &Shared) {
        self.loads.borrow_mut()[0].snapshot = Some(shared.snapshot());
    }

    /// A request to come.
    pub fn asked(&self, id: String, rng: &mut Rng) -> Asked {
        let model = ["m", "r", "firstbyte/auto", "m", "r", "n"][rng.below(6) as usize];
        let key = self.named.then(|| format!("CALLER_{}", rng.below(4)));
        Asked { id, model, key, low: self.loads.borrow().len() - 1 }
    }

    /// Publishes another version.
    fn publish(&self, shared: &Shared, version: Version, at: Tick) {
        let current = shared.snapshot();
        let snapshot = Arc::new(version.snapshot(&self.places, Some(&current)));
        let mut loads = self.loads.borrow_mut();
        same_health(loads.last().unwrap(), &version, &snapshot);
        shared.publish_shared(snapshot.clone());
        loads.push(Load { version, at, snapshot: Some(snapshot) });
    }

    /// Targets of the version that has most.
    pub fn targets_most(&self) -> usize {
        self.loads.borrow().iter().map(|load| load.version.targets()).max().unwrap()
    }

    /// Each request was of one version, whole.
    pub fn judge(
        &self,
        ledgers: &[Ledger],
        visits: &[Visit],
        answers: &[Answer],
        seed: u64,
    ) -> Mixed {
        let loads = self.loads.borrow();
        let mut mixed = Mixed { reloads: loads.len() as u64 - 1, ..Mixed::default() };
        let mut visited = BTreeMap::<&str, Vec<&Visit>>::new();
        visits.iter().for_each(|visit| visited.entry(&visit.id).or_default().push(visit));
        let by_id: BTreeMap<_, _> = ledgers.iter().map(|ledger| (&*ledger.id, ledger)).collect();
        for answer in answers {
            let Some(ledger) = by_id.get(&*answer.asked.id) else {
                // It never had a head, or was told so without being read.
                let none = !visited.contains_key(&*answer.asked.id);
                assert!(none && answer.status != 200, "seed {seed}: {answer:?}");
                continue;
            };
            let visits = visited.remove(&*answer.asked.id).unwrap_or_default();
            let case = Case { ledger, answer, visits: &visits };
            let high = loads.iter().rposition(|load| load.at <= ledger.began).unwrap();
            let range = answer.asked.low..=high.max(answer.asked.low);
            let judged = range.clone().map(|at| case.fits(&loads[at]));
            let reasons: Vec<_> = judged.filter_map(Result::err).collect();
            assert!(
                reasons.len() <= range.end() - range.start(),
                "seed {seed}: of no version from {range:?}: {reasons:#?}\n{ledger:?}\n{visits:?}"
            );
            let later = &loads[range.end() + 1..];
            let before = |at: Tick| later.iter().filter(|load| load.at < at).count();
            mixed.straddled += u64::from(before(ledger.ended) > 0);
            mixed.old_ways += ledger.attempts.iter().filter(|a| before(a.began) > 0).count() as u64;
            mixed.refused += u64::from(ledger.status == 401);
        }
        // The newest is the core's; nobody has the others any more.
        for load in &loads[..loads.len() - 1] {
            let held = load.snapshot.as_ref().map(Arc::strong_count);
            assert_eq!(held, Some(1), "seed {seed}: an old snapshot is still held");
        }
        mixed
    }
}

/// One request, from all sides.
struct Case<'a> {
    ledger: &'a Ledger,
    answer: &'a Answer,
    visits: &'a [&'a Visit],
}

impl Case<'_> {
    /// Whether it can be of this version; else why not.
    fn fits(&self, load: &Load) -> Result<(), String> {
        let Case { ledger, answer, visits } = self;
        let (version, asked) = (&load.version, &answer.asked);
        let table = &load.snapshot.as_ref().unwrap().table;
        let known = version.callers.iter().find(|(_, key)| Some(key) == asked.key.as_ref());
        let caller = known.map(|(name, _)| name.as_str());
        let open = version.callers.is_empty();
        check(ledger.caller.as_deref() == caller, || {
            format!("the caller is {caller:?}, not {:?}", ledger.caller)
        })?;
        if !open && caller.is_none() {
            let alone = ledger.attempts.is_empty() && visits.is_empty();
            return check(alone && matches!(ledger.status, 401), || {
                format!("a stranger got {}", ledger.status)
            });
        }
        check(ledger.status != 401 || !ledger.attempts.is_empty(), || "no stranger".into())?;
        let knows = version.knows(asked.model);
        check(knows || ledger.attempts.is_empty(), || format!("no {} then", asked.model))?;
        let unknown = ledger.status == 404 && ledger.attempts.is_empty();
        check(!(knows && unknown), || format!("{} was known", asked.model))?;
        let mut whos = Vec::new();
        for attempt in &ledger.attempts {
            let who = version.who(&attempt.name, asked.model);
            let who = who.ok_or_else(|| format!("no target {}", attempt.name))?;
            let row = table.targets.iter().find(|(id, _)| *id == attempt.target);
            check(row.is_some_and(|(_, row)| row.name == attempt.name), || {
                format!("{:?} is not {}", attempt.target, attempt.name)
            })?;
            let met = visits.iter().any(|visit| visit.who == who);
            check(met || attempt.status == 0, || format!("{who:?} never saw it"))?;
            whos.push(who);
        }
        for visit in *visits {
            check(whos.contains(&visit.who), || format!("{:?} saw it", visit.who))?;
        }
        self.answered(&whos)
    }

    /// The answer is the winner's, to this request.
    fn answered(&self, whos: &[Who]) -> Result<(), String> {
        let text = String::from_utf8_lossy(&self.answer.body);
        let Some((_, rest)) = text.split_once("\"id\":\"p") else { return Ok(()) };
        let tag = format!("p{}", rest.split('"').next().unwrap());
        if self.answer.status != 200 || !rest.contains('"') {
            return Ok(());
        }
        let visit = self.visits.iter().find(|visit| visit.tag == tag);
        let winner = self.ledger.winner.and_then(|winner| whos.get(usize::from(winner)));
        check(visit.is_some_and(|visit| Some(&visit.who) == winner), || {
            format!("the answer {tag} is not that of {winner:?}")
        })
    }
}

fn check(holds: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why()) }
}

/// A target that is the same in both, wherever it stands, has the same breaker; any other has its own.
fn same_health(old: &Load, version: &Version, snapshot: &Snapshot) {
    let identity = |version: &Version, target: &route::Target| {
        let (here, model, key) = version.parts(&target.name).unwrap();
        (here.place, model.to_owned(), key)
    };
    let before = &old.snapshot.as_ref().unwrap().table;
    for (_, target) in snapshot.table.targets.iter() {
        let new = identity(version, target);
        for (_, other) in before.targets.iter() {
            let same = identity(&old.version, other) == new;
            let shares = Arc::ptr_eq(&other.breaker, &target.breaker);
            assert_eq!(shares, same, "{} before, {} now", other.name, target.name);
        }
    }
}

/// Changes the config every now and then, in half of the worlds.
pub async fn now_and_then(rt: SimRt, shared: Arc<Shared>, history: Rc<History>, seed: u64) {
    let mut rng = Rng::new(seed);
    if rng.one_in(2) {
        return;
    }
    let gap = [50, 500, 3_000][rng.below(3) as usize];
    for number in 1..=1 + rng.below(12) as usize {
        rt.sleep_until(rt.now() + Ms(rng.below(gap))).await;
        let mut version = {
            let loads = history.loads.borrow();
            loads.last().unwrap().version.changed(&mut rng, history.places.len(), number)
        };
        if !history.named {
            version.callers.clear();
        }
        history.publish(&shared, version, rt.now());
    }
}

/// A world of good providers but one, which answers every request with an error, and of configs that
/// change all the time around that one.
fn a_bad_one(seed: u64) -> u64 {
    let (mut rng, count) = (Rng::new(seed), 3);
    let world = World::new(seed, Faults { shuffle: true, late_done: 10, ..Faults::none() });
    let gateway: SocketAddr = "10.0.0.1:80".parse().unwrap();
    let places: Vec<SocketAddr> =
        (0..count).map(|i| format!("10.0.1.{}:80", i + 1).parse().unwrap()).collect();
    let seen = Visits::default();
    for (index, addr) in places.iter().enumerate() {
        let (listener, rt, seen) = (world.listen(*addr), world.rt(), seen.clone());
        world.rt().spawn(async move {
            let stop = SimStop::new();
            while let Ok((reader, writer, _)) = listener.accept(stop.handle()).await {
                rt.spawn(steady(reader, writer, index, seen.clone()));
            }
        });
    }
    let mut version = Version::draw(&mut Rng::new(0), count);
    version.server = CONFIG.into();
    version.defaults = DEFAULTS.to_owned()
        + "breaker = { failures = 2, error_rate = 1.0, window = \"600s\", open = \"900s\" }\n";
    (version.has_n, version.policy) = (false, "order");
    version.providers[0].keys = vec!["BAD".into()];
    let history = Rc::new(History::of(version, places, false));
    let notes = Arc::new(Notes::default());
    let shared = Arc::new(Shared::new(history.first(), Names::default(), notes.clone()));
    history.adopt(&shared);
    let results = Rc::new(RefCell::new(Vec::new()));
    let clients = 3;
    let left = Rc::new(RefCell::new(clients));
    for _ in 0..clients {
        let (rt, control, left) = (world.rt(), shared.clone(), left.clone());
        let (history, results, seed) = (history.clone(), results.clone(), rng.next());
        world.rt().spawn(async move {
            for turn in 0..6 {
                let seed = seed.wrapping_add(turn);
                super::ask(rt.clone(), gateway, seed, history.clone(), results.clone()).await;
            }
            *left.borrow_mut() -= 1;
            if *left.borrow() == 0 {
                control.raise(Level::Draining);
            }
        });
    }
    world.rt().spawn(around_the_bad_one(world.rt(), shared.clone(), history.clone(), rng.next()));
    let listener = world.listen(gateway);
    let end = world.block_on(core::serve(world.rt(), vec![listener], shared, CoreId(0), seed));
    world.settle();
    assert_eq!((end, world.lost_ops()), (core::End::Drained, 0), "{}", world.report("health"));
    let ledgers = std::mem::take(&mut *notes.ledgers.lock().unwrap());
    let seen = seen.borrow();
    let mixed = history.judge(&ledgers, &seen, &results.borrow(), seed);
    for ledger in &ledgers {
        // A client may name what is not there, or take its whole time to ask.
        let served = matches!(ledger.ending, Ending::Good | Ending::Gone);
        let own = matches!(ledger.status, 404 | 408 | 504);
        assert!(served || own, "seed {seed}: {ledger:?}");
    }
    // Two failures open its breaker, and those that were under way then may come on top.
    let bad = seen.iter().filter(|visit| visit.who.place == 0).count();
    assert!(bad < 2 + clients, "seed {seed}: the bad one was asked {bad} times");
    mixed.reloads
}

/// A provider that always does the same: the first fails, the others serve.
async fn steady(
    mut reader: super::SimReader,
    mut writer: super::SimWriter,
    index: usize,
    seen: Visits,
) {
    let (mut rx, mut rng) = (super::Buf::new(), Rng::new(1));
    while let Some((head, body)) = super::receive(&mut reader, &mut rx).await {
        let body = String::from_utf8(body).unwrap();
        let tag = format!("p{index}r{}", seen.borrow().len());
        seen.borrow_mut().push(Visit::of(index, &tag, &head, &body));
        let act = if index == 0 { super::Act::Status(500) } else { super::Act::Good };
        let response = respond(act, &tag, body.contains("\"stream\":true"), &mut rng);
        if !super::send(&mut writer, &response.bytes).await {
            return;
        }
    }
}

/// Changes everything but the bad one.
async fn around_the_bad_one(rt: SimRt, shared: Arc<Shared>, history: Rc<History>, seed: u64) {
    let mut rng = Rng::new(seed);
    for number in 1..60 {
        rt.sleep_until(rt.now() + Ms(20 + rng.below(200))).await;
        let mut version = history.loads.borrow().last().unwrap().version.clone();
        let changed = version.changed(&mut rng, history.places.len(), number);
        version.order = changed.order;
        version.providers = changed.providers;
        version.has_route = changed.has_route;
        // It stays who it is, wherever it stands; somebody else can serve.
        version.providers.retain(|here| here.place != 0);
        version.order.retain(|place| *place != 0);
        if version.providers.is_empty() {
            let keys = Vec::new();
            version.providers.push(Here { place: 1, model: "up".into(), keys, base: "v1".into() });
            version.order.push(1);
        }
        let keys = vec![String::from("BAD")];
        let here = Here { place: 0, model: "up".into(), keys, base: "v1".into() };
        let at = rng.below(version.providers.len() as u32 + 1) as usize;
        version.providers.insert(at, here);
        version.order.insert(rng.below(version.order.len() as u32 + 1) as usize, 0);
        history.publish(&shared, version, rt.now());
    }
}

#[test]
fn health_outlives_any_number_of_configs() {
    let seeds = super::number("SIM_SEEDS").unwrap_or(256).div_ceil(32);
    let reloads: u64 =
        super::number("SIM_SEED").map_or(0..seeds, |seed| seed..seed + 1).map(a_bad_one).sum();
    println!("{reloads} configs around a provider that is down");
    assert!(reloads > 0);
}
