"""What `firstbyte translate` makes of recorded answers, as the official packages read it: chat and Responses
by `openai`, Messages by `anthropic`. Run by run.py; needs no gateway, and says so where there are no
recordings.

Each recording is played to the package as the response to its own request, so that its own decoder and its
own types read it; what it then says must be what EXPECT.jsonl says. Where nothing passes through, every
event must also be what the package's types require.
"""

import base64
import collections
import concurrent.futures
import functools
import json
import os
import pathlib
import re
import struct
import subprocess
import sys
import traceback
import zlib

import anthropic
import httpx2
import openai
from pydantic import TypeAdapter

BIN = os.environ["SDK_BIN"]
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
FOLDER = REPOSITORY.parent / "shared" / "fixtures"
ASK = [{"role": "user", "content": "x"}]
# The API whose answers go to a client of the dialect as they are.
SAME = {"chat": "openai-chat", "messages": "anthropic-messages", "responses": "openai-responses"}
# What `translate` says of an API that it does not read, or not for a client of that dialect.
UNREAD = (b"is not in this version", b"is no conversation")
# Tools that a provider carries out itself, though they look like the client's.
SERVED = {"x_keyword_search", "x_semantic_search", "x_thread_fetch", "x_user_search"}


class Said:
    """What an answer says, in the words of EXPECT.jsonl."""

    def __init__(self):
        self.text = self.reasoning = self.refusal = ""
        self.calls = []
        self.finish = self.usage = None

    def call(self, name, arguments):
        self.calls.append({"name": name, "arguments": parsed(arguments)})

    def counts(self, prompt, completion, cached, reasoning):
        self.usage = {
            "prompt": prompt, "completion": completion, "cached": cached or 0, "reasoning": reasoning or 0
        }


def parsed(arguments):
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


@functools.cache
def adapter(kind):
    return TypeAdapter(kind)


def strictly(value):
    adapter(type(value)).validate_json(json.dumps(value.to_dict()), strict=True)


def transport(body, stream, status):
    kind = "text/event-stream" if stream else "application/json"
    answer = httpx2.Response(status, headers={"content-type": kind}, content=body)
    return httpx2.Client(transport=httpx2.MockTransport(lambda _: answer))


def openai_of(http):
    return openai.OpenAI(base_url="http://x/v1", api_key="x", max_retries=0, http_client=http)


def chat(http, stream, check, passed):
    said = Said()
    create = openai_of(http).chat.completions.create
    if not stream:
        answer = create(model="model", messages=ASK)
        check(answer)
        choice, message = answer.choices[0], answer.choices[0].message
        said.text, said.refusal = message.content or "", message.refusal or ""
        said.reasoning = getattr(message, "reasoning_content", None) or ""
        for call in message.tool_calls or []:
            assert call.id and call.type == "function", call
            said.call(call.function.name, call.function.arguments)
        said.finish = choice.finish_reason
        usage_of_chat(said, answer.usage)
        return said
    calls, usage = {}, None
    for chunk in create(model="model", messages=ASK, stream=True):
        check(chunk)
        usage = chunk.usage or usage
        for choice in chunk.choices:
            if choice.index:
                continue
            delta = choice.delta
            said.text += delta.content or ""
            said.refusal += delta.refusal or ""
            said.reasoning += getattr(delta, "reasoning_content", None) or ""
            for part in delta.tool_calls or []:
                first = part.index not in calls
                assert not first or (part.index == len(calls) and part.id and part.type == "function"), part
                call = calls.setdefault(part.index, [part.function.name, ""])
                call[1] += part.function.arguments or ""
            if choice.finish_reason:
                assert said.finish is None, "two finish reasons"
                said.finish = choice.finish_reason
    for call in calls.values():
        said.call(*call)
    usage_of_chat(said, usage)
    return said


def completions(http, stream, check, passed):
    """The older surface, which is a chat client's too."""
    said, usage = Said(), None
    answer = openai_of(http).completions.create(model="model", prompt="x", stream=stream)
    for part in answer if stream else [answer]:
        check(part)
        usage = part.usage or usage
        for choice in part.choices:
            if choice.index:
                continue
            said.text += choice.text or ""
            said.finish = choice.finish_reason or said.finish
    usage_of_chat(said, usage)
    return said


def usage_of_chat(said, usage):
    if usage:
        prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
        cached, reasoning = prompt and prompt.cached_tokens, completion and completion.reasoning_tokens
        said.counts(usage.prompt_tokens, usage.completion_tokens, cached, reasoning)


def messages(http, stream, check, passed):
    said = Said()
    client = anthropic.Anthropic(base_url="http://x", api_key="x", max_retries=0, http_client=http)
    ask = {"model": "model", "max_tokens": 9, "messages": ASK}
    if stream:
        raw = {"message_start", "message_delta", "content_block_start", "content_block_delta"}
        with client.messages.stream(**ask) as events:
            for event in events:
                if event.type in raw:
                    check(event)
            answer = events.get_final_message()
    else:
        answer = client.messages.create(**ask)
    check(answer)
    for block in answer.content:
        if block.type == "text":
            said.text += block.text
        elif block.type == "thinking":
            said.reasoning += block.thinking
        elif block.type == "tool_use":
            said.calls.append({"name": block.name, "arguments": block.input})
    said.finish = answer.stop_reason
    usage = answer.usage
    cached = usage.cache_read_input_tokens or 0
    prompt = usage.input_tokens + cached + (usage.cache_creation_input_tokens or 0)
    thought = usage.output_tokens_details
    said.counts(prompt, usage.output_tokens, cached, thought and thought.thinking_tokens)
    return said


