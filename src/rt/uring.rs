//! The real runtime: monoio, on io_uring or on epoll. The only file that names monoio.
//!
//! Decides which driver runs and with which ring flags. Facts of monoio 0.2.4 that bind it stand in
//! `docs/runtime.md`; the laws of the seam in `rt/mod.rs`.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::rc::Rc;
use std::sync::OnceLock;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use monoio::buf::IoBuf;
use monoio::io::{
    AsyncReadRent as _, CancelHandle, CancelableAsyncReadRent, CancelableAsyncWriteRent, Canceller,
    OwnedReadHalf, OwnedWriteHalf, Splitable,
};
use monoio::net::{TcpListener, TcpStream, UnixStream};
use monoio::time::TimeDriver;
use monoio::{IoUringDriver, LegacyDriver, Runtime, RuntimeBuilder};
use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockRef, Socket, Type};

use super::{Accept, LAG_AFTER, Reader, Rent, Rt, Stop, Watching, Writer, stopped};
use crate::base::buf::Buf;
use crate::base::limits;
use crate::base::tick::{Ms, Tick, UnixMs};

/// Submission entries of a ring. Operations in flight may be far more; this is what one batch holds.
const RING_ENTRIES: u32 = 4096;

/// The process's epoch: one for all cores, so that ticks can be compared between them.
static EPOCH: OnceLock<Instant> = OnceLock::new();

fn epoch() -> Instant {
    *EPOCH.get_or_init(Instant::now)
}

/// The monotonic clock, for threads that are not cores.
pub fn now() -> Tick {
    Tick(u64::try_from(epoch().elapsed().as_micros()).unwrap_or(u64::MAX))
}

/// The wall clock.
pub fn wall() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// One core's runtime handle.
#[derive(Clone)]
pub struct Mono {
    panics: Rc<Cell<u32>>,
    ring: bool,
    /// Lent to whoever measures the lag.
    bell: Rc<Cell<Option<Bell>>>,
}

/// A pair of sockets of this core's own: what is written to one becomes ready on the other, and waits for
/// its turn as everything does that comes from outside.
struct Bell {
    near: UnixStream,
    far: std::os::unix::net::UnixStream,
}

impl Bell {
    /// One that was not rung.
    fn new() -> io::Result<Bell> {
        let (near, far) = std::os::unix::net::UnixStream::pair()?;
        far.set_nonblocking(true)?;
        Ok(Bell { near: UnixStream::from_std(near)?, far })
    }

    /// Rings it when `due` is over, and waits until that is heard.
    async fn ring(&mut self, due: impl Future<Output = ()>) -> io::Result<()> {
        {
            let mut heard = pin!(self.near.readable(false));
            let mut due = pin!(due);
            // The kernel knows of the wait before the bell is rung; otherwise it would be over at once.
            poll_fn(|cx| match heard.as_mut().poll(cx) {
                Poll::Ready(early) => Poll::Ready(early),
                Poll::Pending => due.as_mut().poll(cx).map(Ok),
            })
            .await?;
            (&self.far).write_all(&[0])?;
            heard.await?;
        }
        let (read, _) = self.near.read(Vec::with_capacity(1)).await;
        read.map(drop)
    }
}

/// Which driver a core runs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Engine {
    /// io_uring, with the set-up flags that the kernel accepted.
    IoUring {
        /// The flags in words, for the log.
        flags: &'static str,
    },
    /// epoll.
    Epoll,
}

enum Built {
    Ring(Runtime<TimeDriver<IoUringDriver>>),
    Epoll(Runtime<TimeDriver<LegacyDriver>>),
}

/// A core's event loop, not yet running.
pub struct Loop {
    built: Built,
    engine: Engine,
}

