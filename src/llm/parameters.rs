//! How the parameters of a chat client's request fare with a provider's model, before anything is sent.
//!
//! ```text
//! {"model":"m","messages":[..100 KB..],"n":2,"seed":7,"stop":["\n"]}
//!                                      ~~~~~ ~~~~~~~~ ~~~~~~~~~~~~~
//!              anthropic:              can't  dropped  adapted: stop_sequences
//! ```
//!
//! Vendors that copy OpenAI's format have a table (`llm/quirks`). The other adapters are asked themselves:
//! each writes its request for a short conversation with these parameters and without one of them, and what
//! comes of it is the verdict. So a verdict can't say anything else than what would be sent. What is said
//! and shown in the conversation is no parameter: that is a matter of abilities (`llm/needs`), but for the
//! kinds of media that a vendor's table refuses.
//!
//! A plan depends on a verdict only if a parameter may be refused, or dropped where the request requires its
//! parameters. [`Parameters::matter`] says so in the time of a few comparisons, and most requests go by it.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use crate::base::buf::Buf;
use crate::base::secret::Secret;
use crate::base::tick::UnixMs;
use crate::llm::needs::Needs;
use crate::llm::provider::Site;
use crate::llm::providers::{Kind, Stream};
use crate::llm::quirks::{Fate, Fates};
use crate::llm::request::{Ask, Surface};

/// The parameters of one request.
#[derive(Debug)]
pub struct Parameters {
    /// A conversation of one turn, with the tools that a choice may name.
    frame: Map<String, Value>,
    /// The same with the kinds of media that the request has.
    shown: Map<String, Value>,
    /// What asks for something, in the request's order.
    list: Vec<(String, Value)>,
    /// Whether all is to be told, or only what can't be served.
    closely: bool,
}

impl Parameters {
    /// The parameters of a request that a chat client made; none of any other. With `closely` all that is
    /// not passed will be told, else only what can't be served.
    pub fn of(ask: &Ask, body: &[u8], closely: bool) -> Option<Parameters> {
        if !matches!(ask.surface, Surface::Chat | Surface::Explain) || !ask.demand.chats {
            return None;
        }
        let mut list = Vec::new();
        for member in &ask.parameters {
            let name = member.name(body).into_owned();
            if ask.surface == Surface::Explain && OTHERS.contains(&name.as_str()) {
                return None;
            }
            let value = serde_json::from_slice(member.value.raw(body)).ok()?;
            if !asks_for_nothing(&name, &value) {
                list.push((name, value));
            }
        }
        let tool = list.iter().find(|(name, _)| name == "tool_choice");
        let tool = tool.and_then(|(_, choice)| choice["function"]["name"].as_str()).unwrap_or("f");
        let schema = json!({ "type": "object", "properties": {} });
        let tools = json!([{ "type": "function",
            "function": { "name": tool, "parameters": schema } }]);
        let has_tools = !ask.demand.needs.common(Needs::TOOLS).is_empty();
        let frame = |content: Value| {
            let turn = json!({ "role": "user", "content": content });
            let mut frame = Map::new();
            frame.insert("model".into(), json!("m"));
            frame.insert("messages".into(), json!([turn]));
            if has_tools {
                frame.insert("tools".into(), tools.clone());
            }
            frame
        };
        let media = media(ask.demand.needs);
        Some(Parameters { frame: frame(json!("x")), shown: frame(media), list, closely })
    }

    /// Whether a plan may depend on how the request's parameters fare: it has one that some provider can't
    /// serve, or it requires all that it has.
    pub fn matter(ask: &Ask, body: &[u8]) -> bool {
        let media = Needs::IMAGE.and(Needs::AUDIO).and(Needs::FILE).and(Needs::TOOLS);
        !ask.demand.needs.common(media).is_empty()
            || ask
                .parameters
                .iter()
                .any(|member| ask.prefs.require || !SERVED.contains(&&*member.name(body)))
    }

    /// How they fare with a model of this kind. What is passed as it came is not listed.
    pub fn fates(&self, kind: Kind, model: &str) -> Fates {
        if !kind.sends() {
            return Fates::new();
        }
        let body = self.body(&self.shown, |_| true);
        match kind.judge(&body, model) {
            Some(fates) => fates,
            None => self.tried(kind, model),
        }
    }

    /// A body with those parameters that `keeps` names by their place.
    fn body(&self, frame: &Map<String, Value>, keeps: impl Fn(usize) -> bool) -> Vec<u8> {
        let mut body = frame.clone();
        for (index, (name, value)) in self.list.iter().enumerate() {
            if keeps(index) {
                body.insert(name.clone(), value.clone());
            }
        }
        serde_json::to_vec(&body).unwrap_or_default()
    }

