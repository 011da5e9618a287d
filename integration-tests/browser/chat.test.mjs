// Chatting: how an answer comes, what a chat keeps, and which model and desktop it goes to.

import assert from "node:assert/strict";
import { test } from "node:test";

import { answer, answers, ask, begin, context, model, over, paste, shows, signedIn, world } from "./page.mjs";
import { HOSTILE, Model, RICH } from "./world.mjs";

test("an answer streams, with its figures; stop and try again", async () => {
    const page = await signedIn();
    const left = model.left;
    await begin(page, "forever");
    await shows(answer(page), "word5");
    assert.ok(!(await answer(page).innerText()).includes("word9999"), "it comes piece by piece");
    await page.getByRole("button", { name: "Stop" }).click();
    assert.match(await over(page), /Stopped/);
    for (let tries = 0; model.left === left; tries++) {
        assert.ok(tries < 100, "the desktop's model is told to stop");
        await new Promise((resolve) => setTimeout(resolve, 50));
    }
    await answer(page).getByRole("button", { name: "Try again" }).click();
    await shows(answer(page), "word5");
    await page.keyboard.press("Escape");
    assert.match(await over(page), /First token after [\d.]+ s · [\d.]+ tokens\/s · \d+ tokens/);
    assert.equal(await answers(page).count(), 1, "a second try takes the place of the first");
});

test("what stands under an answer says at once what the model does", async () => {
    const page = await signedIn();
    const facts = answer(page).locator(".facts");
    for (const [question, states] of [
        ["late", [/^Waiting for the first token/, /^First token after/]],
        ["think", [/^Thinking, \d+ s$/, /^First token after/]],
    ]) {
        await begin(page, question);
        await shows(facts, states[0]);
        model.goOn();
        await shows(answer(page).locator(".text").last(), /Here I am|So be it/);
        assert.match(await facts.innerText(), states[1]);
        model.goOn();
        await over(page);
    }
});

test("a new chat asks before it ends an answer, and begins at its end", async () => {
    const page = await signedIn({ viewport: { width: 800, height: 300 } });
    const left = model.left;
    await ask(page, "rich");
    await begin(page, "forever");
    await shows(answer(page), "word5");
    await page.locator("#scroll").evaluate((scroll) => scroll.scrollTo(0, 0));
    await page.getByRole("button", { name: "Jump to the latest" }).waitFor();
    const startAnew = () => page.getByRole("button", { name: "New chat" }).click();
    await startAnew();
    await page.getByRole("dialog", { name: "Start a new chat?" }).getByRole("button", { name: "Cancel" }).click();
    await shows(answer(page), "word20");
    await startAnew();
    await page.getByRole("button", { name: "Stop and start" }).click();
    await page.getByRole("button", { name: "Send" }).waitFor();
    assert.equal(await page.locator("article").count(), 0);
    assert.equal(await page.getByRole("button", { name: "Jump to the latest" }).count(), 0);
    for (let tries = 0; model.left === left; tries++) {
        assert.ok(tries < 100, "the desktop's model is told to stop");
        await new Promise((resolve) => setTimeout(resolve, 50));
    }
    assert.match(await ask(page, "hello"), /word19/);
    await startAnew(); // nothing runs: unasked
    assert.equal(await page.locator("article").count(), 0);
});

test("whether to end an answer is not asked any more when it has ended", async () => {
    const page = await signedIn();
    const question = page.getByRole("dialog", { name: "Start a new chat?" });
    await begin(page, "late");
    await shows(answer(page).locator(".facts"), "Waiting for the first token");
    await page.getByRole("button", { name: "New chat" }).click();
    await question.waitFor();
    model.goOn();
    await question.waitFor({ state: "hidden" });
    assert.match(await over(page), /Here I am/);
});

test("a new chat can be undone until it has its first question", async () => {
    const page = await signedIn();
    const chat = () => page.evaluate(() => [document.querySelector("#turns").innerHTML, sessionStorage.getItem("tunnel.chat")]);
    const undo = page.getByRole("status").getByRole("button", { name: "Undo" });
    await ask(page, "rich");
    await ask(page, "unfinished");
    const before = await chat();
    await page.getByRole("button", { name: "New chat" }).click();
    await shows(page.getByRole("status"), "Chat cleared");
    assert.equal(await page.locator("article").count(), 0);
    await page.keyboard.press("Shift+Tab");
    assert.ok(await undo.evaluate((button) => button === document.activeElement), "one key from where the writing goes on");
    await page.keyboard.press("Enter");
    await answer(page).waitFor();
    assert.deepEqual(await chat(), before);
    assert.equal(await undo.count(), 0);
    assert.equal(await page.evaluate(() => document.activeElement.id), "prompt");
    await ask(page, "hello");
    assert.equal(model.requests.at(-1).body.messages.length, 5, "the desktop gets all of it again");
    await answer(page).getByRole("button", { name: "Copy" }).waitFor(); // its buttons do as before

    // An answer that ran is there as far as it came.
    await begin(page, "forever");
    await shows(answer(page), "word5");
    await page.getByRole("button", { name: "New chat" }).click();
    await page.getByRole("button", { name: "Stop and start" }).click();
    await undo.click();
    await shows(answer(page), /word5[^]*Stopped/);

    await page.getByRole("button", { name: "New chat" }).click();
    await ask(page, "hello");
    assert.equal(await undo.count(), 0);
    assert.equal(await answers(page).count(), 1);

    // Nor is it for the next who signs in.
    await page.getByRole("button", { name: "New chat" }).click();
    await undo.waitFor();
    await page.getByRole("button", { name: "Settings" }).click();
    await page.getByRole("button", { name: "Sign out" }).click();
    await paste(page, world.token("bob"));
    await shows(page.locator("#desktop"), "online since");
    assert.equal(await undo.count(), 0);
});

