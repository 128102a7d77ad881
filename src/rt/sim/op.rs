//! Operations with completion semantics: read, write, accept.
//!
//! ```text
//!   submit -> waiting -> done (result and bytes fixed) -> delivered -> harvested by its future
//!                 \_ stop, now or later: done with ECANCELED, if data did not come first
//! ```
//!
//! The world holds the buffer until the result is harvested. A future that is dropped between
//! submission and harvest leaves an *orphan*: it counts as lost, and as on a ring it still takes the
//! bytes or the connection that come next.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use super::exec::Shared;
use super::faults::within;
use super::net::EndId;
use super::state::{Event, State};
use crate::base::buf::Buf;
use crate::rt::Stop;

const ECANCELED: i32 = 125;

/// What an operation does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Work {
    Read(EndId),
    Write(EndId),
    Accept(SocketAddr),
}

/// How it ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Outcome {
    Bytes(usize),
    Accepted(EndId, SocketAddr),
    Failed(i32),
}

#[derive(Debug)]
pub(super) struct Op {
    work: Work,
    buf: Buf,
    outcome: Option<Outcome>,
    delivered: bool,
    orphan: bool,
    waker: Waker,
}

impl State {
    fn submit(&mut self, work: Work, buf: Buf, waker: &Waker) -> u64 {
        let id = self.id();
        let op =
            Op { work, buf, outcome: None, delivered: false, orphan: false, waker: waker.clone() };
        self.ops.insert(id, op);
        match work {
            Work::Read(end) => {
                self.end(end).into_iter().for_each(|end| end.reads.push_back(id));
                self.run_reads(end);
            }
            Work::Write(end) => {
                self.end(end).into_iter().for_each(|end| end.writes.push_back(id));
                self.run_writes(end);
            }
            Work::Accept(addr) => {
                let listening = self.listeners.get_mut(&addr);
                listening.into_iter().for_each(|listening| listening.accepts.push_back(id));
                self.run_accepts(addr);
            }
        }
        id
    }

    /// Whether somebody waits already for what an operation would wait for: the sixth law.
    fn is_taken(&mut self, work: Work) -> bool {
        let (waiting, wait) = match work {
            Work::Write(_) => return false,
            Work::Read(end) => match self.end(end) {
                Some(end) => (end.reads.clone(), end.has_wait()),
                None => return false,
            },
            Work::Accept(addr) => match self.listeners.get(&addr) {
                Some(listening) => (listening.accepts.clone(), false),
                None => return false,
            },
        };
        wait || waiting.iter().any(|op| self.ops.get(op).is_some_and(|op| !op.orphan))
    }

    /// The same for a wait.
    pub(super) fn is_read_pending(&mut self, id: EndId) -> bool {
        let reads = self.end(id).map(|end| end.reads.clone()).unwrap_or_default();
        reads.iter().any(|op| self.ops.get(op).is_some_and(|op| !op.orphan))
    }

    /// Completes reads that need not wait.
    pub(super) fn run_reads(&mut self, at: EndId) {
        while let Some(end) = self.end(at).filter(|end| end.is_readable()) {
            let Some(id) = end.reads.pop_front() else { return };
            let outcome = if !end.received.is_empty() {
                Outcome::Bytes(self.fill(at, id))
            } else if self.fin_seen(at) {
                Outcome::Bytes(0)
            } else {
                self.take_error(at).map_or(Outcome::Bytes(0), Outcome::Failed)
            };
            self.finish(id, outcome);
            self.run_writes(at.peer());
        }
    }

    /// A read that does not wait; by seed it finds nothing although something is there. `None`: somebody
    /// else waits, which is against law 6.
    pub(super) fn try_read(&mut self, at: EndId, buf: &mut Buf) -> Option<io::Result<usize>> {
        if self.is_taken(Work::Read(at)) {
            return None;
        }
        let later = || Some(Err(io::Error::from(io::ErrorKind::WouldBlock)));
        let short = self.conns.get(&at.conn).map_or(0, |conn| conn.faults.short_read);
        let Some(end) = self.end(at).filter(|end| end.is_readable()) else { return later() };
        if end.received.is_empty() {
            let error = if self.fin_seen(at) { None } else { self.take_error(at) };
            return Some(error.map_or(Ok(0), |error| Err(io::Error::from_raw_os_error(error))));
        }
        if self.rng.one_in(short) && self.rng.one_in(2) {
            return later();
        }
        let count = self.receive(at, buf);
        self.note("read", at.code(), count as u64);
        self.run_writes(at.peer());
        Some(Ok(count))
    }

