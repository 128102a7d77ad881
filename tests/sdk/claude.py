"""A provider that speaks Anthropic's Messages, as far as the suites ask for it: what it does stands in the
model's name. It insists on what the real one insists on: its own key, a version, thoughts given back
unchanged before the call that they led to.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KEY = "sk-ant-upstream"
TEXT = "one two three four five"
SIGNATURE = "c2lnbmVkL2J5K2NsYXVkZQ=="
# What another provider's call would carry; the real one refuses it.
FOREIGN = "firstbyte:gemini:call:Zm9yZWlnbg=="
THINKING = {"type": "thinking", "thinking": "Let me see.", "signature": SIGNATURE}
REDACTED = {"type": "redacted_thinking", "data": "aGlkZGVu"}
CALL = {"type": "tool_use", "id": "toolu_01", "name": "get_weather", "input": {"city": "Łódź"}}
USAGE = {
    "input_tokens": 11,
    "cache_creation_input_tokens": 5,
    "cache_read_input_tokens": 3,
    "output_tokens": 7,
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def refuse(self, status, kind, message):
        self.say(status, {"type": "error", "error": {"type": kind, "message": message}})

    def say(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if self.headers["x-api-key"] != KEY or "authorization" in self.headers:
            return self.refuse(401, "authentication_error", "invalid x-api-key")
        if not self.headers["anthropic-version"]:
            return self.refuse(400, "invalid_request_error", "anthropic-version: header is required")
        path, _, query = self.path.partition("?")
        if path == "/v1/messages/count_tokens":
            return self.say(200, {"input_tokens": 42})
        model = body["model"].removeprefix("claude-")
        if model == "400":
            return self.refuse(400, "invalid_request_error", "messages: something is odd")
        for message in body["messages"]:
            fault = misplaced(message)
            if fault:
                return self.refuse(400, "invalid_request_error", fault)
        content, stop = [{"type": "text", "text": TEXT}], "end_turn"
        if model == "tools" and len(body["messages"]) == 1:
            foreign = {"type": "thinking", "thinking": "", "signature": FOREIGN}
            content = [THINKING, REDACTED, {"type": "text", "text": "I will ask."}, foreign, CALL]
            stop = "tool_use"
        elif model == "beta":
            told = f"{query} {self.headers['anthropic-beta']} {sorted(body)}"
            content = [{"type": "text", "text": told}]
        if body.get("stream"):
            return self.stream(model, content, stop)
        self.say(200, {**head(content), "stop_reason": stop, "stop_sequence": None})

    def stream(self, model, content, stop):
        events = list(events_of(content, stop))
        error = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
        if model == "overloaded":
            events = [events[0], error]
        elif model == "overloaded-late":
            events = [*events[:4], error]
        elif model == "cut":
            events = events[:4]
        data = "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events).encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.wfile.write(data)
        self.close_connection = True


def misplaced(message):
    """What the real one would say against a turn."""
    blocks = message["content"] if isinstance(message["content"], list) else []
    for block in blocks:
        if block["type"] == "text" and not block["text"]:
            return "text content blocks must be non-empty"
        if block["type"] == "thinking" and block != THINKING:
            return "Invalid `signature` in `thinking` block"
    calls = [at for at, block in enumerate(blocks) if block["type"] == "tool_use"]
    if calls and blocks[:2] != [THINKING, REDACTED]:
        return "Expected `thinking` before `tool_use`"
    return None


def head(content):
    return {
        "id": "msg_01",
        "type": "message",
        "role": "assistant",
        "model": "claude-upstream",
        "content": content,
        "usage": USAGE,
    }


def events_of(content, stop):
    yield {"type": "message_start", "message": head([])}
    for index, block in enumerate(content):
        empty, deltas = dict(block), []
        if block["type"] == "text":
            empty["text"] = ""
            words = [word + " " for word in block["text"].split(" ")]
            words[-1] = words[-1].removesuffix(" ")
            deltas = [{"type": "text_delta", "text": word} for word in words]
        elif block["type"] == "thinking":
            empty |= {"thinking": "", "signature": ""}
            if block["thinking"]:
                deltas.append({"type": "thinking_delta", "thinking": block["thinking"]})
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        elif block["type"] == "tool_use":
            empty["input"] = {}
            text = json.dumps(block["input"])
            deltas = [{"type": "input_json_delta", "partial_json": part} for part in (text[:7], text[7:])]
        yield {"type": "content_block_start", "index": index, "content_block": empty}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    usage = {"output_tokens": USAGE["output_tokens"]}
    yield {"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}, "usage": usage}
    yield {"type": "message_stop"}


def start():
    """Serves on a port of its own until `shutdown`; its base URL and itself."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}/v1", server
