//! What one core's tasks share, and the core's life: accept, serve, drain, end.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};

use crate::base::buf::Buf;
use crate::base::ids::{CoreId, EndpointId, Table as Rows};
use crate::base::rng::Rng;
use crate::base::tick::{Ms, Tick, UnixMs};
use crate::config::{GatewayKey, Problem, Server};
use crate::exchange::Cx;
use crate::net::accept;
use crate::net::beacon::{Beacon, Level};
use crate::net::gate::Gate;
use crate::net::load::{Lateness, Load, Shed};
use crate::net::names::Names;
use crate::net::pool::Pool;
use crate::net::tls::{self, Profile};
use crate::net::watch::Watch;
use crate::route::{Endpoint, ProviderRow, Table};
use crate::rt::{LAG_AFTER, Rt};

/// One load of the config, compiled. Immutable; an exchange keeps the one it began with.
pub struct Snapshot {
    /// Rises with each load; what a pool belongs to.
    pub generation: u64,
    /// Limits and time-outs of the client's side.
    pub server: Server,
    /// Who may call; empty: everybody.
    pub keys: Vec<GatewayKey>,
    /// Who is tried.
    pub table: Table,
    /// How TLS endpoints are connected to.
    pub tls: Rows<EndpointId, Option<Profile>>,
    /// Requests under way by key, where that is limited.
    pub(super) in_flight: Box<[AtomicU32]>,
    /// What clients are spoken TLS to with; `None`: plain HTTP.
    pub client_tls: Option<tls::server::Profile>,
}

impl Snapshot {
    /// A first snapshot: a TLS profile for each endpoint that speaks it, and one for clients if they do.
    ///
    /// # Errors
    /// Each name, CA, certificate or key that can't be used, and why.
    pub fn new(
        generation: u64,
        server: Server,
        keys: Vec<GatewayKey>,
        table: Table,
    ) -> Result<Snapshot, Vec<Problem>> {
        Snapshot::make(generation, server, keys, table, None)
    }

    /// The snapshot after this one. What did not change keeps its TLS profile, and with it the sessions
    /// that can be resumed.
    ///
    /// # Errors
    /// As `new`.
    pub fn next(
        &self,
        server: Server,
        keys: Vec<GatewayKey>,
        table: Table,
    ) -> Result<Snapshot, Vec<Problem>> {
        Snapshot::make(self.generation + 1, server, keys, table, Some(self))
    }

    fn make(
        generation: u64,
        server: Server,
        keys: Vec<GatewayKey>,
        table: Table,
        previous: Option<&Snapshot>,
    ) -> Result<Snapshot, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut tls = Rows::new();
        for (_, endpoint) in table.endpoints.iter() {
            let kept = previous.and_then(|old| {
                let same = old.table.endpoints.iter().find(|(_, other)| *other == endpoint);
                old.tls[same?.0].clone()
            });
            let profile = match kept {
                Some(kept) => Some(kept),
                None if endpoint.tls => Profile::new(&endpoint.host, endpoint.ca.as_deref())
                    .map_err(|why| problems.push(unusable(&table, endpoint, why)))
                    .ok(),
                None => None,
            };
            tls.push(profile);
        }
        let before = previous.and_then(|old| Some((&old.server, old.client_tls.as_ref()?)));
        let client_tls = tls::server::Profile::new(&server, before).unwrap_or_else(|found| {
            problems.extend(found);
            None
        });
        if problems.is_empty() {
            let in_flight = keys.iter().map(|_| AtomicU32::new(0)).collect();
            Ok(Snapshot { generation, server, keys, table, tls, client_tls, in_flight })
        } else {
            Err(problems)
        }
    }
}

