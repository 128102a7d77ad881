"""The official `openai` and `anthropic` packages before a provider of every kind. Run by run.py, which says
in SDK_KINDS what the kinds are; kinds.py says what the models do.

Every case runs for every kind, and in parallel. What the packages parse is held against their own types
as well, for they take whatever comes.
"""

import concurrent.futures
import functools
import json
import os
import sys
import traceback

import anthropic
import openai
from pydantic import BaseModel, TypeAdapter

from parameters import (
    ASK,
    CHAT_PARAMETERS,
    CHAT_TOOLS,
    LOOK,
    MESSAGES_PARAMETERS,
    MESSAGES_TOOLS,
    RESPONSES_PARAMETERS,
    RESPONSES_TOOLS,
    SCHEMA,
    THINKING,
)

BASE = os.environ["SDK_EVERY"]
KEY = os.environ["SDK_KEY"]
DRIVER = os.environ["SDK_DRIVER"]
KINDS = json.loads(os.environ["SDK_KINDS"])
PATIENCE = 60.0

TEXT = "Hello from sandbox a. token-1 token-2 token-3"
SECOND = TEXT.replace("sandbox a", "sandbox b")
CUT = "Hello from sandbox a. token-1"
THOUGHTS = "thought-0 thought-1 "
CUTS = ["cut", "cut-error", "cut-frame", "cut-hang", "cut-end"]
FALLS = ["fall-503", "fall-event", "fall-hang", "fall-key"]

CASES = []


def case(only=lambda kind: True):
    """A case runs for the kinds that `only` names."""

    def add(run):
        CASES.append((run.__name__, only, run))
        return run

    return add


def tools(kind):
    return kind["tools"]


@functools.cache
def adapter(kind):
    return TypeAdapter(kind)


def some(models, kind):
    """The copies of OpenAI fail alike: each of these runs for some of them."""
    if not kind["copy"]:
        return models
    at = KINDS.index(kind) % len(models)
    return [models[at], models[at - 1]]


def strictly(value):
    """The value, which the type that the package took it for admits without leniency."""
    adapter(type(value)).validate_json(json.dumps(value.to_dict()), strict=True)
    return value


def equal(found, wanted):
    assert found == wanted, f"{found!r} instead of {wanted!r}"


def raises(kind, run):
    try:
        found = run()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}, but {found!r}")


class Clients:
    def __init__(self, key=KEY):
        more = {"api_key": key, "max_retries": 0, "timeout": PATIENCE}
        self.openai = openai.OpenAI(base_url=BASE, **more)
        self.anthropic = anthropic.Anthropic(base_url=BASE.removesuffix("/v1"), **more)


GATE = Clients()
WRONG = Clients("sk-wrong")


# Chat.

def chat(model, messages=ASK, gate=GATE, **more):
    return gate.openai.chat.completions.create(model=model, messages=messages, **more)


def chat_stream(model, messages=ASK, gate=GATE, into=None, **more):
    """What a stream says, as a whole answer would; `into` has it so far if it raises."""
    said = into if into is not None else {}
    said |= {"text": "", "thoughts": "", "calls": {}, "finish": [], "usage": []}
    ids = set()
    with chat(model, messages, gate, stream=True, **more) as stream:
        for chunk in stream:
            strictly(chunk)
            ids.add(chunk.id)
            equal(chunk.model, model)
            said["usage"] += [chunk.usage] if chunk.usage else []
            for choice in chunk.choices:
                delta = choice.delta
                said["text"] += delta.content or ""
                said["thoughts"] += getattr(delta, "reasoning_content", None) or ""
                said["finish"] += [choice.finish_reason] if choice.finish_reason else []
                for part in delta.tool_calls or []:
                    first = part.index not in said["calls"]
                    assert not first or (part.id and part.type == "function" and part.function.name), part
                    call = said["calls"].setdefault(part.index, {"arguments": ""})
                    call |= {"id": part.id, "name": part.function.name} if first else {}
                    call["arguments"] += part.function.arguments or ""
    equal(len(ids), 1)
    return said


