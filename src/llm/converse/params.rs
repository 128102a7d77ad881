//! How a Converse request asks a model to answer: what is the same for all of them, and what each maker's
//! models take beside it.
//!
//! Claude's own parameters (thinking, effort, `top_k`, one call at a time) depend on its generation, which
//! `llm/messages/body` knows; they are taken from the body that it writes.

use serde_json::{Map, Value, json};

use crate::base::fail::Fault;
use crate::llm::prompt::{Part, Prompt, Turn};
use crate::llm::{bedrock, messages};

/// Who made a model, as far as it matters here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Maker {
    Claude,
    /// The first Nova, which does not think.
    Nova,
    Nova2,
    /// OpenAI's open models.
    GptOss,
    /// Those that think by a word.
    DeepseekOrQwen,
    /// Models of the years before, which neither keep to a schema nor think: Titan, Llama, Jamba, Command.
    Plain,
    /// It can't be told from the name: other models, and profiles of the customer's own.
    Other,
}

impl Maker {
    pub(super) fn of(model: &str) -> Maker {
        let model = model.to_ascii_lowercase();
        let has = |words: &[&str]| words.iter().any(|word| model.contains(word));
        if bedrock::is_claude(&model) {
            Maker::Claude
        } else if has(&["amazon.nova-2"]) {
            Maker::Nova2
        } else if has(&["amazon.nova"]) {
            Maker::Nova
        } else if has(&["openai.", "gpt-oss"]) {
            Maker::GptOss
        } else if has(&["deepseek.", "qwen."]) {
            Maker::DeepseekOrQwen
        } else if has(&["amazon.titan", "meta.llama", "ai21.", "cohere."]) {
            Maker::Plain
        } else {
            Maker::Other
        }
    }

    /// Whether prompts are cached at points; the others refuse a request that has one.
    pub(super) fn caches(self) -> bool {
        matches!(self, Maker::Claude | Maker::Nova | Maker::Nova2)
    }

    /// Whether answers keep to a schema. Of Claude, `own` refuses the generations that don't.
    pub(super) fn answers_by_schema(self) -> bool {
        !matches!(self, Maker::Nova | Maker::Nova2 | Maker::Plain)
    }

    /// Whether the model takes blocks of this kind; what it would do with the others is refuse them.
    pub(super) fn takes(self, kind: &str, model: &str) -> bool {
        match (kind, self) {
            ("audio", _) => ["voxtral", "omni", "sonic"].iter().any(|word| model.contains(word)),
            ("video", Maker::Nova | Maker::Nova2) => !model.contains("nova-micro"),
            ("video", Maker::Other) => model.contains("pegasus"),
            ("video", _) => false,
            _ => true,
        }
    }
}

/// What Anthropic's own API would be asked; empty for other models.
///
/// # Errors
/// `Unsendable`: this model can't do it.
pub(super) fn own(prompt: &Prompt, maker: Maker, model: &str) -> Result<Map<String, Value>, Fault> {
    if maker != Maker::Claude {
        return Ok(Map::new());
    }
    // Of the conversation only its shape matters: results of tools, and thoughts before them.
    let shape = |part: &Part| match part {
        Part::Result { id, name, is_error, .. } => Some(Part::Result {
            id: id.clone(),
            name: name.clone(),
            parts: Vec::new(),
            is_error: *is_error,
        }),
        Part::Thought { .. } | Part::Redacted { .. } => Some(part.clone()),
        Part::Text { .. } | Part::Media(_) | Part::Call { .. } => None,
    };
    let turn = |turn: &Turn| Turn {
        role: turn.role,
        parts: turn.parts.iter().filter_map(shape).collect(),
    };
    let asked = Prompt {
        system: Vec::new(),
        turns: prompt.turns.iter().map(turn).collect(),
        tools: prompt.tools.clone(),
        choice: prompt.choice.clone(),
        parallel: prompt.parallel,
        format: prompt.format.clone(),
        max_tokens: prompt.max_tokens,
        stop: Vec::new(),
        effort: prompt.effort.clone(),
        budget: prompt.budget,
        params: prompt.params.clone(),
        user: None,
    };
    messages::body::write(&asked, model)
}

/// Whether calls keep to their schemas to the letter, where that is asked for.
pub(super) fn keeps_to_schemas(maker: Maker, own: &Map<String, Value>) -> bool {
    let strict = |tool: &Value| tool["strict"] == true;
    match maker {
        Maker::Claude => {
            own.get("tools").and_then(Value::as_array).is_some_and(|t| t.iter().any(strict))
        }
        other => other.answers_by_schema(),
    }
}

/// Whether the model's own fields say which tool to call, where the format has no word for it: none, or
/// one at a time.
pub(super) fn chooses(own: &Map<String, Value>) -> bool {
    own.get("tool_choice").is_some_and(|choice| {
        choice["type"] == "none" || choice["disable_parallel_tool_use"] == true
    })
}