def responses(http, stream, check, passed):
    said = Said()
    create = openai_of(http).responses.create
    answer, text, thoughts, done = None, "", "", {}
    if stream:
        for event in create(model="model", input="x", stream=True):
            check(event)
            if event.type == "response.output_text.delta":
                text += event.delta
            elif event.type in ("response.reasoning_summary_text.delta", "response.reasoning_text.delta"):
                thoughts += event.delta
            elif event.type == "response.output_item.done":
                done[event.output_index] = event.item
            elif event.type in ("response.completed", "response.incomplete"):
                answer = event.response
        assert answer is not None, "no last event, and no exception"
        output = answer.output or [done[at] for at in sorted(done)]
    else:
        answer = create(model="model", input="x")
        output = answer.output
    check(answer)
    paragraphs, whole = [], ""
    for item in output:
        if item.type == "message":
            for part in item.content:
                said.text += part.text if part.type == "output_text" else ""
                said.refusal += part.refusal if part.type == "refusal" else ""
        elif item.type == "reasoning":
            paragraphs += [part.text for part in item.summary if part.text]
            whole += "".join(part.text for part in item.content or [] if not item.summary)
        elif item.type == "function_call":
            said.call(item.name, item.arguments)
        elif item.type == "custom_tool_call" and getattr(item, "call_id", None) and item.name not in SERVED:
            said.call(item.name, item.input)
    # Summaries are paragraphs; what was told of another format has its own line ends.
    said.reasoning = (("\n\n" if passed else "").join(paragraphs)) + whole
    if stream:
        told = (said.text, "".join(paragraphs) + whole)
        assert (text, thoughts) == told, "the last event says something else"
    if answer.status == "incomplete":
        said.finish = answer.incomplete_details.reason
    else:
        said.finish = answer.status
    if answer.usage:
        usage = answer.usage
        cached, reasoning = usage.input_tokens_details, usage.output_tokens_details
        cached, reasoning = cached and cached.cached_tokens, reasoning and reasoning.reasoning_tokens
        said.counts(usage.input_tokens, usage.output_tokens, cached, reasoning)
    return said


READERS = {"chat": chat, "messages": messages, "responses": responses}
# The words for why an answer ended.
ENDS = {
    "chat": {word: {word} for word in ("stop", "length", "tool_calls", "content_filter")},
    "messages": {
        "stop": {"end_turn", "stop_sequence", "pause_turn"},
        "length": {"max_tokens", "model_context_window_exceeded"},
        "tool_calls": {"tool_use"},
        "content_filter": {"refusal"},
    },
    "responses": {
        "stop": {"completed"},
        "tool_calls": {"completed"},
        "length": {"max_output_tokens"},
        "content_filter": {"content_filter"},
    },
}


def compare(dialect, said, expect):
    """Raises where it says something else than was expected."""
    want = {key: expect[key] or "" for key in ("text", "reasoning", "refusal")}
    calls, finish = expect["tool_calls"], expect["finish_reason"]
    usage = dict(expect["usage"] or {})
    if dialect == "messages":
        # A refusal is a text, and the reason for its end; arguments that are no object stand in one.
        finish = "content_filter" if want["refusal"] else finish
        want |= {"text": want["text"] + want["refusal"], "refusal": ""}
        calls = [
            call if isinstance(call["arguments"], dict)
            else {**call, "arguments": {"INVALID_JSON": call["arguments"]}}
            for call in calls
        ]
        # Arguments that the limit cut are what the package can read of them.
        if said.finish == "max_tokens":
            calls = said.calls
        # Cached tokens are told beside the others, so there can't be more of them than of all.
        if usage:
            usage["cached"] = min(usage["cached"], usage["prompt"])
    if dialect == "responses":
        finish = finish or "stop"
    for key, value in want.items():
        same(key, getattr(said, key), value)
    same("tool calls", said.calls, calls)
    if finish:
        assert said.finish in ENDS[dialect].get(finish, {finish}), f"{said.finish} instead of {finish}"
    if usage:
        same("usage", said.usage, {key: usage[key] for key in ("prompt", "completion", "cached", "reasoning")})


def same(what, found, wanted):
    assert found == wanted, f"{what}: {found!r:.300} instead of {wanted!r:.300}"


def body_of(row):
    """A recording as it was on the wire."""
    body = (FOLDER / row["file"]).read_bytes()
    if row["wire"] != "jsonl-of-data-payloads":
        return body
    lines = [line for line in body.splitlines() if line]
    if row["api"].startswith("bedrock"):
        return b"".join(aws_message(line, row["api"] == "bedrock-invoke") for line in lines)
    return b"".join(b"data: " + line + b"\n\n" for line in lines)


