//! Chunks that are not quite OpenAI's. Many vendors copy the format and change a little; a client that
//! was built for OpenAI stumbles over it. `is_strict` tells such a chunk from a good one, and `read`
//! takes it apart so that it can be told anew, in OpenAI's own words.
//!
//! ```text
//!   {"delta":{"reasoning":"Hm"}}                       another name for reasoning_content
//!   {"tool_calls":[{"id":"a","function":{...}}]}       no index, no type
//!   {"finish_reason":"stop","usage":{...}}             usage beside the choice, not after it
//! ```

use smallvec::SmallVec;

use crate::llm::event::{Finish, Usage};
use crate::llm::prompt::Family;
use crate::llm::sink::{Piece, Sink};
use crate::wire::Span;
use crate::wire::json::{self, Kind, Value};

/// What the reader knows of one choice, however its chunks went out.
#[derive(Clone, Default)]
pub(super) struct Choice {
    pub(super) index: u32,
    pub(super) finished: bool,
    /// Tool calls by their dense index.
    pub(super) calls: SmallVec<[Call; 1]>,
    /// Something went out.
    pub(super) begun: bool,
    /// The thought that is being told will be signed.
    pub(super) signing: bool,
}

/// One tool call.
#[derive(Clone, Default)]
pub(super) struct Call {
    /// The provider's index, if it gives one.
    number: Option<u64>,
    /// The provider's id, raw.
    id: SmallVec<[u8; 32]>,
    /// Some of its arguments went out.
    pub(super) argued: bool,
}

/// One fragment of a tool call.
#[derive(Clone, Copy, Default)]
struct Fragment<'b> {
    number: Option<u64>,
    id: &'b [u8],
    name: &'b [u8],
    typed: bool,
    /// It has an id, a type or a name, be it an empty one.
    worded: bool,
    /// Raw string contents.
    arguments: Option<&'b [u8]>,
    /// Arguments that are an object instead of a string.
    object: Option<&'b [u8]>,
}

impl Choice {
    /// The dense index of the call that a fragment belongs to; `None` for a new one.
    fn find(&self, fragment: &Fragment<'_>) -> Option<usize> {
        let other = |call: &Call| {
            !fragment.id.is_empty() && !call.id.is_empty() && *call.id != *fragment.id
        };
        if fragment.number.is_some() {
            let found = self.calls.iter().position(|call| call.number == fragment.number)?;
            let fresh = other(&self.calls[found]) && !fragment.name.is_empty();
            return (!fresh).then_some(found);
        }
        if fragment.id.is_empty() {
            return if fragment.name.is_empty() { self.calls.len().checked_sub(1) } else { None };
        }
        self.calls.iter().position(|call| *call.id == *fragment.id)
    }

    /// Remembers a new call.
    fn add(&mut self, fragment: &Fragment<'_>) -> usize {
        let id = fragment.id.iter().copied().take(ID_MAX).collect();
        self.calls.push(Call { number: fragment.number, id, argued: false });
        self.calls.len() - 1
    }
}

/// Reads one element of `tool_calls`.
fn fragment(bytes: &[u8], item: Value) -> Option<Fragment<'_>> {
    if item.kind != Kind::Object {
        return None;
    }
    let mut fragment = Fragment::default();
    for member in json::members(bytes, item) {
        let value = member.value;
        match member.key.of(bytes) {
            b"index" => fragment.number = json::as_u64(bytes, value),
            b"id" => fragment.id = json::raw_string(bytes, value).unwrap_or_default(),
            b"type" => fragment.typed = json::str_eq(bytes, value, "function"),
            b"function" if value.kind == Kind::Object => fragment.function(bytes, value),
            _ => continue,
        }
        fragment.worded |= member.key.of(bytes) != b"index" && value.kind == Kind::String;
    }
    Some(fragment)
}

impl<'b> Fragment<'b> {
    /// Reads a name and arguments.
    fn function(&mut self, bytes: &'b [u8], function: Value) {
        for part in json::members(bytes, function) {
            let value = part.value;
            match part.key.of(bytes) {
                b"name" => {
                    self.name = json::raw_string(bytes, value).unwrap_or_default();
                    self.worded |= value.kind == Kind::String;
                }
                b"arguments" => match value.kind {
                    Kind::String => self.arguments = json::raw_string(bytes, value),
                    Kind::Object => self.object = Some(value.raw(bytes)),
                    _ => {}
                },
                _ => {}
            }
        }
    }
}

