//! F5: one exchange, from request bytes to the last response byte. Pure: bytes and a `now` come in,
//! outputs go out; no socket, no clock, no task.
//!
//! The shell calls `step` with what happened and then drains `poll` for what to do. The commit point
//! lives in [`phase`]; what follows a failure is decided in [`verdict`]; bytes are read in `relay`.
//!
//! Invariants, checked after each step in debug builds: no client byte but an opening's before the
//! commit, no dial after it, at most one attempt per lane, the ledger handed out exactly once.

pub mod answer;
pub mod ledger;
pub mod phase;
mod relay;
mod timing;
pub mod verdict;

use std::collections::VecDeque;
use std::sync::Arc;

use crate::base::buf::Buf;
use crate::base::fail::{Failure, Fault};
use crate::base::ids::{EndpointId, TargetId};
use crate::base::limits;
use crate::base::tick::{Ms, Tick, UnixMs};
use crate::exchange::answer::{Answer, Client, Framing};
use crate::exchange::ledger::{AttemptRecord, CommittedBy, Ending, Ledger};
use crate::exchange::phase::{Lane, LaneId, Phase, Pumped, Race, Reading, Stage};
use crate::exchange::relay::Reads;
use crate::exchange::verdict::Verdict;
use crate::llm::provider::{Said, Site};
use crate::llm::providers::Stream;
use crate::llm::request::Ask;
use crate::route::Table;
use crate::route::health::{Outcome as Health, Pass, Standing};
use crate::route::{Attempt, Plan};
use crate::wire::http1::body::Body;
use crate::wire::http1::head;
use crate::wire::sse::Scanner;

/// A side of the exchange.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Side {
    /// The client.
    Down,
    /// A provider.
    Up(LaneId),
}

/// What happened.
#[derive(Debug)]
pub enum Input<'b> {
    /// The dial succeeded.
    Dialed {
        /// Whose.
        lane: LaneId,
        /// The connection came from the pool.
        reused: bool,
    },
    /// Bytes from a provider. They are taken; the memory stays with the caller.
    Received {
        /// Whose.
        lane: LaneId,
        /// The bytes.
        rx: &'b mut Buf,
    },
    /// A provider ended its direction.
    Ended {
        /// Whose.
        lane: LaneId,
    },
    /// Dial, read or write failed.
    Broke {
        /// Whose.
        lane: LaneId,
        /// How.
        fault: Fault,
        /// It was a write: an early answer may still be read.
        write: bool,
    },
    /// The kernel took bytes of what `take_write` gave.
    Wrote {
        /// To whom.
        side: Side,
        /// Nothing of it is left.
        done: bool,
    },
    /// The client closed its connection or stopped reading for good.
    Gone,
    /// The time that was asked for has come.
    Alarm,
    /// The process ends: what is not committed gets 503, what is gets cut.
    Shutdown,
}

/// What the shell shall do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Output {
    /// Connect lane to endpoint, by a pooled connection unless `fresh`.
    Dial {
        /// Whose.
        lane: LaneId,
        /// Where.
        endpoint: EndpointId,
        /// Do not use a pooled connection.
        fresh: bool,
        /// When it will be given up.
        by: Tick,
    },
    /// Read from the provider.
    Read {
        /// Whose.
        lane: LaneId,
    },
    /// Take bytes by `take_write` and send them.
    Write {
        /// To whom.
        side: Side,
    },
    /// Wake the exchange by `Alarm` at this time; replaces the one before.
    Arm {
        /// When.
        at: Tick,
    },
    /// Close the lane's connection or give up its dial.
    Hangup {
        /// Whose.
        lane: LaneId,
    },
    /// The lane's connection is at a clean end: back to the pool.
    Release {
        /// Whose.
        lane: LaneId,
    },
    /// The answer is whole but not its framing: read the rest aside (`take_rest`), then pool.
    Drain {
        /// Whose.
        lane: LaneId,
    },
    /// The exchange is over; take the ledger.
    Finish {
        /// The client's connection can carry another request.
        keep: bool,
    },
}

/// What a step may look at.
pub struct Cx<'a> {
    /// The monotonic clock, read once for a batch of completions.
    pub now: Tick,
    /// The wall clock.
    pub wall: UnixMs,
    /// The snapshot's table, the same for all of an exchange.
    pub table: &'a Table,
}

/// What an exchange is made of.
pub struct Job {
    /// What is asked for.
    pub ask: Ask,
    /// The client's body, whole.
    pub body: Buf,
    /// Who is tried.
    pub plan: Plan,
}

