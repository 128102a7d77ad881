//! The life of a gateway in this process: config, snapshot, resolver, cores, admin listener, drain.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::app::worker::{self, Workers};
use crate::app::{machine, resolver, say, tokens};
use crate::config::{self, Config, Problem, Ref};
use crate::net::beacon::Level;
use crate::net::core::{Shared, Snapshot};
use crate::net::names::Names;
use crate::net::watch::Watch;
use crate::route;

/// How long the start waits for names to resolve, and for tokens; both go on afterwards.
const FIRST_ROUND: Duration = Duration::from_secs(3);

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
    drain: Duration,
    /// The threads that may block: resolver, and tokens where there are any.
    aside: Vec<(Sender<()>, JoinHandle<()>)>,
}

impl Gateway {
    /// Starts the cores of a config.
    ///
    /// # Errors
    /// What can't be compiled, connected to or listened on, in words.
    pub fn start(
        config: &Config,
        origin: Origin,
        watch: impl FnOnce(&route::Table) -> Result<Arc<dyn Watch>, String>,
    ) -> Result<Gateway, String> {
        tokens::check(config).map_err(|problems| lines(&problems))?;
        let table = route::compile(config, None).map_err(|problems| lines(&problems))?;
        let watch = watch(&table)?;
        let server = machine::fitted(&config.server, say::log);
        let snapshot = Snapshot::new(1, server, config.auth.clone(), table)?;
        let shared = Arc::new(Shared::new(snapshot, Names::default(), watch));
        let mut aside = vec![
            start_aside("resolver", &shared, resolver::run)?,
            start_aside("memory", &shared, machine::watch_memory)?,
        ];
        if tokens::are_needed(config) {
            aside.push(start_aside("tokens", &shared, tokens::run)?);
        }
        let plan = worker::Plan {
            cores: config.server.cores,
            driver: config.server.driver,
            listen: config.server.listen.clone(),
        };
        let workers = worker::start(&plan, &shared, say::log)?;
        Ok(Gateway {
            addresses: workers.addresses.clone(),
            shared,
            origin,
            workers,
            drain: Duration::from_millis(u64::from(config.server.drain.0)),
            aside,
        })
    }

    /// Drains: no new connections, exchanges go on up to `server.drain`, then they are cut. `hurry`
    /// is asked now and then whether to cut at once.
    pub fn drain(mut self, hurry: impl Fn() -> bool) {
        self.shared.raise(Level::Draining);
        self.workers.close();
        let until = Instant::now() + self.drain;
        while !self.workers.are_done() && Instant::now() < until && !hurry() {
            std::thread::sleep(Duration::from_millis(10));
        }
        self.shared.raise(Level::Stopping);
        self.workers.join();
        for (quit, thread) in self.aside.drain(..) {
            drop(quit);
            // It may hang in what blocks; the process ends without it.
            if thread.is_finished() {
                let _ = thread.join();
            }
        }
    }
}

/// What runs on a thread that may block: until the receiver's other end is dropped, and calls back after
/// its first round.
type Aside = fn(&Arc<Shared>, &Receiver<()>, Box<dyn FnOnce() + Send>, fn(&str));

/// Starts such a thread and waits a moment for its first round.
fn start_aside(
    name: &'static str,
    shared: &Arc<Shared>,
    run: Aside,
) -> Result<(Sender<()>, JoinHandle<()>), String> {
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
    Ok((quit, thread))
}

/// Problems, a line each.
pub fn lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
