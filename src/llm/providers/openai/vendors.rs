//! The vendors that copy OpenAI's chat API, one row each: where they are, whose key opens them, and what
//! of a request they take otherwise than OpenAI does. Sources: the vendors' API references.
//!
//! A new vendor is a new row, and its line in `docs/providers.md`. Data only: `llm/quirks` applies it.

use crate::llm::chat_body::thinks;
use crate::llm::quirks::Verdict::{Count, Details, Drop, Few, Flat, Only, Refuse, Rename, Words};
use crate::llm::quirks::{self, Fates, Rule};

/// One vendor.
#[derive(Debug)]
pub struct Vendor {
    /// Its kind in the config.
    pub name: &'static str,
    /// Its name for a person.
    pub title: &'static str,
    /// Its base URL, or where the server listens by default; empty where each customer has another.
    pub base_url: &'static str,
    /// The variable that usually holds its key; empty for a server that usually has none.
    pub key_variable: &'static str,
    /// What differs in every request.
    rules: &'static [&'static [Rule]],
    /// What differs besides in a request that another dialect's client made.
    written: &'static [Rule],
}

impl Vendor {
    /// The quirks, of requests that a chat client wrote or (`written`) that were written for it.
    pub fn rules(&self, written: bool) -> impl Iterator<Item = &'static Rule> + use<> {
        let more = if written { self.written } else { &[] };
        self.rules.iter().copied().flatten().chain(more)
    }

    /// How the parameters of a chat client's body fare with a model of this vendor.
    pub fn judge(&self, body: &[u8], model: &str) -> Fates {
        quirks::judge(body, self.rules(false), model)
    }
}

/// A row of the table.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct VendorId(u8);

impl VendorId {
    /// Azure: the last row.
    pub const AZURE: VendorId = VendorId::at(VendorId::COUNT - 1);
    /// How many there are.
    pub const COUNT: usize = TABLE.len();

    /// The row at `index`, which is below [`VendorId::COUNT`].
    pub const fn at(index: usize) -> VendorId {
        assert!(index < VendorId::COUNT && VendorId::COUNT <= u8::MAX as usize);
        VendorId(index as u8)
    }

    /// The row.
    pub const fn row(self) -> &'static Vendor {
        &TABLE[self.0 as usize]
    }
}

/// OpenAI itself, and servers of which nothing more is known. What a chat client says goes out as it came,
/// but for the word that OpenAI's newer models refuse.
pub const OPENAI: &Vendor = &Vendor {
    name: "openai",
    title: "OpenAI",
    base_url: "https://api.openai.com/v1",
    key_variable: "OPENAI_API_KEY",
    rules: &[&[Rule::of(thinks, "max_tokens", Rename("max_completion_tokens"))]],
    written: &[
        Rule::new("messages[].content[].cache_control", Drop),
        Rule::new("tools[].cache_control", Drop),
        Rule::new("messages[].reasoning_content", Drop),
        Rule::new("messages[].reasoning_details", Drop),
        // It wants the answer to be stored for it.
        Rule::new("metadata", Drop),
        Rule::new("top_k", Drop),
        Rule::new("stop", Few(4)),
        Rule::of(answers_at_once, "reasoning_effort", Drop),
        Rule::of(thinks, "temperature", Drop),
        Rule::of(thinks, "top_p", Drop),
        Rule::of(thinks, "presence_penalty", Drop),
        Rule::of(thinks, "frequency_penalty", Drop),
        Rule::of(thinks, "stop", Refuse),
    ],
};

/// The role that OpenAI renamed.
const SYSTEM: &[Rule] = &[Rule::new("messages[].role", Words(&[("developer", "system")]))];
/// Cache markers, and thoughts in the words of one client library.
const PLAIN: &[Rule] = &[
    Rule::new("messages[].content[].cache_control", Drop),
    Rule::new("tools[].cache_control", Drop),
    Rule::new("messages[].thinking_blocks", Drop),
    Rule::new("messages[].reasoning_details", Drop),
];
const MAX_TOKENS: &[Rule] = &[Rule::new("max_completion_tokens", Rename("max_tokens"))];
const NO_THOUGHTS: &[Rule] =
    &[Rule::new("messages[].reasoning_content", Drop), Rule::new("messages[].reasoning", Drop)];
