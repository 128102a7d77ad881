//! Connections of a world. A connection is two directed pipes:
//!
//! ```text
//!   end 0 (dialled)                                     end 1 (accepted)
//!   write -> [ in flight: events, in order ] -> received -> read
//!   read <- received <- [ in flight: events, in order ] <- write
//! ```
//!
//! A direction holds at most `buffer` bytes, in flight and received together; a writer waits for
//! room. What Linux does on resets is copied, since the shell must live with it:
//!
//! - Bytes received before a reset are still read; then one operation, read or write, whichever is
//!   first, gets ECONNRESET; after it reads give `Ok(0)` and writes EPIPE.
//! - After the peer's FIN reads end with `Ok(0)`, reset or not.
//! - Closing with unread bytes sends a reset; bytes that reach a closed end are answered by one.

use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::task::Waker;

use super::faults::{Faults, Weather, within};
use super::state::{Event, State};

pub(super) const EPIPE: i32 = 32;
pub(super) const ECONNRESET: i32 = 104;

/// One end of a connection: which, and 0 for the one that dialled, 1 for the one that was accepted.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct EndId {
    pub(super) conn: u64,
    pub(super) side: usize,
}

impl EndId {
    pub(super) fn peer(self) -> EndId {
        EndId { conn: self.conn, side: 1 - self.side }
    }

    /// For the trace.
    pub(super) fn code(self) -> u64 {
        self.conn * 2 + self.side as u64
    }
}

#[derive(Debug)]
pub(super) struct Conn {
    pub(super) ends: [End; 2],
    pub(super) faults: Rc<Faults>,
}

/// Who has a socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Life {
    /// Nobody yet: it waits in a backlog.
    Backlog,
    /// The program.
    Open,
    /// Nobody any more.
    Closed,
}

#[derive(Debug)]
pub(super) struct End {
    pub(super) life: Life,
    /// Halves and waits that keep the socket open.
    refs: u32,
    /// Received and not yet read.
    pub(super) received: VecDeque<u8>,
    /// The peer's direction has ended.
    fin_seen: bool,
    /// Our direction has ended.
    fin_sent: bool,
    /// A reset has arrived, or we sent one.
    reset: bool,
    /// The reset's error, not yet told to an operation.
    error: Option<i32>,
    /// Bytes of ours on their way.
    flight: usize,
    /// Bytes that our direction holds at most.
    buffer: usize,
    /// Bytes that writes have taken.
    sent: u64,
    /// When the last thing that we sent arrives: nothing of ours arrives before it.
    last_arrival_us: u64,
    weather: Weather,
    /// The weather has cut the connection here: what we send is gone.
    cut: bool,
    /// Operations that wait, in order.
    pub(super) reads: VecDeque<u64>,
    pub(super) writes: VecDeque<u64>,
    /// Droppable waits.
    ready: BTreeMap<u64, Waker>,
}

impl End {
    pub(super) fn new(life: Life, weather: Weather, buffer: usize) -> End {
        End {
            life,
            refs: 1,
            received: VecDeque::new(),
            fin_seen: false,
            fin_sent: false,
            reset: false,
            error: None,
            flight: 0,
            buffer,
            sent: 0,
            last_arrival_us: 0,
            weather,
            cut: false,
            reads: VecDeque::new(),
            writes: VecDeque::new(),
            ready: BTreeMap::new(),
        }
    }

    /// Whether somebody waits without a buffer.
    pub(super) fn has_wait(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether a read would not wait.
    pub(super) fn is_readable(&self) -> bool {
        !self.received.is_empty() || self.fin_seen || self.reset || self.life == Life::Closed
    }
}

impl State {
    pub(super) fn end(&mut self, id: EndId) -> Option<&mut End> {
        self.conns.get_mut(&id.conn).map(|conn| &mut conn.ends[id.side])
    }

    // Sending.

    /// Bytes that a write could hand over now.
    pub(super) fn room(&self, id: EndId) -> usize {
        let buffer = self.conns.get(&id.conn).map_or(0, |conn| conn.ends[id.side].buffer);
        buffer.saturating_sub(self.unread(id))
    }