impl Loop {
    /// Builds an io_uring loop with the best flags that this kernel takes.
    ///
    /// # Errors
    /// The kernel's refusal of the plainest ring: no io_uring here, or it is forbidden.
    pub fn io_uring() -> io::Result<Loop> {
        if !monoio::utils::detect_uring() {
            return Err(io::Error::new(
                io::ErrorKind::Unsupported,
                "this kernel offers no io_uring",
            ));
        }
        let mut last = io::Error::from(io::ErrorKind::Unsupported);
        for (flags, ring) in ring_set_ups() {
            let built = RuntimeBuilder::<IoUringDriver>::new()
                .with_entries(RING_ENTRIES)
                .uring_builder(ring)
                .enable_timer()
                .build();
            match built {
                Ok(runtime) => {
                    let engine = Engine::IoUring { flags };
                    return Ok(Loop { built: Built::Ring(runtime), engine });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Builds an epoll loop.
    ///
    /// # Errors
    /// The kernel's, when descriptors are spent.
    pub fn epoll() -> io::Result<Loop> {
        let runtime = RuntimeBuilder::<LegacyDriver>::new().enable_timer().build()?;
        Ok(Loop { built: Built::Epoll(runtime), engine: Engine::Epoll })
    }

    /// What it runs on.
    pub fn engine(&self) -> Engine {
        self.engine
    }

    /// Runs `main` to its end on the calling thread.
    pub fn run<F: Future>(&mut self, main: impl FnOnce(Mono) -> F) -> F::Output {
        let ring = matches!(self.built, Built::Ring(_));
        let main = main(Mono { panics: Rc::default(), ring, bell: Rc::default() });
        match &mut self.built {
            Built::Ring(runtime) => runtime.block_on(main),
            Built::Epoll(runtime) => runtime.block_on(main),
        }
    }
}

/// Set-ups from best to plainest: 6.1 brought DEFER_TASKRUN, 6.0 SINGLE_ISSUER, 5.19 COOP_TASKRUN.
fn ring_set_ups() -> [(&'static str, io_uring::Builder); 4] {
    let plain = io_uring::IoUring::builder;
    let (mut best, mut single, mut coop) = (plain(), plain(), plain());
    best.setup_coop_taskrun().setup_single_issuer().setup_defer_taskrun();
    single.setup_coop_taskrun().setup_single_issuer();
    coop.setup_coop_taskrun();
    [
        ("coop_taskrun, single_issuer, defer_taskrun", best),
        ("coop_taskrun, single_issuer", single),
        ("coop_taskrun", coop),
        ("no flags", plain()),
    ]
}

impl Rt for Mono {
    type Reader = MonoReader;
    type Writer = MonoWriter;
    type Listener = MonoListener;
    type Stop = MonoStop;

    fn now(&self) -> Tick {
        now()
    }

    fn wall(&self) -> UnixMs {
        wall()
    }

    #[allow(unsafe_code)]
    fn used(&self) -> Tick {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: the call writes one `timespec`, which outlives it.
        unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
        Tick(time.tv_sec.unsigned_abs() * 1_000_000 + time.tv_nsec.unsigned_abs() / 1000)
    }

    fn sleep_until(&self, at: Tick) -> impl Future<Output = ()> + 'static {
        let instant =
            (at != Tick::NEVER).then(|| epoch().checked_add(Duration::from_micros(at.0))).flatten();
        async move {
            match instant {
                Some(instant) => monoio::time::sleep_until(instant.into()).await,
                None => std::future::pending().await,
            }
        }
    }

    fn spawn(&self, task: impl Future<Output = ()> + 'static) {
        let panics = self.panics.clone();
        // Boxed out here: inside, the task would be in the block twice.
        let mut task = Box::pin(task);
        monoio::spawn(async move {
            poll_fn(|cx| {
                let polled = std::panic::catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(cx)));
                polled.unwrap_or_else(|_| {
                    panics.set(panics.get() + 1);
                    Poll::Ready(())
                })
            })
            .await;
        });
    }

    #[allow(clippy::manual_async_fn)] // An `async fn` would borrow `self`; a dial must not.
    fn dial(
        &self,
        addr: SocketAddr,
    ) -> impl Future<Output = io::Result<(MonoReader, MonoWriter)>> + 'static {
        let ring = self.ring;
        async move { halves(TcpStream::connect_addr(addr).await?, ring) }
    }

    /// A timer alone would not show it: timers are looked at in each round of the loop, and a round on
    /// io_uring takes some twenty of what is ready, however many there are (DEFER_TASKRUN).
    fn lag(&self) -> impl Future<Output = Ms> + 'static {
        let (rt, kept) = (self.clone(), self.bell.clone());
        async move {
            let due = now() + LAG_AFTER;
            // Without one, for want of descriptors, the timer says what it can.
            match kept.take().or_else(|| Bell::new().ok()) {
                Some(mut bell) => {
                    if bell.ring(rt.sleep_until(due)).await.is_ok() {
                        kept.set(Some(bell));
                    }
                }
                None => rt.sleep_until(due).await,
            }
            now() - due
        }
    }