    /// Moves received bytes into an operation's buffer.
    fn fill(&mut self, at: EndId, id: u64) -> usize {
        let Some(mut buf) = self.ops.get_mut(&id).map(|op| op.buf.take()) else { return 0 };
        let count = self.receive(at, &mut buf);
        self.ops.get_mut(&id).into_iter().for_each(|op| op.buf = buf.take());
        count
    }

    /// Moves received bytes into a buffer, fewer than there are by seed.
    fn receive(&mut self, at: EndId, buf: &mut Buf) -> usize {
        let Some(conn) = self.conns.get_mut(&at.conn) else { return 0 };
        let received = &mut conn.ends[at.side].received;
        let mut count = received.len().min(buf.spare());
        if self.rng.one_in(conn.faults.short_read) {
            count = shorter(&mut self.rng, count);
        }
        let bytes: Vec<u8> = received.drain(..count).collect();
        buf.extend(&bytes);
        self.mix_bytes(&bytes);
        count
    }

    /// Completes writes that have room, or that fail.
    pub(super) fn run_writes(&mut self, at: EndId) {
        while let Some(&id) = self.end(at).and_then(|end| end.writes.front()) {
            let outcome = match self.write_error(at) {
                Some(error) => Outcome::Failed(error),
                None => match self.take_window(at, id) {
                    Some(count) => Outcome::Bytes(count),
                    None => return,
                },
            };
            self.end(at).and_then(|end| end.writes.pop_front());
            self.finish(id, outcome);
        }
    }

    /// A write that does not wait; by seed it finds no room although there is some.
    pub(super) fn try_write(&mut self, at: EndId, bytes: &[u8]) -> io::Result<usize> {
        if let Some(error) = self.write_error(at) {
            return Err(io::Error::from_raw_os_error(error));
        }
        let short = self.conns.get(&at.conn).map_or(0, |conn| conn.faults.short_write);
        let mut count = bytes.len().min(self.room(at));
        let waits = self.end(at).is_some_and(|end| !end.writes.is_empty());
        if waits || count == 0 || self.rng.one_in(short) && self.rng.one_in(2) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        if self.rng.one_in(short) {
            count = shorter(&mut self.rng, count);
        }
        self.send(at, &bytes[..count]);
        self.note("wrote", at.code(), count as u64);
        Ok(count)
    }

    /// Sends what there is room for; none if a write must wait.
    fn take_window(&mut self, at: EndId, id: u64) -> Option<usize> {
        let room = self.room(at);
        let short = self.conns.get(&at.conn).map_or(0, |conn| conn.faults.short_write);
        let window = self.ops.get(&id)?.buf.as_slice();
        let mut count = window.len().min(room);
        if count == 0 && !window.is_empty() {
            return None;
        }
        if self.rng.one_in(short) {
            count = shorter(&mut self.rng, count);
        }
        let bytes = window[..count].to_vec();
        self.send(at, &bytes);
        Some(count)
    }

    /// Fixes the result; its task hears of it now or, by seed, later.
    pub(super) fn finish(&mut self, id: u64, outcome: Outcome) {
        let (code, value) = match outcome {
            Outcome::Bytes(count) => ("done", count as u64),
            Outcome::Accepted(end, _) => ("accepted", end.code()),
            Outcome::Failed(error) => ("failed", u64::from(error.unsigned_abs())),
        };
        self.note(code, id, value);
        let Some(op) = self.ops.get_mut(&id) else { return };
        debug_assert!(op.outcome.is_none(), "an operation ends once");
        op.outcome = Some(outcome);
        if op.orphan {
            self.ops.remove(&id);
            return;
        }
        let faults = self.faults.clone();
        let late = self.rng.one_in(faults.late_done);
        let wait_us = if late { within(&mut self.rng, faults.late_done_us) } else { 0 };
        self.schedule(self.now_us + wait_us, Event::Deliver { op: id });
    }

    pub(super) fn deliver(&mut self, id: u64) {
        self.note("deliver", id, 0);
        if let Some(op) = self.ops.get_mut(&id) {
            op.delivered = true;
            op.waker.wake_by_ref();
        }
    }

    /// A stop was asked for: it takes effect now, later, or after the bytes that are on their way.
    fn request_cancel(&mut self, id: u64) {
        let Some(op) = self.ops.get(&id).filter(|op| op.outcome.is_none()) else { return };
        let work = op.work;
        let faults = self.faults.clone();
        let mut at_us = self.now_us;
        if self.rng.one_in(faults.stop_late) {
            at_us += within(&mut self.rng, faults.stop_late_us);
        }
        if let Work::Read(end) = work
            && self.rng.one_in(faults.stop_loses)
            && let Some(arrival_us) = self.last_arrival_us(end)
        {
            at_us = at_us.max(arrival_us);
        }
        self.note("stop", id, at_us);
        self.schedule(at_us, Event::Cancel { op: id });
    }

