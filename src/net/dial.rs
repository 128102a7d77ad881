//! From an endpoint to a usable connection: addresses in turn, TCP, TLS handshake. The deadline is the
//! exchange's: a dial that takes too long is dropped, and its socket with it.
//!
//! A name that leads to an address of the host's own surroundings, as the one that tells a cloud's
//! credentials, is not followed there: such an address has to be written in the config.
//!
//! Dropping a handshake drops a read that is under way. That loses bytes of a connection that is being
//! given up, which is what is wanted here and nowhere else.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use crate::base::buf::Buf;
use crate::base::fail::Fault;
use crate::base::ids::EndpointId;
use crate::base::limits;
use crate::base::tick::Tick;
use crate::net::core::{Shared, Snapshot};
use crate::net::tls;
use crate::rt::{Reader as _, Rt, Stop as _, Watching, Writer as _, is_exhausted};

/// A connection to a provider.
pub struct Conn<R: Rt> {
    /// The receiving half.
    pub reader: R::Reader,
    /// The sending half.
    pub writer: R::Writer,
    /// TLS, if the endpoint speaks it.
    pub tls: Option<Box<tls::Session>>,
    /// Says when there is something to read: an answer, or the end of an idle connection.
    pub watch: Watching,
}

impl<R: Rt> Conn<R> {
    /// Completes when there is something to read.
    pub fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watch.poll(cx)
    }
}

/// Connects to an endpoint. `give_up` is when the caller will drop this: it divides the time among the
/// addresses.
///
/// # Errors
/// The fault of the last address that was tried.
pub async fn dial<R: Rt>(
    rt: R,
    shared: Arc<Shared>,
    snapshot: Arc<Snapshot>,
    endpoint: EndpointId,
    give_up: Tick,
) -> Result<Conn<R>, Fault> {
    let row = &snapshot.table.endpoints[endpoint];
    let (addresses, left_out) = shared.names.dialable(&row.host, row.port);
    let mut fault = if left_out { Fault::Address } else { Fault::Dns };
    for (index, address) in addresses.iter().enumerate() {
        let left = (addresses.len() - index) as u64;
        let share = give_up.since(rt.now()) / left;
        let until = if left == 1 { Tick::NEVER } else { Tick(rt.now().0.saturating_add(share)) };
        match tcp(&rt, *address, until).await {
            Ok((reader, writer)) => {
                let watch = reader.watching();
                let mut conn = Conn { reader, writer, tls: None, watch };
                if let Some(profile) = &snapshot.tls[endpoint] {
                    conn.tls = Some(Box::new(profile.session()?));
                    handshake::<R>(&mut conn).await?;
                }
                return Ok(conn);
            }
            Err(error) => fault = fault_of(&error),
        }
    }
    Err(fault)
}

async fn tcp<R: Rt>(
    rt: &R,
    address: std::net::SocketAddr,
    until: Tick,
) -> io::Result<(R::Reader, R::Writer)> {
    let mut dial = std::pin::pin!(rt.dial(address));
    let mut timer = std::pin::pin!(rt.sleep_until(until));
    std::future::poll_fn(|cx| {
        use std::future::Future as _;
        use std::task::Poll;
        if let Poll::Ready(done) = dial.as_mut().poll(cx) {
            return Poll::Ready(done);
        }
        timer.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    })
    .await
}

async fn handshake<R: Rt>(conn: &mut Conn<R>) -> Result<(), Fault> {
    let Some(session) = &mut conn.tls else { return Ok(()) };
    let stop = R::Stop::new();
    let (mut cipher, mut plain) = (Buf::new(), Buf::new());
    loop {
        let mut out = Buf::new();
        session.flush(&mut out)?;
        while !out.is_empty() {
            let (result, rest) = conn.writer.write(out, stop.handle()).await;
            out = rest;
            out.consume(result.map_err(|_| Fault::Tls)?);
        }
        if !session.is_handshaking() {
            return Ok(());
        }
        cipher.reserve(limits::READ_BYTES_MIN);
        let (result, received) = conn.reader.read(cipher, stop.handle()).await;
        cipher = received;
        if result.map_err(|_| Fault::Tls)? == 0 {
            return Err(Fault::Tls);
        }
        session.open(&mut cipher, &mut plain)?;
    }
}

/// What a connect error means.
fn fault_of(error: &io::Error) -> Fault {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => Fault::Refused,
        io::ErrorKind::TimedOut => Fault::ConnectTimeout,
        io::ErrorKind::ConnectionReset => Fault::Reset,
        _ if is_exhausted(error) => Fault::NoDescriptor,
        _ => Fault::Connect,
    }
}
