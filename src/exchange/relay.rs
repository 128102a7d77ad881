//! From received bytes to the client's bytes, for one lane: response head, transfer framing, events,
//! adapter. It writes into `lane.held` and says what it came to; it decides nothing about other
//! attempts and knows no client socket.
//!
//! ```text
//!   rx --head--> --Body::decode in place--> payload --Scanner--> frames --Stream::feed--> held
//! ```
//!
//! Whole events are read where they lie; only the torn start of a head or event is copied, to `torn`.

use crate::base::buf::Buf;
use crate::base::fail::{Failure, Fault};
use crate::base::limits;
use crate::base::tick::{Ms, Tick, UnixMs};
use crate::config::Commit;
use crate::exchange::ledger::CommittedBy;
use crate::exchange::phase::{Lane, Pumped, Reading, Stage};
use crate::llm::event::Mark;
use crate::llm::provider::{Framing, Named, Refusal};
use crate::llm::sink::{Sink, Told};
use crate::route::Rules;
use crate::wire::aws_event::{self, Unsound};
use crate::wire::http1::body::Body;
use crate::wire::http1::emit;
use crate::wire::http1::head::{self, ResponseHead};
use crate::wire::sse::Frame;
use crate::wire::{Span, json, lines};

/// What a lane needs to know of its exchange.
pub(super) struct Reads<'a> {
    pub rules: &'a Rules,
    pub surface: crate::llm::request::Surface,
    pub stream: bool,
    pub include_usage: bool,
    pub shown: &'a str,
    pub id: &'a str,
    pub idle: Ms,
    pub now: Tick,
    pub wall: UnixMs,
}

impl Lane {
    /// Takes what was received. `rx` is empty afterwards, its memory kept.
    pub(super) fn pump(&mut self, rx: &mut Buf, reads: &Reads<'_>) -> Pumped {
        self.heard |= !rx.is_empty();
        if self.stage == Stage::Head {
            match self.pump_head(rx, reads) {
                Ok(true) => {}
                Ok(false) => return Pumped::More,
                Err(fault) => return Pumped::Bad(Failure::of(fault)),
            }
        }
        let Stage::Body(reading) = self.stage else { return Pumped::More };
        let (decoded, fault) = self.body.decode_up_to_fault(rx.as_mut_slice());
        if rx.len() > decoded.used {
            // Octets after the end belong to nobody: the connection can't be trusted any more.
            self.head_keeps = false;
        }
        rx.truncate(decoded.payload);
        let pumped = self.pump_body(rx, reading, reads);
        rx.clear();
        match pumped {
            Pumped::More if fault.is_some() => Pumped::Bad(Failure::of(Fault::Malformed)),
            Pumped::More if decoded.done => self.finish(reads),
            other => other,
        }
    }

    /// The connection ended.
    pub(super) fn eof(&mut self, reads: &Reads<'_>) -> Pumped {
        match self.stage {
            Stage::Dialing | Stage::Head => Pumped::Bad(Failure::of(Fault::Eof)),
            Stage::Body(_) if self.body.eof().is_ok() => self.finish(reads),
            Stage::Body(reading) => self.broken(Fault::Eof, reading, reads),
        }
    }

    /// The connection broke: an answer whose terminal signal was seen is whole all the same.
    pub(super) fn broken(&mut self, fault: Fault, reading: Reading, reads: &Reads<'_>) -> Pumped {
        self.head_keeps = false;
        if reading == Reading::Events && self.stream.is_finished() {
            return self.finish(reads);
        }
        Pumped::Bad(Failure::of(fault))
    }

    /// Parses the head; `Ok(true)` once the body has begun, with its first bytes left in `rx`.
    fn pump_head(&mut self, rx: &mut Buf, reads: &Reads<'_>) -> Result<bool, Fault> {
        if !self.torn.is_empty() {
            self.torn.extend(rx.as_slice());
            std::mem::swap(rx, &mut self.torn);
            self.torn.clear();
        }
        while self.interim <= INTERIM_MAX {
            let parsed = head::parse_response(rx.as_slice(), limits::HEAD_BYTES_MAX, false);
            let Some(head) = parsed.map_err(|_| Fault::Malformed)? else {
                std::mem::swap(rx, &mut self.torn);
                rx.clear();
                return Ok(false);
            };
            if head.status == 101 {
                return Err(Fault::Malformed);
            }
            if head.status >= 200 {
                self.take_head(&head, rx.as_slice(), reads)?;
                rx.consume(head.len);
                return Ok(true);
            }
            rx.consume(head.len);
            self.interim += 1;
        }
        Err(Fault::Malformed)
    }

