//! The listening sockets of the process: where they come from, which core takes which, how they close.
//!
//! An address usually has one socket for each core (SO_REUSEPORT), so that the kernel spreads the
//! connections. Sockets that another process passes on are taken as they are: fewer than cores are shared
//! by several, more are spread over them. They are kept here beside the duplicates of the cores, so
//! that connections wait in the kernel's queue while a core comes back.
//!
//! A process that was killed leaves its sockets to the kernel for as long as a ring still has operations on
//! them; with SO_REUSEPORT such a dying socket would take connections beside ours and reset them. So an
//! address is bound only once nobody else has it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, SockFilter, SockRef, Socket, Type};

use crate::app::{descriptors, say};
use crate::base::limits;
use crate::rt::uring;

/// How long an address may be in use by another before the start fails. A dying ring takes milliseconds.
const FREE_MAX: Duration = Duration::from_secs(5);
/// How often it is looked at meanwhile.
const FREE_LOOK: Duration = Duration::from_millis(1);
/// When the wait is told.
const FREE_TOLD: Duration = Duration::from_millis(500);

/// A listening socket of another process.
pub struct Given {
    listener: TcpListener,
    address: SocketAddr,
    /// Whether it lives on without this process: the service manager's.
    kept: bool,
}

impl Given {
    /// Takes a descriptor that should be a listening TCP socket.
    ///
    /// # Errors
    /// It is something else.
    pub fn new(descriptor: OwnedFd, kept: bool) -> Result<Given, String> {
        let listener = TcpListener::from(descriptor);
        // Of a listening socket this is its backlog; nothing but a TCP socket can be one.
        let listens = SockRef::from(&listener).listen(uring::BACKLOG).is_ok();
        match listener.local_addr() {
            Ok(address) if listens => Ok(Given { listener, address, kept }),
            Ok(_) | Err(_) => Err(String::from("a passed socket is no TCP listener")),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// The sockets that the service manager passed.
///
/// # Errors
/// It passed something else, in words.
pub fn activated() -> Result<Vec<Given>, String> {
    descriptors::inherited()?.into_iter().map(|one| Given::new(one, true)).collect()
}

/// The sockets of one address.
struct Row {
    listeners: Vec<TcpListener>,
    kept: bool,
}

/// The sockets that clients connect to.
#[derive(Default)]
pub struct Sockets {
    rows: Mutex<Vec<Row>>,
}

impl Sockets {
    /// Takes what was passed for these addresses, and listens on the others, once for each core. What is
    /// left in `given` is of no use here.
    ///
    /// # Errors
    /// An address that can't be listened on, in words.
    pub fn open(
        addresses: &[SocketAddr],
        cores: usize,
        given: &mut Vec<Given>,
    ) -> Result<Sockets, String> {
        let mut rows = Vec::new();
        for address in addresses {
            let own: Vec<Given> = given.extract_if(.., |one| one.address == *address).collect();
            let kept = own.iter().any(|one| one.kept);
            let listeners = if own.is_empty() {
                listen(*address, cores)?
            } else {
                own.into_iter().map(|one| one.listener).collect()
            };
            for listener in &listeners {
                // Also for those that somebody else has opened; see `uring::listen`.
                let _ = SockRef::from(listener).set_tcp_notsent_lowat(limits::UNSENT_BYTES_MAX);
            }
            rows.push(Row { listeners, kept });
        }
        Ok(Sockets { rows: Mutex::new(rows) })
    }

    fn rows(&self) -> MutexGuard<'_, Vec<Row>> {
        self.rows.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The addresses, with the ports that the kernel gave.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let rows = self.rows();
        rows.iter().filter_map(|row| row.listeners.first()?.local_addr().ok()).collect()
    }

    /// Duplicates of what a core takes connections from; none once this is closed.
    pub fn of_core(&self, core: usize, cores: usize) -> Vec<TcpListener> {
        let mut list = Vec::new();
        for row in self.rows().iter() {
            let count = row.listeners.len();
            let own: Vec<usize> = if count < cores {
                (0..count).filter(|at| *at == core % count).collect()
            } else {
                (0..count).filter(|at| at % cores == core).collect()
            };
            list.extend(own.iter().filter_map(|at| row.listeners[*at].try_clone().ok()));
        }
        list
    }

    /// Duplicates of all of them, and whether the service manager keeps them, for another process.
    pub fn pass_on(&self) -> Vec<(TcpListener, bool)> {
        let rows = self.rows();
        let all = rows.iter().flat_map(|row| row.listeners.iter().map(|one| (one, row.kept)));
        all.filter_map(|(one, kept)| Some((one.try_clone().ok()?, kept))).collect()
    }

    /// Lets no further connection begin: from now on its first packet is not answered, and sent again
    /// a second later. What is on its way here still arrives, so a queue can be emptied and closed with
    /// nothing lost. Sockets that live on without us stay as they are.
    pub fn refuse_new(&self) {
        // Load the byte of flags; SYN without ACK is dropped; anything else passes whole.
        let filter = [
            SockFilter::new(0x30, 0, 0, 13),
            SockFilter::new(0x54, 0, 0, 0x12),
            SockFilter::new(0x15, 0, 1, 0x02),
            SockFilter::new(0x06, 0, 0, 0),
            SockFilter::new(0x06, 0, 0, u32::MAX),
        ];
        for row in self.rows().iter().filter(|row| !row.kept) {
            for listener in &row.listeners {
                // Where filters are forbidden, what comes between the last look and the end is reset.
                let _ = SockRef::from(listener).attach_filter(&filter);
            }
        }
    }

    /// Closes what is held here. The cores close their duplicates themselves.
    pub fn close(&self) {
        self.rows().clear();
    }
}

fn listen(address: SocketAddr, cores: usize) -> Result<Vec<TcpListener>, String> {
    let refused = |error| format!("can't listen on {address}: {error}");
    when_free(address, || probe(address)).map_err(refused)?;
    let mut list = Vec::new();
    let mut at = address;
    for _ in 0..cores {
        let listener = uring::listen(at).map_err(refused)?;
        // The first one settles the port for the others.
        at = listener.local_addr().unwrap_or(at);
        list.push(listener);
    }
    Ok(list)
}

/// The socket of the admin listener: one that was passed, or a new one.
///
/// # Errors
/// The kernel's.
pub fn admin(address: SocketAddr, given: &mut Vec<Given>) -> io::Result<TcpListener> {
    if let Some(at) = given.iter().position(|one| one.address == address) {
        return Ok(given.swap_remove(at).listener);
    }
    when_free(address, || TcpListener::bind(address))
}

/// Binds an address without sharing it, and lets it go again.
fn probe(address: SocketAddr) -> io::Result<()> {
    let domain = if address.is_ipv6() { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())
}

/// Tries until nobody else has the address, for a while.
fn when_free<T>(address: SocketAddr, bind: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let began = Instant::now();
    let mut told = false;
    loop {
        match bind() {
            Err(error)
                if error.kind() == io::ErrorKind::AddrInUse && began.elapsed() < FREE_MAX =>
            {
                if !told && began.elapsed() > FREE_TOLD {
                    told = true;
                    say::log(&format!("{address} is in use by another process; waiting for it"));
                }
                std::thread::sleep(FREE_LOOK);
            }
            bound => return bound,
        }
    }
}

#[cfg(test)]
mod tests;
