//! Before the commit: attempts start, speak, fail and follow one another.

use std::sync::Arc;

use crate::base::buf::Buf;
use crate::base::fail::{Failure, Fault};
use crate::base::limits;
use crate::base::tick::{Ms, Tick};
use crate::exchange::ledger::AttemptRecord;
use crate::exchange::phase::{Lane, LaneId, Phase, Pumped, Reading, Stage};
use crate::exchange::relay::Reads;
use crate::exchange::verdict::{self, Verdict};
use crate::exchange::{Cx, Exchange, Output, Side, answer};
use crate::llm::parameters::Parameters;
use crate::llm::prompt::Unreadable;
use crate::llm::provider::{Badge, Said, Site};
use crate::llm::providers::{Kind, Stream};
use crate::llm::quirks::Fate;
use crate::llm::request::Surface;
use crate::llm::sink::Told;
use crate::route::health::{Outcome as Health, Pass};
use crate::route::{Attempt, ProviderRow, Table};

impl Exchange {
    /// Starts the plan's next attempt in `id`, if plan, budget and deadline allow. Says whether it did.
    pub(super) fn start_next(&mut self, id: LaneId, cx: &Cx<'_>) -> bool {
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
        let pass = cx.table.breaker(&attempt).begin(cx.now);
        let record = self.open_record(&attempt, hedge, cx);
        let endpoint = target.endpoint;
        let lane = Lane::new(index, record, pass, cx.now + attempt.connect);
        let hedge_after = attempt.hedge;
        if let Some(race) = self.race_mut() {
            race.next = index + 1;
            race.lanes[id.index()] = Some(Box::new(lane));
            race.hedge_at = match hedge_after {
                Some(after) if !hedge => cx.now + after,
                _ => Tick::NEVER,
            };
        }
        if cx.table.providers[target.provider].lacks_token(cx.now) {
            // No connection could help.
            self.fail_lane(id, Failure::of(Fault::NoToken), cx);
            return true;
        }
        let by = cx.now + attempt.connect;
        self.outputs.push(Output::Dial { lane: id, endpoint, fresh: false, by });
        true
    }

    /// After "too long for the window", the same model elsewhere would only say it again, and so would
    /// one whose window is known to be no larger.
    pub(super) fn after_small_window(&self, from: u8) -> u8 {
        let at = |index: u8| self.plan.attempts.get(usize::from(index));
        let Some(last) = from.checked_sub(1).and_then(at) else { return from };
        let says_it_again = |next: &Attempt| {
            let no_larger = next.window.zip(last.window).is_some_and(|(next, last)| next <= last);
            next.model == last.model || no_larger
        };
        let mut index = from;
        while at(index).is_some_and(says_it_again) {
            index += 1;
        }
        index
    }

