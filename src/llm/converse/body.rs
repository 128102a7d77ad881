//! A prompt as a body of Bedrock's Converse operations. Source: the vendor's API reference.
//!
//! The format is one for all models, and what a model adds to it stands in `additionalModelRequestFields`
//! (`params`). What the format, or this model, has no place for is dropped (seed, penalties,
//! log-probabilities, the user's name); what would change the meaning of the answer makes the request
//! unsendable: several choices, addresses of media, files of another vendor.
//!
//! ```text
//!   {"messages":[{"role":"user","content":[{"text":"Hi"},{"image":{"format":"png","source":{..}}}]}],
//!    "system":[{"text":".."},{"cachePoint":{..}}], "inferenceConfig":{"maxTokens":9},
//!    "toolConfig":{"tools":[{"toolSpec":{..}}],"toolChoice":{"auto":{}}}}
//! ```
//!
//! Rules of the format that a client's request need not keep: texts of blanks alone are refused, turns
//! alternate and begin with the user's, results stand first in their turn, tools are defined wherever a
//! turn has used one, ids and names of documents have few letters, and no two documents one name.

use serde_json::{Map, Value, json};

use crate::base::fail::Fault;
use crate::llm::prompt::{Choice, Family, Format, Media, Part, Prompt, Role, Source, Turn};

use super::params::{self, Maker};

/// How an answer that must be JSON of any kind is asked for: the format has no word for it.
const ASK_FOR_JSON: &str = "Answer with one JSON object and nothing else.";

/// Writes the body for `model`.
///
/// # Errors
/// `Unsendable`: the format, or this model, can't say this.
pub fn write(prompt: &Prompt, model: &str) -> Result<Map<String, Value>, Fault> {
    if prompt.params.get("n").and_then(Value::as_u64).is_some_and(|n| n > 1) {
        return Err(Fault::Unsendable);
    }
    let maker = Maker::of(model);
    let mut writer = Writer { maker, model, ids: Vec::new(), documents: Vec::new() };
    let own = params::own(prompt, maker, model)?;
    let mut body = Map::new();
    body.insert("messages".into(), writer.messages(prompt)?);
    let system = writer.system(prompt)?;
    if !system.is_empty() {
        body.insert("system".into(), Value::Array(system));
    }
    if let Some(tools) = writer.tools(prompt, &own) {
        body.insert("toolConfig".into(), tools);
    }
    if let Some(Format::Schema { name, schema, .. }) = &prompt.format {
        if !maker.answers_by_schema() {
            return Err(Fault::Unsendable);
        }
        // The schema is told as text.
        let schema = json!({ "name": name, "schema": schema.to_string() });
        let format = json!({ "type": "json_schema", "structure": { "jsonSchema": schema } });
        body.insert("outputConfig".into(), json!({ "textFormat": format }));
    }
    params::write(prompt, maker, &own, &mut body);
    Ok(body)
}

/// What is known of the conversation while it is written.
struct Writer<'a> {
    maker: Maker,
    model: &'a str,
    /// Ids of calls that the format can't have; each goes by its place.
    ids: Vec<String>,
    /// Names of documents so far.
    documents: Vec<String>,
}

