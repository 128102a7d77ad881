//! F5: one exchange, from request bytes to the last response byte. Pure: bytes and a `now` come in,
//! outputs go out; no socket, no clock, no task.
//!
//! The shell calls `step` with what happened and then drains `poll` for what to do. The commit point
//! lives in [`phase`]; what follows a failure is decided in [`verdict`]; bytes are read in `relay`.
//!
//! Invariants, checked after each step in debug builds: no client byte but an opening's before the
//! commit, no dial after it, at most one attempt per lane, the ledger handed out exactly once.

pub mod answer;
mod attempts;
mod commit;
mod ends;
pub mod ledger;
pub mod patience;
pub mod phase;
mod relay;
mod timing;
pub mod verdict;

use smallvec::SmallVec;

use crate::base::buf::Buf;
use crate::base::fail::{Failure, Fault};
use crate::base::ids::EndpointId;
use crate::base::limits;
use crate::base::tick::{Tick, UnixMs};
use crate::exchange::answer::{Answer, Client, Framing};
use crate::exchange::ledger::{AttemptRecord, Ledger};
use crate::exchange::patience::Reading;
use crate::exchange::phase::{Lane, LaneId, Phase, Race, Stage};
use crate::llm::provider::Said;
use crate::llm::request::Ask;
use crate::route::Plan;
use crate::route::Table;
use crate::wire::http1::body::Body;

/// A side of the exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The client.
    Down,
    /// A provider.
    Up(LaneId),
}

/// What happened.
#[derive(Debug)]
pub enum Input<'b> {
    /// The dial succeeded.
    Dialed {
        /// Whose.
        lane: LaneId,
        /// The connection came from the pool.
        reused: bool,
    },
    /// Bytes from a provider. They are taken; the memory stays with the caller.
    Received {
        /// Whose.
        lane: LaneId,
        /// The bytes.
        rx: &'b mut Buf,
    },
    /// A provider ended its direction.
    Ended {
        /// Whose.
        lane: LaneId,
    },
    /// Dial, read or write failed.
    Broke {
        /// Whose.
        lane: LaneId,
        /// How.
        fault: Fault,
        /// It was a write: an early answer may still be read.
        write: bool,
    },
    /// The kernel took bytes of what `take_write` gave.
    Wrote {
        /// To whom.
        side: Side,
        /// Nothing of it is left.
        done: bool,
    },
    /// The client closed its connection or stopped reading for good.
    Gone,
    /// The time that was asked for has come.
    Alarm,
    /// The process ends: what is not committed gets 503, what is gets cut.
    Shutdown,
}

/// What the shell shall do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    /// Connect lane to endpoint, by a pooled connection unless `fresh`.
    Dial {
        /// Whose.
        lane: LaneId,
        /// Where.
        endpoint: EndpointId,
        /// Do not use a pooled connection.
        fresh: bool,
        /// When it will be given up.
        by: Tick,
    },
    /// Read from the provider.
    Read {
        /// Whose.
        lane: LaneId,
    },
    /// Take bytes by `take_write` and send them.
    Write {
        /// To whom.
        side: Side,
    },
    /// Wake the exchange by `Alarm` at this time; replaces the one before.
    Arm {
        /// When.
        at: Tick,
    },
    /// Close the lane's connection or give up its dial.
    Hangup {
        /// Whose.
        lane: LaneId,
    },
    /// The lane's connection is at a clean end: back to the pool.
    Release {
        /// Whose.
        lane: LaneId,
    },
    /// The answer is whole but not its framing: read the rest aside (`take_rest`), then pool.
    Drain {
        /// Whose.
        lane: LaneId,
    },
    /// The exchange is over; take the ledger.
    Finish {
        /// The client's connection can carry another request.
        keep: bool,
    },
}

/// What a step may look at.
pub struct Cx<'a> {
    /// The monotonic clock, read once for a batch of completions.
    pub now: Tick,
    /// The wall clock.
    pub wall: UnixMs,
    /// The snapshot's table, the same for all of an exchange.
    pub table: &'a Table,
}