/// Whether a list of tool-call fragments can be passed on as it is; notes its calls if so.
pub(super) fn strict_calls(choice: &mut Choice, bytes: &[u8], list: Value) -> bool {
    if list.kind == Kind::Null {
        return true;
    }
    for item in json::items(bytes, list) {
        let Some(fragment) = fragment(bytes, item) else { return false };
        let (Some(number), None) = (fragment.number, fragment.object) else { return false };
        let known = usize::try_from(number).is_ok_and(|number| number < choice.calls.len());
        if known {
            // OpenAI names a call once; clients add up what is repeated, or put an empty name in its place.
            if fragment.worded {
                return false;
            }
        } else {
            let next = number == choice.calls.len() as u64;
            let named = !fragment.id.is_empty() && !fragment.name.is_empty() && fragment.typed;
            if !(next && named && fragment.arguments.is_some()) {
                return false;
            }
            choice.add(&fragment);
        }
        let call = &mut choice.calls[number as usize];
        call.argued |= fragment.arguments.is_some_and(|arguments| !arguments.is_empty());
    }
    true
}

/// Tells the delta (or message) of one choice anew.
pub(super) fn tell(choice: &mut Choice, bytes: &[u8], delta: Value, sink: &mut Sink<'_>) -> bool {
    let details = json::get(bytes, delta, "reasoning_details");
    let details = details.filter(|details| details.kind == Kind::Array);
    if details.is_some_and(|details| will_sign(bytes, details))
        && !std::mem::replace(&mut choice.signing, true)
    {
        sink.thought(choice.index);
    }
    // What was thought comes before what was said, in whatever order they stand.
    let thoughts = json::members(bytes, delta)
        .filter(|member| matches!(member.key.of(bytes), b"reasoning_content" | b"reasoning"));
    let thought = thoughts.filter_map(|member| text(bytes, member.value)).next();
    let mut substance = thought.is_some();
    match (thought, details) {
        (Some(thought), _) => sink.reason(choice.index, Piece::Raw(thought)),
        (None, Some(details)) => {
            for thought in thoughts_in(bytes, details) {
                sink.reason(choice.index, Piece::Raw(thought));
                substance = true;
            }
        }
        (None, None) => {}
    }
    if let Some(details) = details {
        substance |= tell_details(choice, bytes, details, sink);
    }
    for member in json::members(bytes, delta) {
        let value = member.value;
        match member.key.of(bytes) {
            b"content" => substance |= tell_content(choice.index, bytes, value, sink),
            b"refusal" => {
                if let Some(text) = text(bytes, value) {
                    sink.refuse(choice.index, Piece::Raw(text));
                    substance = true;
                }
            }
            b"tool_calls" if value.kind == Kind::Array => {
                for item in json::items(bytes, value) {
                    let fragment = fragment(bytes, item);
                    substance |= fragment.is_some_and(|f| tell_call(choice, &f, sink));
                }
            }
            // The one call of a time before there were many.
            b"function_call" if value.kind == Kind::Object => {
                let mut fragment = Fragment::default();
                fragment.function(bytes, value);
                substance |= tell_call(choice, &fragment, sink);
            }
            b"annotations" if value.kind == Kind::Array => {
                for item in json::items(bytes, value) {
                    sink.annotate(choice.index, item.raw(bytes));
                }
            }
            b"images" if value.kind == Kind::Array => {
                for item in json::items(bytes, value) {
                    substance |= tell_image(choice.index, bytes, item, sink);
                }
            }
            _ => {}
        }
    }
    substance
}

/// Items of `reasoning_details` that Claude said, wherever it is served; only its signatures are known
/// to be readable elsewhere.
fn claudes(bytes: &[u8], details: Value) -> impl Iterator<Item = Value> + '_ {
    json::items(bytes, details).filter(|item| {
        let format = json::get(bytes, *item, "format");
        format.and_then(|format| text(bytes, format)).is_some_and(|f| f.starts_with(b"anthropic-"))
    })
}

/// Whether a thought begins here, or goes on, that has a signature at its end.
fn will_sign(bytes: &[u8], details: Value) -> bool {
    claudes(bytes, details).any(|item| {
        json::get(bytes, item, "type")
            .is_some_and(|kind| json::str_eq(bytes, kind, "reasoning.text"))
    })
}

/// The texts and summaries of `reasoning_details`, for a delta that has them nowhere else.
pub(super) fn thoughts_in(bytes: &[u8], details: Value) -> impl Iterator<Item = &[u8]> {
    json::items(bytes, details).filter_map(move |item| {
        let said = json::get(bytes, item, "text").or_else(|| json::get(bytes, item, "summary"));
        said.and_then(|said| text(bytes, said))
    })
}

