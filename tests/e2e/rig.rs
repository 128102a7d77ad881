//! The rig: a gateway core on a thread of its own, and providers made of closures.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use firstbyte::app::{control, tokens};
use firstbyte::base::ids::CoreId;
use firstbyte::config;
use firstbyte::exchange::ledger::Ledger;
use firstbyte::net::beacon::Level;
use firstbyte::net::core::{self, End, Shared};
use firstbyte::net::load::Shed;
use firstbyte::net::names::Names;
use firstbyte::net::watch::{NoSession, Watch};
use firstbyte::rt::uring::{self, Loop, MonoListener};

/// Longer than anything here takes; only a failing test waits for it.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Which driver a gateway runs on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Driver {
    IoUring,
    Epoll,
}

/// Runs a test on each driver that this machine has.
pub fn on_both(test: impl Fn(Driver)) {
    for driver in [Driver::IoUring, Driver::Epoll] {
        if driver == Driver::IoUring && Loop::io_uring().is_err() {
            eprintln!("skipped on io_uring: this machine refuses it");
            continue;
        }
        test(driver);
    }
}

/// What the core told.
#[derive(Default)]
pub struct Notes {
    pub ledgers: Mutex<Vec<Ledger>>,
    pub open: AtomicUsize,
    pub fresh: AtomicUsize,
    pub pooled: AtomicUsize,
    /// The next request panics its task.
    pub panic_next: AtomicBool,
    /// The next end of an exchange panics, and says all that is known of it.
    pub panic_at_end: AtomicBool,
    /// Each request blocks its core for a moment.
    pub stall: AtomicBool,
    /// The most requests that were seen to wait at the gate of a late core.
    pub waited: AtomicUsize,
    /// Connections and requests that were refused, by reason.
    pub shed: [AtomicUsize; Shed::ALL.len()],
    /// Why connections came to no TLS session.
    pub no_session: Mutex<Vec<NoSession>>,
    /// Heads and bodies that came too slowly.
    pub too_slow: AtomicUsize,
}

impl Notes {
    /// How many were refused for a reason.
    pub fn shed(&self, why: Shed) -> usize {
        self.shed[why as usize].load(Ordering::SeqCst)
    }
}

impl Watch for Notes {
    fn connected(&self, _core: CoreId) {
        self.open.fetch_add(1, Ordering::SeqCst);
    }
    fn disconnected(&self, _core: CoreId) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }
    fn began(&self, _core: CoreId) {
        if self.panic_next.swap(false, Ordering::SeqCst) {
            panic!("a panic on purpose");
        }
        if self.stall.load(Ordering::SeqCst) {
            // What blocks is what is tested.
            let (_open, never) = channel::<()>();
            let _ = never.recv_timeout(Duration::from_millis(50));
        }
    }
    fn late(&self, _core: CoreId, _late: firstbyte::base::tick::Ms, waiting: usize) {
        self.waited.fetch_max(waiting, Ordering::SeqCst);
    }
    fn ended(&self, _core: CoreId, ledger: Ledger) {
        if self.panic_at_end.swap(false, Ordering::SeqCst) {
            panic!("a panic on purpose: {ledger:?}");
        }
        self.ledgers.lock().unwrap().push(ledger);
    }
    fn dialed(&self, _core: CoreId, fresh: bool) {
        let count = if fresh { &self.fresh } else { &self.pooled };
        count.fetch_add(1, Ordering::SeqCst);
    }
    fn shed(&self, _core: CoreId, why: Shed) {
        self.shed[why as usize].fetch_add(1, Ordering::SeqCst);
    }
    fn no_session(&self, _core: CoreId, why: NoSession) {
        self.no_session.lock().unwrap().push(why);
    }
    fn too_slow(&self, _core: CoreId) {
        self.too_slow.fetch_add(1, Ordering::SeqCst);
    }
}

