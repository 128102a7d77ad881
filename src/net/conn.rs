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
use crate::base::tick::{Ms, Tick};
use crate::exchange::Exchange;
use crate::exchange::answer::{Answer, Client};
use crate::exchange::ledger::Ledger;
use crate::llm::dialects::ErrorText;
use crate::llm::request::Surface;
use crate::net::beacon::Level;
use crate::net::core::{Core, Entry, Snapshot};
use crate::net::drive;
use crate::net::intake::{self, Intake};
use crate::net::load::{self, Holding, Refusing, Seat, Shed};
use crate::net::pace::Pace;
use crate::rt::{Reader as _, Rt, Stop as _, Writer as _, until};
use crate::wire::http1::body::Body;
use crate::wire::http1::emit;
use crate::wire::http1::head::{self, Refusal, RequestHead};

/// The client's socket with what was received and not yet used.
pub struct Down<R: Rt> {
    /// The receiving half; away while an operation has it.
    pub reader: Option<R::Reader>,
    /// The sending half; away while an operation has it.
    pub writer: Option<R::Writer>,
    /// Received bytes that belong to the next head, body or request.
    pub rx: Buf,
    /// Gives up reads.
    pub stop: R::Stop,
}

/// Why a request could not be read.
enum Stopped {
    /// The client closed, broke off, or was silent where it may be: nothing to say.
    Silently,
    /// It gets this answer, and the connection closes.
    With(Answer),
    /// Memory is short, and it would take more.
    TooMuch,
}

/// Serves one connection to its end.
pub async fn run<R: Rt>(core: Rc<Core<R>>, entry: Entry<R>, reader: R::Reader, writer: R::Writer) {
    let mut down =
        Down { reader: Some(reader), writer: Some(writer), rx: Buf::new(), stop: R::Stop::new() };
    while wait_for_request(&core, &mut down).await {
        let snapshot = core.shared.snapshot();
        // Boxed, so that an idle connection holds no exchange's worth of state.
        let keep = Box::pin(serve_one(&core, &mut down, snapshot)).await;
        if !keep {
            linger(&core, &mut down).await;
            break;
        }
        down.rx.shrink_idle(0);
    }
    drop(entry);
}

/// Tells a connection over a limit so. It is answered once it has asked, so that no client takes the
/// answer for one to an earlier request, and read away for a moment, so that no reset overtakes it.
pub(super) async fn refuse<R: Rt>(
    core: Rc<Core<R>>,
    place: Refusing,
    reader: R::Reader,
    writer: R::Writer,
) {
    let mut down =
        Down { reader: Some(reader), writer: Some(writer), rx: Buf::new(), stop: R::Stop::new() };
    let deadline = core.rt.now() + REFUSAL;
    if matches!(receive(&core, &mut down, deadline).await, Received::Some) {
        if let Some(writer) = &mut down.writer {
            // A few hundred bytes into an empty socket buffer: they fit, or the client is gone.
            let stop = R::Stop::new();
            let _ = writer.write(Buf::from(load::REFUSAL), stop.handle()).await;
        }
        linger(&core, &mut down).await;
    }
    drop(place);
}

/// Waits for the first byte of a request; false if none will come.
async fn wait_for_request<R: Rt>(core: &Core<R>, down: &mut Down<R>) -> bool {
    if core.beacon.level() > Level::Running && down.rx.is_empty() {
        return false;
    }
    if !down.rx.is_empty() {
        return true;
    }
    let Some(reader) = &down.reader else { return false };
    let keep_alive = core.shared.snapshot().server.keep_alive;
    let mut ready = std::pin::pin!(reader.ready());
    let until = core.rt.now() + keep_alive;
    let mut over = std::pin::pin!(core.beacon.reached_or(Level::Draining, until));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(done) = ready.as_mut().poll(cx) {
            return Poll::Ready(done.is_ok());
        }
        over.as_mut().poll(cx).map(|()| false)
    })
    .await
}

/// Reads one request and serves it; says whether the connection can carry another.
async fn serve_one<R: Rt>(core: &Rc<Core<R>>, down: &mut Down<R>, snapshot: Arc<Snapshot>) -> bool {
    let head = match read_head(core, down, &snapshot).await {
        Ok(head) => head,
        Err(Stopped::Silently | Stopped::TooMuch) => return false,
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
    let key = intake.ledger.key;
    // What is answered from the config alone is never too much.
    let works = intake.ledger.surface != Surface::Models;
    let judged =
        works.then(|| load::judge(&core.shared, &snapshot, &core.lateness, key, has_body(&head)));
    if let Some(why) = judged.flatten() {
        let keep = discard_body(core, down, &head).await;
        return shed(core, down, &snapshot, why, keep, client, intake.ledger).await;
    }
    let _holding = has_body(&head).then(|| Holding::begin(&core.shared));
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
        Err(Stopped::TooMuch) => {
            let why = Shed::Memory;
            return shed(core, down, &snapshot, why, false, client, intake.ledger).await;
        }
    };
    let seat = works.then(|| Seat::take(&core.shared, &snapshot, key)).transpose();
    let seat = match seat {
        Ok(seat) => seat,
        Err(why) => return shed(core, down, &snapshot, why, true, client, intake.ledger).await,
    };
    let keep = exchange(core, down, snapshot, intake, body, client).await;
    drop(seat);
    keep
}

