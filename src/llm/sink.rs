//! Where adapters put what the client shall see: the one vocabulary in the middle, as calls. A dialect
//! turns each call into the client's bytes, as a stream's events or gathered into a whole answer.
//!
//! ```text
//!   adapter: start, text, text, tool, args, stop, usage   ->   role chunk, deltas, finish chunk, usage
//! ```
//!
//! Text comes as a [`Piece`]: raw JSON string contents (escapes and all, as every provider has it) go
//! out without being decoded; plain text is escaped.

use std::io::Write as _;

use smallvec::SmallVec;

use crate::base::buf::Buf;
use crate::llm::event::{Finish, Usage};
use crate::wire::json;

/// A piece of text on its way through.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece<'a> {
    /// The inside of a validated JSON string, without its quotes.
    Raw(&'a [u8]),
    /// Plain text.
    Text(&'a str),
}

impl Piece<'_> {
    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        match self {
            Piece::Raw(raw) => raw.is_empty(),
            Piece::Text(text) => text.is_empty(),
        }
    }

    /// Writes it as the inside of a JSON string.
    pub fn write(&self, out: &mut Buf) {
        match self {
            Piece::Raw(raw) => out.extend(raw),
            Piece::Text(text) => json::escape(out, text),
        }
    }
}

/// What the writer of a chat answer knows of it.
#[derive(Default)]
pub struct Told {
    /// The answer's id, the inside of a JSON string.
    id: SmallVec<[u8; 64]>,
    created: u64,
    choices: SmallVec<[Choice; 1]>,
    usage: Option<Usage>,
    /// Gathered into a whole answer instead of written as events.
    whole: bool,
}

/// One choice, as told so far.
#[derive(Default)]
struct Choice {
    index: u32,
    tools: u32,
    finish: Option<Finish>,
    /// Something was told; of a stream, the role chunk.
    begun: bool,
    /// Gathered for a whole answer; the insides of JSON strings.
    text: Buf,
    reasoning: Buf,
    refusal: Buf,
    calls: Vec<Call>,
    /// Raw JSON values: url citations and the like.
    annotations: Vec<Vec<u8>>,
    /// Of each call, whether any arguments were told.
    argued: SmallVec<[bool; 4]>,
}

/// One gathered tool call; the insides of JSON strings.
#[derive(Default)]
struct Call {
    id: Buf,
    name: Buf,
    arguments: Buf,
}

impl Told {
    /// A whole answer: everything is gathered, and written by `finish`.
    pub fn gather(&mut self) {
        self.whole = true;
    }

    /// Token counts so far.
    pub fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// Whether anything was told that a client would want.
    pub fn has_substance(&self) -> bool {
        self.choices.iter().any(|choice| choice.begun || choice.finish.is_some())
    }

    /// Whether every choice that began has its finish.
    pub fn is_finished(&self) -> bool {
        !self.choices.is_empty() && self.choices.iter().all(|choice| choice.finish.is_some())
    }

    fn choice(&mut self, index: u32) -> &mut Choice {
        let at = match self.choices.iter().position(|choice| choice.index == index) {
            Some(at) => at,
            None => {
                self.choices.push(Choice { index, ..Choice::default() });
                self.choices.len() - 1
            }
        };
        &mut self.choices[at]
    }
}

/// Where an adapter puts what the client shall see.
pub struct Sink<'a> {
    /// The client's bytes, without transfer framing.
    pub out: &'a mut Buf,
    /// The model's name that the client may ask for again.
    pub shown: &'a str,
    /// Events written so far.
    pub events: &'a mut u32,
    /// For answers whose provider gives no id: the request's.
    pub id: &'a str,
    /// For answers whose provider gives no time: seconds since the Unix epoch.
    pub seconds: u64,
    /// What was told so far.
    pub told: &'a mut Told,
}

