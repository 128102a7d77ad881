//! A thread for each core: pinned, with an event loop of its own, started anew when a task panicked.
//!
//! A core gets duplicates of the process's listeners (`sockets`), each time anew. All that can fail comes
//! before the first connection is taken: the cores wait with their event loops until they are let go.

use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::app::sockets::{Given, Sockets};
use crate::base::ids::{CoreId, Id as _};
use crate::config::Driver;
use crate::net::beacon::Level;
use crate::net::core::{self, End, Shared};
use crate::rt::uring::{Engine, Loop, MonoListener};

/// Pause before a core that ended badly is started again, doubled each time up to the limit.
const RESTART_PAUSE: Duration = Duration::from_millis(50);
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(5);

/// How long the cores may take to pass the gate: they only have to wake up.
const OPEN_MAX: Duration = Duration::from_secs(1);

/// What the cores are doing, for `/status`, `/readyz` and metrics.
#[derive(Default)]
pub struct Health {
    /// Cores that accept connections.
    pub serving: AtomicUsize,
    /// Tasks that panicked.
    pub panics: AtomicU32,
    /// Cores that were started again.
    pub restarts: AtomicU32,
    /// Whether the process is about to end, though it may still serve.
    pub leaving: AtomicBool,
}

/// The cores of this process.
pub struct Workers {
    threads: Vec<JoinHandle<()>>,
    /// What each core runs on.
    pub engines: Vec<Engine>,
    /// What they are doing.
    pub health: Arc<Health>,
    /// The addresses that are listened on, with the ports that the kernel gave.
    pub addresses: Vec<SocketAddr>,
    /// Where connections come from.
    pub sockets: Arc<Sockets>,
    gate: Arc<Gate>,
}

/// How to start cores.
pub struct Plan {
    /// Threads; 0: one for each core of the affinity mask.
    pub cores: u16,
    /// Which interface to the kernel.
    pub driver: Driver,
    /// Where to listen; port 0 lets the kernel choose.
    pub listen: Vec<SocketAddr>,
}

/// What cores wait at before they take connections.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    moved: Condvar,
}

impl Gate {
    fn open(&self) {
        *self.open.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = true;
        self.moved.notify_all();
    }

    fn pass(&self) {
        let open = self.open.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        drop(self.moved.wait_while(open, |open| !*open));
    }
}

/// Starts the cores and waits until each has its event loop. They take no connection before `open`.
/// Listeners that are in `given` are taken from there.
///
/// # Errors
/// An address that can't be listened on, or a driver that this machine refuses, in words.
pub fn start(
    plan: &Plan,
    given: &mut Vec<Given>,
    shared: &Arc<Shared>,
    say: fn(&str),
) -> Result<Workers, String> {
    let mask = core_affinity::get_core_ids().unwrap_or_default();
    let count = match plan.cores {
        0 => mask.len().max(1),
        cores => usize::from(cores),
    };
    let sockets = Arc::new(Sockets::open(&plan.listen, count, given)?);
    let (health, gate) = (Arc::new(Health::default()), Arc::new(Gate::default()));
    let (tell, told) = channel();
    let mut threads = Vec::new();
    for index in 0..count {
        let seat = Seat {
            id: CoreId::from_index(index),
            place: if count <= mask.len() { mask.get(index).copied() } else { None },
            driver: plan.driver,
            sockets: sockets.clone(),
            count,
            gate: gate.clone(),
            shared: shared.clone(),
            health: health.clone(),
            say,
        };
        let tell = tell.clone();
        let thread = std::thread::Builder::new()
            .name(format!("core-{index}"))
            .spawn(move || seat.run(&tell))
            .map_err(|error| format!("core {index} can't be started: {error}"))?;
        threads.push(thread);
    }
    let mut engines = Vec::new();
    for _ in 0..count {
        let engine = told.recv().map_err(|_| String::from("a core ended before it began"))??;
        engines.push(engine);
    }
    Ok(Workers { threads, engines, health, addresses: sockets.addresses(), sockets, gate })
}

