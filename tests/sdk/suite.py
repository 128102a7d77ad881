"""The official Python SDK as a client of firstbyte. Run by run.py, which starts the gateway and the
sandbox providers and says where they are by environment variables.

Nothing here waits for a time to pass: what is awaited is a line of the ledger, or the end of a stream.
"""

import asyncio
import concurrent.futures
import json
import os
import sys
import time
import unittest
import uuid

import openai
from openai import AsyncOpenAI, OpenAI

OPEN = os.environ["SDK_OPEN"]
KEYED = os.environ["SDK_KEYED"]
KEY = os.environ["SDK_KEY"]
LEDGER = os.environ["SDK_LEDGER"]
PATIENCE = 20.0

ASK = [{"role": "user", "content": "Say something."}]
TEXT = "one two three four five"
FALLBACKS = json.loads(os.environ["SDK_FALLBACKS"])
CUTS = json.loads(os.environ["SDK_CUTS"])
TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


def client(**more):
    return OpenAI(**{"base_url": OPEN, "api_key": "unused", "max_retries": 0, "timeout": PATIENCE, **more})


def async_client(**more):
    return AsyncOpenAI(
        **{"base_url": OPEN, "api_key": "unused", "max_retries": 0, "timeout": PATIENCE, **more}
    )


def text_of(chunks):
    return "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)


def finishes(chunks):
    return [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason]


