// The official `@anthropic-ai/sdk` package as a client of firstbyte; see anthropic_suite.py, which says
// more.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { test } from "node:test";

// The package lives in a throwaway folder, not beside this file.
const { Anthropic } = createRequire(`${process.env.SDK_NODE}/package.json`)("@anthropic-ai/sdk");

const open = process.env.SDK_OPEN.replace(/\/v1$/, "");
const keyed = process.env.SDK_KEYED.replace(/\/v1$/, "");
const key = process.env.SDK_KEY;
const cuts = JSON.parse(process.env.SDK_CUTS);
const patience = 20_000;

const messages = [{ role: "user", content: "Say something." }];
const text = "one two three four five";
const tools = [
  {
    name: "get_weather",
    description: "The weather of a city",
    input_schema: { type: "object", properties: { city: { type: "string" } } },
  },
];
const both = ["words", "claude-text"];

const gateway = (more = {}) =>
  new Anthropic({ baseURL: open, apiKey: "unused", maxRetries: 0, timeout: patience, ...more });
const ask = (model, more = {}) => ({ model, max_tokens: 4096, messages, ...more });
const textOf = (message) =>
  message.content.map((block) => (block.type === "text" ? block.text : "")).join("");

test("text, whole and streamed", async () => {
  for (const model of both) {
    const answer = await gateway().messages.create(ask(model));
    const final = await gateway().messages.stream(ask(model)).finalMessage();
    for (const message of [answer, final]) {
      assert.equal(textOf(message), text);
      assert.equal(message.stop_reason, "end_turn");
      assert.equal(message.model, model);
      assert.ok(message.usage.input_tokens > 0 && message.usage.output_tokens > 0);
    }
  }
});

test("tools of another format", async () => {
  const stream = gateway().messages.stream(ask("tools", { tools }));
  const partial = [];
  stream.on("inputJson", (_, snapshot) => partial.push(snapshot));
  const answer = await stream.finalMessage();
  const calls = answer.content.filter((block) => block.type === "tool_use");
  assert.deepEqual(calls.map((call) => call.name), ["get_weather", "get_weather"]);
  assert.ok(calls.every((call) => Object.keys(call.input).length > 0));
  assert.ok(partial.length > 0);
  assert.equal(answer.stop_reason, "tool_use");
});

test("thinking and tools go round", async () => {
  const thinking = { type: "enabled", budget_tokens: 1024 };
  const request = ask("claude-tools", { tools, thinking });
  const answer = await gateway().messages.stream(request).finalMessage();
  const kinds = answer.content.map((block) => block.type);
  assert.deepEqual(kinds, ["thinking", "redacted_thinking", "text", "thinking", "tool_use"]);
  const call = answer.content.at(-1);
  assert.equal(call.input.city, "Łódź");
  const result = { type: "tool_result", tool_use_id: call.id, content: "sunny" };
  const turns = [
    { role: "assistant", content: answer.content },
    { role: "user", content: [result] },
  ];
  for (const model of ["claude-tools", "words"]) {
    const after = await gateway().messages.create({ ...request, model, messages: [...messages, ...turns] });
    assert.equal(textOf(after), text);
  }
});

test("thinking of another format", async () => {
  const answer = await gateway().messages.stream(ask("thinks")).finalMessage();
  assert.deepEqual(answer.content.map((block) => block.type), ["thinking", "text"]);
  assert.match(answer.content[0].thinking, /^thought/);
});

test("one format takes over from the other", async () => {
  for (const model of ["claude-then-words", "503-then-claude", "fall-503"]) {
    assert.equal(textOf(await gateway().messages.stream(ask(model)).finalMessage()), text);
  }
});

test("tokens are counted", async () => {
  const counted = await gateway().messages.countTokens({ model: "claude-text", messages });
  assert.equal(counted.input_tokens, 42);
  const guessed = await gateway().messages.countTokens({ model: "words", messages });
  assert.ok(guessed.input_tokens > 0);
});

test("a cut stream is an error", async () => {
  for (const model of [...Object.keys(cuts), "claude-cut"]) {
    let seen = "";
    const stream = gateway().messages.stream(ask(model));
    stream.on("text", (piece) => (seen += piece));
    await assert.rejects(stream.finalMessage(), (error) => {
      assert.ok(error instanceof Anthropic.APIError, `${model}: ${error}`);
      assert.equal(error.error.error.code, cuts[model] ?? "stream_interrupted", model);
      return true;
    });
    assert.ok(seen !== "" && !seen.includes(text), model);
  }
});

test("errors are typed", async () => {
  const refused = async (client, request, kind, type) => {
    await assert.rejects(client.messages.create(request), (error) => {
      assert.ok(error instanceof kind, `${error}`);
      assert.equal(error.error.error.type, type);
      return true;
    });
  };
  const { AuthenticationError, BadRequestError, InternalServerError, NotFoundError } = Anthropic;
  const wrong = gateway({ baseURL: keyed, apiKey: "no" });
  await refused(wrong, ask("words"), AuthenticationError, "authentication_error");
  await refused(gateway(), ask("nothing"), NotFoundError, "not_found_error");
  await refused(gateway(), ask("claude-400"), BadRequestError, "invalid_request_error");
  await refused(gateway(), ask("dead"), InternalServerError, "api_error");
  const right = gateway({ baseURL: keyed, apiKey: key });
  assert.equal(textOf(await right.messages.create(ask("words"))), text);
});
