//! Sandbox providers: they speak every provider's format (`formats`) over real sockets and misbehave on
//! command. The demo, `serve` without a config, the tests and the load runs use them.
//!
//! What a provider does is written in the *name of the model* it is asked for (`script`), so it holds
//! no state and two requests never disturb each other. The one exception is for flapping providers:
//! `PUT /_sandbox/script` changes what the plain name `ok` does. What it saw, and when, is in its log
//! (`log`). A connection (`serve`) is generic in the runtime, so the same provider answers on the
//! ring, on epoll and in the simulator.
//!
//! ```text
//! model "ok"        -> data: {.. "content":"Hello from sandbox b." ..}   (the text names the provider)
//! model "503"       -> HTTP/1.1 503 Service Unavailable
//! model "cut_byte=7"-> HTTP/1.                                           and the connection ends
//! ```
//!
//! Its HTTP reading is its own, not that of `wire`: a mistake can't hide on both sides of a socket.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc;
use std::thread::JoinHandle;

use crate::base::tick::Ms;
use crate::rt::uring::{Engine, Loop, MonoListener};
use crate::rt::{Accept as _, Rt, Stop as _};

mod act;
pub mod answer;
mod ask;
mod formats;
mod http;
pub mod log;
pub mod script;
mod serve;

pub use log::Provider;
pub use script::{GRAMMAR, Script};
pub use serve::{Site, serve_connection};

/// Running sandbox providers, on a thread of their own. Dropping it closes their sockets.
pub struct Sandbox {
    /// Where the providers listen: `a` first, then `b`, ...
    pub addrs: Vec<SocketAddr>,
    /// An address that is bound but not listened on: dialling it is refused.
    pub refusing: SocketAddr,
    providers: Vec<Arc<Provider>>,
    gate: SocketAddr,
    thread: Option<JoinHandle<()>>,
    /// Keeps the refusing address bound.
    _bound: socket2::Socket,
}

impl Sandbox {
    /// Starts `count` providers on loopback, on ports that the kernel picks: on io_uring where the
    /// kernel allows it, else on epoll.
    ///
    /// # Errors
    /// No socket, no thread or no event loop to be had.
    pub fn start(count: usize) -> io::Result<Sandbox> {
        Sandbox::start_on(count, || Loop::io_uring().or_else(|_| Loop::epoll()))
    }

    /// Starts `count` providers on the loop that `build` makes, on the sandbox's thread.
    ///
    /// # Errors
    /// No socket, no thread or no event loop to be had.
    pub fn start_on(
        count: usize,
        build: impl FnOnce() -> io::Result<Loop> + Send + 'static,
    ) -> io::Result<Sandbox> {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listeners = (0..count).map(|_| listen(any)).collect::<io::Result<Vec<_>>>()?;
        Sandbox::start_with(listeners, build)
    }

    /// Starts a provider on each of the listeners.
    ///
    /// # Errors
    /// No socket, no thread or no event loop to be had.
    pub fn start_with(
        listeners: Vec<TcpListener>,
        build: impl FnOnce() -> io::Result<Loop> + Send + 'static,
    ) -> io::Result<Sandbox> {
        let addrs =
            listeners.iter().map(TcpListener::local_addr).collect::<io::Result<Vec<_>>>()?;
        let providers: Vec<_> =
            (0..addrs.len()).map(|i| Arc::new(Provider::new(&name(i)))).collect();
        let gate = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let gate_addr = gate.local_addr()?;
        let (bound, refusing) = refusing()?;
        let sites: Vec<_> = listeners.into_iter().zip(providers.iter().cloned()).collect();
        let (tell, told) = mpsc::sync_channel(1);
        let thread = std::thread::Builder::new().name("sandbox".to_owned()).spawn(move || {
            let mut event_loop = match build() {
                Ok(event_loop) => event_loop,
                Err(error) => return drop(tell.send(Err(error))),
            };
            let engine = event_loop.engine();
            event_loop.run(|rt| async move { run(rt, engine, sites, gate, tell).await });
        })?;
        told.recv().unwrap_or_else(|_| Err(io::Error::other("the sandbox's thread ended")))?;
        let thread = Some(thread);
        Ok(Sandbox { addrs, refusing, providers, gate: gate_addr, thread, _bound: bound })
    }

