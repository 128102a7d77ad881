//! What a request asks for, read in one pass and without building a tree, and the edits that make the
//! client's body fit for upstream: the model's name replaced, the routing vocabulary cut out, every
//! other byte as it came.
//!
//! ```text
//!   {"model":"gpt-4o","models":["b"],"messages":[...],"stream":true}
//!            ~~~~~~~~ replaced
//!                     ~~~~~~~~~~~~~ cut
//! ```
//!
//! The model that routing sees is the model that goes upstream: a body that names it twice is refused,
//! also where the second name differs in the case of its letters.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use smallvec::SmallVec;

use crate::base::buf::Buf;
use crate::base::limits;
use crate::base::tick::Ms;
use crate::llm::demand::{self, Demand};
use crate::llm::dialects::{self, Dialect};
use crate::llm::parameters;
use crate::llm::prompt::{Prompt, Unreadable};
use crate::wire::json::{self, Kind, Member, Top, Value};

/// Which API surface a request came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Surface {
    /// `/v1/chat/completions`
    Chat,
    /// `/v1/messages`
    Messages,
    /// `/v1/messages/count_tokens`
    CountTokens,
    /// `/v1/responses`
    Responses,
    /// `/v1/completions`
    Completions,
    /// `/v1/embeddings`
    Embeddings,
    /// Another `/v1/*` path, passed through.
    Other,
    /// `/v1/models`
    Models,
    /// `/v1/route/explain`
    Explain,
    /// No surface: wrong path or method, or a head that could not be read.
    #[default]
    None,
}

impl Surface {
    /// The stable short name.
    pub const fn name(self) -> &'static str {
        match self {
            Surface::Chat => "chat",
            Surface::Messages => "messages",
            Surface::CountTokens => "count_tokens",
            Surface::Responses => "responses",
            Surface::Completions => "completions",
            Surface::Embeddings => "embeddings",
            Surface::Other => "other",
            Surface::Models => "models",
            Surface::Explain => "explain",
            Surface::None => "none",
        }
    }

    /// What the client speaks there.
    pub const fn dialect(self) -> Dialect {
        match self {
            Surface::Messages | Surface::CountTokens => Dialect::Messages,
            Surface::Responses => Dialect::Responses,
            Surface::Chat
            | Surface::Completions
            | Surface::Embeddings
            | Surface::Other
            | Surface::Models
            | Surface::Explain
            | Surface::None => Dialect::Chat,
        }
    }

    /// Whether a conversation is asked for, which any provider can have.
    pub const fn is_conversation(self) -> bool {
        matches!(self, Surface::Chat | Surface::Messages | Surface::Responses)
    }

    /// Whether an answer without a choice is none.
    pub const fn has_choices(self) -> bool {
        self.is_conversation() || matches!(self, Surface::Completions)
    }

    /// Whether answers are read rather than passed on unread.
    pub const fn is_understood(self) -> bool {
        self.is_conversation() || matches!(self, Surface::Completions | Surface::Embeddings)
    }
}

/// One change to the client's body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Edit {
    /// The model's value, quotes included.
    Model(Range<usize>),
    /// A member that never goes upstream, with its comma.
    Cut(Range<usize>),
    /// Other bytes in the place of these.
    Put(Range<usize>, Vec<u8>),
}

impl Edit {
    /// What of the body it replaces.
    pub fn range(&self) -> &Range<usize> {
        match self {
            Edit::Model(range) | Edit::Cut(range) | Edit::Put(range, _) => range,
        }
    }
}

/// The bytes of a body after its edits, which are in order and don't overlap, for `model`.
pub fn edited_len(edits: &[Edit], body: &[u8], model: &str) -> usize {
    let mut len = body.len();
    for edit in edits {
        len -= edit.range().len();
        len += match edit {
            Edit::Model(_) => string_len(model),
            Edit::Cut(_) => 0,
            Edit::Put(_, bytes) => bytes.len(),
        };
    }
    len
}

/// Writes a body with its edits.
pub fn write_edited(edits: &[Edit], body: &[u8], model: &str, out: &mut Buf) {
    let mut at = 0;
    for edit in edits {
        let range = edit.range();
        out.extend(&body[at..range.start]);
        match edit {
            Edit::Model(_) => json::write_string(out, model),
            Edit::Cut(_) => {}
            Edit::Put(_, bytes) => out.extend(bytes),
        }
        at = range.end;
    }
    out.extend(&body[at..]);
}

