//! What one vendor makes of a chat request, as data, and the smallest edits of a body that fit it: a
//! member cut, renamed, or given another value; every other byte as it came.
//!
//! ```text
//!   {"model":"m","n":1,"max_completion_tokens":9,"messages":[{"role":"developer",...}]}
//!                ~~~~~~ cut                                         "system"
//!                       "max_tokens"
//! ```
//!
//! A rule names a place in the body by its path, `messages[].content[].image_url`. Of what a vendor can't
//! do, a value that asks for nothing (null, false, no entries, one choice) is cut; any other makes the
//! request one that this vendor can't serve.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::base::buf::Buf;
use crate::base::fail::Fault;
use crate::llm::chat_body::CLAUDES;
use crate::llm::prompt::{Family, Signature};
use crate::llm::request::{Edit, cut_members};
use crate::wire::json::{self, Kind, Member, Value};

/// How a vendor takes a parameter.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// As it came.
    Passed,
    /// Under another name or with another value that means the same, or nearly.
    Adapted,
    /// Not at all: the answer is only a little less what was asked for.
    Dropped,
    /// Not at all, and an answer without it would be a wrong one.
    Incompatible,
}

/// Parameters, by their paths in the body, and how they fare.
pub type Fates = Vec<(Cow<'static, str>, Fate)>;

impl Fate {
    /// The stable short name.
    pub const fn name(self) -> &'static str {
        match self {
            Fate::Passed => "passed",
            Fate::Adapted => "adapted",
            Fate::Dropped => "dropped",
            Fate::Incompatible => "incompatible",
        }
    }
}

/// What is done with a member of the body.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It is cut.
    Drop,
    /// Asked for in earnest, the vendor can't serve the request.
    Refuse,
    /// It has this name there. A member that has the name already gives way.
    Rename(&'static str),
    /// Words that are others there; nothing in the place of the other word cuts the member.
    Words(&'static [(&'static str, &'static str)]),
    /// A word must be one of these, and something else than a word may stand there only if `other`.
    Only {
        /// What it knows.
        words: &'static [&'static str],
        /// Whether it takes an object.
        other: bool,
    },
    /// An array may have so many entries.
    Few(usize),
    /// Texts in parts become one string.
    Flat,
    /// Thinking blocks, as a client got them, are OpenRouter's `reasoning_details`, unless those stand there
    /// too.
    Details,
    /// Instead of yes there stands a number: this neighbour's, or 1.
    Count(&'static str),
}

/// One quirk.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Where in the body.
    pub path: &'static str,
    /// What is done there.
    pub verdict: Verdict,
    /// For which models; `None`: for all.
    pub only: Option<fn(&str) -> bool>,
}

impl Rule {
    /// A quirk of every model.
    pub const fn new(path: &'static str, verdict: Verdict) -> Rule {
        Rule { path, verdict, only: None }
    }

    /// A quirk of the models that `only` names.
    pub const fn of(only: fn(&str) -> bool, path: &'static str, verdict: Verdict) -> Rule {
        Rule { path, verdict, only: Some(only) }
    }

    /// Whether it is one of this model's.
    pub fn holds(&self, model: &str) -> bool {
        self.only.is_none_or(|only| only(model))
    }

    /// How the parameter fares at worst, whatever its value.
    pub const fn fate(&self) -> Fate {
        match self.verdict {
            Verdict::Drop => Fate::Dropped,
            Verdict::Refuse | Verdict::Only { .. } | Verdict::Few(_) => Fate::Incompatible,
            Verdict::Rename(_)
            | Verdict::Words(_)
            | Verdict::Flat
            | Verdict::Details
            | Verdict::Count(_) => Fate::Adapted,
        }
    }
}

/// What goes upstream of no request: routing's own words.
const ROUTING: &[Rule] =
    &[Rule::new("models", Verdict::Drop), Rule::new("provider", Verdict::Drop)];

/// The edits that make a chat body fit for `model`, in order: the model's name, routing's words, and the
/// rules that hold for it.
///
/// # Errors
/// `Unsendable`: it asks for what the vendor can't do.
pub fn fit<'r>(
    body: &[u8],
    rules: impl IntoIterator<Item = &'r Rule>,
    model: &str,
) -> Result<SmallVec<[Edit; 4]>, Fault> {
    let top = json::document(body).map_err(|_| Fault::Unsendable)?;
    if top.kind != Kind::Object {
        return Err(Fault::Unsendable);
    }
    let mut walk = Walk::over(body, top, rules, model);
    if walk.judged.iter().any(|(_, fate)| *fate == Fate::Incompatible) {
        return Err(Fault::Unsendable);
    }
    let named = json::get(body, top, "model").filter(|value| value.kind == Kind::String);
    walk.edits.extend(named.map(|value| Edit::Model(value.span.into())));
    let mut edits = walk.edits;
    edits.sort_by_key(|edit| (edit.range().start, std::cmp::Reverse(edit.range().end)));
    // What lies inside of a cut is gone with it.
    let mut end = 0;
    edits.retain(|edit| {
        let stands = edit.range().start >= end;
        if stands {
            end = edit.range().end;
        }
        stands
    });
    Ok(edits)
}

