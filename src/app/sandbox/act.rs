//! The act: what a sandbox provider does with one request, as steps that a connection carries out.
//! Pure; the bytes of an event are made when they are due, so a long answer costs no memory.
//!
//! Two layers. The inner one makes pieces (interim heads, the head, one event at a time, the end) and
//! the pauses between them. The outer one counts the bytes on the wire and cuts them: at a split, into
//! single bytes, or off.
//!
//! ```text
//! pieces:  HTTP/1.1 200 OK..  | 1f\r\ndata: {..}\n\n\r\n | .. | 0\r\n\r\n
//! wire:    0 ........................ split=N ................ cut_byte=N
//! ```

use crate::base::buf::Buf;
use crate::base::tick::Ms;

use super::answer::{Answer, Piece};
use super::ask::Refusal;
use super::formats::{Api, Events, Format, Problem};
use super::script::{At, Framing, How, Named, Verb};

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write what was put out.
    Write,
    /// Wait.
    Pause(Ms),
    /// Wait until the client goes.
    Hang,
    /// Close the connection.
    End(How),
    /// The answer is over; the connection may serve another request.
    Done,
}

/// One request's act.
pub struct Act {
    answer: Answer,
    /// Whether the connection has served a request before.
    reused: bool,
    stage: Stage,
    /// Bytes that are due, not yet let out.
    due: Buf,
    /// The events of the current piece.
    events: Events,
    /// Bytes let out.
    wire: u64,
    /// A pause that comes before anything else.
    pause: Option<Ms>,
    /// A last word, once everything due is out.
    last: Option<Step>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Interim {
        left: u32,
    },
    Head,
    /// Events let out so far.
    Events {
        out: u32,
    },
    /// Silent but for comments.
    Pinging {
        period: Ms,
    },
    Over,
}

impl Act {
    /// The act that `answer`'s script asks for.
    pub fn new(answer: Answer, reused: bool) -> Act {
        let stage = Stage::Interim { left: answer.script.early_100 };
        let due = Buf::new();
        let events = Events::default();
        Act { answer, reused, stage, due, events, wire: 0, pause: None, last: None }
    }

    /// The refusal of a request that no script ran for, in the words of the API that was asked.
    pub fn refusal(out: &mut Buf, api: Api, refusal: &Refusal) {
        let refused = api.format().refuse(&Problem {
            status: refusal.status,
            named: Named::ByStatus,
            message: Some(&refusal.message),
            param: refusal.param,
            name: "",
        });
        let fields = format!("content-type: application/json\r\n{}", refused.fields);
        put_whole(out, refused.status, &fields, &refused.body);
    }

    /// The next step; its bytes, if it has some, are appended to `out`.
    pub fn next(&mut self, out: &mut Buf) -> Step {
        loop {
            if let Some(pause) = self.pause.take().filter(|&pause| pause > Ms(0)) {
                return Step::Pause(pause);
            }
            if self.answer.script.cut_byte.is_some_and(|cut| self.wire >= cut) {
                return Step::End(self.answer.script.how);
            }
            if !self.due.is_empty() {
                return self.let_out(out);
            }
            if let Some(last) = self.last {
                return last;
            }
            self.advance();
        }
    }

    /// The outer layer: as much of what is due as the script lets out in one write.
    fn let_out(&mut self, out: &mut Buf) -> Step {
        let script = &self.answer.script;
        let up_to = |mark: u64| usize::try_from(mark - self.wire).unwrap_or(usize::MAX);
        let mut count = self.due.len();
        if let Some(cut) = script.cut_byte {
            count = count.min(up_to(cut));
        }
        if let Some(split) = script.split.filter(|&split| split > self.wire) {
            let left = up_to(split);
            if left <= count {
                count = left;
                self.pause = Some(script.gap);
            }
        }
        if let Some(drip) = script.drip {
            count = 1;
            self.pause = Some(drip);
        }
        out.extend(&self.due.as_slice()[..count]);
        self.due.consume(count);
        self.wire += count as u64;
        Step::Write
    }

    /// The inner layer: the next piece.
    fn advance(&mut self) {
        match self.stage {
            Stage::Interim { left: 0 } => {
                self.stage = Stage::Head;
                self.pause = Some(self.answer.script.slow_head);
            }
            Stage::Interim { left } => {
                self.due.extend(b"HTTP/1.1 100 Continue\r\n\r\n");
                self.stage = Stage::Interim { left: left - 1 };
            }
            Stage::Head => self.head(),
            Stage::Events { out } => self.event(out),
            Stage::Pinging { period } => {
                self.ping();
                // A period of nothing would never let the loop go.
                self.pause = Some(period.max(Ms(1)));
            }
            Stage::Over => self.last = Some(self.ending()),
        }
    }

    fn ending(&self) -> Step {
        let script = &self.answer.script;
        match script.close_after {
            Some(how) => Step::End(how),
            None if script.framing == Some(Framing::Close) => Step::End(How::Fin),
            None => Step::Done,
        }
    }

