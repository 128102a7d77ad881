//! Carries out one exchange: dials, reads, writes, arms the timer, hangs up.
//!
//! Operations in flight live in pinned slots of `run`; everything else is in `Shell`, which turns the
//! exchange's outputs into operations to start (`Start`) and completions (`Done`) into its inputs.
//! A slot is never dropped while the kernel holds its buffer: it is stopped, then awaited. After
//! `Finish` the loop goes on until every slot is empty.

mod shell;

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use crate::base::buf::Buf;
use crate::base::fail::Fault;
use crate::base::ids::EndpointId;
use crate::base::limits;
use crate::base::tick::{Ms, Tick};
use crate::exchange::Exchange;
use crate::exchange::phase::LaneId;
use crate::net::beacon::Level;
use crate::net::core::{Core, Snapshot};
use crate::net::dial::Conn;
use crate::net::down::Down;
use crate::rt::{Reader as _, Rt, Stop as _, Writer as _, poll_slot, until};
use crate::wire::http1::body::Body;

use self::shell::Shell;

type Handle<R> = <<R as Rt>::Stop as crate::rt::Stop>::Handle;
type Dialing<R> = Pin<Box<dyn Future<Output = Result<Conn<R>, Fault>>>>;
/// A write that waits for room in its socket; most don't, so that it is made for those that do.
type Writing<R> = Pin<Box<dyn Future<Output = (<R as Rt>::Writer, io::Result<usize>, Buf)>>>;

/// An operation to start.
enum Start<R: Rt> {
    Dial(LaneId, Dialing<R>),
    WriteUp(LaneId, Writing<R>),
    WriteDown(Writing<R>),
    Arm(Tick),
    DropDial(LaneId),
}

/// An operation that completed.
enum Done<R: Rt> {
    Dialed(LaneId, Result<Conn<R>, Fault>),
    UpReadable(LaneId),
    WroteUp(LaneId, R::Writer, io::Result<usize>, Buf),
    WroteDown(R::Writer, io::Result<usize>, Buf),
    Readable,
    Alarm,
    Stopping,
}

/// Runs an exchange to its end; says whether the client's connection can carry another request.
pub(super) async fn run<R: Rt>(
    core: &Rc<Core<R>>,
    down: &mut Down<R>,
    exchange: Box<Exchange>,
    snapshot: Arc<Snapshot>,
) -> bool {
    let mut alarm = pin!(None);
    let mut down_write: Option<Writing<R>> = None;
    let (dial_a, dial_b) = (pin!(None), pin!(None));
    let mut dials: [Pin<&mut Option<Dialing<R>>>; 2] = [dial_a, dial_b];
    let mut writes: [Option<Writing<R>>; 2] = [None, None];
    let mut stopping = pin!(core.beacon.reached(Level::Stopping));
    let mut stop_seen = false;
    let mut shell = Shell::new(core, down, exchange, snapshot);
    loop {
        while let Some(start) = shell.next() {
            match start {
                Start::Dial(lane, dial) => dials[lane.index()].set(Some(dial)),
                Start::DropDial(lane) => dials[lane.index()].set(None),
                Start::WriteUp(lane, write) => writes[lane.index()] = Some(write),
                Start::WriteDown(write) => down_write = Some(write),
                Start::Arm(at) => alarm.set(Some(core.rt.sleep_until(at))),
            }
        }
        if shell.is_over() {
            break;
        }
        let done = poll_fn(|cx| {
            if let Poll::Ready((w, r, b)) = poll_slot(Pin::new(&mut down_write), cx) {
                return Poll::Ready(Done::WroteDown(w, r, b));
            }
            for lane in LaneId::ALL {
                let i = lane.index();
                // Writes first: an answer must not be read before its request counts as sent, or its
                // connection would not be kept.
                if let Poll::Ready((w, n, b)) = poll_slot(Pin::new(&mut writes[i]), cx) {
                    return Poll::Ready(Done::WroteUp(lane, w, n, b));
                }
                if shell.poll_up(lane, cx).is_ready() {
                    return Poll::Ready(Done::UpReadable(lane));
                }
                if let Poll::Ready(dialed) = poll_slot(dials[i].as_mut(), cx) {
                    return Poll::Ready(Done::Dialed(lane, dialed));
                }
            }
            if shell.down.poll_readable(cx).is_ready() {
                return Poll::Ready(Done::Readable);
            }
            if poll_slot(alarm.as_mut(), cx).is_ready() {
                return Poll::Ready(Done::Alarm);
            }
            if !stop_seen && stopping.as_mut().poll(cx).is_ready() {
                stop_seen = true;
                return Poll::Ready(Done::Stopping);
            }
            Poll::Pending
        })
        .await;
        shell.took(done);
    }
    shell.keep()
}

async fn write<R: Rt>(
    mut writer: R::Writer,
    buf: Buf,
    stop: Handle<R>,
) -> (R::Writer, io::Result<usize>, Buf) {
    let (result, buf) = writer.write(buf, stop).await;
    (writer, result, buf)
}

/// Reads the rest of an answered body and pools its connection; gives up soon.
async fn drain<R: Rt>(
    core: Rc<Core<R>>,
    mut conn: Conn<R>,
    mut body: Body,
    snapshot: Arc<Snapshot>,
    endpoint: EndpointId,
) {
    let mut stop = R::Stop::new();
    let deadline = core.rt.now() + Ms(limits::DRAIN_REST_MS);
    let (mut taken, mut rx) = (0, Buf::new());
    while taken < limits::DRAIN_REST_BYTES {
        rx.clear();
        rx.reserve(limits::READ_BYTES_MIN);
        let handle = stop.handle();
        let ((result, buf), timed_out) =
            until(&core.rt, &mut stop, deadline, conn.reader.read(rx, handle)).await;
        rx = buf;
        let count = result.unwrap_or(0);
        if count == 0 || timed_out {
            return;
        }
        taken += count;
        let mut plain = Buf::new();
        let bytes = match &mut conn.tls {
            None => &mut rx,
            Some(session) => match session.open(&mut rx, &mut plain) {
                Ok(false) => &mut plain,
                Ok(true) | Err(_) => return,
            },
        };
        match body.decode(bytes.as_mut_slice()) {
            Ok(decoded) if decoded.done && decoded.used == bytes.len() => {
                core.pool.put(&snapshot, endpoint, conn, core.rt.now());
                return;
            }
            Ok(decoded) if !decoded.done => {}
            Ok(_) | Err(_) => return,
        }
    }
}
