//! The client's socket, with TLS or without: handshake, reads, writes, and the end of it.
//!
//! What is above sees plaintext in `rx` and hands plaintext to be written. Under TLS each received
//! record is opened as it comes, so nothing waits inside the session, and a wait for the socket is a wait
//! for the client. What the session has to say of its own (a key update) goes with the next write. An
//! end of the connection without the client's close_notify reads as an end here; whoever waits for more
//! takes either for a client that is gone.

use std::io;
use std::task::{Context, Poll};

use crate::base::buf::Buf;
use crate::base::fail::Fault;
use crate::base::limits;
use crate::base::tick::{Ms, Tick};
use crate::exchange::keep_memory;
use crate::net::core::Core;
use crate::net::tls::Session;
use crate::net::watch::NoSession;
use crate::rt::{Reader as _, Rt, Stop as _, Watching, Writer as _, is_later, until};

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
    /// Says when there is something to read. It outlives exchanges: the end of one is the wait for the next.
    watch: Option<Watching>,
    /// It is awaited.
    watches: bool,
    /// It has said so.
    readable: bool,
    /// Octets that the socket has accepted so far.
    pub(super) written: u64,
    /// It was left with octets that it does not take, or with an answer that its end would make whole.
    pub(super) is_stuck: bool,
    /// What is between the socket and `rx`, where TLS is spoken.
    pub(super) tls: Option<Box<Secure>>,
}

/// A session with its buffers.
pub(super) struct Secure {
    session: Session,
    /// Received records; empty but while a read has it.
    pub(super) cipher: Buf,
    /// The memory of sealed records, between two writes.
    sealed: Buf,
    /// The memory of what was sealed, while the records go out.
    plain: Buf,
    /// The client has said that it sends no more.
    closed: bool,
}

/// What a read brought.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Received {
    /// Something, in `rx`.
    Some,
    /// The end, or a fault: nothing more will come.
    End,
    /// The deadline passed first.
    TimedOut,
}

/// How a handshake ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Hello {
    /// Requests may come.
    Done,
    /// The client speaks plain HTTP; what it said is in `rx`.
    Plain,
    /// No session came to be, and the client was told if there was something to tell.
    Refused(NoSession),
    /// The client left, or dawdled.
    Gone(NoSession),
}

impl Secure {
    /// Opens what was received into `rx`; says whether the client will send no more.
    ///
    /// # Errors
    /// `Tls`: it does not verify.
    pub(super) fn open(&mut self, rx: &mut Buf) -> Result<bool, Fault> {
        let opened = self.session.open(&mut self.cipher, rx);
        self.cipher.clear();
        self.closed |= matches!(opened, Ok(true) | Err(_));
        opened
    }

    /// Seals plaintext; its memory is kept for `take_back`.
    ///
    /// # Errors
    /// `Tls`.
    pub(super) fn seal(&mut self, mut plain: Buf) -> Result<Buf, Fault> {
        let mut out = self.sealed.take();
        out.clear();
        out.reserve(plain.len() + plain.len() / 64 + 64);
        self.session.seal(&plain, &mut out)?;
        plain.clear();
        self.plain = plain;
        Ok(out)
    }

    /// Takes the memory of records that are out, and gives back that of their plaintext.
    pub(super) fn take_back(&mut self, sealed: Buf) -> Buf {
        self.sealed = sealed;
        self.plain.take()
    }
}

impl<R: Rt> Down<R> {
    /// A socket that was just accepted.
    pub(super) fn new(reader: R::Reader, writer: R::Writer) -> Down<R> {
        let (reader, writer) = (Some(reader), Some(writer));
        Down {
            reader,
            writer,
            rx: Buf::new(),
            stop: R::Stop::new(),
            watch: None,
            watches: false,
            readable: false,
            written: 0,
            is_stuck: false,
            tls: None,
        }
    }

    /// Begins to watch for something to read, unless that is under way; false if there is no reader.
    pub(super) fn watch(&mut self) -> bool {
        if self.watch.is_none() {
            self.watch = self.reader.as_ref().map(|reader| reader.watching());
        }
        self.watches = self.watch.is_some();
        self.watches
    }

