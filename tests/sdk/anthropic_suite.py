"""The official `anthropic` package for Python as a client of firstbyte. Run by run.py, which starts the
gateway, sandbox providers that speak OpenAI's chat, and one that speaks Messages (claude.py).
"""

import asyncio
import json
import os
import sys
import unittest

import anthropic
from anthropic import Anthropic, AsyncAnthropic

import claude

OPEN = os.environ["SDK_OPEN"].removesuffix("/v1")
KEYED = os.environ["SDK_KEYED"].removesuffix("/v1")
KEY = os.environ["SDK_KEY"]
PATIENCE = 20.0

ASK = [{"role": "user", "content": "Say something."}]
TEXT = "one two three four five"
FALLBACKS = json.loads(os.environ["SDK_FALLBACKS"])
CUTS = json.loads(os.environ["SDK_CUTS"])
TOOL = {
    "name": "get_weather",
    "description": "The weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
}
# Who answers: a provider of another format, or one of the same.
BOTH = ["words", "claude-text"]


def client(**more):
    return Anthropic(**{"base_url": OPEN, "api_key": "unused", "max_retries": 0, "timeout": PATIENCE, **more})


def ask(model, messages=ASK, **more):
    return {"model": model, "max_tokens": 4096, "messages": messages, **more}


class Answers(unittest.TestCase):
    def setUp(self):
        self.client = client()

    def tearDown(self):
        self.client.close()

    def final(self, **request):
        """What the stream helper puts together."""
        with self.client.messages.stream(**request) as stream:
            for _ in stream:
                pass
            return stream.get_final_message()

    def ways(self, **request):
        """The same, whole and streamed."""
        yield self.client.messages.create(**request)
        yield self.final(**request)

    def test_text(self):
        for model in BOTH:
            for answer in self.ways(**ask(model)):
                with self.subTest(model):
                    self.assertEqual([block.type for block in answer.content], ["text"])
                    self.assertEqual(answer.content[0].text, TEXT)
                    self.assertEqual((answer.type, answer.role), ("message", "assistant"))
                    self.assertEqual((answer.stop_reason, answer.model), ("end_turn", model))
                    self.assertTrue(answer.id.startswith("msg_"), answer.id)
                    self.assertGreater(answer.usage.input_tokens, 0)
                    self.assertGreater(answer.usage.output_tokens, 0)

    def test_text_stream(self):
        for model in BOTH:
            with self.subTest(model), self.client.messages.stream(**ask(model)) as stream:
                self.assertEqual("".join(stream.text_stream), TEXT)

    def test_events_in_order(self):
        for model in BOTH:
            with self.subTest(model):
                events = [e.type for e in self.client.messages.create(**ask(model), stream=True)]
                self.assertEqual(events[:2], ["message_start", "content_block_start"])
                self.assertEqual(set(events[2:-3]), {"content_block_delta"})
                self.assertEqual(events[-3:], ["content_block_stop", "message_delta", "message_stop"])

    def test_usage_is_the_providers(self):
        for answer in self.ways(**ask("claude-text")):
            usage = answer.usage
            got = [usage.input_tokens, usage.cache_creation_input_tokens, usage.cache_read_input_tokens]
            self.assertEqual([*got, usage.output_tokens], [11, 5, 3, 7])

    def test_tools_of_another_format(self):
        for answer in self.ways(**ask("tools", tools=[TOOL], system="Be brief.")):
            calls = [block for block in answer.content if block.type == "tool_use"]
            self.assertEqual([call.name for call in calls], ["get_weather"] * 2)
            self.assertEqual(len({call.id for call in calls}), 2)
            self.assertTrue(all(isinstance(call.input, dict) and call.input for call in calls))
            self.assertEqual(answer.stop_reason, "tool_use")
            results = [{"type": "tool_result", "tool_use_id": c.id, "content": "sunny"} for c in calls]
            turns = [{"role": "assistant", "content": answer.content}, {"role": "user", "content": results}]
            after = self.client.messages.create(**ask("words", [*ASK, *turns], tools=[TOOL]))
            self.assertEqual(after.content[0].text, TEXT)

    def test_thinking_of_another_format(self):
        for answer in self.ways(**ask("thinks", thinking={"type": "adaptive"})):
            self.assertEqual([block.type for block in answer.content], ["thinking", "text"])
            self.assertTrue(answer.content[0].thinking.startswith("thought"))
            # Whoever it is given to, no one refuses it.
            turns = [{"role": "assistant", "content": answer.content}, ASK[0]]
            for model in BOTH:
                after = self.client.messages.create(**ask(model, [*ASK, *turns]))
                self.assertEqual(after.content[0].text, TEXT)

    def test_thinking_and_tools_go_round(self):
        """Thoughts with their signatures are given back unchanged, but for another provider's."""
        thinking = {"type": "enabled", "budget_tokens": 1024}
        for answer in self.ways(**ask("claude-tools", tools=[TOOL], thinking=thinking)):
            blocks = [block.model_dump(exclude_none=True) for block in answer.content]
            kinds = ["thinking", "redacted_thinking", "text", "thinking", "tool_use"]
            self.assertEqual([block["type"] for block in blocks], kinds)
            self.assertEqual(blocks[0], claude.THINKING)
            self.assertEqual(blocks[3]["signature"], claude.FOREIGN)
            self.assertEqual(blocks[4]["input"], claude.CALL["input"])
            self.assertEqual(answer.stop_reason, "tool_use")
            result = {"type": "tool_result", "tool_use_id": answer.content[4].id, "content": "sunny"}
            turns = [{"role": "assistant", "content": answer.content}, {"role": "user", "content": [result]}]
            for model in ["claude-tools", "words"]:
                request = ask(model, [*ASK, *turns], tools=[TOOL], thinking=thinking)
                self.assertEqual(self.client.messages.create(**request).content[0].text, TEXT)

    def test_beta_features_reach_the_provider(self):
        answer = self.client.beta.messages.create(
            **ask("claude-beta"), betas=["a-1", "b-2"], extra_body={"new_field": 1}
        )
        _, betas, members = answer.content[0].text.split(" ", 2)
        self.assertEqual(betas, "a-1,b-2")
        self.assertIn("'new_field'", members)

    def test_tokens_are_counted(self):
        request = {"messages": ASK, "tools": [TOOL]}
        counted = self.client.messages.count_tokens(model="claude-text", **request)
        self.assertEqual(counted.input_tokens, 42)
        self.assertGreater(self.client.messages.count_tokens(model="words", **request).input_tokens, 20)

    def test_models(self):
        names = [model.id for model in self.client.models.list()]
        self.assertLessEqual({"words", "claude-text"}, set(names))
        self.assertEqual(self.client.models.retrieve("words").id, "words")
        with self.assertRaises(anthropic.NotFoundError):
            self.client.models.retrieve("nothing")

    def test_async(self):
        async def run():
            more = {"base_url": OPEN, "api_key": "unused", "max_retries": 0, "timeout": PATIENCE}
            async with AsyncAnthropic(**more) as gateway:
                for model in BOTH:
                    async with gateway.messages.stream(**ask(model)) as stream:
                        self.assertEqual(await stream.get_final_text(), TEXT)

        asyncio.run(run())


