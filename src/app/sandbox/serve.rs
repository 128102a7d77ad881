//! A sandbox provider's connection, on any runtime: reads requests, carries out their acts, and keeps
//! an eye on the read side all the while, so that a peer that goes away is noted at once.
//!
//! The eye: whatever is waited for (a write, a pause, silence) is raced with `ready`, which may be
//! dropped; when that fires a read is made and awaited, so no operation is ever dropped.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::act::{Act, Step};
use super::answer::Answer;
use super::ask::{Ask, Refusal};
use super::formats::Api;
use super::http::{Intake, Progress, Request};
use super::log::Provider;
use super::script::{How, Script};
use crate::base::buf::Buf;
use crate::base::tick::Tick;
use crate::rt::{Reader as _, Rt, Stop as _, Writer as _};

/// Room for one read while a request comes in.
const READ_BYTES: usize = 64 * 1024;
/// Bytes of next requests that are taken in while an answer is under way; then the eye closes.
const AHEAD_MAX: usize = 1024 * 1024;

/// A provider and the end of its loop, as the connections of one core share them.
pub struct Site {
    /// The provider.
    pub provider: Arc<Provider>,
    halt: Halt,
}

impl Site {
    /// A site that runs until `halt`.
    pub fn new(provider: Arc<Provider>) -> Site {
        Site { provider, halt: Halt::default() }
    }

    /// Ends every connection at its next wait.
    pub fn halt(&self) {
        self.halt.on.set(true);
        for waker in self.halt.wakers.borrow().values() {
            waker.wake_by_ref();
        }
    }

    /// Whether it is ending.
    pub fn is_halted(&self) -> bool {
        self.halt.on.get()
    }

    /// Counts a task of this site in or out; `is_idle` is when all are out.
    pub fn count(&self, running: bool) {
        let open = self.halt.open.get();
        self.halt.open.set(if running { open + 1 } else { open.saturating_sub(1) });
    }

    /// Whether no connection is left.
    pub fn is_idle(&self) -> bool {
        self.halt.open.get() == 0
    }
}

#[derive(Default)]
struct Halt {
    on: Cell<bool>,
    open: Cell<u32>,
    wakers: RefCell<BTreeMap<u64, Waker>>,
}

/// Why a connection is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Over {
    /// The peer ended or reset it.
    Peer,
    /// The act ended it.
    Act(How),
    /// The sandbox stops.
    Halt,
}

/// Serves one connection to its end.
pub async fn serve_connection<R: Rt>(rt: R, reader: R::Reader, writer: R::Writer, site: Rc<Site>) {
    let id = site.provider.accepted(rt.now());
    site.count(true);
    let mut line = Line {
        rt,
        reader,
        writer,
        stop: R::Stop::new(),
        inbox: Buf::new(),
        intake: Intake::default(),
        id,
        served: 0,
        entry: None,
        site,
    };
    let over = line.run().await;
    let Line { rt, reader, writer, site, .. } = line;
    let now = rt.now();
    match over {
        Over::Act(How::Rst) => R::abort(reader, writer),
        Over::Act(How::Fin) | Over::Peer | Over::Halt => drop((reader, writer)),
    }
    site.provider.connection(id, |record| record.closed = Some(now));
    site.halt.wakers.borrow_mut().remove(&id);
    site.count(false);
}

struct Line<R: Rt> {
    rt: R,
    reader: R::Reader,
    writer: R::Writer,
    stop: R::Stop,
    /// Bytes received and not yet understood.
    inbox: Buf,
    intake: Intake,
    id: u64,
    served: u64,
    /// The request that is being answered.
    entry: Option<u64>,
    site: Rc<Site>,
}

impl<R: Rt> Line<R> {
    async fn run(&mut self) -> Over {
        loop {
            let request = match self.request().await {
                Ok(request) => request,
                Err(over) => return over,
            };
            let closes = request.closes();
            if let Err(over) = self.answer(request).await {
                return over;
            }
            self.served += 1;
            if closes {
                return Over::Act(How::Fin);
            }
        }
    }