/// A gateway of one core.
pub struct Gateway {
    pub addr: SocketAddr,
    pub notes: Arc<Notes>,
    pub shared: Arc<Shared>,
    thread: Option<JoinHandle<End>>,
    /// Keeps the thread going that fetches access tokens.
    _tokens: Option<Sender<()>>,
}

impl Gateway {
    /// Starts one on `driver` with what `config` adds to a loopback listener.
    pub fn start(driver: Driver, config: &str) -> Gateway {
        let listener = uring::listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = listener.local_addr().unwrap();
        let config = load(addr, config);
        let takes_tokens = tokens::are_needed(&config);
        let snapshot = control::compile(&config, None).unwrap();
        let notes = Arc::new(Notes::default());
        let names = Names::default();
        names.publish(&Arc::from("localhost"), &[[127, 0, 0, 1].into()]);
        // Nobody listens at the first two.
        let several = [[127, 0, 0, 9].into(), [127, 0, 0, 8].into(), [127, 0, 0, 1].into()];
        names.publish(&Arc::from("several.test"), &several);
        // Where clouds tell a host its credentials.
        let metadata = [169, 254, 169, 254].into();
        names.publish(&Arc::from("metadata.test"), &[metadata]);
        names.publish(&Arc::from("mixed.test"), &[metadata, [127, 0, 0, 1].into()]);
        let shared = Arc::new(Shared::new(snapshot, names, notes.clone()));
        let tokens = takes_tokens.then(|| fetch_tokens(shared.clone()));
        let on_core = shared.clone();
        let thread = std::thread::spawn(move || {
            let mut core = match driver {
                Driver::IoUring => Loop::io_uring().unwrap(),
                Driver::Epoll => Loop::epoll().unwrap(),
            };
            let engine = core.engine();
            core.run(|rt| async move {
                let listener = MonoListener::from_std(listener, engine).unwrap();
                core::serve(rt, vec![listener], on_core, CoreId(0), 1).await
            })
        });
        Gateway { addr, notes, shared, thread: Some(thread), _tokens: tokens }
    }

    /// Publishes another config, as a reload does.
    pub fn reload(&self, config: &str) {
        let current = self.shared.snapshot();
        let next = control::compile(&load(self.addr, config), Some(&current)).unwrap();
        self.shared.publish(next);
    }

    /// Asks it to drain or stop.
    pub fn raise(&self, level: Level) {
        self.shared.raise(level);
    }

    /// Waits for its end.
    pub fn join(&mut self) -> End {
        self.thread.take().unwrap().join().unwrap()
    }

    /// The ledgers so far, once there are `count`.
    pub fn ledgers(&self, count: usize) -> Vec<Ledger> {
        wait_for("ledgers", || {
            let ledgers = self.notes.ledgers.lock().unwrap();
            (ledgers.len() >= count).then(|| ledgers.clone())
        })
    }
}

fn load(addr: SocketAddr, config: &str) -> config::Config {
    // A loaded machine is late, which is not what most tests are about.
    let lag = if config.contains("lag_max") { "" } else { "lag_max = \"off\"\n" };
    let text = format!("[server]\nlisten = [\"{addr}\"]\nadmin = \"off\"\n{lag}{config}");
    let lookup = |reference: &config::Ref| match reference {
        config::Ref::Env(_) => Ok(b"secret-key".to_vec()),
        config::Ref::File(path) => std::fs::read(path).map_err(|e| e.to_string()),
    };
    config::load(&text, &lookup).unwrap_or_else(|p| panic!("{p:#?}"))
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.shared.raise(Level::Stopping);
        if let Some(thread) = self.thread.take() {
            let end = thread.join();
            if !std::thread::panicking() {
                assert_eq!(end.unwrap(), End::Drained, "connections were left");
            }
        }
    }
}

/// Fetches access tokens aside, and waits for the first round.
fn fetch_tokens(shared: Arc<Shared>) -> Sender<()> {
    let (quit, quitting) = channel();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        tokens::run(&shared, &quitting, move || tell.send(()).unwrap(), |_| {});
    });
    told.recv_timeout(PATIENCE).expect("the first round of tokens");
    quit
}

