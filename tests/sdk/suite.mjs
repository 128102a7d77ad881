// The official Node SDK as a client of firstbyte. Run by run.py, which starts the gateway and the
// sandbox providers and says where they are by environment variables.

import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { setTimeout as pause } from "node:timers/promises";
import { test } from "node:test";

// The package lives in a throwaway folder, not beside this file.
const { OpenAI } = createRequire(`${process.env.SDK_NODE}/package.json`)("openai");

const open = process.env.SDK_OPEN;
const keyed = process.env.SDK_KEYED;
const key = process.env.SDK_KEY;
const fallbacks = JSON.parse(process.env.SDK_FALLBACKS);
const cuts = JSON.parse(process.env.SDK_CUTS);
const patience = 20_000;

const messages = [{ role: "user", content: "Say something." }];
const text = "one two three four five";
const tools = [
  {
    type: "function",
    function: {
      name: "get_weather",
      description: "The weather of a city",
      parameters: { type: "object", properties: { city: { type: "string" } } },
    },
  },
];

const gateway = (more = {}) =>
  new OpenAI({ baseURL: open, apiKey: "unused", maxRetries: 0, timeout: patience, ...more });

const create = (client, model, more = {}, options = {}) =>
  client.chat.completions.create({ model, messages, ...more }, options);

