//! The table of the laws, and what they are written with.
//!
//! A law may not depend on how long anything takes; where it waits for what the kernel does on its
//! own (a closed descriptor), it asks again until it is so.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;

use firstbyte::base::buf::Buf;
use firstbyte::base::tick::{Ms, Tick};
use firstbyte::rt::{Accept, Reader, Rt, Stop, Writer};

use crate::ends::*;
use crate::flow::*;

pub const EPIPE: i32 = 32;
pub const ECONNRESET: i32 = 104;
pub const ECONNREFUSED: i32 = 111;

/// What a law is tested in.
pub struct Bed<R: Rt> {
    pub rt: R,
    pub listener: R::Listener,
    /// Where `listener` listens.
    pub addr: SocketAddr,
    /// Where a dial is never answered.
    pub deaf: SocketAddr,
    /// Where a dial is refused.
    pub closed: SocketAddr,
    /// How many sockets are open.
    pub sockets: Rc<dyn Fn() -> usize>,
    /// How many were at the start.
    pub base: usize,
}

/// A law's future.
type Held = Pin<Box<dyn Future<Output = ()>>>;

/// A law, ready to be tested.
pub type Law<R> = Box<dyn FnOnce(Bed<R>) -> Held>;

/// One end of a connection.
pub type End<R> = (<R as Rt>::Reader, <R as Rt>::Writer);

fn law<R: Rt, F: Future<Output = ()> + 'static>(
    name: &'static str,
    test: impl FnOnce(Bed<R>) -> F + 'static,
) -> (&'static str, Law<R>) {
    (name, Box::new(move |bed| Box::pin(test(bed))))
}

/// All laws.
pub fn laws<R: Rt>() -> Vec<(&'static str, Law<R>)> {
    vec![
        law("a read appends at the tail", reads_append),
        law("a read takes at most the spare capacity", reads_fit),
        law("a read that does not wait takes what is there", tries_take_what_is_there),
        law("a write that does not wait sends what fits", tries_send_what_fits),
        law("a write says how much and consumes nothing", writes_say_how_much),
        law("a stopped write tells exactly what was sent", stopped_writes_are_exact),
        law("both directions wait at once", directions_are_independent),
        law("a parked write ends when the peer resets", parked_writes_see_resets),
        law("a stopped read gives back its buffer and loses nothing", stopped_reads_lose_nothing),
        law("a stop that races with data loses nothing", racing_stops_lose_nothing),
        law("a stopped handle stops what starts later, a new one does not", handles_are_spent),
        law("one stop ends all its operations", one_stop_ends_all),
        law("a wait for readiness can be dropped", waits_are_droppable),
        law("a wait wakes on data, end and reset", waits_wake),
        law("a watch can be awaited again", watches_go_on),
        law("a dropped wait closes the socket it kept", waits_let_go),
        law("a stopped accept leaks nothing", stopped_accepts_leak_nothing),
        law("an accept that is stopped while somebody dials leaks nothing", racing_accepts),
        law("a dial can be dropped and closes its socket", dials_are_droppable),
        law("a dial that nobody answers can be dropped", deaf_dials_are_droppable),
        law("a refused dial says so", refused_dials),
        law("an abort is a reset, a drop is an end", aborts_and_drops),
        law("an abort works beside a wait", aborts_beside_waits),
        law("a dropped writer ends one direction", half_close),
        law("bytes before a reset are read, its error is told once", resets_are_told_once),
        law("a write may take the error from the read", writes_take_the_error),
        law("closing with unread bytes resets", unread_bytes_reset),
        law("until gives the buffer back", until_gives_back),
        law("200 connections in flight do not mix", many_connections),
        law("what the peer has not taken is told", untaken_is_told),
        law("timers never fire early", timers_are_not_early),
        law("spawned tasks run", tasks_run),
    ]
}

// Tools.

/// For what may be dropped: none if `at` comes first.
pub async fn or_late<R: Rt, T>(rt: &R, at: Tick, op: impl Future<Output = T>) -> Option<T> {
    let mut op = pin!(op);
    let mut timer = pin!(rt.sleep_until(at));
    std::future::poll_fn(|cx| match op.as_mut().poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => timer.as_mut().poll(cx).map(|()| None),
    })
    .await
}

/// Polls once.
pub async fn once<T>(op: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
    std::future::poll_fn(|cx| match std::pin::Pin::new(&mut *op).poll(cx) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// Lets the driver run: what was submitted has then been seen by the kernel.
pub async fn turn<R: Rt>(rt: &R) {
    rt.sleep_until(rt.now() + Ms(1)).await;
}

impl<R: Rt> Bed<R> {
    /// The two ends of a new connection: the one that dialled first.
    pub async fn pair(&self) -> [End<R>; 2] {
        let near = self.rt.dial(self.addr).await.unwrap();
        let (reader, writer, _) = self.listener.accept(R::Stop::new().handle()).await.unwrap();
        [near, (reader, writer)]
    }

    /// Waits until only the sockets of the start are open.
    pub async fn all_closed(&self) {
        while (self.sockets)() != self.base {
            turn(&self.rt).await;
        }
    }
}

pub async fn send<W: Writer>(writer: &mut W, bytes: &[u8]) -> io::Result<()> {
    let mut buf = Buf::from(bytes);
    while !buf.is_empty() {
        let (sent, back) = writer.write(buf, W::Stop::new().handle()).await;
        buf = back;
        buf.consume(sent?);
    }
    Ok(())
}

pub async fn receive<D: Reader>(reader: &mut D, room: usize) -> io::Result<Vec<u8>> {
    let (count, buf) = reader.read(Buf::with_capacity(room), D::Stop::new().handle()).await;
    let count = count?;
    assert_eq!(count, buf.len());
    Ok(buf.as_slice().to_vec())
}

/// Reads until `len` bytes are there.
pub async fn receive_all<D: Reader>(reader: &mut D, len: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < len {
        let bytes = receive(reader, len - all.len()).await.unwrap();
        assert!(!bytes.is_empty(), "the end came after {} of {len}", all.len());
        all.extend(bytes);
    }
    all
}

pub fn failure<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}