/// Low, medium and high; how to ask for none differs too much to be told.
const THREE_EFFORTS: &[Rule] = &[Rule::new("reasoning_effort", Words(THREE))];
const THREE: &[(&str, &str)] =
    &[("none", ""), ("minimal", "low"), ("xhigh", "high"), ("max", "high")];
/// What only OpenAI's own servers do something with, for vendors that refuse words they don't know.
const OPENAIS_OWN: &[Rule] = &[
    Rule::new("store", Drop),
    Rule::new("metadata", Drop),
    Rule::new("prediction", Drop),
    Rule::new("prompt_cache_key", Drop),
    Rule::new("prompt_cache_options", Drop),
    Rule::new("prompt_cache_retention", Drop),
    Rule::new("safety_identifier", Drop),
    Rule::new("verbosity", Drop),
    Rule::new("moderation", Drop),
    Rule::new("modalities", Drop),
    Rule::new("audio", Refuse),
    Rule::new("web_search_options", Refuse),
];
const NO_IMAGES: &[Rule] = &[Rule::new("messages[].content[].image_url", Refuse)];
const NO_FILES: &[Rule] = &[
    Rule::new("messages[].content[].file", Refuse),
    Rule::new("messages[].content[].input_audio", Refuse),
];
const NO_LOGPROBS: &[Rule] = &[Rule::new("logprobs", Refuse), Rule::new("top_logprobs", Refuse)];
const NO_BIAS: &[Rule] = &[Rule::new("logit_bias", Drop)];
const NO_PENALTIES: &[Rule] =
    &[Rule::new("presence_penalty", Drop), Rule::new("frequency_penalty", Drop)];
const ONE_CHOICE: &[Rule] = &[Rule::new("n", Refuse)];
const ONE_TIER: &[Rule] = &[Rule::new("service_tier", Drop)];
const FOUR_STOPS: &[Rule] = &[Rule::new("stop", Few(4))];

