//! One client connection: wait, read a request whole, run its exchange, and again.
//!
//! Framing is read by one verdict of `wire::http1::head`; what it refuses is answered and the
//! connection closed. While nothing is expected no buffer is parked: only a droppable `ready`.

use std::future::Future as _;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use crate::base::buf::Buf;
use crate::base::limits;
use crate::base::tick::Ms;
use crate::exchange::Exchange;
use crate::exchange::answer::{Answer, Client};
use crate::exchange::ledger::Ledger;
use crate::llm::dialects::ErrorText;
use crate::net::beacon::Level;
use crate::net::core::{Core, Snapshot};
use crate::net::down::{Down, Hello, Received};
use crate::net::drive;
use crate::net::intake::{self, Intake};
use crate::rt::{Reader as _, Rt};
use crate::wire::http1::body::Body;
use crate::wire::http1::emit;
use crate::wire::http1::head::{self, Refusal, RequestHead};

/// Why a request could not be read.
enum Stopped {
    /// The client closed, broke off, or was silent where it may be: nothing to say.
    Silently,
    /// It gets this answer, and the connection closes.
    With(Answer),
}

/// Serves one connection to its end.
pub async fn run<R: Rt>(core: Rc<Core<R>>, reader: R::Reader, writer: R::Writer) {
    let guard = Leave(core.clone());
    let mut down = Down::new(reader, writer);
    let is_plain = core.shared.snapshot().client_tls.is_none();
    // Boxed, as all that an idle connection has no need of.
    if is_plain || Box::pin(open(&core, &mut down)).await {
        requests(&core, &mut down).await;
    }
    drop(guard);
}

/// Serves requests until one is the last.
async fn requests<R: Rt>(core: &Rc<Core<R>>, down: &mut Down<R>) {
    while wait_for_request(core, down).await {
        let snapshot = core.shared.snapshot();
        // Boxed, so that an idle connection holds no exchange's worth of state.
        let keep = Box::pin(serve_one(core, down, snapshot)).await;
        if !keep {
            Box::pin(end(core, down)).await;
            return;
        }
        down.rest();
    }
    if down.tls.is_some() {
        Box::pin(down.farewell(core)).await;
    }
}

/// Ends a connection that the client may still be sending on.
async fn end<R: Rt>(core: &Core<R>, down: &mut Down<R>) {
    down.farewell(core).await;
    linger(core, down).await;
}

/// Shakes hands where TLS is spoken; false if the connection is over with that.
async fn open<R: Rt>(core: &Rc<Core<R>>, down: &mut Down<R>) -> bool {
    let snapshot = core.shared.snapshot();
    let Some(profile) = &snapshot.client_tls else { return true };
    let Ok(session) = profile.session() else { return false };
    let deadline = core.rt.now() + snapshot.server.head_timeout;
    match Box::pin(down.hello(core, session, deadline)).await {
        Hello::Done => return true,
        Hello::Gone => return false,
        Hello::Refused => {}
        Hello::Plain => {
            let patience = snapshot.server.write_timeout;
            let client = Client { minor: 1, keep_alive: false, patience };
            let answer = error(400, "this address speaks HTTPS: write https://", "invalid_http");
            let ledger = intake::blank_ledger(core);
            core.shared.watch.began(core.id);
            answer_with(core, down, &snapshot, answer.closing(), client, ledger).await;
        }
    }
    linger(core, down).await;
    false
}

/// Counts the connection out, also when its task unwinds.
struct Leave<R: Rt>(Rc<Core<R>>);

