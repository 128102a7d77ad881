//! `serve` and `sandbox`: a process that runs until it is told to end.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use crate::app::admin;
use crate::app::cli::{Stop, configured};
use crate::app::control::{self, Gateway, Origin};
use crate::app::handover::{self, Estate, Predecessor};
use crate::app::machine;
use crate::app::metrics::Metrics;
use crate::app::reload::{Fixed, Reloader};
use crate::app::sandbox::{self, Sandbox};
use crate::app::say;
use crate::app::signals::Signals;
use crate::app::sockets::{self, Given};
use crate::config::{self, Config, LedgerTo};
use crate::net::watch::Watch;
use crate::rt::uring::{Engine, Loop};

/// Providers of the sandbox that stands in where nothing is configured.
const STAND_INS: usize = 2;

/// A gateway with its metrics and admin listener.
pub struct Running {
    /// The gateway.
    pub gateway: Gateway,
    /// Its counters.
    pub metrics: Arc<Metrics>,
    /// Where the admin listener is, if there is one.
    pub admin: Option<SocketAddr>,
    /// Takes another config.
    pub reloader: Arc<Reloader>,
    server: Option<Arc<admin::Server>>,
}

impl Running {
    /// Starts a gateway with all that belongs to it.
    ///
    /// # Errors
    /// What can't be listened on, opened or compiled, in words.
    pub fn start(config: &Config, origin: Origin) -> Result<Running, String> {
        Running::start_with(config, origin, Vec::new(), None)
    }

    /// As `start`, with listeners that another process passed, and has to let go before the first
    /// connection is taken if it is a predecessor.
    ///
    /// # Errors
    /// As `start`.
    pub fn start_with(
        config: &Config,
        origin: Origin,
        mut given: Vec<Given>,
        predecessor: Option<Predecessor>,
    ) -> Result<Running, String> {
        let activated = predecessor.is_none() && !given.is_empty();
        let mut made = None;
        let gateway = Gateway::start(config, origin, &mut given, |table| {
            let metrics = Metrics::start(&config.log.ledger, table)?;
            made = Some(metrics.clone());
            Ok(metrics as Arc<dyn Watch>)
        })?;
        let metrics = made.ok_or("the gateway made no metrics")?;
        let reloader = Arc::new(Reloader::new(
            gateway.shared.clone(),
            gateway.origin.clone(),
            Fixed::of(config),
            gateway.addresses.clone(),
            gateway.aside.clone(),
        ));
        let view = admin::View::new(&gateway, metrics.clone(), reloader.clone(), Instant::now());
        let listener = config.server.admin.map(|address| {
            sockets::admin(address, &mut given)
                .map_err(|error| format!("can't listen on {address} (server.admin): {error}"))
        });
        let listener = listener.transpose()?;
        if let (true, Some(left)) = (activated, given.first()) {
            let address = left.address();
            return Err(format!(
                "the service manager listens on {address}, which is neither server.listen nor server.admin"
            ));
        }
        if let Some(predecessor) = predecessor
            && !predecessor.take_over()
        {
            say::log("the process before this one did not say that it has let go; going on");
        }
        // From here on nothing fails that could leave the listeners without anybody.
        gateway.workers.open();
        let server = listener.map(|listener| admin::Server::start(listener, Arc::new(view)));
        let server = server.transpose()?.map(Arc::new);
        let admin = server.as_ref().map(|server| server.address());
        Ok(Running { gateway, metrics, admin, reloader, server })
    }

    /// What a successor of this process gets.
    pub fn estate(&self) -> Estate {
        Estate {
            shared: self.gateway.shared.clone(),
            sockets: self.gateway.workers.sockets.clone(),
            admin: self.server.clone(),
        }
    }

    /// Drains and ends; see [`Gateway::drain`].
    pub fn end(self, hurry: impl Fn() -> bool) {
        self.gateway.drain(hurry);
        if let Some(server) = &self.server {
            server.pause();
        }
        self.metrics.flush();
    }
}

