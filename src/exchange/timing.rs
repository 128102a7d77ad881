//! The clock's part of an exchange: one timer, the nearest of all limits. A limit that only moves away
//! (idle, write) does not re-arm the timer; an alarm that comes too early finds nothing due and arms
//! the next.

use crate::base::fail::{Failure, Fault};
use crate::base::limits;
use crate::base::tick::{Ms, Tick};
use crate::exchange::ledger::{CommittedBy, Ending};
use crate::exchange::patience::Look;
use crate::exchange::phase::{Lane, LaneId, Phase, Pumped, Reading, Stage};
use crate::exchange::{Cx, Exchange, Output, answer};

/// Over how long `throughput_floor` is measured.
const FLOOR_WINDOW: Ms = Ms(5_000);

impl Exchange {
    /// Asks for the timer if the nearest limit is nearer than what is armed.
    pub(super) fn arm(&mut self, cx: &Cx<'_>) {
        if self.is_done() {
            return;
        }
        let at = self.next_limit();
        if at < self.armed || self.armed <= cx.now {
            self.armed = at;
            self.outputs.push(Output::Arm { at });
        }
    }

    fn next_limit(&self) -> Tick {
        let mut at = self.down.reading.look_at().min(self.total_at());
        match &self.phase {
            Phase::Trying(race) | Phase::Opened(race) => {
                at = at
                    .min(self.deadline_at())
                    .min(self.opened_at)
                    .min(self.heartbeat_at)
                    .min(race.hedge_at);
                for lane in race.lanes.iter().flatten() {
                    at = at.min(self.lane_limit(lane)).min(lane.tokens_at);
                }
            }
            Phase::Relaying { lane, .. } => at = at.min(self.lane_limit(lane)),
            Phase::Closing | Phase::Done => {}
        }
        at
    }

    /// When the lane itself is out of time. A lane that may not read (the client is slow) can't be
    /// blamed for silence.
    fn lane_limit(&self, lane: &Lane) -> Tick {
        let unread = !lane.reading && lane.stage != Stage::Dialing;
        if lane.first.is_none() {
            return lane.deadline;
        }
        if unread {
            return Tick::NEVER;
        }
        let floor =
            if self.floor_of(lane) > 0 { lane.floor_from.0 + FLOOR_WINDOW } else { Tick::NEVER };
        lane.idle_at.min(floor)
    }

    fn floor_of(&self, lane: &Lane) -> u32 {
        self.plan.attempts.get(usize::from(lane.attempt)).map_or(0, |attempt| attempt.floor)
    }

    fn began(&self) -> Tick {
        self.ledger.as_ref().map_or(Tick::NEVER, |ledger| ledger.began)
    }

    fn total_at(&self) -> Tick {
        match self.phase {
            Phase::Closing | Phase::Done => Tick::NEVER,
            _ => self.began() + self.plan.rules.total,
        }
    }

    /// By when something must have been committed: streams by `first_content_deadline`, whole answers
    /// only if the client named a deadline of its own.
    fn deadline_at(&self) -> Tick {
        if self.ask.stream || self.ask.deadline.is_some() {
            self.began() + self.plan.rules.deadline
        } else {
            Tick::NEVER
        }
    }

    /// The time that was asked for has come: does whatever is due.
    pub(super) fn alarm(&mut self, cx: &Cx<'_>) {
        self.armed = Tick::NEVER;
        if self.down.reading.look_at() <= cx.now {
            match self.down.reading.look(cx.now, self.client.patience) {
                Look::Well => {}
                Look::Stuck => return self.gone(cx),
                Look::Slow => return self.leave(Ending::Slow, cx),
            }
        }
        if self.total_at() <= cx.now {
            self.out_of_time(Fault::Total, cx);
            return;
        }
        match self.phase {
            Phase::Trying(_) | Phase::Opened(_) => self.alarm_before_commit(cx),
            Phase::Relaying { .. } => self.alarm_after_commit(cx),
            Phase::Closing | Phase::Done => {}
        }
    }

    fn alarm_before_commit(&mut self, cx: &Cx<'_>) {
        if self.deadline_at() <= cx.now {
            self.out_of_time(Fault::Deadline, cx);
            return;
        }
        for id in LaneId::ALL {
            self.lane_alarm(id, cx);
        }
        if self.is_committed() {
            return;
        }
        if self.opened_at <= cx.now {
            self.open(cx);
        }
        if self.heartbeat_at <= cx.now && matches!(self.phase, Phase::Opened(_)) {
            self.down.filling.extend(answer::WAITING);
            self.heartbeat_at = cx.now + Ms(limits::HEARTBEAT_MS);
        }
        self.hedge(cx);
    }