/// Polls until something is there; panics after `PATIENCE`.
pub fn wait_for<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let until = std::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(std::time::Instant::now() < until, "{what} did not come");
        std::thread::yield_now();
    }
}

/// What a provider gets: the connection and the request's bytes.
pub struct Call {
    pub stream: TcpStream,
    pub request: String,
    pub body: Vec<u8>,
}

impl Call {
    /// Writes bytes, and says whether the peer took them.
    pub fn say(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Ends the connection by a reset.
    pub fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(Duration::ZERO)).unwrap();
    }

    /// Waits until the gateway closes, throwing away what comes.
    pub fn until_closed(&mut self) {
        let mut sink = [0; 4096];
        while matches!(read(&mut self.stream, &mut sink), Ok(count) if count > 0) {}
    }
}

/// One read; a ring elsewhere in the process may interrupt it, which says nothing.
pub fn read(stream: &mut impl Read, into: &mut [u8]) -> std::io::Result<usize> {
    loop {
        match stream.read(into) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// A provider on a port of its own; each request goes to the closure. Ends with its process.
pub struct Provider {
    pub addr: SocketAddr,
    /// One message for each connection that is accepted.
    pub accepted: Mutex<Receiver<()>>,
}

impl Provider {
    /// `handle` serves one request; it says whether the connection goes on.
    pub fn start(handle: impl Fn(&mut Option<Call>) -> bool + Send + Sync + 'static) -> Provider {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let handle = Arc::new(handle);
        let (accepts, accepted) = channel();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let handle = handle.clone();
                let _ = accepts.send(());
                std::thread::spawn(move || serve(stream, &*handle));
            }
        });
        Provider { addr, accepted: Mutex::new(accepted) }
    }

    /// One that always says the same and closes.
    pub fn saying(bytes: impl AsRef<[u8]>) -> Provider {
        let bytes = bytes.as_ref().to_vec();
        Provider::start(move |call| {
            call.as_mut().unwrap().say(&bytes);
            false
        })
    }

    /// An address that refuses connections.
    pub fn refusing() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    }
}

fn serve(mut stream: TcpStream, handle: &dyn Fn(&mut Option<Call>) -> bool) {
    stream.set_nodelay(true).unwrap();
    let mut buffer = Vec::new();
    loop {
        let Some((request, body)) = read_request(&mut stream, &mut buffer) else { return };
        let Ok(copy) = stream.try_clone() else { return };
        let mut call = Some(Call { stream: copy, request, body });
        if !handle(&mut call) {
            return;
        }
    }
}

fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<(String, Vec<u8>)> {
    let mut chunk = vec![0; 65_536];
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
        let count = read(stream, &mut chunk).ok().filter(|count| *count > 0)?;
        buffer.extend_from_slice(&chunk[..count]);
    };
    let head = String::from_utf8(buffer[..end].to_vec()).unwrap();
    let length: usize = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |digits| digits.parse().unwrap());
    while buffer.len() < end + length {
        let count = read(stream, &mut chunk).ok().filter(|count| *count > 0)?;
        buffer.extend_from_slice(&chunk[..count]);
    }
    let body = buffer[end..end + length].to_vec();
    buffer.drain(..end + length);
    Some((head, body))
}

/// A config of providers `p0..` in this order, behind the model `m`.
pub fn providers(defaults: &str, addrs: &[SocketAddr]) -> String {
    let mut text = format!("[defaults]\n{defaults}\n");
    for (i, addr) in addrs.iter().enumerate() {
        text += &format!("[providers.p{i}]\nkind = \"openai\"\nbase_url = \"http://{addr}/v1\"\n");
        text += "key = \"env:KEY\"\n";
    }
    let targets: Vec<_> = (0..addrs.len()).map(|i| format!("\"p{i}/up\"")).collect();
    text + &format!("[models.m]\ntargets = [{}]\n", targets.join(", "))
}