impl<R: Rt> Drop for Leave<R> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Waits for the first byte of a request; false if none will come. A drain does not end the wait at
/// once: a client may be about to send, and a request that meets a closed connection is a failed one.
async fn wait_for_request<R: Rt>(core: &Core<R>, down: &mut Down<R>) -> bool {
    if !down.rx.is_empty() {
        return true;
    }
    let Some(reader) = down.reader.as_ref().filter(|_| !down.is_closed()) else { return false };
    let mut ready = std::pin::pin!(reader.ready());
    let mut came = async |level, patience| {
        let until = core.rt.now() + patience;
        let mut over = std::pin::pin!(core.beacon.reached_or(level, until));
        std::future::poll_fn(|cx| {
            if let Poll::Ready(done) = ready.as_mut().poll(cx) {
                return Poll::Ready(Some(done.is_ok()));
            }
            over.as_mut().poll(cx).map(|()| None)
        })
        .await
    };
    let mut first = None;
    if core.beacon.level() == Level::Running {
        first = came(Level::Draining, core.shared.snapshot().server.keep_alive).await;
        if first.is_none() && core.beacon.level() == Level::Running {
            return false;
        }
    }
    if first.is_none() {
        first = came(Level::Stopping, Ms(limits::DRAIN_QUIET_MS)).await;
    }
    first.unwrap_or(false)
}

/// Reads one request and serves it; says whether the connection can carry another.
async fn serve_one<R: Rt>(core: &Rc<Core<R>>, down: &mut Down<R>, snapshot: Arc<Snapshot>) -> bool {
    let head = match read_head(core, down, &snapshot).await {
        Ok(head) => head,
        Err(Stopped::Silently) => return false,
        Err(Stopped::With(answer)) => {
            let patience = snapshot.server.write_timeout;
            let client = Client { minor: 1, keep_alive: false, patience };
            let ledger = intake::blank_ledger(core);
            core.shared.watch.began(core.id);
            return answer_with(core, down, &snapshot, answer.closing(), client, ledger).await;
        }
    };
    let head_bytes = {
        let mut bytes = Buf::from(&down.rx.as_slice()[..head.len]);
        down.rx.consume(head.len);
        bytes.compact();
        bytes
    };
    core.shared.watch.began(core.id);
    let patience = snapshot.server.write_timeout;
    let keep_alive = head.keep_alive && core.beacon.level() == Level::Running;
    let client = Client { minor: head.minor, keep_alive, patience };
    let mut intake = intake::open(core, &snapshot, &head, head_bytes.as_slice());
    if let Some(answer) = intake.refused.take() {
        // Nothing was read of a body; if one is coming, this connection can't go on.
        let answer = if has_body(&head) { answer.closing() } else { answer };
        return answer_with(core, down, &snapshot, answer, client, intake.ledger).await;
    }
    let body = match read_body(core, down, &snapshot, &head).await {
        Ok(body) => body,
        Err(Stopped::Silently) => {
            let mut ledger = intake.ledger;
            ledger.status = 499;
            ledger.ending = crate::exchange::ledger::Ending::Gone;
            ledger.ended = core.rt.now();
            core.shared.watch.ended(core.id, ledger);
            return false;
        }
        Err(Stopped::With(answer)) => {
            return answer_with(core, down, &snapshot, answer.closing(), client, intake.ledger)
                .await;
        }
    };
    exchange(core, down, snapshot, intake, body, client).await
}

async fn exchange<R: Rt>(
    core: &Rc<Core<R>>,
    down: &mut Down<R>,
    snapshot: Arc<Snapshot>,
    intake: Box<Intake>,
    body: Buf,
    client: Client,
) -> bool {
    let cx =
        crate::exchange::Cx { now: core.rt.now(), wall: core.rt.wall(), table: &snapshot.table };
    let exchange = intake::begin(core, intake, body, client, &cx);
    // What is received from now on is a next request, and rare.
    down.rx.shrink_idle(0);
    drive::run(core, down, exchange, snapshot.clone()).await
}

async fn answer_with<R: Rt>(
    core: &Rc<Core<R>>,
    down: &mut Down<R>,
    snapshot: &Arc<Snapshot>,
    answer: Answer,
    client: Client,
    ledger: Ledger,
) -> bool {
    let cx =
        crate::exchange::Cx { now: core.rt.now(), wall: core.rt.wall(), table: &snapshot.table };
    let exchange = Box::new(Exchange::answered(answer, client, ledger, &cx));
    drive::run(core, down, exchange, snapshot.clone()).await
}