/// How the parameters of a chat body fare: each that is not passed as it came, by its rule's path. Empty
/// for what is no JSON object.
pub fn judge<'r>(body: &[u8], rules: impl IntoIterator<Item = &'r Rule>, model: &str) -> Fates {
    match json::document(body) {
        Ok(top) if top.kind == Kind::Object => Walk::over(body, top, rules, model).judged,
        _ => Vec::new(),
    }
}

/// Rules with what is left of their paths.
type Places<'r> = SmallVec<[(&'r str, &'r Rule); 8]>;

/// What a rule does to one member.
enum Act {
    Keep,
    Cut,
    Name(&'static str),
    Say(Vec<u8>),
    /// Another member in its place.
    Become(Vec<u8>),
    Never,
}

/// One way through a body.
struct Walk<'b> {
    body: &'b [u8],
    edits: SmallVec<[Edit; 4]>,
    judged: Fates,
}

impl<'b> Walk<'b> {
    fn over<'r>(
        body: &'b [u8],
        top: Value,
        rules: impl IntoIterator<Item = &'r Rule>,
        model: &str,
    ) -> Walk<'b> {
        let rules = rules.into_iter().filter(|rule| rule.holds(model));
        let rules: Places<'_> = rules.chain(ROUTING).map(|rule| (rule.path, rule)).collect();
        let mut walk = Walk { body, edits: SmallVec::new(), judged: Vec::new() };
        walk.object(top, &rules);
        walk
    }

    /// Applies rules to the members of an object. The depth is that of the longest path.
    fn object(&mut self, value: Value, rules: &Places<'_>) {
        let members: SmallVec<[Member; 16]> = json::members(self.body, value).collect();
        let mut cuts: SmallVec<[usize; 4]> = SmallVec::new();
        for (index, member) in members.iter().enumerate() {
            let name = member.name(self.body);
            let (mut below, mut over) = (Places::new(), false);
            for (path, rule) in rules {
                let (head, rest) = path.split_at(path.find(['.', '[']).unwrap_or(path.len()));
                if head != name || over {
                    continue;
                }
                if !rest.is_empty() {
                    below.push((rest.trim_start_matches('.'), rule));
                    continue;
                }
                let act = act(self.body, member, &members, rule);
                self.note(rule, &act);
                match act {
                    Act::Keep | Act::Never => {}
                    Act::Cut => {
                        cuts.push(index);
                        over = true;
                    }
                    Act::Name(to) => {
                        let others = members.iter().enumerate();
                        let others = others.filter(|(_, other)| other.is(self.body, to));
                        cuts.extend(others.map(|(index, _)| index));
                        self.edits.push(Edit::Put(quoted(member), string(to)));
                    }
                    Act::Become(bytes) => {
                        let range = quoted(member).start..member.value.span.end();
                        self.edits.push(Edit::Put(range, bytes));
                        over = true;
                    }
                    Act::Say(bytes) => {
                        self.edits.push(Edit::Put(member.value.span.into(), bytes));
                        over = true;
                    }
                }
            }
            if !over && !below.is_empty() {
                self.inside(member.value, &below);
            }
        }
        cuts.sort_unstable();
        cuts.dedup();
        cut_members(&members, &cuts, &mut self.edits);
    }

    /// Applies rules to what a member holds.
    fn inside(&mut self, value: Value, rules: &Places<'_>) {
        match value.kind {
            Kind::Object => {
                let rules = rules.iter().filter(|(path, _)| !path.starts_with("[]"));
                self.object(value, &rules.copied().collect());
            }
            Kind::Array => {
                let rules: Places<'_> = rules
                    .iter()
                    .filter_map(|(path, rule)| Some((path.strip_prefix("[].")?, *rule)))
                    .collect();
                let body = self.body;
                for item in json::items(body, value).filter(|item| item.kind == Kind::Object) {
                    self.object(item, &rules);
                }
            }
            Kind::Null | Kind::True | Kind::False | Kind::Number | Kind::String => {}
        }
    }

    fn note(&mut self, rule: &Rule, act: &Act) {
        let fate = match act {
            Act::Keep => return,
            Act::Cut => Fate::Dropped,
            Act::Name(_) | Act::Say(_) | Act::Become(_) => Fate::Adapted,
            Act::Never => Fate::Incompatible,
        };
        let routing = ROUTING.iter().any(|known| known.path == rule.path);
        let judged = (Cow::Borrowed(rule.path), fate);
        if !routing && !self.judged.contains(&judged) {
            self.judged.push(judged);
        }
    }
}

