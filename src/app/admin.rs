//! The admin listener: a small, strict HTTP/1.1 server on a thread of its own.
//!
//! It reads one request head, answers with one page (`pages`) and closes. It shares nothing with the
//! cores but what they publish, so a scrape never waits for them nor they for it. Everything is bounded:
//! connections at once, bytes of a head, time for the head, time for the answer. Only one page has an
//! effect, and only by POST: `/reload`, which takes in the file that the process was started with.
//!
//! ```text
//! GET /readyz HTTP/1.1\r\n         HTTP/1.1 503 Service Unavailable\r\n
//! Host: localhost:9090\r\n    ->   content-type: text/plain; charset=utf-8\r\n
//! \r\n                             content-length: 9\r\n connection: close\r\n ... \r\n draining\n
//! ```

mod pages;

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::app::control::Gateway;
use crate::app::metrics::Metrics;
use crate::app::reload::{Done, Reloader};
use crate::app::say;
use crate::app::worker::Health;
use crate::base::buf::Buf;
use crate::config::Problem;
use crate::net::core::Shared;
use crate::rt::uring::Engine;
use crate::wire::http1::emit;
use crate::wire::http1::head::{self, Method};

use pages::Page;

/// Connections at once; one more is closed unread.
const CONNECTIONS_MAX: usize = 32;
/// Bytes of a request head.
const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Bytes that are read away after the answer, so that closing does not tear it.
const REST_BYTES_MAX: usize = 64 * 1024;
/// Time for a head, for each write, and for the client's own end of the connection.
const PATIENCE: Duration = Duration::from_secs(2);
/// Patiences for the whole of an answer: a few hundred KiB over a slow line.
const WRITES_MAX: u32 = 5;
/// How often the thread looks whether it shall end.
const LOOK: Duration = Duration::from_millis(50);
/// Pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What the admin pages show.
pub struct View {
    shared: Arc<Shared>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    engines: Vec<Engine>,
    addresses: Vec<SocketAddr>,
    origin: String,
    started: Instant,
    reload: Box<Reload>,
    stopping: AtomicBool,
}

/// Takes another config.
type Reload = dyn Fn() -> Result<Done, Vec<Problem>> + Send + Sync;

impl View {
    /// A view of a running gateway; `started` is what the uptime counts from.
    pub fn new(
        gateway: &Gateway,
        metrics: Arc<Metrics>,
        reloader: Arc<Reloader>,
        started: Instant,
    ) -> View {
        View {
            shared: gateway.shared.clone(),
            health: gateway.workers.health.clone(),
            metrics,
            engines: gateway.workers.engines.clone(),
            addresses: gateway.addresses.clone(),
            origin: gateway.origin.to_string(),
            started,
            reload: Box::new(move || reloader.run()),
            stopping: AtomicBool::new(false),
        }
    }
}

/// The admin listener and the thread that serves it.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    view: Arc<View>,
    thread: Mutex<Option<JoinHandle<()>>>,
    patience: Duration,
}

impl Server {
    /// Serves the pages of `view`.
    ///
    /// # Errors
    /// The listener is of no use, or the thread can't be started.
    pub fn start(listener: TcpListener, view: Arc<View>) -> Result<Server, String> {
        Server::start_with(listener, view, PATIENCE)
    }

    fn start_with(
        listener: TcpListener,
        view: Arc<View>,
        patience: Duration,
    ) -> Result<Server, String> {
        let refused = |error: io::Error| format!("the admin listener can't be used: {error}");
        let address = listener.local_addr().map_err(refused)?;
        let server = Server { listener, address, view, thread: Mutex::new(None), patience };
        server.run().map_err(refused)?;
        Ok(server)
    }

    fn run(&self) -> io::Result<()> {
        let listener = self.listener.try_clone()?;
        listener.set_nonblocking(false)?;
        // So that the thread notices that it shall end, also where others take the connections.
        SockRef::from(&listener).set_read_timeout(Some(LOOK))?;
        self.view.stopping.store(false, Ordering::SeqCst);
        let (view, patience) = (self.view.clone(), self.patience);
        let thread = std::thread::Builder::new()
            .name(String::from("admin"))
            .spawn(move || run(&listener, &view, patience))?;
        *self.thread() = Some(thread);
        Ok(())
    }

    fn thread(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.thread.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A duplicate of the listener, for another process.
    ///
    /// # Errors
    /// The kernel's.
    pub fn pass_on(&self) -> io::Result<TcpListener> {
        self.listener.try_clone()
    }

    /// Takes no more connections; those in the queue wait there. Requests under way are answered.
    pub fn pause(&self) {
        self.view.stopping.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread().take() {
            // It catches nothing and shares nothing: a panic of it ends only itself.
            let _ = thread.join();
        }
    }

    /// Goes on after a pause.
    pub fn resume(&self) {
        if let Err(error) = self.run() {
            say::log(&format!("the admin listener does not go on: {error}"));
        }
    }
}

fn run(listener: &TcpListener, view: &Arc<View>, patience: Duration) {
    let open = Arc::new(AtomicUsize::new(0));
    let mut spare = Spare::take();
    while !view.stopping.load(Ordering::SeqCst) {
        let accepted = listener.accept();
        if view.stopping.load(Ordering::SeqCst) {
            return;
        }
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) if is_late(&error) => continue,
            Err(_) => {
                // The one that is kept for this: who asks how the process is gets an answer, one at a time.
                if spare.take().is_none() {
                    std::thread::sleep(ACCEPT_PAUSE);
                } else if let Ok((stream, _)) = listener.accept() {
                    let _ = serve(stream, view, patience);
                }
                spare = Spare::take();
                continue;
            }
        };
        let Some(seat) = Seat::take(&open) else { continue };
        let view = view.clone();
        // Without a thread for it the connection is closed, as one too many is.
        let _ = std::thread::Builder::new().name(String::from("admin-conn")).spawn(move || {
            let _seat = seat;
            // A client that went away or dawdled is no error of ours.
            let _ = serve(stream, &view, patience);
        });
    }
}