    fn panics(&self) -> u32 {
        self.panics.get()
    }

    fn batches(&self) -> bool {
        self.ring
    }

    fn abort(reader: MonoReader, writer: MonoWriter) {
        debug_assert!(Rc::ptr_eq(&reader.half.0, &writer.half.0), "two halves of one socket");
        disconnect(&reader);
    }
}

/// Listens, beside others of this process at the same address.
///
/// # Errors
/// The kernel's.
pub fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let domain = if address.is_ipv6() { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // Connections inherit it. Without it the kernel takes megabytes for a client that reads a few KB at a
    // time, and is full for so long that the client seems gone.
    socket.set_tcp_notsent_lowat(limits::UNSENT_BYTES_MAX)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn halves(stream: TcpStream, ring: bool) -> io::Result<(MonoReader, MonoWriter)> {
    stream.set_nodelay(true)?;
    let fd = stream.as_raw_fd();
    let (read, write) = stream.into_split();
    Ok((MonoReader { half: read, fd, ring }, MonoWriter { half: write, fd }))
}

/// Dissolves the connection: the peer gets its reset now, whatever else holds the descriptor. Not by
/// `reunite` and SO_LINGER: a parked `ready` shares the socket, which makes `reunite` panic, and
/// dropping the writer by itself would send an end before the reset.
#[allow(unsafe_code)]
fn disconnect(reader: &MonoReader) {
    let fd = descriptor(&reader.half, reader.fd);
    // SAFETY: all zero is the family AF_UNSPEC, which needs no more of the address to be set.
    let nobody = unsafe { SockAddr::new(SockAddrStorage::zeroed(), NOBODY_LEN) };
    // A socket that is not connected any more is closed the ordinary way.
    let _ = SockRef::from(&fd).connect(&nobody);
}

/// Waits until there is something to read.
#[allow(unsafe_code)]
async fn readable(half: OwnedReadHalf<TcpStream>, ring: bool) -> io::Result<()> {
    // SAFETY: the cell is kept alive by `half`; `readable` takes `&TcpStream` and only clones its
    // descriptor, and every other use of the cell is on this thread and holds no reference while it waits
    // for the kernel's answer but to the same descriptor.
    let stream = unsafe { &*half.0.get() };
    if !ring {
        // What epoll told before may have been read since: the socket is asked, by a call of its own. What it
        // tells from here on is news, and is believed, as nobody reads beside a wait.
        let mut asked = pin!(stream.readable(false));
        let asked = poll_fn(|cx| Poll::Ready(asked.as_mut().poll(cx))).await;
        if let Poll::Ready(done) = asked {
            return done;
        }
    }
    stream.readable(!ring).await
}

/// The descriptor of a half, for calls that don't wait.
#[allow(unsafe_code)]
fn descriptor<H>(_half: &H, fd: RawFd) -> BorrowedFd<'_> {
    // SAFETY: it is open for as long as the half lives, which outlives this borrow.
    unsafe { BorrowedFd::borrow_raw(fd) }
}

/// Receives what is there into the tail of `buf`.
#[allow(unsafe_code)]
fn receive_now(fd: BorrowedFd<'_>, buf: &mut Buf) -> io::Result<usize> {
    let (mut data, start) = buf.take().into_parts();
    let received =
        SockRef::from(&fd).recv_with_flags(data.spare_capacity_mut(), libc::MSG_DONTWAIT);
    if let Ok(count) = &received {
        // SAFETY: the kernel has written so many bytes of the spare capacity.
        unsafe { data.set_len(data.len() + count) };
    }
    *buf = Buf::from_parts(data, start);
    received
}

/// The size of a plain `sockaddr`.
const NOBODY_LEN: libc::socklen_t = size_of::<libc::sockaddr>() as libc::socklen_t;