    fn take_head(
        &mut self,
        head: &ResponseHead,
        bytes: &[u8],
        reads: &Reads<'_>,
    ) -> Result<(), Fault> {
        self.status = head.status;
        self.head_keeps = head.keep_alive;
        self.body = Body::new(head.framing);
        let good = (200..300).contains(&head.status);
        let identity = head
            .fields_named(bytes, b"content-encoding")
            .all(|coding| coding.is_empty() || coding.eq_ignore_ascii_case(b"identity"));
        if good && !identity {
            return Err(Fault::Malformed);
        }
        let kind = head.field(bytes, b"content-type").unwrap_or_default();
        self.content_type = kind.iter().copied().take(CONTENT_TYPE_MAX).collect();
        if let Some(name) = head.field(bytes, b"x-amzn-errortype") {
            self.error_type = name.iter().copied().take(ERROR_TYPE_MAX).collect();
        }
        self.retry_after = retry_after(head, bytes, reads.wall);
        let reading = if !good {
            Reading::Error
        } else if reads.surface.is_understood() {
            if reads.stream { Reading::Events } else { Reading::Whole }
        } else if is_event_stream(kind) {
            Reading::Raw
        } else {
            Reading::Opaque
        };
        self.stage = Stage::Body(reading);
        let streams = matches!(reading, Reading::Events | Reading::Raw);
        // A 204 has no body in which a cut could be told, and none that could be a stream.
        if streams && head.status != 204 && reads.rules.commit == Commit::Headers {
            self.ripen(CommittedBy::Head);
        }
        Ok(())
    }

    fn pump_body(&mut self, payload: &mut Buf, reading: Reading, reads: &Reads<'_>) -> Pumped {
        match reading {
            Reading::Events => self.pump_events(payload, false, reads),
            Reading::Whole | Reading::Opaque => {
                self.held.extend(payload.as_slice());
                if self.held.len() > reads.rules.answer_max as usize {
                    if reading == Reading::Whole && !self.pass_over(reads) {
                        return Pumped::Bad(Failure::of(Fault::AnswerTooLarge));
                    }
                    self.stage = Stage::Body(Reading::Raw);
                    self.ripen(CommittedBy::AnswerFull);
                }
                Pumped::More
            }
            Reading::Raw => {
                if !payload.is_empty() {
                    self.held.extend(payload.as_slice());
                    self.contents += 1;
                    self.first.get_or_insert(reads.now);
                    self.idle_at = reads.now + reads.idle;
                    if reads.rules.commit != Commit::Complete {
                        self.ripen(CommittedBy::FirstEvent);
                    }
                    self.check_hold(reads);
                }
                Pumped::More
            }
            Reading::Error => {
                let room = limits::ERROR_BYTES_MAX.saturating_sub(self.held.len());
                self.held.extend(&payload.as_slice()[..payload.len().min(room)]);
                Pumped::More
            }
        }
    }

    /// An answer is too large to be held: makes its beginning fit to be passed on, if the rest needs no
    /// translation.
    fn pass_over(&mut self, reads: &Reads<'_>) -> bool {
        if !self.stream.speaks(self.told.dialect()) {
            return false;
        }
        let begun = self.held.as_slice();
        let object = json::Value { kind: json::Kind::Object, span: Span::new(0, begun.len()) };
        // What has come so far is no whole object; its members are, but for the last one.
        let model = json::members(begun, object).find(|member| member.is(begun, "model"));
        if let Some(model) = model.filter(|model| model.value.kind == json::Kind::String) {
            let range = std::ops::Range::from(model.value.span);
            let mut renamed = Buf::with_capacity(begun.len() + reads.shown.len());
            renamed.extend(&begun[..range.start]);
            json::write_string(&mut renamed, reads.shown);
            renamed.extend(&begun[range.end..]);
            self.held = renamed;
        }
        true
    }

