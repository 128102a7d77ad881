//! The formats: one file for each provider API that a sandbox provider speaks. The path of a request
//! says which; what the script says is the same in all of them, so a test can compare what a client gets
//! whoever answered.
//!
//! A script's answer is a row of *pieces* (`answer`), and a format turns each piece into its own events,
//! none or several. Faults count pieces, not events, so `cut_event=4` cuts at the same word everywhere.
//!
//! ```text
//! piece:       role             | text 0                          | text 1 | finish
//! chat:        {delta:{role}}   | {delta:{content}}               | ..     | {finish_reason}
//! messages:    message_start    | block_start, block_delta        | ..     | message_delta
//! converse:    messageStart     | contentBlockDelta               | ..     | messageStop
//! ```
//!
//! Nothing here is shared with the adapters that read these formats.

use crate::base::buf::Buf;

use super::answer::{Answer, Piece};
use super::ask::{Ask, Refusal};
use super::http::Request;
use super::script::Named;

mod anthropic;
mod bedrock;
mod check;
mod cohere;
mod converse_check;
mod gemini;
mod gemini_check;
mod messages_check;
mod mistral;
mod ollama;
mod openai;
mod responses;

/// What a request asks a provider for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// OpenAI's `/v1/chat/completions`
    Chat,
    /// OpenAI's `/v1/completions`
    Completions,
    /// OpenAI's `/v1/embeddings`
    Embeddings,
    /// OpenAI's `GET /v1/models`
    Models,
    /// OpenAI's chat at Azure: `/openai/deployments/{d}/chat/completions`, `/openai/v1/chat/completions`
    AzureChat,
    /// Mistral's chat, below `/mistral`, since its path is OpenAI's.
    Mistral,
    /// OpenAI's `/v1/responses`
    Responses,
    /// The same at Azure.
    AzureResponses,
    /// Anthropic's `/v1/messages`
    Messages,
    /// Anthropic's `/v1/messages/count_tokens`
    CountTokens,
    /// Claude at Vertex: `:rawPredict`, `:streamRawPredict`
    VertexClaude,
    /// Claude at Bedrock: `/model/{id}/invoke`, `/invoke-with-response-stream`
    Invoke,
    /// Gemini's `/v1beta/models/{m}:generateContent`, `:streamGenerateContent`
    Gemini,
    /// The same at Vertex.
    Vertex,
    /// Bedrock's `/model/{id}/converse`, `/converse-stream`
    Converse,
    /// Cohere's `/v2/chat`
    Cohere,
    /// Ollama's `/api/chat`
    Ollama,
    /// Google's `/token`, where a service account gets its access token.
    Token,
    /// Another path: answered by an echo of what came.
    Echo,
}

impl Api {
    /// How it is written.
    pub fn format(self) -> &'static dyn Format {
        match self {
            Api::Chat | Api::Completions | Api::Embeddings | Api::Models | Api::Echo => {
                &openai::PLAIN
            }
            Api::Token => &openai::PLAIN,
            Api::AzureChat => &openai::AZURE,
            Api::Mistral => &mistral::Mistral,
            Api::Responses => &responses::PLAIN,
            Api::AzureResponses => &responses::AZURE,
            Api::Messages | Api::CountTokens => &anthropic::ANTHROPIC,
            Api::VertexClaude => &anthropic::VERTEX,
            Api::Invoke => &bedrock::Invoke,
            Api::Gemini => &gemini::GEMINI,
            Api::Vertex => &gemini::VERTEX,
            Api::Converse => &bedrock::Converse,
            Api::Cohere => &cohere::Cohere,
            Api::Ollama => &ollama::Ollama,
        }
    }

    /// Whether its answer is a conversation's turn, with roles, thoughts and calls.
    pub fn is_turn(self) -> bool {
        match self {
            Api::Completions
            | Api::Embeddings
            | Api::Models
            | Api::CountTokens
            | Api::Token
            | Api::Echo => false,
            Api::Chat
            | Api::AzureChat
            | Api::Mistral
            | Api::Responses
            | Api::AzureResponses
            | Api::Messages
            | Api::VertexClaude
            | Api::Invoke
            | Api::Gemini
            | Api::Vertex
            | Api::Converse
            | Api::Cohere
            | Api::Ollama => true,
        }
    }
}