def check_calls(calls, count):
    """Calls as (id, name, arguments)."""
    equal(len({call[0] for call in calls}), count)
    for at, (_, name, arguments) in enumerate(calls):
        equal((name, arguments), ("look", {"from": "sandbox a", "call": at}))


def chat_calls(answer):
    return [
        (call.id, call.function.name, json.loads(call.function.arguments))
        for call in answer.choices[0].message.tool_calls
    ]


@case()
def chat_plain(kind):
    answer = strictly(chat(f"{kind['name']}.words"))
    equal((answer.choices[0].message.content, answer.choices[0].finish_reason), (TEXT, "stop"))
    usage = answer.usage
    equal((usage.prompt_tokens, usage.completion_tokens, usage.total_tokens), (3, 4, 7))


@case()
def chat_length(kind):
    equal(chat(f"{kind['name']}.long").choices[0].finish_reason, "length")
    equal(chat_stream(f"{kind['name']}.long")["finish"], ["length"])


@case()
def chat_streamed(kind):
    said = chat_stream(f"{kind['name']}.words")
    equal((said["text"], said["finish"]), (TEXT, ["stop"]))
    equal(said["usage"], [])


@case()
def chat_streamed_with_usage(kind):
    said = chat_stream(f"{kind['name']}.words", stream_options={"include_usage": True})
    equal((said["text"], said["finish"]), (TEXT, ["stop"]))
    # A vendor that tells usage unasked is not asked, and the sandbox tells it to those that ask.
    if said["usage"] or not kind["copy"]:
        [usage] = said["usage"]
        equal((usage.prompt_tokens, usage.completion_tokens, usage.total_tokens), (3, 4, 7))


@case()
def chat_thinks(kind):
    message = strictly(chat(f"{kind['name']}.think")).choices[0].message
    equal((message.content, message.reasoning_content), (TEXT, THOUGHTS))
    said = chat_stream(f"{kind['name']}.think")
    equal((said["text"], said["thoughts"]), (TEXT, THOUGHTS))


@case()
def chat_thoughts_and_back(kind):
    answer = chat(f"{kind['name']}.think").choices[0].message.to_dict()
    turns = [*ASK, answer, *ASK]
    equal(chat(f"{kind['name']}.words", turns).choices[0].message.content, TEXT)
    if kind["signs"]:
        [*_, thought] = answer["thinking_blocks"]
        assert thought["signature"], thought
        thought["thinking"] = "Never thought."
        raises(openai.BadRequestError, lambda: chat(f"{kind['name']}.words", turns))


@case()
def chat_stream_helper(kind):
    with GATE.openai.chat.completions.stream(model=f"{kind['name']}.words", messages=ASK) as stream:
        seen = "".join(event.delta for event in stream if event.type == "content.delta")
        final = stream.get_final_completion()
    equal((seen, final.choices[0].message.content), (TEXT, TEXT))


@case(tools)
def chat_stream_helper_with_tools(kind):
    """The helper looks into each fragment."""
    parameters = {**SCHEMA, "additionalProperties": False}
    strict = [{"type": "function", "function": {**LOOK, "parameters": parameters, "strict": True}}]
    ask = {"model": f"{kind['name']}.two", "messages": ASK, "tools": strict}
    with GATE.openai.chat.completions.stream(**ask) as stream:
        partial = [event for event in stream if event.type == "tool_calls.function.arguments.delta"]
        final = stream.get_final_completion()
    assert partial
    check_calls(chat_calls(final), 2)


@case(tools)
def chat_tool_and_back(kind):
    for model, count in (("tool", 1), ("two", 2)):
        answer = strictly(chat(f"{kind['name']}.{model}", tools=CHAT_TOOLS))
        check_calls(chat_calls(answer), count)
        equal(answer.choices[0].finish_reason, "tool_calls")
        back = answer.choices[0].message.to_dict()
        follow_chat(kind, back)


