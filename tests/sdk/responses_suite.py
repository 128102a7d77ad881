"""The official Python SDK as a client of firstbyte's Responses API. Run by run.py.

Each case runs before two gateways: one whose providers speak chat, so that everything is translated, and
one before that, whose provider speaks Responses, so that everything is passed on unchanged.
"""

import asyncio
import json
import os
import sys
import unittest

import openai
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

OPEN = os.environ["SDK_OPEN"]
THROUGH = os.environ["SDK_THROUGH"]
PATIENCE = 20.0

TEXT = "one two three four five"
FALLBACKS = json.loads(os.environ["SDK_FALLBACKS"])
CUTS = json.loads(os.environ["SDK_CUTS"])
TOOL = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a city",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}
# The SDK itself checks nothing of what it is given.
EVENT = TypeAdapter(ResponseStreamEvent)


def client(base_url=OPEN):
    return OpenAI(base_url=base_url, api_key="unused", max_retries=0, timeout=PATIENCE)


def checked(events):
    """The events of a stream, each held against its type, and their numbers."""
    seen = []
    for event in events:
        EVENT.validate_python(event.to_dict())
        assert event.sequence_number == len(seen), event
        seen.append(event)
    return seen


class Cases:
    """What holds for both."""

    base_url = OPEN

    def setUp(self):
        self.client = client(self.base_url)

    def tearDown(self):
        self.client.close()

    def stream(self, **more):
        asked = {"model": "words", "input": "Say something.", "stream": True, **more}
        return self.client.responses.create(**asked)

    def test_plain(self):
        answer = self.client.responses.create(model="words", input="Say something.")
        Response.model_validate(answer.to_dict())
        self.assertEqual((answer.output_text, answer.status), (TEXT, "completed"))
        self.assertEqual((answer.model, answer.object), ("words", "response"))
        usage = answer.usage
        self.assertEqual(usage.total_tokens, usage.input_tokens + usage.output_tokens)
        self.assertTrue(answer.id.startswith("resp_"))

    def test_streamed(self):
        events = checked(self.stream())
        kinds = [event.type.removeprefix("response.") for event in events]
        ends = ["output_text.done", "content_part.done", "output_item.done", "completed"]
        starts = ["created", "in_progress", "output_item.added", "content_part.added"]
        self.assertEqual((kinds[:4], kinds[-4:]), (starts, ends))
        self.assertEqual(set(kinds[4:-4]), {"output_text.delta"})
        deltas = "".join(event.delta for event in events[4:-4])
        self.assertEqual((deltas, events[-4].text), (TEXT, TEXT))
        final = events[-1].response
        self.assertEqual((final.output_text, final.model), (TEXT, "words"))
        self.assertEqual(final.id, events[0].response.id)
        self.assertEqual(final.output[0].id, events[4].item_id)

    def test_stream_helper(self):
        with self.client.responses.stream(model="words", input="Say something.") as stream:
            snapshots = [e.snapshot for e in stream if e.type == "response.output_text.delta"]
            final = stream.get_final_response()
        self.assertEqual((snapshots[-1], final.output_text), (TEXT, TEXT))

    def test_tools_and_back(self):
        asked = [{"role": "user", "content": "The weather in two cities?"}]
        for stream in (False, True):
            if stream:
                events = checked(self.stream(model="tools", input=asked, tools=[TOOL]))
                answer = events[-1].response
                done = [e for e in events if e.type == "response.function_call_arguments.done"]
                told = "response.function_call_arguments.delta"
                for end in done:
                    mine = [e for e in events if e.type == told and e.item_id == end.item_id]
                    self.assertEqual("".join(e.delta for e in mine), end.arguments)
            else:
                answer = self.client.responses.create(model="tools", input=asked, tools=[TOOL])
            calls = [item for item in answer.output if item.type == "function_call"]
            self.assertEqual(len(calls), 2)
            self.assertEqual(len({call.call_id for call in calls} | {call.id for call in calls}), 4)
            for call in calls:
                self.assertIsInstance(json.loads(call.arguments), dict)
                self.assertEqual((call.name, call.status), ("get_weather", "completed"))
            results = [
                {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
                for call in calls
            ]
            back = [item.to_dict() for item in answer.output]
            again = self.client.responses.create(
                model="words", input=[*asked, *back, *results], tools=[TOOL]
            )
            self.assertEqual(again.output_text, TEXT)

    def test_another_format_takes_over(self):
        for model in ("claude-then-words", "503-then-claude"):
            self.assertEqual(checked(self.stream(model=model))[-1].response.output_text, TEXT)

    def test_every_parameter_that_chat_has_too(self):
        answer = self.client.responses.create(
            model="words",
            instructions="Be brief.",
            input=[
                {"role": "developer", "content": "Really."},
                {
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "What is this?"},
                        {"type": "input_image", "image_url": "https://x/y.png", "detail": "low"},
                    ],
                },
            ],
            max_output_tokens=64,
            metadata={"a": "b"},
            parallel_tool_calls=False,
            reasoning={"effort": "low"},
            temperature=0.5,
            text={"format": {"type": "json_object"}, "verbosity": "low"},
            tool_choice="auto",
            tools=[TOOL],
            top_p=0.5,
            user="u",
            store=False,
        )
        self.assertEqual(answer.output_text, TEXT)

    def test_fallback(self):
        for model in FALLBACKS:
            with self.subTest(model):
                self.assertEqual(checked(self.stream(model=model))[-1].response.output_text, TEXT)
                answer = self.client.responses.create(model=model, input="Say something.")
                self.assertEqual(answer.output_text, TEXT)

    def test_errors_before_commit(self):
        for stream in (False, True):
            with self.assertRaises(openai.InternalServerError):
                self.client.responses.create(model="dead", input="x", stream=stream)
            with self.assertRaises(openai.BadRequestError) as caught:
                self.client.responses.create(model="fault-context", input="x", stream=stream)
            self.assertEqual(caught.exception.code, "context_length_exceeded")
            with self.assertRaises(openai.NotFoundError) as caught:
                self.client.responses.create(model="no-such-model", input="x", stream=stream)
            self.assertEqual(caught.exception.code, "model_not_found")

    def test_what_is_stored_nowhere(self):
        for param, value in [("previous_response_id", "resp_1"), ("background", True)]:
            with self.assertRaises(openai.BadRequestError) as caught:
                self.client.responses.create(model="words", input="x", **{param: value})
            self.assertEqual(caught.exception.param, param)
        with self.assertRaises(openai.BadRequestError) as caught:
            self.client.responses.create(model="words", input="x", tools=[{"type": "web_search"}])
        self.assertEqual(caught.exception.param, "tools[0].type")

    def test_errors_after_commit(self):
        for model in CUTS:
            with self.subTest(model):
                events = []
                with self.assertRaises(openai.APIError) as caught:
                    for event in self.stream(model=model):
                        events.append(event)
                self.assertNotIsInstance(caught.exception, openai.APIConnectionError)
                self.assertEqual(caught.exception.type, "upstream_error")
                kinds = [event.type for event in events]
                self.assertIn("response.output_text.delta", kinds)
                ends = {"response.completed", "response.incomplete", "response.failed", "error"}
                self.assertFalse(ends & set(kinds))

    def test_async(self):
        async def one(gateway, model):
            stream = await gateway.responses.create(model=model, input="x", stream=True)
            return [event async for event in stream][-1].response.output_text

        async def run():
            given = {"base_url": self.base_url, "api_key": "unused", "timeout": PATIENCE}
            async with AsyncOpenAI(**given) as gateway:
                return await asyncio.gather(*(one(gateway, "words") for _ in range(8)))

        self.assertEqual(set(asyncio.run(run())), {TEXT})


