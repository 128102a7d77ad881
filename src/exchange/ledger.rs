//! The ledger: what happened in one exchange. Made by the exchange, handed out exactly once, at the
//! end; header, log, metric and trace are all written from it.
//!
//! It never holds a credential, a prompt or an answer.

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::base::fail::{Failure, Fault};
use crate::base::ids::TargetId;
use crate::base::tick::{Tick, UnixMs};
use crate::llm::event::Usage;
use crate::llm::request::Surface;

/// One attempt against one target.
#[derive(Clone, Debug)]
pub struct AttemptRecord {
    /// The target in the snapshot that the exchange began with; for metrics of that snapshot.
    pub target: TargetId,
    /// Its name, `provider/model`.
    pub name: Arc<str>,
    /// When it was started.
    pub began: Tick,
    /// When its response head was complete.
    pub head: Option<Tick>,
    /// When its first content arrived.
    pub first: Option<Tick>,
    /// When it ended, one way or the other.
    pub ended: Option<Tick>,
    /// The provider's HTTP status; 0 if there was none.
    pub status: u16,
    /// Why it failed; `None` while it runs and when it did not.
    pub failure: Option<Failure>,
    /// Whether it began on a pooled connection.
    pub reused: bool,
    /// Whether a stale pooled connection was replaced by a fresh one.
    pub replayed: bool,
    /// Whether it was started beside another one (a hedge).
    pub hedge: bool,
    /// Bytes received from the provider, bodies only.
    pub bytes: u64,
}

impl AttemptRecord {
    /// How it came out, as `x-firstbyte-attempts` says it: `ok`, a status, or a fault's name.
    pub fn outcome(&self) -> Outcome {
        match self.failure {
            None => Outcome::Ok,
            Some(Failure { fault, status, .. }) if status >= 300 && !fault.is_timeout() => {
                Outcome::Status(status)
            }
            Some(Failure { fault, .. }) => Outcome::Fault(fault),
        }
    }
}

/// How an attempt came out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It answered (or still does).
    Ok,
    /// The provider's error status.
    Status(u16),
    /// What went wrong.
    Fault(Fault),
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Outcome::Ok => f.write_str("ok"),
            Outcome::Status(status) => write!(f, "{status}"),
            Outcome::Fault(fault) => f.write_str(fault.name()),
        }
    }
}

/// What turned the flag.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CommittedBy {
    /// The provider's 2xx head (`commit = "headers"`).
    Head,
    /// The first event.
    FirstEvent,
    /// The first content.
    FirstContent,
    /// Enough content events, or enough time since the first of them.
    Tokens,
    /// The good end, or the whole body of a non-streamed answer.
    Complete,
    /// The held bytes reached `hold_max`.
    HoldFull,
    /// The answer reached `answer_max`.
    AnswerFull,
    /// An error answer: nothing else could be given.
    Error,
    /// An answer of the gateway itself (model list, explanation).
    Local,
}

impl CommittedBy {
    /// The stable short name.
    pub const fn name(self) -> &'static str {
        match self {
            CommittedBy::Head => "headers",
            CommittedBy::FirstEvent => "first_event",
            CommittedBy::FirstContent => "first_content",
            CommittedBy::Tokens => "tokens",
            CommittedBy::Complete => "complete",
            CommittedBy::HoldFull => "hold_full",
            CommittedBy::AnswerFull => "answer_full",
            CommittedBy::Error => "error",
            CommittedBy::Local => "local",
        }
    }
}

/// How the exchange ended for the client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Ending {
    /// A whole answer.
    Good,
    /// An answer of the gateway itself that is not an error.
    Local,
    /// An error before any of an answer; the status says which.
    Error,
    /// The answer was cut after it had begun; the client was told.
    Cut(Fault),
    /// The client went away.
    Gone,
    /// The client read more slowly than it may, and was left.
    Slow,
}

impl Ending {
    /// The stable short name.
    pub const fn name(self) -> &'static str {
        match self {
            Ending::Good => "good",
            Ending::Local => "local",
            Ending::Error => "error",
            Ending::Cut(_) => "cut",
            Ending::Gone => "gone",
            Ending::Slow => "slow",
        }
    }
}

/// What happened in one exchange.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// `x-request-id`: the client's own if it sent a sane one.
    pub id: Arc<str>,
    /// The name of the gateway key that it came with: an id would mean another key after a reload.
    pub caller: Option<Arc<str>>,
    /// Which surface was asked.
    pub surface: Surface,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// The model as the client named it; empty if it named none.
    pub model: Arc<str>,
    /// The wall clock at the start.
    pub wall: UnixMs,
    /// The request's head was complete.
    pub began: Tick,
    /// The flag turned, and by what.
    pub committed: Option<(Tick, CommittedBy)>,
    /// The last byte was handed to the client's socket, or it was given up.
    pub ended: Tick,
    /// The HTTP status that the client saw; 499 if it left before.
    pub status: u16,
    /// How it ended.
    pub ending: Ending,
    /// The attempts, in the order of their start.
    pub attempts: SmallVec<[AttemptRecord; 2]>,
    /// Which of them answered.
    pub winner: Option<u8>,
    /// Events passed to the client.
    pub events: u32,
    /// Bytes of the client's request body.
    pub bytes_in: u64,
    /// Bytes of the answer's body.
    pub bytes_out: u64,
    /// Token counts, if the provider told them.
    pub usage: Option<Usage>,
    /// What it cost by the catalogue's price, in billionths of a US dollar, if price and counts are known.
    pub cost_nanos: Option<u64>,
    /// Bytes received from providers that no client saw: failed attempts, lost races, cancels.
    pub wasted: u64,
    /// Whether an extra attempt was refused by the retry budget.
    pub budget_spent: bool,
    /// Whether the status went out before anything was committed (`open_after`).
    pub opened: bool,
}

impl Ledger {
    /// The attempt that answered.
    pub fn answered(&self) -> Option<&AttemptRecord> {
        self.winner.and_then(|i| self.attempts.get(usize::from(i)))
    }

    /// Writes the attempts as `x-firstbyte-attempts` has them, up to `now`:
    /// `openai/gpt-4o;503;41ms, anthropic/claude-sonnet-4-5;ok;312ms`.
    pub fn write_attempts(&self, now: Tick, out: &mut impl fmt::Write) {
        for (i, attempt) in self.attempts.iter().enumerate() {
            let ms = attempt.ended.unwrap_or(now).ms_since(attempt.began);
            let comma = if i == 0 { "" } else { ", " };
            // What can't be written is the writer's fault, and told there.
            let _ = out.write_str(comma);
            push_plain(&attempt.name, out);
            let _ = write!(out, ";{};{ms}ms", attempt.outcome());
        }
    }
}

/// A name with what would end it there, or is not visible ASCII, percent-encoded (RFC 3986 section 2.1).
fn push_plain(name: &str, out: &mut impl fmt::Write) {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b',' | b';');
    if name.bytes().all(is_plain) {
        let _ = out.write_str(name);
        return;
    }
    for byte in name.bytes() {
        let _ = if is_plain(byte) {
            out.write_char(char::from(byte))
        } else {
            write!(out, "%{byte:02X}")
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_can_not_break_the_list_of_attempts() {
        let mut out = String::new();
        push_plain("a/ok,delay=1;\u{fc} b", &mut out);
        assert_eq!(out, "a/ok%2Cdelay=1%3B%C3%BC%20b");
    }
}