    /// What an adapter would send; `None`: it can't.
    fn sent(&self, kind: Kind, model: &str, keeps: impl Fn(usize) -> bool) -> Option<Buf> {
        let body = self.body(&self.frame, keeps);
        let ask = Ask::read(Surface::Chat, &body).ok()?;
        let key = Secret::new("key");
        let site = Site { authority: "host", model, key: Some(&key), ..Site::default() };
        let mut out = Buf::new();
        Stream::new(kind).send(&ask, &body, &site, UnixMs(0), &mut out).ok()?;
        Some(out)
    }

    /// The verdicts of an adapter that is asked itself.
    fn tried(&self, kind: Kind, model: &str) -> Fates {
        if !self.closely && self.list.iter().all(|(name, _)| SERVED.contains(&name.as_str())) {
            return Fates::new();
        }
        let mut refused: Vec<usize> = Vec::new();
        let mut full = self.sent(kind, model, |_| true);
        if full.is_none() {
            if self.sent(kind, model, |_| false).is_none() {
                // Not the parameters are at fault.
                return Fates::new();
            }
            let all = 0..self.list.len();
            // Alone it can't be said; or, if each can, not beside the others.
            refused =
                all.clone().filter(|p| self.sent(kind, model, |i| i == *p).is_none()).collect();
            if refused.is_empty() {
                refused = all.filter(|p| self.sent(kind, model, |i| i != *p).is_some()).collect();
            }
            full = self.sent(kind, model, |i| !refused.contains(&i));
        }
        let told = |index: usize, fate: Fate| (Cow::Owned(self.list[index].0.clone()), fate);
        let mut fates: Fates = refused.iter().map(|p| told(*p, Fate::Incompatible)).collect();
        let (true, Some(full)) = (self.closely, full) else { return fates };
        let full = full.as_slice();
        let start = full.windows(4).position(|w| w == b"\r\n\r\n").map_or(full.len(), |at| at + 4);
        let written: Value = serde_json::from_slice(&full[start..]).unwrap_or_default();
        for (index, (name, value)) in self.list.iter().enumerate() {
            if refused.contains(&index) {
                continue;
            }
            let keeps = |i| i != index && !refused.contains(&i);
            if self.sent(kind, model, keeps).is_some_and(|without| without.as_slice() == full) {
                fates.push(told(index, Fate::Dropped));
            } else if written.get(name) != Some(value) {
                fates.push(told(index, Fate::Adapted));
            }
        }
        fates
    }
}

/// A turn that shows what the request shows, of the smallest size.
fn media(needs: Needs) -> Value {
    let mut parts = vec![json!({ "type": "text", "text": "x" })];
    for (need, part) in [
        (Needs::IMAGE, json!({ "type": "image_url", "image_url": { "url": "https://x" } })),
        (
            Needs::AUDIO,
            json!({ "type": "input_audio", "input_audio": { "data": "QQ==", "format": "wav" } }),
        ),
        (
            Needs::FILE,
            json!({ "type": "file", "file": { "file_data": "data:application/pdf;base64,QQ==" } }),
        ),
    ] {
        if !needs.common(need).is_empty() {
            parts.push(part);
        }
    }
    if parts.len() == 1 { json!("x") } else { Value::Array(parts) }
}

/// Whether it says no more than what would be so without it.
fn asks_for_nothing(name: &str, value: &Value) -> bool {
    match value {
        Value::Null => true,
        // Several calls at once is what is done unasked.
        Value::Bool(on) => *on == (name == "parallel_tool_calls"),
        Value::Number(number) => name == "n" && number.as_u64() == Some(1),
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => {
            name == "response_format" && members.get("type") == Some(&json!("text"))
        }
        Value::String(_) => false,
    }
}

/// Members of the other dialects: a request to explain that has one is none of a chat client.
const OTHERS: &[&str] = &["system", "input", "instructions", "thinking", "stop_sequences"];

/// What every provider serves or does well without, whatever stands there.
const SERVED: &[&str] = &[
    "temperature",
    "top_p",
    "top_k",
    "max_tokens",
    "max_completion_tokens",
    "seed",
    "user",
    "presence_penalty",
    "frequency_penalty",
    "metadata",
    "store",
    "service_tier",
    "reasoning_effort",
    "verbosity",
    "prompt_cache_key",
    "safety_identifier",
];

/// What is the gateway's own business, or no parameter.
pub(super) fn is_parameter(name: &str) -> bool {
    !matches!(
        name,
        "model" | "models" | "provider" | "messages" | "stream" | "stream_options" | "tools"
    )
}

#[cfg(test)]
mod tests;
