//! The seeded world: the second implementation of the runtime seam, for tests.
//!
//! One thread, virtual time, and a network whose faults are drawn from a seed. Two runs of one seed
//! are the same run. It keeps the seam's completion semantics and is harsh about them: what
//! io_uring may do to a program that breaks a law, this does always, and counts it.
//!
//! Actors (clients, providers) are ordinary tasks that a test spawns:
//!
//! ```
//! use firstbyte::base::buf::Buf;
//! use firstbyte::rt::sim::{Faults, World};
//! use firstbyte::rt::{Accept, Reader, Rt, Stop, Writer};
//!
//! let world = World::new(7, Faults::none());
//! let addr = ([127, 0, 0, 1], 80).into();
//! let listener = world.listen(addr);
//! let (rt, stop) = (world.rt(), firstbyte::rt::sim::SimStop::new());
//! world.rt().spawn(async move {
//!     let (_, mut writer, _) = listener.accept(stop.handle()).await.unwrap();
//!     writer.write(Buf::from(&b"hi"[..]), stop.handle()).await.0.unwrap();
//! });
//! let got = world.block_on(async move {
//!     let stop = firstbyte::rt::sim::SimStop::new();
//!     let (mut reader, _writer) = rt.dial(addr).await.unwrap();
//!     reader.read(Buf::with_capacity(16), stop.handle()).await.1
//! });
//! assert_eq!(got.as_slice(), b"hi");
//! world.settle();
//! assert_eq!((world.open_sockets(), world.pending_ops(), world.lost_ops()), (0, 0, 0));
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

mod dial;
mod exec;
mod faults;
mod net;
mod op;
mod state;

#[cfg(test)]
mod tests;

use self::dial::{DialFate, Listening};
use self::exec::Shared;
pub use self::faults::Faults;
use self::faults::within;
use self::net::EndId;
pub use self::op::SimStop;
use self::op::{Operation, Outcome, Token, Work};
use self::state::{Event, Key, State};
use super::{Accept, Reader, Rent, Rt, Watching, Writer};
use crate::base::buf::Buf;
use crate::base::rng::Rng;
use crate::base::tick::{Tick, UnixMs};

/// The wall clock at the start of every world, in Unix milliseconds.
pub const WALL_AT_START: UnixMs = UnixMs(1_750_000_000_000);

/// A world. Dropping it drops its tasks.
pub struct World {
    rt: SimRt,
}

impl World {
    /// A world at time 0, where everything follows from the seed.
    pub fn new(seed: u64, faults: Faults) -> World {
        let shared = Rc::new(Shared::new(State::new(seed, faults)));
        World { rt: SimRt { shared, fates: Rc::default() } }
    }

    /// A handle for tasks.
    pub fn rt(&self) -> SimRt {
        self.rt.clone()
    }

    /// Listens at an address.
    ///
    /// # Panics
    /// If somebody listens there already.
    pub fn listen(&self, addr: SocketAddr) -> SimListener {
        let listening = Listening { backlog: Default::default(), accepts: Default::default() };
        let old = self.rt.shared.state.borrow_mut().listeners.insert(addr, listening);
        if old.is_some() {
            self.rt.shared.fail(&format!("two listeners at {addr}"));
        }
        SimListener { rt: self.rt.clone(), addr }
    }

    /// Every dial of this address is refused from now on.
    pub fn refuse(&self, addr: SocketAddr) {
        self.rt.fates.borrow_mut().insert(addr, DialFate::Refused);
    }

    /// No dial of this address is ever answered from now on.
    pub fn blackhole(&self, addr: SocketAddr) {
        self.rt.fates.borrow_mut().insert(addr, DialFate::Lost);
    }

    /// Takes `refuse` or `blackhole` back.
    pub fn restore(&self, addr: SocketAddr) {
        self.rt.fates.borrow_mut().remove(&addr);
    }

    /// Other faults for the dials and connections of one listening address. What concerns the whole
    /// world (late completions, stops, timers, the clock, shuffling) stays as it is.
    pub fn faults_at(&self, addr: SocketAddr, faults: Faults) {
        self.rt.shared.state.borrow_mut().faults_at.insert(addr, Rc::new(faults));
    }

    /// A generator of its own for an actor, which follows from the seed.
    pub fn fork_rng(&self) -> Rng {
        Rng::new(self.rt.shared.state.borrow_mut().rng.next())
    }

    /// Steps after which a run is given up; 2,000,000 at first.
    pub fn cap_steps(&self, steps: u64) {
        self.rt.shared.step_max.set(steps);
    }

    /// Runs tasks and virtual time until `main` is done. What other tasks have begun stays so.
    ///
    /// # Panics
    /// With seed, step and the last steps: when nothing can ever happen again, when the cap on steps
    /// is exceeded, and when a task panics.
    pub fn block_on<F: Future>(&self, main: F) -> F::Output {
        self.rt.shared.block_on(main)
    }