def ledger_of(request_id):
    """The ledger's line of that request, once it is written."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        with open(LEDGER, encoding="utf-8") as file:
            lines = [line for line in file if request_id in line and line.endswith("\n")]
        if lines:
            assert len(lines) == 1, lines
            return json.loads(lines[0])
        time.sleep(0.01)
    raise AssertionError(f"no ledger line for {request_id}")


class Answers(unittest.TestCase):
    def setUp(self):
        self.client = client()

    def tearDown(self):
        self.client.close()

    def test_plain(self):
        answer = self.client.chat.completions.create(model="words", messages=ASK)
        self.assertEqual(answer.choices[0].message.content, TEXT)
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        self.assertEqual(answer.model, "words")
        self.assertGreater(answer.usage.total_tokens, 0)

    def test_streamed(self):
        with self.client.chat.completions.create(model="words", messages=ASK, stream=True) as stream:
            chunks = list(stream)
        self.assertEqual(text_of(chunks), TEXT)
        self.assertEqual(finishes(chunks), ["stop"])
        self.assertEqual({c.id for c in chunks}, {chunks[0].id})
        self.assertEqual({c.model for c in chunks}, {"words"})

    def test_usage_chunk_comes_when_asked_for(self):
        chunks = list(
            self.client.chat.completions.create(
                model="ok", messages=ASK, stream=True, stream_options={"include_usage": True}
            )
        )
        self.assertEqual(chunks[-1].choices, [])
        self.assertGreater(chunks[-1].usage.completion_tokens, 0)
        self.assertTrue(all(c.usage is None for c in chunks[:-1]))

    def test_stream_helper_puts_the_answer_together(self):
        seen = []
        with self.client.chat.completions.stream(model="words", messages=ASK) as stream:
            for event in stream:
                if event.type == "content.delta":
                    seen.append(event.delta)
            final = stream.get_final_completion()
        self.assertEqual("".join(seen), TEXT)
        self.assertEqual(final.choices[0].message.content, TEXT)
        self.assertEqual(final.choices[0].finish_reason, "stop")

    def test_tools_plain(self):
        answer = self.client.chat.completions.create(model="tools", messages=ASK, tools=[TOOL])
        calls = answer.choices[0].message.tool_calls
        self.assertEqual([call.function.name for call in calls], ["get_weather"] * 2)
        for call in calls:
            self.assertIsInstance(json.loads(call.function.arguments), dict)
        self.assertEqual(answer.choices[0].finish_reason, "tool_calls")

    def test_tools_streamed(self):
        calls = {}
        stream = self.client.chat.completions.create(
            model="tools", messages=ASK, tools=[TOOL], stream=True
        )
        chunks = list(stream)
        for chunk in chunks:
            for part in chunk.choices[0].delta.tool_calls or [] if chunk.choices else []:
                call = calls.setdefault(part.index, {"arguments": ""})
                call["id"] = part.id or call.get("id")
                call["name"] = part.function.name or call.get("name")
                call["arguments"] += part.function.arguments or ""
        self.assertEqual(sorted(calls), [0, 1])
        self.assertEqual(len({call["id"] for call in calls.values()}), 2)
        for call in calls.values():
            self.assertEqual(call["name"], "get_weather")
            self.assertIsInstance(json.loads(call["arguments"]), dict)
        self.assertEqual(finishes(chunks), ["tool_calls"])

    def test_tools_by_the_stream_helper(self):
        tool = {**TOOL, "function": {**TOOL["function"], "strict": True}}
        with self.client.chat.completions.stream(
            model="tools", messages=ASK, tools=[tool]
        ) as stream:
            final = stream.get_final_completion()
        calls = final.choices[0].message.tool_calls
        self.assertEqual([call.function.name for call in calls], ["get_weather"] * 2)

    def test_completions(self):
        answer = self.client.completions.create(model="words", prompt="Say")
        self.assertIn("one", answer.choices[0].text)
        chunks = list(self.client.completions.create(model="words", prompt="Say", stream=True))
        said = "".join(c.choices[0].text for c in chunks if c.choices)
        self.assertEqual(said, answer.choices[0].text)

    def test_embeddings(self):
        answer = self.client.embeddings.create(model="ok", input=["a", "b"])
        self.assertEqual([row.index for row in answer.data], [0, 1])
        self.assertEqual(len(answer.data[0].embedding), len(answer.data[1].embedding))
        self.assertGreater(len(answer.data[0].embedding), 0)
        floats = self.client.embeddings.create(model="ok", input="a", encoding_format="float")
        self.assertIsInstance(floats.data[0].embedding[0], float)

    def test_models(self):
        names = [model.id for model in self.client.models.list()]
        self.assertIn("words", names)
        self.assertEqual(len(names), len(set(names)))
        self.assertEqual(self.client.models.retrieve("words").id, "words")

    def test_parallel_requests_do_not_mix(self):
        models = ["ok", "words", "tools", *FALLBACKS] * 4

        def run(model):
            chunks = list(
                self.client.chat.completions.create(
                    model=model, messages=ASK, tools=[TOOL], stream=True
                )
            )
            return {c.model for c in chunks}, len(finishes(chunks))

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            for model, (names, ends) in zip(models, pool.map(run, models)):
                self.assertEqual((names, ends), ({model}, 1), model)

    def test_a_large_request_falls_back(self):
        """Well past what any socket buffer holds."""
        ask = [{"role": "user", "content": "x" * (4 << 20)}]
        answer = self.client.chat.completions.create(model="fall-503", messages=ask)
        self.assertEqual(answer.choices[0].message.content, TEXT)


class Fallback(unittest.TestCase):
    """A primary that fails in each way, before commit: the client sees the second answer alone."""

    def test_streamed(self):
        for model in FALLBACKS:
            with self.subTest(model), client() as gateway:
                raw = gateway.chat.completions.with_raw_response.create(
                    model=model, messages=ASK, stream=True
                )
                self.assertEqual(raw.status_code, 200)
                attempts = raw.headers["x-firstbyte-attempts"].split(", ")
                self.assertEqual(len(attempts), 2, attempts)
                self.assertNotIn(";ok;", attempts[0])
                self.assertIn(";ok;", attempts[1])
                self.assertEqual(raw.headers["x-firstbyte-provider"], "b")
                self.assertEqual(raw.headers["x-firstbyte-model"], model)
                chunks = list(raw.parse())
                self.assertEqual(text_of(chunks), TEXT)
                self.assertEqual(finishes(chunks), ["stop"])
                self.assertEqual(len({c.id for c in chunks}), 1)

    def test_plain(self):
        for model in FALLBACKS:
            with self.subTest(model), client() as gateway:
                answer = gateway.chat.completions.create(model=model, messages=ASK)
                self.assertEqual(answer.choices[0].message.content, TEXT)
                self.assertEqual(answer.model, model)

    def test_the_ledger_names_both_attempts(self):
        request_id = f"py-{uuid.uuid4()}"
        with client() as gateway:
            list(
                gateway.chat.completions.create(
                    model="fall-503",
                    messages=ASK,
                    stream=True,
                    extra_headers={"x-request-id": request_id},
                )
            )
        line = json.dumps(ledger_of(request_id))
        self.assertIn("a/503", line)
        self.assertIn("b/", line)

    def test_a_rate_limited_target_is_left_alone(self):
        with client() as gateway:
            tried = []
            for _ in range(2):
                raw = gateway.chat.completions.with_raw_response.create(
                    model="cooled-python", messages=ASK
                )
                tried.append(raw.headers["x-firstbyte-attempts"].split(", "))
        self.assertEqual([len(attempts) for attempts in tried], [2, 1], tried)
        self.assertIn(";429;", tried[0][0])

    def test_an_answer_cut_in_the_middle_is_not_seen_if_it_is_not_streamed(self):
        with client() as gateway:
            answer = gateway.chat.completions.create(model="cut-plain", messages=ASK)
        self.assertEqual(answer.choices[0].message.content, TEXT)

    def test_the_routing_vocabulary(self):
        with client() as gateway:
            raw = gateway.chat.completions.with_raw_response.create(
                model="either", messages=ASK, extra_body={"provider": {"order": ["b"]}}
            )
            self.assertEqual(raw.headers["x-firstbyte-provider"], "b")
            raw = gateway.chat.completions.with_raw_response.create(
                model="dead", messages=ASK, extra_body={"models": ["words"]}
            )
            self.assertEqual(raw.parse().choices[0].message.content, TEXT)
            with self.assertRaises(openai.APIStatusError) as caught:
                gateway.chat.completions.create(
                    model="fall-503",
                    messages=ASK,
                    extra_body={"provider": {"allow_fallbacks": False}},
                )
            self.assertEqual(caught.exception.status_code, 502)


class ErrorsBeforeCommit(unittest.TestCase):
    def setUp(self):
        self.client = client()

    def tearDown(self):
        self.client.close()

    def raises(self, kind, status, model, stream, **more):
        with self.assertRaises(kind) as caught:
            answer = self.client.chat.completions.create(
                model=model, messages=ASK, stream=stream, **more
            )
            if stream:
                list(answer)
        error = caught.exception
        self.assertEqual(error.status_code, status)
        self.assertTrue(error.message)
        return error

    def test_all_attempts_failed(self):
        for stream in (False, True):
            error = self.raises(openai.InternalServerError, 502, "dead", stream)
            self.assertEqual(error.code, "all_attempts_failed")
            self.assertIn("no provider could answer", error.message)
            tried = [attempt["target"] for attempt in error.body["metadata"]["attempts"]]
            self.assertEqual(tried, ["a/503", "b/reset"])
            self.assertTrue(error.request_id)

    def test_all_attempts_timed_out(self):
        error = self.raises(openai.InternalServerError, 504, "silent", True)
        self.assertEqual(error.code, "all_attempts_timed_out")

    def test_a_client_fault_keeps_the_providers_message_and_is_not_retried(self):
        for stream in (False, True):
            error = self.raises(openai.BadRequestError, 400, "fault-400", stream)
            self.assertEqual(len(error.body["metadata"]["attempts"]), 1)
        error = self.raises(openai.BadRequestError, 400, "fault-context", False)
        self.assertEqual(error.code, "context_length_exceeded")
        error = self.raises(openai.BadRequestError, 400, "fault-policy", False)
        self.assertEqual(error.code, "content_policy_violation")

    def test_rate_limited(self):
        error = self.raises(openai.RateLimitError, 429, "limited", True)
        self.assertGreater(int(error.response.headers["retry-after"]), 0)

    def test_unknown_model(self):
        error = self.raises(openai.NotFoundError, 404, "no-such-model", True)
        self.assertEqual(error.code, "model_not_found")
        with self.assertRaises(openai.NotFoundError):
            self.client.models.retrieve("no-such-model")

    def test_a_bad_request_touches_no_upstream(self):
        error = self.raises(openai.BadRequestError, 400, "ok", False, temperature="hot")
        self.assertEqual(error.param, "temperature")
        self.assertNotIn("metadata", error.body)
        error = self.raises(
            openai.BadRequestError, 400, "ok", False, extra_body={"provider": {"quantizations": ["int4"]}}
        )
        self.assertEqual(error.param, "provider.quantizations")

    def test_the_sdk_does_not_multiply_the_gateways_attempts(self):
        """A spent plan says that trying again is pointless; the SDK, set to retry, obeys."""
        for model in ("dead", "fault-400"):
            answered = []
            with client(max_retries=2) as gateway:
                gateway._client.event_hooks["response"].append(answered.append)
                with self.assertRaises(openai.APIStatusError):
                    gateway.chat.completions.create(model=model, messages=ASK)
            self.assertEqual(len(answered), 1, model)


class ErrorsAfterCommit(unittest.TestCase):
    """Content went out, then the provider failed: the SDK raises, and never ends as if all was well."""

    def test_streams(self):
        for model, code in CUTS.items():
            with self.subTest(model), client() as gateway:
                chunks = []
                with self.assertRaises(openai.APIError) as caught:
                    for chunk in gateway.chat.completions.create(
                        model=model, messages=ASK, stream=True
                    ):
                        chunks.append(chunk)
                error = caught.exception
                self.assertNotIsInstance(error, openai.APIConnectionError)
                self.assertNotIsInstance(error, openai.APIStatusError)
                self.assertEqual(error.code, code)
                self.assertEqual(error.type, "upstream_error")
                self.assertTrue(text_of(chunks), "content came before the cut")
                self.assertEqual(finishes(chunks), [])

    def test_the_connection_is_fit_for_the_next_request(self):
        with client() as gateway:
            for model in CUTS:
                with self.assertRaises(openai.APIError):
                    list(gateway.chat.completions.create(model=model, messages=ASK, stream=True))
            answer = gateway.chat.completions.create(model="words", messages=ASK)
            self.assertEqual(answer.choices[0].message.content, TEXT)

    def test_the_stream_helper_raises(self):
        with client() as gateway, self.assertRaises(openai.APIError):
            with gateway.chat.completions.stream(model="cut-fin", messages=ASK) as stream:
                stream.until_done()

    def test_commit_complete_hides_a_cut(self):
        with client() as gateway:
            chunks = list(
                gateway.chat.completions.create(
                    model="cut-late",
                    messages=ASK,
                    stream=True,
                    extra_headers={"x-firstbyte-commit": "complete"},
                )
            )
        self.assertEqual(text_of(chunks), TEXT)


class Cancel(unittest.TestCase):
    def test_in_the_middle_of_a_stream(self):
        request_id = f"py-{uuid.uuid4()}"
        with client() as gateway:
            stream = gateway.chat.completions.create(
                model="slow", messages=ASK, stream=True, extra_headers={"x-request-id": request_id}
            )
            for chunk in stream:
                if chunk.choices and chunk.choices[0].delta.content:
                    break
            stream.close()
        self.assertEqual(ledger_of(request_id)["ending"], "gone")

    def test_while_nothing_has_come(self):
        request_id = f"py-{uuid.uuid4()}"
        with client(timeout=0.2) as gateway, self.assertRaises(openai.APITimeoutError):
            gateway.chat.completions.create(
                model="late", messages=ASK, stream=True, extra_headers={"x-request-id": request_id}
            )
        line = ledger_of(request_id)
        self.assertEqual((line["ending"], line["status"]), ("gone", 499))
        self.assertEqual(len(line["attempts"]), 1, "nothing further is tried")

    def test_an_async_task(self):
        request_id = f"py-{uuid.uuid4()}"

        async def run():
            async with async_client() as gateway:
                begun = asyncio.Event()

                async def read():
                    async for _ in await gateway.chat.completions.create(
                        model="slow",
                        messages=ASK,
                        stream=True,
                        extra_headers={"x-request-id": request_id},
                    ):
                        begun.set()

                task = asyncio.create_task(read())
                await begun.wait()
                task.cancel()
                with self.assertRaises(asyncio.CancelledError):
                    await task

        asyncio.run(run())
        self.assertEqual(ledger_of(request_id)["ending"], "gone")


class Async(unittest.IsolatedAsyncioTestCase):
    async def asyncSetUp(self):
        self.client = async_client()

    async def asyncTearDown(self):
        await self.client.close()

    async def test_plain(self):
        answer = await self.client.chat.completions.create(model="fall-503", messages=ASK)
        self.assertEqual(answer.choices[0].message.content, TEXT)

    async def test_streamed(self):
        async def one(model):
            stream = await self.client.chat.completions.create(
                model=model, messages=ASK, stream=True
            )
            return text_of([chunk async for chunk in stream])

        said = await asyncio.gather(*(one(model) for model in ["words", *FALLBACKS] * 3))
        self.assertEqual(set(said), {TEXT})

    async def test_stream_helper(self):
        async with self.client.chat.completions.stream(model="words", messages=ASK) as stream:
            final = await stream.get_final_completion()
        self.assertEqual(final.choices[0].message.content, TEXT)

    async def test_errors(self):
        with self.assertRaises(openai.InternalServerError):
            await self.client.chat.completions.create(model="dead", messages=ASK)
        with self.assertRaises(openai.APIError) as caught:
            async for _ in await self.client.chat.completions.create(
                model="cut-fin", messages=ASK, stream=True
            ):
                pass
        self.assertEqual(caught.exception.code, "stream_interrupted")


class Keys(unittest.TestCase):
    def test_the_right_key(self):
        with client(base_url=KEYED, api_key=KEY) as gateway:
            answer = gateway.chat.completions.create(model="words", messages=ASK)
            self.assertEqual(answer.choices[0].message.content, TEXT)

    def test_a_wrong_key(self):
        with client(base_url=KEYED, api_key="sk-wrong") as gateway:
            with self.assertRaises(openai.AuthenticationError) as caught:
                gateway.chat.completions.create(model="words", messages=ASK)
            self.assertEqual(caught.exception.code, "invalid_api_key")
            with self.assertRaises(openai.AuthenticationError):
                gateway.models.list()

    def test_the_gateways_key_stays_at_the_gateway(self):
        """The sandbox echoes what it got on a path that is passed through."""
        with client(base_url=KEYED, api_key=KEY) as gateway:
            echoed = gateway.post("/rerank", body={"model": "ok"}, cast_to=object)
        self.assertNotIn(KEY, json.dumps(echoed))


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