    fn alarm_after_commit(&mut self, cx: &Cx<'_>) {
        let Phase::Relaying { at, lane } = &self.phase else { return };
        let (at, due) = (*at, self.due(lane, cx));
        match due {
            None => {}
            Some(Fault::TooSlow) if self.keeps_up(at, cx) => {}
            Some(Fault::IdleTimeout) => self.silent(at, cx),
            Some(fault) => self.cut(Failure::of(fault), cx),
        }
    }

    /// What a lane is out of time for.
    fn due(&self, lane: &Lane, cx: &Cx<'_>) -> Option<Fault> {
        if self.lane_limit(lane) > cx.now {
            return None;
        }
        Some(match lane.stage {
            Stage::Dialing => Fault::ConnectTimeout,
            Stage::Head => Fault::HeadTimeout,
            Stage::Body(_) if lane.first.is_none() => Fault::ContentTimeout,
            Stage::Body(_) if lane.idle_at <= cx.now => Fault::IdleTimeout,
            Stage::Body(_) => Fault::TooSlow,
        })
    }

    fn lane_alarm(&mut self, id: LaneId, cx: &Cx<'_>) {
        let Some(lane) = self.lane_mut(id) else { return };
        if lane.tokens_at <= cx.now {
            lane.tokens_at = Tick::NEVER;
            lane.ripen(CommittedBy::Tokens);
            self.follow(id, Pumped::More, cx);
            return;
        }
        let Some(lane) = self.lane_ref(id) else { return };
        match self.due(lane, cx) {
            None => {}
            Some(Fault::TooSlow) if self.keeps_up(id, cx) => {}
            Some(Fault::IdleTimeout) => self.silent(id, cx),
            Some(fault) => self.fail_lane(id, Failure::of(fault), cx),
        }
    }

    fn lane_ref(&self, id: LaneId) -> Option<&Lane> {
        match &self.phase {
            Phase::Trying(race) | Phase::Opened(race) => race.lanes[id.index()].as_deref(),
            Phase::Relaying { at, lane } if *at == id => Some(lane),
            Phase::Relaying { .. } | Phase::Closing | Phase::Done => None,
        }
    }

    /// Whether the lane reached its floor over the last window; starts the next window.
    fn keeps_up(&mut self, id: LaneId, cx: &Cx<'_>) -> bool {
        let Some(floor) = self.lane_ref(id).map(|lane| self.floor_of(lane)) else { return true };
        let Some(lane) = self.lane_mut(id) else { return true };
        let needed = u64::from(floor) * FLOOR_WINDOW.micros() / 1_000_000;
        let came = u64::from(lane.contents - lane.floor_from.1);
        lane.floor_from = (cx.now, lane.contents);
        came >= needed
    }

    /// No content for `idle_timeout`. If all that was missing is a trailer, the end is a good one.
    fn silent(&mut self, id: LaneId, cx: &Cx<'_>) {
        self.pumped_with(id, cx, |lane, reads| {
            lane.broken(Fault::IdleTimeout, Reading::Events, reads)
        });
    }

    /// A limit of the whole exchange has passed.
    fn out_of_time(&mut self, fault: Fault, cx: &Cx<'_>) {
        let failure = Failure::of(fault);
        if self.is_committed() {
            self.cut(failure, cx);
            return;
        }
        self.failure = Some((failure, None));
        self.hang_up_all(failure, cx);
        self.give_up(cx);
    }

    /// The attempt under way has been silent for `hedge_after`: the next one starts beside it.
    fn hedge(&mut self, cx: &Cx<'_>) {
        let Some(race) = self.race_mut() else { return };
        if race.hedge_at > cx.now {
            return;
        }
        race.hedge_at = Tick::NEVER;
        let free = LaneId::ALL.into_iter().find(|id| race.lanes[id.index()].is_none());
        let silent = race.lanes.iter().flatten().all(|lane| lane.first.is_none());
        if let Some(free) = free
            && silent
            && !race.is_idle()
        {
            self.start_next(free, cx);
        }
    }
}