/// Writes `inferenceConfig`, `additionalModelRequestFields`, `serviceTier` and `requestMetadata`.
pub(super) fn write(
    prompt: &Prompt,
    maker: Maker,
    own: &Map<String, Value>,
    body: &mut Map<String, Value>,
) {
    let mut more = Map::new();
    let mut config = if maker == Maker::Claude {
        claude(prompt, own, body.contains_key("toolConfig"), &mut more)
    } else {
        others(prompt, maker, &mut more)
    };
    let stops: Vec<_> = prompt.stop.iter().filter(|stop| !stop.trim().is_empty()).collect();
    if !stops.is_empty() {
        config.insert("stopSequences".into(), json!(stops));
    }
    if !config.is_empty() {
        body.insert("inferenceConfig".into(), Value::Object(config));
    }
    if !more.is_empty() {
        body.insert("additionalModelRequestFields".into(), Value::Object(more));
    }
    if let Some(tier @ ("priority" | "default" | "flex")) =
        prompt.params.get("service_tier").and_then(Value::as_str)
    {
        body.insert("serviceTier".into(), json!({ "type": tier }));
    }
    let metadata = metadata(prompt);
    if !metadata.is_empty() {
        body.insert("requestMetadata".into(), Value::Object(metadata));
    }
}

/// What its own API would be asked, under the names that it has here.
fn claude(
    prompt: &Prompt,
    own: &Map<String, Value>,
    tools: bool,
    more: &mut Map<String, Value>,
) -> Map<String, Value> {
    let mut config = Map::new();
    for (name, here) in [("temperature", "temperature"), ("top_p", "topP")] {
        if let Some(value) = own.get(name) {
            config.insert(here.into(), value.clone());
        }
    }
    // Its own API wants a limit; here it is the model's, unless the client or a budget sets one.
    let budget = own.get("thinking").is_some_and(|thinking| thinking["type"] == "enabled");
    if let Some(max) = own.get("max_tokens").filter(|_| prompt.max_tokens.is_some() || budget) {
        config.insert("maxTokens".into(), max.clone());
    }
    for name in ["thinking", "top_k"] {
        if let Some(value) = own.get(name) {
            more.insert(name.into(), value.clone());
        }
    }
    if let Some(effort) = own.get("output_config").and_then(|config| config.get("effort")) {
        more.insert("output_config".into(), json!({ "effort": effort }));
    }
    if let Some(choice) = own.get("tool_choice").filter(|_| tools && chooses(own)) {
        more.insert("tool_choice".into(), choice.clone());
    }
    config
}

fn others(prompt: &Prompt, maker: Maker, more: &mut Map<String, Value>) -> Map<String, Value> {
    let number = |name: &str| prompt.params.get(name).and_then(Value::as_f64);
    let mut config = Map::new();
    if let Some(max) = prompt.max_tokens {
        config.insert("maxTokens".into(), json!(max));
    }
    if let Some(temperature) = number("temperature") {
        config.insert("temperature".into(), json!(temperature.clamp(0.0, 1.0)));
    }
    if let Some(top_p) = number("top_p") {
        config.insert("topP".into(), json!(top_p.clamp(0.0, 1.0)));
    }
    let top_k = prompt.params.get("top_k").filter(|value| value.is_u64());
    if let (Maker::Nova | Maker::Nova2, Some(top_k)) = (maker, top_k) {
        more.insert("inferenceConfig".into(), json!({ "topK": top_k }));
    }
    let Some(effort) = prompt.effort.as_deref() else { return config };
    let word = match effort {
        "none" | "minimal" | "low" => "low",
        "medium" => "medium",
        _ => "high",
    };
    match maker {
        Maker::Nova2 if effort == "none" => {
            more.insert("reasoningConfig".into(), json!({ "type": "disabled" }));
        }
        Maker::Nova2 => {
            // The highest effort takes neither a limit nor a sampler; the client's limit counts more.
            let word = if prompt.max_tokens.is_some() && word == "high" { "medium" } else { word };
            if word == "high" {
                config.clear();
                more.remove("inferenceConfig");
            }
            let reasoning = json!({ "type": "enabled", "maxReasoningEffort": word });
            more.insert("reasoningConfig".into(), reasoning);
        }
        Maker::GptOss => _ = more.insert("reasoning_effort".into(), json!(word)),
        Maker::DeepseekOrQwen if effort != "none" => {
            more.insert("reasoning_config".into(), json!(word));
        }
        Maker::Claude | Maker::Nova | Maker::DeepseekOrQwen | Maker::Plain | Maker::Other => {}
    }
    config
}

/// Texts of the client's own beside a request, as far as they are of letters that may stand there.
fn metadata(prompt: &Prompt) -> Map<String, Value> {
    let fits = |text: &str| {
        text.len() <= METADATA_MAX
            && text.chars().all(|c| c.is_ascii_alphanumeric() || " :_@$#=/+,-.".contains(c))
    };
    let entries = prompt.params.get("metadata").and_then(Value::as_object);
    let entries = entries.into_iter().flatten();
    let told = entries
        .filter(|(name, value)| !name.is_empty() && fits(name) && value.as_str().is_some_and(fits));
    told.take(METADATA_ENTRIES_MAX).map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// Letters of a name or value of `requestMetadata`.
const METADATA_MAX: usize = 256;
/// Entries of it.
const METADATA_ENTRIES_MAX: usize = 16;