impl Sink<'_> {
    /// The answer has begun. The first id and time stand.
    pub fn start(&mut self, id: Option<Piece<'_>>, created: Option<u64>) {
        if let Some(id) = id.filter(|id| !id.is_empty())
            && self.told.id.is_empty()
        {
            let mut raw = Buf::new();
            id.write(&mut raw);
            self.told.id.extend_from_slice(raw.as_slice());
        }
        if let Some(created) = created.filter(|created| *created > 0)
            && self.told.created == 0
        {
            self.told.created = created;
        }
    }

    /// Takes over a choice that was passed on unread so far: whether anything of it went out, which of
    /// its calls had arguments, and whether it is over.
    pub fn adopt(&mut self, choice: u32, begun: bool, argued: &[bool], finished: bool) {
        let choice = self.told.choice(choice);
        choice.begun |= begun;
        choice.tools = argued.len() as u32;
        choice.argued = SmallVec::from_slice(argued);
        if finished {
            choice.finish.get_or_insert(Finish::Stop);
        }
    }

    /// A piece of the answer's text.
    pub fn text(&mut self, choice: u32, text: Piece<'_>) {
        if text.is_empty() {
            return;
        }
        self.string(choice, "content", text, |choice| &mut choice.text);
    }

    /// A piece of the model's reasoning.
    pub fn reason(&mut self, choice: u32, text: Piece<'_>) {
        self.string(choice, "reasoning_content", text, |choice| &mut choice.reasoning);
    }

    /// A piece of a refusal.
    pub fn refuse(&mut self, choice: u32, text: Piece<'_>) {
        self.string(choice, "refusal", text, |choice| &mut choice.refusal);
    }

    fn string(
        &mut self,
        choice: u32,
        key: &str,
        text: Piece<'_>,
        gathered: fn(&mut Choice) -> &mut Buf,
    ) {
        if text.is_empty() {
            return;
        }
        if self.told.whole {
            let choice = self.told.choice(choice);
            choice.begun = true;
            text.write(gathered(choice));
            return;
        }
        self.open(choice, false);
        self.out.extend(b"{\"");
        self.out.extend(key.as_bytes());
        self.out.extend(b"\":\"");
        text.write(self.out);
        self.out.extend(b"\"}");
        self.close(b"null");
    }

    /// A tool call begins. Returns its dense index, for `args`.
    pub fn tool(&mut self, choice: u32, id: Piece<'_>, name: Piece<'_>) -> u32 {
        let told = self.told.choice(choice);
        let index = told.tools;
        told.tools += 1;
        told.argued.push(false);
        let made = format!("call_{}_{choice}_{index}", self.id);
        let id = if id.is_empty() { Piece::Text(&made) } else { id };
        if self.told.whole {
            let mut call = Call::default();
            id.write(&mut call.id);
            name.write(&mut call.name);
            let choice = self.told.choice(choice);
            choice.begun = true;
            choice.calls.push(call);
            return index;
        }
        self.open(choice, true);
        // Writing to a Buf can't fail.
        let _ = write!(self.out, "{{\"tool_calls\":[{{\"index\":{index},\"id\":\"");
        id.write(self.out);
        self.out.extend(b"\",\"type\":\"function\",\"function\":{\"name\":\"");
        name.write(self.out);
        self.out.extend(b"\",\"arguments\":\"\"}}]}");
        self.close(b"null");
        index
    }

    /// A fragment of a call's arguments: the inside of a JSON string that holds JSON text.
    pub fn args(&mut self, choice: u32, index: u32, fragment: Piece<'_>) {
        if fragment.is_empty() {
            return;
        }
        if let Some(argued) = self.told.choice(choice).argued.get_mut(index as usize) {
            *argued = true;
        }
        if self.told.whole {
            let call = self.told.choice(choice).calls.get_mut(index as usize);
            if let Some(call) = call {
                fragment.write(&mut call.arguments);
            }
            return;
        }
        self.open(choice, true);
        // Writing to a Buf can't fail.
        let _ = write!(
            self.out,
            "{{\"tool_calls\":[{{\"index\":{index},\"function\":{{\"arguments\":\""
        );
        fragment.write(self.out);
        self.out.extend(b"\"}}]}");
        self.close(b"null");
    }

    /// A citation or other annotation of the text, as raw JSON in OpenAI's shape.
    pub fn annotate(&mut self, choice: u32, annotation: &[u8]) {
        if self.told.whole {
            self.told.choice(choice).annotations.push(annotation.to_vec());
            return;
        }
        self.open(choice, false);
        self.out.extend(b"{\"annotations\":[");
        self.out.extend(annotation);
        self.out.extend(b"]}");
        self.close(b"null");
    }

    /// A choice is over. The first reason stands; a plain stop after a tool call is a call for tools.
    pub fn stop(&mut self, choice: u32, finish: Finish) {
        if self.told.choice(choice).finish.is_some() {
            return;
        }
        // Arguments must end as a JSON object.
        let bare: SmallVec<[u32; 4]> = (0..self.told.choice(choice).tools)
            .filter(|call| !self.told.choice(choice).argued[*call as usize])
            .collect();
        for call in bare {
            self.args(choice, call, Piece::Raw(b"{}"));
        }
        let told = self.told.choice(choice);
        let finish = match finish {
            Finish::Stop if told.tools > 0 => Finish::ToolCalls,
            other => other,
        };
        told.finish = Some(finish);
        if self.told.whole {
            return;
        }
        self.open(choice, false);
        self.out.extend(b"{}");
        let quoted = format!("\"{}\"", finish.name());
        self.close(quoted.as_bytes());
    }

    /// Token counts; the last ones told stand.
    pub fn usage(&mut self, usage: Usage) {
        self.told.usage = Some(usage);
    }

    /// The good end: what the dialect still owes the client. A whole answer is written here.
    pub fn finish(&mut self, include_usage: bool) {
        let open: SmallVec<[u32; 4]> = self
            .told
            .choices
            .iter()
            .filter(|choice| choice.finish.is_none())
            .map(|choice| choice.index)
            .collect();
        for choice in open {
            self.stop(choice, Finish::Stop);
        }
        if self.told.whole {
            self.write_whole();
            return;
        }
        if let Some(usage) = self.told.usage
            && include_usage
        {
            self.head();
            self.out.extend(b",\"choices\":[],\"usage\":");
            write_usage(usage, self.out);
            self.out.extend(b"}\n\n");
            *self.events += 1;
        }
        self.out.extend(b"data: [DONE]\n\n");
    }

    /// The chunk up to its choices.
    fn head(&mut self) {
        self.out.extend(b"data: ");
        self.envelope("chat.completion.chunk");
    }

    fn envelope(&mut self, object: &str) {
        self.out.extend(b"{\"id\":\"");
        if self.told.id.is_empty() {
            self.out.extend(b"chatcmpl-");
            json::escape(self.out, self.id);
        } else {
            self.out.extend(&self.told.id);
        }
        let created = if self.told.created == 0 { self.seconds } else { self.told.created };
        // Writing to a Buf can't fail.
        let _ = write!(self.out, "\",\"object\":\"{object}\",\"created\":{created},\"model\":");
        json::write_string(self.out, self.shown);
    }

    /// A chunk of one choice, up to its delta; the role chunk before the first of them.
    fn open(&mut self, choice: u32, tools: bool) {
        if !std::mem::replace(&mut self.told.choice(choice).begun, true) {
            let content: &[u8] = if tools { b"null" } else { b"\"\"" };
            self.head();
            // Writing to a Buf can't fail.
            let _ = write!(
                self.out,
                ",\"choices\":[{{\"index\":{choice},\"delta\":{{\"role\":\"assistant\",\"content\":"
            );
            self.out.extend(content);
            self.out.extend(b"}");
            self.close(b"null");
        }
        self.head();
        // Writing to a Buf can't fail.
        let _ = write!(self.out, ",\"choices\":[{{\"index\":{choice},\"delta\":");
    }

    fn close(&mut self, finish: &[u8]) {
        self.out.extend(b",\"logprobs\":null,\"finish_reason\":");
        self.out.extend(finish);
        self.out.extend(b"}]}\n\n");
        *self.events += 1;
    }

    fn write_whole(&mut self) {
        self.envelope("chat.completion");
        self.out.extend(b",\"choices\":[");
        let choices = std::mem::take(&mut self.told.choices);
        for (place, choice) in choices.iter().enumerate() {
            if place > 0 {
                self.out.push(b',');
            }
            choice.write(self.out);
        }
        self.out.push(b']');
        self.told.choices = choices;
        if let Some(usage) = self.told.usage {
            self.out.extend(b",\"usage\":");
            write_usage(usage, self.out);
        }
        self.out.push(b'}');
    }
}