/// The receiving half of a socket.
pub struct MonoReader {
    half: OwnedReadHalf<TcpStream>,
    fd: RawFd,
    /// Whether the runtime is io_uring's.
    ring: bool,
}

impl Reader for MonoReader {
    type Stop = MonoStop;

    fn ready(&self) -> impl Future<Output = io::Result<()>> + 'static {
        readable(OwnedReadHalf(self.half.0.clone()), self.ring)
    }

    fn watching(&self) -> Watching {
        let (half, ring) = (OwnedReadHalf(self.half.0.clone()), self.ring);
        Watching::new(move || readable(OwnedReadHalf(half.0.clone()), ring))
    }

    #[allow(unsafe_code)]
    fn unacked(&self) -> Option<usize> {
        let mut waiting: libc::c_int = 0;
        // SAFETY: the descriptor is open for as long as `self` lives, and the call (SIOCOUTQ, by the name
        // that it has for terminals) writes one `int`, which outlives it.
        let result = unsafe { libc::ioctl(self.fd, libc::TIOCOUTQ, &raw mut waiting) };
        (result == 0).then(|| usize::try_from(waiting).unwrap_or(0))
    }

    async fn read(&mut self, buf: Buf, stop: Rc<Token>) -> Rent {
        let stop = match stop.begin() {
            Ok(stop) => stop,
            Err(error) => return (Err(error), buf),
        };
        let (data, start) = buf.into_parts();
        let len = data.len();
        debug_assert!(data.capacity() > len, "a read needs room");
        let tail = monoio::buf::IoBufMut::slice_mut(data, len..);
        let (result, tail) = self.half.cancelable_read(tail, stop).await;
        (result, Buf::from_parts(tail.into_inner(), start))
    }

    fn try_read(&mut self, mut buf: Buf) -> Rent {
        (receive_now(descriptor(&self.half, self.fd), &mut buf), buf)
    }
}

/// The sending half of a socket.
pub struct MonoWriter {
    half: OwnedWriteHalf<TcpStream>,
    fd: RawFd,
}

impl Writer for MonoWriter {
    type Stop = MonoStop;

    fn try_write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        SockRef::from(&descriptor(&self.half, self.fd))
            .send_with_flags(bytes, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    }

    async fn write(&mut self, buf: Buf, stop: Rc<Token>) -> Rent {
        let stop = match stop.begin() {
            Ok(stop) => stop,
            Err(error) => return (Err(error), buf),
        };
        let (data, start) = buf.into_parts();
        let (result, window) = self.half.cancelable_write(data.slice(start..), stop).await;
        (result, Buf::from_parts(window.into_inner(), start))
    }
}

/// A listening socket of one core.
pub struct MonoListener {
    inner: Listening,
}

/// On epoll the runtime accepts. On io_uring nothing is left under way on the listener itself: a process
/// that is killed would keep it, and take connections, until the kernel has ended its ring.
enum Listening {
    Epoll(TcpListener),
    Ring {
        /// Never blocks.
        listener: std::net::TcpListener,
        /// An epoll that watches it, which holds no reference to it; the ring waits for this.
        watch: UnixStream,
        /// Nothing ever comes here: a read of it lasts until it is stopped.
        silence: (Cell<Option<UnixStream>>, std::os::unix::net::UnixStream),
    },
}

/// Something that is put back when this is dropped.
struct Lent<'a, T> {
    from: &'a Cell<Option<T>>,
    what: Option<T>,
}

impl<T> Lent<'_, T> {
    fn take(from: &Cell<Option<T>>) -> Option<Lent<'_, T>> {
        from.take().map(|what| Lent { from, what: Some(what) })
    }
}

impl<T> Drop for Lent<'_, T> {
    fn drop(&mut self) {
        self.from.set(self.what.take());
    }
}