fn act(body: &[u8], member: &Member, members: &[Member], rule: &Rule) -> Act {
    let value = member.value;
    match rule.verdict {
        Verdict::Drop => Act::Cut,
        Verdict::Refuse if asks_for_nothing(body, member) => Act::Cut,
        Verdict::Refuse => Act::Never,
        Verdict::Rename(_) if value.is_null() => Act::Cut,
        Verdict::Rename(to) => Act::Name(to),
        Verdict::Words(words) => {
            let word = words.iter().find(|(word, _)| json::str_eq(body, value, word));
            match word {
                None => Act::Keep,
                Some((_, "")) => Act::Cut,
                Some((_, other)) => Act::Say(string(other)),
            }
        }
        Verdict::Only { words, other } => {
            let known = match value.kind {
                Kind::Null => true,
                Kind::String => words.iter().any(|word| json::str_eq(body, value, word)),
                Kind::True | Kind::False | Kind::Number | Kind::Array | Kind::Object => other,
            };
            if known { Act::Keep } else { Act::Never }
        }
        Verdict::Few(most) => match json::items(body, value).count() {
            count if count > most => Act::Never,
            _ => Act::Keep,
        },
        Verdict::Flat => flat(body, value).map_or(Act::Keep, Act::Say),
        Verdict::Details => {
            let known = members.iter().any(|member| member.is(body, DETAILS));
            match value.kind {
                Kind::Array if !known => Act::Become(details(body, value)),
                _ => Act::Cut,
            }
        }
        Verdict::Count(neighbour) => match value.kind {
            Kind::True => {
                let count = members.iter().find(|member| member.is(body, neighbour));
                let count = count.and_then(|member| json::as_u64(body, member.value));
                Act::Say(count.unwrap_or(1).to_string().into_bytes())
            }
            Kind::False => Act::Cut,
            Kind::Null | Kind::Number | Kind::String | Kind::Array | Kind::Object => Act::Keep,
        },
    }
}

/// Whether a member only says what would be so without it.
fn asks_for_nothing(body: &[u8], member: &Member) -> bool {
    let value = member.value;
    match value.kind {
        Kind::Null => true,
        // Several calls at once is what is done unasked.
        Kind::True => member.is(body, "parallel_tool_calls"),
        Kind::False => !member.is(body, "parallel_tool_calls"),
        Kind::Number => {
            let least = u64::from(member.is(body, "n"));
            json::as_u64(body, value).is_some_and(|number| number <= least)
        }
        Kind::String => json::str_eq(body, value, ""),
        Kind::Array => json::is_empty(body, value),
        Kind::Object => false,
    }
}

/// Parts that are all text as one string; nothing if they are something else.
fn flat(body: &[u8], value: Value) -> Option<Vec<u8>> {
    if value.kind != Kind::Array {
        return None;
    }
    let mut out = vec![b'"'];
    for (index, part) in json::items(body, value).enumerate() {
        let text = json::get(body, part, "text").and_then(|text| json::raw_string(body, text))?;
        if index > 0 {
            out.extend_from_slice(b"\\n\\n");
        }
        out.extend_from_slice(text);
    }
    out.push(b'"');
    Some(out)
}

const DETAILS: &str = "reasoning_details";

/// Claude's thinking blocks as a member of OpenRouter's; blocks of other families are left out.
fn details(body: &[u8], blocks: Value) -> Vec<u8> {
    let mut out = Buf::new();
    json::write_string(&mut out, DETAILS);
    out.extend(b":[");
    let mut count = 0;
    for block in json::items(body, blocks) {
        let inside = |name: &str| json::get(body, block, name).filter(|v| v.kind == Kind::String);
        let own = |proof: &Value| {
            let proof = json::text(body, *proof).unwrap_or_default();
            Signature::read(&proof, Family::Anthropic).of(Family::Anthropic).is_some()
        };
        let proof = inside("signature").filter(own);
        let pairs: &[(&str, Value)] = match (inside("thinking"), proof, inside("data")) {
            (Some(text), Some(proof), _) => &[("text", text), ("signature", proof)],
            (None, _, Some(data)) => &[("data", data)],
            _ => continue,
        };
        let kind = if pairs.len() == 2 { "text" } else { "encrypted" };
        let comma = if count > 0 { "," } else { "" };
        let head = format!(
            "{comma}{{\"type\":\"reasoning.{kind}\",\"format\":\"{CLAUDES}\",\"index\":{count}"
        );
        out.extend(head.as_bytes());
        for (name, value) in pairs {
            out.extend(format!(",\"{name}\":").as_bytes());
            out.extend(value.raw(body));
        }
        out.extend(b"}");
        count += 1;
    }
    out.extend(b"]");
    out.as_slice().to_vec()
}

/// A member's key with its quotes.
fn quoted(member: &Member) -> std::ops::Range<usize> {
    member.key.start as usize - 1..member.key.end() + 1
}

fn string(text: &str) -> Vec<u8> {
    let mut out = Buf::new();
    json::write_string(&mut out, text);
    out.as_slice().to_vec()
}

#[cfg(test)]
mod tests;
