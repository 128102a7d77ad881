//! An answer for a client of the same dialect: events and bodies go out as they came, but for the model's
//! name. They are read only for what the exchange must know: substance, the terminal signal, errors,
//! counts.

use crate::base::fail::Fault;
use crate::llm::dialects::{chat, responses as dialect};
use crate::llm::event::Mark;
use crate::llm::sink::Sink;
use crate::wire::json::{self, Kind, Top, Value};

use super::read::{strand_of, string};
use super::{Event, Responses};

impl Responses {
    /// One event of a stream.
    pub(super) fn pass(
        &mut self,
        payload: &[u8],
        members: &Top,
        kind: &[u8],
        sink: &mut Sink<'_>,
    ) -> Result<Mark, Fault> {
        let event = Event::read(payload, members);
        let status = match kind {
            b"response.completed"
            | b"response.incomplete"
            | b"response.failed"
            | b"response.cancelled" => kind.strip_prefix(b"response."),
            _ => None,
        };
        if let Some(status) = status {
            // A bad end is told by the gateway, once.
            self.outcome(payload, event.response, status, sink)?;
            self.finished = true;
        }
        let model = event.response.and_then(|response| model_of(payload, response));
        let number = json::find(payload, members, "sequence_number");
        let number = number.and_then(|number| json::as_u64(payload, number));
        dialect::pass(kind, payload, model.map(|model| model.span), number, sink);
        Ok(if self.finished { Mark::End } else { mark_of(payload, kind, &event) })
    }

    /// A whole answer. One that is not there yet was asked for so.
    pub(super) fn pass_whole(
        &mut self,
        body: &[u8],
        top: Value,
        sink: &mut Sink<'_>,
    ) -> Result<(), Fault> {
        match self.outcome(body, Some(top), b"completed", sink) {
            Ok(_) | Err(Fault::Truncated) => {}
            Err(fault) => return Err(fault),
        }
        chat::whole(body, model_of(body, top).map(|model| model.span), sink);
        Ok(())
    }
}

fn model_of(bytes: &[u8], response: Value) -> Option<Value> {
    json::get(bytes, response, "model").filter(|model| model.kind == Kind::String)
}

/// What an event is to the commit point: a client that sees a tool of the provider at work has got
/// something.
fn mark_of(payload: &[u8], kind: &[u8], event: &Event) -> Mark {
    let has = |piece: Option<Value>| {
        piece
            .is_some_and(|piece| json::raw_string(payload, piece).is_none_or(|raw| !raw.is_empty()))
    };
    let substance = match kind {
        b"keepalive" | b"ping" => return Mark::Idle,
        b"response.output_item.added" | b"response.output_item.done" => {
            event.item.is_some_and(|item| match string(payload, item, "type") {
                b"message" | b"reasoning" => {
                    let content = json::get(payload, item, "content");
                    kind.ends_with(b"done")
                        && content.is_some_and(|list| json::items(payload, list).next().is_some())
                }
                _ => true,
            })
        }
        b"response.output_text.annotation.added" => true,
        _ if kind.ends_with(b".delta") => has(event.delta),
        _ if kind.ends_with(b".partial_image") => true,
        _ => strand_of(kind).is_some_and(|(_, is_whole)| is_whole && has(event.whole)),
    };
    if substance { Mark::Content } else { Mark::Event }
}