    /// Reads all whole events of `payload` (and of what was torn before it).
    fn pump_events(&mut self, payload: &mut Buf, eof: bool, reads: &Reads<'_>) -> Pumped {
        if self.held.is_empty() {
            // What is told goes out as one chunk from where it is written.
            self.held.leave_gap(emit::CHUNK_PREFIX_MAX);
        }
        let mut work = if self.torn.is_empty() {
            payload.take()
        } else {
            self.torn.extend(payload.as_slice());
            self.torn.take()
        };
        let (at, pumped) = match self.stream.framing() {
            Framing::Sse => self.pump_blocks(work.as_slice(), eof, reads),
            Framing::Lines => self.pump_lines(work.as_slice(), eof, reads),
            Framing::AwsEvents => self.pump_messages(work.as_slice(), reads),
        };
        work.consume(at);
        if pumped == Pumped::More && !work.is_empty() {
            self.torn.extend(work.as_slice());
        }
        work.clear();
        if payload.capacity() < work.capacity() {
            *payload = work;
        }
        pumped
    }

    /// Reads server-sent events; says how many bytes are done with.
    fn pump_blocks(&mut self, work: &[u8], eof: bool, reads: &Reads<'_>) -> (usize, Pumped) {
        let mut at = 0;
        loop {
            match self.scanner.next(&work[at..], eof) {
                Ok(Some(frame)) => {
                    let block = &work[at..at + frame.len];
                    at += frame.len;
                    match self.event(&frame, block, reads) {
                        Pumped::More => {}
                        other => return (at, other),
                    }
                }
                Ok(None) => return (at, Pumped::More),
                Err(_) => return (at, Pumped::Bad(Failure::of(Fault::FrameTooLarge))),
            }
        }
    }

    /// Reads lines of JSON; the last one counts without its line end.
    fn pump_lines(&mut self, work: &[u8], eof: bool, reads: &Reads<'_>) -> (usize, Pumped) {
        let mut at = 0;
        loop {
            match lines::next(&work[at..], eof, limits::FRAME_BYTES_MAX) {
                Ok(Some(line)) => {
                    at += line.used;
                    match self.payload(line.text, line.ended, reads) {
                        Pumped::More => {}
                        other => return (at, other),
                    }
                }
                Ok(None) => return (at, Pumped::More),
                Err(_) => return (at, Pumped::Bad(Failure::of(Fault::FrameTooLarge))),
            }
        }
    }

    /// Reads messages of the AWS event stream. A cut one at the end says nothing: whether the end is a
    /// good one is for `close` to say.
    fn pump_messages(&mut self, work: &[u8], reads: &Reads<'_>) -> (usize, Pumped) {
        let mut at = 0;
        loop {
            let rest = &work[at..];
            let message = match aws_event::next(rest, limits::FRAME_BYTES_MAX) {
                Ok(Some(message)) => message,
                Ok(None) => return (at, Pumped::More),
                Err(Unsound::TooLarge) => {
                    return (at, Pumped::Bad(Failure::of(Fault::FrameTooLarge)));
                }
                Err(_) => return (at, Pumped::Bad(Failure::of(Fault::BadFrame))),
            };
            at += message.len;
            let named = Named {
                kind: message.kind,
                name: message.name.of(rest),
                text: message.text.of(rest),
                payload: message.payload.of(rest),
            };
            let mut sink = sink(&mut self.held, &mut self.events, &mut self.told, reads);
            let fed = self.stream.feed_named(&named, &mut sink);
            match self.fed(fed, true, reads) {
                Pumped::More => {}
                other => return (at, other),
            }
        }
    }

    /// One event block.
    fn event(&mut self, frame: &Frame, block: &[u8], reads: &Reads<'_>) -> Pumped {
        let mut scratch = Vec::new();
        let payload = match frame.stray {
            // An error may hide in a line that is no field at all.
            Some(stray) if frame.data.is_empty() => stray.of(block),
            _ if frame.data.is_empty() => {
                // A keep-alive is passed on once the answer has begun; before, it would only be held.
                if frame.comment && self.first.is_some() {
                    self.held.extend(b":\n\n");
                }
                return Pumped::More;
            }
            _ => frame.payload(block, &mut scratch),
        };
        if frame.data.is_empty() {
            let mut sink = sink(&mut self.held, &mut self.events, &mut self.told, reads);
            let fed = self.stream.stray(payload, &mut sink);
            return self.fed(fed, frame.ended, reads);
        }
        if frame.event.of(block) == b"error" {
            return self.error_event(payload, reads);
        }
        if payload.is_empty() {
            // By the rules of the format an event without data is none; some proxies ping like this.
            return Pumped::More;
        }
        self.payload(payload, frame.ended, reads)
    }