    /// Runs on until nothing can happen: no task can run and no event is to come. Tasks that wait
    /// for what never comes stay.
    ///
    /// # Panics
    /// As `block_on` does, but for the first reason.
    pub fn settle(&self) {
        self.rt.shared.settle();
    }

    /// A hash over all steps: two runs of a seed have the same.
    pub fn trace_hash(&self) -> u64 {
        self.rt.shared.state.borrow().trace_hash()
    }

    /// Sockets that tasks have: connected or dialling; not listeners, nor what waits in a backlog.
    pub fn open_sockets(&self) -> usize {
        self.rt.shared.state.borrow().open_sockets()
    }

    /// Tasks that have not ended.
    pub fn live_tasks(&self) -> usize {
        self.rt.shared.live_tasks()
    }

    /// Operations whose result nobody has taken.
    pub fn pending_ops(&self) -> usize {
        self.rt.shared.state.borrow().ops.len()
    }

    /// Operations that were dropped while they were under way: a broken law.
    pub fn lost_ops(&self) -> usize {
        self.rt.shared.state.borrow().lost_ops
    }

    /// Steps so far: polls of tasks and what happened to sockets.
    pub fn steps(&self) -> u64 {
        self.rt.shared.state.borrow().steps
    }

    /// By how much its clock was unsteady so far: the jumps and the stalls, in microseconds.
    pub fn unsteady_us(&self) -> u64 {
        self.rt.shared.state.borrow().unsteady_us
    }

    /// What is known of the world, as a failure would show it.
    pub fn report(&self, why: &str) -> String {
        self.rt.shared.state.borrow().report(why, self.live_tasks())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.rt.shared.drop_tasks();
    }
}

/// A handle to a world: the runtime of its tasks.
#[derive(Clone)]
pub struct SimRt {
    shared: Rc<Shared>,
    fates: Rc<RefCell<BTreeMap<SocketAddr, DialFate>>>,
}

impl Rt for SimRt {
    type Reader = SimReader;
    type Writer = SimWriter;
    type Listener = SimListener;
    type Stop = SimStop;

    fn now(&self) -> Tick {
        Tick(self.shared.state.borrow().shown_us())
    }

    fn wall(&self) -> UnixMs {
        let set_ms = self.shared.state.borrow().wall_ms;
        UnixMs((WALL_AT_START.0 + self.now().0 / 1000).saturating_add_signed(set_ms))
    }

    fn sleep_until(&self, at: Tick) -> impl Future<Output = ()> + 'static {
        Sleep { shared: self.shared.clone(), at, key: None }
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        self.shared.spawn(task);
    }

    fn dial(
        &self,
        addr: SocketAddr,
    ) -> impl Future<Output = io::Result<(SimReader, SimWriter)>> + 'static {
        let fate = self.fates.borrow().get(&addr).copied();
        Dialing { shared: self.shared.clone(), addr, fate, dial: None }
    }

    fn abort(reader: SimReader, writer: SimWriter) {
        debug_assert_eq!(reader.end, writer.end, "two halves of one socket");
        reader.shared.state.borrow_mut().abort(reader.end);
    }
}

/// A timer. Leaves nothing behind when it is dropped.
struct Sleep {
    shared: Rc<Shared>,
    at: Tick,
    key: Option<Key>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut state = this.shared.state.borrow_mut();
        if let Some(key) = this.key
            && let Some(Event::Timer { waker }) = state.events.get_mut(&key)
        {
            waker.clone_from(cx.waker());
            return Poll::Pending;
        }
        if this.at.0 <= state.shown_us() {
            return Poll::Ready(());
        }
        if let Some(until_us) = state.stalled_until()
            && this.at.0 <= until_us
        {
            // No timer is early: this one waits for the clock.
            this.key = Some(state.schedule(until_us, Event::Timer { waker: cx.waker().clone() }));
            return Poll::Pending;
        }
        if this.at != Tick::NEVER {
            let late_us = if state.faults.late_timers { (0, 1_000) } else { (0, 0) };
            let at_us = this.at.0.saturating_add(within(&mut state.rng, late_us));
            this.key = Some(state.schedule(at_us, Event::Timer { waker: cx.waker().clone() }));
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.shared.state.borrow_mut().events.remove(&key);
        }
    }
}

/// A dial under way. Begins with its first poll, closes its socket when it is dropped.
struct Dialing {
    shared: Rc<Shared>,
    addr: SocketAddr,
    fate: Option<DialFate>,
    dial: Option<u64>,
}

impl Future for Dialing {
    type Output = io::Result<(SimReader, SimWriter)>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut state = this.shared.state.borrow_mut();
        let Some(dial) = this.dial else {
            this.dial = Some(state.dial(this.addr, this.fate, cx.waker().clone()));
            return Poll::Pending;
        };
        match state.take_dialed(dial, cx.waker()) {
            None => Poll::Pending,
            Some(Ok(end)) => Poll::Ready(Ok(halves(&this.shared, &mut state, end))),
            Some(Err(error)) => Poll::Ready(Err(io::Error::from_raw_os_error(error))),
        }
    }
}

