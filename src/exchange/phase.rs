//! The phases of one exchange and the commit point between them.
//!
//! ```text
//!   Trying --open_after--> Opened
//!      \___________________/ |
//!               | commit(): takes the Race by value, and with it the Cursor
//!               v
//!           Relaying --end--> Closing --flushed--> Done
//! ```
//!
//! Only a `Race` can start an attempt, and only `Trying` and `Opened` hold one. Committing consumes it,
//! so "try again after the first byte" has no value to say it with.

use smallvec::SmallVec;

use crate::base::buf::Buf;
use crate::base::fail::Failure;
use crate::base::limits;
use crate::base::tick::Tick;
use crate::exchange::ledger::CommittedBy;
use crate::exchange::relay;
use crate::llm::providers::Stream;
use crate::llm::sink::Told;
use crate::route::health::Pass;
use crate::wire::http1::body::Body;
use crate::wire::http1::head;
use crate::wire::sse::Scanner;

/// Which of the two lanes of a race.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LaneId {
    /// The first, and the only one without hedging.
    A,
    /// The one beside it.
    B,
}

impl LaneId {
    /// Both.
    pub const ALL: [LaneId; 2] = [LaneId::A, LaneId::B];

    /// 0 or 1.
    pub const fn index(self) -> usize {
        self as usize
    }

    /// The other one.
    pub const fn other(self) -> LaneId {
        match self {
            LaneId::A => LaneId::B,
            LaneId::B => LaneId::A,
        }
    }
}

/// Where an exchange stands.
pub enum Phase {
    /// Nothing has been said to the client: the mind may still change, status and all.
    Trying(Race),
    /// The status 200 and comments went out; the answer may still change.
    Opened(Race),
    /// Committed to one attempt. There is no way back.
    Relaying {
        /// Which slot its connection is in.
        at: LaneId,
        /// The attempt.
        lane: Box<Lane>,
    },
    /// Everything is said; the last bytes wait for the client's socket.
    Closing,
    /// Over; the ledger can be taken.
    Done,
}

/// The permission to try: the cursor of the plan and what is under way. Not `Clone`.
pub struct Race {
    /// The next place in the plan.
    pub(super) next: u8,
    /// What is under way.
    pub(super) lanes: [Option<Box<Lane>>; 2],
    /// No further attempt may start: a client fault, a spent budget, a passed deadline.
    pub(super) stopped: bool,
    /// When the next attempt starts beside the one that is silent.
    pub(super) hedge_at: Tick,
}

impl Race {
    pub(super) fn new() -> Race {
        Race { next: 0, lanes: [None, None], stopped: false, hedge_at: Tick::NEVER }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.lanes.iter().all(Option::is_none)
    }
}

/// How an upstream body is read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reading {
    /// Server-sent events that are understood.
    Events,
    /// A whole JSON answer that is understood.
    Whole,
    /// An answer that is not understood, held whole as far as it fits.
    Opaque,
    /// An answer that is passed as it comes.
    Raw,
    /// An error's body.
    Error,
}

/// What a lane waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// A connection.
    Dialing,
    /// The response head.
    Head,
    /// The response body.
    Body(Reading),
}

/// One attempt under way.
pub struct Lane {
    /// Its place in the plan.
    pub(super) attempt: u8,
    /// Its place in the ledger.
    pub(super) record: u8,
    pub(super) stage: Stage,
    /// What the breaker gave; returned once.
    pub(super) pass: Option<Pass>,
    /// Which of the provider's access tokens it shows; 0: none.
    pub(super) lease: u64,
    /// The connection came from the pool.
    pub(super) reused: bool,
    /// A response byte has arrived.
    pub(super) heard: bool,
    /// The request, as far as it is not yet handed to the socket.
    pub(super) out: Buf,
    /// The request is with the kernel.
    pub(super) writing: bool,
    /// The request is out, whole.
    pub(super) sent: bool,
    /// A read is under way.
    pub(super) reading: bool,
    /// Since when it may not read because the client is slow.
    pub(super) paused: Option<Tick>,
    /// The start of a head or frame whose rest has not arrived.
    pub(super) torn: Buf,
    /// Interim responses so far.
    pub(super) interim: u8,
    /// The response's HTTP status; 0 before its head.
    pub(super) status: u16,
    pub(super) head_keeps: bool,
    pub(super) body: Body,
    pub(super) scanner: Scanner,
    pub(super) stream: Stream,
    /// What the client was told, for answers that are translated.
    pub(super) told: Told,
    pub(super) content_type: SmallVec<[u8; 32]>,
    /// The name of an error, of providers that have it in a field.
    pub(super) error_type: Box<[u8]>,
    pub(super) retry_after: Option<crate::base::tick::Ms>,
    /// What would go to the client.
    pub(super) held: Buf,
    pub(super) events: u32,
    pub(super) contents: u32,
    /// The first content arrived.
    pub(super) first: Option<Tick>,
    /// The commit policy is satisfied.
    pub(super) ripe: Option<CommittedBy>,
    /// Connect, head and first-content limits, whichever the stage is in.
    pub(super) deadline: Tick,
    /// The next content must have come by then.
    pub(super) idle_at: Tick,
    /// Start of the window in which `throughput_floor` is counted, and the count at its start.
    pub(super) floor_from: (Tick, u32),
    /// `tokens` policy: when the time part is over.
    pub(super) tokens_at: Tick,
}

/// What pumping received bytes came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Pumped {
    /// More is expected.
    More,
    /// The provider's good end.
    Good,
    /// It failed.
    Bad(Failure),
}

impl Lane {
    pub(super) fn new(attempt: u8, record: u8, pass: Pass, deadline: Tick) -> Lane {
        Lane {
            attempt,
            record,
            stage: Stage::Dialing,
            pass: Some(pass),
            lease: 0,
            reused: false,
            heard: false,
            out: Buf::new(),
            writing: false,
            sent: false,
            reading: false,
            paused: None,
            torn: Buf::new(),
            interim: 0,
            status: 0,
            head_keeps: false,
            body: Body::new(head::Framing::None),
            scanner: Scanner::new(limits::FRAME_BYTES_MAX),
            stream: Stream::default(),
            told: Told::default(),
            content_type: SmallVec::new(),
            error_type: Box::default(),
            retry_after: None,
            held: Buf::new(),
            events: 0,
            contents: 0,
            first: None,
            ripe: None,
            deadline,
            idle_at: Tick::NEVER,
            floor_from: (Tick::NEVER, 0),
            tokens_at: Tick::NEVER,
        }
    }

    /// Whether the connection can carry another request once the answer's framing has ended.
    pub(super) fn is_reusable(&self) -> bool {
        self.sent && self.head_keeps
    }

    /// The lane may read again: what it was silent for meanwhile is not its fault, so the limits on
    /// its silence move by as much.
    pub(super) fn resume(&mut self, now: Tick) {
        let Some(since) = self.paused.take() else { return };
        let pause = now - since;
        self.idle_at = self.idle_at + pause;
        self.floor_from.0 = self.floor_from.0 + pause;
    }

    /// The whole answer is held: its length is known.
    pub(super) fn stream_is_whole(&self) -> bool {
        self.ripe == Some(CommittedBy::Complete)
            && matches!(self.stage, Stage::Body(Reading::Whole | Reading::Opaque))
    }

    pub(super) fn is_event_stream(&self) -> bool {
        match self.stage {
            Stage::Body(Reading::Events) => true,
            Stage::Body(Reading::Raw) => relay::is_event_stream(&self.content_type),
            Stage::Body(_) | Stage::Dialing | Stage::Head => false,
        }
    }
}
