//! The accept loop. Its operation is never dropped: a dropped accept leaks the connection that it won.
//!
//! When the process drains, the listener takes what was on its way here and then closes: closing it with
//! connections in its queue would reset them. When another process goes on with the same listener, its
//! queue is that one's.

use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use crate::base::limits;
use crate::base::tick::{Ms, Tick};
use crate::net::beacon::Level;
use crate::net::conn;
use crate::net::core::Core;
use crate::net::load::Refusing;
use crate::rt::{Accept as _, Rt, Stop as _, is_exhausted, is_stopped, until};

/// Accepts until the core drains.
pub async fn run<R: Rt>(core: Rc<Core<R>>, listener: R::Listener) {
    let _counted = Counted(core.clone());
    let mut stop = R::Stop::new();
    // Connections that were taken without a wait.
    let mut at_once = 0;
    while core.beacon.level() == Level::Running {
        if at_once == AT_ONCE_MAX {
            // Those that were taken have their turn before more are: a queue here harms nobody.
            at_once = 0;
            core.rt.sleep_until(core.rt.now() + PAUSE).await;
        }
        let accepted = {
            let handle = stop.handle();
            let mut accept = std::pin::pin!(listener.accept(handle));
            let mut drain = std::pin::pin!(core.beacon.reached(Level::Draining));
            at_once += 1;
            let first = std::future::poll_fn(|cx| {
                use std::future::Future as _;
                use std::task::Poll;
                if let Poll::Ready(done) = accept.as_mut().poll(cx) {
                    return Poll::Ready(Some(done));
                }
                at_once = 0;
                drain.as_mut().poll(cx).map(|()| None)
            })
            .await;
            match first {
                Some(done) => done,
                None => {
                    stop.stop();
                    accept.await
                }
            }
        };
        let pause = match take(&core, accepted) {
            Ok(true) => continue,
            // A late core has no time to refuse more: they wait in the listener's queue.
            Ok(false) => QUEUE_PAUSE,
            Err(error) if is_stopped(&error) => break,
            Err(error) if is_exhausted(&error) => {
                core.miss_descriptor();
                EXHAUSTED_PAUSE
            }
            // The peer is gone already: a pause keeps this from spinning.
            Err(_) => PAUSE,
        };
        core.rt.sleep_until(core.rt.now() + pause).await;
    }
    if core.beacon.level() == Level::Draining && !core.shared.is_handed_on() {
        empty(&core, &listener, &mut stop).await;
    }
    drop(listener);
}

/// Counts the listener out when it is closed, also when its task unwinds.
struct Counted<R: Rt>(Rc<Core<R>>);

impl<R: Rt> Drop for Counted<R> {
    fn drop(&mut self) {
        self.0.end_listening();
    }
}

/// Takes what waits, until nothing has come for a moment.
async fn empty<R: Rt>(core: &Rc<Core<R>>, listener: &R::Listener, stop: &mut R::Stop) {
    let last = core.rt.now() + EMPTY_MAX;
    while core.beacon.level() == Level::Draining && core.rt.now() < last {
        let deadline: Tick = core.rt.now() + Ms(limits::DRAIN_ACCEPT_MS);
        let handle = stop.handle();
        let (accepted, _) = until(&core.rt, stop, deadline, listener.accept(handle)).await;
        if take(core, accepted).is_err() {
            return;
        }
    }
}

/// Serves a connection, or says what went wrong; false if there is no time to refuse another.
fn take<R: Rt>(
    core: &Rc<Core<R>>,
    accepted: io::Result<(R::Reader, R::Writer, SocketAddr)>,
) -> io::Result<bool> {
    let (reader, writer, peer) = accepted?;
    if let Ok(entry) = core.enter(peer.ip()) {
        core.rt.spawn(conn::run(core.clone(), entry, reader, writer));
        return Ok(true);
    }
    let paid = core.gate.pay();
    match Refusing::take(&core.shared).filter(|_| paid) {
        Some(place) => core.rt.spawn(conn::refuse(core.clone(), place, reader, writer)),
        // Too many even to be told: a reset costs nobody anything, and says try again.
        None => R::abort(reader, writer),
    }
    Ok(paid)
}

/// After an accept that failed since the peer was gone already, and after many that did not: just no spin.
const PAUSE: Ms = Ms(1);
/// So many connections are taken before others have their turn.
const AT_ONCE_MAX: u32 = 64;
/// Where there was no time to refuse a connection: until there is some again.
const QUEUE_PAUSE: Ms = Ms(50);
/// Without descriptors: short enough that nobody waits for long once they are back.
const EXHAUSTED_PAUSE: Ms = Ms(20);
/// How long connections that go on coming are taken after the process was asked to end.
const EMPTY_MAX: Ms = Ms(2_000);