fn has_body(head: &RequestHead) -> bool {
    !matches!(head.framing, head::Framing::None | head::Framing::Length(0))
}

/// Reads until the head is whole.
async fn read_head<R: Rt>(
    core: &Core<R>,
    down: &mut Down<R>,
    snapshot: &Snapshot,
) -> Result<RequestHead, Stopped> {
    let deadline = core.rt.now() + snapshot.server.head_timeout;
    let max = snapshot.server.head_max as usize;
    let mut looked = 0;
    loop {
        match head::parse_request_from(down.rx.as_slice(), &mut looked, max) {
            Ok(Some(head)) => return Ok(head),
            Ok(None) => {}
            Err(refusal) => return Err(Stopped::With(refused(refusal))),
        }
        let begun = !down.rx.is_empty();
        match down.receive(core, deadline).await {
            Received::Some => {}
            Received::TimedOut if begun => {
                return Err(Stopped::With(slow("the request head")));
            }
            Received::End | Received::TimedOut => return Err(Stopped::Silently),
        }
    }
}

/// Reads a body whole, under the cap.
async fn read_body<R: Rt>(
    core: &Core<R>,
    down: &mut Down<R>,
    snapshot: &Snapshot,
    head: &RequestHead,
) -> Result<Buf, Stopped> {
    let max = snapshot.server.body_max as usize;
    let mut body = Buf::new();
    if !has_body(head) {
        return Ok(body);
    }
    if let head::Framing::Length(length) = head.framing {
        if length > max as u64 {
            return Err(Stopped::With(too_large(max)));
        }
        body.reserve((length as usize).min(limits::READ_BYTES_MAX));
    }
    if head.expect_continue && down.rx.is_empty() {
        // A client that does not take it is gone, which the next read will show.
        let deadline = core.rt.now() + snapshot.server.write_timeout;
        let _ = down.say(core, Buf::from(emit::CONTINUE), deadline).await;
    }
    let mut decoder = Body::new(head.framing);
    loop {
        let decoded = decoder
            .decode(down.rx.as_mut_slice())
            .map_err(|fault| Stopped::With(bad_body(fault.text())))?;
        if body.len() + decoded.payload > max {
            return Err(Stopped::With(too_large(max)));
        }
        body.extend(&down.rx.as_slice()[..decoded.payload]);
        down.rx.consume(decoded.used);
        if decoded.done {
            return Ok(body);
        }
        let deadline = core.rt.now() + snapshot.server.body_timeout;
        match down.receive(core, deadline).await {
            Received::Some => {}
            Received::TimedOut => return Err(Stopped::With(slow("the request body"))),
            Received::End => return Err(Stopped::Silently),
        }
    }
}

/// Closes after an answer that the client may still be sending against: our direction ends first, and
/// what comes is thrown away for a moment, so that no reset overtakes the answer.
async fn linger<R: Rt>(core: &Core<R>, down: &mut Down<R>) {
    drop(down.writer.take());
    let deadline = core.rt.now() + LINGER;
    for _ in 0..LINGER_READS {
        down.rx.clear();
        match down.receive(core, deadline).await {
            Received::Some => {}
            Received::End | Received::TimedOut => return,
        }
    }
}

fn refused(refusal: Refusal) -> Answer {
    let code = if refusal.status() == 431 { "head_too_large" } else { "invalid_http" };
    error(refusal.status(), refusal.text(), code)
}

fn bad_body(why: &str) -> Answer {
    error(400, why, "invalid_http")
}

fn slow(what: &str) -> Answer {
    error(408, &format!("{what} did not arrive in time"), "request_timeout")
}

fn too_large(max: usize) -> Answer {
    let message = format!("the request body is larger than server.body_max ({max} bytes)");
    error(413, &message, "request_too_large")
}

fn error(status: u16, message: &str, code: &str) -> Answer {
    let text = ErrorText { message, kind: "invalid_request_error", param: None, code: Some(code) };
    Answer::error(status, &text)
}

/// How long and how often a closing connection is read.
const LINGER: Ms = Ms(1_000);
const LINGER_READS: usize = 1024;