/// An endpoint that can't be spoken TLS to, told as the provider's problem.
fn unusable(table: &Table, endpoint: &Endpoint, why: String) -> Problem {
    let of = |row: &&ProviderRow| table.endpoints[row.endpoint] == *endpoint;
    let provider = table.providers.iter().map(|(_, row)| row).find(of);
    let name = provider.map_or("", |row| &*row.name);
    Problem {
        line: None,
        path: format!("providers.{name}"),
        what: format!("{}: {why}", endpoint.host),
        hint: String::from("see its base_url and ca"),
    }
}

/// What all cores share.
pub struct Shared {
    snapshot: RwLock<Arc<Snapshot>>,
    /// Addresses of names.
    pub names: Names,
    /// Metrics and log.
    pub watch: Arc<dyn Watch>,
    /// How much there is of everything that is limited.
    pub load: Load,
    level: AtomicU8,
    /// Listeners over all cores that still take connections.
    listening: AtomicUsize,
    /// Whether somebody else goes on with the listeners.
    handed_on: AtomicBool,
}

impl Shared {
    /// Shares a first snapshot.
    pub fn new(snapshot: Snapshot, names: Names, watch: Arc<dyn Watch>) -> Shared {
        let snapshot = RwLock::new(Arc::new(snapshot));
        Shared {
            snapshot,
            names,
            watch,
            load: Load::default(),
            level: AtomicU8::new(Level::Running as u8),
            listening: AtomicUsize::new(0),
            handed_on: AtomicBool::new(false),
        }
    }

    /// The snapshot of now. Held for a reference count's time.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Publishes another snapshot; exchanges that run keep theirs.
    pub fn publish(&self, snapshot: Snapshot) {
        self.publish_shared(Arc::new(snapshot));
    }

    /// As `publish`, where somebody else has it too.
    pub fn publish_shared(&self, snapshot: Arc<Snapshot>) {
        self.watch.publishing(&snapshot.table);
        let mut slot = self.snapshot.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        let old = std::mem::replace(&mut *slot, snapshot);
        drop(slot);
        // The last one who has it takes a while to drop it; nobody shall wait for that.
        drop(old);
    }

    /// How far the end has come.
    pub fn level(&self) -> Level {
        Level::from_u8(self.level.load(Ordering::Acquire))
    }

    /// Drains because another process goes on with the listeners: what waits in them is left to it.
    pub fn hand_on(&self) {
        self.handed_on.store(true, Ordering::Release);
        self.raise(Level::Draining);
    }

    /// Whether `hand_on` was called.
    pub fn is_handed_on(&self) -> bool {
        self.handed_on.load(Ordering::Acquire)
    }

    /// Listeners over all cores that still take connections.
    pub fn listening(&self) -> usize {
        self.listening.load(Ordering::SeqCst)
    }

    /// Raises the level on all cores; they notice within a tick (`TICK`).
    pub fn raise(&self, level: Level) {
        self.level.fetch_max(level as u8, Ordering::AcqRel);
    }
}

/// One core.
pub struct Core<R: Rt> {
    /// Its runtime.
    pub rt: R,
    /// Which one.
    pub id: CoreId,
    /// What all cores share.
    pub shared: Arc<Shared>,
    /// Idle connections to providers.
    pub pool: Pool<R>,
    /// Draining and stopping, for this core's tasks.
    pub beacon: Beacon,
    /// What is received from providers, for as long as it is looked at: as it came, and opened.
    pub(super) received: [Cell<Buf>; 2],
    /// Memory of buffers to clients, of which a stream has none while it is silent.
    pub(super) memory: RefCell<Vec<Buf>>,
    /// Request ids and turns.
    pub rng: RefCell<Rng>,
    /// How late this core's event loop is.
    pub lateness: Lateness,
    /// Where requests wait that a late core has no time for.
    pub(super) gate: Gate,
    /// The wall clock as it was read last, and when.
    clock: Cell<(Tick, UnixMs)>,
    turn: Cell<u32>,
    /// Exchanges under way.
    exchanges: Cell<usize>,
    live: Cell<usize>,
    listening: Cell<usize>,
}

