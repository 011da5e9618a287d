// The JavaScript SDK of OpenAI, through the tunnel, told nothing but what is in its environment: OPENAI_BASE_URL and
// OPENAI_API_KEY; the SDK insists on a key even where the token is in the URL.

import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI from "openai";

const client = new OpenAI();
const model = "stand-in";
const messages = [{ role: "user", content: "Hello!" }];

test("chat", async () => {
    const answer = await client.chat.completions.create({ model, messages });
    assert.equal(answer.choices[0].finish_reason, "stop");
    assert.match(answer.choices[0].message.content, /你好, 👋/);
});

test("chat streams", async () => {
    const chunks = [];
    for await (const chunk of await client.chat.completions.create({ model, messages, stream: true })) chunks.push(chunk);
    assert.equal(chunks.at(-1).choices[0].finish_reason, "stop");
    assert.ok(chunks.length > 20);
    assert.match(chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join(""), /ein Gruß/);
});

test("models and embeddings", async () => {
    assert.deepEqual((await client.models.list()).data.map((one) => one.id), [model]);
    const embeddings = await client.embeddings.create({ model, input: "a", encoding_format: "float" });
    assert.equal(embeddings.data[0].embedding.length, 3);
});

test("a slash in a model name survives", async () => {
    assert.equal((await client.models.retrieve("owner/model")).id, "owner/model");
});

test("an error of the model server arrives as it is", async () => {
    const wrong = client.chat.completions.create({ model: "no-such-model", messages });
    await assert.rejects(wrong, { status: 404, message: /model 'no-such-model' not found/ });
});

test("abort in the middle", async () => {
    const stream = await client.chat.completions.create({ model, messages, stream: true });
    for await (const _ of stream) stream.controller.abort();
    assert.equal((await client.chat.completions.create({ model, messages })).choices.length, 1);
});