/// The client's bytes on their way.
#[derive(Default)]
struct Down {
    /// The response head, until it is handed over.
    head: Buf,
    /// Body bytes that wait, without transfer framing.
    filling: Buf,
    /// A write is under way.
    writing: bool,
    /// The answer is complete: the end of the framing goes with the last bytes.
    ended: bool,
    /// The end of the framing was handed over.
    sealed: bool,
    /// The body's framing; fixed with the head.
    framing: Framing,
    /// The kernel must have taken something by then.
    write_by: Tick,
}

/// One exchange.
pub struct Exchange {
    phase: Phase,
    ask: Ask,
    body: Buf,
    plan: Plan,
    client: Client,
    down: Down,
    outputs: VecDeque<Output>,
    ledger: Option<Box<Ledger>>,
    /// The last failure that the client would be told of, with what the provider said.
    failure: Option<(Failure, Option<Said>)>,
    opened_at: Tick,
    heartbeat_at: Tick,
    armed: Tick,
    keep: bool,
    rest: Option<Body>,
}

impl Exchange {
    /// An exchange that tries the plan.
    pub fn new(job: Job, client: Client, ledger: Ledger, cx: &Cx<'_>) -> Exchange {
        let mut exchange = Exchange::bare(job.ask, job.body, job.plan, client, ledger);
        exchange.phase = Phase::Trying(Race::new());
        if let Some(after) = exchange.plan.rules.open_after
            && exchange.ask.stream
            && exchange.ask.surface.is_understood()
        {
            exchange.opened_at = cx.now + after;
        }
        exchange.start_next(LaneId::A, cx);
        exchange.settle(cx);
        exchange
    }

    /// An exchange that only answers: errors before any plan, model lists, explanations.
    pub fn answered(answer: Answer, client: Client, ledger: Ledger, cx: &Cx<'_>) -> Exchange {
        let mut exchange = Exchange::bare(Ask::default(), Buf::new(), Plan::none(), client, ledger);
        exchange.say(&answer, cx);
        exchange.settle(cx);
        exchange
    }

    fn bare(ask: Ask, body: Buf, plan: Plan, client: Client, ledger: Ledger) -> Exchange {
        Exchange {
            phase: Phase::Closing,
            ask,
            body,
            plan,
            client,
            down: Down { write_by: Tick::NEVER, ..Down::default() },
            outputs: VecDeque::with_capacity(8),
            ledger: Some(Box::new(ledger)),
            failure: None,
            opened_at: Tick::NEVER,
            heartbeat_at: Tick::NEVER,
            armed: Tick::NEVER,
            keep: true,
            rest: None,
        }
    }

    /// Whether the flag has turned.
    pub fn is_committed(&self) -> bool {
        !matches!(self.phase, Phase::Trying(_) | Phase::Opened(_))
    }

    /// Whether it only waits for the shell to take the ledger.
    pub fn is_done(&self) -> bool {
        matches!(self.phase, Phase::Done)
    }

    /// Tells what happened. Outputs wait in `poll` afterwards.
    pub fn step(&mut self, input: Input<'_>, cx: &Cx<'_>) {
        match input {
            Input::Dialed { lane, reused } => self.dialed(lane, reused, cx),
            Input::Received { lane, rx } => self.received(lane, rx, cx),
            Input::Ended { lane } => self.pumped_with(lane, cx, |lane, reads| lane.eof(reads)),
            Input::Broke { lane, fault, write } => self.broke(lane, fault, write, cx),
            Input::Wrote { side, done } => self.wrote(side, done, cx),
            Input::Gone => self.gone(cx),
            Input::Alarm => self.alarm(cx),
            Input::Shutdown => self.shut_down(cx),
        }
        self.settle(cx);
        self.check();
    }

    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The bytes of a `Write`, framed.
    pub fn take_write(&mut self, side: Side) -> Buf {
        match side {
            Side::Down => self.down.take(),
            Side::Up(lane) => self.lane_mut(lane).map(|lane| lane.out.take()).unwrap_or_default(),
        }
    }

    /// What is left of the body of a `Drain`.
    pub fn take_rest(&mut self) -> Option<Body> {
        self.rest.take()
    }

    /// The endpoint of an attempt's target, for the pool.
    pub fn endpoint(&self, target: TargetId, table: &Table) -> EndpointId {
        table.targets[target].endpoint
    }

    /// The ledger, once, after `Finish`.
    pub fn take_ledger(&mut self) -> Option<Box<Ledger>> {
        debug_assert!(self.is_done());
        self.ledger.take()
    }