    /// The next request, whole.
    async fn request(&mut self) -> Result<Request, Over> {
        loop {
            match self.intake.read(&mut self.inbox) {
                Progress::Done(request) => return Ok(*request),
                Progress::Expects => {
                    self.send(Buf::from(&b"HTTP/1.1 100 Continue\r\n\r\n"[..])).await?;
                }
                Progress::Bad(why) => {
                    let mut out = Buf::new();
                    let message = why.to_owned();
                    Act::refusal(
                        &mut out,
                        Api::Echo,
                        &Refusal { status: 400, message, param: None },
                    );
                    self.send(out).await?;
                    return Err(Over::Act(How::Fin));
                }
                Progress::More(_) => {
                    // Between requests nothing is parked; inside one the read itself may wait.
                    self.wait_readable().await?;
                    self.receive().await?;
                }
            }
        }
    }

    async fn answer(&mut self, request: Request) -> Result<(), Over> {
        if request.path.starts_with("/_sandbox/") {
            return self.command(&request).await;
        }
        let now = self.rt.now();
        let mut out = Buf::new();
        let (ask, entry) = match Ask::read(&request) {
            Ok(ask) => {
                let entry = self.site.provider.asked(now, self.id, &request, &ask);
                self.entry = Some(entry);
                (ask, entry)
            }
            Err((api, refusal)) => {
                Act::refusal(&mut out, api, &refusal);
                return self.send(out).await;
            }
        };
        drop(request);
        let script = match ask.script(self.site.provider.script().as_ref()) {
            Ok(script) => script,
            Err(refusal) => {
                Act::refusal(&mut out, ask.api, &refusal);
                let done = self.send(out).await;
                return self.ended(entry, done);
            }
        };
        let name = self.site.provider.name().to_owned();
        let id = format!("sandbox-{name}-{entry}");
        let created = self.rt.wall().0 / 1000;
        let act =
            Act::new(Answer { name, id, created, ask, script, stretch: None }, self.served > 0);
        let done = self.perform(act).await;
        self.ended(entry, done)
    }

    fn ended(&mut self, entry: u64, done: Result<(), Over>) -> Result<(), Over> {
        let now = self.rt.now();
        self.entry = None;
        self.site.provider.request(entry, |record| {
            record.ended = Some(now);
            if done == Err(Over::Peer) {
                record.peer_closed = Some(now);
            }
        });
        done
    }

    async fn perform(&mut self, mut act: Act) -> Result<(), Over> {
        let mut out = Buf::new();
        loop {
            match act.next(&mut out) {
                Step::Write => {
                    self.send(out).await?;
                    out = Buf::new();
                }
                Step::Pause(pause) => self.pause(self.rt.now() + pause).await?,
                Step::Hang => self.pause(Tick::NEVER).await?,
                Step::End(how) => return Err(Over::Act(how)),
                Step::Done => return Ok(()),
            }
        }
    }