    pub(super) fn open_record(&mut self, attempt: &Attempt, hedge: bool, cx: &Cx<'_>) -> u8 {
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

    pub(super) fn dialed(&mut self, id: LaneId, reused: bool, cx: &Cx<'_>) {
        let Some(race) = self.race_mut() else { return };
        let Some(mut lane) = race.lanes[id.index()].take() else { return };
        let attempt = self.plan.attempts[usize::from(lane.attempt)].clone();
        let target = &cx.table.targets[attempt.target];
        let provider = &cx.table.providers[target.provider];
        let lease = provider.token.as_ref().and_then(|token| token.current(cx.now));
        let lacks_token = provider.lacks_token(cx.now);
        lane.lease = lease.as_ref().map_or(0, |lease| lease.serial);
        let site = Site {
            authority: &provider.authority,
            path: &provider.path,
            key: lease.as_ref().map(|lease| &lease.token).or(target.key.as_ref()),
            aws: provider.aws.as_deref(),
            badge: badge(provider),
            api_version: provider.api_version.as_deref(),
            model: &attempt.model,
        };
        let native = provider.responses && self.ask.surface == Surface::Responses;
        let kind = if native { Kind::Responses } else { provider.kind };
        lane.stream = Stream::new(kind);
        lane.told = Told::new(self.ask.surface.dialect());
        let sent = if lacks_token {
            Err(Fault::NoToken)
        } else {
            lane.stream.send(&self.ask, self.body.as_slice(), &site, cx.wall, &mut lane.out)
        };
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
                self.outputs.push(Output::Write { side: Side::Up(id) });
            }
            Err(fault) => {
                let said = self.unreadable().or_else(|| self.incompatible(kind, &attempt.model));
                if let Some(lane) = self.lane_mut(id) {
                    lane.stream.keep_said(said);
                }
                self.fail_lane(id, Failure::of(fault), cx);
            }
        }
    }

    /// What makes no sense in a request that could not be put into another format.
    fn unreadable(&self) -> Option<Said> {
        if !self.ask.surface.is_conversation() {
            return None;
        }
        let unreadable = self.ask.prompt(self.body.as_slice()).err()?;
        let Unreadable { at, expected } = unreadable;
        let message = format!("{at}: expected {expected}");
        Some(Said { message, param: Some(at), ..Said::default() })
    }

    /// Which parameter a provider can't serve.
    fn incompatible(&self, kind: Kind, model: &str) -> Option<Said> {
        let parameters = Parameters::of(&self.ask, self.body.as_slice(), false)?;
        let judged = parameters.fates(kind, model);
        let (path, _) = judged.into_iter().find(|(_, fate)| *fate == Fate::Incompatible)?;
        let message = format!("{} can't serve {path} as it was asked for", kind.name());
        Some(Said { message, param: Some(path.into_owned()), ..Said::default() })
    }

    pub(super) fn received(&mut self, id: LaneId, rx: &mut Buf, cx: &Cx<'_>) {
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
    pub(super) fn pumped_with(
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
            id: self.ledger.as_ref().map_or("", |ledger| &ledger.id),
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
    pub(super) fn after_head(
        &mut self,
        id: LaneId,
        began_body: bool,
        first_limit: Ms,
        cx: &Cx<'_>,
    ) {
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
    pub(super) fn follow(&mut self, id: LaneId, pumped: Pumped, cx: &Cx<'_>) {
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
            lane.held.shrink_idle(limits::READ_BYTES_MIN);
        }
        match pumped {
            Pumped::More => {}
            Pumped::Good => self.end_good(id, cx),
            Pumped::Bad(failure) if self.is_committed() => self.cut(failure, cx),
            Pumped::Bad(failure) => self.fail_lane(id, failure, cx),
        }
    }

    pub(super) fn broke(&mut self, id: LaneId, fault: Fault, write: bool, cx: &Cx<'_>) {
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
    pub(super) fn fail_lane(&mut self, id: LaneId, failure: Failure, cx: &Cx<'_>) {
        if self.replay(id, failure, cx) {
            return;
        }
        let Some(race) = self.race_mut() else { return };
        let Some(mut lane) = race.lanes[id.index()].take() else { return };
        // A whole error is a good end of HTTP: to dial anew would add to the load of a provider that has too
        // much of it.
        let is_error = lane.stage == Stage::Body(Reading::Error) && is_of_request(lane.status);
        self.outputs.push(match is_error && lane.body.is_done() && lane.is_reusable() {
            true => Output::Release { lane: id },
            false => Output::Hangup { lane: id },
        });
        self.close_record(&lane, Some(failure), cx);
        self.settle_health(&mut lane, Some(failure), cx);
        let said = self.said_by(&mut lane, cx);
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
    pub(super) fn keep_failure(&mut self, failure: Failure, said: Option<Said>) {
        let earlier = self.failure.as_ref().map(|(failure, _)| *failure);
        if earlier.is_some_and(answer::is_clients) && !answer::is_clients(failure) {
            return;
        }
        self.failure = Some((failure, said));
    }

    /// After a lane is gone: the other one goes on, or the next attempt starts, or the answer is given.
    pub(super) fn carry_on(&mut self, id: LaneId, cx: &Cx<'_>) {
        let Some(race) = self.race_mut() else { return };
        if !race.is_idle() || self.start_next(id, cx) {
            return;
        }
        self.give_up(cx);
    }

    /// A pooled connection that died before the first response byte is replaced once.
    pub(super) fn replay(&mut self, id: LaneId, failure: Failure, cx: &Cx<'_>) -> bool {
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
        self.outputs.push(Output::Hangup { lane: id });
        self.outputs.push(Output::Dial { lane: id, endpoint, fresh: true, by });
        true
    }

    pub(super) fn close_record(&mut self, lane: &Lane, failure: Option<Failure>, cx: &Cx<'_>) {
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
    pub(super) fn settle_health(&self, lane: &mut Lane, failure: Option<Failure>, cx: &Cx<'_>) {
        let attempt = &self.plan.attempts[usize::from(lane.attempt)];
        let (target, breaker) = (&cx.table.targets[attempt.target], cx.table.breaker(attempt));
        let outcome = match failure {
            None => Health::Good,
            Some(failure) if failure.fault.is_ours() => Health::Nothing,
            Some(_) => Health::Bad,
        };
        if let Some(failure) = failure
            && let Some(wait) = verdict::cool_down(failure)
        {
            breaker.cool(cx.now + wait, failure.status);
        }
        if failure.is_some_and(|failure| failure.status == 401)
            && let Some(token) = &cx.table.providers[target.provider].token
        {
            token.refuse(lane.lease);
        }
        breaker.end(lane.pass.take().unwrap_or(Pass::Normal), outcome, cx.now);
        self.settle_speed(lane, failure, cx);
    }

    /// Tells the target's measures: how soon the first content came, or that none came for so long, or
    /// that it failed. What ended for the client's sake says only how long was waited.
    fn settle_speed(&self, lane: &Lane, failure: Option<Failure>, cx: &Cx<'_>) {
        let speed = &cx.table.targets[self.plan.attempts[usize::from(lane.attempt)].target].speed;
        let records = self.ledger.as_ref().map(|ledger| &ledger.attempts);
        let began = records.and_then(|records| records.get(usize::from(lane.record)));
        let Some(began) = began.map(|record| record.began) else { return };
        // A whole answer shows nothing before its end: its time is another measure.
        let streams = self.ask.stream;
        match (failure, lane.first) {
            (None, Some(first)) if streams => speed.first(first - began, cx.now),
            (None, _) => {}
            (Some(failure), None) if streams && is_patience(failure.fault) => {
                speed.waited(cx.now - began, cx.now);
                if failure.fault == Fault::ContentTimeout || failure.fault == Fault::HeadTimeout {
                    speed.failed(cx.now);
                }
            }
            (Some(failure), _) if answer::is_clients(failure) => {}
            (Some(failure), _) if failure.fault.is_ours() => {}
            (Some(_), _) => speed.failed(cx.now),
        }
    }

    /// Tells how many tokens came in how long, and whose cache holds this conversation now.
    pub(super) fn settle_rate(&self, lane: &Lane, cx: &Cx<'_>) {
        let id = self.plan.attempts[usize::from(lane.attempt)].target;
        let target = &cx.table.targets[id];
        let usage = lane.stream.usage();
        if let (true, Some(first)) = (self.ask.stream, lane.first) {
            let counted = usage.as_ref().map_or(0, |usage| usage.completion);
            target.speed.rate(counted.max(u64::from(lane.contents)), cx.now - first);
        }
        if target.model.is_some() {
            let demand = &self.ask.demand;
            let counted = usage.map_or(0, |usage| usage.prompt);
            let prompt = u32::try_from(counted).unwrap_or(u32::MAX).max(demand.least());
            cx.table.affinity.note(demand.thread, id, prompt, cx.now);
        }
    }
}

/// Whether an attempt ended because nobody waited for it any longer: a time-out, a lost race, a client
/// that left.
fn is_patience(fault: Fault) -> bool {
    matches!(
        fault,
        Fault::ContentTimeout
            | Fault::HeadTimeout
            | Fault::Deadline
            | Fault::Total
            | Fault::ClientGone
            | Fault::LostRace
    )
}

/// How a provider's credential is told.
fn badge(provider: &ProviderRow) -> Badge {
    match provider.kind {
        _ if provider.token.is_some() => Badge::Token,
        Kind::AZURE => Badge::ApiKey,
        _ => Badge::Usual,
    }
}

/// What ledger and header call an attempt: its target, with the model where only the request names it.
pub(super) fn attempt_name(attempt: &Attempt, table: &Table) -> Arc<str> {
    let target = &table.targets[attempt.target];
    match target.model {
        Some(_) => target.name.clone(),
        None => Arc::from(format!("{}/{}", table.providers[target.provider].name, attempt.model)),
    }
}

/// Whether an error status is about a request or the provider's state, and not about how the connection or
/// the message on it is understood: what comes next on that may be misunderstood as well.
fn is_of_request(status: u16) -> bool {
    matches!(status, 400..=599) && !matches!(status, 408 | 411 | 414 | 417 | 421 | 426 | 431)
}