impl Choice {
    fn write(&self, out: &mut Buf) {
        // Writing to a Buf can't fail.
        let _ = write!(
            out,
            "{{\"index\":{},\"message\":{{\"role\":\"assistant\",\"content\":",
            self.index
        );
        optional(&self.text, out);
        out.extend(b",\"refusal\":");
        optional(&self.refusal, out);
        if !self.reasoning.is_empty() {
            out.extend(b",\"reasoning_content\":");
            optional(&self.reasoning, out);
        }
        out.extend(b",\"annotations\":[");
        out.extend(&self.annotations.join(&b","[..]));
        out.push(b']');
        if !self.calls.is_empty() {
            out.extend(b",\"tool_calls\":[");
            for (place, call) in self.calls.iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                call.write(out);
            }
            out.push(b']');
        }
        let finish = self.finish.unwrap_or(Finish::Stop).name();
        let _ = write!(out, "}},\"logprobs\":null,\"finish_reason\":\"{finish}\"}}");
    }
}

impl Call {
    fn write(&self, out: &mut Buf) {
        out.extend(b"{\"id\":\"");
        out.extend(self.id.as_slice());
        out.extend(b"\",\"type\":\"function\",\"function\":{\"name\":\"");
        out.extend(self.name.as_slice());
        out.extend(b"\",\"arguments\":\"");
        let arguments = self.arguments.as_slice();
        out.extend(if arguments.is_empty() { b"{}" } else { arguments });
        out.extend(b"\"}}");
    }
}

fn optional(text: &Buf, out: &mut Buf) {
    if text.is_empty() {
        out.extend(b"null");
        return;
    }
    out.push(b'"');
    out.extend(text.as_slice());
    out.push(b'"');
}

fn write_usage(usage: Usage, out: &mut Buf) {
    // Writing to a Buf can't fail.
    let _ = write!(
        out,
        "{{\"prompt_tokens\":{},\"completion_tokens\":{},\"total_tokens\":{},\
         \"prompt_tokens_details\":{{\"cached_tokens\":{}}},\
         \"completion_tokens_details\":{{\"reasoning_tokens\":{}}}}}",
        usage.prompt,
        usage.completion,
        usage.prompt.saturating_add(usage.completion),
        usage.cached,
        usage.reasoning
    );
}
