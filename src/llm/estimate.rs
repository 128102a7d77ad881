//! How many tokens a prompt comes to, for providers that can't be asked. Every vendor cuts text in its own
//! way, so this is a guess by the kinds of characters: words by their length, digits by threes, marks one
//! by one, letters of other scripts by what they usually cost.
//!
//! Checked against the counts of recorded requests (`tests/recorded/messages.rs`): nine of ten are told with
//! an error under a third of the count, and, where there are tools, up to five hundred tokens more, for
//! vendors put words of their own before them. Media are told by a figure of their own, and their error has
//! no bound.

use serde_json::Value;

use crate::llm::prompt::{Format, Part, Prompt, Source};

/// Tokens of a prompt.
pub fn tokens(prompt: &Prompt) -> u64 {
    let mut sum = parts(&prompt.system);
    for turn in &prompt.turns {
        sum += PER_TURN + parts(&turn.parts);
    }
    for tool in &prompt.tools {
        sum += PER_TOOL + text(&tool.name) + tool.description.as_deref().map_or(0, text);
        sum += tool.schema.as_ref().map_or(0, schema);
    }
    if !prompt.tools.is_empty() {
        sum += PREAMBLE;
    }
    if let Some(Format::Schema { schema, .. }) = &prompt.format {
        sum += value(schema);
    }
    sum
}

fn parts(parts: &[Part]) -> u64 {
    parts.iter().map(part).sum()
}

fn part(part: &Part) -> u64 {
    match part {
        Part::Text { text: said, .. } => text(said),
        Part::Media(media) => match (&media.source, media.plain()) {
            (_, Some(said)) => text(&said),
            (Source::Data(data), None) if media.mime == "application/pdf" => {
                (data.len() as u64 / PDF_BYTES).max(1) * PER_PAGE
            }
            (_, None) if media.mime == "application/pdf" => PER_PAGE,
            _ => PER_IMAGE,
        },
        // Thoughts of earlier turns are mostly left out upstream.
        Part::Thought { .. } | Part::Redacted { .. } => 0,
        Part::Call { name, input, .. } => PER_TURN + text(name) + value(input),
        Part::Result { parts, .. } => PER_TURN + self::parts(parts),
    }
}

/// JSON costs about what its text does.
fn value(value: &Value) -> u64 {
    text(&value.to_string())
}

/// Vendors tell a schema in fewer words than its own: what it names, and what it says of that.
fn schema(of: &Value) -> u64 {
    match of {
        Value::String(said) => text(said),
        Value::Array(items) => items.iter().map(schema).sum(),
        Value::Object(members) => {
            let properties = members.get("properties").and_then(Value::as_object);
            let named = properties.into_iter().flatten().map(|(name, _)| PER_PROPERTY + text(name));
            named.sum::<u64>() + members.values().map(schema).sum::<u64>()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// Tokens of a text.
fn text(text: &str) -> u64 {
    let mut sum = 0;
    let mut run = Run::default();
    for character in text.chars() {
        let kind = Kind::of(character);
        if kind != run.kind {
            sum += run.tokens();
            run = Run { kind, length: 0 };
        }
        run.length += 1;
    }
    sum + run.tokens()
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Kind {
    #[default]
    Blank,
    Letter,
    Digit,
    /// A letter beyond ASCII of a script that has words.
    Accent,
    Mark,
    /// Ideographs, syllables, pictures.
    Sign,
}

impl Kind {
    fn of(character: char) -> Kind {
        match character {
            'a'..='z' | 'A'..='Z' => Kind::Letter,
            '0'..='9' => Kind::Digit,
            ' ' | '\n' | '\t' | '\r' => Kind::Blank,
            '\0'..='\u{7f}' => Kind::Mark,
            '\u{80}'..='\u{10ff}' => Kind::Accent,
            _ => Kind::Sign,
        }
    }
}

/// Neighbours of one kind.
#[derive(Default)]
struct Run {
    kind: Kind,
    length: u64,
}

impl Run {
    fn tokens(&self) -> u64 {
        match self.kind {
            // One blank goes with the word after it.
            Kind::Blank => u64::from(self.length > 1),
            Kind::Letter => self.length.div_ceil(7),
            Kind::Digit => self.length.div_ceil(3),
            Kind::Accent => self.length.div_ceil(2),
            Kind::Mark => self.length.div_ceil(2),
            Kind::Sign => self.length,
        }
    }
}

/// What surrounds a turn, a call or a result.
const PER_TURN: u64 = 4;
/// What surrounds a tool, and a name in its schema.
const PER_TOOL: u64 = 8;
const PER_PROPERTY: u64 = 3;
/// What vendors say to the model of tools in general: from nothing to some six hundred tokens.
const PREAMBLE: u64 = 150;
/// The most that an image costs at Anthropic.
const PER_IMAGE: u64 = 1_600;
/// A page of a document, told as text and as a picture.
const PER_PAGE: u64 = 2_500;
/// A page of a document in base64.
const PDF_BYTES: u64 = 100_000;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::llm::dialects::messages_prompt;

    fn of(messages: Value) -> u64 {
        tokens(&messages_prompt::read(&json!({ "max_tokens": 1, "messages": messages })).unwrap())
    }

    #[test]
    fn text_is_counted_by_its_kinds() {
        for (said, count) in [
            ("", 0),
            ("hello world", 2),
            ("internationalisation", 3),
            ("1234", 2),
            ("f(x);", 4),
            ("za\u{17c}\u{f3}\u{142}\u{107}", 3),
            ("\u{6f22}\u{5b57}", 2),
            ("a\n\nb", 3),
        ] {
            assert_eq!(text(said), count, "{said}");
        }
    }

    #[test]
    fn everything_that_is_said_is_counted() {
        let plain = of(json!([{ "role": "user", "content": "hello world" }]));
        assert_eq!(plain, PER_TURN + 2);
        let call = json!([{ "role": "assistant", "content": [
            { "type": "tool_use", "id": "t", "name": "f", "input": { "x": 1 } } ] },
            { "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "t", "content": "hello" }] }]);
        assert!(of(call) > 4 * PER_TURN);
        let image = json!({ "type": "image", "source": { "type": "url", "url": "https://x" } });
        assert_eq!(of(json!([{ "role": "user", "content": [image] }])), PER_TURN + PER_IMAGE);
    }
}