impl Writer<'_> {
    fn system(&mut self, prompt: &Prompt) -> Result<Vec<Value>, Fault> {
        let mut system = Vec::new();
        for part in &prompt.system {
            if !matches!(part, Part::Text { .. }) {
                return Err(Fault::Unsendable);
            }
            self.block(part, &mut system)?;
        }
        if prompt.format == Some(Format::Json) {
            system.push(json!({ "text": ASK_FOR_JSON }));
        }
        Ok(system)
    }

    fn messages(&mut self, prompt: &Prompt) -> Result<Value, Fault> {
        let mut messages: Vec<(Role, Vec<Value>)> = Vec::new();
        for turn in &prompt.turns {
            let content = self.turn(turn)?;
            match messages.last_mut() {
                _ if content.is_empty() => {}
                // The turn between them came to nothing.
                Some((role, before)) if *role == turn.role => before.extend(content),
                _ => messages.push((turn.role, content)),
            }
        }
        if messages.first().is_none_or(|(role, _)| *role != Role::User) {
            return Err(Fault::Unsendable);
        }
        let message = |(role, content): (Role, Vec<Value>)| {
            let role = if role == Role::User { "user" } else { "assistant" };
            json!({ "role": role, "content": content })
        };
        Ok(messages.into_iter().map(message).collect())
    }

    fn turn(&mut self, turn: &Turn) -> Result<Vec<Value>, Fault> {
        let mut blocks = Vec::new();
        let is_result = |part: &&Part| matches!(part, Part::Result { .. });
        let others = turn.parts.iter().filter(|part| !is_result(part));
        for part in turn.parts.iter().filter(is_result).chain(others) {
            self.block(part, &mut blocks)?;
        }
        Ok(blocks)
    }

    fn block(&mut self, part: &Part, out: &mut Vec<Value>) -> Result<(), Fault> {
        match part {
            Part::Text { text, cache } => {
                if !text.trim().is_empty() {
                    out.push(json!({ "text": text }));
                    if cache.is_some() && self.maker.caches() {
                        out.push(cache_point());
                    }
                }
            }
            Part::Media(media) => out.push(self.media(media)?),
            Part::Thought { text, signature } => {
                // Without its own proof the model refuses it.
                let signature = signature.as_ref().and_then(|s| s.of(Family::Anthropic));
                if let Some(signature) = signature.filter(|_| self.maker == Maker::Claude) {
                    let text = json!({ "text": text, "signature": signature });
                    out.push(json!({ "reasoningContent": { "reasoningText": text } }));
                }
            }
            Part::Redacted { data } => {
                if self.maker == Maker::Claude {
                    out.push(json!({ "reasoningContent": { "redactedContent": data } }));
                }
            }
            Part::Call { id, name, input, .. } => {
                let id = self.id(id);
                out.push(json!({ "toolUse": { "toolUseId": id, "name": name, "input": input } }));
            }
            Part::Result { id, parts, is_error, .. } => {
                let mut content = Vec::new();
                for part in parts {
                    self.block(part, &mut content)?;
                }
                // Only turns have them.
                content.retain(|block| block.get("cachePoint").is_none());
                let mut result = json!({ "toolUseId": self.id(id), "content": content });
                if *is_error {
                    result["status"] = json!("error");
                }
                out.push(json!({ "toolResult": result }));
            }
        }
        Ok(())
    }

    /// The id of a call as the format can have it: the client's own, if it is one.
    fn id(&mut self, id: &str) -> String {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"_.:-".contains(&b);
        if (1..=ID_MAX).contains(&id.len()) && id.bytes().all(fits) {
            return id.to_owned();
        }
        let place = self.ids.iter().position(|known| known == id).unwrap_or_else(|| {
            self.ids.push(id.to_owned());
            self.ids.len() - 1
        });
        format!("firstbyte.{place}")
    }

    fn media(&mut self, media: &Media) -> Result<Value, Fault> {
        // No address is fetched, and another vendor's file is nothing to this one.
        let Source::Data(data) = &media.source else { return Err(Fault::Unsendable) };
        let mime = media.mime.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let (kind, format) = format_of(&mime).ok_or(Fault::Unsendable)?;
        if !self.maker.takes(kind, self.model) {
            return Err(Fault::Unsendable);
        }
        let mut block = json!({ "format": format, "source": { "bytes": data } });
        if kind == "document" {
            block["name"] = json!(self.document(media.name.as_deref()));
        }
        let mut out = Map::new();
        out.insert(kind.to_owned(), block);
        Ok(Value::Object(out))
    }

    /// A name for a document, of the letters that the format allows and unlike all before it.
    fn document(&mut self, name: Option<&str>) -> String {
        let name = name.unwrap_or_default();
        let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
        let letter = |c: char| match c {
            c if c.is_ascii_alphanumeric() || "-()[]".contains(c) => c,
            c if c.is_whitespace() => ' ',
            _ => '-',
        };
        let plain: String = stem.chars().map(letter).take(DOCUMENT_NAME_MAX).collect();
        let plain = plain.split_whitespace().collect::<Vec<_>>().join(" ");
        let plain = if plain.is_empty() { String::from("document") } else { plain };
        let mut told = plain.clone();
        for number in 2.. {
            if !self.documents.contains(&told) {
                break;
            }
            told = format!("{plain} {number}");
        }
        self.documents.push(told.clone());
        told
    }

    /// `own` is what the model's maker says of tools: that the model keeps to a schema, or must not call
    /// two at once.
    fn tools(&self, prompt: &Prompt, own: &Map<String, Value>) -> Option<Value> {
        let used = used(prompt);
        let bare = || json!({ "type": "object", "properties": {} });
        let mut tools = Vec::new();
        let forbidden = prompt.choice == Some(Choice::None) && used.is_empty();
        for tool in prompt.tools.iter().filter(|_| !forbidden) {
            let mut schema = tool.schema.clone().unwrap_or_else(bare);
            if schema.get("type").is_none() {
                schema["type"] = json!("object");
            }
            let mut spec = json!({ "name": tool.name, "inputSchema": { "json": schema } });
            if let Some(text) = tool.description.as_deref().filter(|text| !text.trim().is_empty()) {
                spec["description"] = json!(text);
            }
            if tool.strict == Some(true) && params::keeps_to_schemas(self.maker, own) {
                spec["strict"] = json!(true);
            }
            tools.push(json!({ "toolSpec": spec }));
            if tool.cache.is_some() && self.maker == Maker::Claude {
                tools.push(cache_point());
            }
        }
        if tools.is_empty() {
            // Whatever a turn has used must be there.
            tools.extend(used.iter().filter(|name| !name.is_empty()).map(
                |name| json!({ "toolSpec": { "name": name, "inputSchema": { "json": bare() } } }),
            ));
        }
        if tools.is_empty() {
            return None;
        }
        let mut config = json!({ "tools": tools });
        let choice = match &prompt.choice {
            // The model's own fields say it, and more.
            _ if params::chooses(own) => None,
            // There is no word for none.
            None | Some(Choice::None) => None,
            _ if prompt.tools.is_empty() => None,
            Some(Choice::Auto) => Some(json!({ "auto": {} })),
            Some(Choice::Any) => Some(json!({ "any": {} })),
            Some(Choice::Named(name)) => Some(json!({ "tool": { "name": name } })),
        };
        if let Some(choice) = choice {
            config["toolChoice"] = choice;
        }
        Some(config)
    }
}