    /// Bytes of ours that the peer has not read. A system acknowledges earlier; nothing here is hidden.
    pub(super) fn unread(&self, id: EndId) -> usize {
        let Some(conn) = self.conns.get(&id.conn) else { return 0 };
        conn.ends[id.side].flight + conn.ends[1 - id.side].received.len()
    }

    /// Sends bytes as the weather has it.
    pub(super) fn send(&mut self, from: EndId, bytes: &[u8]) {
        let Some(end) = self.end(from) else { return };
        let (before, weather) = (end.sent, end.weather);
        let after = before + bytes.len() as u64;
        end.sent = after;
        if end.cut {
            return;
        }
        match weather {
            Weather::Calm => self.segment(from, bytes, 0),
            Weather::Drip { bytes: piece, us } => {
                for piece in bytes.chunks(piece) {
                    self.segment(from, piece, us);
                }
            }
            Weather::Stall { at, us } if before <= at && at < after => {
                let (first, rest) = bytes.split_at((at - before) as usize);
                self.segment(from, first, 0);
                self.segment(from, rest, us);
            }
            Weather::Stall { .. } => self.segment(from, bytes, 0),
            Weather::Reset { at } if after <= at => self.segment(from, bytes, 0),
            Weather::Reset { at } => {
                self.segment(from, &bytes[..at.saturating_sub(before) as usize], 0);
                self.cut(from);
            }
        }
    }

    /// The network resets both ends.
    fn cut(&mut self, from: EndId) {
        for side in [from, from.peer()] {
            if let Some(end) = self.end(side) {
                end.cut = true;
            }
        }
        self.note("cut", from.code(), 0);
        let at_us = self.send_reset(from);
        self.schedule(at_us, Event::Reset { to: from });
    }

    fn segment(&mut self, from: EndId, bytes: &[u8], extra_us: u64) {
        if bytes.is_empty() {
            return;
        }
        let at_us = self.arrival(from, extra_us);
        if let Some(end) = self.end(from) {
            end.flight += bytes.len();
        }
        self.schedule(at_us, Event::Data { to: from.peer(), bytes: bytes.to_vec() });
    }

    /// When what is sent now arrives: never before what was sent earlier.
    fn arrival(&mut self, from: EndId, extra_us: u64) -> u64 {
        let now_us = self.now_us;
        let Some(conn) = self.conns.get_mut(&from.conn) else { return now_us };
        let latency_us = within(&mut self.rng, conn.faults.latency_us);
        let end = &mut conn.ends[from.side];
        let at_us = (now_us + latency_us).max(end.last_arrival_us) + extra_us;
        end.last_arrival_us = at_us;
        at_us
    }

    /// Ends our direction.
    pub(super) fn send_fin(&mut self, from: EndId) {
        let Some(end) = self.end(from) else { return };
        let silent = end.fin_sent || end.reset || end.life == Life::Closed;
        end.fin_sent = true;
        if !silent && !end.cut {
            let at_us = self.arrival(from, 0);
            self.schedule(at_us, Event::Fin { to: from.peer() });
        }
    }

    /// Sends a reset, behind the bytes that were sent or, by seed, ahead of them.
    fn send_reset(&mut self, from: EndId) -> u64 {
        let Some(conn) = self.conns.get(&from.conn) else { return self.now_us };
        let faults = conn.faults.clone();
        let at_us = if self.rng.one_in(faults.reset_overtakes) {
            self.now_us + within(&mut self.rng, faults.latency_us)
        } else {
            self.arrival(from, 0)
        };
        self.schedule(at_us, Event::Reset { to: from.peer() });
        at_us
    }

    /// When the last bytes that are on their way to `to` arrive, if there are any.
    pub(super) fn last_arrival_us(&mut self, to: EndId) -> Option<u64> {
        self.end(to.peer()).filter(|end| end.flight > 0).map(|end| end.last_arrival_us)
    }

    // Receiving.

    pub(super) fn data_arrives(&mut self, to: EndId, bytes: &[u8]) {
        self.note("data", to.code(), bytes.len() as u64);
        if let Some(sender) = self.end(to.peer()) {
            sender.flight = sender.flight.saturating_sub(bytes.len());
        }
        let Some(end) = self.end(to) else { return };
        if end.life == Life::Closed {
            let answers = !end.reset && !end.cut;
            end.reset = true;
            if answers {
                self.send_reset(to);
            }
        } else if !end.reset {
            end.received.extend(bytes);
            self.readable(to);
        }
        self.run_writes(to.peer());
    }