/// Answers a request that is shed; `keep` says that the connection can go on.
async fn shed<R: Rt>(
    core: &Rc<Core<R>>,
    down: &mut Down<R>,
    snapshot: &Arc<Snapshot>,
    why: Shed,
    keep: bool,
    client: Client,
    ledger: Ledger,
) -> bool {
    core.shared.watch.shed(core.id, why);
    let answer = if keep { why.answer() } else { why.answer().closing() };
    answer_with(core, down, snapshot, answer, client, ledger).await
}

/// Reads the body of a request that is shed away, if it is short and all but here: a new connection for
/// each request would cost more than what is shed. Says whether the connection can go on.
async fn discard_body<R: Rt>(core: &Core<R>, down: &mut Down<R>, head: &RequestHead) -> bool {
    let head::Framing::Length(mut left) = head.framing else { return !has_body(head) };
    if left > limits::SHED_BODY_BYTES_MAX as u64 || (head.expect_continue && down.rx.is_empty()) {
        return false;
    }
    let deadline = core.rt.now() + LINGER;
    loop {
        let count = left.min(down.rx.len() as u64);
        down.rx.consume(count as usize);
        left -= count;
        if left == 0 {
            return true;
        }
        if !matches!(receive(core, down, deadline).await, Received::Some) {
            return false;
        }
    }
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
    let server = &snapshot.server;
    let began = core.rt.now();
    let deadline = began + server.head_timeout;
    let mut pace = Pace::new(began, server, server.head_timeout);
    let max = server.head_max as usize;
    let mut looked = 0;
    loop {
        match head::parse_request_from(down.rx.as_slice(), &mut looked, max) {
            Ok(Some(head)) => return Ok(head),
            Ok(None) => {}
            Err(refusal) => return Err(Stopped::With(refused(refusal))),
        }
        let had = down.rx.len();
        match receive(core, down, deadline.min(pace.due())).await {
            Received::Some => pace.came(down.rx.len() - had, core.rt.now()),
            Received::TimedOut if had > 0 => {
                core.shared.watch.too_slow(core.id);
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
        send_continue(down).await;
    }
    let mut decoder = Body::new(head.framing);
    let server = &snapshot.server;
    let mut pace = Pace::new(core.rt.now(), server, server.body_timeout);
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
        if body.len() > limits::SHED_BODY_BYTES_MAX && core.shared.load.is_short_for(2) {
            return Err(Stopped::TooMuch);
        }
        let had = down.rx.len();
        let deadline = core.rt.now() + server.body_timeout;
        match receive(core, down, deadline.min(pace.due())).await {
            Received::Some => pace.came(down.rx.len() - had, core.rt.now()),
            Received::TimedOut => {
                core.shared.watch.too_slow(core.id);
                return Err(Stopped::With(slow("the request body")));
            }
            Received::End => return Err(Stopped::Silently),
        }
    }
}

async fn send_continue<R: Rt>(down: &mut Down<R>) {
    let Some(writer) = &mut down.writer else { return };
    let stop = R::Stop::new();
    // Twenty-five bytes into an empty socket buffer: they fit, or the client is gone, which the next
    // read will show.
    let _ = writer.write(Buf::from(emit::CONTINUE), stop.handle()).await;
}

enum Received {
    Some,
    End,
    TimedOut,
}

/// One read into `down.rx`.
async fn receive<R: Rt>(core: &Core<R>, down: &mut Down<R>, deadline: Tick) -> Received {
    let Some(reader) = &mut down.reader else { return Received::End };
    let mut rx = down.rx.take();
    let room = if rx.len() >= limits::READ_BYTES_MIN {
        limits::READ_BYTES_MAX
    } else {
        limits::READ_BYTES_MIN
    };
    rx.reserve(room);
    let handle = down.stop.handle();
    let ((result, rx), timed_out) =
        until(&core.rt, &mut down.stop, deadline, reader.read(rx, handle)).await;
    down.rx = rx;
    match result {
        Ok(0) => Received::End,
        Ok(_) => Received::Some,
        Err(_) if timed_out => Received::TimedOut,
        Err(_) => Received::End,
    }
}

/// Closes after an answer that the client may still be sending against: our direction ends first, and
/// what comes is thrown away for a moment, so that no reset overtakes the answer.
async fn linger<R: Rt>(core: &Core<R>, down: &mut Down<R>) {
    drop(down.writer.take());
    let deadline = core.rt.now() + LINGER;
    for _ in 0..LINGER_READS {
        down.rx.clear();
        match receive(core, down, deadline).await {
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

/// How long a connection that is refused may take to ask.
const REFUSAL: Ms = Ms(1_000);
/// How long and how often a closing connection is read.
const LINGER: Ms = Ms(1_000);
const LINGER_READS: usize = 1024;