/// What an exchange is made of.
pub struct Job {
    /// What is asked for.
    pub ask: Ask,
    /// The client's body, whole.
    pub body: Buf,
    /// Who is tried.
    pub plan: Plan,
}

/// The client's bytes on their way.
#[derive(Default)]
struct Down {
    /// The response head, until it is handed over.
    head: Buf,
    /// Body bytes that wait, without transfer framing.
    filling: Buf,
    /// A write is under way.
    writing: bool,
    /// How long that write was at its start, and the memory that it holds.
    flying: (usize, usize),
    /// The answer is complete: the end of the framing goes with the last bytes.
    ended: bool,
    /// The end of the framing was handed over.
    sealed: bool,
    /// The body's framing; fixed with the head.
    framing: Framing,
    /// How the client reads.
    reading: Reading,
}

/// One exchange.
pub struct Exchange {
    phase: Phase,
    ask: Ask,
    body: Buf,
    plan: Plan,
    client: Client,
    down: Down,
    /// In order, and few: the shell empties it after each step.
    outputs: SmallVec<[Output; 6]>,
    ledger: Option<Ledger>,
    /// The last failure that the client would be told of, with what the provider said.
    failure: Option<(Failure, Option<Said>)>,
    opened_at: Tick,
    heartbeat_at: Tick,
    armed: Tick,
    keep: bool,
    rest: Option<Body>,
    /// What was committed is not whole, and only the connection can say so.
    is_torn: bool,
    /// Memory that is not needed any more: the request's body's after the commit, a whole answer's.
    spent: [Buf; 2],
}

impl Exchange {
    /// An exchange that tries the plan.
    pub fn new(job: Job, client: Client, ledger: Ledger, cx: &Cx<'_>) -> Exchange {
        let mut exchange = Exchange::bare(job.ask, job.body, job.plan, client, ledger);
        exchange.phase = Phase::Trying(Race::new());
        if let Some(after) = exchange.plan.rules.open_after
            && exchange.ask.stream
            && exchange.ask.surface.is_understood()
        {
            exchange.opened_at = cx.now + after;
        }
        exchange.start_next(LaneId::A, cx);
        exchange.settle(cx);
        exchange
    }

    /// An exchange that only answers: errors before any plan, model lists, explanations.
    pub fn answered(answer: Answer, client: Client, ledger: Ledger, cx: &Cx<'_>) -> Exchange {
        let mut exchange = Exchange::bare(Ask::default(), Buf::new(), Plan::none(), client, ledger);
        exchange.say(&answer, cx);
        exchange.settle(cx);
        exchange
    }

    fn bare(ask: Ask, body: Buf, plan: Plan, client: Client, ledger: Ledger) -> Exchange {
        Exchange {
            phase: Phase::Closing,
            ask,
            body,
            plan,
            client,
            down: Down::default(),
            outputs: SmallVec::new(),
            ledger: Some(ledger),
            failure: None,
            opened_at: Tick::NEVER,
            heartbeat_at: Tick::NEVER,
            armed: Tick::NEVER,
            keep: true,
            rest: None,
            is_torn: false,
            spent: [const { Buf::new() }; 2],
        }
    }

    /// Whether the flag has turned.
    pub fn is_committed(&self) -> bool {
        !matches!(self.phase, Phase::Trying(_) | Phase::Opened(_))
    }

    /// Whether it only waits for the shell to take the ledger.
    pub fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// Tells what happened. Outputs wait in `poll` afterwards.
    pub fn step(&mut self, input: Input<'_>, cx: &Cx<'_>) {
        match input {
            Input::Dialed { lane, reused } => self.dialed(lane, reused, cx),
            Input::Received { lane, rx } => self.received(lane, rx, cx),
            Input::Ended { lane } => self.pumped_with(lane, cx, |lane, reads| lane.eof(reads)),
            Input::Broke { lane, fault, write } => self.broke(lane, fault, write, cx),
            Input::Wrote { side, done } => self.wrote(side, done, cx),
            Input::Gone => self.gone(cx),
            Input::Alarm => self.alarm(cx),
            Input::Shutdown => self.shut_down(cx),
        }
        self.settle(cx);
        self.check();
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        (!self.outputs.is_empty()).then(|| self.outputs.remove(0))
    }

