// The official `openai` and `@anthropic-ai/sdk` packages before a provider of every kind; see kinds_suite.py,
// which says more.

import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { test } from "node:test";

// The packages live in a throwaway folder, not beside this file.
const packages = createRequire(`${process.env.SDK_NODE}/package.json`);
const { OpenAI } = packages("openai");
const { Anthropic } = packages("@anthropic-ai/sdk");

const base = process.env.SDK_EVERY;
const driver = process.env.SDK_DRIVER;
const kinds = JSON.parse(process.env.SDK_KINDS);
const apiKey = process.env.SDK_KEY;
const patience = 60_000;

const text = "Hello from sandbox a. token-1 token-2 token-3";
const second = text.replace("sandbox a", "sandbox b");
const messages = [{ role: "user", content: "What is it?" }];
const schema = {
  type: "object",
  properties: { from: { type: "string" }, call: { type: "integer" } },
  required: ["from", "call"],
};
const look = { name: "look", description: "Looks." };
const falls = ["fall-503", "fall-event", "fall-hang", "fall-key"];
const cuts = ["cut", "cut-error", "cut-frame", "cut-hang", "cut-end"];

const more = { apiKey, maxRetries: 0, timeout: patience };
const openai = new OpenAI({ baseURL: base, ...more });
const anthropic = new Anthropic({ baseURL: base.replace(/\/v1$/, ""), ...more });

/** Calls as name and arguments. */
function checkCalls(calls, count) {
  const wanted = Array.from({ length: count }, (_, call) => ["look", { from: "sandbox a", call }]);
  assert.deepEqual(calls, wanted);
}

const chat = {
  tools: [{ type: "function", function: { ...look, parameters: schema } }],
  async whole(model, turns = messages, rest = {}) {
    const answer = await openai.chat.completions.create({ model, messages: turns, ...rest });
    return answer.choices[0];
  },
  async streamed(model, turns = messages, rest = {}, seen = []) {
    const runner = openai.chat.completions.stream({ model, messages: turns, ...rest });
    runner.on("content", (delta) => seen.push(delta));
    return (await runner.finalChatCompletion()).choices[0];
  },
  async plain(kind, ask) {
    const choice = await ask(`${kind.name}.words`);
    assert.deepEqual([choice.message.content, choice.finish_reason], [text, "stop"]);
  },
  text: (choice) => choice.message.content,
  async called(kind, ask) {
    for (const [model, count] of [["tool", 1], ["two", 2]]) {
      const { message, finish_reason } = await ask(`${kind.name}.${model}`, messages, { tools: chat.tools });
      const calls = message.tool_calls;
      checkCalls(calls.map((call) => [call.function.name, JSON.parse(call.function.arguments)]), count);
      assert.equal(new Set(calls.map((call) => call.id)).size, count);
      assert.equal(finish_reason, "tool_calls");
      const results = calls.map(({ id }) => ({ role: "tool", tool_call_id: id, content: "It is a lamp." }));
      const turns = [...messages, message, ...results];
      assert.equal(chat.text(await ask(`${kind.name}.words`, turns, { tools: chat.tools })), text);
    }
  },
};

const responses = {
  tools: [{ type: "function", ...look, parameters: schema, strict: false }],
  sealed: { include: ["reasoning.encrypted_content"], store: false },
  whole: (model, input = messages, rest = {}) =>
    openai.responses.create({ model, input, ...responses.sealed, ...rest }),
  async streamed(model, input = messages, rest = {}, seen = []) {
    const stream = openai.responses.stream({ model, input, ...responses.sealed, ...rest });
    stream.on("response.output_text.delta", (event) => seen.push(event.delta));
    return await stream.finalResponse();
  },
  async plain(kind, ask) {
    const answer = await ask(`${kind.name}.words`);
    assert.deepEqual([answer.output_text, answer.status], [text, "completed"]);
  },
  text: (answer) => answer.output_text,
  async called(kind, ask) {
    for (const [model, count] of [["tool", 1], ["two", 2]]) {
      const { tools } = responses;
      const { output } = await ask(`${kind.name}.${model}`, messages, { tools });
      const calls = output.filter((item) => item.type === "function_call");
      checkCalls(calls.map((call) => [call.name, JSON.parse(call.arguments)]), count);
      const results = calls.map(({ call_id }) => ({
        type: "function_call_output",
        call_id,
        output: "It is a lamp.",
      }));
      // What the package itself reads out of arguments is no part of the API.
      const back = output.map(({ parsed_arguments, ...item }) => item);
      const turns = [...messages, ...back, ...results];
      assert.equal(responses.text(await ask(`${kind.name}.words`, turns, { tools })), text);
    }
  },
};

