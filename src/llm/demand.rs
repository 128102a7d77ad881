//! What a request demands of a model, read from its body without building a tree: abilities, a count of
//! tokens, how long an answer it asks for, and which conversation it belongs to. Three dialects, one pass
//! over what they share: a list of turns, tools, and a handful of parameters.
//!
//! ```text
//! {"messages":[{"role":"user","content":[{"type":"image_url",..},{"type":"text","text":"what is it?"}]}],
//!              ~~~~~~~~~~~~~ leading: hashed  ~~~~~~~~~~~ image        ~~~~~~~~~~~ 4 tokens
//!  "tools":[..],"max_tokens":300}
//!   ~~~~~ tools              ~~~ output
//! ```
//!
//! **The count** knows no vocabulary. It weighs runs of characters: a word of letters is a token and one
//! more for each six letters past the first seven, three digits are one, a punctuation mark is one and
//! eight more of the same another, a character outside of ASCII a quarter (accents, Greek, Cyrillic), a
//! half (Indic, Thai), three quarters (Chinese, Japanese, Korean) or two (emoji). Of a long text parts are weighed
//! (`demand/weight`). Images and documents count as a constant or by their bytes. `Demand::least` and `Demand::most` bound what a vendor will count: 70 % of the text
//! and 25 % of tools and schemas less 32, and 170 % of all and 700. `tests/estimate.rs` holds every recorded
//! request of text against them; those with images are too few to say anything. As the answer to
//! `/v1/messages/count_tokens`, 53 of 55 recorded prompts of 100 tokens and more are off by less than a
//! third, and by 500 more where there are tools (`tests/recorded/messages.rs`).

use memchr::memchr2;

use crate::llm::needs::Needs;
use crate::wire::json::{self, Kind, Member, Value};

mod weight;

use self::weight::{hash, weight};

/// What a request demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Demand {
    /// Abilities without which it can't be served.
    pub needs: Needs,
    /// The prompt in tokens, estimated; images and documents included.
    pub prompt: u32,
    /// Of these, by images, sounds and documents.
    pub media: u32,
    /// Of these, by tools and schemas, which vendors rewrite, and by what is inside of calls.
    pub structure: u32,
    /// Tokens of the answer that it allows, if it says so.
    pub output: Option<u32>,
    /// It has `messages`, so that a chat is asked for, whatever it came to.
    pub chats: bool,
    /// A hash of its leading turns, the same for all requests of one conversation; 0: it has none.
    pub thread: u64,
    /// The tokens of those leading turns and the tools: what a warm cache holds at least.
    pub lead: u32,
}

impl Demand {
    /// Tokens that the prompt has at least: below the estimate by the measured error.
    pub fn least(&self) -> u32 {
        let text = self.prompt.saturating_sub(self.media).saturating_sub(self.structure);
        let least = u64::from(text) * LEAST_PERCENT + u64::from(self.structure) * LEAST_STRUCTURE;
        (least / 100).saturating_sub(LEAST_LESS) as u32
    }

    /// Tokens that the prompt has at most, what vendors add for tools and turns of their own included.
    pub fn most(&self) -> u32 {
        let most = u64::from(self.prompt) * MOST_PERCENT / 100 + MOST_EXTRA;
        u32::try_from(most).unwrap_or(u32::MAX)
    }
}

/// The lower bound, in percent of the estimate of text.
const LEAST_PERCENT: u64 = 70;
/// The same of tools and schemas: one vendor's rewriting is far shorter than JSON.
const LEAST_STRUCTURE: u64 = 25;
/// And this many fewer: the frame of a few turns, which some do not count.
const LEAST_LESS: u64 = 32;
/// The upper bound, in percent of the estimate.
const MOST_PERCENT: u64 = 170;
/// What vendors add by themselves: the instructions for tools alone are some 350 tokens of one of them.
const MOST_EXTRA: u64 = 700;
/// One image: vendors count from 85 (a thumbnail) to some 1,600.
const IMAGE_TOKENS: u64 = 800;
/// Bytes of base64 for a token of a document or of sound: a page of a few KiB is some hundred tokens.
const MEDIA_BYTES: u64 = 64;
/// What frames one turn.
const TURN_TOKENS: u64 = 4;
/// Weights are in quarters of a token.
const QUARTERS: u64 = 4;