/// `firstbyte serve`.
///
/// # Errors
/// See [`Stop`].
pub fn run(path: Option<&Path>, handover: Option<&Path>) -> Result<(), Stop> {
    let signals = Signals::watch().map_err(Stop::failed)?;
    machine::raise_descriptors();
    machine::refuse_huge_pages();
    let activated = sockets::activated().map_err(Stop::failed)?;
    let (config, origin, sandbox) = match configured(path)? {
        Some((config, origin)) => (config, origin, None),
        None => {
            let sandbox = Sandbox::start(STAND_INS).map_err(no_sandbox)?;
            let config = sandbox_config(&sandbox.addrs)?;
            say::log(
                "no config file and no key variable (OPENAI_API_KEY, ANTHROPIC_API_KEY and the like): SANDBOX providers answer",
            );
            (config, Origin::Sandbox, Some(sandbox))
        }
    };
    // What is wrong with the config shall not cost the process before this one anything.
    control::compile(&config, None).map_err(|found| Stop::config(&origin.to_string(), &found))?;
    let asked = handover.map(handover::ask).transpose().map_err(Stop::failed)?.flatten();
    let (predecessor, given) = match asked {
        Some((predecessor, given)) => (Some(predecessor), given),
        None => (None, activated),
    };
    let running = Running::start_with(&config, origin, given, predecessor).map_err(Stop::failed)?;
    if let Some(path) = handover {
        handover::wait(path, running.estate()).map_err(Stop::failed)?;
    }
    announce(&running);
    let shared = running.gateway.shared.clone();
    let mut reloads = 0;
    signals.wait_while(|| {
        if signals.reloads() > reloads {
            reloads = signals.reloads();
            // What is wrong with it stands in the log.
            let _ = running.reloader.run();
        }
        !shared.is_handed_on()
    });
    let drain = shared.snapshot().server.drain;
    say::log(&format!("draining for up to {drain}; a second signal ends at once"));
    let ends = if shared.is_handed_on() { 0 } else { 1 };
    running.end(|| signals.ends() > ends);
    drop(sandbox);
    say::log("ended");
    Ok(())
}

fn announce(running: &Running) {
    let gateway = &running.gateway;
    let engines = &gateway.workers.engines;
    let rings = engines.iter().filter(|engine| matches!(engine, Engine::IoUring { .. })).count();
    say::log(&format!(
        "{} cores ({rings} on io_uring), config from {}",
        engines.len(),
        gateway.origin
    ));
    let snapshot = gateway.shared.snapshot();
    let names: Vec<_> = snapshot.table.model_names().take(12).map(|name| &**name).collect();
    say::log(&format!("models: {}", names.join(", ")));
    if let Some(admin) = running.admin {
        say::log(&format!(
            "admin on http://{admin} (/metrics /status /readyz /livez /plan /reload)"
        ));
    }
    let scheme = if snapshot.client_tls.is_some() { "https" } else { "http" };
    for address in &gateway.addresses {
        say::log(&format!("listening on {scheme}://{address}/v1"));
    }
}

/// `firstbyte sandbox`.
///
/// # Errors
/// See [`Stop`].
pub fn sandbox(listen: SocketAddr, providers: u8) -> Result<(), Stop> {
    let signals = Signals::watch().map_err(Stop::failed)?;
    let sandbox = start_at(listen, usize::from(providers)).map_err(no_sandbox)?;
    for (name, address) in ('a'..='z').zip(&sandbox.addrs) {
        say::line(&format!("provider {name} on http://{address}/v1"));
    }
    say::log("the model's name says how a provider behaves; see firstbyte sandbox --help");
    signals.wait();
    Ok(())
}

/// What to say when the sandbox does not start.
pub fn no_sandbox(error: std::io::Error) -> Stop {
    Stop::failed(format!("the sandbox providers can't be started: {error}"))
}

/// Providers at `first` and the ports that follow; all on ports of the kernel's choice for port 0.
fn start_at(first: SocketAddr, count: usize) -> std::io::Result<Sandbox> {
    let mut listeners = Vec::new();
    for index in 0..count as u16 {
        let mut address = first;
        if first.port() != 0 {
            let port = first.port().checked_add(index);
            address.set_port(port.ok_or_else(|| std::io::Error::other("no port is left"))?);
        }
        listeners.push(sandbox::listen(address)?);
    }
    Sandbox::start_with(listeners, || Loop::io_uring().or_else(|_| Loop::epoll()))
}

/// The config that goes with sandbox providers: `demo` fails over from the first to the second.
///
/// # Errors
/// Never, unless the text below is wrong.
pub fn sandbox_config(providers: &[SocketAddr]) -> Result<Config, Stop> {
    let mut text = String::new();
    for (name, address) in ('a'..='z').zip(providers) {
        // Writing to a String can't fail.
        let _ = writeln!(
            text,
            "[providers.sandbox-{name}]\nkind = \"openai\"\nbase_url = \"http://{address}/v1\"\n"
        );
    }
    text += "[models.demo]\ntargets = [\"sandbox-a/503\", \"sandbox-b/ok,delay=60ms\"]\n\
             [models.ok]\ntargets = [\"sandbox-a/ok\", \"sandbox-b/ok\"]\n\
             [models.cut]\ntargets = [\"sandbox-a/cut_event=4,how=rst\", \"sandbox-b/ok\"]\n\
             [models.down]\ntargets = [\"sandbox-a/503\", \"sandbox-b/reset\"]\n";
    config::load(&text, &|_| Err(String::from("no references")))
        .map_err(|problems| Stop::config("the built-in sandbox config", &problems))
}

/// A sandbox config on free ports with a silent ledger, for `demo`.
///
/// # Errors
/// As `sandbox_config`.
pub fn demo_config(providers: &[SocketAddr]) -> Result<Config, Stop> {
    let mut config = sandbox_config(providers)?;
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    config.server.listen = vec![anywhere];
    config.server.admin = Some(anywhere);
    config.log.ledger = LedgerTo::Off;
    Ok(config)
}
