"""What the packages ask for in kinds_suite.py: tools, and each parameter of the three dialects alone."""

ASK = [{"role": "user", "content": "What is it?"}]
SCHEMA = {
    "type": "object",
    "properties": {"from": {"type": "string"}, "call": {"type": "integer"}},
    "required": ["from", "call"],
}
LOOK = {"name": "look", "description": "Looks."}
CHAT_TOOLS = [{"type": "function", "function": {**LOOK, "parameters": SCHEMA}}]
RESPONSES_TOOLS = [{"type": "function", **LOOK, "parameters": SCHEMA, "strict": False}]
MESSAGES_TOOLS = [{**LOOK, "input_schema": SCHEMA}]
THINKING = {"type": "enabled", "budget_tokens": 1024}

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
DATA_URL = f"data:image/png;base64,{PIXEL}"
ANSWER = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "ends": {"type": "array", "items": {"type": "integer"}}},
    "required": ["name", "ends"],
    "additionalProperties": False,
}
CHAT_PARAMETERS = {
    "max_tokens": {"max_tokens": 99},
    "max_completion_tokens": {"max_completion_tokens": 99},
    "temperature": {"temperature": 1.5},
    "top_p": {"top_p": 0.5},
    "stop": {"stop": ["\n\n", "END"]},
    "one stop": {"stop": "END"},
    "penalties": {"presence_penalty": 0.5, "frequency_penalty": -0.5},
    "seed": {"seed": 7},
    "logit_bias": {"logit_bias": {"50256": -100}},
    "n": {"n": 2},
    "logprobs": {"logprobs": True, "top_logprobs": 2},
    "user": {"user": "someone"},
    "metadata": {"metadata": {"a": "b"}},
    "service_tier": {"service_tier": "auto"},
    "store": {"store": False},
    "reasoning": {"reasoning_effort": "low"},
    "no reasoning": {"reasoning_effort": "none"},
    "json": {"response_format": {"type": "json_object"}},
    "schema": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "lamp", "schema": ANSWER, "strict": True},
        }
    },
    "forced tool": {"tools": CHAT_TOOLS, "tool_choice": {"type": "function", "function": {"name": "look"}}},
    "required tool": {"tools": CHAT_TOOLS, "tool_choice": "required"},
    "no tool": {"tools": CHAT_TOOLS, "tool_choice": "none"},
    "strict tool": {
        "tools": [{"type": "function", "function": {**LOOK, "parameters": ANSWER, "strict": True}}]
    },
    "a call at a time": {"tools": CHAT_TOOLS, "parallel_tool_calls": False},
    "reasoning and tools": {"tools": CHAT_TOOLS, "reasoning_effort": "high", "max_tokens": 2000},
    "tool without parameters": {"tools": [{"type": "function", "function": {"name": "look"}}]},
    "system": {"messages": [{"role": "system", "content": "Be brief."}, *ASK]},
    "developer": {"messages": [{"role": "developer", "content": "Be brief."}, *ASK]},
    "system later": {"messages": [*ASK, {"role": "system", "content": "Be brief."}, *ASK]},
    "prefill": {"messages": [*ASK, {"role": "assistant", "content": "It is"}]},
    "parts": {"messages": [{"role": "user", "content": [{"type": "text", "text": "What"}] * 2}]},
    "image": {
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is it?"},
                    {"type": "image_url", "image_url": {"url": DATA_URL}},
                ],
            }
        ]
    },
    "image by address": {
        "messages": [
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x/y.png"}}]}
        ]
    },
    "empty answer before": {"messages": [*ASK, {"role": "assistant", "content": ""}, *ASK]},
}
RESPONSES_PARAMETERS = {
    "instructions": {"instructions": "Be brief."},
    "max_output_tokens": {"max_output_tokens": 99},
    "temperature": {"temperature": 1.5},
    "top_p": {"top_p": 0.5},
    "user": {"user": "someone"},
    "metadata": {"metadata": {"a": "b"}},
    "reasoning": {"reasoning": {"effort": "low", "summary": "auto"}},
    "verbosity": {"text": {"verbosity": "low"}},
    "json": {"text": {"format": {"type": "json_object"}}},
    "schema": {"text": {"format": {"type": "json_schema", "name": "lamp", "schema": ANSWER, "strict": True}}},
    "forced tool": {"tools": RESPONSES_TOOLS, "tool_choice": {"type": "function", "name": "look"}},
    "required tool": {"tools": RESPONSES_TOOLS, "tool_choice": "required"},
    "strict tool": {"tools": [{"type": "function", **LOOK, "parameters": ANSWER, "strict": True}]},
    "a call at a time": {"tools": RESPONSES_TOOLS, "parallel_tool_calls": False},
    "developer": {"turns": [{"role": "developer", "content": "Be brief."}, *ASK]},
    "image": {"turns": [{"role": "user", "content": [{"type": "input_image", "image_url": DATA_URL}]}]},
    "text": {"turns": "What is it?"},
}
MESSAGES_PARAMETERS = {
    "system": {"system": "Be brief."},
    "system in blocks": {
        "system": [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    },
    "stop": {"stop_sequences": ["END"]},
    "sampling": {"extra_body": {"temperature": 0.5, "top_k": 5}},
    "metadata": {"metadata": {"user_id": "someone"}},
    "thinking": {"thinking": THINKING},
    "adaptive thinking": {"thinking": {"type": "adaptive"}},
    "no thinking": {"thinking": {"type": "disabled"}},
    "effort": {"output_config": {"effort": "low"}},
    "schema": {"output_config": {"format": {"type": "json_schema", "schema": ANSWER}}},
    "forced tool": {"tools": MESSAGES_TOOLS, "tool_choice": {"type": "tool", "name": "look"}},
    "any tool": {"tools": MESSAGES_TOOLS, "tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
    "no tool": {"tools": MESSAGES_TOOLS, "tool_choice": {"type": "none"}},
    "prefill": {"turns": [*ASK, {"role": "assistant", "content": "It is"}]},
    "image": {
        "turns": [
            {
                "role": "user",
                "content": [
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PIXEL}},
                    {"type": "text", "text": "What is it?", "cache_control": {"type": "ephemeral"}},
                ],
            }
        ]
    },
    "failed tool": {
        "tools": MESSAGES_TOOLS,
        "turns": [
            *ASK,
            {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}]},
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "toolu_1", "content": "Too dark.", "is_error": True}
                ],
            },
        ],
    },
}