    /// The bytes of a `Write`, framed.
    pub fn take_write(&mut self, side: Side) -> Buf {
        match side {
            Side::Down => self.down.take(),
            Side::Up(lane) => self.lane_mut(lane).map(|lane| lane.out.take()).unwrap_or_default(),
        }
    }

    /// Whether a stream was asked for.
    pub fn streams(&self) -> bool {
        self.ask.stream
    }

    /// Whether so much waits for the client that nothing more is read for it.
    pub fn is_crowded(&self) -> bool {
        self.down.flying.0 + self.down.filling.len() >= limits::BACKLOG_BYTES_MAX
    }

    /// The memory that is held for a client, in bytes: the write under way and what waits behind it.
    pub fn backlog_bytes(&self) -> usize {
        let lanes: &[Option<Box<Lane>>] = match &self.phase {
            Phase::Trying(race) | Phase::Opened(race) => &race.lanes,
            Phase::Relaying { .. } | Phase::Closing | Phase::Done => &[],
        };
        let relayed = match &self.phase {
            Phase::Relaying { lane, .. } => Some(&**lane),
            Phase::Trying(_) | Phase::Opened(_) | Phase::Closing | Phase::Done => None,
        };
        let lanes = lanes.iter().flatten().map(|lane| &**lane).chain(relayed);
        let held: usize = lanes.map(|lane| lane.held.capacity() + lane.torn.capacity()).sum();
        self.down.flying.1 + self.down.filling.capacity() + self.down.head.capacity() + held
    }

    /// Gives memory where some will be needed and is not there: for what a lane says to its provider, for what
    /// it says to the client, for the head of the answer.
    pub fn lend(&mut self, id: LaneId, memory: &mut Vec<Buf>) {
        let (begins, whole) = (!self.is_committed(), !self.ask.stream);
        let mut lend = |buf: &mut Buf| {
            if buf.capacity() == 0 {
                *buf = memory.pop().unwrap_or_default();
            }
        };
        if begins {
            lend(&mut self.down.head);
        }
        let Some(lane) = self.lane_mut(id) else { return };
        if lane.stage == Stage::Dialing {
            lend(&mut lane.out);
            return;
        }
        lend(&mut lane.held);
        if whole {
            // To write the answer into that is read from the other.
            lend(&mut lane.torn);
        }
    }

    /// When an alarm would ask how much the client has taken.
    pub fn asks_what_was_taken(&self, now: Tick) -> bool {
        self.down.writing && self.down.reading.look_at() <= now
    }

    /// So many octets of its connection has the client taken so far, whichever these are: told before an
    /// alarm that asks for it.
    pub fn told_taken(&mut self, octets: u64) {
        self.down.reading.told(octets);
    }

    /// Takes back memory in which nothing waits.
    pub fn reclaim(&mut self, id: LaneId, memory: &mut Vec<Buf>) {
        let held = self.lane_mut(id).map(|lane| lane.held.take_idle());
        let filling = self.down.filling.take_idle();
        let spent = self.spent.each_mut().map(Buf::take);
        for buf in held.into_iter().chain([filling]).chain(spent) {
            keep_memory(buf, memory);
        }
    }

    /// What is left of the body of a `Drain`.
    pub fn take_rest(&mut self) -> Option<Body> {
        self.rest.take()
    }

    /// Whether the client's connection shall end by a reset.
    pub fn is_torn(&self) -> bool {
        self.is_torn
    }

    /// The ledger, once, after `Finish`.
    pub fn take_ledger(&mut self) -> Option<Ledger> {
        debug_assert!(self.is_done());
        self.ledger.take()
    }

    fn race_mut(&mut self) -> Option<&mut Race> {
        match &mut self.phase {
            Phase::Trying(race) | Phase::Opened(race) => Some(race),
            Phase::Relaying { .. } | Phase::Closing | Phase::Done => None,
        }
    }

    fn lane_mut(&mut self, id: LaneId) -> Option<&mut Lane> {
        match &mut self.phase {
            Phase::Trying(race) | Phase::Opened(race) => race.lanes[id.index()].as_deref_mut(),
            Phase::Relaying { at, lane } if *at == id => Some(lane),
            Phase::Relaying { .. } | Phase::Closing | Phase::Done => None,
        }
    }