/// The signatures and hidden thoughts of OpenRouter's `reasoning_details`; its texts stand in `reasoning`
/// too, and are told from there.
fn tell_details(choice: &mut Choice, bytes: &[u8], details: Value, sink: &mut Sink<'_>) -> bool {
    let mut substance = false;
    for item in claudes(bytes, details) {
        let inside = |name: &str| json::get(bytes, item, name).and_then(|value| text(bytes, value));
        if let Some(signature) = inside("signature").filter(|_| choice.signing) {
            sink.sign(choice.index, Family::Anthropic, Piece::Raw(signature));
            choice.signing = false;
        }
        if let Some(data) = inside("data") {
            sink.redacted(choice.index, Piece::Raw(data));
            substance = true;
        }
    }
    substance
}

/// A picture as a data URL (RFC 2397); another address can't be told.
fn tell_image(choice: u32, bytes: &[u8], item: Value, sink: &mut Sink<'_>) -> bool {
    const MARK: &[u8] = b";base64,";
    let url = json::get_path(bytes, item, &["image_url", "url"]);
    let url = url.and_then(|url| text(bytes, url)).and_then(|url| url.strip_prefix(b"data:"));
    let Some(url) = url else { return false };
    let Some(at) = url.windows(MARK.len()).take(MIME_MAX).position(|window| window == MARK) else {
        return false;
    };
    // A slash may be written as an escape.
    let Ok(mime) = std::str::from_utf8(&url[..at]) else { return false };
    let data = &url[at + MARK.len()..];
    sink.image(choice, &mime.replace('\\', ""), Piece::Raw(data));
    !data.is_empty()
}

/// The contents of a string that is not empty.
fn text(bytes: &[u8], value: Value) -> Option<&[u8]> {
    json::raw_string(bytes, value).filter(|text| !text.is_empty())
}

/// `content` as a string, or as Mistral's list of thinking and text parts.
fn tell_content(choice: u32, bytes: &[u8], content: Value, sink: &mut Sink<'_>) -> bool {
    if let Some(text) = text(bytes, content) {
        sink.text(choice, Piece::Raw(text));
        return true;
    }
    let mut substance = false;
    for part in json::items(bytes, content) {
        let thoughts = json::get(bytes, part, "thinking");
        match thoughts {
            Some(Value { kind: Kind::Array, span }) => {
                for thought in json::items(bytes, Value { kind: Kind::Array, span }) {
                    let thought = json::get(bytes, thought, "text");
                    if let Some(text) = thought.and_then(|thought| text(bytes, thought)) {
                        sink.reason(choice, Piece::Raw(text));
                        substance = true;
                    }
                }
            }
            Some(value) => {
                if let Some(text) = text(bytes, value) {
                    sink.reason(choice, Piece::Raw(text));
                    substance = true;
                }
            }
            None => {
                let said = json::get(bytes, part, "text");
                if let Some(text) = said.and_then(|said| text(bytes, said)) {
                    sink.text(choice, Piece::Raw(text));
                    substance = true;
                }
            }
        }
    }
    substance
}

fn tell_call(choice: &mut Choice, fragment: &Fragment<'_>, sink: &mut Sink<'_>) -> bool {
    let index = match choice.find(fragment) {
        Some(index) => index,
        // A call without a name is no call; its name may still come.
        None if fragment.name.is_empty() => return false,
        None => {
            let index = choice.add(fragment);
            sink.tool(choice.index, Piece::Raw(fragment.id), Piece::Raw(fragment.name));
            index
        }
    };
    let number = index as u32;
    if let Some(arguments) = fragment.arguments.filter(|arguments| !arguments.is_empty()) {
        sink.args(choice.index, number, Piece::Raw(arguments));
        choice.calls[index].argued = true;
    }
    if let Some(object) = fragment.object.and_then(|object| std::str::from_utf8(object).ok()) {
        sink.args(choice.index, number, Piece::Text(object));
        choice.calls[index].argued = true;
    }
    true
}

/// A vendor's finish reason in OpenAI's words; `None` for an empty one, `Err` for a failure.
pub(super) fn finish(raw: &[u8]) -> Result<Option<Finish>, ()> {
    Ok(Some(match raw {
        b"" | b"null" => return Ok(None),
        b"length" | b"max_tokens" | b"model_length" => Finish::Length,
        b"tool_calls" | b"function_call" | b"tool_use" => Finish::ToolCalls,
        b"content_filter" | b"sensitive" | b"refusal" => Finish::ContentFilter,
        b"error" | b"abort" | b"network_error" | b"insufficient_system_resource" => {
            return Err(());
        }
        _ => Finish::Stop,
    }))
}