    /// The id of the request.
    pub fn id(&self) -> Option<Arc<str>> {
        self.ledger.as_ref().map(|ledger| ledger.id.clone())
    }

    // ---- attempts ----

    fn race_mut(&mut self) -> Option<&mut Race> {
        match &mut self.phase {
            Phase::Trying(race) | Phase::Opened(race) => Some(race),
            Phase::Relaying { .. } | Phase::Closing | Phase::Done => None,
        }
    }

    fn lane_mut(&mut self, id: LaneId) -> Option<&mut Lane> {
        match &mut self.phase {
            Phase::Trying(race) | Phase::Opened(race) => race.lanes[id.index()].as_deref_mut(),
            Phase::Relaying { at, lane } if *at == id => Some(lane),
            Phase::Relaying { .. } | Phase::Closing | Phase::Done => None,
        }
    }

    fn record_mut(&mut self, index: u8) -> Option<&mut AttemptRecord> {
        self.ledger.as_mut()?.attempts.get_mut(usize::from(index))
    }

    /// Starts the plan's next attempt in `id`, if plan, budget and deadline allow. Says whether it did.
    fn start_next(&mut self, id: LaneId, cx: &Cx<'_>) -> bool {
        let skip = self.failure.as_ref().is_some_and(|(f, _)| f.fault == Fault::Context);
        let Some(race) = self.race_mut() else { return false };
        debug_assert!(race.lanes[id.index()].is_none());
        if race.stopped {
            return false;
        }
        let (mut index, hedge, first) = (race.next, !race.is_idle(), race.next == 0);
        if skip {
            index = self.after_small_window(index);
        }
        let Some(attempt) = self.plan.attempts.get(usize::from(index)).cloned() else {
            return false;
        };
        let target = &cx.table.targets[attempt.target];
        let budget = &cx.table.providers[target.provider].budget;
        if first {
            budget.request(cx.now);
        } else if !budget.extra(cx.now) {
            if let Some(ledger) = &mut self.ledger {
                ledger.budget_spent = true;
            }
            return false;
        }
        let pass = target.breaker.begin(cx.now);
        let record = self.open_record(&attempt, hedge, cx);
        let endpoint = target.endpoint;
        let lane = Lane::new(index, record, pass, cx.now + attempt.connect);
        let hedge_after = self.plan.rules.hedge_after;
        if let Some(race) = self.race_mut() {
            race.next = index + 1;
            race.lanes[id.index()] = Some(Box::new(lane));
            race.hedge_at = match hedge_after {
                Some(after) if !hedge => cx.now + after,
                _ => Tick::NEVER,
            };
        }
        let by = cx.now + attempt.connect;
        self.outputs.push_back(Output::Dial { lane: id, endpoint, fresh: false, by });
        true
    }

    /// After "too long for the window", the same model elsewhere would only say it again.
    fn after_small_window(&self, from: u8) -> u8 {
        let tried = |i: u8| self.plan.attempts.get(usize::from(i)).map(|a| a.model.clone());
        let last = from.checked_sub(1).and_then(tried);
        let mut index = from;
        while last.is_some() && tried(index) == last {
            index += 1;
        }
        index
    }

    fn open_record(&mut self, attempt: &Attempt, hedge: bool, cx: &Cx<'_>) -> u8 {
        let Some(ledger) = &mut self.ledger else { return 0 };
        ledger.attempts.push(AttemptRecord {
            target: attempt.target,
            name: attempt_name(attempt, cx.table),
            began: cx.now,
            head: None,
            first: None,
            ended: None,
            status: 0,
            failure: None,
            reused: false,
            replayed: false,
            hedge,
            bytes: 0,
        });
        (ledger.attempts.len() - 1) as u8
    }

    fn dialed(&mut self, id: LaneId, reused: bool, cx: &Cx<'_>) {
        let Some(race) = self.race_mut() else { return };
        let Some(mut lane) = race.lanes[id.index()].take() else { return };
        let attempt = self.plan.attempts[usize::from(lane.attempt)].clone();
        let target = &cx.table.targets[attempt.target];
        let provider = &cx.table.providers[target.provider];
        let site = Site {
            authority: &provider.authority,
            path: &provider.path,
            key: target.key.as_ref(),
            model: &attempt.model,
        };
        lane.stream = Stream::new(provider.kind);
        let sent = lane.stream.send(&self.ask, self.body.as_slice(), &site, cx.wall, &mut lane.out);
        lane.reused = reused;
        lane.stage = Stage::Head;
        let head = if self.ask.stream { attempt.head } else { attempt.answer };
        let began = self.record_mut(lane.record).map(|record| {
            record.reused = reused;
            record.began
        });
        lane.deadline = began.unwrap_or(cx.now) + head;
        if let Some(race) = self.race_mut() {
            race.lanes[id.index()] = Some(lane);
        }
        match sent {
            Ok(()) => {
                if let Some(lane) = self.lane_mut(id) {
                    lane.writing = true;
                }
                self.outputs.push_back(Output::Write { side: Side::Up(id) });
            }
            Err(fault) => self.fail_lane(id, Failure::of(fault), cx),
        }
    }