    fn stop(&mut self, step: Step) {
        self.last = Some(step);
    }

    fn hang(&mut self) {
        match self.answer.script.ping {
            Some(period) if self.format().ping(&mut Events::default()) => {
                self.stage = Stage::Pinging { period };
            }
            Some(_) | None => self.stop(Step::Hang),
        }
    }

    fn ping(&mut self) {
        let format = self.format();
        format.ping(&mut self.events);
        let body = self.framed(true);
        self.put_chunk(body.as_slice(), false);
    }

    fn format(&self) -> &'static dyn Format {
        self.answer.ask.api.format()
    }

    /// The events that are there, as they lie on the wire; they are gone then.
    fn framed(&mut self, sound: bool) -> Buf {
        let mut body = Buf::new();
        let (wire, crlf) = (self.format().wire(), self.answer.script.crlf);
        let last = self.events.list.len().saturating_sub(1);
        for (i, event) in self.events.list.drain(..).enumerate() {
            wire.put(&event, crlf, sound || i < last, &mut body);
        }
        body
    }

    fn head(&mut self) {
        self.stage = Stage::Over;
        match self.answer.script.verb {
            Verb::Status { status, fault } => return self.refuse(status, fault),
            Verb::Html => {
                let body = "<html><head><title>502 Bad Gateway</title></head></html>\n";
                return put_whole(&mut self.due, 502, "content-type: text/html\r\n", body);
            }
            Verb::Redirect => {
                let fields = "location: http://127.0.0.1:9/elsewhere\r\n";
                return put_whole(&mut self.due, 307, fields, "");
            }
            Verb::Reset { at: At::Request } => return self.stop(Step::End(How::Rst)),
            Verb::ResetReused if self.reused => return self.stop(Step::End(How::Rst)),
            Verb::Hang { at: At::Request } => return self.stop(Step::Hang),
            Verb::Garbage => {
                self.due.extend(b"\x15\x03\x01\x00\x02\x02\x28 this is not HTTP\r\n\r\n");
                return self.stop(Step::End(How::Fin));
            }
            Verb::TwoLengths => {
                let mut fields = String::from("content-type: application/json\r\n");
                fields.push_str("content-length: 7\r\n");
                let whole = self.format().whole(&self.answer);
                return put_whole(&mut self.due, 200, &fields, &whole);
            }
            Verb::Ok
            | Verb::ResetReused
            | Verb::Empty
            | Verb::Reset { at: At::Head | At::Event(_) }
            | Verb::Hang { at: At::Head | At::Event(_) } => {}
        }
        if self.answer.ask.stream { self.stream_head() } else { self.whole() }
    }

    fn refuse(&mut self, status: u16, fault: Named) {
        let mut fields = String::from("content-type: application/json; charset=utf-8\r\n");
        if let Some(Ms(ms)) = self.answer.script.retry_after {
            fields.push_str(&format!("retry-after: {}\r\n", ms.div_ceil(1000)));
            if ms % 1000 != 0 {
                fields.push_str(&format!("retry-after-ms: {ms}\r\n"));
            }
        }
        let name = &self.answer.name;
        let problem = Problem { status, named: fault, message: None, param: None, name };
        let refused = self.format().refuse(&problem);
        fields.push_str(&refused.fields);
        put_whole(&mut self.due, refused.status, &fields, &refused.body);
    }

    fn stream_head(&mut self) {
        let fields = self.fields(self.format().wire().content_type());
        let end = match self.framing() {
            Framing::Chunked => "transfer-encoding: chunked".to_owned(),
            Framing::Close => "connection: close".to_owned(),
            Framing::Length => format!("content-length: {}", self.stream_bytes()),
        };
        put_start(&mut self.due, 200, &format!("{fields}{end}\r\n\r\n"));
        match self.answer.script.verb {
            Verb::Reset { at: At::Head } => self.stop(Step::End(How::Rst)),
            Verb::Hang { at: At::Head } => self.hang(),
            Verb::Empty => self.end_body(),
            _ => {
                self.stage = Stage::Events { out: 0 };
                // All events follow the head at once.
                while self.answer.script.at_once && self.last.is_none() {
                    let Stage::Events { out } = self.stage else { break };
                    self.event(out);
                }
            }
        }
    }

    /// Bytes of the whole stream, for a `Content-Length`.
    fn stream_bytes(&mut self) -> usize {
        if self.answer.script.verb == Verb::Empty {
            return 0;
        }
        let mut bytes = 0;
        for k in 0.. {
            let Some(body) = self.body(k) else { break };
            bytes += body.len();
        }
        self.events = Events::default();
        bytes
    }

    /// What event `k` is on the wire, bent as the script says; `None` past the end.
    fn body(&mut self, k: u32) -> Option<Buf> {
        let (script, number) = (&self.answer.script, Some(k + 1));
        if script.error_at.is_some_and(|at| at <= k) {
            return None;
        }
        let piece = self.answer.piece(k)?;
        let format = self.format();
        if script.error_at == number {
            format.fail(&self.answer, &mut self.events);
        } else if script.giant_at == number {
            let giant = Answer { stretch: Some(script.size), ..self.answer.clone() };
            let piece = match piece {
                Piece::Text { .. } => piece,
                _ => Piece::Text { choice: 0, k: 0 },
            };
            format.tell(&giant, piece, &mut self.events);
        } else {
            format.tell(&self.answer, piece, &mut self.events);
        }
        if script.malformed_at == number {
            if self.events.list.is_empty() {
                self.events.data("{");
            }
            // Half of it, and nothing that would close what is open.
            self.events.list.truncate(1);
            if let Some(event) = self.events.list.first_mut() {
                event.data = event.data.chars().take(event.data.chars().count() / 2).collect();
            }
        }
        let sound = script.bad_crc_at != number;
        Some(self.framed(sound))
    }

    /// Makes the event after `out` others due, or the body's end.
    fn event(&mut self, out: u32) {
        let script = &self.answer.script;
        if script.cut_event == Some(out) {
            return self.stop(Step::End(script.how));
        }
        match script.verb {
            Verb::Reset { at: At::Event(at) } if at == out => {
                return self.stop(Step::End(How::Rst));
            }
            Verb::Hang { at: At::Event(at) } if at == out => return self.hang(),
            _ => {}
        }
        let bad = script.bad_chunk_at == Some(out + 1);
        let delay = script.delay;
        let Some(body) = self.body(out) else { return self.end_body() };
        self.stage = Stage::Events { out: out + 1 };
        // A format may have nothing to say of a piece; an empty chunk would be the last one.
        if body.is_empty() && !bad {
            return;
        }
        self.put_chunk(body.as_slice(), bad);
        if out > 0 {
            self.pause = Some(delay);
        }
    }

    fn put_chunk(&mut self, body: &[u8], bad: bool) {
        let chunked = self.framing() == Framing::Chunked;
        if chunked && bad {
            self.due.extend(b"zz");
        } else if chunked {
            self.due.extend(format!("{:x}", body.len()).as_bytes());
        }
        if chunked {
            self.due.extend(b"\r\n");
        }
        self.due.extend(body);
        if chunked {
            self.due.extend(b"\r\n");
        }
    }

    fn end_body(&mut self) {
        if self.framing() == Framing::Chunked {
            self.due.extend(b"0\r\n\r\n");
        }
        self.stage = Stage::Over;
    }

    fn whole(&mut self) {
        let script = &self.answer.script;
        let mut body = if script.verb == Verb::Empty {
            Vec::new()
        } else if script.error_at.is_some() {
            let (name, named) = (&self.answer.name, Named::ByStatus);
            let problem = Problem { status: 500, named, message: None, param: None, name };
            self.format().refuse(&problem).body.into_bytes()
        } else {
            self.format().whole(&self.answer).into_bytes()
        };
        if script.malformed_at.is_some() {
            body.truncate(body.len() / 2);
        }
        let (verb, how, cut) = (script.verb, script.how, script.cut_event.is_some());
        let bad = script.bad_chunk_at.is_some();
        let fields = self.fields("application/json");
        let framing = self.framing();
        let fields = fields
            + &match framing {
                Framing::Length => format!("content-length: {}\r\n\r\n", body.len()),
                Framing::Chunked => "transfer-encoding: chunked\r\n\r\n".to_owned(),
                Framing::Close => "connection: close\r\n\r\n".to_owned(),
            };
        put_start(&mut self.due, 200, &fields);
        match verb {
            Verb::Reset { .. } => return self.stop(Step::End(How::Rst)),
            Verb::Hang { .. } => return self.stop(Step::Hang),
            _ => {}
        }
        if cut {
            // There are no events to count here: half of the body stands for some of them.
            body.truncate(body.len() / 2);
            self.stop(Step::End(how));
        }
        if framing == Framing::Chunked {
            for piece in body.chunks(16 * 1024) {
                self.put_chunk(piece, bad);
            }
            if !cut {
                self.end_body();
            }
        } else {
            self.due.extend(&body);
        }
    }

    fn framing(&self) -> Framing {
        let usual = if self.answer.ask.stream { Framing::Chunked } else { Framing::Length };
        self.answer.script.framing.unwrap_or(usual)
    }

    fn fields(&self, kind: &str) -> String {
        let Answer { name, id, .. } = &self.answer;
        let number = self.format().id_field();
        format!("content-type: {kind}\r\nx-sandbox: {name}\r\n{number}: req-{id}\r\n")
    }
}

fn put_start(out: &mut Buf, status: u16, fields: &str) {
    out.extend(format!("HTTP/1.1 {status} {}\r\n{fields}", reason(status)).as_bytes());
}

fn put_whole(out: &mut Buf, status: u16, fields: &str, body: &str) {
    put_start(out, status, &format!("{fields}content-length: {}\r\n\r\n{body}", body.len()));
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        307 => "Temporary Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        413 => "Content Too Large",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Status",
    }
}

#[cfg(test)]
mod tests;
