//! The life of a gateway in this process: config, snapshot, resolver, cores, drain.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::app::sockets::Given;
use crate::app::worker::{self, Workers};
use crate::app::{machine, resolver, say, tokens};
use crate::base::tick::Ms;
use crate::config::{self, Config, Problem, Ref};
use crate::net::beacon::Level;
use crate::net::core::{Shared, Snapshot};
use crate::net::names::Names;
use crate::net::watch::Watch;
use crate::route;

/// How long the start waits for names to resolve, and for tokens; both go on afterwards.
const FIRST_ROUND: Duration = Duration::from_secs(3);
/// How long the listeners may take to empty their queues.
const LET_GO: Duration = Duration::from_secs(3);

/// Where a config came from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// A file.
    File(PathBuf),
    /// The usual key variables.
    Environment,
    /// Neither: the built-in sandbox providers.
    Sandbox,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::File(path) => write!(f, "{}", path.display()),
            Origin::Environment => f.write_str("the environment's key variables"),
            Origin::Sandbox => f.write_str("the built-in sandbox providers"),
        }
    }
}

/// Resolves `env:NAME` and `file:PATH`; relative paths are taken from the config file's folder.
pub fn lookup(base: Option<&Path>) -> impl Fn(&Ref) -> Result<Vec<u8>, String> + '_ {
    move |reference| {
        let mut bytes = match reference {
            Ref::Env(name) => match std::env::var_os(name) {
                Some(value) if !value.is_empty() => {
                    std::os::unix::ffi::OsStringExt::into_vec(value)
                }
                Some(_) => return Err(format!("the variable {name} is empty")),
                None => return Err(format!("the variable {name} is not set")),
            },
            Ref::File(path) => {
                let path = base.map_or_else(|| PathBuf::from(path), |base| base.join(path));
                std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?
            }
        };
        while matches!(bytes.last(), Some(b'\n' | b'\r')) {
            bytes.pop();
        }
        Ok(bytes)
    }
}

/// Reads and checks a config file.
///
/// # Errors
/// Every problem of it; a file that can't be read is one.
pub fn load(path: &Path) -> Result<Config, Vec<Problem>> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        vec![Problem {
            line: None,
            path: path.display().to_string(),
            what: format!("can't be read: {error}"),
            hint: String::from("give the path of a config file with -c"),
        }]
    })?;
    config::load(&text, &lookup(path.parent()))
}

/// A running gateway.
pub struct Gateway {
    /// What its cores share.
    pub shared: Arc<Shared>,
    /// Where clients connect.
    pub addresses: Vec<SocketAddr>,
    /// Where its config came from.
    pub origin: Origin,
    /// Its cores.
    pub workers: Workers,
    /// The threads that may block.
    pub aside: Arc<Aside>,
}

impl Gateway {
    /// Sets up the cores of a config, with the listeners that another process passed. They take no
    /// connection before `workers.open`.
    ///
    /// # Errors
    /// What can't be compiled, connected to or listened on, in words.
    pub fn start(
        config: &Config,
        origin: Origin,
        given: &mut Vec<Given>,
        watch: impl FnOnce(&route::Table) -> Result<Arc<dyn Watch>, String>,
    ) -> Result<Gateway, String> {
        let snapshot = compile(config, None).map_err(|problems| lines(&problems))?;
        let watch = watch(&snapshot.table)?;
        let shared = Arc::new(Shared::new(snapshot, Names::default(), watch));
        let aside = Arc::new(Aside::default());
        aside.start(RESOLVER, &shared, resolver::run)?;
        aside.start(MEMORY, &shared, machine::watch_memory)?;
        aside.start_for(config, &shared)?;
        let plan = worker::Plan {
            cores: config.server.cores,
            driver: config.server.driver,
            listen: config.server.listen.clone(),
        };
        let workers = worker::start(&plan, given, &shared, say::log)?;
        Ok(Gateway { addresses: workers.addresses.clone(), shared, origin, workers, aside })
    }