class Fallback(unittest.TestCase):
    def test_between_formats(self):
        """A primary of each format fails, one of the other answers."""
        for model, provider in [("claude-then-words", "b"), ("503-then-claude", "claude")]:
            for stream in (False, True):
                with self.subTest(model, stream=stream), client() as gateway:
                    raw = gateway.messages.with_raw_response.create(**ask(model), stream=stream)
                    # Overloaded inside of a stream alone.
                    if stream or model != "claude-then-words":
                        self.assertEqual(raw.headers["x-firstbyte-provider"], provider)
                    answer = raw.parse()
                    if stream:
                        deltas = [e.delta for e in answer if e.type == "content_block_delta"]
                        self.assertEqual("".join(delta.text for delta in deltas), TEXT)
                    else:
                        self.assertEqual(answer.content[0].text, TEXT)

    def test_each_fault_of_a_primary(self):
        for model in FALLBACKS:
            with self.subTest(model), client() as gateway:
                with gateway.messages.stream(**ask(model)) as stream:
                    self.assertEqual(stream.get_final_text(), TEXT)
                self.assertEqual(gateway.messages.create(**ask(model)).content[0].text, TEXT)


class Cuts(unittest.TestCase):
    def test_a_cut_stream_raises(self):
        for model in [*CUTS, "claude-cut", "claude-overloaded-late"]:
            with self.subTest(model), client() as gateway:
                seen = ""
                with self.assertRaises(anthropic.APIStatusError) as caught:
                    with gateway.messages.stream(**ask(model)) as stream:
                        for text in stream.text_stream:
                            seen += text
                self.assertNotEqual(seen, "")
                self.assertNotIn(TEXT, seen)
                error = caught.exception.body["error"]
                self.assertEqual(error["code"], CUTS.get(model, "stream_interrupted"))
                kind = "timeout_error" if error["code"] == "stream_timeout" else "api_error"
                self.assertEqual(error["type"], kind)


