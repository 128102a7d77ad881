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
use crate::config::Server;
use crate::exchange::Exchange;
use crate::exchange::answer::{Answer, Client};
use crate::exchange::ledger::Ledger;
use crate::exchange::patience::Patience;
use crate::llm::dialects::ErrorText;
use crate::llm::request::Surface;
use crate::net::beacon::Level;
use crate::net::core::{Core, Entry, Snapshot};
use crate::net::down::{Down, Hello, Received};
use crate::net::drive;
use crate::net::gate::Verdict;
use crate::net::intake::{self, Intake};
use crate::net::load::{self, Holding, Refusing, Seat, Shed};
use crate::net::pace::Pace;
use crate::net::shed;
use crate::net::watch::NoSession;
use crate::rt::Rt;
use crate::wire::http1::body::Body;
use crate::wire::http1::emit;
use crate::wire::http1::head::{self, Refusal, RequestHead};

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
    let mut down = Down::new(reader, writer);
    let is_plain = core.shared.snapshot().client_tls.is_none();
    // Boxed, as all that an idle connection has no need of.
    if is_plain || Box::pin(open(&core, &mut down)).await {
        requests(&core, &mut down).await;
    }
    drop(entry);
}

/// Serves requests until one is the last.
async fn requests<R: Rt>(core: &Rc<Core<R>>, down: &mut Down<R>) {
    while wait_for_request(core, down).await {
        let mut snapshot = core.shared.snapshot();
        let late = (&core.lateness, core.rt.now());
        let verdict = match core.gate.judge(late, &snapshot.server) {
            Some(verdict) => verdict,
            None => {
                let verdict = Box::pin(core.gate.wait()).await;
                snapshot = core.shared.snapshot();
                verdict
            }
        };
        // Boxed, so that an idle connection holds no exchange's worth of state.
        let keep = Box::pin(serve_one(core, down, snapshot, verdict)).await;
        if !keep {
            Box::pin(end(core, down)).await;
            return;
        }
        down.rest(core);
    }
    if down.tls.is_some() {
        Box::pin(down.farewell(core)).await;
    }
}

/// Ends a connection that the client may still be sending on. One that does not take what waits for it is
/// reset: what the kernel holds for it would outlive us for as long as it likes.
async fn end<R: Rt>(core: &Core<R>, down: &mut Down<R>) {
    if down.is_stuck {
        if let (Some(reader), Some(writer)) = (down.reader.take(), down.writer.take()) {
            R::abort(reader, writer);
        }
        return;
    }
    down.farewell(core).await;
    let (until, most) = (core.rt.now() + Ms(limits::LINGER_MS), limits::LINGER_BYTES_MAX);
    linger(core, down, until, most).await;
}

/// Shakes hands where TLS is spoken; false if the connection is over with that.
async fn open<R: Rt>(core: &Rc<Core<R>>, down: &mut Down<R>) -> bool {
    let snapshot = core.shared.snapshot();
    let Some(profile) = &snapshot.client_tls else { return true };
    let Ok(session) = profile.session() else { return false };
    let deadline = core.rt.now() + snapshot.server.head_timeout;
    match Box::pin(down.hello(core, session, deadline)).await {
        Hello::Done => return true,
        Hello::Gone(why) => {
            core.shared.watch.no_session(core.id, why);
            return false;
        }
        Hello::Refused(why) => core.shared.watch.no_session(core.id, why),
        Hello::Plain => {
            core.shared.watch.no_session(core.id, NoSession::PlainHttp);
            let patience = patience(&snapshot.server);
            let client = Client { minor: 1, keep_alive: false, patience, to_head: false };
            let answer = error(400, "this address speaks HTTPS: write https://", "invalid_http");
            let ledger = intake::blank_ledger(core);
            core.shared.watch.began(core.id);
            answer_with(core, down, &snapshot, answer.closing(), client, ledger).await;
        }
    }
    let (until, most) = (core.rt.now() + SHORTLY, limits::SHED_BODY_BYTES_MAX);
    linger(core, down, until, most).await;
    false
}

/// Tells a connection over a limit so. It is answered once it has asked, so that no client takes the
/// answer for one to an earlier request, and read away for a moment, so that no reset overtakes it. A
/// client that speaks TLS is only closed: a handshake is what such a moment can't afford.
pub(super) async fn refuse<R: Rt>(
    core: Rc<Core<R>>,
    place: Refusing,
    reader: R::Reader,
    writer: R::Writer,
) {
    let mut down = Down::new(reader, writer);
    let deadline = core.rt.now() + REFUSAL;
    let plain = core.shared.snapshot().client_tls.is_none();
    if matches!(down.receive(&core, deadline).await, Received::Some) {
        if plain {
            // A few hundred bytes into an empty socket buffer: they fit, or the client is gone.
            let _ = down.say(&core, Buf::from(load::REFUSAL), deadline).await;
        }
        let (until, most) = (core.rt.now() + SHORTLY, limits::SHED_BODY_BYTES_MAX);
        linger(&core, &mut down, until, most).await;
    }
    drop(place);
}

