//! How connections come about: listeners with their backlogs, and dials.
//!
//! ```text
//!   dial --- latency ---> syn: refused, or connected and in the backlog --- latency ---> dialed
//! ```
//!
//! A dial that is dropped before its syn leaves no trace; after it the listener has a connection
//! that ends at once.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Waker;

use super::faults::{Faults, Weather, within};
use super::net::{Conn, End, EndId, Life};
use super::op::Outcome;
use super::state::{Event, State};

pub(super) const ECONNREFUSED: i32 = 111;

/// Connections that wait for an accept; a handshake beyond is repeated, as SYN is.
const BACKLOG: usize = 1024;
const SYN_AGAIN_US: u64 = 1_000_000;

pub(super) struct Listening {
    pub(super) backlog: VecDeque<(EndId, SocketAddr)>,
    pub(super) accepts: VecDeque<u64>,
}

/// What an address does to those who dial it, listeners aside.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum DialFate {
    Normal,
    Refused,
    Lost,
}

pub(super) struct Dial {
    addr: SocketAddr,
    from: SocketAddr,
    faults: Rc<Faults>,
    fate: DialFate,
    result: Option<Result<EndId, i32>>,
    answered: bool,
    pub(super) waker: Waker,
}

impl State {
    /// Sockets that the program has: connected ones and those being dialled.
    pub(super) fn open_sockets(&self) -> usize {
        let open = self.conns.values().flat_map(|conn| &conn.ends);
        let dialing = self.dials.values().filter(|dial| !matches!(dial.result, Some(Ok(_))));
        open.filter(|end| end.life == Life::Open).count() + dialing.count()
    }

    /// Begins a dial; its fate is drawn now, unless the world has fixed it.
    pub(super) fn dial(&mut self, addr: SocketAddr, fate: Option<DialFate>, waker: Waker) -> u64 {
        let faults = self.faults_for(addr);
        let rng = &mut self.rng;
        let fate = match fate {
            Some(fate) => fate,
            None if rng.one_in(faults.dial_lost) => DialFate::Lost,
            None if rng.one_in(faults.dial_refused) => DialFate::Refused,
            None => DialFate::Normal,
        };
        let mut wait_us = within(rng, faults.latency_us);
        if rng.one_in(faults.dial_slow) {
            wait_us += within(rng, faults.dial_slow_us);
        }
        let id = self.id();
        let from = SocketAddr::from(([127, 0, 0, 1], 1024 + (id % 60_000) as u16));
        let dial = Dial { addr, from, faults, fate, result: None, answered: false, waker };
        self.dials.insert(id, dial);
        self.note("dial", id, wait_us);
        if fate != DialFate::Lost {
            self.schedule(self.now_us + wait_us, Event::Syn { dial: id });
        }
        id
    }

    pub(super) fn syn_arrives(&mut self, id: u64) {
        let Some(dial) = self.dials.get(&id) else { return };
        let (addr, from, faults) = (dial.addr, dial.from, dial.faults.clone());
        let refused = dial.fate == DialFate::Refused;
        let backlog = self.listeners.get(&addr).map(|listening| listening.backlog.len());
        self.note("syn", id, u64::from(refused));
        let result = match backlog {
            Some(waiting) if !refused && waiting >= BACKLOG => {
                self.schedule(self.now_us + SYN_AGAIN_US, Event::Syn { dial: id });
                return;
            }
            Some(_) if !refused => Ok(self.connect(addr, from, faults.clone())),
            _ => Err(ECONNREFUSED),
        };
        if let Some(dial) = self.dials.get_mut(&id) {
            dial.result = Some(result);
        }
        let wait_us = within(&mut self.rng, faults.latency_us);
        self.schedule(self.now_us + wait_us, Event::Dialed { dial: id });
    }

    /// Makes a connection and puts its far end into the backlog.
    fn connect(&mut self, addr: SocketAddr, from: SocketAddr, faults: Rc<Faults>) -> EndId {
        let id = self.id();
        let rng = &mut self.rng;
        let ends = [Life::Open, Life::Backlog].map(|life| {
            let weather = Weather::draw(&faults, rng);
            End::new(life, weather, within(rng, faults.buffer_bytes).max(1) as usize)
        });
        self.conns.insert(id, Conn { ends, faults });
        if let Some(listening) = self.listeners.get_mut(&addr) {
            listening.backlog.push_back((EndId { conn: id, side: 1 }, from));
        }
        self.run_accepts(addr);
        EndId { conn: id, side: 0 }
    }

    pub(super) fn dial_answered(&mut self, id: u64) {
        self.note("dialed", id, 0);
        if let Some(dial) = self.dials.get_mut(&id) {
            dial.answered = true;
            dial.waker.wake_by_ref();
        }
    }

    /// The result, once it is there; the dial is then over.
    pub(super) fn take_dialed(&mut self, id: u64, waker: &Waker) -> Option<Result<EndId, i32>> {
        let dial = self.dials.get_mut(&id)?;
        if !dial.answered {
            dial.waker.clone_from(waker);
            return None;
        }
        self.dials.remove(&id).and_then(|dial| dial.result)
    }

    /// Gives a dial up and closes what it had.
    pub(super) fn drop_dial(&mut self, id: u64) {
        let Some(dial) = self.dials.remove(&id) else { return };
        self.note("dial dropped", id, 0);
        if let Some(Ok(end)) = dial.result {
            self.send_fin(end);
            self.release(end);
        }
    }

    // Listening.

    pub(super) fn run_accepts(&mut self, addr: SocketAddr) {
        while let Some(listening) = self.listeners.get_mut(&addr) {
            if listening.backlog.is_empty() || listening.accepts.is_empty() {
                return;
            }
            let (Some((end, from)), Some(op)) =
                (listening.backlog.pop_front(), listening.accepts.pop_front())
            else {
                return;
            };
            if let Some(accepted) = self.end(end) {
                accepted.life = Life::Open;
            }
            self.note("accept", op, end.code());
            self.finish(op, Outcome::Accepted(end, from));
        }
    }

    /// Closes a listener; those who wait in its backlog are reset.
    pub(super) fn unlisten(&mut self, addr: SocketAddr) {
        let Some(listening) = self.listeners.remove(&addr) else { return };
        for (end, _) in listening.backlog {
            self.abort(end);
        }
        for op in listening.accepts {
            self.ops.remove(&op);
        }
    }
}