impl<R: Rt> Core<R> {
    /// A core at the start of its life.
    pub fn new(rt: R, id: CoreId, shared: Arc<Shared>, seed: u64) -> Rc<Core<R>> {
        Rc::new(Core {
            rt,
            id,
            shared,
            pool: Pool::default(),
            beacon: Beacon::new(),
            received: [const { Cell::new(Buf::new()) }; 2],
            memory: RefCell::new(Vec::new()),
            rng: RefCell::new(Rng::new(seed)),
            lateness: Lateness::default(),
            gate: Gate::new(),
            clock: Cell::new((Tick::NEVER, UnixMs(0))),
            turn: Cell::new(0),
            exchanges: Cell::new(0),
            live: Cell::new(0),
            listening: Cell::new(0),
        })
    }

    /// An exchange begins or ends. What a panic leaves counted, the core does not outlive.
    pub(super) fn exchanging(&self, begins: bool) {
        let count = self.exchanges.get();
        self.exchanges.set(if begins { count + 1 } else { count.saturating_sub(1) });
    }

    /// Whether a write shall leave at once, by a call of its own. A core with much to do hands writes to the
    /// ring, many at a time: the next task runs while this one's code is still in the caches, and peers are woken less often.
    pub(super) fn writes_at_once(&self) -> bool {
        !self.rt.batches() || self.exchanges.get() < BATCH_FROM
    }

    /// What a step of an exchange may look at, now.
    pub fn cx<'a>(&self, snapshot: &'a Snapshot) -> Cx<'a> {
        let now = self.rt.now();
        Cx { now, wall: self.wall(now), table: &snapshot.table }
    }

    /// The wall clock: read once a second, and counted on from there.
    pub fn wall(&self, now: Tick) -> UnixMs {
        let (read, wall) = self.clock.get();
        if read == Tick::NEVER || now.since(read) >= WALL_US {
            let wall = self.rt.wall();
            self.clock.set((now, wall));
            return wall;
        }
        UnixMs(wall.0 + now.since(read) / 1000)
    }

    /// Rises with each plan: whose turn among a provider's keys it is.
    pub fn next_turn(&self) -> u32 {
        let turn = self.turn.get();
        self.turn.set(turn.wrapping_add(1));
        turn
    }

    /// Client connections that are open on this core.
    pub fn live(&self) -> usize {
        self.live.get()
    }

    /// Counts a listener in.
    fn begin_listening(&self) {
        self.listening.set(self.listening.get() + 1);
        self.shared.listening.fetch_add(1, Ordering::SeqCst);
    }

    /// Counts a listener out, once it is closed.
    pub(super) fn end_listening(&self) {
        self.listening.set(self.listening.get() - 1);
        self.shared.listening.fetch_sub(1, Ordering::SeqCst);
    }

    /// Whether nothing is left to do: no connection is open and none can come.
    fn is_done(&self) -> bool {
        self.live.get() == 0 && self.listening.get() == 0
    }

    /// Counts a connection in, until the entry is dropped.
    ///
    /// # Errors
    /// A limit is reached, and nothing is counted but the refusal.
    pub(super) fn enter(self: &Rc<Self>, peer: IpAddr) -> Result<Entry<R>, Shed> {
        let client = self.shared.load.connect(&self.shared.snapshot().server, peer);
        let client = client.inspect_err(|shed| self.shared.watch.shed(self.id, *shed))?;
        self.live.set(self.live.get() + 1);
        self.shared.watch.connected(self.id);
        Ok(Entry { core: self.clone(), client })
    }

    /// Tells that a descriptor was missing, and gives up an idle connection for it.
    pub(super) fn miss_descriptor(&self) {
        let news = self.shared.load.exhausted(self.rt.now());
        self.shared.watch.no_descriptor(self.id, news);
        self.pool.give_up_one();
    }
}