/// Where a request goes, by its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What is asked for.
    pub api: Api,
    /// The model, where the path names it.
    pub model: Option<String>,
    /// Whether the path asks for a stream.
    pub stream: bool,
}

impl Route {
    /// The route of a path without its query.
    pub fn of(path: &str) -> Route {
        let plain = |api| Route { api, model: None, stream: false };
        match path {
            "/v1/chat/completions" => plain(Api::Chat),
            "/v1/completions" => plain(Api::Completions),
            "/v1/embeddings" => plain(Api::Embeddings),
            "/v1/models" => plain(Api::Models),
            "/v1/responses" => plain(Api::Responses),
            "/v1/messages" => plain(Api::Messages),
            "/v1/messages/count_tokens" => plain(Api::CountTokens),
            "/v2/chat" => plain(Api::Cohere),
            "/api/chat" => plain(Api::Ollama),
            "/token" => plain(Api::Token),
            "/mistral/v1/chat/completions" => plain(Api::Mistral),
            "/openai/v1/chat/completions" | "/models/chat/completions" => plain(Api::AzureChat),
            "/openai/v1/responses" => plain(Api::AzureResponses),
            _ => Route::with_model(path).unwrap_or_else(|| plain(Api::Echo)),
        }
    }

    /// A path that names its model.
    fn with_model(path: &str) -> Option<Route> {
        let route = |api, model: &str, stream| {
            let model = decoded(model)?;
            Some(Route { api, model: Some(model), stream })
        };
        if let Some(rest) = path.strip_prefix("/openai/deployments/") {
            let (model, rest) = rest.split_once('/')?;
            return route((rest == "chat/completions").then_some(Api::AzureChat)?, model, false);
        }
        if let Some(rest) = path.strip_prefix("/model/") {
            let (model, verb) = rest.rsplit_once('/')?;
            return match verb {
                "converse" => route(Api::Converse, model, false),
                "converse-stream" => route(Api::Converse, model, true),
                "invoke" => route(Api::Invoke, model, false),
                "invoke-with-response-stream" => route(Api::Invoke, model, true),
                _ => None,
            };
        }
        let (above, rest) = path.split_once("/models/")?;
        let (model, verb) = rest.rsplit_once(':')?;
        let google = if above.ends_with("/publishers/google") { Api::Vertex } else { Api::Gemini };
        match verb {
            "generateContent" => route(google, model, false),
            "streamGenerateContent" => route(google, model, true),
            "rawPredict" => route(Api::VertexClaude, model, false),
            "streamRawPredict" => route(Api::VertexClaude, model, true),
            _ => None,
        }
    }
}

/// RFC 3986 section 2.1; `None` for what is no text.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// A request as a format reads it.
pub struct Call<'a> {
    /// The request.
    pub request: &'a Request,
    /// Its route.
    pub route: &'a Route,
    /// Its body; null if it has none.
    pub body: &'a serde_json::Value,
}

/// What went wrong, in no format's words yet.
pub struct Problem<'a> {
    /// 400 to 599.
    pub status: u16,
    /// Which documented object, where the status alone does not say.
    pub named: Named,
    /// What to say; `None`: the usual words, which name the provider.
    pub message: Option<&'a str>,
    /// The parameter at fault.
    pub param: Option<&'a str>,
    /// The provider's name.
    pub name: &'a str,
}

impl Problem<'_> {
    /// What is said: `usual` and who says it, unless there is more to tell.
    fn text(&self, usual: &str) -> String {
        match self.message {
            Some(message) => message.to_owned(),
            None => format!("{usual} (sandbox {})", self.name),
        }
    }

    /// The answer that holds `body`.
    fn answer(&self, body: &serde_json::Value) -> Refused {
        Refused { status: self.status, fields: String::new(), body: body.to_string() }
    }
}

/// An error answer: header lines, and its body.
pub struct Refused {
    /// The status, which is not the problem's where the vendor has another one for it.
    pub status: u16,
    /// Header lines, each with its CR LF.
    pub fields: String,
    /// JSON.
    pub body: String,
}