/// Whether OpenAI has this finish reason.
pub(super) fn is_known_finish(raw: &[u8]) -> bool {
    matches!(raw, b"stop" | b"length" | b"tool_calls" | b"content_filter" | b"function_call")
}

/// Token counts, with the arithmetic of vendors mended: OpenAI's completion includes reasoning, its
/// prompt includes what was cached or heard, and the total is their sum. The second value says whether
/// the provider's own object says just that.
pub(super) fn usage(bytes: &[u8], object: Value) -> Option<(Usage, bool)> {
    if object.kind != Kind::Object {
        return None;
    }
    let counts = Counts::read(bytes, object);
    let (prompt, total) = (counts.prompt, counts.total);
    let cached = counts.cached.or(counts.cache_hits).or(counts.cached_beside).unwrap_or(0);
    let reasoning = counts.reasoning.or(counts.reasoning_beside).unwrap_or(0);
    let mut usage = Usage {
        prompt: prompt.unwrap_or(0),
        completion: counts.completion.unwrap_or(0),
        cached,
        cache_write: counts.cache_write.unwrap_or(0),
        reasoning,
    };
    let more = total
        .map_or(0, |total| total.saturating_sub(usage.prompt.saturating_add(usage.completion)));
    let heard = counts.heard.unwrap_or(0);
    if more > 0 && more == heard {
        usage.prompt += more;
    } else {
        usage.completion += more;
    }
    let plain = more == 0
        && prompt.is_some()
        && cached == counts.cached.unwrap_or(0)
        && reasoning == counts.reasoning.unwrap_or(0);
    Some((usage, plain))
}

/// What llama.cpp measured, for an answer without counts.
pub(super) fn timings(bytes: &[u8], object: Value) -> Option<Usage> {
    let count = |name: &str| json::get(bytes, object, name).and_then(|n| json::as_u64(bytes, n));
    let cached = count("cache_n").unwrap_or(0);
    let prompt = count("prompt_n")?.saturating_add(cached);
    Some(Usage { prompt, completion: count("predicted_n")?, cached, ..Usage::default() })
}

/// The counts of a usage object, by OpenAI's names and by those of vendors, in one pass.
#[derive(Default)]
struct Counts {
    prompt: Option<u64>,
    completion: Option<u64>,
    total: Option<u64>,
    cached: Option<u64>,
    cache_write: Option<u64>,
    heard: Option<u64>,
    reasoning: Option<u64>,
    /// DeepSeek's name.
    cache_hits: Option<u64>,
    /// Moonshot's place.
    cached_beside: Option<u64>,
    /// Perplexity's place.
    reasoning_beside: Option<u64>,
}

impl Counts {
    fn read(bytes: &[u8], object: Value) -> Counts {
        let mut counts = Counts::default();
        for member in json::members(bytes, object) {
            let value = member.value;
            let place = match member.key.of(bytes) {
                b"prompt_tokens" => &mut counts.prompt,
                b"completion_tokens" => &mut counts.completion,
                b"total_tokens" => &mut counts.total,
                b"prompt_cache_hit_tokens" => &mut counts.cache_hits,
                b"cached_tokens" => &mut counts.cached_beside,
                b"reasoning_tokens" => &mut counts.reasoning_beside,
                b"prompt_tokens_details" if value.kind == Kind::Object => {
                    for detail in json::members(bytes, value) {
                        let place = match detail.key.of(bytes) {
                            b"cached_tokens" => &mut counts.cached,
                            b"cache_write_tokens" => &mut counts.cache_write,
                            b"audio_tokens" => &mut counts.heard,
                            _ => continue,
                        };
                        *place = json::as_u64(bytes, detail.value);
                    }
                    continue;
                }
                b"completion_tokens_details" if value.kind == Kind::Object => {
                    let thought = json::get(bytes, value, "reasoning_tokens");
                    counts.reasoning = thought.and_then(|value| json::as_u64(bytes, value));
                    continue;
                }
                _ => continue,
            };
            *place = json::as_u64(bytes, value);
        }
        counts
    }
}

/// The raw contents of a string span, without its quotes.
pub(super) fn inside(bytes: &[u8], span: Span) -> &[u8] {
    let raw = span.of(bytes);
    raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default()
}

/// Ids are short; what is longer is only told apart by its beginning.
const ID_MAX: usize = 128;
/// A media type is no longer (RFC 6838 section 4.2).
const MIME_MAX: usize = 256;