@case(tools)
def chat_tool_streamed_and_back(kind):
    for model, count in (("tool", 1), ("two", 2)):
        said = chat_stream(f"{kind['name']}.{model}", tools=CHAT_TOOLS)
        equal(([*said["calls"]], said["finish"]), ([*range(count)], ["tool_calls"]))
        calls = [*said["calls"].values()]
        check_calls([(c["id"], c["name"], json.loads(c["arguments"])) for c in calls], count)
        calls = [
            {"id": c["id"], "type": "function", "function": {"name": c["name"], "arguments": c["arguments"]}}
            for c in calls
        ]
        follow_chat(kind, {"role": "assistant", "content": None, "tool_calls": calls})


def follow_chat(kind, back):
    results = [
        {"role": "tool", "tool_call_id": call["id"], "content": "It is a lamp."}
        for call in back["tool_calls"]
    ]
    turns = [*ASK, back, *results]
    model = f"{kind['name']}.words"
    equal(chat(model, turns, tools=CHAT_TOOLS).choices[0].message.content, TEXT)
    equal(chat_stream(model, turns, tools=CHAT_TOOLS)["text"], TEXT)


@case()
def chat_falls(kind):
    for model in some(FALLS, kind):
        said = chat_stream(f"{kind['name']}.{model}")
        equal((model, said["text"], said["finish"]), (model, SECOND, ["stop"]))
        # No stream, no error in it.
        if model != "fall-event":
            equal(chat(f"{kind['name']}.{model}").choices[0].message.content, SECOND)


@case()
def chat_is_cut(kind):
    for model in some(CUTS, kind):
        said = {}
        error = raises(openai.APIError, lambda: chat_stream(f"{kind['name']}.{model}", into=said))
        check_cut(model, error, openai.APIConnectionError, said["text"])
        equal((said["finish"], error.type), ([], "upstream_error"))


def check_cut(model, error, connection, text):
    assert not isinstance(error, connection), error
    if model == "cut-end":
        assert text.startswith("Hello from sandbox a. token-1 "), text
    else:
        assert text and (CUT + " token-2").startswith(text), text


# Responses.

SEALED = {"include": ["reasoning.encrypted_content"], "store": False}


def respond(model, turns=ASK, gate=GATE, **more):
    return gate.openai.responses.create(model=model, input=turns, **SEALED, **more)


def respond_stream(model, turns=ASK, gate=GATE, into=None, **more):
    """The last event's response, after every event was held against its type and the others."""
    events = into if into is not None else []
    with respond(model, turns, gate, stream=True, **more) as stream:
        for event in stream:
            strictly(event)
            equal(event.sequence_number, len(events))
            events.append(event)
    equal([event.type for event in events[:2]], ["response.created", "response.in_progress"])
    final = strictly(events[-1].response)
    items = {}
    for event in events:
        if event.type == "response.output_item.done":
            items[event.output_index] = event.item.to_dict()
    equal([items[at] for at in sorted(items)], [item.to_dict() for item in final.output])
    equal(deltas(events), (final.output_text, thoughts(final)))
    equal(final.id, events[0].response.id)
    return final


def deltas(events):
    def of(*kinds):
        return "".join(event.delta for event in events if event.type in kinds)

    reasoning = "response.reasoning_summary_text.delta", "response.reasoning_text.delta"
    return of("response.output_text.delta"), of(*reasoning)


def thoughts(answer):
    said = ""
    for item in answer.output:
        if item.type == "reasoning":
            said += "".join(part.text for part in item.summary)
            said += "".join(part.text for part in item.content or [])
    return said


@case()
def responses_plain_and_streamed(kind):
    for ask in (respond, respond_stream):
        answer = strictly(ask(f"{kind['name']}.words"))
        equal((answer.output_text, answer.status, answer.model), (TEXT, "completed", f"{kind['name']}.words"))
        usage = answer.usage
        # As for chat.
        if usage or not kind["copy"]:
            equal((usage.input_tokens, usage.output_tokens, usage.total_tokens), (3, 4, 7))


@case()
def responses_length(kind):
    for ask in (respond, respond_stream):
        answer = ask(f"{kind['name']}.long")
        equal((answer.status, answer.incomplete_details.reason), ("incomplete", "max_output_tokens"))