    /// The payload of an event that the provider itself calls `error`. An adapter that knows its form
    /// names it; whatever else it holds, it is no part of an answer.
    fn error_event(&mut self, payload: &[u8], reads: &Reads<'_>) -> Pumped {
        let before = self.held.len();
        let mut sink = sink(&mut self.held, &mut self.events, &mut self.told, reads);
        let fault = match self.stream.feed(payload, &mut sink) {
            Err(fault) if fault != Fault::BadFrame => fault,
            Ok(_) | Err(_) => self.stream.called_error(payload),
        };
        self.held.truncate(before);
        Pumped::Bad(Failure::of(fault))
    }

    /// One event's payload; `ended` says that its end was seen, and not just the stream's.
    fn payload(&mut self, payload: &[u8], ended: bool, reads: &Reads<'_>) -> Pumped {
        let mut sink = sink(&mut self.held, &mut self.events, &mut self.told, reads);
        let fed = self.stream.feed(payload, &mut sink);
        self.fed(fed, ended, reads)
    }

    fn fed(&mut self, fed: Result<Mark, Fault>, ended: bool, reads: &Reads<'_>) -> Pumped {
        match fed {
            // The torn end of a stream is no malformed event: whether the end is a good one is for
            // `close` to say.
            Err(Fault::BadFrame) if !ended => return Pumped::More,
            Err(fault) => return Pumped::Bad(Failure::of(fault)),
            Ok(Mark::Idle) => return Pumped::More,
            Ok(Mark::End) => return self.finish(reads),
            Ok(Mark::Event) => self.note(false, reads),
            Ok(Mark::Content) => self.note(true, reads),
        }
        if self.told.is_overlong() {
            return Pumped::Bad(Failure::of(Fault::FrameTooLarge));
        }
        self.check_hold(reads);
        Pumped::More
    }

    /// Counts an event and asks the commit policy.
    fn note(&mut self, content: bool, reads: &Reads<'_>) {
        if content {
            self.contents += 1;
            self.idle_at = reads.now + reads.idle;
            if self.first.is_none() {
                self.first = Some(reads.now);
                self.floor_from = (reads.now, 0);
            }
        }
        match reads.rules.commit {
            Commit::Headers | Commit::Complete => {}
            Commit::FirstEvent => self.ripen(CommittedBy::FirstEvent),
            Commit::FirstContent if content => self.ripen(CommittedBy::FirstContent),
            Commit::FirstContent => {}
            Commit::Tokens { count, within } => {
                if content && self.contents == 1 {
                    self.tokens_at = reads.now + within;
                }
                if content && self.contents >= u32::from(count) {
                    self.ripen(CommittedBy::Tokens);
                }
            }
        }
        if self.stream.is_finished() {
            // Only trailers can follow; they have a short time of their own.
            self.idle_at = reads.now + TAIL.min(reads.idle);
        }
    }

    fn check_hold(&mut self, reads: &Reads<'_>) {
        if self.ripe.is_none() && self.held.len() > reads.rules.hold_max as usize {
            self.ripen(CommittedBy::HoldFull);
        }
    }

    /// The policy is satisfied; the first reason stands.
    pub(super) fn ripen(&mut self, by: CommittedBy) {
        self.ripe.get_or_insert(by);
    }

    /// The body is over, or the terminal signal was seen.
    pub(super) fn finish(&mut self, reads: &Reads<'_>) -> Pumped {
        let Stage::Body(reading) = self.stage else {
            return Pumped::Bad(Failure::of(Fault::Eof));
        };
        match reading {
            Reading::Events => self.finish_events(reads),
            Reading::Whole => self.finish_whole(reads),
            Reading::Opaque | Reading::Raw => {
                self.first.get_or_insert(reads.now);
                self.ripen(CommittedBy::Complete);
                Pumped::Good
            }
            Reading::Error => {
                let mut failure = self.stream.refused(&Refusal {
                    status: self.status,
                    retry_after: self.retry_after,
                    body: self.held.as_slice(),
                    error_type: &self.error_type,
                    surface: reads.surface,
                });
                failure.retry_after = failure.retry_after.or(self.retry_after);
                self.held.clear();
                Pumped::Bad(failure)
            }
        }
    }