/// Reads the members of a body that was found to be JSON.
pub fn read(body: &[u8], members: &[Member]) -> Demand {
    let mut scan = Scan { body, ..Scan::default() };
    let mut turns = None;
    for member in members {
        let value = member.value;
        match &*member.name(body) {
            name @ ("messages" | "input" | "prompt") => {
                scan.chats |= name == "messages";
                turns = Some(value);
            }
            "system" | "instructions" => {
                scan.walk(value, Place::Text);
                scan.thread = hash(scan.thread, value.raw(body));
            }
            "tools" | "functions" if is_some(body, value) => {
                scan.needs = scan.needs.and(Needs::TOOLS);
                scan.walk(value, Place::Schema);
            }
            "max_tokens" | "max_completion_tokens" | "max_output_tokens" => {
                let asked = json::as_u64(body, value).map(|n| u32::try_from(n).unwrap_or(u32::MAX));
                scan.output = scan.output.max(asked);
            }
            name => {
                scan.needs = scan.needs.and(parameter(body, name, value));
                if matches!(name, "response_format" | "output_config" | "output_format" | "text") {
                    scan.walk(value, Place::Schema);
                }
            }
        }
    }
    if let Some(turns) = turns {
        scan.turns(turns);
    }
    if scan.needs.common(Needs::TOOLS).is_empty() {
        scan.needs = scan.needs.without(Needs::PARALLEL_TOOLS);
    }
    Demand {
        needs: scan.needs,
        prompt: tokens(scan.quarters.saturating_add(scan.media * QUARTERS)),
        structure: tokens(scan.structure),
        media: u32::try_from(scan.media).unwrap_or(u32::MAX),
        output: scan.output,
        chats: scan.chats,
        thread: scan.thread,
        lead: tokens(scan.lead),
    }
}

/// What a parameter of any dialect asks for.
fn parameter(body: &[u8], name: &str, value: Value) -> Needs {
    let text = |value: Value| json::text(body, value).unwrap_or_default();
    let member = |name: &str| json::get(body, value, name);
    let is_on = match name {
        "parallel_tool_calls" => return only(value.kind == Kind::True, Needs::PARALLEL_TOOLS),
        "n" => return only(json::as_u64(body, value) > Some(1), Needs::N),
        // A number, in the completions API.
        "logprobs" | "top_logprobs" => {
            let on = value.kind == Kind::True || json::as_u64(body, value) > Some(0);
            return only(on, Needs::LOGPROBS);
        }
        "reasoning_effort" => value.kind == Kind::String && text(value) != "none",
        // OpenRouter's and the Responses API's.
        "reasoning" if value.kind == Kind::Object => {
            let off = member("enabled").is_some_and(|on| on.kind == Kind::False)
                || member("effort").is_some_and(|effort| text(effort) == "none");
            !off
        }
        "thinking" if value.kind == Kind::Object => {
            member("type").is_some_and(|kind| text(kind) != "disabled")
        }
        "response_format" | "output_format" => {
            let schema = member("type").is_some_and(|kind| text(kind) == "json_schema");
            return only(schema, Needs::STRICT_SCHEMA);
        }
        "text" | "output_config" => {
            let kind = json::get_path(body, value, &["format", "type"]);
            let schema = kind.is_some_and(|kind| text(kind) == "json_schema");
            return only(schema, Needs::STRICT_SCHEMA);
        }
        _ => return Needs::NONE,
    };
    only(is_on, Needs::REASONING)
}

fn only(on: bool, need: Needs) -> Needs {
    if on { need } else { Needs::NONE }
}

fn is_some(body: &[u8], list: Value) -> bool {
    list.kind == Kind::Array && json::items(body, list).next().is_some()
}

