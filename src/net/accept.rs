//! The accept loop. Its operation is never dropped: a dropped accept leaks the connection that it won.

use std::rc::Rc;

use crate::base::tick::Ms;
use crate::net::beacon::Level;
use crate::net::conn;
use crate::net::core::Core;
use crate::net::load::Refusing;
use crate::rt::{Accept as _, Rt, Stop as _, is_exhausted, is_stopped};

/// Accepts until the core drains.
pub async fn run<R: Rt>(core: Rc<Core<R>>, listener: R::Listener) {
    let mut stop = R::Stop::new();
    while core.beacon.level() == Level::Running {
        let accepted = {
            let handle = stop.handle();
            let mut accept = std::pin::pin!(listener.accept(handle));
            let mut drain = std::pin::pin!(core.beacon.reached(Level::Draining));
            let first = std::future::poll_fn(|cx| {
                use std::future::Future as _;
                use std::task::Poll;
                if let Poll::Ready(done) = accept.as_mut().poll(cx) {
                    return Poll::Ready(Some(done));
                }
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
        match accepted {
            Ok((reader, writer, peer)) => match core.enter(peer.ip()) {
                Ok(entry) => core.rt.spawn(conn::run(core.clone(), entry, reader, writer)),
                Err(_) => match Refusing::take(&core.shared) {
                    Some(place) => {
                        core.rt.spawn(conn::refuse(core.clone(), place, reader, writer));
                    }
                    // Too many even to be told: a reset costs nobody anything, and says try again.
                    None => R::abort(reader, writer),
                },
            },
            Err(error) if is_stopped(&error) => return,
            Err(error) => {
                let mut pause = PAUSE;
                if is_exhausted(&error) {
                    core.miss_descriptor();
                    pause = EXHAUSTED_PAUSE;
                }
                core.rt.sleep_until(core.rt.now() + pause).await;
            }
        }
    }
}

/// After an accept that failed since the peer was gone already: just no spin, whatever else it is.
const PAUSE: Ms = Ms(1);
/// Without descriptors: short enough that nobody waits for long once they are back.
const EXHAUSTED_PAUSE: Ms = Ms(20);