impl Workers {
    /// Lets the cores take connections, and waits a moment until they do: who hears that this process is
    /// ready shall find it so.
    pub fn open(&self) {
        self.gate.open();
        let until = Instant::now() + OPEN_MAX;
        while self.health.serving.load(Ordering::SeqCst) < self.threads.len() {
            if Instant::now() > until {
                return;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Whether every core has ended.
    pub fn are_done(&self) -> bool {
        self.threads.iter().all(JoinHandle::is_finished)
    }

    /// Waits until every core has ended.
    pub fn join(self) {
        for thread in self.threads {
            // A panic of a core's thread was counted where it was caught.
            let _ = thread.join();
        }
    }
}

/// One core's place.
struct Seat {
    id: CoreId,
    place: Option<core_affinity::CoreId>,
    driver: Driver,
    sockets: Arc<Sockets>,
    /// Of all cores.
    count: usize,
    gate: Arc<Gate>,
    shared: Arc<Shared>,
    health: Arc<Health>,
    say: fn(&str),
}

impl Seat {
    /// Runs the core until the process ends, over and over if it must.
    fn run(self, tell: &Sender<Result<Engine, String>>) {
        if let Some(place) = self.place {
            core_affinity::set_for_current(place);
        }
        let mut first = Some(tell);
        let mut pause = RESTART_PAUSE;
        loop {
            let built = build(self.driver);
            let (mut event_loop, note) = match built {
                Ok(built) => built,
                Err(why) => {
                    if let Some(tell) = first {
                        // Nobody waits any more if another core failed first.
                        let _ = tell.send(Err(why));
                    }
                    return;
                }
            };
            if let Some(tell) = first.take() {
                if let Some(note) = note.filter(|_| self.id == CoreId(0)) {
                    (self.say)(&note);
                }
                let _ = tell.send(Ok(event_loop.engine()));
                self.gate.pass();
            }
            if self.serve(&mut event_loop) {
                return;
            }
            self.health.restarts.fetch_add(1, Ordering::Relaxed);
            (self.say)(&format!("core {} is started again after a panic", self.id.0));
            std::thread::sleep(pause);
            pause = (pause * 2).min(RESTART_PAUSE_MAX);
        }
    }

    /// Runs the core's event loop; true if it came to its ordinary end.
    fn serve(&self, event_loop: &mut Loop) -> bool {
        let engine = event_loop.engine();
        let (shared, id) = (self.shared.clone(), self.id);
        let listeners: Vec<TcpListener> = self.sockets.of_core(id.index(), self.count);
        self.health.serving.fetch_add(1, Ordering::SeqCst);
        let ended = catch_unwind(AssertUnwindSafe(|| {
            event_loop.run(|rt| async move {
                let listeners = listeners
                    .into_iter()
                    .filter_map(|listener| MonoListener::from_std(listener, engine).ok())
                    .collect();
                core::serve(rt, listeners, shared, id, seed(id)).await
            })
        }));
        self.health.serving.fetch_sub(1, Ordering::SeqCst);
        match ended {
            Ok(End::Drained) => true,
            Ok(End::Abandoned { connections }) => {
                let id = self.id.0;
                (self.say)(&format!("core {id}: {connections} connections were still open"));
                true
            }
            Ok(End::Panicked) | Err(_) => {
                self.health.panics.fetch_add(1, Ordering::Relaxed);
                self.shared.level() == Level::Stopping
            }
        }
    }
}

/// An event loop by the configured driver, with a line for the log if it is not the one hoped for.
fn build(driver: Driver) -> Result<(Loop, Option<String>), String> {
    let epoll = || Loop::epoll().map_err(|error| format!("epoll can't be set up: {error}"));
    match driver {
        Driver::Epoll => Ok((epoll()?, Some(String::from("driver: epoll, as configured")))),
        Driver::IoUring => match Loop::io_uring() {
            Ok(ring) => Ok(with_note(ring)),
            Err(error) => Err(format!(
                "io_uring is refused here ({error}); use driver = \"auto\" or \"epoll\""
            )),
        },
        Driver::Auto => match Loop::io_uring() {
            Ok(ring) => Ok(with_note(ring)),
            Err(error) => {
                Ok((epoll()?, Some(format!("driver: epoll, since io_uring is refused ({error})"))))
            }
        },
    }
}

fn with_note(ring: Loop) -> (Loop, Option<String>) {
    let note = match ring.engine() {
        Engine::IoUring { flags } => format!("driver: io_uring ({flags})"),
        Engine::Epoll => String::from("driver: epoll"),
    };
    (ring, Some(note))
}

/// Different for each core and start: what request ids are made from. Not a secret.
fn seed(id: CoreId) -> u64 {
    let wall = crate::rt::uring::wall().0;
    let process = u64::from(std::process::id());
    (wall << 20) ^ (process << 8) ^ u64::from(id.0) ^ crate::rt::uring::now().0.rotate_left(40)
}