    pub(super) fn fin_arrives(&mut self, to: EndId) {
        self.note("fin", to.code(), 0);
        let Some(end) = self.end(to) else { return };
        if end.life != Life::Closed && !end.reset {
            end.fin_seen = true;
            self.readable(to);
        }
    }

    pub(super) fn reset_arrives(&mut self, to: EndId) {
        self.note("reset", to.code(), 0);
        let Some(end) = self.end(to) else { return };
        if end.life == Life::Closed || end.reset {
            return;
        }
        end.reset = true;
        end.error = Some(if end.fin_seen { EPIPE } else { ECONNRESET });
        self.readable(to);
        self.run_writes(to);
    }

    /// Runs what waits for something to read.
    fn readable(&mut self, to: EndId) {
        self.run_reads(to);
        let Some(end) = self.end(to) else { return };
        if end.is_readable() {
            for waker in std::mem::take(&mut end.ready).into_values() {
                waker.wake();
            }
        }
    }

    /// The error of a reset, told once.
    pub(super) fn take_error(&mut self, id: EndId) -> Option<i32> {
        self.end(id)?.error.take()
    }

    /// How a write fails now, if it does.
    pub(super) fn write_error(&mut self, id: EndId) -> Option<i32> {
        let end = self.end(id)?;
        if !end.reset && end.life != Life::Closed {
            return None;
        }
        Some(end.error.take().unwrap_or(EPIPE))
    }

    /// Whether the peer's direction has ended, which hides a later reset from reads.
    pub(super) fn fin_seen(&mut self, id: EndId) -> bool {
        self.end(id).is_some_and(|end| end.fin_seen)
    }

    // Waiting without a buffer.

    /// Whether a read would not wait. None breaks the sixth law: somebody else waits.
    pub(super) fn poll_ready(&mut self, id: EndId, wait: u64, waker: &Waker) -> Option<bool> {
        let reading = self.is_read_pending(id);
        let Some(end) = self.end(id) else { return Some(true) };
        if end.is_readable() {
            return Some(true);
        }
        end.ready.insert(wait, waker.clone());
        (!reading && end.ready.len() == 1).then_some(false)
    }

    pub(super) fn drop_ready(&mut self, id: EndId, wait: u64) {
        if let Some(end) = self.end(id) {
            end.ready.remove(&wait);
        }
    }

    // Closing.

    /// One more that keeps the socket open.
    pub(super) fn retain(&mut self, id: EndId) {
        if let Some(end) = self.end(id) {
            end.refs += 1;
        }
    }

    /// One less; the last one closes the socket.
    pub(super) fn release(&mut self, id: EndId) {
        let Some(end) = self.end(id) else { return };
        end.refs = end.refs.saturating_sub(1);
        if end.refs == 0 && end.life != Life::Closed {
            let unread = !end.received.is_empty() && !end.reset;
            self.close(id, unread);
        }
    }

    /// Closes a socket at once, with a reset.
    pub(super) fn abort(&mut self, id: EndId) {
        let Some(end) = self.end(id) else { return };
        if end.life != Life::Closed {
            let tell = !end.reset;
            self.close(id, tell);
        }
    }

    fn close(&mut self, id: EndId, with_reset: bool) {
        self.note("close", id.code(), u64::from(with_reset));
        let Some(end) = self.end(id) else { return };
        end.life = Life::Closed;
        // What is unread stays: the peer gets no room from it, only the reset.
        let waits = std::mem::take(&mut end.ready);
        let orphans: Vec<u64> = end.reads.drain(..).chain(end.writes.drain(..)).collect();
        let (was_reset, cut) = (end.reset, end.cut);
        end.reset = was_reset || with_reset;
        for waker in waits.into_values() {
            waker.wake();
        }
        for op in orphans {
            self.ops.remove(&op);
        }
        if with_reset && !cut {
            self.send_reset(id);
        }
        if self.end(id.peer()).is_some_and(|peer| peer.life == Life::Closed) {
            self.conns.remove(&id.conn);
        }
    }
}