@case()
def responses_event_types(kind):
    events = []
    respond_stream(f"{kind['name']}.words", into=events)
    kinds = [event.type.removeprefix("response.") for event in events]
    starts = ["created", "in_progress", "output_item.added", "content_part.added"]
    ends = ["output_text.done", "content_part.done", "output_item.done", "completed"]
    equal((kinds[:4], {*kinds[4:-4]}, kinds[-4:]), (starts, {"output_text.delta"}, ends))


@case()
def responses_stream_helper(kind):
    with GATE.openai.responses.stream(model=f"{kind['name']}.words", input=ASK) as stream:
        snapshots = [event.snapshot for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    equal((snapshots[-1], final.output_text), (TEXT, TEXT))


@case()
def responses_thoughts_and_back(kind):
    for ask in (respond, respond_stream):
        answer = ask(f"{kind['name']}.think")
        equal((answer.output_text, thoughts(answer)), (TEXT, THOUGHTS))
        back = [item.to_dict() for item in answer.output]
        turns = [*ASK, *back, {"role": "user", "content": "And now?"}]
        equal(ask(f"{kind['name']}.words", turns).output_text, TEXT)
        if kind["signs"]:
            # What the provider signed goes back to it: it sees that somebody changed it.
            thought = [item for item in back if item["type"] == "reasoning"][-1]
            assert thought["encrypted_content"], thought
            thought["summary"] = [{"type": "summary_text", "text": "Never thought."}]
            thought.pop("content", None)
            raises(openai.BadRequestError, lambda: ask(f"{kind['name']}.words", turns))


@case(tools)
def responses_tools_and_back(kind):
    for ask in (respond, respond_stream):
        for model, count in (("tool", 1), ("two", 2)):
            answer = ask(f"{kind['name']}.{model}", tools=RESPONSES_TOOLS)
            calls = [item for item in answer.output if item.type == "function_call"]
            check_calls([(call.call_id, call.name, json.loads(call.arguments)) for call in calls], count)
            equal(({call.status for call in calls}, answer.status), ({"completed"}, "completed"))
            results = [
                {"type": "function_call_output", "call_id": call.call_id, "output": "It is a lamp."}
                for call in calls
            ]
            turns = [*ASK, *(item.to_dict() for item in answer.output), *results]
            after = ask(f"{kind['name']}.words", turns, tools=RESPONSES_TOOLS)
            equal(after.output_text, TEXT)


@case()
def responses_fall(kind):
    for model in some(FALLS, kind):
        equal((model, respond_stream(f"{kind['name']}.{model}").output_text), (model, SECOND))
        if model != "fall-event":
            equal((model, respond(f"{kind['name']}.{model}").output_text), (model, SECOND))


@case()
def responses_are_cut(kind):
    for model in some(CUTS, kind):
        events = []
        ask = lambda: respond_stream(f"{kind['name']}.{model}", into=events)
        error = raises(openai.APIError, ask)
        check_cut(model, error, openai.APIConnectionError, deltas(events)[0])
        ends = {"response.completed", "response.incomplete"}
        assert not ends & {event.type for event in events}, events


# Messages.

def message(model, turns=ASK, gate=GATE, **more):
    answer = gate.anthropic.messages.create(model=model, messages=turns, max_tokens=4096, **more)
    return strictly(answer)


def message_stream(model, turns=ASK, gate=GATE, into=None, **more):
    """What the helper puts together, after every event was held against its type."""
    seen = into if into is not None else []
    with gate.anthropic.messages.stream(model=model, messages=turns, max_tokens=4096, **more) as stream:
        raw, own = {"message_start", "content_block_start", "content_block_delta"}, {"message_delta"}
        for event in stream:
            if event.type in raw | own:
                strictly(event)
            if event.type == "text":
                seen.append(event.text)
        answer = stream.get_final_message()
    equal(answer.model, model)
    return strictly(answer)


def text(answer):
    return "".join(block.text for block in answer.content if block.type == "text")


def thinking(answer):
    return "".join(block.thinking for block in answer.content if block.type == "thinking")


@case()
def messages_plain_and_streamed(kind):
    for ask in (message, message_stream):
        answer = ask(f"{kind['name']}.words")
        equal([block.type for block in answer.content], ["text"])
        equal((text(answer), answer.stop_reason), (TEXT, "end_turn"))
        if answer.usage.output_tokens or not kind["copy"]:
            equal((answer.usage.input_tokens, answer.usage.output_tokens), (3, 4))
        equal(ask(f"{kind['name']}.long").stop_reason, "max_tokens")


@case()
def messages_text_stream(kind):
    model = f"{kind['name']}.words"
    with GATE.anthropic.messages.stream(model=model, messages=ASK, max_tokens=99) as stream:
        equal("".join(stream.text_stream), TEXT)
        equal(stream.get_final_text(), TEXT)


@case()
def messages_thinking_and_back(kind):
    for ask in (message, message_stream):
        answer = ask(f"{kind['name']}.think", thinking=THINKING)
        equal((text(answer), thinking(answer)), (TEXT, THOUGHTS))
        back = [block.to_dict() for block in answer.content]
        turns = [*ASK, {"role": "assistant", "content": back}, *ASK]
        equal(text(ask(f"{kind['name']}.words", turns, thinking=THINKING)), TEXT)
        if kind["signs"]:
            thought = [block for block in back if block["type"] == "thinking"][-1]
            assert thought["signature"], thought
            thought["thinking"] = "Never thought."
            raises(anthropic.BadRequestError, lambda: ask(f"{kind['name']}.words", turns, thinking=THINKING))


@case(tools)
def messages_tools_and_back(kind):
    for ask in (message, message_stream):
        for model, count in (("tool", 1), ("two", 2)):
            # What thinks not before it calls is not asked to go on thinking.
            more = {"thinking": THINKING} if model == "tool" else {}
            answer = ask(f"{kind['name']}.{model}", tools=MESSAGES_TOOLS, **more)
            calls = [block for block in answer.content if block.type == "tool_use"]
            check_calls([(call.id, call.name, call.input) for call in calls], count)
            equal((answer.stop_reason, thinking(answer)), ("tool_use", THOUGHTS if count == 1 else ""))
            results = [
                {"type": "tool_result", "tool_use_id": call.id, "content": "It is a lamp."} for call in calls
            ]
            back = [block.to_dict() for block in answer.content]
            turns = [*ASK, {"role": "assistant", "content": back}, {"role": "user", "content": results}]
            equal(text(ask(f"{kind['name']}.words", turns, tools=MESSAGES_TOOLS, **more)), TEXT)


@case()
def messages_count_tokens(kind):
    more = {"tools": MESSAGES_TOOLS} if kind["tools"] else {}
    model = f"{kind['name']}.words"
    assert GATE.anthropic.messages.count_tokens(model=model, messages=ASK, **more).input_tokens > 0


@case()
def messages_fall(kind):
    for model in some(FALLS, kind):
        equal((model, text(message_stream(f"{kind['name']}.{model}"))), (model, SECOND))
        if model != "fall-event":
            equal((model, text(message(f"{kind['name']}.{model}"))), (model, SECOND))


@case()
def messages_are_cut(kind):
    for model in some(CUTS, kind):
        seen = []
        ask = lambda: message_stream(f"{kind['name']}.{model}", into=seen)
        error = raises(anthropic.APIError, ask)
        check_cut(model, error, anthropic.APIConnectionError, "".join(seen))


# Parameters, one at a time: a kind serves each, or the gateway knows that it can't. What the provider
# itself refuses was sent up wrongly.


def own(kind):
    """The sandbox answers its copies of OpenAI as OpenAI, which checks nothing more there."""
    return not kind["copy"]


def serves_or_declines(kind, package, parameters, ask, said):
    wrong = []
    for name, more in parameters.items():
        try:
            found = said(ask(f"{kind['name']}.words", **more))
        except package.BadRequestError as error:
            body = error.body.get("error", error.body)
            # What is known before anything is sent is declined without an attempt, and says why.
            tried = body.get("metadata", {}).get("attempts", [])
            known = "can't serve" in body["message"] or "no target" in body["message"]
            if any(attempt["fault"] != "unsendable" for attempt in tried) or not (tried or known):
                wrong.append(f"{name}: {body['message']}")
        except Exception as error:  # noqa: BLE001: told with the others
            wrong.append(f"{name}: {type(error).__name__}: {error}")
        else:
            if found != TEXT:
                wrong.append(f"{name}: said {found!r}")
    assert not wrong, "; ".join(wrong)


class Lamp(BaseModel):
    name: str
    ends: list[int]


LAMP = Lamp(name="lamp", ends=[1, 2])


@case(own)
def parsed_answers(kind):
    """By each package's own way to an answer with a schema."""
    model = f"{kind['name']}.json"
    completions, responses = GATE.openai.chat.completions, GATE.openai.responses
    answer = completions.parse(model=model, messages=ASK, response_format=Lamp)
    equal(answer.choices[0].message.parsed, LAMP)
    with completions.stream(model=model, messages=ASK, response_format=Lamp) as stream:
        equal(stream.get_final_completion().choices[0].message.parsed, LAMP)
    equal(responses.parse(model=model, input=ASK, text_format=Lamp).output_parsed, LAMP)
    with responses.stream(model=model, input=ASK, text_format=Lamp) as stream:
        equal(stream.get_final_response().output_parsed, LAMP)
    ask = {"model": model, "messages": ASK, "max_tokens": 99, "output_format": Lamp}
    equal(GATE.anthropic.messages.parse(**ask).parsed_output, LAMP)
    with GATE.anthropic.messages.stream(**ask) as stream:
        equal(stream.get_final_message().parsed_output, LAMP)


@case(own)
def chat_parameters(kind):
    said = lambda answer: answer.choices[0].message.content
    serves_or_declines(kind, openai, CHAT_PARAMETERS, chat, said)


@case(own)
def responses_parameters(kind):
    serves_or_declines(kind, openai, RESPONSES_PARAMETERS, respond, lambda answer: answer.output_text)


@case(own)
def messages_parameters(kind):
    serves_or_declines(kind, anthropic, MESSAGES_PARAMETERS, message, text)


# What is refused, in each dialect.


def asks(model, gate=GATE):
    for ask in (chat, chat_stream, respond, respond_stream):
        yield openai, lambda: ask(model, gate=gate)
    for ask in (message, message_stream):
        yield anthropic, lambda: ask(model, gate=gate)


@case()
def a_fault_of_the_client(kind):
    for model in ("fault", "too-long"):
        for package, ask in asks(f"{kind['name']}.{model}"):
            error = raises(package.BadRequestError, ask)
            # In the provider's words, which name the sandbox; Messages has its own for a long prompt.
            told = "sandbox a" in error.message or "prompt is too long" in error.message
            assert told, error.message


@case()
def an_unknown_model(kind):
    for package, ask in asks(f"{kind['name']}.none"):
        raises(package.NotFoundError, ask)


@case()
def a_bad_key(kind):
    for package, ask in asks(f"{kind['name']}.words", WRONG):
        raises(package.AuthenticationError, ask)


def attempt(kind, name, run):
    """What went wrong, or None."""
    try:
        run(kind)
    except Exception as error:  # noqa: BLE001: whatever it is, the case failed
        trace = traceback.extract_tb(error.__traceback__)
        mine = [f"{frame.name}:{frame.lineno}" for frame in trace if frame.filename == __file__]
        why = f"{type(error).__name__}: {str(error)[:900]} ({' < '.join(mine[::-1])})"
        return f"FAILED {kind['name']}, {name}, {DRIVER}: {why}"
    return None


def main():
    wanted = sys.argv[1:]
    rows = [
        (kind, name, run)
        for name, only, run in CASES
        for kind in KINDS
        if only(kind) and (not wanted or kind["name"] in wanted or name in wanted)
    ]
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        faults = [fault for fault in pool.map(lambda row: attempt(*row), rows) if fault]
    for fault in faults:
        print(fault)
    print(f"{len(KINDS)} kinds, {len(CASES)} cases")
    print(f"{len(rows) - len(faults)} passed, {len(faults)} failed", flush=True)
    return 1 if faults or not rows else 0


if __name__ == "__main__":
    sys.exit(main())
