//! The providers: one file each, and the one list that registers them. The list makes the enum, the
//! name table and the dispatch: one `match` per call, no boxes.

use crate::base::buf::Buf;
use crate::base::fail::{Failure, Fault};
use crate::base::tick::UnixMs;
use crate::llm::dialects::Dialect;
use crate::llm::errors::said_of_body;
use crate::llm::event::{Mark, Usage};
use crate::llm::provider::{Framing, Named, Provider, Refusal, Said, Site};
use crate::llm::request::Ask;
use crate::llm::sink::Sink;

pub mod anthropic;
pub mod bedrock;
pub mod bedrock_invoke;
pub mod cohere;
pub mod cohere_v1;
pub mod gemini;
pub mod mistral;
pub mod ollama;
pub mod openai;
pub mod responses;
pub mod tgi_generate;
pub mod vertex;

use self::openai::vendors::VendorId;
use crate::llm::quirks::Fates;

macro_rules! providers {
    ($($kind:ident => $adapter:ty,)*) => {
        /// Which API a provider speaks.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Kind {
            $(#[allow(missing_docs, reason = "the adapter's module says it")] $kind,)*
            /// OpenAI's, as one of the vendors has it that copy it.
            Like(VendorId),
        }

        /// The kinds that have an adapter of their own.
        const OWN: &[Kind] = &[$(Kind::$kind,)*];

        impl Kind {
            /// The name in the config.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Kind::$kind => <$adapter as Provider>::NAME,)*
                    Kind::Like(vendor) => vendor.row().name,
                }
            }

            /// The names that a config may use, for errors and help.
            pub fn names() -> impl Iterator<Item = &'static str> {
                Kind::NAMES.iter().filter(|(_, kind)| kind.sends()).map(|(name, _)| *name)
            }

            /// See [`Provider::SENDS`].
            pub const fn sends(self) -> bool {
                match self {
                    $(Kind::$kind => <$adapter as Provider>::SENDS,)*
                    Kind::Like(_) => true,
                }
            }

            /// The base URL of the vendor itself, where a provider of the config names none; may be empty.
            pub const fn base_url(self) -> &'static str {
                match self {
                    $(Kind::$kind => <$adapter as Provider>::BASE_URL,)*
                    Kind::Like(vendor) => vendor.row().base_url,
                }
            }

            /// See [`Provider::SIGNS`].
            pub const fn signs(self) -> bool {
                match self {
                    $(Kind::$kind => <$adapter as Provider>::SIGNS,)*
                    Kind::Like(_) => false,
                }
            }

            /// The variable that usually holds the vendor's key; empty if it usually wants none.
            pub const fn key_variable(self) -> &'static str {
                match self {
                    $(Kind::$kind => <$adapter as Provider>::KEY_VARIABLE,)*
                    Kind::Like(vendor) => vendor.row().key_variable,
                }
            }
        }

        impl Kind {
            /// See [`Provider::judge`].
            pub fn judge(self, body: &[u8], model: &str) -> Option<Fates> {
                match self {
                    $(Kind::$kind => <$adapter as Provider>::judge(body, model),)*
                    Kind::Like(vendor) => Some(vendor.row().judge(body, model)),
                }
            }
        }

        /// The state of one attempt's answer.
        #[derive(Default)]
        pub enum Stream {
            /// Before the attempt has a provider.
            #[default]
            Idle,
            $(#[allow(missing_docs, reason = "as above")] $kind(Box<$adapter>),)*
        }

        impl Stream {
            /// The state at the start of an answer.
            pub fn new(kind: Kind) -> Stream {
                match kind {
                    $(Kind::$kind => Stream::$kind(Box::default()),)*
                    Kind::Like(vendor) => Stream::Openai(Box::new(openai::Openai::of(vendor.row()))),
                }
            }

            /// See [`Provider::send`].
            ///
            /// # Errors
            /// As there.
            pub fn send(
                &self, ask: &Ask, body: &[u8], site: &Site<'_>, wall: UnixMs, out: &mut Buf,
            ) -> Result<(), Fault> {
                match self {
                    Stream::Idle => Err(Fault::Unsendable),
                    // No config has such a kind: this is `translate`, whose answer is at hand.
                    $(Stream::$kind(_) if !<$adapter as Provider>::SENDS => Ok(()),)*
                    $(Stream::$kind(adapter) => adapter.send_as(ask, body, site, wall, out),)*
                }
            }

            /// See [`Provider::feed`].
            ///
            /// # Errors
            /// As there.
            pub fn feed(&mut self, payload: &[u8], sink: &mut Sink<'_>) -> Result<Mark, Fault> {
                match self {
                    Stream::Idle => Err(Fault::BadFrame),
                    $(Stream::$kind(adapter) => adapter.feed(payload, sink),)*
                }
            }

            /// See [`Provider::feed_named`].
            ///
            /// # Errors
            /// As there.
            pub fn feed_named(
                &mut self, message: &Named<'_>, sink: &mut Sink<'_>,
            ) -> Result<Mark, Fault> {
                match self {
                    Stream::Idle => Err(Fault::BadFrame),
                    $(Stream::$kind(adapter) => adapter.feed_named(message, sink),)*
                }
            }

            /// See [`Provider::close`].
            ///
            /// # Errors
            /// As there.
            pub fn close(&mut self, include_usage: bool, sink: &mut Sink<'_>) -> Result<(), Fault> {
                match self {
                    Stream::Idle => Err(Fault::Truncated),
                    $(Stream::$kind(adapter) => adapter.close(include_usage, sink),)*
                }
            }

            /// See [`Provider::is_finished`].
            pub fn is_finished(&self) -> bool {
                match self {
                    Stream::Idle => false,
                    $(Stream::$kind(adapter) => adapter.is_finished(),)*
                }
            }

            /// See [`Provider::whole`].
            ///
            /// # Errors
            /// As there.
            pub fn whole(&mut self, body: &[u8], sink: &mut Sink<'_>) -> Result<(), Fault> {
                match self {
                    Stream::Idle => Err(Fault::BadFrame),
                    $(Stream::$kind(adapter) => adapter.whole(body, sink),)*
                }
            }

            /// See [`Provider::speaks`].
            pub fn speaks(&self, dialect: Dialect) -> bool {
                match self {
                    Stream::Idle => false,
                    $(Stream::$kind(adapter) => adapter.speaks(dialect),)*
                }
            }

            /// See [`Provider::has_answered`].
            pub fn has_answered(&self) -> bool {
                match self {
                    Stream::Idle => false,
                    $(Stream::$kind(adapter) => adapter.has_answered(),)*
                }
            }

            /// See [`Provider::FRAMING`].
            pub fn framing(&self) -> Framing {
                match self {
                    Stream::Idle => Framing::Sse,
                    $(Stream::$kind(_) => <$adapter>::FRAMING,)*
                }
            }

            /// See [`Provider::usage`].
            pub fn usage(&self) -> Option<Usage> {
                match self {
                    Stream::Idle => None,
                    $(Stream::$kind(adapter) => adapter.usage(),)*
                }
            }

            /// See [`Provider::said`].
            pub fn said(&mut self) -> Option<Said> {
                match self {
                    Stream::Idle => None,
                    $(Stream::$kind(adapter) => adapter.said(),)*
                }
            }

            /// See [`Provider::keep_said`].
            pub fn keep_said(&mut self, said: Option<Said>) {
                match self {
                    Stream::Idle => {}
                    $(Stream::$kind(adapter) => adapter.keep_said(said),)*
                }
            }

            /// The payload of an event that the provider itself calls an error: keeps what it says
            /// for `said`.
            pub fn called_error(&mut self, payload: &[u8]) -> Fault {
                match self {
                    Stream::Idle => {}
                    $(Stream::$kind(adapter) => adapter.keep_said(said_of_body(payload)),)*
                }
                Fault::ErrorEvent
            }

            /// Names an error response, and keeps what was said for `said`.
            pub fn refused(&mut self, refusal: &Refusal<'_>) -> Failure {
                match self {
                    Stream::Idle => Failure::status(Fault::BadStatus, refusal.status),
                    $(Stream::$kind(adapter) => {
                        let refused = <$adapter>::refuse(refusal);
                        adapter.keep_said(refused.said);
                        refused.failure
                    })*
                }
            }

            /// A line of the stream that is no field: fine, unless an error hides in it.
            ///
            /// # Errors
            /// `ErrorEvent`.
            pub fn stray(&mut self, line: &[u8], sink: &mut Sink<'_>) -> Result<Mark, Fault> {
                match self {
                    Stream::Idle => Ok(Mark::Idle),
                    $(Stream::$kind(adapter) => adapter.stray(line, sink),)*
                }
            }
        }
    };
}