fn tokens(quarters: u64) -> u32 {
    u32::try_from(quarters.div_ceil(QUARTERS)).unwrap_or(u32::MAX)
}

/// Where a value stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The list of turns.
    Turns,
    /// A system prompt.
    Text,
    /// Tools and schemas, whose keys and structure are part of the prompt.
    Schema,
}

#[derive(Default)]
struct Scan<'b> {
    body: &'b [u8],
    needs: Needs,
    output: Option<u32>,
    chats: bool,
    quarters: u64,
    /// Of these, by structure.
    structure: u64,
    /// In tokens.
    media: u64,
    thread: u64,
    /// Quarters up to the end of the leading turns.
    lead: u64,
    /// Where the leading turns end.
    lead_end: Option<usize>,
    last: Turn,
}

/// What is known of the turn under way.
#[derive(Clone, Copy, Default)]
struct Turn {
    role: Role,
    calls: bool,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Role {
    #[default]
    None,
    User,
    Assistant,
    Other,
}

impl Scan<'_> {
    fn turns(&mut self, turns: Value) {
        let body = self.body;
        let (start, end) = (turns.span.start as usize, turns.span.end());
        self.walk(turns, Place::Turns);
        let lead_end = self.lead_end.unwrap_or(end);
        if self.lead_end.is_none() {
            self.lead = self.quarters;
        }
        self.thread = hash(self.thread, body.get(start..lead_end).unwrap_or_default()).max(1);
        if self.last.role == Role::Assistant && !self.last.calls {
            self.needs = self.needs.and(Needs::PREFILL);
        }
    }