    fn received(&mut self, id: LaneId, rx: &mut Buf, cx: &Cx<'_>) {
        let bytes = rx.len() as u64;
        if let Some(lane) = self.lane_mut(id) {
            lane.reading = false;
            let record = lane.record;
            if let Some(record) = self.record_mut(record) {
                record.bytes += bytes;
            }
        }
        self.pumped_with(id, cx, |lane, reads| lane.pump(rx, reads));
        rx.clear();
    }

    /// Runs `pump` on a lane and follows up what it came to.
    fn pumped_with(
        &mut self,
        id: LaneId,
        cx: &Cx<'_>,
        pump: impl FnOnce(&mut Lane, &Reads<'_>) -> Pumped,
    ) {
        let lane = match &mut self.phase {
            Phase::Trying(race) | Phase::Opened(race) => race.lanes[id.index()].as_deref_mut(),
            Phase::Relaying { at, lane } if *at == id => Some(&mut **lane),
            Phase::Relaying { .. } | Phase::Closing | Phase::Done => None,
        };
        let Some(lane) = lane else { return };
        let attempt = &self.plan.attempts[usize::from(lane.attempt)];
        let reads = Reads {
            rules: &self.plan.rules,
            surface: self.ask.surface,
            stream: self.ask.stream,
            include_usage: self.ask.include_usage,
            shown: &attempt.shown,
            idle: attempt.idle,
            now: cx.now,
            wall: cx.wall,
        };
        let before = lane.stage;
        let pumped = pump(lane, &reads);
        let (first_limit, began_body) =
            (attempt.first, before == Stage::Head && lane.stage != Stage::Head);
        self.after_head(id, began_body, first_limit, cx);
        self.follow(id, pumped, cx);
    }

    /// Notes the head and moves on to the limit that follows it.
    fn after_head(&mut self, id: LaneId, began_body: bool, first_limit: Ms, cx: &Cx<'_>) {
        let stream = self.ask.stream;
        let Some(lane) = self.lane_mut(id) else { return };
        let (record, status, first) = (lane.record, lane.status, lane.first);
        if let Some(record) = self.record_mut(record) {
            record.first = first;
            if began_body {
                record.status = status;
                record.head = Some(cx.now);
            }
        }
        if began_body && stream {
            let began = self.record_mut(record).map_or(cx.now, |record| record.began);
            if let Some(lane) = self.lane_mut(id) {
                lane.deadline = began + first_limit;
            }
        }
    }

    /// Commits, relays, ends or fails a lane after its bytes were read.
    fn follow(&mut self, id: LaneId, pumped: Pumped, cx: &Cx<'_>) {
        let ripe = self.lane_mut(id).and_then(|lane| lane.ripe);
        if let Some(by) = ripe
            && !self.is_committed()
        {
            self.commit(id, by, cx);
        }
        if let Phase::Relaying { at, lane } = &mut self.phase
            && *at == id
        {
            if self.down.filling.is_empty() {
                std::mem::swap(&mut self.down.filling, &mut lane.held);
            } else {
                self.down.filling.extend(lane.held.as_slice());
                lane.held.clear();
            }
        }
        match pumped {
            Pumped::More => {}
            Pumped::Good => self.end_good(id, cx),
            Pumped::Bad(failure) if self.is_committed() => self.cut(failure, cx),
            Pumped::Bad(failure) => self.fail_lane(id, failure, cx),
        }
    }

    fn broke(&mut self, id: LaneId, fault: Fault, write: bool, cx: &Cx<'_>) {
        let Some(lane) = self.lane_mut(id) else { return };
        if write && lane.stage != Stage::Dialing {
            // The provider may have answered early and closed: what it said is read first.
            lane.writing = false;
            lane.sent = true;
            lane.head_keeps = false;
            return;
        }
        lane.reading = false;
        match lane.stage {
            Stage::Body(reading) => {
                self.pumped_with(id, cx, |lane, reads| lane.broken(fault, reading, reads));
            }
            Stage::Dialing | Stage::Head => self.fail_lane(id, Failure::of(fault), cx),
        }
    }

    /// A lane failed before commit: note it, then let the verdict say what follows.
    fn fail_lane(&mut self, id: LaneId, failure: Failure, cx: &Cx<'_>) {
        if self.replay(id, failure, cx) {
            return;
        }
        let Some(race) = self.race_mut() else { return };
        let Some(mut lane) = race.lanes[id.index()].take() else { return };
        self.outputs.push_back(Output::Hangup { lane: id });
        self.close_record(&lane, Some(failure), cx);
        self.settle_health(&mut lane, Some(failure), cx);
        let said = lane.stream.said();
        let verdict = verdict::after(failure.fault, self.plan.rules.on_content_policy);
        self.keep_failure(failure, said);
        if verdict == Verdict::Answer
            && let Some(race) = self.race_mut()
        {
            race.stopped = true;
        }
        self.carry_on(id, cx);
    }

    /// What the client would be told: the last failure, unless an earlier one was its own to mend.
    fn keep_failure(&mut self, failure: Failure, said: Option<Said>) {
        let earlier = self.failure.as_ref().map(|(failure, _)| *failure);
        if earlier.is_some_and(answer::is_clients) && !answer::is_clients(failure) {
            return;
        }
        self.failure = Some((failure, said));
    }

    /// After a lane is gone: the other one goes on, or the next attempt starts, or the answer is given.
    fn carry_on(&mut self, id: LaneId, cx: &Cx<'_>) {
        let Some(race) = self.race_mut() else { return };
        if !race.is_idle() || self.start_next(id, cx) {
            return;
        }
        self.give_up(cx);
    }

    /// A pooled connection that died before the first response byte is replaced once.
    fn replay(&mut self, id: LaneId, failure: Failure, cx: &Cx<'_>) -> bool {
        let allowed = self.plan.rules.replay;
        let attempts = &self.plan.attempts;
        let lane = match &mut self.phase {
            Phase::Trying(race) | Phase::Opened(race) => race.lanes[id.index()].as_deref_mut(),
            Phase::Relaying { .. } | Phase::Closing | Phase::Done => None,
        };
        let Some(lane) = lane else { return false };
        let stale = matches!(failure.fault, Fault::Reset | Fault::Eof);
        if !(allowed && stale && lane.reused && !lane.heard) {
            return false;
        }
        let attempt = &attempts[usize::from(lane.attempt)];
        let endpoint = cx.table.targets[attempt.target].endpoint;
        let (index, record, pass) = (lane.attempt, lane.record, lane.pass.take());
        let by = cx.now + attempt.connect;
        *lane = Lane::new(index, record, pass.unwrap_or(Pass::Normal), by);
        if let Some(record) = self.record_mut(record) {
            record.replayed = true;
        }
        self.outputs.push_back(Output::Hangup { lane: id });
        self.outputs.push_back(Output::Dial { lane: id, endpoint, fresh: true, by });
        true
    }

    fn close_record(&mut self, lane: &Lane, failure: Option<Failure>, cx: &Cx<'_>) {
        let Some(ledger) = &mut self.ledger else { return };
        let Some(record) = ledger.attempts.get_mut(usize::from(lane.record)) else { return };
        record.ended = Some(cx.now);
        record.failure = failure;
        if record.status == 0 {
            record.status = lane.status;
        }
        if ledger.winner != Some(lane.record) {
            ledger.wasted += record.bytes;
        }
    }

    /// Tells the target's breaker, and cools it down if it asked for that.
    fn settle_health(&self, lane: &mut Lane, failure: Option<Failure>, cx: &Cx<'_>) {
        let target = &cx.table.targets[self.plan.attempts[usize::from(lane.attempt)].target];
        let outcome = match failure {
            None => Health::Good,
            Some(failure) if failure.fault.is_ours() => Health::Nothing,
            Some(_) => Health::Bad,
        };
        if let Some(failure) = failure
            && let Some(wait) = verdict::cool_down(failure)
        {
            target.breaker.cool(cx.now + wait, failure.status);
        }
        target.breaker.end(lane.pass.take().unwrap_or(Pass::Normal), outcome, cx.now);
    }

    // ---- the commit point ----

    /// The one place where the flag turns: before any byte of the answer is handed to the socket.
    fn commit(&mut self, id: LaneId, by: CommittedBy, cx: &Cx<'_>) {
        let opened = matches!(self.phase, Phase::Opened(_));
        let (Phase::Trying(mut race) | Phase::Opened(mut race)) =
            std::mem::replace(&mut self.phase, Phase::Closing)
        else {
            debug_assert!(false, "committed twice");
            return;
        };
        let Some(mut lane) = race.lanes[id.index()].take() else {
            debug_assert!(false, "committed to nothing");
            return;
        };
        if let Some(mut loser) = race.lanes[id.other().index()].take() {
            self.outputs.push_back(Output::Hangup { lane: id.other() });
            let lost = Failure::of(Fault::LostRace);
            self.close_record(&loser, Some(lost), cx);
            self.settle_health(&mut loser, Some(lost), cx);
        }
        self.body = Buf::new();
        self.settle_health(&mut lane, None, cx);
        if let Some(ledger) = &mut self.ledger {
            ledger.committed = Some((cx.now, by));
            ledger.winner = Some(lane.record);
        }
        self.write_head(&lane, opened, cx);
        self.phase = Phase::Relaying { at: id, lane };
    }

    /// The head of a good answer; where the stream is open already, the ledger as a comment.
    fn write_head(&mut self, lane: &Lane, opened: bool, cx: &Cx<'_>) {
        let Some(ledger) = &mut self.ledger else { return };
        let attempt = &self.plan.attempts[usize::from(lane.attempt)];
        let provider = &cx.table.providers[cx.table.targets[attempt.target].provider].name;
        if opened {
            answer::write_ledger_comment(
                ledger,
                provider,
                &attempt.shown,
                cx.now,
                &mut self.down.filling,
            );
            return;
        }
        let whole = lane.stream_is_whole();
        let stream = matches!(lane.stage, Stage::Body(Reading::Events));
        let length = whole.then_some(lane.held.len() as u64);
        self.down.framing = self.client.framing(length);
        let content_type: &[u8] = if stream {
            b"text/event-stream; charset=utf-8"
        } else if self.ask.surface.is_understood() || lane.content_type.is_empty() {
            b"application/json"
        } else {
            &lane.content_type
        };
        ledger.status = if lane.status == 0 { 200 } else { lane.status };
        let head = answer::Head {
            status: ledger.status,
            content_type,
            streamed: !whole,
            framing: self.down.framing,
            keep: self.keep && self.client.keep_alive,
        };
        answer::write_head(
            &head,
            ledger,
            Some((provider, &attempt.shown)),
            cx.now,
            &mut self.down.head,
        );
    }

    /// The status goes out, the answer stays open.
    fn open(&mut self, cx: &Cx<'_>) {
        self.opened_at = Tick::NEVER;
        let Phase::Trying(race) = std::mem::replace(&mut self.phase, Phase::Closing) else {
            return;
        };
        self.phase = Phase::Opened(race);
        let Some(ledger) = &mut self.ledger else { return };
        ledger.status = 200;
        ledger.opened = true;
        self.down.framing = self.client.framing(None);
        let head = answer::Head {
            status: 200,
            content_type: b"text/event-stream; charset=utf-8",
            streamed: true,
            framing: self.down.framing,
            keep: self.keep && self.client.keep_alive,
        };
        answer::write_head(&head, ledger, None, cx.now, &mut self.down.head);
        self.down.filling.extend(answer::WAITING);
        self.heartbeat_at = cx.now + Ms(limits::HEARTBEAT_MS);
    }

    // ---- ends ----

    /// The provider's good end. If nothing was committed yet, `follow` has done so before.
    fn end_good(&mut self, id: LaneId, cx: &Cx<'_>) {
        let Phase::Relaying { at, lane } = std::mem::replace(&mut self.phase, Phase::Closing)
        else {
            debug_assert!(false, "a good end without a commit");
            return;
        };
        debug_assert!(at == id);
        self.close_record(&lane, None, cx);
        if let Some(ledger) = &mut self.ledger {
            ledger.ending = Ending::Good;
            ledger.events = lane.events;
            ledger.usage = lane.stream.usage();
        }
        let reusable = lane.sent && lane.head_keeps;
        self.outputs.push_back(match lane.body.is_done() {
            true if reusable => Output::Release { lane: id },
            false if reusable && lane.body.ends_by_itself() => {
                self.rest = Some(lane.body);
                Output::Drain { lane: id }
            }
            _ => Output::Hangup { lane: id },
        });
        self.down.ended = true;
    }

    /// A bad end after commit: one error event, no terminator, the body ended properly.
    fn cut(&mut self, failure: Failure, cx: &Cx<'_>) {
        let Phase::Relaying { at, mut lane } = std::mem::replace(&mut self.phase, Phase::Closing)
        else {
            return;
        };
        self.outputs.push_back(Output::Hangup { lane: at });
        self.close_record(&lane, Some(failure), cx);
        if !failure.fault.is_ours() {
            self.settle_health(&mut lane, Some(failure), cx);
        }
        let said = lane.stream.said();
        if let Some(ledger) = &mut self.ledger {
            ledger.ending = Ending::Cut(failure.fault);
            ledger.events = lane.events;
            ledger.usage = lane.stream.usage();
        }
        let name = self.attempt_name(lane.attempt, cx);
        if lane.is_event_stream() {
            answer::write_cut(failure, said.as_ref(), &name, &mut self.down.filling);
            self.down.ended = true;
        } else {
            // Nothing can be added to a body that is not understood: it is left visibly unfinished.
            self.keep = false;
            self.down.sealed = true;
            self.down.framing = Framing::Close;
        }
    }

    fn attempt_name(&self, index: u8, cx: &Cx<'_>) -> Arc<str> {
        match self.plan.attempts.get(usize::from(index)) {
            Some(attempt) => attempt_name(attempt, cx.table),
            None => Arc::from(""),
        }
    }

    /// Nothing is left to try.
    fn give_up(&mut self, cx: &Cx<'_>) {
        let Some(ledger) = &self.ledger else { return };
        let last = self.failure.take();
        let wait = self
            .plan
            .attempts
            .iter()
            .filter_map(|attempt| match cx.table.targets[attempt.target].breaker.standing(cx.now) {
                Standing::Cooling { until, .. } => Some(until),
                Standing::Ready | Standing::HalfOpen | Standing::Open { .. } => None,
            })
            .min()
            .map(|until| until - cx.now);
        let answer = answer::all_failed(ledger, last, wait, cx.now);
        self.say(&answer, cx);
    }

    /// Commits to an answer of the gateway's own.
    fn say(&mut self, answer: &Answer, cx: &Cx<'_>) {
        let opened = matches!(self.phase, Phase::Opened(_));
        self.hang_up_all(Failure::of(Fault::Shutdown), cx);
        self.phase = Phase::Closing;
        self.body = Buf::new();
        let Some(ledger) = &mut self.ledger else { return };
        ledger.committed = Some((cx.now, answer.committed_by()));
        ledger.ending = answer.ending();
        if opened {
            self.down.filling.extend(b"data: ");
            self.down.filling.extend(&answer.body);
            self.down.filling.extend(b"\n\n");
            self.down.ended = true;
            return;
        }
        ledger.status = answer.status;
        self.keep &= answer.keep;
        self.down.framing = Framing::Length;
        let keep = self.keep && self.client.keep_alive;
        answer.write_head(ledger, keep, cx.now, &mut self.down.head);
        self.down.filling.extend(&answer.body);
        self.down.ended = true;
    }

    /// Hangs up whatever races.
    fn hang_up_all(&mut self, failure: Failure, cx: &Cx<'_>) {
        for id in LaneId::ALL {
            let taken = self.race_mut().and_then(|race| race.lanes[id.index()].take());
            if let Some(mut lane) = taken {
                self.outputs.push_back(Output::Hangup { lane: id });
                self.close_record(&lane, Some(failure), cx);
                self.settle_health(&mut lane, Some(failure), cx);
            }
        }
    }

    /// The client is gone: everything upstream is closed, nothing further is tried.
    fn gone(&mut self, cx: &Cx<'_>) {
        let failure = Failure::of(Fault::ClientGone);
        let answered = self.is_committed();
        self.hang_up_all(failure, cx);
        let complete = self.down.ended;
        let phase = std::mem::replace(&mut self.phase, Phase::Closing);
        if let Phase::Relaying { at, lane } = phase {
            self.outputs.push_back(Output::Hangup { lane: at });
            self.close_record(&lane, Some(failure), cx);
            if let Some(ledger) = &mut self.ledger {
                ledger.events = lane.events;
                ledger.usage = lane.stream.usage();
            }
        }
        self.body = Buf::new();
        self.down = Down { sealed: true, ended: true, ..Down::default() };
        self.down.write_by = Tick::NEVER;
        self.keep = false;
        if let Some(ledger) = &mut self.ledger
            && !(complete && answered)
        {
            ledger.ending = Ending::Gone;
            if !answered {
                ledger.status = 499;
            }
        }
    }

    fn shut_down(&mut self, cx: &Cx<'_>) {
        self.keep = false;
        match self.phase {
            Phase::Trying(_) | Phase::Opened(_) => self.say(&answer::draining(), cx),
            Phase::Relaying { .. } => self.cut(Failure::of(Fault::Shutdown), cx),
            Phase::Closing | Phase::Done => {}
        }
    }

    // ---- the client's side ----

    fn wrote(&mut self, side: Side, done: bool, cx: &Cx<'_>) {
        match side {
            Side::Down => {
                self.down.writing = !done;
                self.down.write_by = if done { Tick::NEVER } else { cx.now + Ms(limits::WRITE_MS) };
            }
            Side::Up(id) => {
                if let Some(lane) = self.lane_mut(id)
                    && done
                {
                    lane.writing = false;
                    lane.sent = true;
                }
            }
        }
    }

    /// Asks for whatever can go on: writes, reads, the timer, the end.
    fn settle(&mut self, cx: &Cx<'_>) {
        if !self.down.writing && self.down.has_bytes() {
            self.down.writing = true;
            self.down.write_by = cx.now + Ms(limits::WRITE_MS);
            if let Some(ledger) = &mut self.ledger {
                ledger.bytes_out += self.down.filling.len() as u64;
            }
            self.outputs.push_back(Output::Write { side: Side::Down });
        }
        let crowded = self.down.filling.len() >= limits::BACKLOG_BYTES_MAX;
        for id in LaneId::ALL {
            let Some(lane) = self.lane_mut(id) else { continue };
            if lane.stage != Stage::Dialing && !lane.reading && !crowded {
                lane.reading = true;
                self.outputs.push_back(Output::Read { lane: id });
            }
        }
        if matches!(self.phase, Phase::Closing) && !self.down.writing && !self.down.has_bytes() {
            self.phase = Phase::Done;
            if let Some(ledger) = &mut self.ledger {
                ledger.ended = cx.now;
            }
            let keep = self.keep && self.client.keep_alive && self.down.framing != Framing::Close;
            self.outputs.push_back(Output::Finish { keep });
        }
        self.arm(cx);
    }

    /// What must hold after every step.
    fn check(&self) {
        debug_assert!(self.is_committed() || self.down.head.is_empty() || self.is_open());
        debug_assert!(
            !self.is_committed() || !self.outputs.iter().any(|o| matches!(o, Output::Dial { .. })),
            "no dial after the commit"
        );
        debug_assert!(!self.is_done() || !self.down.has_bytes());
        if let Some(ledger) = &self.ledger {
            debug_assert!(ledger.attempts.len() <= limits::PLAN_ATTEMPTS_MAX);
            debug_assert!(
                ledger.committed.is_some() == self.is_committed() || ledger.status == 499
            );
        }
    }

    fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Opened(_))
    }
}