test("Ollama's own figures are shown, and text can be copied", async () => {
    const page = await signedIn();
    assert.match(await ask(page, "hello"), /· 40\.0 tokens\/s · 20 tokens/);
    await answer(page).getByRole("button", { name: "Copy" }).click();
    await answer(page).getByRole("button", { name: "Copied" }).waitFor();
    const copied = await page.evaluate(() => navigator.clipboard.readText());
    assert.ok(copied.startsWith("The **answer** to word1"), copied);
});

test("history, system prompt and model reach the desktop", async () => {
    const page = await signedIn();
    await page.getByRole("button", { name: "Settings" }).click();
    await page.getByLabel("System prompt").fill("Be brief.");
    await page.getByRole("button", { name: "Done" }).click();
    await page.getByRole("combobox", { name: "Model" }).selectOption("qwen3:8b");
    await ask(page, "hello");
    await ask(page, "again");
    const { path, headers, body } = model.requests.at(-1);
    assert.equal(path, "/api/chat");
    assert.equal(body.model, "qwen3:8b");
    assert.deepEqual(body.messages.map(({ role }) => role), ["system", "user", "assistant", "user"]);
    assert.ok(!JSON.stringify(headers).includes("eyJ"), "the token ends at the server");
    await page.reload();
    await shows(answer(page), "word19");
    await page.locator("#model option", { hasText: "qwen3:8b" }).waitFor({ state: "attached" });
    assert.equal(await page.getByRole("combobox", { name: "Model" }).inputValue(), "qwen3:8b", "the choice is kept");
    await page.getByRole("button", { name: "New chat" }).click();
    assert.equal(await answers(page).count(), 0);
});

test("a text looks the same in whatever pieces it comes", async () => {
    const page = await signedIn();
    const [whole, ...others] = await page.evaluate(async (text) => {
        const { Writer } = await import("/app/format.js");
        const draw = (pieces) => {
            const root = document.createElement("div");
            const writer = new Writer(root);
            for (const piece of pieces) writer.write(piece);
            writer.end();
            return root.innerHTML;
        };
        return [text.length, 1, 2, 3, 7].map((size) => draw(text.match(new RegExp(`[^]{1,${size}}`, "g"))));
    }, `${RICH}\r\n\n${HOSTILE}\n\n---\n${"long ".repeat(2000)}\n~~~\nnever closed`);
    for (const tag of ["ol", "ul", "h3", "pre", "table", "blockquote", "strong", "em", "del", "hr", 'td class="end"', "a"]) assert.match(whole, new RegExp(`<${tag}`));
    for (const other of others) assert.equal(other, whole);
});

test("a model server that speaks only OpenAI's interface", async () => {
    const other = await new Model().start();
    other.speaks = "openai";
    await world.connect("olga", other);
    const page = await signedIn({}, "olga");
    assert.match(await ask(page, "hello"), /word19[^]*20 tokens/);
    assert.match(await ask(page, "unfinished"), /The answer was cut off/);
    await context.close();
    await other.stop();
});

test("models that only embed are not offered", async () => {
    const other = await new Model().start();
    other.tags = [
        { name: "nomic-embed-text:latest", details: { family: "nomic-bert", families: ["nomic-bert"] } },
        { name: "embeddinggemma:300m", details: { family: "gemma3" }, capabilities: ["embedding"] },
        { name: "gemma3:4b", details: { family: "gemma3" }, capabilities: ["completion", "vision"] },
    ];
    await world.connect("emma", other);
    const page = await signedIn({}, "emma");
    assert.deepEqual(await page.locator("#model option").allTextContents(), [...other.models, "gemma3:4b"]);
    await context.close();
    await other.stop();
});

test("several desktops: one is picked", async () => {
    const [one, two] = await Promise.all([new Model().start(), new Model().start()]);
    await world.connect("mia", one, "attic");
    await world.connect("mia", two, "cellar");
    const page = await signedIn({}, "mia");
    const picker = page.getByRole("combobox", { name: "Desktop" });
    assert.equal(await picker.inputValue(), "cellar", "the newest, as without a name");
    await picker.selectOption("attic");
    await ask(page, "hello");
    assert.equal(one.requests.at(-1).path, "/api/chat");
    await page.reload();
    await shows(page.locator("#desktop"), "online since");
    assert.equal(await picker.inputValue(), "attic");
    await context.close();
    await Promise.all([one.stop(), two.stop()]);
});
