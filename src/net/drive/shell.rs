//! What a drive knows: both lanes' connections, the client's socket, the exchange. It turns outputs into
//! operations to start and completions into inputs; it awaits nothing.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use smallvec::SmallVec;

use super::{Done, Start, drain, write};
use crate::base::buf::Buf;
use crate::base::fail::Fault;
use crate::base::ids::EndpointId;
use crate::base::limits;
use crate::base::tick::Tick;
use crate::config::HalfClose;
use crate::exchange::phase::LaneId;
use crate::exchange::{Exchange, Input, Output, Side, keep_memory};
use crate::net::core::{Core, Snapshot};
use crate::net::dial::{self, Conn};
use crate::net::down::Down;
use crate::net::tls;
use crate::rt::{Reader as _, Rt, Stop as _, Watching, Writer as _, is_later};

/// One lane's connection and what is in flight on it.
struct LaneIo<R: Rt> {
    reader: Option<R::Reader>,
    writer: Option<R::Writer>,
    tls: Option<Box<tls::Session>>,
    /// What a lane that is `reading` waits for.
    watch: Option<Watching>,
    endpoint: Option<EndpointId>,
    stop_write: R::Stop,
    dialing: bool,
    /// Waits for something to read.
    reading: bool,
    /// How often it may read on without a wait, since there was more than it took.
    eager: u8,
    writing: bool,
    /// The bytes under way are TLS's own, not the request.
    own_bytes: bool,
    /// Given up: completions are swallowed, then the socket is closed.
    closing: bool,
    /// Asked for while `closing`.
    waiting: Option<(EndpointId, bool, Tick)>,
}

impl<R: Rt> LaneIo<R> {
    pub(super) fn new() -> LaneIo<R> {
        LaneIo {
            reader: None,
            writer: None,
            tls: None,
            watch: None,
            endpoint: None,
            stop_write: R::Stop::new(),
            dialing: false,
            reading: false,
            eager: 0,
            writing: false,
            own_bytes: false,
            closing: false,
            waiting: None,
        }
    }

    fn is_busy(&self) -> bool {
        self.dialing || self.reading || self.writing
    }

    /// Closes the socket once nothing is in flight.
    fn close_if_idle(&mut self) {
        if self.closing && !self.is_busy() {
            self.closing = false;
            self.reader = None;
            self.writer = None;
            self.tls = None;
            self.watch = None;
        }
    }

    /// Takes the connection out, for the pool.
    fn take_conn(&mut self) -> Option<Conn<R>> {
        let (reader, writer) = (self.reader.take()?, self.writer.take()?);
        Some(Conn { reader, writer, tls: self.tls.take(), watch: self.watch.take()? })
    }
}

/// How many reads follow a full one before others have their turn.
const EAGER: u8 = 4;

pub(super) struct Shell<'a, R: Rt> {
    core: &'a Rc<Core<R>>,
    pub(super) down: &'a mut Down<R>,
    exchange: Box<Exchange>,
    snapshot: Arc<Snapshot>,
    lanes: [LaneIo<R>; 2],
    stop_down: R::Stop,
    down_writing: bool,
    starts: SmallVec<[Start<R>; 4]>,
    pub(super) finish: Option<bool>,
}