/// A client connection that is counted; dropping it counts it out, also when its task unwinds.
pub struct Entry<R: Rt> {
    core: Rc<Core<R>>,
    client: Option<IpAddr>,
}

impl<R: Rt> Drop for Entry<R> {
    fn drop(&mut self) {
        let core = &self.core;
        core.shared.load.disconnect(self.client);
        core.live.set(core.live.get() - 1);
        core.shared.watch.disconnected(core.id);
    }
}

/// Why a core came to its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// It was asked to, and every connection is closed.
    Drained,
    /// It was asked to, and connections were left when time was up.
    Abandoned {
        /// How many.
        connections: usize,
    },
    /// A task panicked: its state may be torn, so the core starts anew.
    Panicked,
}

/// Serves listeners until the process drains or a task panics.
pub async fn serve<R: Rt>(
    rt: R,
    listeners: Vec<R::Listener>,
    shared: Arc<Shared>,
    id: CoreId,
    seed: u64,
) -> End {
    let core = Core::new(rt.clone(), id, shared, seed);
    let keeper = core.clone();
    rt.spawn(async move { keeper.pool.keep().await });
    let late = core.clone();
    rt.spawn(async move { tell_lateness(&late).await });
    for listener in listeners {
        core.begin_listening();
        rt.spawn(accept::run(core.clone(), listener));
    }
    let panicked = watch_over(&core).await;
    core.beacon.raise(Level::Stopping);
    let connections = wind_up(&core).await;
    core.pool.clear();
    match (panicked, connections) {
        (true, _) => End::Panicked,
        (false, 0) => End::Drained,
        (false, connections) => End::Abandoned { connections },
    }
}

/// Measures how late the event loop is, until the core stops.
async fn tell_lateness<R: Rt>(core: &Core<R>) {
    core.lateness.expect(core.rt.now() + LAG_AFTER);
    while core.beacon.level() < Level::Stopping {
        let late = core.rt.lag().await;
        let most = core.shared.snapshot().server.lag_max;
        core.lateness.tell(late, most);
        core.gate.tick(core.rt.used(), core.lateness.is_calm(most));
        core.shared.watch.late(core.id, core.lateness.now(), core.gate.waiting());
        // All that comes at once may be in front of the next tick, and is counted as it has its turn.
        let next = core.rt.now() + TICK;
        core.lateness.expect(next + LAG_AFTER);
        core.rt.sleep_until(next).await;
    }
}

/// Ticks until the core shall end; says whether because of a panic.
async fn watch_over<R: Rt>(core: &Core<R>) -> bool {
    loop {
        core.rt.sleep_until(core.rt.now() + TICK).await;
        let now = core.rt.now();
        if core.shared.load.recovered(now) {
            core.shared.watch.descriptors_again(core.id);
        }
        core.beacon.tick(now);
        core.pool.trim(now);
        if core.rt.panics() > 0 {
            return true;
        }
        let level = core.shared.level();
        core.beacon.raise(level);
        if level > Level::Running {
            core.gate.open();
        }
        if level == Level::Stopping || (level == Level::Draining && core.is_done()) {
            return false;
        }
    }
}

/// Waits for connections to end after `Stopping`; says how many did not.
async fn wind_up<R: Rt>(core: &Core<R>) -> usize {
    let until = core.rt.now() + WIND_UP;
    while !core.is_done() && core.rt.now() < until {
        core.rt.sleep_until(core.rt.now() + Ms(5)).await;
    }
    core.live()
}

/// From so many exchanges at once on, writes go by the ring: a small request costs 10 to 14 % less CPU so at
/// 64 at once, and waits some 10 us longer for its turn where it is alone.
const BATCH_FROM: usize = 8;
/// For how long the wall clock is counted on, in microseconds.
const WALL_US: u64 = 1_000_000;
/// How often a core looks for what other threads want.
const TICK: Ms = Ms(50);
/// How long connections get to say their last words.
const WIND_UP: Ms = Ms(2_000);