    /// Completes when what is watched has something to read.
    pub(super) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(watch) = self.watch.as_mut().filter(|_| self.watches) else {
            return Poll::Pending;
        };
        let done = watch.poll(cx);
        if done.is_ready() {
            self.watches = false;
            self.readable = true;
        }
        done
    }

    /// Whether the client has said that no further request will come.
    pub(super) fn is_closed(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.closed)
    }

    /// How many octets the client's system has taken so far; none if that can't be told now.
    pub(super) fn taken(&self) -> Option<u64> {
        let waiting = self.reader.as_ref()?.unacked()?;
        Some(self.written.saturating_sub(waiting as u64))
    }

    /// Gives memory back that only a request needs.
    pub(super) fn rest(&mut self, core: &Core<R>) {
        keep_memory(self.rx.take_idle(), &mut core.memory.borrow_mut());
        if let Some(tls) = &mut self.tls {
            tls.cipher.shrink_idle(0);
            tls.sealed = Buf::new();
        }
    }

    /// One read into `rx`: under TLS as many as make a record.
    pub(super) async fn receive(&mut self, core: &Core<R>, deadline: Tick) -> Received {
        let is_long = self.rx.len() >= limits::READ_BYTES_MIN;
        let room = if is_long { limits::READ_BYTES_MAX } else { limits::READ_BYTES_MIN };
        self.receive_some(core, deadline, room).await
    }

    /// As `receive`, with so much room in bytes.
    pub(super) async fn receive_some(
        &mut self,
        core: &Core<R>,
        deadline: Tick,
        room: usize,
    ) -> Received {
        if self.tls.is_none() {
            let mut rx = self.rx.take();
            if rx.capacity() == 0 {
                rx = core.memory.borrow_mut().pop().unwrap_or_default();
            }
            rx.reserve(room);
            let received = self.read(core, &mut rx, deadline).await;
            self.rx = rx;
            return received;
        }
        let before = self.rx.len();
        loop {
            let mut cipher = self.tls.as_mut().map(|tls| tls.cipher.take()).unwrap_or_default();
            cipher.reserve(room);
            let received = self.read(core, &mut cipher, deadline).await;
            let Some(tls) = &mut self.tls else { return Received::End };
            tls.cipher = cipher;
            if received != Received::Some {
                return received;
            }
            let opened = tls.open(&mut self.rx);
            if self.rx.len() > before {
                return Received::Some;
            }
            if !matches!(opened, Ok(false)) {
                return Received::End;
            }
        }
    }

    /// One read into the spare room of a buffer.
    async fn read(&mut self, core: &Core<R>, into: &mut Buf, deadline: Tick) -> Received {
        // Nobody else may wait meanwhile.
        self.watches = false;
        self.watch.take_if(|watch| watch.is_waiting());
        let Some(reader) = &mut self.reader else { return Received::End };
        let mut rx = into.take();
        if std::mem::take(&mut self.readable) {
            let (result, back) = reader.try_read(rx);
            rx = back;
            match result {
                Err(error) if is_later(&error) => {}
                done => {
                    *into = rx;
                    return if done.is_ok_and(|count| count > 0) {
                        Received::Some
                    } else {
                        Received::End
                    };
                }
            }
        }
        let handle = self.stop.handle();
        let ((result, rx), timed_out) =
            until(&core.rt, &mut self.stop, deadline, reader.read(rx, handle)).await;
        *into = rx;
        match result {
            Ok(0) => Received::End,
            Ok(_) => Received::Some,
            Err(_) if timed_out => Received::TimedOut,
            Err(_) => Received::End,
        }
    }

    /// Reads what nobody wants, records unopened, and says how much it was; 0: no more comes in time. The
    /// memory is that of one read, whatever comes.
    pub(super) async fn discard(&mut self, core: &Core<R>, deadline: Tick) -> usize {
        let mut waste = self.rx.take();
        waste.clear();
        waste.shrink_idle(limits::READ_BYTES_MAX);
        waste.reserve(limits::READ_BYTES_MAX);
        let received = self.read(core, &mut waste, deadline).await;
        let count = waste.len();
        self.rx = waste;
        self.rx.clear();
        if received == Received::Some { count } else { 0 }
    }

    /// Says something between answers; whether all of it went out in time.
    pub(super) async fn say(&mut self, core: &Core<R>, plain: Buf, deadline: Tick) -> bool {
        let mut out = match &mut self.tls {
            None => plain,
            Some(tls) => match tls.seal(plain) {
                Ok(sealed) => sealed,
                Err(_) => return false,
            },
        };
        self.write(core, &mut out, deadline).await
    }

    async fn write(&mut self, core: &Core<R>, out: &mut Buf, deadline: Tick) -> bool {
        let Some(writer) = &mut self.writer else { return false };
        let mut stop = R::Stop::new();
        while !out.is_empty() {
            let handle = stop.handle();
            let ((result, rest), timed_out) =
                until(&core.rt, &mut stop, deadline, writer.write(out.take(), handle)).await;
            *out = rest;
            match result {
                Ok(count) if count > 0 => {
                    self.written += count as u64;
                    out.consume(count);
                }
                Ok(_) | Err(_) => return false,
            }
            if timed_out && !out.is_empty() {
                return false;
            }
        }
        true
    }

    /// Shakes hands before the first request.
    pub(super) async fn hello(
        &mut self,
        core: &Core<R>,
        mut session: Session,
        deadline: Tick,
    ) -> Hello {
        let (mut cipher, mut begun) = (Buf::new(), false);
        loop {
            let mut out = Buf::new();
            if session.flush(&mut out).is_err() || !self.write(core, &mut out, deadline).await {
                return Hello::Gone(NoSession::Closed);
            }
            if !session.is_handshaking() {
                break;
            }
            cipher.reserve(limits::READ_BYTES_MIN);
            match self.read(core, &mut cipher, deadline).await {
                Received::Some => {}
                Received::End => return Hello::Gone(NoSession::Closed),
                Received::TimedOut => return Hello::Gone(NoSession::Timeout),
            }
            if !std::mem::replace(&mut begun, true) && is_http(cipher.as_slice()) {
                self.rx = cipher;
                return Hello::Plain;
            }
            let opened = session.open(&mut cipher, &mut self.rx);
            if matches!(opened, Ok(false)) {
                continue;
            }
            // An end that it announced, in the middle of the handshake, is an end.
            let why = if opened.is_ok() { NoSession::Closed } else { session.why() };
            // The alert that says why (RFC 8446 section 6.2), if the client still takes it.
            let mut out = Buf::new();
            let told = session.flush(&mut out).is_ok();
            let _ = told && self.write(core, &mut out, deadline).await;
            return Hello::Refused(why);
        }
        let (cipher, sealed, plain) = (Buf::new(), Buf::new(), Buf::new());
        self.tls = Some(Box::new(Secure { session, cipher, sealed, plain, closed: false }));
        Hello::Done
    }

    /// Ends our side of a session that is in order; without TLS there is nothing to say.
    pub(super) async fn farewell(&mut self, core: &Core<R>) {
        let Some(tls) = &mut self.tls else { return };
        let mut out = Buf::new();
        tls.session.end();
        if tls.session.flush(&mut out).is_ok() {
            // The connection closes whether the client takes it or not.
            let _ = self.write(core, &mut out, core.rt.now() + FAREWELL).await;
        }
    }
}

/// Whether this is the beginning of a request without TLS: no record begins with a letter.
fn is_http(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(u8::is_ascii_alphabetic)
}

/// How long a client gets to take the end of a session.
const FAREWELL: Ms = Ms(1_000);

#[cfg(test)]
mod tests {
    use super::is_http;

    #[test]
    fn records_are_no_requests() {
        // Of a handshake (RFC 8446 section 5.1), an alert, and what SSL 2 said.
        for record in [&b"\x16\x03\x01\x02\x00"[..], b"\x15\x03\x01", b"\x80\x2e", b"", b"\r\n"] {
            assert!(!is_http(record), "{record:?}");
        }
        assert!(is_http(b"G") && is_http(b"POST /v1"));
    }
}
