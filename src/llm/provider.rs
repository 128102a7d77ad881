//! The contract of a provider's adapter. One implementation per file under `providers/`, no boxes, no
//! `async`, no clock.
//!
//! An adapter writes a request for its API (`send`), reads what comes back, event by event (`feed`) or
//! whole (`whole`), says whether the end it came to is a good one (`close`), and names what an error
//! status means (`refuse`). It never decides whether another attempt follows.

use crate::base::buf::Buf;
use crate::base::fail::{Failure, Fault};
use crate::base::secret::{AwsKeys, Secret};
use crate::base::tick::{Ms, UnixMs};
use crate::llm::dialects::Dialect;
use crate::llm::event::{Mark, Usage};
use crate::llm::quirks::Fates;
use crate::llm::request::{Ask, Surface};
use crate::llm::sink::Sink;
use crate::wire::aws_event;

/// Where a request goes: one target's address and credential.
#[derive(Clone, Copy, Default)]
pub struct Site<'a> {
    /// The `Host` field.
    pub authority: &'a str,
    /// The path that the base URL carries, without a trailing slash.
    pub path: &'a str,
    /// The credential, if the provider wants one.
    pub key: Option<&'a Secret>,
    /// What the request is signed with, at providers of the kind that has its requests signed.
    pub aws: Option<&'a AwsKeys>,
    /// How the credential is told.
    pub badge: Badge,
    /// The dated version of the API, where the address says it (Azure's deployments).
    pub api_version: Option<&'a str>,
    /// The model, in the provider's words.
    pub model: &'a str,
}

/// How a credential is told, for adapters that know several ways.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Badge {
    /// The adapter's own.
    #[default]
    Usual,
    /// Azure's: `api-key`.
    ApiKey,
    /// `authorization: Bearer`, with an access token that was fetched.
    Token,
}

/// Whether a model's name can stand in the path of an address as it is, `separators` allowed beside what
/// stands in names: the client may have chosen it, and it must not lead anywhere else.
pub fn is_path_part(model: &str, separators: &[u8]) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~@".contains(&b);
    !model.is_empty()
        && model.bytes().all(|b| plain(b) || separators.contains(&b))
        && !model.split('/').any(|part| matches!(part, "" | "." | ".."))
}

/// What a provider said of an error, bounded; for the client and for the verdict.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Said {
    /// The message, at most `MESSAGE_MAX` bytes.
    pub message: String,
    /// Its code, if it is short and plain.
    pub code: Option<String>,
    /// Its type.
    pub kind: Option<String>,
    /// The parameter at fault.
    pub param: Option<String>,
}

impl Said {
    /// Takes a credential out of what was said: some providers quote what they refuse. One of a few bytes
    /// is no credential, and its letters may stand anywhere. A message may have been cut inside of one, here
    /// or by the provider: its end that is the beginning of one goes too.
    pub fn conceal(&mut self, secret: &Secret) {
        let Ok(secret) = std::str::from_utf8(secret.expose()) else { return };
        if secret.len() < CONCEALED_MIN {
            return;
        }
        if self.message.contains(secret) {
            self.message = self.message.replace(secret, "(the credential)");
        }
        let begun = |text: &String| {
            let lengths = (BEGUN_MIN..secret.len()).rev();
            lengths.into_iter().find(|at| text.as_bytes().ends_with(&secret.as_bytes()[..*at]))
        };
        if let Some(length) = begun(&self.message) {
            // A credential begins with a whole character, and the message ends with one.
            self.message.truncate(self.message.len() - length);
        }
        for part in [&mut self.code, &mut self.kind, &mut self.param] {
            part.take_if(|text| text.contains(secret) || begun(text).is_some());
        }
    }
}

const CONCEALED_MIN: usize = 8;
/// How much of a credential's beginning is as good as nothing: `sk-`.
const BEGUN_MIN: usize = 4;

/// What the gateway calls itself upstream.
pub const USER_AGENT: &str = concat!("firstbyte/", env!("CARGO_PKG_VERSION"));

/// Longest message of a provider that is passed on.
pub const MESSAGE_MAX: usize = 2048;

/// What an error response means.
pub struct Refused {
    /// The fault, with the status and the wait that was asked for.
    pub failure: Failure,
    /// What was said.
    pub said: Option<Said>,
}

/// An error response as it came.
#[derive(Clone, Copy, Debug, Default)]
pub struct Refusal<'a> {
    /// The HTTP status.
    pub status: u16,
    /// From `retry-after-ms` or `retry-after`.
    pub retry_after: Option<Ms>,
    /// The body, possibly cut.
    pub body: &'a [u8],
    /// What `x-amzn-errortype` says; empty without it.
    pub error_type: &'a [u8],
    /// What was asked: on a path that is passed through, a 404 is the client's own.
    pub surface: Surface,
}

/// How a provider frames the events of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Framing {
    /// Server-sent events.
    #[default]
    Sse,
    /// A JSON value a line.
    Lines,
    /// Messages of the AWS event stream.
    AwsEvents,
}

/// A message of the AWS event stream.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// Whether it is an event or an error.
    pub kind: aws_event::Kind,
    /// The event's or the error's name.
    pub name: &'a [u8],
    /// What its headers say of an error that has no payload.
    pub text: &'a [u8],
    /// The payload.
    pub payload: &'a [u8],
}

/// A provider's adapter.
pub trait Provider: Default {
    /// As the config's `kind` has it.
    const NAME: &'static str;

    /// The vendor's own base URL, for a provider of the config that names none. With `{region}` in it, it
    /// is one of many, and the config names the region; empty where each customer has another.
    const BASE_URL: &'static str;