/// Turns members of one object that never go upstream into ranges that leave valid JSON behind. `cuts`
/// are indices of `members`.
pub fn cut_members(members: &[Member], cuts: &[usize], edits: &mut SmallVec<[Edit; 4]>) {
    let is_cut = |index: &usize| cuts.contains(index);
    let mut index = 0;
    while index < members.len() {
        if !is_cut(&index) {
            index += 1;
            continue;
        }
        let first = index;
        while is_cut(&index) {
            index += 1;
        }
        let range = match (members.get(index), first.checked_sub(1)) {
            (Some(next), _) => members[first].start()..next.start(),
            (None, Some(kept)) => members[kept].end()..members[index - 1].end(),
            (None, None) => members[first].start()..members[index - 1].end(),
        };
        edits.push(Edit::Cut(range));
    }
}

/// `provider.sort`: what targets are ranked by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Sort {
    /// The cheapest first.
    Price,
    /// The most tokens a second first.
    Throughput,
    /// The soonest first content first.
    Latency,
}

/// The routing part of `provider: {...}`, OpenRouter's vocabulary.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Prefs {
    /// These providers first.
    pub order: Vec<String>,
    /// No other providers.
    pub only: Vec<String>,
    /// None of these.
    pub ignore: Vec<String>,
    /// `allow_fallbacks: false` was sent.
    pub no_fallbacks: bool,
    /// What targets are ranked by.
    pub sort: Option<Sort>,
    /// US dollars for a million tokens of prompt and of answer at most.
    pub max_price: Option<(f64, f64)>,
    /// Only targets that are known to do what is needed.
    pub require: bool,
}