impl Down {
    fn has_bytes(&self) -> bool {
        !self.head.is_empty() || !self.filling.is_empty() || (self.ended && !self.sealed)
    }

    /// Head, one chunk and the end of the framing, as far as they wait: one write.
    fn take(&mut self) -> Buf {
        let seal = self.ended && !self.sealed;
        self.sealed |= seal;
        answer::frame(&mut self.head, &mut self.filling, self.framing, seal)
    }
}

impl Lane {
    fn new(attempt: u8, record: u8, pass: Pass, deadline: Tick) -> Lane {
        Lane {
            attempt,
            record,
            stage: Stage::Dialing,
            pass: Some(pass),
            reused: false,
            heard: false,
            out: Buf::new(),
            writing: false,
            sent: false,
            reading: false,
            torn: Buf::new(),
            status: 0,
            head_keeps: false,
            body: Body::new(head::Framing::None),
            scanner: Scanner::new(limits::FRAME_BYTES_MAX),
            stream: Stream::default(),
            content_type: Box::default(),
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

    /// The whole answer is held: its length is known.
    fn stream_is_whole(&self) -> bool {
        self.ripe == Some(CommittedBy::Complete)
            && matches!(self.stage, Stage::Body(Reading::Whole | Reading::Opaque))
    }

    fn is_event_stream(&self) -> bool {
        match self.stage {
            Stage::Body(Reading::Events) => true,
            Stage::Body(Reading::Raw) => self.content_type.starts_with(b"text/event-stream"),
            Stage::Body(_) | Stage::Dialing | Stage::Head => false,
        }
    }
}

/// What ledger and header call an attempt: its target, with the model where only the request names it.
fn attempt_name(attempt: &Attempt, table: &Table) -> Arc<str> {
    let target = &table.targets[attempt.target];
    match target.model {
        Some(_) => target.name.clone(),
        None => Arc::from(format!("{}/{}", table.providers[target.provider].name, attempt.model)),
    }
}

#[cfg(test)]
mod tests;