class Errors(unittest.TestCase):
    def check(self, kind, status, error_type, base_url=OPEN, api_key="unused", **request):
        with client(base_url=base_url, api_key=api_key) as gateway:
            for stream in (False, True):
                with self.assertRaises(kind) as caught:
                    gateway.messages.create(**request, stream=stream)
                self.assertEqual(caught.exception.status_code, status)
                self.assertEqual(caught.exception.body["type"], "error")
                self.assertEqual(caught.exception.body["error"]["type"], error_type)
                self.assertEqual(caught.exception.body["request_id"], caught.exception.request_id)
        return caught.exception

    def test_keys(self):
        self.check(anthropic.AuthenticationError, 401, "authentication_error", KEYED, "no", **ask("words"))
        with client(base_url=KEYED, api_key=KEY) as gateway:
            self.assertEqual(gateway.messages.create(**ask("claude-text")).content[0].text, TEXT)
        with client(base_url=KEYED, api_key=None, auth_token=KEY) as gateway:
            self.assertEqual(gateway.messages.create(**ask("claude-text")).content[0].text, TEXT)

    def test_unknown_model(self):
        self.check(anthropic.NotFoundError, 404, "not_found_error", **ask("nothing"))

    def test_faults_of_the_client(self):
        bad = (anthropic.BadRequestError, 400, "invalid_request_error")
        error = self.check(*bad, **ask("claude-400"))
        self.assertEqual(error.body["error"]["message"], "messages: something is odd")
        self.check(*bad, **ask("fault-400"))
        self.check(*bad, **ask("words", [{"role": "wizard", "content": "x"}]))
        error = self.check(*bad, **ask("fault-context"))
        self.assertIn("prompt is too long", error.body["error"]["message"])
        tool = {"type": "web_search_20250305", "name": "web_search"}
        error = self.check(*bad, **ask("words", tools=[tool]))
        self.assertIn("tools[0].type", error.body["error"]["message"])

    def test_nobody_answers(self):
        self.check(anthropic.InternalServerError, 502, "api_error", **ask("dead"))
        self.check(anthropic.InternalServerError, 504, "timeout_error", **ask("silent"))

    def test_rate_limits(self):
        error = self.check(anthropic.RateLimitError, 429, "rate_limit_error", **ask("limited-anthropic"))
        self.assertGreaterEqual(int(error.response.headers["retry-after"]), 1)


class Counting(unittest.TextTestResult):
    """Counts each failure once, also those of subtests."""

    passed = 0

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed += 1


if __name__ == "__main__":
    runner = unittest.TextTestRunner(resultclass=Counting, verbosity=1)
    result = runner.run(unittest.defaultTestLoader.loadTestsFromModule(sys.modules["__main__"]))
    failed = len(result.failures) + len(result.errors)
    print(f"{result.passed} passed, {failed} failed", flush=True)
    sys.exit(0 if failed == 0 and result.passed > 0 else 1)