    pub(super) fn cancel(&mut self, id: u64) {
        let Some(op) = self.ops.get(&id).filter(|op| op.outcome.is_none()) else { return };
        match op.work {
            Work::Read(end) => {
                self.end(end).into_iter().for_each(|end| end.reads.retain(|&op| op != id));
            }
            Work::Write(end) => {
                self.end(end).into_iter().for_each(|end| end.writes.retain(|&op| op != id));
            }
            Work::Accept(addr) => {
                let listening = self.listeners.get_mut(&addr);
                listening.into_iter().for_each(|l| l.accepts.retain(|&op| op != id));
            }
        }
        self.finish(id, Outcome::Failed(ECANCELED));
    }

    fn harvest(&mut self, id: u64, waker: &Waker) -> Option<(Outcome, Buf)> {
        let op = self.ops.get_mut(&id)?;
        if !op.delivered {
            op.waker.clone_from(waker);
            return None;
        }
        let op = self.ops.remove(&id)?;
        op.outcome.map(|outcome| (outcome, op.buf))
    }

    /// The future is gone, the operation is not.
    fn orphan(&mut self, id: u64) {
        let Some(op) = self.ops.get_mut(&id) else { return };
        op.orphan = true;
        let done = op.outcome.is_some();
        self.lost_ops += 1;
        self.note("lost", id, u64::from(done));
        if done {
            self.ops.remove(&id);
        }
    }
}

/// Fewer than `count`, but one at least; half of the time just one.
fn shorter(rng: &mut crate::base::rng::Rng, count: usize) -> usize {
    if count < 2 || rng.one_in(2) {
        return count.min(1);
    }
    1 + rng.below(u32::try_from(count - 1).unwrap_or(u32::MAX)) as usize
}

/// An operation of a task: submitted by its first poll, as the real ones are.
pub(super) struct Operation {
    shared: Rc<Shared>,
    work: Work,
    stop: Rc<Token>,
    phase: Phase,
}

enum Phase {
    New(Buf),
    Running(u64),
    Over,
}

impl Operation {
    pub(super) fn new(shared: &Rc<Shared>, work: Work, buf: Buf, stop: Rc<Token>) -> Operation {
        Operation { shared: shared.clone(), work, stop, phase: Phase::New(buf) }
    }
}

impl Future for Operation {
    type Output = (Result<Outcome, io::Error>, Buf);

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        match std::mem::replace(&mut this.phase, Phase::Over) {
            Phase::New(buf) if this.stop.stopped.get() => {
                Poll::Ready((Err(crate::rt::stopped()), buf))
            }
            Phase::New(buf) => {
                if this.shared.state.borrow_mut().is_taken(this.work) {
                    this.shared.fail(&format!("{:?} beside another wait: law 6", this.work));
                }
                let id = this.shared.state.borrow_mut().submit(this.work, buf, cx.waker());
                this.stop.running.borrow_mut().push((Rc::downgrade(&this.shared), id));
                this.phase = Phase::Running(id);
                Poll::Pending
            }
            Phase::Running(id) => {
                let harvest = this.shared.state.borrow_mut().harvest(id, cx.waker());
                let Some((outcome, buf)) = harvest else {
                    this.phase = Phase::Running(id);
                    return Poll::Pending;
                };
                this.stop.forget(id);
                let result = match outcome {
                    Outcome::Failed(error) => Err(io::Error::from_raw_os_error(error)),
                    outcome => Ok(outcome),
                };
                Poll::Ready((result, buf))
            }
            Phase::Over => Poll::Pending,
        }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if let Phase::Running(id) = self.phase {
            self.stop.forget(id);
            self.shared.state.borrow_mut().orphan(id);
        }
    }
}

/// What operations are started with, up to one `stop`.
pub struct Token {
    stopped: Cell<bool>,
    running: RefCell<Vec<(Weak<Shared>, u64)>>,
}

impl Token {
    fn new() -> Rc<Token> {
        Rc::new(Token { stopped: Cell::new(false), running: RefCell::new(Vec::new()) })
    }

    fn forget(&self, id: u64) {
        self.running.borrow_mut().retain(|(_, running)| *running != id);
    }
}

/// Gives up operations; takes effect as the world's faults have it.
pub struct SimStop {
    token: Rc<Token>,
}

impl Stop for SimStop {
    type Handle = Rc<Token>;

    fn new() -> Self {
        SimStop { token: Token::new() }
    }

    fn handle(&self) -> Rc<Token> {
        self.token.clone()
    }

    fn stop(&mut self) {
        let token = std::mem::replace(&mut self.token, Token::new());
        token.stopped.set(true);
        for (shared, id) in token.running.take() {
            if let Some(shared) = shared.upgrade() {
                shared.state.borrow_mut().request_cancel(id);
            }
        }
    }
}