/// Every vendor but OpenAI, in the order in which they are tried when only their keys are known.
pub const TABLE: &[Vendor] = &[
    Vendor {
        name: "groq",
        title: "Groq",
        base_url: "https://api.groq.com/openai/v1",
        key_variable: "GROQ_API_KEY",
        rules: &[
            SYSTEM,
            PLAIN,
            OPENAIS_OWN,
            NO_FILES,
            NO_LOGPROBS,
            NO_BIAS,
            ONE_CHOICE,
            FOUR_STOPS,
            &[
                Rule::new("messages[].name", Drop),
                Rule::new("messages[].reasoning_content", Rename("reasoning")),
                Rule::new("top_k", Drop),
                Rule::new(
                    "service_tier",
                    Words(&[
                        ("default", "on_demand"),
                        ("priority", "performance"),
                        ("scale", ""),
                        ("fast", "performance"),
                    ]),
                ),
                Rule::of(is_gpt_oss, "reasoning_effort", Words(THREE)),
                Rule::of(
                    is_qwen,
                    "reasoning_effort",
                    Words(&[
                        ("minimal", "default"),
                        ("low", "default"),
                        ("medium", "default"),
                        ("high", "default"),
                        ("xhigh", "default"),
                        ("max", "default"),
                    ]),
                ),
                Rule::of(|model| !is_gpt_oss(model) && !is_qwen(model), "reasoning_effort", Drop),
            ],
        ],
        written: &[],
    },
    Vendor {
        name: "deepseek",
        title: "DeepSeek",
        base_url: "https://api.deepseek.com/v1",
        key_variable: "DEEPSEEK_API_KEY",
        rules: &[
            SYSTEM,
            PLAIN,
            MAX_TOKENS,
            NO_IMAGES,
            NO_FILES,
            ONE_CHOICE,
            &[
                Rule::new("messages[].content", Flat),
                Rule::new("response_format.json_schema", Refuse),
                // It is kept on another path, that of its beta.
                Rule::new("tools[].function.strict", Drop),
                Rule::new("stop", Few(16)),
            ],
        ],
        written: &[],
    },
    Vendor {
        name: "xai",
        title: "xAI",
        base_url: "https://api.x.ai/v1",
        key_variable: "XAI_API_KEY",
        rules: &[
            SYSTEM,
            PLAIN,
            NO_FILES,
            NO_BIAS,
            ONE_TIER,
            FOUR_STOPS,
            &[
                Rule::of(grok_thinks, "presence_penalty", Drop),
                Rule::of(grok_thinks, "frequency_penalty", Drop),
                Rule::of(grok_thinks, "stop", Refuse),
                Rule::of(grok_decides, "reasoning_effort", Drop),
                Rule::of(
                    |model| model.starts_with("grok-3-mini"),
                    "reasoning_effort",
                    Words(&[
                        ("none", ""),
                        ("minimal", "low"),
                        ("medium", "high"),
                        ("xhigh", "high"),
                        ("max", "high"),
                    ]),
                ),
            ],
        ],
        written: &[],
    },
    Vendor {
        name: "openrouter",
        title: "OpenRouter",
        base_url: "https://openrouter.ai/api/v1",
        key_variable: "OPENROUTER_API_KEY",
        rules: &[&[Rule::new("messages[].thinking_blocks", Details)]],
        written: &[],
    },
    Vendor {
        name: "together",
        title: "Together AI",
        base_url: "https://api.together.xyz/v1",
        key_variable: "TOGETHER_API_KEY",
        rules: &[
            SYSTEM,
            PLAIN,
            MAX_TOKENS,
            NO_FILES,
            ONE_TIER,
            THREE_EFFORTS,
            &[
                // A number of alternatives is how they are asked for.
                Rule::new("logprobs", Count("top_logprobs")),
                Rule::new("top_logprobs", Drop),
            ],
        ],
        written: &[],
    },
    Vendor {
        name: "fireworks",
        title: "Fireworks",
        base_url: "https://api.fireworks.ai/inference/v1",
        key_variable: "FIREWORKS_API_KEY",
        rules: &[
            SYSTEM,
            PLAIN,
            MAX_TOKENS,
            OPENAIS_OWN,
            NO_FILES,
            FOUR_STOPS,
            &[
                Rule::new(
                    "reasoning_effort",
                    Words(&[("minimal", "low"), ("xhigh", "high"), ("max", "high")]),
                ),
                Rule::new(
                    "service_tier",
                    Words(&[
                        ("auto", ""),
                        ("default", ""),
                        ("flex", ""),
                        ("scale", ""),
                        ("fast", ""),
                    ]),
                ),
            ],
        ],
        written: &[],
    },
    Vendor {
        name: "perplexity",
        title: "Perplexity",
        base_url: "https://api.perplexity.ai",
        key_variable: "PERPLEXITY_API_KEY",
        rules: &[
            SYSTEM,
            PLAIN,
            MAX_TOKENS,
            NO_THOUGHTS,
            NO_FILES,
            NO_LOGPROBS,
            NO_BIAS,
            ONE_CHOICE,
            ONE_TIER,
            THREE_EFFORTS,
            &[
                Rule::new("tools", Refuse),
                Rule::new("tool_choice", Drop),
                Rule::new("parallel_tool_calls", Drop),
                Rule::new("messages[].tool_calls", Refuse),
                Rule::new("messages[].tool_call_id", Refuse),
                Rule::new("messages[].name", Drop),
                Rule::new(
                    "response_format.type",
                    Only { words: &["text", "json_schema", "regex"], other: false },
                ),
                Rule::new("seed", Drop),
                Rule::new("stop", Refuse),
                // Every chunk of its streams has the counts.
                Rule::new("stream_options", Drop),
            ],
        ],
        written: &[],
    },
    Vendor {
        name: "cerebras",
        title: "Cerebras",
        base_url: "https://api.cerebras.ai/v1",
        key_variable: "CEREBRAS_API_KEY",
        rules: &[
            SYSTEM,
            PLAIN,
            OPENAIS_OWN,
            NO_IMAGES,
            NO_FILES,
            NO_BIAS,
            NO_PENALTIES,
            ONE_CHOICE,
            ONE_TIER,
            FOUR_STOPS,
            &[
                Rule::new("parallel_tool_calls", Refuse),
                Rule::new("top_k", Drop),
                Rule::new("messages[].reasoning_content", Rename("reasoning")),
                Rule::of(is_gpt_oss, "reasoning_effort", Words(THREE)),
                Rule::of(
                    |model| !is_gpt_oss(model) && !model.contains("glm"),
                    "reasoning_effort",
                    Drop,
                ),
            ],
        ],
        written: &[],
    },
    Vendor {
        name: "moonshot",
        title: "Moonshot AI",
        base_url: "https://api.moonshot.ai/v1",
        key_variable: "MOONSHOT_API_KEY",
        rules: &[
            SYSTEM,
            PLAIN,
            NO_FILES,
            NO_LOGPROBS,
            NO_BIAS,
            ONE_TIER,
            &[
                Rule::new("tool_choice", Only { words: &["auto", "none"], other: false }),
                Rule::new("tools[].function.strict", Drop),
                Rule::new("stop", Few(5)),
                // These models sample in their own way.
                Rule::of(kimi_samples, "temperature", Drop),
                Rule::of(kimi_samples, "top_p", Drop),
                Rule::of(kimi_samples, "presence_penalty", Drop),
                Rule::of(kimi_samples, "frequency_penalty", Drop),
                Rule::of(kimi_samples, "n", Refuse),
                Rule::of(|model| !is_kimi_3(model), "reasoning_effort", Drop),
                Rule::of(
                    is_kimi_3,
                    "reasoning_effort",
                    Words(&[
                        ("none", ""),
                        ("minimal", "low"),
                        ("medium", "high"),
                        ("xhigh", "max"),
                    ]),
                ),
            ],
        ],
        written: &[],
    },
    Vendor {
        name: "zai",
        title: "Z.ai",
        base_url: "https://api.z.ai/api/paas/v4",
        key_variable: "ZAI_API_KEY",
        rules: &[
            SYSTEM,
            PLAIN,
            MAX_TOKENS,
            NO_FILES,
            NO_LOGPROBS,
            NO_BIAS,
            NO_PENALTIES,
            ONE_CHOICE,
            ONE_TIER,
            &[
                Rule::new("tool_choice", Only { words: &["auto"], other: false }),
                Rule::new("parallel_tool_calls", Refuse),
                Rule::new("response_format.json_schema", Refuse),
                Rule::new("reasoning_effort", Drop),
                Rule::new("seed", Drop),
                Rule::new("stop", Few(1)),
            ],
        ],
        written: &[],
    },
    Vendor {
        name: "alibaba",
        title: "Alibaba Model Studio",
        base_url: "https://dashscope-intl.aliyuncs.com/compatible-mode/v1",
        key_variable: "DASHSCOPE_API_KEY",
        rules: &[
            SYSTEM,
            MAX_TOKENS,
            NO_BIAS,
            ONE_TIER,
            &[
                Rule::new("messages[].content[].file", Refuse),
                Rule::new("messages[].thinking_blocks", Drop),
                Rule::new("tool_choice", Only { words: &["auto", "none"], other: true }),
                Rule::new("reasoning_effort", Drop),
                Rule::new("frequency_penalty", Drop),
            ],
        ],
        written: &[],
    },
    Vendor {
        name: "huggingface",
        title: "Hugging Face router",
        base_url: "https://router.huggingface.co/v1",
        key_variable: "HF_TOKEN",
        rules: &[SYSTEM, PLAIN, MAX_TOKENS, NO_FILES, ONE_TIER, THREE_EFFORTS],
        written: &[],
    },
    Vendor {
        name: "baseten",
        title: "Baseten",
        base_url: "https://inference.baseten.co/v1",
        key_variable: "BASETEN_API_KEY",
        rules: &[SYSTEM, PLAIN, MAX_TOKENS, NO_FILES, ONE_TIER, THREE_EFFORTS],
        written: &[],
    },
    Vendor {
        name: "vllm",
        title: "vLLM",
        base_url: "http://127.0.0.1:8000/v1",
        key_variable: "",
        rules: &[SYSTEM],
        written: &[],
    },
    Vendor {
        name: "sglang",
        title: "SGLang",
        base_url: "http://127.0.0.1:30000/v1",
        key_variable: "",
        rules: &[SYSTEM, NO_FILES],
        written: &[],
    },
    Vendor {
        name: "llamacpp",
        title: "llama.cpp",
        base_url: "http://127.0.0.1:8080/v1",
        key_variable: "",
        rules: &[
            SYSTEM,
            &[
                Rule::new("messages[].content[].file", Refuse),
                Rule::new(
                    "tool_choice",
                    Only { words: &["auto", "none", "required"], other: false },
                ),
            ],
        ],
        written: &[],
    },
    Vendor {
        name: "tgi",
        title: "Text Generation Inference",
        base_url: "http://127.0.0.1:3000/v1",
        key_variable: "",
        rules: &[
            SYSTEM,
            PLAIN,
            MAX_TOKENS,
            NO_THOUGHTS,
            NO_FILES,
            ONE_CHOICE,
            // It calls one tool at a time whatever is asked.
            &[Rule::new("parallel_tool_calls", Drop), Rule::new("reasoning_effort", Drop)],
        ],
        written: &[],
    },
    Vendor {
        name: "lmstudio",
        title: "LM Studio",
        base_url: "http://127.0.0.1:1234/v1",
        key_variable: "",
        rules: &[
            SYSTEM,
            PLAIN,
            MAX_TOKENS,
            NO_FILES,
            NO_LOGPROBS,
            ONE_CHOICE,
            &[
                Rule::new(
                    "response_format.type",
                    Only { words: &["text", "json_schema"], other: false },
                ),
                Rule::new(
                    "tool_choice",
                    Only { words: &["auto", "none", "required"], other: false },
                ),
            ],
        ],
        written: &[],
    },
    // What it takes is OpenAI's; only the address differs, and that is each customer's own.
    Vendor {
        name: "azure",
        title: "Azure OpenAI",
        base_url: "",
        key_variable: "AZURE_OPENAI_API_KEY",
        rules: OPENAI.rules,
        written: OPENAI.written,
    },
];

/// OpenAI's models from before they thought, by their names.
fn answers_at_once(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or_default();
    ["gpt-3.5", "gpt-4", "chatgpt-4"].iter().any(|prefix| name.starts_with(prefix))
}

fn is_gpt_oss(model: &str) -> bool {
    model.contains("gpt-oss")
}

fn is_qwen(model: &str) -> bool {
    model.contains("qwen")
}

/// Grok's models that think before they answer.
fn grok_thinks(model: &str) -> bool {
    let thinks = model.starts_with("grok-3-mini") || model.starts_with("grok-4");
    let codes = model.starts_with("grok-code");
    (thinks || codes) && !model.contains("non-reasoning")
}

/// Grok's models that refuse to be told how much to think.
fn grok_decides(model: &str) -> bool {
    let old = model.starts_with("grok-2") || model == "grok-3" || model == "grok-3-fast";
    let fourth = model == "grok-4" || model.starts_with("grok-4-");
    old || fourth || model.starts_with("grok-code")
}

fn is_kimi_3(model: &str) -> bool {
    model.starts_with("kimi-k3")
}

fn kimi_samples(model: &str) -> bool {
    model.starts_with("kimi-k2.") || is_kimi_3(model)
}

#[cfg(test)]
mod tests;
