//! The state of a world: clock, events and counters. Connections are in `net.rs`, how
//! they come about in `dial.rs`, operations in `op.rs`.
//!
//! Nothing here runs code of the tasks: a waker only puts a number into the ready queue. So the one
//! `RefCell` around this is never borrowed twice.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Waker;

use super::dial::{Dial, Listening};
use super::faults::{Faults, within};
use super::net::{Conn, EndId};
use super::op::Op;
use crate::base::rng::Rng;

/// What will happen.
pub(super) enum Event {
    /// Bytes arrive.
    Data { to: EndId, bytes: Vec<u8> },
    /// The end of the peer's direction arrives.
    Fin { to: EndId },
    /// A reset arrives.
    Reset { to: EndId },
    /// A handshake reaches the listener.
    Syn { dial: u64 },
    /// Its answer reaches the dialler.
    Dialed { dial: u64 },
    /// An operation's task is told that it is done.
    Deliver { op: u64 },
    /// A stop takes effect.
    Cancel { op: u64 },
    /// A timer fires.
    Timer { waker: Waker },
}

/// When an event happens and in which order among its equals. Names the event.
pub(super) type Key = (u64, u64);

pub(super) struct State {
    pub(super) seed: u64,
    pub(super) now_us: u64,
    /// The clock shows the first of these until the second comes.
    stalled: Option<(u64, u64)>,
    /// What the clock has jumped and stood by now.
    pub(super) unsteady_us: u64,
    /// By how much the wall clock was set, in milliseconds.
    pub(super) wall_ms: i64,
    pub(super) rng: Rng,
    pub(super) faults: Rc<Faults>,
    pub(super) faults_at: BTreeMap<SocketAddr, Rc<Faults>>,
    pub(super) events: BTreeMap<Key, Event>,
    pub(super) next_id: u64,
    pub(super) conns: BTreeMap<u64, Conn>,
    pub(super) dials: BTreeMap<u64, Dial>,
    pub(super) listeners: BTreeMap<SocketAddr, Listening>,
    pub(super) ops: BTreeMap<u64, Op>,
    pub(super) lost_ops: usize,
    pub(super) steps: u64,
    hash: u64,
    recent: VecDeque<(u64, u64, &'static str, u64, u64)>,
}

/// Steps that a report shows.
const RECENT_STEPS: usize = 40;

impl State {
    pub(super) fn new(seed: u64, faults: Faults) -> State {
        State {
            seed,
            now_us: 0,
            stalled: None,
            unsteady_us: 0,
            wall_ms: 0,
            rng: Rng::new(seed),
            faults: Rc::new(faults),
            faults_at: BTreeMap::new(),
            events: BTreeMap::new(),
            next_id: 1,
            conns: BTreeMap::new(),
            dials: BTreeMap::new(),
            listeners: BTreeMap::new(),
            ops: BTreeMap::new(),
            lost_ops: 0,
            steps: 0,
            hash: seed,
            recent: VecDeque::new(),
        }
    }

    pub(super) fn id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    /// The faults that hold for an address.
    pub(super) fn faults_for(&self, addr: SocketAddr) -> Rc<Faults> {
        self.faults_at.get(&addr).unwrap_or(&self.faults).clone()
    }

    /// Lets an event happen at `at_us`, or now if that is past.
    pub(super) fn schedule(&mut self, at_us: u64, event: Event) -> Key {
        let key = (at_us.max(self.now_us), self.id());
        self.events.insert(key, event);
        key
    }

    /// Takes a step into the trace.
    pub(super) fn note(&mut self, what: &'static str, a: u64, b: u64) {
        self.steps += 1;
        self.mix_bytes(what.as_bytes());
        self.mix(self.now_us);
        self.mix(a.rotate_left(32) ^ b);
        if self.recent.len() == RECENT_STEPS {
            self.recent.pop_front();
        }
        self.recent.push_back((self.steps, self.now_us, what, a, b));
    }

    /// Takes a value into the trace's hash.
    pub(super) fn mix(&mut self, value: u64) {
        self.hash = Rng::new(self.hash ^ value.rotate_left(32)).next();
    }

    /// Takes bytes into the trace's hash.
    pub(super) fn mix_bytes(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    pub(super) fn trace_hash(&self) -> u64 {
        self.hash
    }

    /// Whether an event is due before the clock moves.
    pub(super) fn is_due(&self) -> bool {
        self.events.first_key_value().is_some_and(|(key, _)| key.0 <= self.now_us)
    }

    /// Lets the next event happen; false if there is none.
    pub(super) fn advance(&mut self) -> bool {
        let Some(((at_us, _), event)) = self.events.pop_first() else { return false };
        self.now_us = self.now_us.max(at_us);
        let faults = self.faults.clone();
        self.unsettle_clocks(&faults);
        match event {
            Event::Data { to, bytes } => self.data_arrives(to, &bytes),
            Event::Fin { to } => self.fin_arrives(to),
            Event::Reset { to } => self.reset_arrives(to),
            Event::Syn { dial } => self.syn_arrives(dial),
            Event::Dialed { dial } => self.dial_answered(dial),
            Event::Deliver { op } => self.deliver(op),
            Event::Cancel { op } => self.cancel(op),
            Event::Timer { waker } => {
                self.note("timer", 0, 0);
                waker.wake();
            }
        }
        true
    }

    fn unsettle_clocks(&mut self, faults: &Faults) {
        if self.rng.one_in(faults.clock_jump) {
            let by_us = within(&mut self.rng, faults.clock_jump_us);
            self.now_us += by_us;
            self.unsteady_us += by_us;
        }
        if self.shown_us() == self.now_us && self.rng.one_in(faults.clock_stall) {
            let by_us = within(&mut self.rng, faults.clock_stall_us);
            self.stalled = Some((self.now_us, self.now_us + by_us));
            self.unsteady_us += by_us;
            self.note("stall", by_us, 0);
        }
        if self.rng.one_in(faults.wall_step) {
            let width = faults.wall_step_ms.saturating_mul(2).saturating_add(1);
            self.wall_ms += i64::from(self.rng.below(width)) - i64::from(faults.wall_step_ms);
            // Never before the epoch.
            self.wall_ms = self.wall_ms.max(-1_000_000_000_000);
        }
    }

    /// What the clock shows, which is the truth unless it stands.
    pub(super) fn shown_us(&self) -> u64 {
        self.stalled.filter(|(_, until)| self.now_us < *until).map_or(self.now_us, |(at, _)| at)
    }

    /// When the clock shows the truth again, if it stands.
    pub(super) fn stalled_until(&self) -> Option<u64> {
        self.stalled.map(|(_, until)| until).filter(|until| self.now_us < *until)
    }

    /// What a failed test needs to see.
    pub(super) fn report(&self, why: &str, tasks: usize) -> String {
        let mut text = format!(
            "simulation: {why}\n  seed {} step {} at {} us: {tasks} tasks, {} operations, \
             {} sockets, {} dials, {} events, {} lost operations\n",
            self.seed,
            self.steps,
            self.now_us,
            self.ops.len(),
            self.open_sockets(),
            self.dials.len(),
            self.events.len(),
            self.lost_ops,
        );
        for (id, op) in &self.ops {
            let _ = writeln!(text, "  operation {id}: {op:?}");
        }
        for (id, conn) in &self.conns {
            let _ = writeln!(text, "  connection {id}: {conn:?}");
        }
        for (step, at, what, a, b) in &self.recent {
            let _ = writeln!(text, "  step {step} at {at} us: {what} {a} {b}");
        }
        text
    }
}
