//! Where adapters put what the client shall see: the one vocabulary in the middle, as calls. The writer
//! of the client's dialect turns each call into a stream's events; a whole answer is gathered here and
//! written at its end.
//!
//! ```text
//!   adapter: start, text, text, tool, args, stop, usage   ->   role chunk, deltas, finish chunk, usage
//! ```
//!
//! What is the same for every dialect is kept here: calls are numbered densely and named once, arguments
//! end as a JSON object, the first finish reason of a choice stands.
//!
//! Text comes as a [`Piece`]: raw JSON string contents (escapes and all, as every provider has it) go
//! out without being decoded; plain text is escaped.

use smallvec::SmallVec;

use crate::base::buf::Buf;
use crate::base::limits;
use crate::llm::dialects::{Dialect, messages, responses};
use crate::llm::event::{Finish, Usage};
use crate::llm::prompt::Family;
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

    /// Its bytes, before any escaping.
    pub fn len(&self) -> usize {
        match self {
            Piece::Raw(raw) => raw.len(),
            Piece::Text(text) => text.len(),
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

/// What was told of an answer so far.
#[derive(Default)]
pub struct Told {
    dialect: Dialect,
    /// The answer's id, the inside of a JSON string; empty while none was told.
    pub(in crate::llm) id: SmallVec<[u8; 64]>,
    /// Seconds since the Unix epoch; 0 while none was told.
    pub(in crate::llm) created: u64,
    pub(in crate::llm) choices: SmallVec<[Choice; 1]>,
    pub(in crate::llm) usage: Option<Usage>,
    /// Gathered into a whole answer instead of written as events.
    whole: bool,
    /// What the Messages writer keeps of a stream.
    pub(in crate::llm) messages: messages::Pen,
    /// What the Responses writer keeps of a stream.
    pub(in crate::llm) responses: responses::Pen,
}

/// One choice, as told so far.
#[derive(Default)]
pub(in crate::llm) struct Choice {
    pub(in crate::llm) index: u32,
    pub(in crate::llm) finish: Option<Finish>,
    /// Something was told. Of a stream, its writer says so.
    pub(in crate::llm) begun: bool,
    /// What was gathered, in order.
    pub(in crate::llm) blocks: Vec<Block>,
    /// Of each call, whether any arguments were told.
    argued: SmallVec<[bool; 4]>,
    /// The thought that is being told, for dialects that give it again beside its signature. Once it is
    /// longer than `THOUGHT_BYTES_MAX` it is dropped, and its signature with it.
    thought: Option<Buf>,
}

/// A piece of a gathered answer; the insides of JSON strings.
pub(in crate::llm) enum Block {
    Text { text: Buf, annotations: Vec<Vec<u8>> },
    Reason { text: Buf, signature: Option<(Family, Buf)> },
    Redacted { data: Buf },
    Refusal { text: Buf },
    Call(Call),
    Image { mime: String, data: Buf },
}

/// One gathered tool call; the insides of JSON strings.
#[derive(Default)]
pub(in crate::llm) struct Call {
    pub(in crate::llm) index: u32,
    pub(in crate::llm) id: Buf,
    pub(in crate::llm) name: Buf,
    pub(in crate::llm) arguments: Buf,
    pub(in crate::llm) signature: Option<(Family, Buf)>,
}

impl Told {
    /// Nothing yet of a stream in a client's dialect.
    pub fn new(dialect: Dialect) -> Told {
        Told { dialect, ..Told::default() }
    }

    /// The client's dialect.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// A whole answer: everything is gathered, and written by `finish`.
    pub fn gather(&mut self) {
        self.whole = true;
    }

    /// Whether the answer is gathered rather than written as events.
    pub fn is_whole(&self) -> bool {
        self.whole
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

    /// Whether a stream whose end repeats it has become longer than an answer may be.
    pub fn is_overlong(&self) -> bool {
        self.responses.kept() > limits::ANSWER_BYTES_MAX
    }

    pub(in crate::llm) fn choice(&mut self, index: u32) -> &mut Choice {
        let at = match self.choices.iter().position(|choice| choice.index == index) {
            Some(at) => at,
            // In the order of their numbers, whichever began first.
            None => {
                let at = self.choices.iter().take_while(|choice| choice.index < index).count();
                self.choices.insert(at, Choice { index, ..Choice::default() });
                at
            }
        };
        &mut self.choices[at]
    }

    /// Whether blocks are kept: of a whole answer, and of a stream whose end repeats it.
    fn gathers(&self) -> bool {
        self.whole || self.dialect.repeats_answer()
    }
}

impl Choice {
    /// Calls so far.
    pub(in crate::llm) fn calls(&self) -> u32 {
        self.argued.len() as u32
    }

    /// Adds to the text at the end.
    fn keep_text(&mut self, keep: impl FnOnce(&mut Buf, &mut Vec<Vec<u8>>)) {
        if !matches!(self.blocks.last(), Some(Block::Text { .. })) {
            self.blocks.push(Block::Text { text: Buf::new(), annotations: Vec::new() });
        }
        if let Some(Block::Text { text, annotations }) = self.blocks.last_mut() {
            keep(text, annotations);
        }
    }

    /// Adds to the thought at the end; a signed one is over.
    fn keep_reason(&mut self, keep: impl FnOnce(&mut Buf, &mut Option<(Family, Buf)>)) {
        if !matches!(self.blocks.last(), Some(Block::Reason { signature: None, .. })) {
            self.blocks.push(Block::Reason { text: Buf::new(), signature: None });
        }
        if let Some(Block::Reason { text, signature }) = self.blocks.last_mut() {
            keep(text, signature);
        }
    }

    fn call(&mut self, index: u32) -> Option<&mut Call> {
        self.blocks.iter_mut().find_map(|block| match block {
            Block::Call(call) if call.index == index => Some(call),
            _ => None,
        })
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
    /// The answer has begun. The first id and time stand. An id that is too long to be written into every
    /// event is none.
    pub fn start(&mut self, id: Option<Piece<'_>>, created: Option<u64>) {
        if let Some(id) = id.filter(|id| !id.is_empty())
            && self.told.id.is_empty()
        {
            let mut raw = Buf::new();
            id.write(&mut raw);
            if raw.len() <= limits::ANSWER_ID_BYTES_MAX {
                self.told.id.extend_from_slice(raw.as_slice());
            }
        }
        if let Some(created) = created.filter(|created| *created > 0)
            && self.told.created == 0
        {
            self.told.created = created;
        }
    }

    /// When the answer was created, in seconds; from here on that stands, also if no provider says so.
    pub fn created(&mut self) -> u64 {
        if self.told.created == 0 {
            self.told.created = self.seconds;
        }
        self.told.created
    }

    /// Takes over a choice that was passed on unread so far: whether anything of it went out, which of
    /// its calls had arguments, and whether it is over.
    pub fn adopt(&mut self, choice: u32, begun: bool, argued: &[bool], finished: bool) {
        let choice = self.told.choice(choice);
        choice.begun |= begun;
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
        if self.told.gathers() {
            self.told.choice(choice).keep_text(|kept, _| text.write(kept));
        }
        if self.writes(choice) {
            self.told.dialect.writer().text(self, choice, text);
        }
    }

    /// A thought begins that will be signed.
    pub fn thought(&mut self, choice: u32) {
        if self.told.gathers() {
            let block = Block::Reason { text: Buf::new(), signature: None };
            self.told.choice(choice).blocks.push(block);
        }
        if !self.told.whole {
            self.told.choice(choice).thought = Some(Buf::new());
            self.told.dialect.writer().thought(self, choice);
        }
    }

    /// A piece of the model's reasoning.
    pub fn reason(&mut self, choice: u32, text: Piece<'_>) {
        if text.is_empty() {
            return;
        }
        if self.told.gathers() {
            self.told.choice(choice).keep_reason(|kept, _| text.write(kept));
        }
        if self.writes(choice) {
            let thought = &mut self.told.choice(choice).thought;
            if let Some(kept) = thought {
                text.write(kept);
                if kept.len() > limits::THOUGHT_BYTES_MAX {
                    *thought = None;
                }
            }
            self.told.dialect.writer().reason(self, choice, text);
        }
    }

    /// The signature of the thought that was told just before.
    pub fn sign(&mut self, choice: u32, family: Family, signature: Piece<'_>) {
        if signature.is_empty() {
            return;
        }
        if self.told.gathers() {
            self.told.choice(choice).keep_reason(|_, place| {
                signature.write(&mut place.get_or_insert((family, Buf::new())).1);
            });
        }
        if self.writes(choice) {
            let thought = self.told.choice(choice).thought.take();
            self.told.dialect.writer().sign(self, choice, thought.as_ref(), family, signature);
        }
    }

    /// A thought that the provider hides: bytes that only it can read, in a family that has such.
    pub fn redacted(&mut self, choice: u32, data: Piece<'_>) {
        if data.is_empty() {
            return;
        }
        if self.told.gathers() {
            let mut kept = Buf::new();
            data.write(&mut kept);
            self.told.choice(choice).blocks.push(Block::Redacted { data: kept });
        }
        if self.writes(choice) {
            self.told.dialect.writer().redacted(self, choice, data);
        }
    }

    /// A piece of a refusal.
    pub fn refuse(&mut self, choice: u32, text: Piece<'_>) {
        if text.is_empty() {
            return;
        }
        if self.told.gathers() {
            let blocks = &mut self.told.choice(choice).blocks;
            if !matches!(blocks.last(), Some(Block::Refusal { .. })) {
                blocks.push(Block::Refusal { text: Buf::new() });
            }
            if let Some(Block::Refusal { text: kept }) = blocks.last_mut() {
                text.write(kept);
            }
        }
        if self.writes(choice) {
            self.told.dialect.writer().refuse(self, choice, text);
        }
    }

    /// A tool call begins. Returns its dense index, for `args`.
    pub fn tool(&mut self, choice: u32, id: Piece<'_>, name: Piece<'_>) -> u32 {
        let told = self.told.choice(choice);
        let index = told.calls();
        told.argued.push(false);
        let made = format!("call_{}_{choice}_{index}", self.id);
        let id = if id.is_empty() { Piece::Text(&made) } else { id };
        if self.told.gathers() {
            let mut call = Call { index, ..Call::default() };
            id.write(&mut call.id);
            name.write(&mut call.name);
            self.told.choice(choice).blocks.push(Block::Call(call));
        }
        if self.writes(choice) {
            self.told.dialect.writer().tool(self, choice, index, id, name);
        }
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
        if self.told.gathers()
            && let Some(call) = self.told.choice(choice).call(index)
        {
            fragment.write(&mut call.arguments);
        }
        if self.writes(choice) {
            self.told.dialect.writer().args(self, choice, index, fragment);
        }
    }

    /// The signature of a call, for families that sign them.
    pub fn sign_call(&mut self, choice: u32, index: u32, family: Family, signature: Piece<'_>) {
        if signature.is_empty() {
            return;
        }
        if self.told.gathers()
            && let Some(call) = self.told.choice(choice).call(index)
        {
            signature.write(&mut call.signature.get_or_insert((family, Buf::new())).1);
        }
        if self.writes(choice) {
            self.told.dialect.writer().sign_call(self, choice, index, family, signature);
        }
    }

    /// A citation or other annotation of the text, as raw JSON in the shape of OpenAI's chat.
    pub fn annotate(&mut self, choice: u32, annotation: &[u8]) {
        if self.told.gathers() {
            self.told.choice(choice).keep_text(|_, kept| kept.push(annotation.to_vec()));
        }
        if self.writes(choice) {
            self.told.dialect.writer().annotate(self, choice, annotation);
        }
    }

    /// An image that the model made: its media type, and its bytes in base64.
    pub fn image(&mut self, choice: u32, mime: &str, data: Piece<'_>) {
        if data.is_empty() {
            return;
        }
        if self.told.gathers() {
            let mut kept = Buf::new();
            data.write(&mut kept);
            let block = Block::Image { mime: mime.to_owned(), data: kept };
            self.told.choice(choice).blocks.push(block);
        }
        if self.writes(choice) {
            self.told.dialect.writer().image(self, choice, mime, data);
        }
    }

    /// A choice is over. The first reason stands; a plain stop after a tool call is a call for tools.
    pub fn stop(&mut self, choice: u32, finish: Finish) {
        if self.told.choice(choice).finish.is_some() {
            return;
        }
        // Arguments must end as a JSON object.
        for call in 0..self.told.choice(choice).calls() {
            if !self.told.choice(choice).argued[call as usize] {
                self.args(choice, call, Piece::Raw(b"{}"));
            }
        }
        let told = self.told.choice(choice);
        let finish = match finish {
            Finish::Stop if told.calls() > 0 => Finish::ToolCalls,
            other => other,
        };
        told.finish = Some(finish);
        if !self.told.whole {
            self.told.dialect.writer().stop(self, choice, finish);
        }
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
            self.told.dialect.writer().whole(self);
        } else {
            self.told.dialect.writer().finish(self, include_usage);
        }
    }

    /// Notes that something of a choice is told; says whether it is written at once.
    fn writes(&mut self, choice: u32) -> bool {
        if self.told.whole {
            self.told.choice(choice).begun = true;
        }
        !self.told.whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream takes its time, and all that is told of it was created at once.
    #[test]
    fn an_answer_has_one_time() {
        for (dialect, name) in
            [(Dialect::Chat, "\"created\":"), (Dialect::Responses, "\"created_at\":")]
        {
            let (mut told, mut out, mut events) = (Told::new(dialect), Buf::new(), 0);
            for seconds in [7, 8, 9] {
                let (out, events, told) = (&mut out, &mut events, &mut told);
                let mut sink = Sink { out, shown: "m", events, id: "r", seconds, told };
                sink.text(0, Piece::Raw(b"a"));
            }
            let out = String::from_utf8(out.as_slice().to_vec()).unwrap();
            let times: Vec<_> = out.split(name).skip(1).map(|rest| &rest[..1]).collect();
            assert!(times.len() > 1 && times.iter().all(|time| *time == "7"), "{out}");
        }
    }
}
