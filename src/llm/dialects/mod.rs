//! The client's side: one file for each dialect, and one that reads its requests. Calls of the sink and
//! raw frames in, the client's bytes out.

use crate::base::buf::Buf;
use crate::llm::event::Finish;
use crate::llm::prompt::Family;
use crate::llm::sink::{Piece, Sink, Told};

pub mod chat;
pub mod chat_prompt;
pub mod messages;
pub mod messages_prompt;
pub mod responses;
pub mod responses_prompt;

/// Which API a client speaks.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Dialect {
    /// OpenAI's chat, and its older and smaller relatives.
    #[default]
    Chat,
    /// Anthropic's Messages.
    Messages,
    /// OpenAI's Responses.
    Responses,
}

impl Dialect {
    /// Every dialect.
    pub const ALL: [Dialect; 3] = [Dialect::Chat, Dialect::Messages, Dialect::Responses];

    /// The stable short name.
    pub const fn name(self) -> &'static str {
        match self {
            Dialect::Chat => "chat",
            Dialect::Messages => "messages",
            Dialect::Responses => "responses",
        }
    }

    /// Whether the end of a stream says everything again.
    pub const fn repeats_answer(self) -> bool {
        matches!(self, Dialect::Responses)
    }

    /// What writes it.
    pub fn writer(self) -> &'static dyn Writer {
        match self {
            Dialect::Chat => &chat::Chat,
            Dialect::Messages => &messages::Messages,
            Dialect::Responses => &responses::Responses,
        }
    }
}

/// An error, in words that every dialect has a place for.
#[derive(Clone, Copy, Debug, Default)]
pub struct ErrorText<'a> {
    /// For a person.
    pub message: &'a str,
    /// The class.
    pub kind: &'a str,
    /// The parameter at fault.
    pub param: Option<&'a str>,
    /// The machine's word.
    pub code: Option<&'a str>,
}

/// An error with what surrounds it.
#[derive(Clone, Copy, Debug)]
pub struct ErrorReport<'a> {
    /// The HTTP status that it goes out with, or would have.
    pub status: u16,
    /// What is told.
    pub text: ErrorText<'a>,
    /// What was tried, as `metadata` of a JSON error.
    pub metadata: Option<&'a serde_json::Value>,
    /// The request's id.
    pub id: &'a str,
}

/// Writes an answer in one dialect. Of a stream the sink calls it for everything that is told, in order;
/// of a whole answer only `whole` is called, after everything was gathered. Pieces are never empty.
pub trait Writer {
    /// A piece of text.
    fn text(&self, sink: &mut Sink<'_>, choice: u32, text: Piece<'_>);

    /// A thought begins that will be signed.
    fn thought(&self, sink: &mut Sink<'_>, choice: u32);

    /// A piece of reasoning.
    fn reason(&self, sink: &mut Sink<'_>, choice: u32, text: Piece<'_>);

    /// The last thought's signature. `thought` is all of it, if it was announced and is not too long.
    fn sign(
        &self,
        sink: &mut Sink<'_>,
        choice: u32,
        thought: Option<&Buf>,
        family: Family,
        signature: Piece<'_>,
    );

    /// A hidden thought.
    fn redacted(&self, sink: &mut Sink<'_>, choice: u32, data: Piece<'_>);

    /// A piece of a refusal.
    fn refuse(&self, sink: &mut Sink<'_>, choice: u32, text: Piece<'_>);

    /// A tool call begins.
    fn tool(&self, sink: &mut Sink<'_>, choice: u32, index: u32, id: Piece<'_>, name: Piece<'_>);

    /// A fragment of a call's arguments.
    fn args(&self, sink: &mut Sink<'_>, choice: u32, index: u32, fragment: Piece<'_>);

    /// A call's signature.
    fn sign_call(
        &self,
        sink: &mut Sink<'_>,
        choice: u32,
        index: u32,
        family: Family,
        signature: Piece<'_>,
    );

    /// An annotation, as raw JSON in the shape of OpenAI's chat.
    fn annotate(&self, sink: &mut Sink<'_>, choice: u32, annotation: &[u8]);

    /// An image.
    fn image(&self, sink: &mut Sink<'_>, choice: u32, mime: &str, data: Piece<'_>);

    /// A choice is over, once.
    fn stop(&self, sink: &mut Sink<'_>, choice: u32, finish: Finish);

    /// The good end of a stream; every choice is over.
    fn finish(&self, sink: &mut Sink<'_>, include_usage: bool);

    /// The whole answer.
    fn whole(&self, sink: &mut Sink<'_>);

    /// An error before anything went out, as a JSON body.
    fn error_body(&self, report: &ErrorReport<'_>) -> String;

    /// The last event of a stream that ends badly. `told` is what went out before.
    fn error_event(&self, report: &ErrorReport<'_>, told: &mut Told, out: &mut Buf);
}