/// What goes upstream beside the body.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Envelope {
    /// The method, in capitals.
    pub method: &'static str,
    /// The path after `/v1`, with its query.
    pub path: Cow<'static, str>,
    /// Fields that may go upstream: name and value.
    pub fields: SmallVec<[(&'static str, Vec<u8>); 4]>,
    /// Fields that mean something to Anthropic alone: `anthropic-version`, `anthropic-beta`.
    pub anthropic: SmallVec<[(&'static str, Vec<u8>); 2]>,
}

/// What a request asks for.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Ask {
    /// Where it came to.
    pub surface: Surface,
    /// The model as the client named it; empty if it named none.
    pub model: Arc<str>,
    /// Models to try after it.
    pub models: Vec<String>,
    /// Preferences among providers.
    pub prefs: Prefs,
    /// A stream is wanted.
    pub stream: bool,
    /// A usage chunk is wanted at its end.
    pub include_usage: bool,
    /// The client's own deadline.
    pub deadline: Option<Ms>,
    /// What it demands of a model.
    pub demand: Demand,
    /// Its members that are parameters of how to answer, where they lie.
    pub parameters: SmallVec<[Member; 4]>,
    /// What changes in the body, in order.
    pub edits: SmallVec<[Edit; 4]>,
    /// Method, path and fields.
    pub envelope: Envelope,
}

/// A fault of the request that no provider needs to see.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AskFault {
    /// For a person.
    pub message: String,
    /// The parameter at fault.
    pub param: Option<String>,
    /// The machine's word.
    pub code: &'static str,
}

impl AskFault {
    fn new(code: &'static str, param: Option<&str>, message: impl Into<String>) -> AskFault {
        AskFault { message: message.into(), param: param.map(str::to_owned), code }
    }
}

impl Ask {
    /// Reads a JSON body that came to `surface`.
    ///
    /// # Errors
    /// Not JSON, not an object, no model, a known parameter of the wrong type, a routing field that
    /// this version does not know.
    pub fn read(surface: Surface, body: &[u8]) -> Result<Ask, AskFault> {
        let mut members = Top::new();
        let top = json::document_with_top(body, &mut members).map_err(|fault| {
            let message = format!("{} (byte {} of the request body)", fault.what.text(), fault.at);
            AskFault::new("invalid_json", None, message)
        })?;
        if top.kind != Kind::Object {
            let message = "the request body must be a JSON object";
            return Err(AskFault::new("invalid_json", None, message));
        }
        let mut ask = Ask { surface, ..Ask::default() };
        let mut cuts: SmallVec<[usize; 2]> = SmallVec::new();
        let mut seen: SmallVec<[&str; 8]> = SmallVec::new();
        for (index, member) in members.iter().enumerate() {
            let name = member.name(body);
            if parameters::is_parameter(&name) {
                ask.parameters.push(*member);
            }
            let Some(known) = KNOWN.iter().find(|known| known.name == name) else {
                refuse_other_model(&name)?;
                continue;
            };
            if seen.contains(&known.name) {
                let message = format!("the request names \"{name}\" more than once");
                return Err(AskFault::new("duplicate_parameter", Some(known.name), message));
            }
            seen.push(known.name);
            check_kind(known, member.value, surface)?;
            ask.take(known.name, member.value, body)?;
            if matches!(known.name, "models" | "provider") {
                cuts.push(index);
            }
        }
        ask.finish(surface, &seen)?;
        // Elsewhere the same words mean other things: `n` images, say.
        let is_read = matches!(surface, Surface::Explain | Surface::CountTokens);
        if surface.is_understood() || is_read {
            ask.demand = demand::read(body, &members);
        }
        cut_members(&members, &cuts, &mut ask.edits);
        ask.edits.sort_by_key(|edit| edit.range().start);
        Ok(ask)
    }

    fn take(&mut self, name: &str, value: Value, body: &[u8]) -> Result<(), AskFault> {
        match name {
            "model" => {
                self.model = Arc::from(text(body, value, "model")?);
                self.edits.push(Edit::Model(value.span.into()));
            }
            "models" => self.models = strings(body, value, "models")?,
            "provider" => self.prefs = prefs(body, value)?,
            "stream" => self.stream = value.kind == Kind::True,
            "stream_options" if value.kind == Kind::Object => {
                let usage = json::get(body, value, "include_usage");
                self.include_usage = usage.is_some_and(|usage| usage.kind == Kind::True);
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self, surface: Surface, seen: &[&str]) -> Result<(), AskFault> {
        if self.model.is_empty() && self.models.is_empty() && surface != Surface::Other {
            let message = "the request must name a model in \"model\"";
            return Err(AskFault::new("missing_required_parameter", Some("model"), message));
        }
        // Their answers always have the counts.
        self.include_usage |= matches!(surface, Surface::Messages | Surface::Responses);
        let required = match surface {
            Surface::Chat | Surface::Messages | Surface::CountTokens => "messages",
            Surface::Embeddings => "input",
            // OpenAI gives `prompt` a default, and vendors know other fields in its place; an answer may
            // go on from what is stored.
            Surface::Completions
            | Surface::Responses
            | Surface::Other
            | Surface::Models
            | Surface::Explain
            | Surface::None => return Ok(()),
        };
        if !seen.contains(&required) {
            let message = format!("the request must have \"{required}\"");
            return Err(AskFault::new("missing_required_parameter", Some(required), message));
        }
        if surface == Surface::Messages && !seen.contains(&"max_tokens") {
            // In that API's own words.
            let (param, message) = (Some("max_tokens"), "max_tokens: Field required");
            return Err(AskFault::new("missing_required_parameter", param, message));
        }
        Ok(())
    }

    /// Reads what the body means, in the client's dialect.
    ///
    /// # Errors
    /// Where it makes no sense, or says what no other format can say.
    pub fn prompt(&self, body: &[u8]) -> Result<Prompt, Unreadable> {
        let body = serde_json::from_slice(body)
            .map_err(|_| Unreadable { at: String::from("body"), expected: "JSON" })?;
        match self.surface.dialect() {
            Dialect::Chat => dialects::chat_prompt::read(&body),
            Dialect::Messages => dialects::messages_prompt::read(&body),
            Dialect::Responses => dialects::responses_prompt::read(&body),
        }
    }

    /// The bytes of the body once `model` stands in it.
    pub fn edited_len(&self, body: &[u8], model: &str) -> usize {
        edited_len(&self.edits, body, model)
    }

    /// Writes the body with its edits.
    pub fn write_edited(&self, body: &[u8], model: &str, out: &mut Buf) {
        write_edited(&self.edits, body, model, out);
    }
}

/// Some providers don't care for the case of letters, or stop reading a name at a NUL: to them such a
/// member would name the model again, behind the back of routing.
fn refuse_other_model(name: &str) -> Result<(), AskFault> {
    let start = name.split('\0').next().unwrap_or_default();
    if !start.eq_ignore_ascii_case("model") {
        return Ok(());
    }
    let message = "the model is named in \"model\", and in no other spelling of it";
    Err(AskFault::new("unsupported_parameter", Some("model"), message))
}

/// How many bytes `text` takes as a JSON string.
fn string_len(text: &str) -> usize {
    if text.bytes().all(|byte| !byte.is_ascii_control() && !matches!(byte, b'"' | b'\\')) {
        return text.len() + 2;
    }
    let mut counted = Buf::new();
    json::write_string(&mut counted, text);
    counted.len()
}

fn prefs(body: &[u8], object: Value) -> Result<Prefs, AskFault> {
    let mut prefs = Prefs::default();
    if object.kind == Kind::Null {
        return Ok(prefs);
    }
    for member in json::members(body, object) {
        let name = member.name(body);
        let param = format!("provider.{name}");
        match &*name {
            "order" => prefs.order = strings(body, member.value, &param)?,
            "only" => prefs.only = strings(body, member.value, &param)?,
            "ignore" => prefs.ignore = strings(body, member.value, &param)?,
            "allow_fallbacks" => {
                prefs.no_fallbacks = flag(member.value, &param)? == Some(false);
            }
            "require_parameters" => prefs.require = flag(member.value, &param)? == Some(true),
            "sort" => prefs.sort = sort(body, member.value)?,
            "max_price" => prefs.max_price = max_price(body, member.value)?,
            _ => {
                let message = format!(
                    "\"{param}\" is not known here; known are provider.order, only, ignore, \
                     allow_fallbacks, sort, max_price and require_parameters"
                );
                return Err(AskFault::new("unsupported_parameter", Some(&param), message));
            }
        }
    }
    Ok(prefs)
}

fn flag(value: Value, param: &str) -> Result<Option<bool>, AskFault> {
    match value.kind {
        Kind::Null => Ok(None),
        Kind::True => Ok(Some(true)),
        Kind::False => Ok(Some(false)),
        _ => Err(wrong_type(param, "a boolean")),
    }
}

fn sort(body: &[u8], value: Value) -> Result<Option<Sort>, AskFault> {
    if value.kind == Kind::Null {
        return Ok(None);
    }
    match &*text(body, value, "provider.sort")? {
        "price" => Ok(Some(Sort::Price)),
        "throughput" => Ok(Some(Sort::Throughput)),
        "latency" => Ok(Some(Sort::Latency)),
        _ => Err(wrong_type("provider.sort", "price, throughput or latency")),
    }
}

/// `{"prompt": 1, "completion": 2}`, each a number or one in quotes; what is not named has no limit.
fn max_price(body: &[u8], object: Value) -> Result<Option<(f64, f64)>, AskFault> {
    let wrong = || wrong_type("provider.max_price", "an object of prices: prompt and completion");
    if object.kind == Kind::Null {
        return Ok(None);
    }
    if object.kind != Kind::Object {
        return Err(wrong());
    }
    let (mut prompt, mut output) = (f64::INFINITY, f64::INFINITY);
    for member in json::members(body, object) {
        let price = match &*member.name(body) {
            "prompt" => &mut prompt,
            "completion" => &mut output,
            _ => return Err(wrong()),
        };
        let value = match member.value.kind {
            Kind::String => json::text(body, member.value).and_then(|text| text.parse().ok()),
            _ => json::as_f64(body, member.value),
        };
        *price = value.filter(|value| *value >= 0.0).ok_or_else(wrong)?;
    }
    Ok(Some((prompt, output)))
}

fn strings(body: &[u8], array: Value, param: &str) -> Result<Vec<String>, AskFault> {
    let mut names = Vec::new();
    if array.kind == Kind::Null {
        return Ok(names);
    }
    if array.kind != Kind::Array {
        return Err(wrong_type(param, "an array of strings"));
    }
    for item in json::items(body, array) {
        if names.len() == limits::REQUEST_NAMES_MAX {
            let message =
                format!("\"{param}\" has more than {} entries", limits::REQUEST_NAMES_MAX);
            return Err(AskFault::new("invalid_value", Some(param), message));
        }
        names.push(text(body, item, param)?.into_owned());
    }
    Ok(names)
}

fn text<'b>(body: &'b [u8], value: Value, param: &str) -> Result<Cow<'b, str>, AskFault> {
    if value.kind != Kind::String {
        return Err(wrong_type(param, "a string"));
    }
    let text = json::text(body, value).unwrap_or_default();
    if text.len() > limits::REQUEST_NAME_BYTES_MAX {
        let most = limits::REQUEST_NAME_BYTES_MAX;
        let message = format!("\"{param}\" has a name of more than {most} bytes");
        return Err(AskFault::new("invalid_value", Some(param), message));
    }
    // It will stand in header fields and logs.
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(wrong_type(param, "a string that is not empty and has no control characters"));
    }
    Ok(text)
}