    /// `/_sandbox/log`, `/_sandbox/last` and `/_sandbox/script`.
    async fn command(&mut self, request: &Request) -> Result<(), Over> {
        let provider = &self.site.provider;
        let (status, kind, body) = match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/_sandbox/log") => {
                let log = provider.log().to_json(provider.name(), self.rt.now());
                (200, "application/json", log.to_string().into_bytes())
            }
            ("GET", "/_sandbox/last") => {
                (200, "application/octet-stream", provider.log().last_body)
            }
            ("DELETE", "/_sandbox/log") => {
                provider.forget();
                (200, "text/plain", Vec::new())
            }
            ("PUT", "/_sandbox/script") => {
                let text = String::from_utf8_lossy(&request.body);
                let over = match text.trim() {
                    "" => Ok(None),
                    text => Script::parse(text).map(Some),
                };
                match over {
                    Ok(over) => {
                        provider.set_script(over);
                        (200, "text/plain", Vec::new())
                    }
                    Err(why) => (400, "text/plain", format!("{why}\n").into_bytes()),
                }
            }
            _ => (404, "text/plain", b"GET log, GET last, DELETE log, PUT script\n".to_vec()),
        };
        let reason = if status == 200 { "OK" } else { "Refused" };
        let head = format!(
            "HTTP/1.1 {status} {reason}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let mut out = Buf::from(head.as_bytes());
        out.extend(&body);
        self.send(out).await
    }

    /// Sends all of `out`, with an eye on the read side.
    async fn send(&mut self, mut out: Buf) -> Result<(), Over> {
        while !out.is_empty() {
            let (result, rest) = self.write(out).await;
            out = rest;
            let count = match result {
                Ok(Ok(count)) => count,
                Ok(Err(_)) => return Err(self.peer_gone()),
                Err(over) => return Err(over),
            };
            out.consume(count);
            self.site.provider.sent(self.id, self.entry, count as u64);
            if count == 0 {
                return Err(self.peer_gone());
            }
        }
        Ok(())
    }

    /// One write, awaited to its end even when the peer goes meanwhile.
    async fn write(&mut self, out: Buf) -> (Result<std::io::Result<usize>, Over>, Buf) {
        let Line { rt, reader, writer, stop, inbox, id, site, .. } = self;
        let mut eye = Eye { rt, reader, inbox, id: *id, site };
        let handle = stop.handle();
        let mut op = pin!(writer.write(out, handle));
        match eye.watch(op.as_mut()).await {
            Ok((result, out)) => (Ok(result), out),
            Err(over) => {
                stop.stop();
                let (_, out) = op.await;
                (Err(over), out)
            }
        }
    }

    /// Waits until `at`, with an eye on the read side.
    async fn pause(&mut self, at: Tick) -> Result<(), Over> {
        let Line { rt, reader, inbox, id, site, .. } = self;
        let timer = pin!(rt.sleep_until(at));
        let mut eye = Eye { rt, reader, inbox, id: *id, site };
        eye.watch(timer).await
    }

    /// Waits until there is something to read; parks no buffer.
    async fn wait_readable(&mut self) -> Result<(), Over> {
        let mut ready = pin!(self.reader.ready());
        let halt = &self.site.halt;
        std::future::poll_fn(|cx| {
            if halt.poll(self.id, cx) {
                return Poll::Ready(Err(Over::Halt));
            }
            // An error of the wait is the read's to tell.
            ready.as_mut().poll(cx).map(|_| Ok(()))
        })
        .await
    }

    async fn receive(&mut self) -> Result<(), Over> {
        let Line { rt, reader, inbox, id, site, .. } = self;
        Eye { rt, reader, inbox, id: *id, site }.receive().await
    }

    fn peer_gone(&self) -> Over {
        let now = self.rt.now();
        self.site.provider.connection(self.id, |record| {
            record.peer_closed.get_or_insert(now);
        });
        Over::Peer
    }
}

impl Halt {
    /// Whether the loop ends; if not, the task is woken when it does.
    fn poll(&self, id: u64, cx: &mut Context<'_>) -> bool {
        if self.on.get() {
            return true;
        }
        let mut wakers = self.wakers.borrow_mut();
        match wakers.get_mut(&id) {
            Some(waker) => waker.clone_from(cx.waker()),
            None => drop(wakers.insert(id, cx.waker().clone())),
        }
        false
    }
}

/// The read side, while something else is waited for.
struct Eye<'l, R: Rt> {
    rt: &'l R,
    reader: &'l mut R::Reader,
    inbox: &'l mut Buf,
    id: u64,
    site: &'l Rc<Site>,
}

impl<R: Rt> Eye<'_, R> {
    /// Polls `op` to its end, unless the peer goes first. The caller still owns `op` then.
    async fn watch<F: Future>(&mut self, mut op: std::pin::Pin<&mut F>) -> Result<F::Output, Over> {
        loop {
            let site = self.site;
            let open = self.inbox.len() < AHEAD_MAX;
            let mut ready = pin!(self.reader.ready());
            let id = self.id;
            let first = std::future::poll_fn(|cx| {
                if let Poll::Ready(done) = op.as_mut().poll(cx) {
                    return Poll::Ready(Ok(Some(done)));
                }
                if site.halt.poll(id, cx) {
                    return Poll::Ready(Err(Over::Halt));
                }
                if open && ready.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Ok(None));
                }
                Poll::Pending
            })
            .await?;
            match first {
                Some(done) => return Ok(done),
                None => self.receive().await?,
            }
        }
    }

    /// One read into the inbox. It does not wait long: `ready` said so.
    async fn receive(&mut self) -> Result<(), Over> {
        let mut inbox = self.inbox.take();
        inbox.reserve(if inbox.is_empty() { 4096 } else { READ_BYTES });
        let stop = R::Stop::new();
        let (result, inbox) = self.reader.read(inbox, stop.handle()).await;
        *self.inbox = inbox;
        let now = self.rt.now();
        match result {
            Ok(count) if count > 0 => {
                let count = count as u64;
                self.site.provider.connection(self.id, |record| record.bytes_in += count);
                Ok(())
            }
            Ok(_) | Err(_) => {
                self.site.provider.connection(self.id, |record| {
                    record.peer_closed.get_or_insert(now);
                });
                Err(Over::Peer)
            }
        }
    }
}

#[cfg(test)]
mod tests;