/// A descriptor that is kept for when there is no other.
struct Spare(#[allow(dead_code, reason = "it is held, not used")] std::fs::File);

impl Spare {
    fn take() -> Option<Spare> {
        std::fs::File::open("/dev/null").ok().map(Spare)
    }
}

/// One of the connections at once; free again when it is dropped.
struct Seat(Arc<AtomicUsize>);

impl Seat {
    fn take(open: &Arc<AtomicUsize>) -> Option<Seat> {
        let seat =
            (open.fetch_add(1, Ordering::SeqCst) < CONNECTIONS_MAX).then(|| Seat(open.clone()));
        if seat.is_none() {
            open.fetch_sub(1, Ordering::SeqCst);
        }
        seat
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// One connection: one request, one answer.
fn serve(mut stream: TcpStream, view: &View, patience: Duration) -> io::Result<()> {
    let (page, body) = match read_head(&mut stream, patience)? {
        Asked::For { method, target } => {
            (pages::page(view, method, &target), method != Method::Head)
        }
        Asked::Nothing => return Ok(()),
        Asked::Badly(page) => (page, true),
    };
    let answer = write_answer(&page, body);
    let until = Instant::now() + patience * WRITES_MAX;
    let mut rest = answer.as_slice();
    while !rest.is_empty() {
        stream.set_write_timeout(Some(left(until)?.min(patience)))?;
        match stream.write(rest) {
            Ok(0) => return Ok(()),
            Ok(count) => rest = &rest[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    stream.shutdown(Shutdown::Write)?;
    drain(&mut stream, patience)
}

/// What a client asked for.
enum Asked {
    /// A page.
    For { method: Method, target: Vec<u8> },
    /// It left before its head was whole.
    Nothing,
    /// Something that gets this answer.
    Badly(Page),
}

/// Reads a request's head.
fn read_head(stream: &mut TcpStream, patience: Duration) -> io::Result<Asked> {
    let until = Instant::now() + patience;
    let mut bytes = Vec::new();
    let mut looked = 0;
    loop {
        match head::parse_request_from(&bytes, &mut looked, HEAD_BYTES_MAX) {
            Ok(Some(head)) => {
                let target = head.target.of(&bytes).to_vec();
                return Ok(Asked::For { method: head.method, target });
            }
            Ok(None) => {}
            Err(refusal) => return Ok(Asked::Badly(Page::refusal(refusal))),
        }
        let mut piece = [0; 2048];
        let read = left(until).and_then(|left| {
            stream.set_read_timeout(Some(left))?;
            stream.read(&mut piece)
        });
        match read {
            Ok(0) => return Ok(Asked::Nothing),
            Ok(count) => bytes.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if is_late(&error) => return Ok(Asked::Badly(Page::late())),
            Err(error) => return Err(error),
        }
    }
}

/// Time until then, at least a millisecond.
///
/// # Errors
/// `TimedOut`: there is none left.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() {
        Err(io::ErrorKind::TimedOut.into())
    } else {
        Ok(left.max(Duration::from_millis(1)))
    }
}

/// Whether time ran out; a socket's time-out reads as `WouldBlock` here.
fn is_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock)
}

fn write_answer(page: &Page, body: bool) -> Buf {
    let mut out = Buf::with_capacity(256 + page.body.len());
    emit::status_line(&mut out, page.status);
    let allow = page.allow.map(|methods| (&b"allow"[..], methods.as_bytes()));
    let fields = [
        (&b"content-type"[..], page.kind.as_bytes()),
        (b"cache-control", b"no-store"),
        (b"x-content-type-options", b"nosniff"),
        (b"connection", b"close"),
    ];
    for (name, value) in fields.into_iter().chain(allow) {
        let written = emit::field(&mut out, name, value);
        debug_assert!(written, "our own fields are well-formed");
    }
    emit::content_length(&mut out, page.body.len() as u64);
    emit::end(&mut out);
    if body {
        out.extend(page.body.as_bytes());
    }
    out
}

/// Reads until the client closes: closing with bytes unread would reset the connection, and the client
/// could lose the answer.
fn drain(stream: &mut TcpStream, patience: Duration) -> io::Result<()> {
    let until = Instant::now() + patience;
    let mut piece = [0; 4096];
    let mut rest = REST_BYTES_MAX;
    while rest > 0 {
        stream.set_read_timeout(Some(left(until)?))?;
        match stream.read(&mut piece)? {
            0 => return Ok(()),
            count => rest = rest.saturating_sub(count),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