    fn finish_events(&mut self, reads: &Reads<'_>) -> Pumped {
        if !self.torn.is_empty() {
            let mut none = Buf::new();
            match self.pump_events(&mut none, true, reads) {
                Pumped::More => {}
                other => return other,
            }
        }
        self.torn.clear();
        let mut sink = sink(&mut self.held, &mut self.events, &mut self.told, reads);
        match self.stream.close(reads.include_usage, &mut sink) {
            Ok(()) => {
                self.ripen(CommittedBy::Complete);
                Pumped::Good
            }
            Err(fault) => Pumped::Bad(Failure::of(fault)),
        }
    }

    fn finish_whole(&mut self, reads: &Reads<'_>) -> Pumped {
        // What was torn is empty, and its memory was lent for this.
        let mut body = std::mem::replace(&mut self.held, self.torn.take_idle());
        self.told.gather();
        let mut sink = sink(&mut self.held, &mut self.events, &mut self.told, reads);
        let read = self.stream.whole(body.as_slice(), &mut sink);
        body.clear();
        self.torn = body;
        match read {
            Ok(()) if reads.surface.has_choices() && !self.stream.has_answered() => {
                Pumped::Bad(Failure::of(Fault::BadFrame))
            }
            Ok(()) => {
                self.first.get_or_insert(reads.now);
                self.ripen(CommittedBy::Complete);
                Pumped::Good
            }
            Err(fault) => Pumped::Bad(Failure::of(fault)),
        }
    }
}

fn sink<'a>(
    out: &'a mut Buf,
    events: &'a mut u32,
    told: &'a mut Told,
    reads: &Reads<'a>,
) -> Sink<'a> {
    Sink { out, shown: reads.shown, events, id: reads.id, seconds: reads.wall.0 / 1000, told }
}

/// Whether a content type is that of server-sent events; names of types have no case.
pub(super) fn is_event_stream(kind: &[u8]) -> bool {
    kind.get(..EVENT_STREAM.len()).is_some_and(|start| start.eq_ignore_ascii_case(EVENT_STREAM))
}

/// How long the provider asks to be left alone: `retry-after-ms` (milliseconds), else `retry-after`
/// (seconds or an HTTP date, RFC 9110 section 10.2.3).
fn retry_after(head: &ResponseHead, bytes: &[u8], wall: UnixMs) -> Option<Ms> {
    let number = |name: &[u8], scale: f64| {
        let value = std::str::from_utf8(head.field(bytes, name)?).ok()?.trim();
        let value = value.parse::<f64>().ok()? * scale;
        (value.is_finite() && value >= 0.0).then_some(Ms(value.min(RETRY_AFTER_MAX) as u32))
    };
    number(b"retry-after-ms", 1.0).or_else(|| number(b"retry-after", 1000.0)).or_else(|| {
        let value = std::str::from_utf8(head.field(bytes, b"retry-after")?).ok()?;
        let at = httpdate::parse_http_date(value).ok()?;
        let at = at.duration_since(std::time::UNIX_EPOCH).ok()?.as_millis();
        let wait = u64::try_from(at).ok()?.saturating_sub(wall.0);
        Some(Ms(u32::try_from(wait).unwrap_or(u32::MAX).min(RETRY_AFTER_MAX as u32)))
    })
}

const EVENT_STREAM: &[u8] = b"text/event-stream";
/// Interim (1xx) responses before the real one.
const INTERIM_MAX: u8 = 8;
/// A content type is a few dozen bytes; what is longer is cut.
const CONTENT_TYPE_MAX: usize = 256;
/// An exception's name, and an address behind it that nobody needs.
const ERROR_TYPE_MAX: usize = 128;
/// After every choice has finished, usage and terminator follow at once or not at all.
const TAIL: Ms = Ms(2_000);
/// A day: no provider asks for more, and a wrong clock must not close a target for ever.
const RETRY_AFTER_MAX: f64 = 86_400_000.0;