    /// The environment variable that usually holds the vendor's key; a base URL of its own is needed to
    /// use it unasked.
    const KEY_VARIABLE: &'static str;

    /// Whether requests may be signed with keys of AWS instead of carrying a key.
    const SIGNS: bool = false;

    /// Whether requests can be written for it. A kind that can't is read by `translate` alone, and is
    /// no kind of the config.
    const SENDS: bool = true;

    /// Whether its whole answers are in this dialect, so that one which is too large to be held can be
    /// passed on as it comes. One in another format can't be told before its end.
    fn speaks(&self, _dialect: Dialect) -> bool {
        false
    }

    /// How its streams are framed.
    const FRAMING: Framing = Framing::Sse;

    /// How the parameters of a chat client's body fare with a model: the paths, as `messages[].name`, of
    /// those that are not passed as they came. `None`: it has no table, and is asked by what it writes
    /// (`llm/parameters`).
    fn judge(_body: &[u8], _model: &str) -> Option<Fates> {
        None
    }

    /// Writes head and body of the upstream request.
    ///
    /// # Errors
    /// The request can't be put into this provider's format.
    fn send(
        _ask: &Ask,
        _body: &[u8],
        _site: &Site<'_>,
        _wall: UnixMs,
        _out: &mut Buf,
    ) -> Result<(), Fault> {
        Err(Fault::Unsendable)
    }

    /// As [`Provider::send`], for an adapter that serves several vendors and knows which one this is.
    ///
    /// # Errors
    /// As there.
    fn send_as(
        &self,
        ask: &Ask,
        body: &[u8],
        site: &Site<'_>,
        wall: UnixMs,
        out: &mut Buf,
    ) -> Result<(), Fault> {
        Self::send(ask, body, site, wall, out)
    }

    /// Reads the payload of one server-sent event.
    ///
    /// # Errors
    /// `BadFrame` for what does not parse, `ErrorEvent` for an error inside the stream.
    fn feed(&mut self, payload: &[u8], sink: &mut Sink<'_>) -> Result<Mark, Fault>;

    /// Reads one message of an AWS event stream, whose name stands beside its payload.
    ///
    /// # Errors
    /// As [`Provider::feed`]; for a message that is an error, the fault that it names.
    fn feed_named(&mut self, message: &Named<'_>, sink: &mut Sink<'_>) -> Result<Mark, Fault> {
        self.feed(message.payload, sink)
    }

    /// The stream is over: by its terminal signal or because the connection ended. Writes what the
    /// dialect still owes the client.
    ///
    /// # Errors
    /// `Truncated` if the terminal signal was not seen.
    fn close(&mut self, include_usage: bool, sink: &mut Sink<'_>) -> Result<(), Fault>;

    /// Whether every choice that began has ended, so that nothing but trailers can follow.
    fn is_finished(&self) -> bool;

    /// Reads a whole answer.
    ///
    /// # Errors
    /// `BadFrame` for what does not parse, `ErrorEvent` for an error object.
    fn whole(&mut self, body: &[u8], sink: &mut Sink<'_>) -> Result<(), Fault>;

    /// Whether the whole answer that was read held a choice. For adapters that pass an answer on as it
    /// came; the others put the choice together themselves.
    fn has_answered(&self) -> bool {
        true
    }

    /// Names what an error status means.
    fn refuse(refusal: &Refusal<'_>) -> Refused;

    /// Token counts, as far as the provider told them.
    fn usage(&self) -> Option<Usage>;

    /// What was said in an error, once.
    fn said(&mut self) -> Option<Said>;

    /// Keeps what an error response said.
    fn keep_said(&mut self, said: Option<Said>);

    /// Reads a line that is no field of the event stream: errors hide in such lines.
    ///
    /// # Errors
    /// `ErrorEvent`.
    fn stray(&mut self, line: &[u8], sink: &mut Sink<'_>) -> Result<Mark, Fault>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_that_was_cut_is_taken_out() {
        let secret = "sk-\u{e9}123456789";
        let cuts = (0..=secret.len()).filter(|at| secret.is_char_boundary(*at));
        for at in cuts {
            let mut said = Said {
                message: format!("no {}", &secret[..at]),
                code: Some(format!("x{}", &secret[..at])),
                ..Said::default()
            };
            said.conceal(&Secret::new(secret));
            let message = match at {
                0..4 => format!("no {}", &secret[..at]),
                _ if at == secret.len() => String::from("no (the credential)"),
                _ => String::from("no "),
            };
            assert_eq!(said.message, message, "{at}");
            assert_eq!(said.code.is_some(), at < 4, "{at}");
        }
    }

    #[test]
    fn a_credential_is_taken_out_of_what_was_said() {
        let said = |text: &str| Said {
            message: format!("no {text}, and {text} again"),
            code: Some(text.to_owned()),
            kind: Some(String::from("kind")),
            param: Some(format!("x{text}")),
        };
        let mut quoted = said("sk-0123456789");
        quoted.conceal(&Secret::new("sk-0123456789"));
        assert_eq!(quoted.message, "no (the credential), and (the credential) again");
        assert_eq!((quoted.code, quoted.param), (None, None));
        assert_eq!(quoted.kind.as_deref(), Some("kind"));
        for other in ["sk-another-key", "", "a", "no"] {
            let mut kept = said("sk-0123456789");
            kept.conceal(&Secret::new(other));
            assert_eq!(kept, said("sk-0123456789"), "{other}");
        }
    }
}
