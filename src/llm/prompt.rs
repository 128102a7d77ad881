//! A request as what it means: who said what, with which tools, under which parameters. A dialect reads
//! the client's body into it, an adapter writes its provider's body from it, and neither knows the other.
//!
//! Requests are read once and are not on the per-event path, so this is a tree of owned values.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Map, Value};

/// A whole request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Prompt {
    /// System and developer texts, in order, wherever they stood.
    pub system: Vec<Part>,
    /// The conversation.
    pub turns: Vec<Turn>,
    /// Tools that the model may call.
    pub tools: Vec<Tool>,
    /// Which of them it must call.
    pub choice: Option<Choice>,
    /// `false`: one call at a time.
    pub parallel: Option<bool>,
    /// What the answer must look like.
    pub format: Option<Format>,
    /// Tokens of the answer at most.
    pub max_tokens: Option<u64>,
    /// Strings that end the answer.
    pub stop: Vec<String>,
    /// How much the model shall think.
    pub effort: Option<String>,
    /// Tokens that it may think at most.
    pub budget: Option<u64>,
    /// Parameters by OpenAI's name that adapters may know: temperature, top_p, seed and the like.
    pub params: Map<String, Value>,
    /// The client's name for its user.
    pub user: Option<String>,
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The person, and what tools said.
    User,
    /// The model.
    Assistant,
}

/// One turn: neighbours of one role are one turn.
#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    /// Who.
    pub role: Role,
    /// What, in order.
    pub parts: Vec<Part>,
}

/// A piece of a turn.
#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    /// Text. `cache` is `cache_control` as it came.
    Text {
        /// The text.
        text: String,
        /// Anthropic's cache marker, if the client sent one.
        cache: Option<Value>,
    },
    /// An image, sound or document.
    Media(Media),
    /// The model's reasoning, with its signature if it has one.
    Thought {
        /// The text.
        text: String,
        /// The provider's proof that it said so.
        signature: Option<Signature>,
    },
    /// A thought that Anthropic hides: bytes that only it can read.
    Redacted {
        /// The bytes, as they came.
        data: String,
    },
    /// The model calls a tool.
    Call {
        /// Its id.
        id: String,
        /// The tool.
        name: String,
        /// An object.
        input: Value,
        /// The provider's proof that it said so.
        signature: Option<Signature>,
    },
    /// What a tool said.
    Result {
        /// The call's id.
        id: String,
        /// The tool, if the call is in the conversation.
        name: String,
        /// Text and media.
        parts: Vec<Part>,
        /// It failed.
        is_error: bool,
    },
}

/// Whose signatures these are: only the family that signed can read them, and a provider of another one
/// refuses the request that has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Claude, wherever it is served: the signature of a thinking block.
    Anthropic,
    /// Gemini: a thought signature, of a part.
    Gemini,
    /// OpenAI's Responses: a reasoning item's id and encrypted content.
    Openai,
}

impl Family {
    /// What stands before a signature where a dialect has only a place for those of `own`.
    pub const fn tag_in(self, own: Family) -> &'static str {
        match (self, own) {
            (Family::Anthropic, Family::Anthropic)
            | (Family::Gemini, Family::Gemini)
            | (Family::Openai, Family::Openai) => "",
            (Family::Anthropic, _) => "firstbyte:anthropic:",
            (Family::Gemini, _) => "firstbyte:gemini:",
            (Family::Openai, _) => "firstbyte:openai:",
        }
    }
}

/// A provider's proof that the model said something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Who can read it.
    pub family: Family,
    /// The proof, without a tag.
    pub text: String,
}

impl Signature {
    /// Reads what a client gives back in a place for signatures of `own`.
    pub fn read(text: &str, own: Family) -> Signature {
        for family in [Family::Anthropic, Family::Gemini, Family::Openai] {
            let tag = family.tag_in(own);
            if let Some(text) = text.strip_prefix(tag).filter(|_| !tag.is_empty()) {
                return Signature { family, text: text.to_owned() };
            }
        }
        Signature { family: own, text: text.to_owned() }
    }

    /// The proof, if it is one of `family`.
    pub fn of(&self, family: Family) -> Option<&str> {
        (self.family == family).then_some(self.text.as_str())
    }
}

/// Where media come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Source {
    /// An address that the provider fetches.
    Url(String),
    /// Base64.
    Data(String),
    /// The provider's own file.
    File(String),
}

/// An image, sound or document.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Media {
    /// `image/png`, `application/pdf`, `audio/wav`; may be empty for an address.
    pub mime: String,
    /// Where it comes from.
    pub source: Source,
    /// A document's name.
    pub name: Option<String>,
    /// What the client says about a document, beside it.
    pub context: Option<String>,
    /// The answer shall cite the document.
    pub citations: bool,
    /// Anthropic's cache marker, if the client sent one.
    pub cache: Option<Value>,
}

impl Default for Source {
    fn default() -> Source {
        Source::Data(String::new())
    }
}

impl Media {
    /// The text of a document that is nothing but text.
    pub fn plain(&self) -> Option<String> {
        let Source::Data(data) = &self.source else { return None };
        if !self.mime.starts_with("text/") {
            return None;
        }
        String::from_utf8(BASE64_STANDARD.decode(data).ok()?).ok()
    }
}

/// A tool.
#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// What it does.
    pub description: Option<String>,
    /// JSON Schema of its arguments.
    pub schema: Option<Value>,
    /// The schema holds to the letter.
    pub strict: Option<bool>,
    /// Anthropic's cache marker, if the client sent one.
    pub cache: Option<Value>,
}

/// Which tool must be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// As the model likes.
    Auto,
    /// None.
    None,
    /// At least one.
    Any,
    /// This one.
    Named(String),
}

/// What the answer must look like.
#[derive(Clone, Debug, PartialEq)]
pub enum Format {
    /// Any JSON object.
    Json,
    /// JSON of this schema.
    Schema {
        /// Its name.
        name: String,
        /// The schema.
        schema: Value,
        /// It holds to the letter.
        strict: Option<bool>,
    },
}

/// A request that can't be read as one of its dialect: where, and what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// The place, as `messages[2].content`.
    pub at: String,
    /// What was expected there.
    pub expected: &'static str,
}

impl Prompt {
    /// Adds to the turn of `role`, or begins one.
    pub fn say(&mut self, role: Role, parts: Vec<Part>) {
        if parts.is_empty() {
            return;
        }
        match self.turns.last_mut() {
            Some(turn) if turn.role == role => turn.parts.extend(parts),
            _ => self.turns.push(Turn { role, parts }),
        }
    }

    /// The name of the tool that call `id` was for.
    pub fn called(&self, id: &str) -> Option<&str> {
        self.turns.iter().rev().flat_map(|turn| &turn.parts).find_map(|part| match part {
            Part::Call { id: known, name, .. } if known == id => Some(name.as_str()),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signatures_find_their_family_again() {
        let all = [Family::Anthropic, Family::Gemini, Family::Openai];
        for (family, own) in all.iter().flat_map(|a| all.map(|b| (*a, b))) {
            let told = format!("{}proof", family.tag_in(own));
            assert_eq!(told == "proof", family == own);
            let read = Signature::read(&told, own);
            assert_eq!(read, Signature { family, text: "proof".into() });
            for other in all {
                assert_eq!(read.of(other).is_some(), other == family);
            }
        }
    }
}