providers! {
    Openai => openai::Openai,
    Anthropic => anthropic::Anthropic,
    Gemini => gemini::Gemini,
    Vertex => vertex::Vertex,
    Cohere => cohere::Cohere,
    Ollama => ollama::Ollama,
    Mistral => mistral::Mistral,
    Bedrock => bedrock::Bedrock,
    BedrockInvoke => bedrock_invoke::BedrockInvoke,
    Responses => responses::Responses,
    CohereV1 => cohere_v1::CohereV1,
    TgiGenerate => tgi_generate::TgiGenerate,
}

const KINDS: usize = OWN.len() + VendorId::COUNT;

/// The adapters first, then the vendors.
const ALL: [(&str, Kind); KINDS] = {
    let mut all = [("", Kind::Openai); KINDS];
    let mut index = 0;
    while index < KINDS {
        let kind = if index < OWN.len() {
            OWN[index]
        } else {
            Kind::Like(VendorId::at(index - OWN.len()))
        };
        all[index] = (kind.name(), kind);
        index += 1;
    }
    all
};

impl Kind {
    /// Every kind of this build with its name in the config.
    pub const NAMES: &'static [(&'static str, Kind)] = &ALL;
    /// Azure, whose address and key field differ.
    pub const AZURE: Kind = Kind::Like(VendorId::AZURE);

    /// Whether a provider of this kind may have OpenAI's Responses API beside chat, at the same base URL
    /// and with the same key.
    pub fn may_have_responses(self) -> bool {
        matches!(self, Kind::Openai | Kind::Like(_)) && self != Kind::AZURE
    }
}
