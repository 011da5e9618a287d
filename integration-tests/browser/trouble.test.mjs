// What a person reads when the desktop, its model server, the server or an answer fails.

import assert from "node:assert/strict";
import { test } from "node:test";

import { answer, answers, ask, begin, connect, context, desktop, model, over, shows, signedIn } from "./page.mjs";
import { World } from "./world.mjs";

const DEADLINE = ["--stream-deadline", "3s", "--max-stream-deadline", "3s"];

test("the desktop goes offline and comes back", async () => {
    const page = await signedIn();
    await desktop.stop();
    const said = await ask(page, "hello");
    assert.match(said, /Your desktop is offline[^]*tunnel connect/);
    await shows(page.locator("#desktop"), "offline since");
    await connect();
    await shows(page.locator("#desktop"), "online since"); // by itself
    await answer(page).getByRole("button", { name: "Try again" }).click();
    assert.match(await over(page), /word19/);
});

test("Ollama is down and comes back", async () => {
    const page = await signedIn();
    await model.stop();
    assert.match(await ask(page, "hello"), /Nothing answers on your desktop[^]*Start Ollama/);
    await page.reload();
    await shows(page.locator("#notice"), "Start Ollama");
    await shows(page.locator("#desktop"), "online, no model server");
    await shows(answer(page), "Not answered");
    assert.equal(await page.getByText("Nothing answers on your desktop").count(), 1);
    await model.start(model.port);
    await page.getByRole("button", { name: "Check now" }).click();
    assert.match(await ask(page, "hello"), /word19/);
});

test("that Ollama is down is said once, and nothing else is promised", async () => {
    const page = await signedIn();
    await shows(page.locator("#welcome"), "The models on tower answer");
    await model.stop();
    await page.reload();
    await shows(page.locator("#notice"), "Nothing answers on your desktop");
    assert.match(await page.locator("#welcome").innerText(), /tower is connected, but none of its models answers yet/);
    await model.start(model.port);
    await page.getByRole("button", { name: "Check now" }).click();
    await shows(page.locator("#welcome"), "The models on tower answer");
    await model.stop();
    await ask(page, "hello");
    await desktop.stop();
    await connect();
    await page.evaluate(() => dispatchEvent(new Event("online"))); // look now
    await page.locator("#model option", { hasText: "No model" }).waitFor({ state: "attached" });
    assert.equal(await page.getByText("Nothing answers on your desktop").count(), 1);
    await answer(page).getByRole("button", { name: "Try again" }).click();
    await answer(page).getByRole("button", { name: "Not yet" }).waitFor();
    await model.start(model.port);
    await answer(page).getByRole("button", { name: "Try again" }).click();
    await shows(answer(page), "word19");
});

test("a desktop that is lost in the middle of an answer is offline at once", async () => {
    const page = await signedIn();
    await begin(page, "forever");
    await shows(answer(page), "word5");
    desktop.process.kill("SIGKILL");
    assert.match(await over(page), /The desktop was lost[^]*lacks its end\. Its connection/);
    await page.locator("#desktop.offline").waitFor({ timeout: 5000 }); // the next look by itself is later
    await connect();
});

test("a server that is gone in the middle of an answer says nothing of the desktop", async () => {
    const other = await new World().start();
    await other.connect("bob", model);
    const page = await signedIn({}, "bob", other);
    await begin(page, "forever");
    await shows(answer(page), "word5");
    other.server.process.kill("SIGKILL");
    const said = await over(page);
    assert.match(said, /The answer was cut off[^]*lacks its end\. The connection to the server broke/);
    assert.doesNotMatch(said, /desktop/);
    await shows(page.locator("#notice"), /cannot be reached[^]*may be restarting/);
    assert.match(await page.locator("#desktop").innerText(), /tower\s*unknown/);
    assert.equal(await page.locator("#desktop").getAttribute("class"), "");
    await context.close();
    await other.stop();
});

test("the deadline, before and within an answer", async () => {
    const strict = await new World().start(...DEADLINE);
    await strict.connect("bob", model);
    const page = await signedIn({}, "bob", strict);
    assert.match(await ask(page, "hang"), /The answer took too long[^]*after 3 s[^]*--stream-deadline/);
    assert.match(await ask(page, "forever"), /word5[^]*took too long[^]*lacks its end/);
    await context.close();
    await strict.stop();
});

test("streams that end badly are shown as cut", async () => {
    const page = await signedIn();
    assert.match(await ask(page, "unfinished"), /word19[^]*The answer was cut off/);
    assert.match(await ask(page, "cut"), /word19[^]*broke off[^]*lacks its end/);
    assert.match(await ask(page, "break"), /Well[^]*The text above lacks its end\. An error was encountered/);
    assert.match(await ask(page, "error"), /gave up[^]*out of memory/);
    assert.match(await ask(page, "missing"), /404[^]*model 'x' not found/);
});