class Translated(Cases, unittest.TestCase):
    def test_thoughts_of_another_family_and_back(self):
        """The provider insists on its thoughts, shown and hidden, before the call that they led to."""
        asked = [{"role": "user", "content": "The weather?"}]
        for stream in (False, True):
            if stream:
                events = checked(self.stream(model="claude-tools", input=asked, tools=[TOOL]))
                answer = events[-1].response
                deltas = [
                    event.delta
                    for event in events
                    if event.type == "response.reasoning_summary_text.delta"
                ]
                self.assertEqual("".join(deltas), "Let me see.")
            else:
                answer = self.client.responses.create(
                    model="claude-tools", input=asked, tools=[TOOL]
                )
            thoughts = [item for item in answer.output if item.type == "reasoning"]
            self.assertEqual(thoughts[0].summary[0].text, "Let me see.")
            self.assertTrue(all(thought.encrypted_content for thought in thoughts))
            call = answer.output[-1]
            self.assertEqual(json.loads(call.arguments), {"city": "Łódź"})
            result = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
            # What no provider of this family says itself stays out.
            back = [item.to_dict() for item in answer.output]
            back = [item for item in back if "gemini" not in item.get("encrypted_content", "")]
            again = self.client.responses.create(
                model="claude-tools", input=[*asked, *back, result], tools=[TOOL]
            )
            self.assertEqual(again.output_text, TEXT)


class Through(Cases, unittest.TestCase):
    base_url = THROUGH

    def test_a_chat_client_before_a_provider_of_this_api(self):
        ask = [{"role": "system", "content": "x"}, {"role": "user", "content": "y"}]
        answer = self.client.chat.completions.create(model="words", messages=ask)
        self.assertEqual(answer.choices[0].message.content, TEXT)
        function = {key: TOOL[key] for key in ("name", "description", "parameters", "strict")}
        chunks = list(
            self.client.chat.completions.create(
                model="tools",
                messages=ask,
                tools=[{"type": "function", "function": function}],
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        calls = [c for chunk in chunks if chunk.choices for c in chunk.choices[0].delta.tool_calls or []]
        self.assertEqual({call.index for call in calls}, {0, 1})
        self.assertTrue(chunks[-1].usage.total_tokens)


class Counting(unittest.TextTestResult):
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