/// How a provider API is written.
pub trait Format: Sync {
    /// How its events are framed.
    fn wire(&self) -> Wire;

    /// The header that tells a request's number.
    fn id_field(&self) -> &'static str {
        "x-request-id"
    }

    /// Reads what the answer depends on into `ask`, and checks the request as the vendor does.
    ///
    /// # Errors
    /// What the vendor refuses, with its status.
    fn read(&self, call: &Call<'_>, ask: &mut Ask) -> Result<(), Refusal>;

    /// The events of one piece of a streamed answer.
    fn tell(&self, answer: &Answer, piece: Piece, out: &mut Events);

    /// The whole answer, not streamed.
    fn whole(&self, answer: &Answer) -> String;

    /// An error in the middle of a stream.
    fn fail(&self, answer: &Answer, out: &mut Events);

    /// An error answer.
    fn refuse(&self, problem: &Problem<'_>) -> Refused;

    /// What keeps a silent stream alive; `false` if the format has nothing for that.
    fn ping(&self, out: &mut Events) -> bool {
        out.comment();
        true
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its name, or nothing.
    pub name: &'static str,
    /// Its payload.
    pub data: String,
    /// It is an exception, where the framing tells those from events.
    pub exception: bool,
}

/// The events of a stream, as they are made.
#[derive(Default)]
pub struct Events {
    /// Those of the current piece.
    pub list: Vec<Event>,
    /// How many there were in this stream, for formats that number them.
    pub count: u64,
}

impl Events {
    /// An event without a name.
    pub fn data(&mut self, data: impl ToString) {
        self.named("", data);
    }

    /// An event with a name.
    pub fn named(&mut self, name: &'static str, data: impl ToString) {
        self.list.push(Event { name, data: data.to_string(), exception: false });
        self.count += 1;
    }

    /// An exception.
    pub fn exception(&mut self, name: &'static str, data: impl ToString) {
        self.list.push(Event { name, data: data.to_string(), exception: true });
        self.count += 1;
    }

    /// A comment; only server-sent events have any.
    pub fn comment(&mut self) {
        self.list.push(Event { name: ":", data: String::new(), exception: false });
    }
}

/// How events lie on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// Server-sent events.
    Sse,
    /// The same with CR LF ends.
    SseCrlf,
    /// A line for each.
    Lines,
    /// AWS's binary messages.
    Messages,
}

impl Wire {
    /// The content type of a stream.
    pub fn content_type(self) -> &'static str {
        match self {
            Wire::Sse | Wire::SseCrlf => "text/event-stream",
            Wire::Lines => "application/x-ndjson",
            Wire::Messages => "application/vnd.amazon.eventstream",
        }
    }

    /// Appends one event; `sound` false breaks a checksum, if there is one.
    pub fn put(self, event: &Event, crlf: bool, sound: bool, out: &mut Buf) {
        match self {
            Wire::Sse | Wire::SseCrlf => {
                let end: &[u8] = if crlf || self == Wire::SseCrlf { b"\r\n" } else { b"\n" };
                if event.name == ":" {
                    out.extend(b": ping");
                } else {
                    if !event.name.is_empty() {
                        out.extend(b"event: ");
                        out.extend(event.name.as_bytes());
                        out.extend(end);
                    }
                    out.extend(b"data: ");
                    out.extend(event.data.as_bytes());
                }
                out.extend(end);
                out.extend(end);
            }
            Wire::Lines => {
                out.extend(event.data.as_bytes());
                out.extend(b"\n");
            }
            Wire::Messages => bedrock::put_message(event, sound, out),
        }
    }
}

/// The seal of a thought or of a call: a signature that any sandbox provider can check.
pub fn seal(text: &str) -> String {
    use sha2::Digest as _;
    super::answer::base64(format!("sandbox:{:x}", sha2::Sha256::digest(text)).as_bytes())
}

/// Whether `signature` is another text's seal. Signatures of others pass.
fn is_forged(signature: &str, text: &str) -> bool {
    signature.starts_with(SEAL) && signature != seal(text)
}

/// Base64 of `sandbox:`, as far as it stands alone.
const SEAL: &str = "c2FuZGJveD";

#[cfg(test)]
mod tests;
