//! How an exchange ends: well, cut, given up, left, shut down.

use std::sync::Arc;

use crate::base::buf::Buf;
use crate::base::fail::{Failure, Fault};
use crate::base::tick::Tick;
use crate::exchange::answer::{self, Answer, Cooling, Framing};
use crate::exchange::attempts::attempt_name;
use crate::exchange::ledger::Ending;
use crate::exchange::phase::{Lane, LaneId, Phase, Reading, Stage};
use crate::exchange::{Cx, Down, Exchange, Output};
use crate::llm::provider::Said;
use crate::route::health::Standing;
use crate::wire::http1::emit;

impl Exchange {
    /// The provider's good end. If nothing was committed yet, `follow` has done so before.
    pub(super) fn end_good(&mut self, id: LaneId, cx: &Cx<'_>) {
        let Phase::Relaying { at, mut lane } = std::mem::replace(&mut self.phase, Phase::Closing)
        else {
            debug_assert!(false, "a good end without a commit");
            return;
        };
        debug_assert!(at == id);
        self.spent[1] = lane.torn.take_idle();
        self.close_record(&lane, None, cx);
        self.settle_rate(&lane, cx);
        if let Some(ledger) = &mut self.ledger {
            ledger.ending = Ending::Good;
        }
        self.count(&lane, cx);
        let reusable = lane.is_reusable();
        self.outputs.push(match lane.body.is_done() {
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
    pub(super) fn cut(&mut self, failure: Failure, cx: &Cx<'_>) {
        let Phase::Relaying { at, mut lane } = std::mem::replace(&mut self.phase, Phase::Closing)
        else {
            return;
        };
        self.outputs.push(Output::Hangup { lane: at });
        self.close_record(&lane, Some(failure), cx);
        if !failure.fault.is_ours() {
            self.settle_health(&mut lane, Some(failure), cx);
        }
        let said = self.said_by(&mut lane, cx);
        if let Some(ledger) = &mut self.ledger {
            ledger.ending = Ending::Cut(failure.fault);
        }
        self.count(&lane, cx);
        let name = self.attempt_name(lane.attempt, cx);
        if lane.is_event_stream() {
            let id = self.ledger.as_ref().map_or("", |ledger| &ledger.id);
            let (told, out) = (&mut lane.told, &mut self.down.filling);
            if matches!(lane.stage, Stage::Body(Reading::Raw)) {
                // What is passed on unread may have been torn inside of an event.
                out.extend(b"\n\n");
            }
            answer::write_cut(failure, said.as_ref(), (&name, id), told, out);
            self.down.ended = true;
        } else {
            // Nothing can be added to a body that is not understood: it is left visibly unfinished.
            // One that the connection's end would make whole ends by a reset.
            self.keep = false;
            self.is_torn = self.down.framing == Framing::Close;
            self.down.sealed = true;
            self.down.framing = Framing::Close;
        }
    }

    /// What the answer consisted of, and what it cost.
    fn count(&mut self, lane: &Lane, cx: &Cx<'_>) {
        let Some(ledger) = &mut self.ledger else { return };
        ledger.events = lane.events;
        ledger.usage = lane.stream.usage();
        let attempt = self.plan.attempts.get(usize::from(lane.attempt));
        let price = attempt.and_then(|attempt| cx.table.price_of(attempt));
        if let (Some(price), Some(usage)) = (price, ledger.usage) {
            let fresh = usage.prompt.saturating_sub(usage.cached).saturating_sub(usage.cache_write);
            let cost = price.charge(fresh, usage.cached, usage.cache_write, usage.completion);
            ledger.cost_nanos = Some(cost);
        }
    }

    /// What a lane's provider said of its failure, without the credentials that it was sent.
    pub(super) fn said_by(&self, lane: &mut Lane, cx: &Cx<'_>) -> Option<Said> {
        let mut said = lane.stream.said()?;
        let attempt = self.plan.attempts.get(usize::from(lane.attempt))?;
        let target = &cx.table.targets[attempt.target];
        let provider = &cx.table.providers[target.provider];
        let lease = provider.token.as_ref().and_then(|token| token.current(cx.now));
        let aws = provider.aws.as_deref();
        let of_aws = aws.map(|keys| {
            [Some(&keys.access_key), Some(&keys.secret_key), keys.session_token.as_ref()]
        });
        let token = lease.as_ref().map(|lease| &lease.token);
        for secret in of_aws.into_iter().flatten().chain([target.key.as_ref(), token]).flatten() {
            said.conceal(secret);
        }
        Some(said)
    }

    pub(super) fn attempt_name(&self, index: u8, cx: &Cx<'_>) -> Arc<str> {
        match self.plan.attempts.get(usize::from(index)) {
            Some(attempt) => attempt_name(attempt, cx.table),
            None => Arc::from(""),
        }
    }

    /// Nothing is left to try.
    pub(super) fn give_up(&mut self, cx: &Cx<'_>) {
        let Some(ledger) = &self.ledger else { return };
        let last = self.failure.take();
        let answer = answer::all_failed(ledger, last, self.cooling(cx));
        self.say(&answer, cx);
    }

    /// If every target of the plan asked to be left alone: for how long at least, and whether one of
    /// them said so with a 429.
    fn cooling(&self, cx: &Cx<'_>) -> Option<Cooling> {
        let mut soonest = Tick::NEVER;
        let mut limited = false;
        for attempt in &self.plan.attempts {
            let standing = cx.table.breaker(attempt).standing(cx.now);
            let Standing::Cooling { until, status } = standing else { return None };
            soonest = soonest.min(until);
            limited |= status == 429;
        }
        Some(Cooling { wait: soonest - cx.now, limited })
    }

    /// Commits to an answer of the gateway's own.
    pub(super) fn say(&mut self, answer: &Answer, cx: &Cx<'_>) {
        let opened = matches!(self.phase, Phase::Opened(_));
        self.hang_up_all(Failure::of(Fault::Shutdown), cx);
        self.phase = Phase::Closing;
        self.body = Buf::new();
        let Some(ledger) = &mut self.ledger else { return };
        ledger.committed = Some((cx.now, answer.committed_by()));
        ledger.ending = answer.ending();
        if opened {
            answer.write_event(ledger.surface.dialect(), &ledger.id, &mut self.down.filling);
            self.down.ended = true;
            return;
        }
        ledger.status = answer.status;
        self.keep &= answer.keep;
        let keep = self.keep && self.client.keep_alive;
        answer.write_head(ledger, keep, &self.client, cx.now, &mut self.down.head);
        let body = answer.body(ledger.surface.dialect(), &ledger.id);
        if self.client.to_head || answer.status == 204 {
            self.down.framing = Framing::Bodiless;
            // An error says which method it is about, so its length would not be that for GET.
            if answer.status == 200 {
                emit::content_length(&mut self.down.head, body.len() as u64);
            }
        } else {
            self.down.framing = Framing::Length;
            self.down.filling.extend(&body);
        }
        self.down.ended = true;
    }

    /// Hangs up whatever races.
    pub(super) fn hang_up_all(&mut self, failure: Failure, cx: &Cx<'_>) {
        for id in LaneId::ALL {
            let taken = self.race_mut().and_then(|race| race.lanes[id.index()].take());
            if let Some(mut lane) = taken {
                self.outputs.push(Output::Hangup { lane: id });
                self.close_record(&lane, Some(failure), cx);
                self.settle_health(&mut lane, Some(failure), cx);
            }
        }
    }

    /// The client is gone: everything upstream is closed, nothing further is tried.
    pub(super) fn gone(&mut self, cx: &Cx<'_>) {
        self.leave(Ending::Gone, cx);
    }

    /// Leaves a client that is gone, or that is as good as gone.
    pub(super) fn leave(&mut self, ending: Ending, cx: &Cx<'_>) {
        let failure = Failure::of(Fault::ClientGone);
        let answered = self.is_committed();
        self.hang_up_all(failure, cx);
        let complete = self.down.ended;
        let phase = std::mem::replace(&mut self.phase, Phase::Closing);
        if let Phase::Relaying { at, lane } = phase {
            self.outputs.push(Output::Hangup { lane: at });
            self.close_record(&lane, Some(failure), cx);
            self.count(&lane, cx);
        }
        self.body = Buf::new();
        self.down = Down { sealed: true, ended: true, ..Down::default() };
        self.keep = false;
        if let Some(ledger) = &mut self.ledger
            && !(complete && answered)
        {
            ledger.ending = ending;
            if !answered {
                ledger.status = 499;
            }
        }
    }

    pub(super) fn shut_down(&mut self, cx: &Cx<'_>) {
        self.keep = false;
        match self.phase {
            Phase::Trying(_) | Phase::Opened(_) => self.say(&answer::draining(), cx),
            Phase::Relaying { .. } => self.cut(Failure::of(Fault::Shutdown), cx),
            Phase::Closing | Phase::Done => {}
        }
    }
}