fn wrong_type(param: &str, expected: &str) -> AskFault {
    AskFault::new("invalid_type", Some(param), format!("\"{param}\" must be {expected}"))
}

/// A parameter whose type is checked before anything goes upstream.
struct Known {
    name: &'static str,
    takes: &'static [Kind],
    words: &'static str,
}

fn check_kind(known: &Known, value: Value, surface: Surface) -> Result<(), AskFault> {
    // A stored prompt has another shape than a text to go on from.
    let is_stored = surface == Surface::Responses && known.name == "prompt";
    let checked = surface.is_understood() && !is_stored
        || matches!(known.name, "model" | "models" | "provider");
    let bool_like = [Kind::True, Kind::False];
    let fits = known.takes.iter().any(|kind| {
        *kind == value.kind || (bool_like.contains(kind) && bool_like.contains(&value.kind))
    });
    if fits || !checked {
        return Ok(());
    }
    Err(wrong_type(known.name, known.words))
}

const BOOL: &[Kind] = &[Kind::True, Kind::Null];
const NUMBER: &[Kind] = &[Kind::Number, Kind::Null];
const ARRAY: &[Kind] = &[Kind::Array, Kind::Null];
const OBJECT: &[Kind] = &[Kind::Object, Kind::Null];

/// What OpenAI's reference gives these parameters, as far as it can't be anything else.
const KNOWN: &[Known] = &[
    Known { name: "model", takes: &[Kind::String], words: "a string" },
    Known { name: "models", takes: ARRAY, words: "an array of strings" },
    Known { name: "provider", takes: OBJECT, words: "an object" },
    Known { name: "messages", takes: &[Kind::Array], words: "an array" },
    Known { name: "prompt", takes: &[Kind::String, Kind::Array], words: "a string or an array" },
    Known { name: "input", takes: &[Kind::String, Kind::Array], words: "a string or an array" },
    Known { name: "stream", takes: BOOL, words: "a boolean" },
    Known { name: "stream_options", takes: OBJECT, words: "an object" },
    Known { name: "temperature", takes: NUMBER, words: "a number" },
    Known { name: "top_p", takes: NUMBER, words: "a number" },
    Known { name: "frequency_penalty", takes: NUMBER, words: "a number" },
    Known { name: "presence_penalty", takes: NUMBER, words: "a number" },
    Known { name: "max_tokens", takes: NUMBER, words: "an integer" },
    Known { name: "max_completion_tokens", takes: NUMBER, words: "an integer" },
    Known { name: "n", takes: NUMBER, words: "an integer" },
    Known { name: "seed", takes: NUMBER, words: "an integer" },
    Known { name: "tools", takes: ARRAY, words: "an array" },
    Known { name: "response_format", takes: OBJECT, words: "an object" },
    Known {
        name: "stop",
        takes: &[Kind::String, Kind::Array, Kind::Null],
        words: "a string or an array of strings",
    },
];

/// Where a member lies in the body, key and value.
trait Extent {
    fn start(&self) -> usize;
    fn end(&self) -> usize;
}

impl Extent for Member {
    /// The key's opening quote.
    fn start(&self) -> usize {
        self.key.start as usize - 1
    }

    fn end(&self) -> usize {
        self.value.span.end()
    }
}

#[cfg(test)]
mod tests;