/// Names of the tools that turns have used, each once.
fn used(prompt: &Prompt) -> Vec<&str> {
    let mut names = Vec::new();
    for part in prompt.turns.iter().flat_map(|turn| &turn.parts) {
        if let Part::Call { name, .. } | Part::Result { name, .. } = part
            && !names.contains(&name.as_str())
        {
            names.push(name);
        }
    }
    names
}

fn cache_point() -> Value {
    json!({ "cachePoint": { "type": "default" } })
}

/// The block and the format's word for a media type.
fn format_of(mime: &str) -> Option<(&'static str, &'static str)> {
    FORMATS.iter().find(|(known, ..)| *known == mime).map(|(_, kind, format)| (*kind, *format))
}

const FORMATS: &[(&str, &str, &str)] = &[
    ("image/png", "image", "png"),
    ("image/jpeg", "image", "jpeg"),
    ("image/jpg", "image", "jpeg"),
    ("image/gif", "image", "gif"),
    ("image/webp", "image", "webp"),
    ("application/pdf", "document", "pdf"),
    ("text/csv", "document", "csv"),
    ("application/msword", "document", "doc"),
    ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", "document", "docx"),
    ("application/vnd.ms-excel", "document", "xls"),
    ("application/vnd.openxmlformats-officedocument.spreadsheetml.sheet", "document", "xlsx"),
    ("text/html", "document", "html"),
    ("text/plain", "document", "txt"),
    ("text/markdown", "document", "md"),
    ("video/mp4", "video", "mp4"),
    ("video/quicktime", "video", "mov"),
    ("video/x-matroska", "video", "mkv"),
    ("video/webm", "video", "webm"),
    ("video/mpeg", "video", "mpeg"),
    ("audio/wav", "audio", "wav"),
    ("audio/x-wav", "audio", "wav"),
    ("audio/mp3", "audio", "mp3"),
    ("audio/mpeg", "audio", "mp3"),
    ("audio/opus", "audio", "opus"),
    ("audio/aac", "audio", "aac"),
    ("audio/flac", "audio", "flac"),
    ("audio/ogg", "audio", "ogg"),
    ("audio/mp4", "audio", "mp4"),
];
/// Letters of a call's id.
const ID_MAX: usize = 64;
/// Letters of a document's name, of the 200 that there may be, with room for a number.
const DOCUMENT_NAME_MAX: usize = 180;

#[cfg(test)]
mod tests;