const claude = {
  tools: [{ ...look, input_schema: schema }],
  whole: (model, turns = messages, rest = {}) =>
    anthropic.messages.create({ model, max_tokens: 4096, messages: turns, ...rest }),
  async streamed(model, turns = messages, rest = {}, seen = []) {
    const stream = anthropic.messages.stream({ model, max_tokens: 4096, messages: turns, ...rest });
    stream.on("text", (delta) => seen.push(delta));
    return await stream.finalMessage();
  },
  async plain(kind, ask) {
    const answer = await ask(`${kind.name}.words`);
    assert.deepEqual([claude.text(answer), answer.stop_reason], [text, "end_turn"]);
  },
  text: (answer) => answer.content.map((block) => (block.type === "text" ? block.text : "")).join(""),
  async called(kind, ask) {
    for (const [model, count] of [["tool", 1], ["two", 2]]) {
      const thinking = { type: "enabled", budget_tokens: 1024 };
      const rest = { tools: claude.tools, ...(count === 1 ? { thinking } : {}) };
      const { content, stop_reason } = await ask(`${kind.name}.${model}`, messages, rest);
      const calls = content.filter((block) => block.type === "tool_use");
      checkCalls(calls.map((call) => [call.name, call.input]), count);
      assert.equal(stop_reason, "tool_use");
      const results = calls.map(({ id }) => ({
        type: "tool_result",
        tool_use_id: id,
        content: "It is a lamp.",
      }));
      const turns = [...messages, { role: "assistant", content }, { role: "user", content: results }];
      assert.equal(claude.text(await ask(`${kind.name}.words`, turns, rest)), text);
    }
  },
};

const dialects = { chat, responses, messages: claude };

for (const [name, dialect] of Object.entries(dialects)) {
  const Package = name === "messages" ? Anthropic : OpenAI;
  const each = (what, only, run) =>
    test(`${name}, ${what}`, { concurrency: 12 }, async (t) => {
      const asked = kinds.filter(only);
      await Promise.all(asked.map((kind) => t.test(`${kind.name}, ${name}, ${what}, ${driver}`, () => run(kind))));
    });
  const all = () => true;

  each("whole", all, (kind) => dialect.plain(kind, dialect.whole));
  each("streamed", all, (kind) => dialect.plain(kind, dialect.streamed));
  each("tools and back, whole", (kind) => kind.tools, (kind) => dialect.called(kind, dialect.whole));
  each("tools and back, streamed", (kind) => kind.tools, (kind) => dialect.called(kind, dialect.streamed));

  each("a second answers", all, async (kind) => {
    for (const model of falls) {
      assert.equal(dialect.text(await dialect.streamed(`${kind.name}.${model}`)), second, model);
    }
  });

  each("a cut stream is an error", all, async (kind) => {
    for (const model of cuts) {
      const seen = [];
      const asked = dialect.streamed(`${kind.name}.${model}`, messages, {}, seen);
      await assert.rejects(asked, (error) => {
        assert.ok(error instanceof Package.APIError, `${model}: ${error}`);
        assert.ok(!(error instanceof Package.APIConnectionError), `${model}: ${error}`);
        return true;
      });
      const beginning = "Hello from sandbox a. token-1";
      assert.ok(seen.join("").startsWith(model === "cut-end" ? `${beginning} ` : "Hello"), model);
    }
  });

  each("what is refused", all, async (kind) => {
    for (const ask of [dialect.whole, dialect.streamed]) {
      await assert.rejects(ask(`${kind.name}.fault`), (error) => {
        assert.ok(error instanceof Package.BadRequestError, `${error}`);
        assert.match(error.message, /sandbox a/);
        return true;
      });
      await assert.rejects(ask(`${kind.name}.none`), Package.NotFoundError);
    }
  });
}
