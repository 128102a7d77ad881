//! F1': the runtime seam. Everything above speaks to sockets, clock and tasks through the trait `Rt`,
//! which is implemented twice: `uring` (monoio: io_uring and epoll) and `sim` (a seeded world).
//!
//! The seam has *completion* semantics: an operation owns its buffer and gives it back. Its laws:
//!
//! 1. `read`, `write` and `accept` are never dropped while they are under way. To give one up: stop
//!    it by its `Stop`, then await it; it may still complete with `Ok`, since the data may have won.
//! 2. `ready`, `sleep_until` and `dial` may be dropped at any time. A dropped dial closes its socket.
//! 3. `read` appends to the buffer's tail, at most its spare capacity; `Ok(0)` is the peer's end.
//! 4. `write` sends from the buffer's window and says how much; it does not consume.
//! 5. A socket is closed by dropping both halves; dropping the writer alone ends our direction.
//! 6. One wait for one direction: of a reader's `ready` and `read`, and of a listener's accepts, one
//!    is pending at a time. epoll wakes only the last one to be polled, and a stop may end the other.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use crate::base::buf::Buf;
use crate::base::tick::{Ms, Tick, UnixMs};

#[cfg(feature = "uring")]
pub mod uring;

pub mod sim;

/// What an operation that rented a buffer gives back.
pub type Rent = (io::Result<usize>, Buf);

/// A runtime: clock, tasks and sockets of one core. Cheap to clone.
pub trait Rt: Clone + 'static {
    /// The receiving half of a socket.
    type Reader: Reader<Stop = Self::Stop>;
    /// The sending half of a socket.
    type Writer: Writer<Stop = Self::Stop>;
    /// A listening socket.
    type Listener: Accept<Self>;
    /// What gives up operations.
    type Stop: Stop;

    /// The monotonic clock. All cores of a process share its epoch.
    fn now(&self) -> Tick;

    /// The wall clock, for the ledger.
    fn wall(&self) -> UnixMs;

    /// CPU time that this core's thread has used, on a clock of its own. Where nobody counts it: all of it.
    fn used(&self) -> Tick {
        self.now()
    }

    /// Completes at `at` or up to 1 ms later; never for `Tick::NEVER`. Droppable.
    fn sleep_until(&self, at: Tick) -> impl Future<Output = ()> + 'static;

    /// Starts a task on this core. A panic in it is caught, counted and ends the core's other tasks.
    fn spawn(&self, task: impl Future<Output = ()> + 'static);

    /// Connects, with TCP_NODELAY. Has no deadline of its own: drop it to give it up.
    fn dial(
        &self,
        addr: SocketAddr,
    ) -> impl Future<Output = io::Result<(Self::Reader, Self::Writer)>> + 'static;

    /// How long what is ready waits for its turn in this core's event loop: completes once it has had it,
    /// and says how late that was. Begin it anew each time. Droppable.
    fn lag(&self) -> impl Future<Output = Ms> + 'static {
        let rt = self.clone();
        async move {
            let due = rt.now() + LAG_AFTER;
            rt.sleep_until(due).await;
            rt.now() - due
        }
    }

    /// How many tasks of this core have panicked.
    fn panics(&self) -> u32 {
        0
    }

    /// Whether operations are handed over many at a time, so that a core with much to do spends less on one
    /// than on a call of its own.
    fn batches(&self) -> bool {
        false
    }

    /// Closes a socket so that the peer sees a reset rather than an end.
    fn abort(reader: Self::Reader, writer: Self::Writer);
}

/// Gives up the operations that were started with its handle.
pub trait Stop: 'static {
    /// What an operation is started with.
    type Handle: Clone + 'static;

    /// A new one, nothing stopped.
    fn new() -> Self;

    /// A handle for the operations to come, up to the next `stop`.
    fn handle(&self) -> Self::Handle;

    /// Stops what runs under the handles given so far. They must still be awaited.
    fn stop(&mut self);
}

/// The receiving half.
pub trait Reader: 'static {
    /// The runtime's `Stop`.
    type Stop: Stop;

    /// Completes when a read would not wait: data, end or error. Parks no buffer. Droppable.
    fn ready(&self) -> impl Future<Output = io::Result<()>> + 'static;

    /// A `ready` for more than one wait.
    fn watching(&self) -> Watching;
    /// Octets that were written to the socket and that the peer's system has not taken yet; none if that
    /// can't be told.
    fn unacked(&self) -> Option<usize>;

    /// Receives into the tail of `buf`, which must have spare capacity.
    fn read(&mut self, buf: Buf, stop: <Self::Stop as Stop>::Handle) -> impl Future<Output = Rent>;

    /// Receives what is there into the tail of `buf`, without a wait: `WouldBlock` if that is nothing. No
    /// `read` or `ready` may be pending. After `ready` this costs less than an operation, and what waits
    /// holds no buffer meanwhile.
    fn try_read(&mut self, buf: Buf) -> Rent;
}