def aws_message(line, invoked):
    """A payload as a message of the AWS event stream: under the name that it has, or as a chunk."""
    if invoked:
        name, payload = "chunk", {"bytes": base64.b64encode(line).decode()}
    else:
        [(name, payload)] = json.loads(line).items()
    headers = b""
    for field, value in ((b":event-type", name.encode()), (b":message-type", b"event")):
        headers += struct.pack("!B", len(field)) + field + struct.pack("!BH", 7, len(value)) + value
    payload = json.dumps(payload).encode()
    out = struct.pack("!II", 16 + len(headers) + len(payload), len(headers))
    out += struct.pack("!I", zlib.crc32(out)) + headers + payload
    return out + struct.pack("!I", zlib.crc32(out))


def check_row(dialect, row, expect):
    """Whether it was an "answer" or an "error", or is "unread"."""
    body, stream = body_of(row), row["stream"] and row["status"] == 200
    command = [BIN, "translate", "--from", row["provider"], "--api", row["api"], "--to", dialect]
    command += ["--status", str(row["status"])] + ([] if stream else ["--no-stream"])
    done = subprocess.run(command, input=body, capture_output=True)
    if not done.stdout and any(words in done.stderr for words in UNREAD):
        return "unread"
    good = done.returncode == 0
    older = row["api"] == "openai-completions" and dialect == "chat"
    passed = older or row["api"] == SAME[dialect]
    reader = completions if older else READERS[dialect]
    check = (lambda _: None) if passed else strictly
    # What was whole fails with a status; a stream that was begun fails inside of it.
    status = 200 if good or done.stdout.startswith((b"data: ", b"event: ")) else max(row["status"], 400)
    http = transport(done.stdout, status == 200 and stream, status)
    # A whole answer, or `[DONE]`, without a finish reason is no error: the reason is derived.
    derived = expect["error"] is None and (not stream or b"[DONE]" in body)
    package = anthropic if dialect == "messages" else openai
    try:
        said = reader(http, status == 200 and stream, check, passed)
    except package.APIError as error:
        assert not isinstance(error, package.APIResponseValidationError), error
        assert error.message, "an error that says nothing"
        assert not good, f"exit code 0, and {error}"
        assert expect["error"] or not expect["terminal"], f"a bad end: {error}"
        # The client's fault in the provider's words; a credential that it refused is the gateway's.
        if row["status"] in (400, 422) and "gateway's credential" not in error.message:
            assert bare(expect["error"]) in bare(error.message), f"{expect['error']} is told as {error.message}"
        return "error"
    assert good, "exit code 1, and nothing was raised"
    assert not expect["error"] and (expect["terminal"] or derived), "a good end where there was none"
    compare(dialect, said, expect)
    return "answer"


def bare(text):
    """The beginning of a message, whatever its JSON is spaced and quoted like."""
    return re.sub(r"""[\s"'\\]""", "", text)


def attempt(dialect, row, expect):
    try:
        return check_row(dialect, row, expect), None
    except Exception as error:  # noqa: BLE001: whatever it is, the row failed
        trace = traceback.extract_tb(error.__traceback__)
        mine = [f"{frame.name}:{frame.lineno}" for frame in trace if frame.filename == __file__]
        why = f"{type(error).__name__}: {error} ({' < '.join(mine[::-1])})"
        return None, f"FAILED {dialect}, {row['file']}: {why}"


def lines(name):
    return [json.loads(line) for line in (FOLDER / name).read_text().splitlines()]


def main():
    if not (FOLDER / "EXPECT.jsonl").exists():
        print("SKIPPED: there are no recordings at ../shared/fixtures")
        print("0 passed, 0 failed")
        return 0
    only = sys.argv[1:]
    # Read differently on purpose.
    different = re.findall(r"`([^`]*)`", (REPOSITORY / "docs" / "fixtures.md").read_text())
    expected = {row["file"]: row for row in lines("EXPECT.jsonl")}
    rows = [
        (dialect, row, expected[row["file"]])
        for dialect in READERS
        for row in lines("INDEX.jsonl")
        if row["file"] in expected and row["file"] not in different
        and all(word in f"{dialect} {row['file']}" for word in only)
    ]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = [*pool.map(lambda row: attempt(*row), rows)]
    faults = [fault for _, fault in results if fault]
    for fault in faults:
        print(fault)
    found = [(row, what) for row, (what, _) in zip(rows, results) if what]
    read = collections.Counter((row[0], what) for row, what in found if what != "unread")
    print(", ".join(f"{dialect} {what}s: {count}" for (dialect, what), count in sorted(read.items())))
    unread = {f"{row[1]['api']} as {row[0]}" for row, what in found if what == "unread"}
    print(f"not read: {', '.join(sorted(unread)) or 'none'}")
    print(f"{sum(read.values())} passed, {len(faults)} failed", flush=True)
    return 1 if faults or not read else 0


if __name__ == "__main__":
    sys.exit(main())
