//! What a sandbox provider's answer says, whatever the format: a text that names the provider, so that
//! whoever sees a byte knows whose it is. Pure.
//!
//! A streamed answer is a *program*: a row of sections, whose k-th piece is computed when it is due.
//!
//! ```text
//! role * n | reasoning * n | text or tools * n | finish * n | usage | done
//! ```

use super::ask::Ask;
use super::script::Script;

/// One answer: what it is made from.
#[derive(Clone)]
pub struct Answer {
    /// The provider's name: `a`, `b`, ...
    pub name: String,
    /// `sandbox-b-17`
    pub id: String,
    /// Seconds since the Unix epoch.
    pub created: u64,
    /// What was asked.
    pub ask: Ask,
    /// What it is told to do.
    pub script: Script,
    /// Every word is that long, for one event that is too large.
    pub stretch: Option<usize>,
}

/// One piece of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(
    missing_docs,
    reason = "each field is a number from 0: of the choice, of the piece of its kind"
)]
pub enum Piece {
    /// The answer begins.
    Role { choice: u32 },
    /// A thought.
    Reason { choice: u32, k: u32 },
    /// A word of the text.
    Text { choice: u32, k: u32 },
    /// A part of a tool call: its name, then three fragments of its arguments.
    Tool { choice: u32, call: u32, part: u32 },
    /// Why it ends.
    Finish { choice: u32 },
    /// What it cost, if it was asked for.
    Usage,
    /// The terminal signal.
    Done,
}

/// Fragments of one tool call: its name, then three of its arguments.
pub const TOOL_PARTS: u32 = 4;

/// The text that provider `name` answers with in `tokens` content events.
pub fn text(name: &str, tokens: u32) -> String {
    (0..tokens).map(|k| token(name, k)).collect()
}

/// How many pieces a part of a stream has, and what each is, by its number and the number of choices.
type Section = (u32, fn(u32, u32) -> Piece);

fn token(name: &str, k: u32) -> String {
    if k == 0 { format!("Hello from sandbox {name}.") } else { format!(" token-{k}") }
}

impl Answer {
    /// How many pieces the program has.
    pub fn pieces(&self) -> u32 {
        self.sections().iter().map(|(count, _)| count).sum()
    }

    /// Piece `k` of the program, counted from 0; `None` past its end.
    pub fn piece(&self, mut k: u32) -> Option<Piece> {
        for (count, piece) in self.sections() {
            if k < count {
                return Some(piece(k, self.ask.n));
            }
            k -= count;
        }
        None
    }

    fn sections(&self) -> [Section; 6] {
        let n = self.ask.n;
        let turn = self.ask.api.is_turn();
        let ends = !self.script.no_finish;
        let tools = self.tool_calls();
        let middle: Section = if tools > 0 {
            (tools * TOOL_PARTS * n, |k, n| Piece::Tool {
                choice: k % n,
                call: k / n / TOOL_PARTS,
                part: k / n % TOOL_PARTS,
            })
        } else {
            (self.words() * n, |k, n| Piece::Text { choice: k % n, k: k / n })
        };
        [
            (if turn { n } else { 0 }, |k, _| Piece::Role { choice: k }),
            (self.thinks() * n, |k, n| Piece::Reason { choice: k % n, k: k / n }),
            middle,
            (if ends { n } else { 0 }, |k, _| Piece::Finish { choice: k }),
            (u32::from(ends && self.ask.usage), |_, _| Piece::Usage),
            (u32::from(ends && !self.script.no_done), |_, _| Piece::Done),
        ]
    }

    /// How many tool calls it makes: as the script says, if the request has tools.
    pub fn tool_calls(&self) -> u32 {
        let asked = self.ask.api.is_turn() && !self.ask.tools.is_empty();
        if asked { self.script.tools } else { 0 }
    }

    /// How many thoughts there are before the text.
    pub fn thinks(&self) -> u32 {
        if self.ask.api.is_turn() { self.script.reasoning } else { 0 }
    }

    /// Thought `k`.
    pub fn thought(&self, k: u32) -> String {
        format!("thought-{k} ")
    }

    /// All of them.
    pub fn thoughts(&self) -> String {
        (0..self.thinks()).map(|k| self.thought(k)).collect()
    }

    /// How many words the text has.
    pub fn words(&self) -> u32 {
        match &self.script.text {
            Some(text) => text.split_inclusive(' ').count() as u32,
            None => self.script.tokens,
        }
    }

    /// Word `k` of the text.
    pub fn word(&self, k: u32) -> String {
        match (&self.script.text, self.stretch) {
            (_, Some(bytes)) => "x".repeat(bytes),
            (Some(text), None) => {
                text.split_inclusive(' ').nth(k as usize).unwrap_or_default().to_owned()
            }
            (None, None) => token(&self.name, k),
        }
    }

    /// Whether word `k` is the last one.
    pub fn is_last_word(&self, k: u32) -> bool {
        k + 1 == self.words()
    }

    /// The text of a whole answer.
    pub fn content(&self) -> String {
        let mut text = match &self.script.text {
            Some(text) => text.clone(),
            None => text(&self.name, self.script.tokens),
        };
        if let Some(bytes) = self.script.big {
            text.extend(std::iter::repeat_n('x', bytes.saturating_sub(text.len())));
        }
        text
    }

    /// Why it ends, in the words of OpenAI's chat.
    pub fn finish(&self) -> &str {
        let usual = if self.tool_calls() > 0 { "tool_calls" } else { "stop" };
        self.script.finish.as_deref().unwrap_or(usual)
    }

    /// What the prompt costs.
    pub fn prompt_tokens(&self) -> u64 {
        self.ask.prompt_tokens
    }

    /// What the answer costs, thoughts included.
    pub fn completion_tokens(&self) -> u64 {
        u64::from(self.words()) * u64::from(self.ask.n) + self.reasoning_tokens()
    }

    /// What the thoughts cost.
    pub fn reasoning_tokens(&self) -> u64 {
        u64::from(self.script.reasoning)
    }

    /// The name of tool call `call`.
    pub fn tool_name(&self, call: u32) -> &str {
        let tools = &self.ask.tools;
        tools.get(call as usize % tools.len().max(1)).map_or("tool", String::as_str)
    }

    /// The id of tool call `call`.
    pub fn tool_id(&self, choice: u32, call: u32) -> String {
        format!("call_{}_{choice}_{call}", self.name)
    }

    /// The arguments of tool call `call`, in the fragments of a stream.
    pub fn tool_arguments(&self, call: u32) -> [String; 3] {
        [r#"{"from":"#.into(), format!(r#""sandbox {}","call":"#, self.name), format!("{call}}}")]
    }

    /// The same as a value.
    pub fn tool_input(&self, call: u32) -> serde_json::Value {
        serde_json::json!({ "from": format!("sandbox {}", self.name), "call": call })
    }
}

/// RFC 4648 section 4, with padding.
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let word = group.iter().fold(0_u32, |word, &byte| word << 8 | u32::from(byte))
            << (8 * (3 - group.len()));
        for digit in 0..4 {
            if digit <= group.len() {
                out.push(char::from(DIGITS[(word >> (18 - 6 * digit)) as usize & 63]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_as_the_rfc_shows_it() {
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
    }
}
