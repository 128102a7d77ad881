//! The commit point: the one place where the flag turns.

use crate::base::fail::{Failure, Fault};
use crate::base::limits;
use crate::base::tick::{Ms, Tick};
use crate::exchange::ledger::CommittedBy;
use crate::exchange::phase::{Lane, LaneId, Phase, Reading, Stage};
use crate::exchange::{Cx, Exchange, Output, answer};

impl Exchange {
    /// The one place where the flag turns: before any byte of the answer is handed to the socket.
    pub(super) fn commit(&mut self, id: LaneId, by: CommittedBy, cx: &Cx<'_>) {
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
            self.outputs.push(Output::Hangup { lane: id.other() });
            let lost = Failure::of(Fault::LostRace);
            self.close_record(&loser, Some(lost), cx);
            self.settle_health(&mut loser, Some(lost), cx);
        }
        self.spent[0] = self.body.take();
        self.settle_health(&mut lane, None, cx);
        if let Some(ledger) = &mut self.ledger {
            ledger.committed = Some((cx.now, by));
            ledger.winner = Some(lane.record);
        }
        self.write_head(&lane, opened, cx);
        self.phase = Phase::Relaying { at: id, lane };
    }

    /// The head of a good answer; where the stream is open already, the ledger as a comment.
    pub(super) fn write_head(&mut self, lane: &Lane, opened: bool, cx: &Cx<'_>) {
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
        ledger.status = if lane.status == 0 { 200 } else { lane.status };
        self.down.framing = match ledger.status {
            204 => answer::Framing::Bodiless,
            _ => self.client.framing(length),
        };
        let content_type: &[u8] = if stream {
            b"text/event-stream; charset=utf-8"
        } else if self.ask.surface.is_understood() || lane.content_type.is_empty() {
            b"application/json"
        } else {
            &lane.content_type
        };
        let head = answer::Head {
            status: ledger.status,
            content_type,
            streamed: !whole,
            framing: self.down.framing,
            keep: self.keep && self.client.keep_alive,
            minor: self.client.minor,
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
    pub(super) fn open(&mut self, cx: &Cx<'_>) {
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
            minor: self.client.minor,
        };
        answer::write_head(&head, ledger, None, cx.now, &mut self.down.head);
        self.down.filling.extend(answer::WAITING);
        self.heartbeat_at = cx.now + Ms(limits::HEARTBEAT_MS);
    }
}