    /// Reads a value from left to right. The body is known to be JSON, so structure is told by brackets
    /// alone, and a string is a key if a colon follows it.
    fn walk(&mut self, value: Value, place: Place) {
        let body = self.body;
        let (mut at, end) = (value.span.start as usize, value.span.end());
        let (mut depth, mut key): (usize, &[u8]) = (0, b"");
        while at < end {
            match body[at] {
                b'"' => {
                    let text = at + 1;
                    let close = string_end(body, text, end);
                    let string = &body[text..close];
                    at = close + 1;
                    let next = body[at..end].iter().position(|b| !b.is_ascii_whitespace());
                    if next.is_some_and(|next| body[at + next] == b':') {
                        key = string;
                        self.key(key, depth, place);
                    } else {
                        self.string(key, string, depth, place);
                    }
                    continue;
                }
                b'{' | b'[' => {
                    depth += 1;
                    if depth == 2 && place == Place::Turns {
                        self.last = Turn::default();
                        self.quarters += TURN_TOKENS * QUARTERS;
                    }
                }
                b'}' | b']' => {
                    depth = depth.saturating_sub(1);
                    let leads = depth == 1 && self.last.role == Role::User;
                    if place == Place::Turns && leads && self.lead_end.is_none() {
                        self.lead_end = Some(at + 1);
                        self.lead = self.quarters;
                    }
                }
                // Numbers and words of JSON, in schemas and in calls.
                b'0'..=b'9' | b't' | b'f' | b'n' if depth > 2 || place == Place::Schema => {
                    self.structure(QUARTERS);
                    at += body[at..end].iter().take_while(|b| b.is_ascii_alphanumeric()).count();
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
    }

    fn key(&mut self, key: &[u8], depth: usize, place: Place) {
        match place {
            // Quotes, colon and comma are about one token together, unless the vendor rewrites them.
            Place::Schema => self.structure(weight(key) + QUARTERS / 2),
            Place::Turns if depth == 2 && key == b"tool_calls" => self.last.calls = true,
            Place::Turns if depth > 4 => self.structure(weight(key) + QUARTERS),
            Place::Turns | Place::Text => {}
        }
    }

    fn string(&mut self, key: &[u8], string: &[u8], depth: usize, place: Place) {
        if place == Place::Schema {
            self.structure(weight(string));
            return;
        }
        match key {
            b"role" if depth == 2 => {
                self.last.role = match string {
                    b"user" => Role::User,
                    b"assistant" => Role::Assistant,
                    _ => Role::Other,
                };
            }
            // Turns, their parts, and parts of what a tool said stand at even depths.
            b"type" if depth.is_multiple_of(2) => self.part(string),
            b"data" | b"file_data" if depth > 2 => {
                self.media += string.len() as u64 / MEDIA_BYTES;
            }
            // Sound and documents are known by their bytes, images by their number.
            b"url" | b"image_url" | b"file_id" | b"id" | b"tool_call_id" | b"call_id"
            | b"tool_use_id" | b"signature" | b"encrypted_content" | b"media_type"
            | b"mime_type" | b"detail" | b"format" => {}
            _ => self.quarters += weight(string),
        }
    }

    fn structure(&mut self, quarters: u64) {
        self.quarters += quarters;
        self.structure += quarters;
    }

    /// The kind of a part, by its name in any dialect.
    fn part(&mut self, kind: &[u8]) {
        match kind {
            b"image_url" | b"image" | b"input_image" => {
                self.needs = self.needs.and(Needs::IMAGE);
                self.media += IMAGE_TOKENS;
            }
            b"input_audio" | b"audio" => self.needs = self.needs.and(Needs::AUDIO),
            b"file" | b"document" | b"input_file" => self.needs = self.needs.and(Needs::FILE),
            b"function_call" | b"tool_use" => self.last.calls = true,
            _ => {}
        }
    }
}

/// Where the string that begins at `at` ends: the index of its closing quote.
fn string_end(body: &[u8], mut at: usize, end: usize) -> usize {
    while let Some(found) = body.get(at..end).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        if body[at + found] == b'"' {
            return at + found;
        }
        at += found + 2;
    }
    end.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;
    use crate::wire::json::Top;

    fn demand(body: &Json) -> Demand {
        let body = body.to_string().into_bytes();
        let mut members = Top::new();
        json::document_with_top(&body, &mut members).unwrap();
        read(&body, &members)
    }

    fn needs(mut body: Json) -> String {
        if body.get("messages").is_none() && body.get("input").is_none() {
            body["messages"] = json!([{ "role": "user", "content": "hi" }]);
        }
        demand(&body).needs.to_string()
    }

    fn said(part: Json) -> Json {
        json!({ "messages": [{ "role": "user", "content": [part, { "type": "text", "text": "a" }] }] })
    }

    #[test]
    fn needs_of_every_dialect() {
        let tool = json!([{ "type": "function", "function": { "name": "f" } }]);
        for (body, expected) in [
            (json!({}), ""),
            (json!({ "tools": tool }), "tools"),
            (json!({ "tools": [] }), ""),
            (json!({ "tools": tool, "parallel_tool_calls": true }), "tools, parallel_tools"),
            (json!({ "parallel_tool_calls": true }), ""),
            (json!({ "response_format": { "type": "json_schema" } }), "strict_schema"),
            (json!({ "response_format": { "type": "json_object" } }), ""),
            (json!({ "text": { "format": { "type": "json_schema" } } }), "strict_schema"),
            (json!({ "output_config": { "format": { "type": "json_schema" } } }), "strict_schema"),
            (json!({ "n": 2 }), "n"),
            (json!({ "n": 1, "logprobs": false }), ""),
            (json!({ "logprobs": true }), "logprobs"),
            (json!({ "reasoning_effort": "low" }), "reasoning"),
            (json!({ "reasoning_effort": "none" }), ""),
            (json!({ "reasoning": { "effort": "high" } }), "reasoning"),
            (json!({ "reasoning": { "enabled": false } }), ""),
            (json!({ "thinking": { "type": "adaptive" } }), "reasoning"),
            (json!({ "thinking": { "type": "disabled" } }), ""),
            (said(json!({ "type": "image_url", "image_url": { "url": "x" } })), "image"),
            (said(json!({ "type": "image", "source": { "data": "x" } })), "image"),
            (said(json!({ "type": "input_image", "image_url": "x" })), "image"),
            (said(json!({ "type": "input_audio", "input_audio": { "data": "x" } })), "audio"),
            (said(json!({ "type": "document", "source": { "data": "x" } })), "file"),
            (
                json!({ "input": [{ "role": "user", "content": [{ "type": "input_file" }] }] }),
                "file",
            ),
        ] {
            assert_eq!(needs(body.clone()), expected, "{body}");
        }
    }

    #[test]
    fn a_tool_may_speak_of_images_and_show_one() {
        let schema =
            json!([{ "name": "f", "input_schema": { "properties": { "type": "image" } } }]);
        assert_eq!(needs(json!({ "tools": schema })), "tools");
        let shown = json!({ "type": "tool_result", "tool_use_id": "1", "content": [
            { "type": "image", "source": { "type": "base64", "data": "QQ==" } }
        ] });
        assert_eq!(needs(said(shown)), "image");
        let called = json!({ "messages": [{ "role": "assistant", "tool_calls": [
            { "id": "1", "type": "function", "function": { "name": "file", "arguments": "{}" } }
        ] }] });
        assert_eq!(needs(called), "", "a call is no prefill");
    }

    #[test]
    fn the_last_turn_is_a_prefill_if_it_is_the_assistants() {
        let turns = |roles: &[&str]| {
            let list: Vec<_> =
                roles.iter().map(|role| json!({ "role": role, "content": "x" })).collect();
            json!({ "messages": list })
        };
        assert_eq!(needs(turns(&["user", "assistant"])), "prefill");
        assert_eq!(needs(turns(&["user", "assistant", "user"])), "");
        assert_eq!(needs(turns(&["user", "assistant", "tool"])), "");
        assert_eq!(needs(json!({ "input": "assistant" })), "");
    }

    #[test]
    fn the_output_asked_for_is_the_largest_named() {
        assert_eq!(demand(&json!({})).output, None);
        let both = json!({ "max_tokens": 5, "max_completion_tokens": 9 });
        assert_eq!(demand(&both).output, Some(9));
        assert_eq!(demand(&json!({ "max_output_tokens": 5e99 })).output, None);
    }

    #[test]
    fn one_conversation_has_one_thread() {
        let turn = |role: &str, text: &str| json!({ "role": role, "content": text });
        let thread = |turns: &[Json]| demand(&json!({ "messages": turns })).thread;
        let first = [turn("system", "be brief"), turn("user", "one")];
        let second = [&first[..], &[turn("assistant", "1"), turn("user", "two")]].concat();
        assert_eq!(thread(&first), thread(&second));
        assert_ne!(thread(&first), thread(&first[1..]));
        assert_ne!(thread(&first[1..]), thread(&[turn("user", "two")]));
        let system = |text: &str| demand(&json!({ "system": text, "messages": [] })).thread;
        assert_ne!(system("a"), system("b"));
        assert_eq!(demand(&json!({ "model": "m" })).thread, 0, "no turns, no thread");
        assert_ne!(demand(&json!({ "input": "x" })).thread, 0);
        let lead = demand(&json!({ "messages": second })).lead;
        assert!(lead > 0 && lead < demand(&json!({ "messages": second })).prompt);
    }

    #[test]
    fn media_count_by_number_and_bytes_and_not_as_text() {
        let data = "A".repeat(64_000);
        let image = said(json!({ "type": "image_url", "image_url": { "url": data } }));
        assert_eq!(demand(&image).media, 800);
        let sound = said(json!({ "type": "input_audio", "input_audio": { "data": data } }));
        assert_eq!(demand(&sound).media, 1_000);
        assert!(demand(&sound).prompt < 1_100);
        assert!(demand(&sound).least() < 50, "only text bounds from below");
    }

    #[test]
    fn a_long_prompt_is_bounded_from_both_sides() {
        let text = "word ".repeat(200_000);
        let demand = demand(&json!({ "messages": [{ "role": "user", "content": text }] }));
        assert!(demand.least() > 128_000 && demand.most() > 200_000, "{demand:?}");
    }
}