    /// Drains: `/readyz` says no first, then no new connections, exchanges go on up to `server.drain`, then
    /// they are cut. `hurry` is asked now and then whether to cut at once.
    pub fn drain(self, hurry: impl Fn() -> bool) {
        let server = self.shared.snapshot().server.clone();
        let time = |ms: Ms| Duration::from_millis(u64::from(ms.0));
        self.workers.health.leaving.store(true, Ordering::SeqCst);
        if !self.shared.is_handed_on() {
            if let Some(notice) = server.drain_notice {
                wait_until(time(notice), &hurry);
            }
            self.workers.sockets.refuse_new();
        }
        self.shared.raise(Level::Draining);
        let began = Instant::now();
        wait_until(LET_GO, || self.shared.listening() == 0 || hurry());
        self.workers.sockets.close();
        let left = time(server.drain).saturating_sub(began.elapsed());
        wait_until(left, || self.workers.are_done() || hurry());
        self.shared.raise(Level::Stopping);
        self.workers.join();
        self.aside.end();
    }
}

/// Waits until something holds, at most so long.
fn wait_until(most: Duration, holds: impl Fn() -> bool) {
    let until = Instant::now() + most;
    while !holds() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Compiles a config whole: tables, accounts, TLS on both sides. What is the same in `previous` goes on.
///
/// # Errors
/// Everything that can't be used.
pub fn compile(config: &Config, previous: Option<&Snapshot>) -> Result<Snapshot, Vec<Problem>> {
    let mut problems = tokens::check(config).err().unwrap_or_default();
    let compiled = route::compile(config, previous.map(|old| &old.table));
    let (server, keys) = (machine::fitted(&config.server, say::log), config.auth.clone());
    let made = compiled.and_then(|table| match previous {
        None => Snapshot::new(1, server, keys, table),
        Some(old) => old.next(server, keys, table),
    });
    match made {
        Ok(snapshot) if problems.is_empty() => Ok(snapshot),
        Ok(_) => Err(problems),
        Err(more) => {
            problems.extend(more);
            Err(problems)
        }
    }
}

/// What runs on a thread that may block: until the receiver's other end is dropped, and calls back after
/// its first round.
type Run = fn(&Arc<Shared>, &Receiver<()>, Box<dyn FnOnce() + Send>, fn(&str));

const RESOLVER: &str = "resolver";
const MEMORY: &str = "memory";
const TOKENS: &str = "tokens";

/// What ends such a thread when it is dropped, and the thread.
type Running = (Sender<()>, JoinHandle<()>);

/// The threads that may block: the resolver, and that of tokens where there are any.
#[derive(Default)]
pub struct Aside {
    threads: Mutex<BTreeMap<&'static str, Running>>,
}

impl Aside {
    fn threads(&self) -> MutexGuard<'_, BTreeMap<&'static str, Running>> {
        self.threads.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Starts what a config needs and is not there yet.
    ///
    /// # Errors
    /// The thread can't be started, in words.
    pub fn start_for(&self, config: &Config, shared: &Arc<Shared>) -> Result<(), String> {
        if tokens::are_needed(config) && !self.threads().contains_key(TOKENS) {
            self.start(TOKENS, shared, tokens::run)?;
        }
        Ok(())
    }

    /// Starts a thread and waits a moment for its first round.
    fn start(&self, name: &'static str, shared: &Arc<Shared>, run: Run) -> Result<(), String> {
        let (quit, quitting) = channel();
        let (tell, told) = channel();
        let shared = shared.clone();
        let ready = Box::new(move || {
            // Nobody waits any more once the start has gone on without it.
            let _ = tell.send(());
        });
        let thread = std::thread::Builder::new()
            .name(String::from(name))
            .spawn(move || run(&shared, &quitting, ready, say::log))
            .map_err(|error| format!("the thread {name} can't be started: {error}"))?;
        if told.recv_timeout(FIRST_ROUND).is_err() {
            say::log(&format!("the first round of {name} is not over yet; it goes on"));
        }
        self.threads().insert(name, (quit, thread));
        Ok(())
    }

    fn end(&self) {
        for (_, (quit, thread)) in std::mem::take(&mut *self.threads()) {
            drop(quit);
            // It may hang in what blocks; the process ends without it.
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

/// Problems, a line each.
pub fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