    /// The provider `index`, 0 for `a`: its log, and what plain names do.
    pub fn provider(&self, index: usize) -> &Provider {
        &self.providers[index]
    }

    /// The `base_url` of provider `index`.
    pub fn base_url(&self, index: usize) -> String {
        format!("http://{}/v1", self.addrs[index])
    }

    /// A `base_url` whose dial is refused.
    pub fn refusing_url(&self) -> String {
        format!("http://{}/v1", self.refusing)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // A connection to the gate is the signal to end.
        let knocked = TcpStream::connect(self.gate);
        if let (Ok(_), Some(thread)) = (knocked, self.thread.take()) {
            let _ = thread.join();
        }
    }
}

/// The name of provider `index`: `a` to `z`, then `p26` and on.
pub fn name(index: usize) -> String {
    match u8::try_from(index) {
        Ok(small @ 0..26) => char::from(b'a' + small).to_string(),
        _ => format!("p{index}"),
    }
}

/// Binds a provider's listener, with a backlog for load runs.
///
/// # Errors
/// The kernel's: the address is taken or not ours.
pub fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(addr),
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

fn refusing() -> io::Result<(socket2::Socket, SocketAddr)> {
    let socket = socket2::Socket::new(
        socket2::Domain::IPV4,
        socket2::Type::STREAM,
        Some(socket2::Protocol::TCP),
    )?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    let addr = socket.local_addr()?.as_socket();
    let addr = addr.ok_or_else(|| io::Error::other("a bound socket without an address"))?;
    Ok((socket, addr))
}

type Told = mpsc::SyncSender<io::Result<()>>;

/// The loop's main task: accepts until somebody knocks at the gate, then ends every connection.
async fn run<R: Rt<Listener = MonoListener>>(
    rt: R,
    engine: Engine,
    sites: Vec<(TcpListener, Arc<Provider>)>,
    gate: TcpListener,
    tell: Told,
) where
    MonoListener: crate::rt::Accept<R>,
{
    let mut running = Vec::new();
    let take = |listener: TcpListener| MonoListener::from_std(listener, engine);
    let gate = match take(gate) {
        Ok(gate) => gate,
        Err(error) => return drop(tell.send(Err(error))),
    };
    for (listener, provider) in sites {
        let addr = listener.local_addr();
        match addr.and_then(|addr| Ok((take(listener)?, addr))) {
            Ok((listener, addr)) => running.push((listener, addr, Rc::new(Site::new(provider)))),
            Err(error) => return drop(tell.send(Err(error))),
        }
    }
    let mut sites = Vec::new();
    for (listener, addr, site) in running {
        sites.push((addr, site.clone()));
        rt.spawn(accept(rt.clone(), listener, site));
    }
    let _ = tell.send(Ok(()));
    let stop = R::Stop::new();
    let _ = gate.accept(stop.handle()).await;
    for (addr, site) in &sites {
        site.halt();
        // An accept is never dropped: a last connection completes it.
        drop(rt.dial(*addr).await);
    }
    while sites.iter().any(|(_, site)| !site.is_idle()) {
        rt.sleep_until(rt.now() + Ms(1)).await;
    }
}

/// Accepts for one provider; ends with the loop.
async fn accept<R: Rt>(rt: R, listener: R::Listener, site: Rc<Site>) {
    let stop = R::Stop::new();
    site.count(true);
    while !site.is_halted() {
        match listener.accept(stop.handle()).await {
            Ok((reader, writer, _)) => {
                rt.spawn(serve_connection(rt.clone(), reader, writer, site.clone()));
            }
            // Out of descriptors, or a connection that was gone already: the next one may do.
            Err(_) => rt.sleep_until(rt.now() + Ms(10)).await,
        }
    }
    site.count(false);
}

#[cfg(test)]
mod tests;