impl<'a, R: Rt> Shell<'a, R> {
    pub(super) fn new(
        core: &'a Rc<Core<R>>,
        down: &'a mut Down<R>,
        exchange: Box<Exchange>,
        snapshot: Arc<Snapshot>,
    ) -> Shell<'a, R> {
        let mut shell = Shell {
            core,
            down,
            exchange,
            snapshot,
            lanes: [LaneIo::new(), LaneIo::new()],
            stop_down: R::Stop::new(),
            down_writing: false,
            starts: SmallVec::new(),
            finish: None,
        };
        shell.core.exchanging(true);
        shell.watch();
        shell
    }

    /// Whether nothing is left to do and nothing is in flight.
    pub(super) fn is_over(&self) -> bool {
        self.finish.is_some() && !self.down_writing && self.lanes.iter().all(|lane| !lane.is_busy())
    }

    /// Hands the ledger on; says whether the client's connection goes on.
    pub(super) fn keep(mut self) -> bool {
        self.core.exchanging(false);
        self.exchange.reclaim(LaneId::A, &mut self.core.memory.borrow_mut());
        if let Some(ledger) = self.exchange.take_ledger() {
            self.core.shared.watch.ended(self.core.id, ledger);
        }
        let whole = self.down.reader.is_some() && self.down.writer.is_some();
        self.finish.unwrap_or(false) && whole
    }

    /// The next operation to start.
    pub(super) fn next(&mut self) -> Option<Start<R>> {
        loop {
            if !self.starts.is_empty() {
                return Some(self.starts.remove(0));
            }
            let output = self.exchange.poll()?;
            self.carry_out(output);
        }
    }

    fn step(&mut self, input: Input<'_>) {
        let cx = self.core.cx(&self.snapshot);
        self.exchange.step(input, &cx);
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Dial { lane, endpoint, fresh, by } => self.dial(lane, endpoint, fresh, by),
            Output::Read { lane } => self.read_up(lane),
            Output::Write { side: Side::Down } => {
                let buf = self.exchange.take_write(Side::Down);
                self.write_down(buf);
            }
            Output::Write { side: Side::Up(lane) } => {
                let buf = self.exchange.take_write(Side::Up(lane));
                self.write_request(lane, buf);
            }
            Output::Arm { at } => self.starts.push(Start::Arm(at)),
            Output::Hangup { lane } => self.hang_up(lane),
            Output::Release { lane } => self.release(lane),
            Output::Drain { lane } => self.drain(lane),
            Output::Finish { keep } => self.wind_up(keep),
        }
    }

    // ---- upstream ----

    fn dial(&mut self, lane: LaneId, endpoint: EndpointId, fresh: bool, by: Tick) {
        let io = &mut self.lanes[lane.index()];
        if io.closing {
            io.waiting = Some((endpoint, fresh, by));
            return;
        }
        debug_assert!(!self.exchange.is_committed(), "no dial after the commit");
        io.endpoint = Some(endpoint);
        let pooled = if fresh { None } else { self.core.pool.take(&self.snapshot, endpoint) };
        self.core.shared.watch.dialed(self.core.id, pooled.is_none());
        if let Some(conn) = pooled {
            self.seat(lane, conn);
            self.begin(lane, true);
            return;
        }
        io.dialing = true;
        let dial = dial::dial(
            self.core.rt.clone(),
            self.core.shared.clone(),
            self.snapshot.clone(),
            endpoint,
            by,
        );
        self.starts.push(Start::Dial(lane, Box::pin(dial)));
    }

    /// A lane has its connection.
    fn begin(&mut self, lane: LaneId, reused: bool) {
        self.exchange.lend(lane, &mut self.core.memory.borrow_mut());
        self.step(Input::Dialed { lane, reused });
    }

    fn seat(&mut self, lane: LaneId, conn: Conn<R>) {
        let io = &mut self.lanes[lane.index()];
        io.reader = Some(conn.reader);
        io.writer = Some(conn.writer);
        io.tls = conn.tls;
        io.watch = Some(conn.watch);
        io.own_bytes = false;
        io.eager = 0;
    }

    fn read_up(&mut self, lane: LaneId) {
        let io = &mut self.lanes[lane.index()];
        if io.reader.is_none() {
            return;
        }
        if io.eager > 0 {
            io.eager -= 1;
            self.read_now(lane);
            return;
        }
        io.reading = true;
    }

    /// Reads what is there, into memory that all streams of the core share: none is held by one that is
    /// silent.
    fn read_now(&mut self, lane: LaneId) {
        let io = &mut self.lanes[lane.index()];
        io.reading = false;
        let Some(reader) = &mut io.reader else { return };
        let mut rx = self.core.received[0].take();
        rx.clear();
        rx.reserve(limits::READ_BYTES_MAX);
        let (result, mut rx) = reader.try_read(rx);
        if result.is_err() || rx.spare() > 0 {
            io.eager = 0;
        }
        if matches!(&result, Ok(count) if *count > 0) {
            self.exchange.lend(lane, &mut self.core.memory.borrow_mut());
        }
        self.received(lane, result, &mut rx);
        self.exchange.reclaim(lane, &mut self.core.memory.borrow_mut());
        self.core.received[0].set(rx);
    }

    /// Whether a lane that waits for its watch has something to read.
    pub(super) fn poll_up(&mut self, lane: LaneId, cx: &mut Context<'_>) -> Poll<()> {
        let io = &mut self.lanes[lane.index()];
        let Some(watch) = io.watch.as_mut().filter(|_| io.reading) else { return Poll::Pending };
        // What is wrong with the connection, the read will tell.
        watch.poll(cx).map(|_| ())
    }

    fn write_request(&mut self, lane: LaneId, plain: Buf) {
        let io = &mut self.lanes[lane.index()];
        let buf = match &mut io.tls {
            None => plain,
            Some(session) => {
                let mut cipher = Buf::with_capacity(plain.len() + plain.len() / 64 + 64);
                if session.seal(&plain, &mut cipher).is_err() {
                    self.step(Input::Broke { lane, fault: Fault::Tls, write: false });
                    return;
                }
                cipher
            }
        };
        self.write_up(lane, buf);
    }

    fn write_up(&mut self, lane: LaneId, buf: Buf) {
        let io = &mut self.lanes[lane.index()];
        let Some(writer) = &mut io.writer else { return };
        if self.core.writes_at_once() {
            match writer.try_write(buf.as_slice()) {
                Err(error) if is_later(&error) => {}
                result => return self.wrote_up(lane, result, buf),
            }
        }
        let Some(writer) = io.writer.take() else { return };
        io.writing = true;
        let stop = io.stop_write.handle();
        self.starts.push(Start::WriteUp(lane, Box::pin(write::<R>(writer, buf, stop))));
    }

    fn hang_up(&mut self, lane: LaneId) {
        let io = &mut self.lanes[lane.index()];
        io.waiting = None;
        io.closing = true;
        if io.dialing {
            io.dialing = false;
            self.starts.push(Start::DropDial(lane));
        }
        io.reading = false;
        io.watch = None;
        if io.writing {
            io.stop_write.stop();
        }
        io.close_if_idle();
    }

    fn release(&mut self, lane: LaneId) {
        let io = &mut self.lanes[lane.index()];
        if io.is_busy() {
            self.hang_up(lane);
            return;
        }
        if let (Some(endpoint), Some(conn)) = (io.endpoint, io.take_conn()) {
            let now = self.core.rt.now();
            self.core.pool.put(&self.snapshot, endpoint, conn, now);
        }
    }

    /// Reads what is left of a body aside, so that neither client nor pool waits for it.
    fn drain(&mut self, lane: LaneId) {
        let io = &mut self.lanes[lane.index()];
        let rest = self.exchange.take_rest();
        if io.is_busy() {
            self.hang_up(lane);
            return;
        }
        if let (Some(endpoint), Some(conn), Some(body)) = (io.endpoint, io.take_conn(), rest) {
            let (core, snapshot) = (self.core.clone(), self.snapshot.clone());
            self.core.rt.spawn(drain(core, conn, body, snapshot, endpoint));
        }
    }

    // ---- the client ----

    fn watch(&mut self) {
        if self.finish.is_none() && self.down.rx.len() < limits::PIPELINE_BYTES_MAX {
            self.down.watch();
        }
    }

    fn write_down(&mut self, buf: Buf) {
        debug_assert!(!self.down_writing);
        if buf.is_empty() {
            self.step(Input::Wrote { side: Side::Down, done: true });
            return;
        }
        let sealed = match &mut self.down.tls {
            None => Ok(buf),
            Some(tls) => tls.seal(buf),
        };
        match sealed {
            Ok(buf) => self.write_on(buf),
            Err(_) => self.step(Input::Gone),
        }
    }

    /// Writes what is as the socket shall have it.
    fn write_on(&mut self, buf: Buf) {
        let Some(writer) = &mut self.down.writer else { return };
        // Events go at once in any case: many streams would each hold an operation for each of theirs.
        if self.exchange.streams() || self.core.writes_at_once() {
            match writer.try_write(buf.as_slice()) {
                Err(error) if is_later(&error) => {}
                result => return self.wrote_down(result, buf),
            }
        }
        let Some(writer) = self.down.writer.take() else { return };
        self.down_writing = true;
        let stop = self.stop_down.handle();
        self.starts.push(Start::WriteDown(Box::pin(write::<R>(writer, buf, stop))));
    }

    fn wind_up(&mut self, keep: bool) {
        self.finish = Some(keep);
        for lane in LaneId::ALL {
            if self.lanes[lane.index()].is_busy() || self.lanes[lane.index()].reader.is_some() {
                self.hang_up(lane);
            }
        }
        self.down.is_stuck = self.exchange.is_torn();
        if self.down_writing {
            self.down.is_stuck = true;
            self.stop_down.stop();
        }
    }

    // ---- completions ----

    pub(super) fn took(&mut self, done: Done<R>) {
        match done {
            Done::Dialed(lane, dialed) => self.dialed(lane, dialed),
            Done::UpReadable(lane) => {
                self.lanes[lane.index()].eager = EAGER;
                self.read_now(lane);
            }
            Done::WroteUp(lane, writer, result, buf) => {
                let io = &mut self.lanes[lane.index()];
                io.writer = Some(writer);
                io.writing = false;
                if !self.swallowed(lane) {
                    self.wrote_up(lane, result, buf);
                }
            }
            Done::WroteDown(writer, result, buf) => {
                self.down.writer = Some(writer);
                self.down_writing = false;
                self.wrote_down(result, buf);
            }
            Done::Readable => self.readable(),
            Done::Alarm => self.alarm(),
            Done::Stopping => self.step(Input::Shutdown),
        }
    }

    fn alarm(&mut self) {
        if self.exchange.asks_what_was_taken(self.core.rt.now())
            && let Some(octets) = self.down.taken()
        {
            self.exchange.told_taken(octets);
        }
        self.step(Input::Alarm);
    }

    fn dialed(&mut self, lane: LaneId, dialed: Result<Conn<R>, Fault>) {
        self.lanes[lane.index()].dialing = false;
        match dialed {
            Ok(conn) => {
                self.seat(lane, conn);
                self.begin(lane, false);
            }
            Err(fault) => {
                if fault == Fault::NoDescriptor {
                    self.core.miss_descriptor();
                }
                self.step(Input::Broke { lane, fault, write: false });
            }
        }
    }

    /// After an operation of a lane that is being closed: swallow it, and go on with what waits.
    fn swallowed(&mut self, lane: LaneId) -> bool {
        let io = &mut self.lanes[lane.index()];
        if !io.closing {
            return false;
        }
        io.close_if_idle();
        if !io.closing
            && let Some((endpoint, fresh, by)) = io.waiting.take()
        {
            self.dial(lane, endpoint, fresh, by);
        }
        true
    }

    fn received(&mut self, lane: LaneId, result: io::Result<usize>, rx: &mut Buf) {
        let tls = self.lanes[lane.index()].tls.is_some();
        match result {
            // Under TLS an end without a close_notify is a cut (RFC 8446 section 6.1).
            Ok(0) if tls => {
                self.step(Input::Broke { lane, fault: Fault::Eof, write: false });
            }
            Ok(0) => self.step(Input::Ended { lane }),
            Ok(_) if tls => {
                let mut plain = self.core.received[1].take();
                plain.clear();
                self.open(lane, rx, &mut plain);
                self.core.received[1].set(plain);
            }
            Ok(_) => self.step(Input::Received { lane, rx }),
            Err(error) if is_later(&error) => self.read_up(lane),
            Err(_) => self.step(Input::Broke { lane, fault: Fault::Reset, write: false }),
        }
    }

    /// Opens records and gives what they say to the exchange.
    fn open(&mut self, lane: LaneId, rx: &mut Buf, plain: &mut Buf) {
        let io = &mut self.lanes[lane.index()];
        let Some(session) = &mut io.tls else { return };
        let opened = session.open(rx, plain);
        let mut own = Buf::new();
        if session.wants_write() && io.writer.is_some() && session.flush(&mut own).is_ok() {
            io.own_bytes = true;
            self.write_up(lane, own);
        }
        if plain.is_empty() && opened.is_ok() {
            // Records without payload: nothing for the exchange, read on.
            if matches!(opened, Ok(true)) {
                self.step(Input::Ended { lane });
            } else {
                self.read_up(lane);
            }
            return;
        }
        if !plain.is_empty() {
            self.step(Input::Received { lane, rx: plain });
        }
        match opened {
            Ok(false) => {}
            Ok(true) => self.step(Input::Ended { lane }),
            Err(fault) => self.step(Input::Broke { lane, fault, write: false }),
        }
    }

    fn wrote_up(&mut self, lane: LaneId, result: io::Result<usize>, mut buf: Buf) {
        match result {
            Ok(count) if count > 0 => {
                buf.consume(count);
                if !buf.is_empty() {
                    self.write_up(lane, buf);
                    return;
                }
                keep_memory(buf, &mut self.core.memory.borrow_mut());
                if !std::mem::take(&mut self.lanes[lane.index()].own_bytes) {
                    self.step(Input::Wrote { side: Side::Up(lane), done: true });
                }
            }
            Ok(_) | Err(_) => {
                self.step(Input::Broke { lane, fault: Fault::Reset, write: true });
            }
        }
    }

    fn wrote_down(&mut self, result: io::Result<usize>, mut buf: Buf) {
        if self.finish.is_some() {
            return;
        }
        match result {
            Ok(count) if count > 0 => {
                self.down.written += count as u64;
                buf.consume(count);
                let done = buf.is_empty();
                self.step(Input::Wrote { side: Side::Down, done });
                if !done {
                    self.write_on(buf);
                    return;
                }
                let buf = match &mut self.down.tls {
                    None => buf,
                    Some(tls) => tls.take_back(buf),
                };
                keep_memory(buf, &mut self.core.memory.borrow_mut());
            }
            Ok(_) | Err(_) => self.step(Input::Gone),
        }
    }

    fn readable(&mut self) {
        if self.finish.is_some() {
            return;
        }
        let Some(reader) = &mut self.down.reader else { return };
        let mut rx = match &mut self.down.tls {
            None => self.down.rx.take(),
            Some(tls) => tls.cipher.take(),
        };
        rx.reserve(limits::READ_BYTES_MIN);
        let (result, buf) = reader.try_read(rx);
        let later = result.as_ref().is_err_and(is_later);
        let opened = match &mut self.down.tls {
            None => {
                self.down.rx = buf;
                Ok(false)
            }
            // Also after the end: what the client sent meanwhile is its next request.
            Some(tls) => {
                tls.cipher = buf;
                tls.open(&mut self.down.rx)
            }
        };
        match (result, opened) {
            (Err(_), Ok(false)) if later => self.watch(),
            (Ok(count), Ok(false)) if count > 0 => self.watch(),
            // Its sending is over, its reading is not: nothing more is watched for.
            (Ok(_), _) if self.snapshot.server.half_close == HalfClose::Serve => {}
            (Ok(_) | Err(_), _) => self.step(Input::Gone),
        }
    }
}