    fn record_mut(&mut self, index: u8) -> Option<&mut AttemptRecord> {
        self.ledger.as_mut()?.attempts.get_mut(usize::from(index))
    }

    fn wrote(&mut self, side: Side, done: bool, cx: &Cx<'_>) {
        match side {
            Side::Down => {
                self.down.writing = !done;
                self.down.flying = if done { (0, 0) } else { self.down.flying };
                self.down.reading.accepted(done, cx.now);
            }
            Side::Up(id) => {
                if let Some(lane) = self.lane_mut(id)
                    && done
                {
                    lane.writing = false;
                    lane.sent = true;
                }
            }
        }
    }

    /// Asks for whatever can go on: writes, reads, the timer, the end.
    fn settle(&mut self, cx: &Cx<'_>) {
        if !self.down.writing && self.down.has_bytes() {
            self.down.writing = true;
            self.down.reading.began(cx.now, self.armed, self.client.patience);
            if let Some(ledger) = &mut self.ledger {
                ledger.bytes_out += self.down.filling.len() as u64;
            }
            self.outputs.push(Output::Write { side: Side::Down });
        }
        let crowded = self.is_crowded();
        if crowded {
            // It may be long until the client reads.
            self.down.filling.trim(limits::READ_BYTES_MAX / 4);
        }
        for id in LaneId::ALL {
            let Some(lane) = self.lane_mut(id) else { continue };
            if lane.stage == Stage::Dialing || lane.reading {
                continue;
            }
            if crowded {
                lane.paused.get_or_insert(cx.now);
            } else {
                lane.resume(cx.now);
                lane.reading = true;
                self.outputs.push(Output::Read { lane: id });
            }
        }
        if matches!(self.phase, Phase::Closing) && !self.down.writing && !self.down.has_bytes() {
            self.phase = Phase::Done;
            if let Some(ledger) = &mut self.ledger {
                ledger.ended = cx.now;
            }
            let keep = self.keep && self.client.keep_alive && self.down.framing != Framing::Close;
            self.outputs.push(Output::Finish { keep });
        }
        self.arm(cx);
    }

    /// What must hold after every step.
    fn check(&self) {
        debug_assert!(self.is_committed() || self.down.head.is_empty() || self.is_open());
        debug_assert!(
            !self.is_committed() || !self.outputs.iter().any(|o| matches!(o, Output::Dial { .. })),
            "no dial after the commit"
        );
        debug_assert!(!self.is_done() || !self.down.has_bytes());
        if let Some(ledger) = &self.ledger {
            debug_assert!(ledger.attempts.len() <= limits::PLAN_ATTEMPTS_MAX);
            debug_assert!(
                ledger.committed.is_some() == self.is_committed() || ledger.status == 499
            );
        }
    }

    fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Opened(_))
    }
}

/// Keeps the memory of a buffer for another, if it has any and that is not too much.
pub fn keep_memory(mut buf: Buf, memory: &mut Vec<Buf>) {
    let worth = (1..=limits::READ_BYTES_MAX).contains(&buf.capacity());
    if worth && memory.len() < limits::SPARE_BUFFERS_MAX {
        buf.clear();
        memory.push(buf);
    }
}

impl Down {
    fn has_bytes(&self) -> bool {
        !self.head.is_empty() || !self.filling.is_empty() || (self.ended && !self.sealed)
    }

    /// Head, one chunk and the end of the framing, as far as they wait: one write.
    fn take(&mut self) -> Buf {
        let seal = self.ended && !self.sealed;
        self.sealed |= seal;
        let out = answer::frame(&mut self.head, &mut self.filling, self.framing, seal);
        self.flying = (out.len(), out.capacity());
        out
    }
}

// One read more than the backlog, told anew in twice as many bytes, and the buffer that it came in.
const _: () =
    assert!(limits::BACKLOG_BYTES_MAX + 3 * limits::READ_BYTES_MAX <= limits::STREAM_BYTES_MAX);

#[cfg(test)]
mod tests;