impl MonoListener {
    /// Takes over a bound listener. Must be called inside the core's loop.
    ///
    /// # Errors
    /// The kernel's, if the descriptor can't be registered.
    pub fn from_std(listener: std::net::TcpListener, engine: Engine) -> io::Result<MonoListener> {
        listener.set_nonblocking(true)?;
        let inner = match engine {
            Engine::Epoll => Listening::Epoll(TcpListener::from_std(listener)?),
            Engine::IoUring { .. } => {
                let watch = UnixStream::from_std(watch(&listener)?.into())?;
                let (near, far) = std::os::unix::net::UnixStream::pair()?;
                let silence = (Cell::new(Some(UnixStream::from_std(near)?)), far);
                Listening::Ring { listener, watch, silence }
            }
        };
        Ok(MonoListener { inner })
    }
}

/// An epoll that is readable while a connection waits in the listener's queue.
#[allow(unsafe_code)]
fn watch(listener: &std::net::TcpListener) -> io::Result<OwnedFd> {
    // SAFETY: a call without pointers.
    let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it, and nobody else knows it.
    let watch = unsafe { OwnedFd::from_raw_fd(fd) };
    // Of several cores that share a listener, one is woken for a connection.
    let events = (libc::EPOLLIN | libc::EPOLLEXCLUSIVE) as u32;
    let mut event = libc::epoll_event { events, u64: 0 };
    let (watched, event) = (listener.as_raw_fd(), &raw mut event);
    // SAFETY: both descriptors are open, and the kernel only reads the event, before it returns.
    let added = unsafe { libc::epoll_ctl(fd, libc::EPOLL_CTL_ADD, watched, event) };
    if added < 0 { Err(io::Error::last_os_error()) } else { Ok(watch) }
}

impl Accept<Mono> for MonoListener {
    async fn accept(&self, stop: Rc<Token>) -> io::Result<(MonoReader, MonoWriter, SocketAddr)> {
        let stop = stop.begin()?;
        let (listener, watch, silence) = match &self.inner {
            Listening::Epoll(listener) => {
                let (stream, peer) = listener.cancelable_accept(stop).await?;
                let (reader, writer) = halves(stream, false)?;
                return Ok((reader, writer, peer));
            }
            Listening::Ring { listener, watch, silence } => (listener, watch, &silence.0),
        };
        loop {
            match listener.accept() {
                Ok((stream, peer)) => {
                    let (reader, writer) = halves(TcpStream::from_std(stream)?, true)?;
                    return Ok((reader, writer, peer));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
            // A second accept beside the first would be against law 6.
            let mut lent = Lent::take(silence).ok_or(io::ErrorKind::InvalidInput)?;
            let Some(quiet) = &mut lent.what else { return Err(stopped()) };
            let mut stopped = pin!(quiet.cancelable_read(Vec::with_capacity(1), stop.clone()));
            let mut ready = pin!(watch.readable(false));
            poll_fn(|cx| {
                if let Poll::Ready((result, _)) = stopped.as_mut().poll(cx) {
                    return Poll::Ready(result.map(|_| ()));
                }
                ready.as_mut().poll(cx)
            })
            .await?;
        }
    }
}

/// Gives up operations by monoio's canceller.
pub struct MonoStop {
    token: RefCell<Option<Rc<Token>>>,
}

/// What the operations up to one `stop` share.
#[derive(Default)]
pub struct Token {
    spent: Cell<bool>,
    /// Made for the first operation that waits: most writes never do.
    canceller: RefCell<Option<Canceller>>,
}

impl Token {
    /// What an operation that will wait is started with.
    ///
    /// # Errors
    /// It was stopped before it began.
    fn begin(&self) -> io::Result<CancelHandle> {
        if self.spent.get() {
            return Err(stopped());
        }
        Ok(self.canceller.borrow_mut().get_or_insert_with(Canceller::new).handle())
    }
}

impl Stop for MonoStop {
    type Handle = Rc<Token>;

    fn new() -> Self {
        MonoStop { token: RefCell::new(None) }
    }

    fn handle(&self) -> Rc<Token> {
        self.token.borrow_mut().get_or_insert_default().clone()
    }

    fn stop(&mut self) {
        let Some(token) = self.token.get_mut().take() else { return };
        token.spent.set(true);
        if let Some(canceller) = token.canceller.take() {
            // The one that it gives back is for operations to come, which have another token.
            drop(canceller.cancel());
        }
    }
}

/// Connections that wait to be accepted, for each core and address.
pub const BACKLOG: i32 = 1024;
