//! Another config for a running process: read, checked and compiled whole, then published in one step or
//! not at all.
//!
//! Exchanges that run keep the snapshot that they began with. What is the same in both goes on: breakers,
//! cool-downs, budgets, tokens, idle connections, sessions that can be resumed. Names that are new are
//! resolved, and new accounts' tokens fetched, before the first request can meet them.
//!
//! Listeners, cores, driver and the ledger's place are set up once; a file that changes them is taken in
//! for the rest, and told so.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::app::control::{self, Origin};
use crate::app::{resolver, say, tokens};
use crate::config::{Config, Driver, LedgerTo, Problem};
use crate::net::beacon::Level;
use crate::net::core::Shared;

/// How long a reload waits for new names and tokens; both go on afterwards.
const PRIME: Duration = Duration::from_secs(3);

/// What a process was started with and can't change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fixed {
    listen: Vec<SocketAddr>,
    admin: Option<SocketAddr>,
    cores: u16,
    driver: Driver,
    ledger: LedgerTo,
}

impl Fixed {
    /// Of a config.
    pub fn of(config: &Config) -> Fixed {
        Fixed {
            listen: config.server.listen.clone(),
            admin: config.server.admin,
            cores: config.server.cores,
            driver: config.server.driver,
            ledger: config.log.ledger.clone(),
        }
    }

    /// What another one would have to change.
    fn differences(&self, other: &Fixed) -> Vec<&'static str> {
        [
            ("server.listen", self.listen != other.listen),
            ("server.admin", self.admin != other.admin),
            ("server.cores", self.cores != other.cores),
            ("server.driver", self.driver != other.driver),
            ("log.ledger", self.ledger != other.ledger),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
    }
}

/// A reload that was taken in.
#[derive(Debug)]
pub struct Done {
    /// Of the snapshot that is now in force.
    pub generation: u64,
    /// Keys whose change needs a restart.
    pub needs_restart: Vec<&'static str>,
}

/// Reloads the config of one process.
pub struct Reloader {
    shared: Arc<Shared>,
    origin: Origin,
    fixed: Fixed,
    /// Where clients connect.
    addresses: Vec<SocketAddr>,
    aside: Arc<control::Aside>,
    /// One at a time.
    turn: Mutex<()>,
}

impl Reloader {
    /// For a process that serves `addresses`.
    pub fn new(
        shared: Arc<Shared>,
        origin: Origin,
        fixed: Fixed,
        addresses: Vec<SocketAddr>,
        aside: Arc<control::Aside>,
    ) -> Reloader {
        Reloader { shared, origin, fixed, addresses, aside, turn: Mutex::new(()) }
    }

    /// Reloads, and tells the log how it went.
    ///
    /// # Errors
    /// Everything that is wrong with the file; nothing has changed then.
    pub fn run(&self) -> Result<Done, Vec<Problem>> {
        let _turn = self.turn.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let done = self.reload();
        self.shared.watch.reloaded(done.is_ok());
        match &done {
            Ok(done) => {
                say::log(&format!("reloaded {}: generation {}", self.origin, done.generation));
                for key in &done.needs_restart {
                    say::log(&format!("{key} can't change by a reload; it stays until a restart"));
                }
            }
            Err(problems) => {
                let generation = self.shared.snapshot().generation;
                say::log(&format!(
                    "{} is not taken in, generation {generation} goes on:\n{}",
                    self.origin,
                    control::lines(problems)
                ));
            }
        }
        done
    }

    fn reload(&self) -> Result<Done, Vec<Problem>> {
        if self.shared.level() > Level::Running {
            return Err(whole("this process is about to end", "ask its successor"));
        }
        let Origin::File(path) = &self.origin else {
            return Err(whole("the config is from no file", "start with -c FILE to reload it"));
        };
        let config = self.read(path)?;
        let current = self.shared.snapshot();
        let snapshot = control::compile(&config, Some(&current))?;
        drop(current);
        self.aside.start_for(&config, &self.shared).map_err(|why| whole(&why, ""))?;
        let (tell, told) = channel();
        let (shared, snapshot) = (self.shared.clone(), Arc::new(snapshot));
        let coming = snapshot.clone();
        let prime = move || {
            resolver::prime(&shared, &coming.table, say::log);
            tokens::prime(&coming.table, say::log);
            // Nobody waits any more once the reload has gone on without it.
            let _ = tell.send(());
        };
        // Without the thread, what is new is found a moment later.
        let started = std::thread::Builder::new().name(String::from("prime")).spawn(prime);
        let _ = started.map(|_| told.recv_timeout(PRIME));
        let generation = snapshot.generation;
        self.shared.publish_shared(snapshot);
        let needs_restart = self.fixed.differences(&Fixed::of(&config));
        Ok(Done { generation, needs_restart })
    }

    fn read(&self, path: &Path) -> Result<Config, Vec<Problem>> {
        let config = control::load(path)?;
        let open = self.addresses.iter().find(|address| !address.ip().is_loopback());
        if let (true, Some(address)) = (config.auth.is_empty(), open) {
            let what = format!("{address} is listened on, is not loopback, and there is no [auth]");
            let hint = String::from("keep [auth], or restart with other addresses");
            let path = String::from("auth");
            return Err(vec![Problem { line: None, path, what, hint }]);
        }
        Ok(config)
    }
}

fn whole(what: &str, hint: &str) -> Vec<Problem> {
    let path = String::new();
    vec![Problem { line: None, path, what: what.to_owned(), hint: hint.to_owned() }]
}