/// A `ready` that can be awaited again and again, and by one after the other. It allocates once.
pub struct Watching {
    turn: Rc<Cell<Turn>>,
    /// Never ends.
    waits: Pin<Box<dyn Future<Output = ()>>>,
}

/// Where a watch stands.
#[derive(Default)]
enum Turn {
    /// Nobody waits.
    #[default]
    Rest,
    /// A wait is under way, or will be with the next poll.
    Wait,
    /// It is over.
    Done(io::Result<()>),
}

impl Watching {
    /// Waits by what `ready` makes, for runtimes.
    fn new<F>(ready: impl Fn() -> F + 'static) -> Watching
    where
        F: Future<Output = io::Result<()>> + 'static,
    {
        let turn = Rc::new(Cell::new(Turn::Rest));
        let shared = turn.clone();
        let waits = async move {
            loop {
                poll_fn(|_| {
                    let turn = shared.take();
                    let waits = matches!(turn, Turn::Wait);
                    shared.set(turn);
                    if waits { Poll::Ready(()) } else { Poll::Pending }
                })
                .await;
                let done = ready().await;
                shared.set(Turn::Done(done));
            }
        };
        Watching { turn, waits: Box::pin(waits) }
    }

    /// Completes when a read would not wait. The next poll after that begins the next wait.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Turn::Done(done) = self.turn.replace(Turn::Wait) {
            self.turn.set(Turn::Rest);
            return Poll::Ready(done);
        }
        let _ = self.waits.as_mut().poll(cx);
        match self.turn.take() {
            Turn::Done(done) => Poll::Ready(done),
            turn @ (Turn::Rest | Turn::Wait) => {
                self.turn.set(turn);
                Poll::Pending
            }
        }
    }

    /// Whether a wait is under way, beside which nobody may read.
    pub fn is_waiting(&self) -> bool {
        let turn = self.turn.take();
        let waits = matches!(turn, Turn::Wait);
        self.turn.set(turn);
        waits
    }
}

/// The sending half.
pub trait Writer: 'static {
    /// The runtime's `Stop`.
    type Stop: Stop;

    /// Sends what the socket has room for, without a wait: `WouldBlock` if that is nothing. No `write` may be
    /// pending. A socket has room nearly always, and then the peer has the bytes before the core's other
    /// tasks had their turn.
    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize>;

    /// Sends from the window of `buf`; `Ok(n)` says how much was taken.
    fn write(&mut self, buf: Buf, stop: <Self::Stop as Stop>::Handle)
    -> impl Future<Output = Rent>;
}

/// A listening socket.
pub trait Accept<R: Rt>: 'static {
    /// Takes the next connection, with TCP_NODELAY.
    fn accept(
        &self,
        stop: <R::Stop as Stop>::Handle,
    ) -> impl Future<Output = io::Result<(R::Reader, R::Writer, SocketAddr)>>;
}

/// Whether an operation ended because it was stopped.
pub fn is_stopped(error: &io::Error) -> bool {
    error.raw_os_error() == Some(ECANCELED)
}

/// The error of a stopped operation, as both drivers give it.
pub fn stopped() -> io::Error {
    io::Error::from_raw_os_error(ECANCELED)
}

const ECANCELED: i32 = 125;

/// What `lag` waits for is due so long after it began.
pub const LAG_AFTER: Ms = Ms(1);

/// Whether a call that does not wait would have had to.
pub fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Whether an operation failed for want of a descriptor, in the process or in the system.
pub fn is_exhausted(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
}

const ENFILE: i32 = 23;
const EMFILE: i32 = 24;

/// An operation in flight, or none: what a driver polls. `None` stays pending.
pub fn poll_slot<F: Future>(
    mut slot: Pin<&mut Option<F>>,
    cx: &mut Context<'_>,
) -> Poll<F::Output> {
    let Some(op) = slot.as_mut().as_pin_mut() else { return Poll::Pending };
    let done = op.poll(cx);
    if done.is_ready() {
        slot.set(None);
    }
    done
}

/// Runs `op` until `deadline`; then stops it and awaits what it gives back all the same.
/// The second value says whether the deadline passed first.
pub async fn until<R: Rt, F: Future>(
    rt: &R,
    stop: &mut R::Stop,
    deadline: Tick,
    op: F,
) -> (F::Output, bool) {
    let mut op = std::pin::pin!(op);
    let mut timer = std::pin::pin!(rt.sleep_until(deadline));
    let first = std::future::poll_fn(|cx| {
        if let Poll::Ready(done) = op.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        timer.as_mut().poll(cx).map(|()| None)
    })
    .await;
    match first {
        Some(done) => (done, false),
        None => {
            stop.stop();
            (op.await, true)
        }
    }
}
