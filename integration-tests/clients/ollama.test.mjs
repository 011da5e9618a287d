// The JavaScript client of Ollama, through the tunnel. It reads no environment of its own: the host and the key are
// options, which an application fills from its environment as here.

import assert from "node:assert/strict";
import { test } from "node:test";

import { Ollama } from "ollama";

const { OLLAMA_HOST: host, OLLAMA_API_KEY: key } = process.env;
const ollama = new Ollama({ host, headers: key ? { Authorization: `Bearer ${key}` } : {} });
const model = "stand-in";
const messages = [{ role: "user", content: "Hello!" }];

test("chat", async () => {
    const answer = await ollama.chat({ model, messages });
    assert.equal(answer.done, true);
    assert.match(answer.message.content, /你好, 👋/);
});

test("chat streams", async () => {
    const pieces = [];
    for await (const piece of await ollama.chat({ model, messages, stream: true })) pieces.push(piece);
    assert.equal(pieces.at(-1).done, true);
    assert.ok(pieces.length > 20);
    assert.match(pieces.map((piece) => piece.message.content).join(""), /ein Gruß/);
});

test("list, show, embed", async () => {
    assert.equal((await ollama.list()).models[0].model, "stand-in:latest");
    assert.deepEqual((await ollama.show({ model })).capabilities, ["completion"]);
    assert.equal((await ollama.embed({ model, input: ["a", "b"] })).embeddings.length, 2);
});

test("an error of Ollama arrives as it is", async () => {
    await assert.rejects(ollama.chat({ model: "no-such-model", messages }), /model 'no-such-model' not found/);
});

test("abort in the middle", async () => {
    const stream = await ollama.chat({ model, messages, stream: true });
    await assert.rejects(async () => {
        for await (const _ of stream) stream.abort();
    }, { name: "AbortError" });
    assert.equal((await ollama.chat({ model, messages })).done, true);
});