/// Waits for the first byte of a request; false if none will come. A drain ends the wait once the
/// connection has been quiet for a moment, which most are: a client between two requests may be about
/// to send, and a request that meets a closed connection is a failed one.
async fn wait_for_request<R: Rt>(core: &Core<R>, down: &mut Down<R>) -> bool {
    if !down.rx.is_empty() {
        return true;
    }
    if down.is_closed() || !down.watch() {
        return false;
    }
    let quiet = core.rt.now();
    let mut came = async |level, patience| {
        // Not before the ticker has come by once more: what has come by now is then seen.
        let until = (quiet + patience).max(core.rt.now());
        let mut over = std::pin::pin!(core.beacon.reached_or(level, until));
        std::future::poll_fn(|cx| {
            if let Poll::Ready(done) = down.poll_readable(cx) {
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
async fn serve_one<R: Rt>(
    core: &Rc<Core<R>>,
    down: &mut Down<R>,
    snapshot: Arc<Snapshot>,
    verdict: Verdict,
) -> bool {
    let head = match read_head(core, down, &snapshot).await {
        Ok(head) => head,
        Err(Stopped::Silently | Stopped::TooMuch) => return false,
        Err(Stopped::With(answer)) => {
            let patience = patience(&snapshot.server);
            let to_head = head::is_head(down.rx.as_slice());
            let client = Client { minor: 1, keep_alive: false, patience, to_head };
            let ledger = intake::blank_ledger(core);
            core.shared.watch.began(core.id);
            return answer_with(core, down, &snapshot, answer.closing(), client, ledger).await;
        }
    };
    core.shared.watch.began(core.id);
    let patience = patience(&snapshot.server);
    let keep_alive = head.keep_alive && core.beacon.level() == Level::Running;
    let to_head = head.method == head::Method::Head;
    let client = Client { minor: head.minor, keep_alive, patience, to_head };
    let mut intake = intake::open(core, &snapshot, &head, &down.rx.as_slice()[..head.len]);
    // What is answered from the config alone is never too much.
    let works = intake.ledger.surface != Surface::Models;
    let key = intake.key;
    let judged = (works && intake.refused.is_none())
        .then(|| load::judge(&core.shared, &snapshot, verdict, key, has_body(&head)))
        .flatten();
    if judged.is_none() {
        intake.take_fields(&head, &down.rx.as_slice()[..head.len]);
    }
    down.rx.consume(head.len);
    if let Some(answer) = intake.refused.take() {
        // Nothing was read of a body; if one is coming, this connection can't go on.
        let answer = if has_body(&head) { answer.closing() } else { answer };
        return answer_with(core, down, &snapshot, answer, client, intake.ledger).await;
    }
    if let Some(why) = judged {
        let keep = discard_body(core, down, &head).await;
        return shed::tell(core, down, why, keep, client, intake.ledger).await;
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
            return shed::tell(core, down, why, false, client, intake.ledger).await;
        }
    };
    let seat = works.then(|| Seat::take(&core.shared, &snapshot, key)).transpose();
    let seat = match seat {
        Ok(seat) => seat,
        Err(why) => return shed::tell(core, down, why, true, client, intake.ledger).await,
    };
    let keep = exchange(core, down, snapshot, intake, body, client).await;
    drop(seat);
    keep
}

/// Reads the body of a request that is shed away, if it is short and all but here: a new connection for
/// each request would cost more than what is shed. Says whether the connection can go on.
async fn discard_body<R: Rt>(core: &Core<R>, down: &mut Down<R>, head: &RequestHead) -> bool {
    let head::Framing::Length(mut left) = head.framing else { return !has_body(head) };
    if left > limits::SHED_BODY_BYTES_MAX as u64 || (head.expect_continue && down.rx.is_empty()) {
        return false;
    }
    let deadline = core.rt.now() + SHORTLY;
    loop {
        let count = left.min(down.rx.len() as u64);
        down.rx.consume(count as usize);
        left -= count;
        if left == 0 {
            return true;
        }
        if !matches!(down.receive(core, deadline).await, Received::Some) {
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
    let cx = core.cx(&snapshot);
    let exchange = intake::begin(core, intake, body, client, &cx);
    // What is received from now on is a next request, and rare.
    down.rest(core);
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
    let cx = core.cx(snapshot);
    let exchange = Box::new(Exchange::answered(answer, client, ledger, &cx));
    drive::run(core, down, exchange, snapshot.clone()).await
}

/// How slowly a client may read.
fn patience(server: &Server) -> Patience {
    Patience { timeout: server.write_timeout, rate: server.read_rate_min, grace: server.rate_grace }
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
        let begun = !head::is_blank(down.rx.as_slice());
        let had = down.rx.len();
        match down.receive(core, deadline.min(pace.due())).await {
            Received::Some => pace.came(down.rx.len() - had, core.rt.now()),
            Received::TimedOut if begun => {
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
    if !has_body(head) {
        return Ok(Buf::new());
    }
    if let head::Framing::Length(length) = head.framing
        && length > max as u64
    {
        return Err(Stopped::With(too_large(max)));
    }
    if head.expect_continue && down.rx.is_empty() {
        // A client that does not take it is gone, which the next read will show.
        let deadline = core.rt.now() + snapshot.server.write_timeout;
        let _ = down.say(core, Buf::from(emit::CONTINUE), deadline).await;
    }
    let mut pace = Pace::new(core.rt.now(), &snapshot.server, snapshot.server.body_timeout);
    if let head::Framing::Length(length) = head.framing {
        return read_sized(core, down, snapshot, &mut pace, length as usize).await;
    }
    let (mut body, mut decoder) = (Buf::new(), Body::new(head.framing));
    loop {
        let decoded = decoder
            .decode(down.rx.as_mut_slice())
            .map_err(|fault| Stopped::With(bad_body(fault.text())))?;
        let announced = decoder.announced();
        if (body.len() + decoded.payload) as u64 + announced > max as u64 {
            return Err(Stopped::With(too_large(max)));
        }
        body.extend(&down.rx.as_slice()[..decoded.payload]);
        down.rx.consume(decoded.used);
        if decoded.done {
            return Ok(body);
        }
        receive_body(core, down, snapshot, &mut pace, (body.len(), usize::MAX)).await?;
    }
}

/// Reads a body of known length into the buffer that it begins in, which becomes the body.
async fn read_sized<R: Rt>(
    core: &Core<R>,
    down: &mut Down<R>,
    snapshot: &Snapshot,
    pace: &mut Pace,
    length: usize,
) -> Result<Buf, Stopped> {
    while down.rx.len() < length {
        let so_far = down.rx.len();
        receive_body(core, down, snapshot, pace, (so_far, length - so_far)).await?;
    }
    let mut body = down.rx.take();
    if body.len() > length {
        // The beginning of a next request.
        down.rx = Buf::from(&body.as_slice()[length..]);
        body.truncate(length);
    }
    Ok(body)
}

/// Receives more of a body, of which there are `so_far` bytes and `left` at most to come. Room is made for
/// as much again as there is, so that what is only announced costs nothing.
async fn receive_body<R: Rt>(
    core: &Core<R>,
    down: &mut Down<R>,
    snapshot: &Snapshot,
    pace: &mut Pace,
    (so_far, left): (usize, usize),
) -> Result<(), Stopped> {
    // Also after the wait: memory may have become short meanwhile, and one read may bring all the rest.
    let is_too_much =
        |so_far: usize| so_far > limits::SHED_BODY_BYTES_MAX && core.shared.load.is_short_for(2);
    if is_too_much(so_far) {
        return Err(Stopped::TooMuch);
    }
    let had = down.rx.len();
    let deadline = core.rt.now() + snapshot.server.body_timeout;
    let room = so_far.clamp(limits::READ_BYTES_MAX, limits::BODY_READ_BYTES_MAX).min(left);
    match down.receive_some(core, deadline.min(pace.due()), room).await {
        Received::Some => {
            let came = down.rx.len() - had;
            pace.came(came, core.rt.now());
            if is_too_much(so_far + came) { Err(Stopped::TooMuch) } else { Ok(()) }
        }
        Received::TimedOut => {
            core.shared.watch.too_slow(core.id);
            Err(Stopped::With(slow("the request body")))
        }
        Received::End => Err(Stopped::Silently),
    }
}

/// Closes after an answer that the client may still be sending against (RFC 9112 section 9.6): our
/// direction ends first, and what comes is thrown away, up to a time and an amount, so that no reset
/// overtakes the answer. A client that reads only when it has sent all is the one that this is for.
async fn linger<R: Rt>(core: &Core<R>, down: &mut Down<R>, until: Tick, most: usize) {
    drop(down.writer.take());
    let mut left = most;
    while left > 0 && core.beacon.level() < Level::Stopping {
        let quiet = core.rt.now() + SHORTLY;
        match down.discard(core, quiet.min(until)).await {
            0 => return,
            count => left = left.saturating_sub(count),
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
/// How long what belongs to a closed matter is waited for.
const SHORTLY: Ms = Ms(1_000);