impl Drop for Dialing {
    fn drop(&mut self) {
        if let Some(dial) = self.dial {
            self.shared.state.borrow_mut().drop_dial(dial);
        }
    }
}

/// Splits a socket that has one owner: now it has two.
fn halves(shared: &Rc<Shared>, state: &mut State, end: EndId) -> (SimReader, SimWriter) {
    state.retain(end);
    let writer = SimWriter { shared: shared.clone(), end };
    (SimReader { shared: shared.clone(), end }, writer)
}

/// The receiving half of a socket.
pub struct SimReader {
    shared: Rc<Shared>,
    end: EndId,
}

impl Reader for SimReader {
    type Stop = SimStop;

    fn ready(&self) -> impl Future<Output = io::Result<()>> + 'static {
        Ready::new(&self.shared, self.end)
    }

    fn watching(&self) -> Watching {
        // The watch has the socket for as long as it is there, not only while it waits.
        let held = Ready::new(&self.shared, self.end);
        Watching::new(move || Ready::new(&held.shared, held.end))
    }

    fn unacked(&self) -> Option<usize> {
        Some(self.shared.state.borrow().unread(self.end))
    }

    async fn read(&mut self, buf: Buf, stop: Rc<Token>) -> Rent {
        if buf.spare() == 0 {
            self.shared.fail("a read needs room");
        }
        rent(Operation::new(&self.shared, Work::Read(self.end), buf, stop).await)
    }

    fn try_read(&mut self, mut buf: Buf) -> Rent {
        if buf.spare() == 0 {
            self.shared.fail("a read needs room");
        }
        let taken = self.shared.state.borrow_mut().try_read(self.end, &mut buf);
        if taken.is_none() {
            self.shared.fail("a read beside another wait: law 6");
        }
        (taken.unwrap_or(Ok(0)), buf)
    }
}

impl Drop for SimReader {
    fn drop(&mut self) {
        self.shared.state.borrow_mut().release(self.end);
    }
}

/// The sending half of a socket.
pub struct SimWriter {
    shared: Rc<Shared>,
    end: EndId,
}

impl Writer for SimWriter {
    type Stop = SimStop;

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.shared.state.borrow_mut().try_write(self.end, bytes)
    }

    async fn write(&mut self, buf: Buf, stop: Rc<Token>) -> Rent {
        rent(Operation::new(&self.shared, Work::Write(self.end), buf, stop).await)
    }
}

impl Drop for SimWriter {
    fn drop(&mut self) {
        let mut state = self.shared.state.borrow_mut();
        state.send_fin(self.end);
        state.release(self.end);
    }
}

fn rent((result, buf): (io::Result<Outcome>, Buf)) -> Rent {
    let count = result.map(|outcome| match outcome {
        Outcome::Bytes(count) => count,
        Outcome::Accepted(..) | Outcome::Failed(_) => 0,
    });
    (count, buf)
}

/// A wait that parks no buffer. Keeps its socket open, as the real one does.
struct Ready {
    shared: Rc<Shared>,
    end: EndId,
    wait: u64,
}

impl Ready {
    fn new(shared: &Rc<Shared>, end: EndId) -> Ready {
        let mut state = shared.state.borrow_mut();
        state.retain(end);
        Ready { shared: shared.clone(), end, wait: state.id() }
    }
}

impl Future for Ready {
    type Output = io::Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ready = self.shared.state.borrow_mut().poll_ready(self.end, self.wait, cx.waker());
        match ready {
            Some(true) => Poll::Ready(Ok(())),
            Some(false) => Poll::Pending,
            None => self.shared.fail("a wait beside another wait or read: law 6"),
        }
    }
}

impl Drop for Ready {
    fn drop(&mut self) {
        let mut state = self.shared.state.borrow_mut();
        state.drop_ready(self.end, self.wait);
        state.release(self.end);
    }
}

/// A listening socket. Dropping it closes it and resets those in its backlog.
pub struct SimListener {
    rt: SimRt,
    addr: SocketAddr,
}

impl SimListener {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

impl Accept<SimRt> for SimListener {
    async fn accept(&self, stop: Rc<Token>) -> io::Result<(SimReader, SimWriter, SocketAddr)> {
        let shared = &self.rt.shared;
        let work = Work::Accept(self.addr);
        match Operation::new(shared, work, Buf::new(), stop).await.0? {
            Outcome::Accepted(end, peer) => {
                let (reader, writer) = halves(shared, &mut shared.state.borrow_mut(), end);
                Ok((reader, writer, peer))
            }
            Outcome::Bytes(_) | Outcome::Failed(_) => Err(io::ErrorKind::Other.into()),
        }
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.rt.shared.state.borrow_mut().unlisten(self.addr);
    }
}