async function collect(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

const textOf = (chunks) => chunks.map((c) => c.choices[0]?.delta.content ?? "").join("");
const finishes = (chunks) => chunks.map((c) => c.choices[0]?.finish_reason).filter(Boolean);

/** The ledger's line of that request, once it is written. */
async function ledgerOf(id) {
  const until = Date.now() + patience;
  while (Date.now() < until) {
    const lines = readFileSync(process.env.SDK_LEDGER, "utf8").split("\n").slice(0, -1);
    const found = lines.filter((line) => line.includes(id));
    if (found.length > 0) {
      assert.equal(found.length, 1);
      return JSON.parse(found[0]);
    }
    await pause(10);
  }
  assert.fail(`no ledger line for ${id}`);
}

test("plain", async () => {
  const answer = await create(gateway(), "words");
  assert.equal(answer.choices[0].message.content, text);
  assert.equal(answer.choices[0].finish_reason, "stop");
  assert.equal(answer.model, "words");
});

test("streamed", async () => {
  const chunks = await collect(
    await create(gateway(), "words", { stream: true, stream_options: { include_usage: true } }),
  );
  assert.equal(textOf(chunks), text);
  assert.deepEqual(finishes(chunks), ["stop"]);
  assert.ok(chunks.at(-1).usage.total_tokens > 0);
  assert.equal(new Set(chunks.map((c) => c.id)).size, 1);
});

test("the stream runner puts the answer together", async () => {
  const client = gateway();
  const runner = client.chat.completions.stream({ model: "words", messages });
  let seen = "";
  runner.on("content", (delta) => (seen += delta));
  const final = await runner.finalChatCompletion();
  assert.equal(final.choices[0].message.content, text);
  assert.equal(seen, text);
  assert.equal(await client.chat.completions.stream({ model: "words", messages }).finalContent(), text);
});

test("tools, plain and streamed", async () => {
  const plain = await create(gateway(), "tools", { tools });
  assert.equal(plain.choices[0].finish_reason, "tool_calls");
  assert.equal(plain.choices[0].message.tool_calls.length, 2);
  for (const call of plain.choices[0].message.tool_calls) {
    assert.equal(call.function.name, "get_weather");
    assert.equal(typeof JSON.parse(call.function.arguments), "object");
  }
  const runner = gateway().chat.completions.stream({ model: "tools", messages, tools });
  const final = await runner.finalChatCompletion();
  const calls = final.choices[0].message.tool_calls;
  assert.deepEqual(calls.map((call) => call.function.name), ["get_weather", "get_weather"]);
  assert.equal(new Set(calls.map((call) => call.id)).size, 2);
  for (const call of calls) assert.equal(typeof JSON.parse(call.function.arguments), "object");
});

test("completions and embeddings", async () => {
  const client = gateway();
  const whole = await client.completions.create({ model: "words", prompt: "Say" });
  const chunks = await collect(
    await client.completions.create({ model: "words", prompt: "Say", stream: true }),
  );
  assert.equal(chunks.map((c) => c.choices[0]?.text ?? "").join(""), whole.choices[0].text);
  const rows = await client.embeddings.create({ model: "ok", input: ["a", "b"] });
  assert.deepEqual(rows.data.map((row) => row.index), [0, 1]);
  assert.equal(typeof rows.data[0].embedding[0], "number");
});

test("models", async () => {
  const names = [];
  for await (const model of gateway().models.list()) names.push(model.id);
  assert.ok(names.includes("words"));
  assert.equal((await gateway().models.retrieve("words")).id, "words");
});

for (const model of fallbacks) {
  test(`fallback is invisible: ${model}`, async () => {
    const { data, response } = await create(gateway(), model, { stream: true }).withResponse();
    assert.equal(response.status, 200);
    assert.equal(response.headers.get("x-firstbyte-provider"), "b");
    const attempts = response.headers.get("x-firstbyte-attempts").split(", ");
    assert.equal(attempts.length, 2);
    assert.ok(!attempts[0].includes(";ok;") && attempts[1].includes(";ok;"));
    const chunks = await collect(data);
    assert.equal(textOf(chunks), text);
    assert.deepEqual(finishes(chunks), ["stop"]);
    assert.deepEqual([...new Set(chunks.map((c) => c.model))], [model]);
    const plain = await create(gateway(), model);
    assert.equal(plain.choices[0].message.content, text);
  });
}

test("a rate-limited target is left alone", async () => {
  const tried = [];
  for (let i = 0; i < 2; i++) {
    const { response } = await create(gateway(), "cooled-node").withResponse();
    tried.push(response.headers.get("x-firstbyte-attempts").split(", ").length);
  }
  assert.deepEqual(tried, [2, 1]);
});

test("errors before commit", async () => {
  for (const stream of [false, true]) {
    await assert.rejects(create(gateway(), "dead", { stream }), (error) => {
      assert.ok(error instanceof OpenAI.InternalServerError);
      assert.equal(error.status, 502);
      assert.equal(error.code, "all_attempts_failed");
      assert.match(error.message, /no provider could answer/);
      assert.equal(error.error.metadata.attempts.length, 2);
      return true;
    });
    await assert.rejects(create(gateway(), "fault-400", { stream }), OpenAI.BadRequestError);
    await assert.rejects(create(gateway(), "no-such-model", { stream }), OpenAI.NotFoundError);
    await assert.rejects(create(gateway(), "limited", { stream }), (error) => {
      assert.ok(error instanceof OpenAI.RateLimitError);
      assert.ok(Number(error.headers.get("retry-after")) > 0);
      return true;
    });
  }
  await assert.rejects(create(gateway(), "silent", { stream: true }), (error) => {
    assert.equal(error.status, 504);
    return error instanceof OpenAI.InternalServerError;
  });
  await assert.rejects(create(gateway(), "ok", { temperature: "hot" }), OpenAI.BadRequestError);
});

for (const [model, code] of Object.entries(cuts)) {
  test(`an error after commit: ${model}`, async () => {
    const client = gateway();
    const chunks = [];
    const read = async () => {
      for await (const chunk of await create(client, model, { stream: true })) chunks.push(chunk);
    };
    await assert.rejects(read, (error) => {
      assert.ok(error instanceof OpenAI.APIError);
      assert.ok(!(error instanceof OpenAI.APIConnectionError));
      assert.equal(error.code, code);
      assert.equal(error.type, "upstream_error");
      return true;
    });
    assert.notEqual(textOf(chunks), "");
    assert.deepEqual(finishes(chunks), []);
    const runner = client.chat.completions.stream({ model, messages });
    await assert.rejects(runner.finalChatCompletion(), OpenAI.APIError);
  });
}

test("cancelled in the middle of a stream", async () => {
  for (const how of ["break", "abort"]) {
    const id = `node-${randomUUID()}`;
    const aborter = new AbortController();
    const options = { headers: { "x-request-id": id }, signal: aborter.signal };
    const stream = await create(gateway(), "slow", { stream: true }, options);
    for await (const chunk of stream) {
      if (!chunk.choices[0]?.delta.content) continue;
      if (how === "break") break;
      aborter.abort();
    }
    assert.equal((await ledgerOf(id)).ending, "gone");
  }
});

test("cancelled while nothing has come", async () => {
  const id = `node-${randomUUID()}`;
  const options = { headers: { "x-request-id": id }, timeout: 200 };
  const asked = create(gateway(), "late", { stream: true }, options);
  await assert.rejects(asked, OpenAI.APIConnectionTimeoutError);
  const line = await ledgerOf(id);
  assert.deepEqual([line.ending, line.status, line.attempts.length], ["gone", 499, 1]);
});

test("keys", async () => {
  const right = await create(gateway({ baseURL: keyed, apiKey: key }), "words");
  assert.equal(right.choices[0].message.content, text);
  const wrong = gateway({ baseURL: keyed, apiKey: "sk-wrong" });
  await assert.rejects(create(wrong, "words"), OpenAI.AuthenticationError);
});

test("parallel requests do not mix", async () => {
  const client = gateway();
  const models = Array.from({ length: 6 }, () => ["ok", "words", ...fallbacks]).flat();
  await Promise.all(
    models.map(async (model) => {
      const chunks = await collect(await create(client, model, { stream: true }));
      assert.deepEqual([...new Set(chunks.map((c) => c.model))], [model]);
      assert.deepEqual(finishes(chunks), ["stop"]);
    }),
  );
});
