// The web client in a real browser, on the real programs. `scripts/browser` runs this.

import assert from "node:assert/strict";
import { after, afterEach, before, test } from "node:test";

import axe from "axe-core";

import { AUDIENCE, CLIENT, provider } from "./provider.mjs";
import { HOSTILE, Model, RICH, World, launch } from "./world.mjs";

const DEADLINE = ["--stream-deadline", "3s", "--max-stream-deadline", "3s"];
const EXPIRED = { status: 401, headers: { "tunnel-error": "token_expired", "x-request-id": "1" }, body: "{}" };
const PHONE = { viewport: { width: 360, height: 640 }, isMobile: true, hasTouch: true };

/** A line of a model, what is shown, and where it leads. */
const LINKS = [
    ["See [the *manual*](https://a.example/x).", "See the manual (a.example).", "https://a.example/x"],
    ["[`code`](http://a.example:81/) [b](https://b.example)", "code (a.example:81) b (b.example)", "http://a.example:81/", "https://b.example/"],
    ["[https://good.example](https://evil.example/)", "https://good.example (evil.example)", "https://evil.example/"],
    ["[x](https://good.example@evil.example/)", "x (evil.example)", "https://good.example@evil.example/"],
    ["[x](https://good.example\\@evil.example/)", "x (good.example)", "https://good.example/@evil.example/"],
    ["[x](https://g\u043e\u043ed.example/)", "x (xn--gd-fmca.example)", "https://xn--gd-fmca.example/"],
    ["[\u202eevil](https://a.example/)", "\u202eevil (a.example)", "https://a.example/"],
    ["[<b onclick=x>](https://a.example/\"onclick=\"x)", "<b onclick=x> (a.example)", "https://a.example/%22onclick=%22x"],
    ["- [x](https://a.example/)", "x (a.example)", "https://a.example/"],
    ["See https://a.example/x_(y)?z=1#k, https://a.example. **https://b.example:81/**", "See https://a.example/x_(y)?z=1#k, https://a.example. https://b.example:81/", "https://a.example/x_(y)?z=1#k", "https://a.example/", "https://b.example:81/"],
    ["https://good.example@evil.example/ http://g\u043e\u043ed.example/", "https://good.example@evil.example/ (evil.example) http://g\u043e\u043ed.example/ (xn--gd-fmca.example)", "https://good.example@evil.example/", "http://xn--gd-fmca.example/"],
    ["https://good.example\\@evil.example/ https://evil.example/\u202emoc", "https://good.example\\@evil.example/ https://evil.example/\u202emoc (evil.example)", "https://good.example/", "https://evil.example/%E2%80%AEmoc"],
    ["| https://a.example/\"onclick=\"x | ~~https://a.example~~ |", "https://a.example/\"onclick=\"xhttps://a.example", "https://a.example/", "https://a.example/"],
    ["[see https://good.example now](https://evil.example/)", "see https://good.example now (evil.example)", "https://evil.example/"],
];
const NO_LINKS = [
    "[x](javascript:alert(1)) [x](JaVaScRiPt:alert(1)) [x](java\tscript:alert(1)) [x](vbscript:x)",
    "[x](data:text/html,<script>alert(1)</script>) [x](blob:https://a.example/1) [x](file:///etc/passwd)",
    "[x](//evil.example) [x](/api/delete) [x](#token=a.b.c) [x](?state=1) [x](https:evil.example) [x](mailto:a@b.example)",
    "![x](https://evil.example/x.png) [![x](https://evil.example/x.png)](https:) [x](https://) [x](https://[) [](https://a.example)",
    "[x] (https://a.example) [x](https://a.example [x](https://a.example/ \"title\") [x][1] <https://a.example>",
    "[[[[](https://a.example)",
    "(https://a.example) xhttps://a.example \"https://a.example\" http:// https://[ https://) javascript:https://a.example //a.example www.a.example",
];

let browser, world, model, desktop;
let context, errors, requests;

before(async () => {
    [browser, world, model] = await Promise.all([launch(), new World().start(), new Model().start()]);
    desktop = await world.connect("bob", model);
});

after(async () => {
    await browser?.close();
    await world?.stop();
    await model?.stop();
});

afterEach(async () => {
    await context?.close();
    context = null;
    assert.deepEqual(errors, [], "the page logs no error");
});

/** A tab of a browser that has never been here; `options` are Playwright's. */
async function tab(options = {}) {
    context = await browser.newContext({ ignoreHTTPSErrors: true, permissions: ["clipboard-read", "clipboard-write"], ...options });
    [errors, requests] = [[], []];
    return nextTab();
}

async function nextTab() {
    const page = await context.newPage();
    page.setDefaultTimeout(20_000);
    page.on("pageerror", (error) => errors.push(error.stack));
    page.on("console", (message) => {
        // Chromium logs each answer that is an error; a policy that was violated is one of the page.
        if (message.type() === "error" && !message.text().startsWith("Failed to load resource")) errors.push(message.text());
    });
    page.on("request", (request) => requests.push(request.url()));
    return page;
}

/** Signed in by a link, with the models there. */
async function signedIn(options, user = "bob", at = world) {
    const page = await tab(options);
    await byLink(page, at.token(user), user, at.page);
    await page.getByRole("combobox", { name: "Model" }).locator("option", { hasText: "qwen3:8b" }).waitFor({ state: "attached" });
    return page;
}

/** Opens a link of a user whom this device does not know yet, and accepts it. */
async function byLink(page, token, user = "bob", address = world.page) {
    await page.goto(`${address}#token=${token}`);
    await page.getByRole("button", { name: `Sign in as ${user}` }).click();
}

/** Signs in by the form. */
async function paste(page, token) {
    await page.getByLabel("Token", { exact: true }).fill(token);
    await page.keyboard.press("Enter");
}

const answers = (page) => page.locator("article.answer");
const answer = (page) => answers(page).last();

/** Asks, and waits for the end of the answer. */
async function ask(page, text) {
    await begin(page, text);
    return over(page);
}

async function begin(page, text) {
    const count = await answers(page).count();
    await page.getByLabel("Message", { exact: true }).fill(text);
    await page.keyboard.press("Enter");
    await answers(page).nth(count).waitFor();
}

async function over(page) {
    await page.getByRole("button", { name: "Send" }).waitFor();
    return answer(page).innerText();
}

async function shows(locator, text) {
    await locator.filter({ hasText: text }).first().waitFor();
}

const stored = (page, where) => page.evaluate((where) => globalThis[where].getItem("tunnel.token"), where);

// --- Signing in.

test("sign in by pasting a token; it stays in this tab", async () => {
    const page = await tab();
    const token = world.token("bob");
    await page.goto(world.url);
    assert.equal(page.url(), world.page, "the root leads to the page");
    await page.getByLabel("Token", { exact: true }).fill(`  Bearer ${token}\n`);
    await page.getByRole("button", { name: "Sign in" }).click();
    await shows(page.locator("#desktop"), /tower\s*online since .*\d/);
    assert.equal(await stored(page, "localStorage"), null);
    await page.reload();
    await shows(page.locator("#desktop"), "online since");
    assert.ok(!(await page.content()).includes(token), "the token is nowhere in the page");
    const other = await nextTab();
    await other.goto(world.page);
    await other.getByLabel("Token", { exact: true }).waitFor();
});

test("sign in by a link; the token leaves the address at once, and no request carries it", async () => {
    const page = await tab();
    const token = world.token("bob");
    await byLink(page, token, "bob", `${world.url}/app`);
    await shows(page.locator("#desktop"), "online since");
    assert.equal(page.url(), world.page);
    assert.equal(await stored(page, "localStorage"), null);
    assert.ok(requests.every((url) => !url.includes(token.slice(-20))));
    await page.goBack();
    await page.goForward();
    assert.equal(page.url(), world.page, "nor is it in the history");
});

test("a capability URL can be pasted as it is", async () => {
    const page = await tab();
    await page.goto(world.page);
    await page.getByLabel("Token", { exact: true }).fill(`${world.url}/t/${world.token("bob", { scope: "tunnel:infer" })}/`);
    await page.keyboard.press("Enter");
    await shows(page.locator("#desktop"), "online since");
    assert.match(await ask(page, "hello"), /word19/);
});

test("remembered only when asked, and forgotten by signing out", async () => {
    const page = await tab();
    await page.goto(world.page);
    await page.getByLabel("Token", { exact: true }).fill(world.token("bob"));
    await page.locator("#remember").check();
    await page.getByRole("button", { name: "Sign in" }).click();
    await shows(page.locator("#desktop"), "online since");
    assert.notEqual(await stored(page, "localStorage"), null);
    const other = await nextTab();
    await other.goto(world.page);
    await shows(other.locator("#desktop"), "online since");
    await other.getByRole("button", { name: "Settings" }).click();
    await shows(other.locator("#account"), /Signed in as bob, until/);
    await other.locator("#remember-me").uncheck();
    assert.equal(await stored(other, "localStorage"), null);
    await other.getByRole("button", { name: "Sign out" }).click();
    await other.getByLabel("Token", { exact: true }).waitFor();
    assert.equal(await stored(other, "sessionStorage"), null);
});

test("a link of another user does not take over unasked", async () => {
    const page = await signedIn();
    await page.goto(`${world.page}#token=${world.token("eve")}`);
    await page.getByRole("dialog").getByText("signs in as eve").waitFor();
    await page.getByRole("button", { name: "Stay" }).click();
    await page.getByRole("button", { name: "Settings" }).click();
    await shows(page.locator("#account"), "Signed in as bob");
});

test("a link asks who is not signed in, unless its user was the last one on this device", async () => {
    const page = await signedIn();
    await shows(page.locator("#user"), "bob");
    const other = await nextTab();
    await other.goto(`${world.page}#token=${world.token("eve")}`);
    await other.getByRole("dialog", { name: "Sign in as eve?" }).waitFor();
    assert.equal(await stored(other, "sessionStorage"), null);
    await other.getByRole("button", { name: "Cancel" }).click();
    await other.getByLabel("Token", { exact: true }).waitFor();
    assert.equal(await stored(other, "sessionStorage"), null);
    await other.goto(`${world.page}#token=${world.token("bob")}`);
    await shows(other.locator("#desktop"), "online since");
    await byLink(await nextTab(), world.token("eve"), "eve");
    await shows(context.pages().at(-1).locator("#user"), "eve");
});

test("what a tab keeps is for its user alone, also after a reload", async () => {
    const page = await signedIn();
    const kept = () => page.evaluate(() => ["chat", "system", "model"].map((name) => sessionStorage.getItem(`tunnel.${name}`)));
    const comeBack = async (user) => {
        await page.route("**/api/tunnel/status", (route) => route.fulfill(EXPIRED), { times: 1 });
        await page.reload();
        await shows(page.getByRole("alert"), "Your chat is still here");
        await page.reload();
        await paste(page, world.token(user));
        await shows(page.locator("#user"), user);
    };
    await page.getByRole("button", { name: "Settings" }).click();
    await page.getByLabel("System prompt").fill("Be brief.");
    await page.getByRole("button", { name: "Done" }).click();
    await page.getByRole("combobox", { name: "Model" }).selectOption("qwen3:8b");
    await ask(page, "hello");
    await comeBack("bob");
    await shows(answer(page), "word19");
    assert.deepEqual((await kept()).slice(1), ["Be brief.", "qwen3:8b"]);
    await comeBack("eve");
    assert.equal(await page.locator("article").count(), 0);
    assert.deepEqual(await kept(), ["[]", "", ""]);
});

test("wrong tokens are explained where they were entered", async () => {
    const page = await tab();
    await page.goto(world.page);
    for (const [text, says] of [
        ["hello", "This is not a token"],
        ["a.b.c".repeat(3), "not accepted"],
        [world.token("bob", { exp: 1000 }), "Your token has expired"],
    ]) {
        await page.getByLabel("Token", { exact: true }).fill(text);
        await page.getByRole("button", { name: "Sign in" }).click();
        await shows(page.getByRole("alert"), says);
        assert.equal(await stored(page, "sessionStorage"), null);
    }
    await page.goto(`${world.page}#token=abc`);
    await shows(page.getByRole("alert"), "not complete");
});

test("sign in at the identity provider, which then gives a new token unasked", async () => {
    const idp = await provider();
    const about = { iss: idp.issuer, aud: AUDIENCE };
    const flags = ["--oidc-issuer", idp.issuer, "--oidc-client-id", CLIENT, "--jwt-audience", AUDIENCE, "--allow-any-user"];
    const server = await new World().start(...flags);
    await server.connect("bob", model, "tower", about);
    const page = await tab();
    await context.route("https://fonts.googleapis.com/**", (route) => route.abort()); // the provider's pages want it
    await page.goto(server.page);
    const go = page.getByRole("button", { name: `Sign in with ${new URL(idp.issuer).host}` });
    await go.click();
    await page.locator("[name=login]").fill("bob");
    await page.locator("[name=password]").fill("any");
    await page.locator("[type=submit]").click();
    await page.getByRole("button", { name: "Continue" }).click();
    await shows(page.locator("#desktop"), "online since");
    assert.equal(page.url(), server.page, "the code leaves the address");
    assert.match(await ask(page, "hello"), /word19/);
    await page.route("**/api/tunnel/status", (route) => route.fulfill(EXPIRED), { times: 1 });
    await page.reload();
    await shows(page.locator("#desktop"), "online since");
    assert.deepEqual(idp.asked, ["authorization_code", "refresh_token"]);

    // Signed out while a new token is on its way.
    const endpoint = `${idp.issuer}/token`;
    let release;
    const signedOut = new Promise((resolve) => (release = resolve));
    await page.route(endpoint, (route) => signedOut.then(() => route.continue()), { times: 1 });
    await page.route("**/api/tunnel/status", (route) => route.fulfill(EXPIRED), { times: 1 });
    await Promise.all([page.waitForRequest(endpoint), page.reload()]);
    await page.getByRole("button", { name: "Settings" }).click();
    await shows(page.locator("#account"), "Signed in as bob.");
    await page.getByRole("button", { name: "Sign out" }).click();
    release();
    await page.waitForResponse(endpoint);
    await page.waitForTimeout(200);
    assert.equal(await stored(page, "sessionStorage"), null);
    assert.equal(await page.evaluate(() => sessionStorage.getItem("tunnel.grant")), null);
    await context.clearCookies();
    await go.click();
    await page.getByRole("link", { name: "Cancel" }).click();
    await shows(page.getByRole("alert"), "did not sign you in");
    await page.goto(`${server.page}?code=stolen&state=guessed`);
    await shows(page.getByRole("alert"), "has not asked for what came back");
    assert.equal(page.url(), server.page);
    await context.close();
    await server.stop();
    idp.stop();
});

// --- Chatting.

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

// --- What goes wrong.

test("the desktop goes offline and comes back", async () => {
    const page = await signedIn();
    await desktop.stop();
    const said = await ask(page, "hello");
    assert.match(said, /Your desktop is offline[^]*tunnel connect/);
    await shows(page.locator("#desktop"), "offline since");
    desktop = await world.connect("bob", model);
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
    desktop = await world.connect("bob", model);
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
    desktop = await world.connect("bob", model);
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

test("a token that expires in the middle of a chat", async () => {
    const page = await tab();
    const now = Math.floor(Date.now() / 1000);
    await byLink(page, world.token("bob", { exp: now + 300 }));
    await shows(page.locator("#notice"), "Your token ends at");
    await page.getByRole("button", { name: "Settings" }).click();
    await page.getByRole("button", { name: "Sign out" }).click();
    await paste(page, world.token("bob", { exp: now - 24 })); // clocks may differ by 30 s
    await shows(page.locator("#desktop"), "online since");
    await shows(page.locator("#notice"), "Your token ended at");
    await begin(page, "hello");
    await shows(page.getByRole("alert"), "Your token has expired");
    await page.getByLabel("Token", { exact: true }).fill(world.token("bob"));
    await page.keyboard.press("Enter");
    await shows(answers(page).first(), "word");
    assert.match(await ask(page, "hello"), /word19/);
});

test("streams that end badly are shown as cut", async () => {
    const page = await signedIn();
    assert.match(await ask(page, "unfinished"), /word19[^]*The answer was cut off/);
    assert.match(await ask(page, "cut"), /word19[^]*broke off[^]*lacks its end/);
    assert.match(await ask(page, "break"), /Well[^]*The text above lacks its end\. An error was encountered/);
    assert.match(await ask(page, "error"), /gave up[^]*out of memory/);
    assert.match(await ask(page, "missing"), /404[^]*model 'x' not found/);
});

test("a scope that is too small, and no network", async () => {
    const page = await tab();
    await byLink(page, world.token("bob", { scope: "tunnel:connect" }));
    await shows(page.locator("#notice"), "Your token does not allow this");
    await context.setOffline(true);
    await shows(page.locator("#notice"), "The server cannot be reached");
    await shows(page.locator("#desktop"), "unknown");
    await context.setOffline(false);
    await shows(page.locator("#notice"), "Your token does not allow this");
});

// --- Threats.

test("t60: what a model says is text", async () => {
    const page = await signedIn();
    await ask(page, "hostile");
    assert.equal(await page.evaluate(() => globalThis.hacked), undefined);
    for (const tag of ["img", "script", "a", "iframe", "svg", "style", "b", "i", "u"]) {
        assert.equal(await page.locator(`#turns ${tag}`).count(), 0, tag);
    }
    const shown = await answer(page).locator(".text").innerText();
    for (const part of ["<img src=x onerror=", "<script>window.hacked='code'</script>", "![x](https://evil.example/x.png)"]) {
        assert.ok(HOSTILE.includes(part) && shown.includes(part), `${part} in ${shown}`);
    }
    assert.ok(requests.every((url) => url.startsWith(world.url)), requests.join("\n"));
});

test("t60: links lead where they say, to https and http alone", async () => {
    const page = await signedIn();
    const drawn = await page.evaluate(async (lines) => {
        const { Writer } = await import("/app/format.js");
        return lines.map((line) => {
            const root = document.createElement("div");
            new Writer(root).write(line);
            const found = [...root.querySelectorAll("a")];
            const attributes = new Set(found.flatMap((link) => link.getAttributeNames()));
            return { text: root.textContent, links: found.map(({ href }) => href), attributes: [...attributes].sort().join(" ") };
        });
    }, [...LINKS.map(([line]) => line), ...NO_LINKS]);
    for (const [i, [line, text, ...links]] of LINKS.entries()) {
        assert.deepEqual(drawn[i], { text, links, attributes: "href rel target" }, line);
    }
    for (const [i, line] of NO_LINKS.entries()) {
        assert.deepEqual(drawn[LINKS.length + i], { text: line, links: [], attributes: "" }, line);
    }
    await ask(page, "rich");
    const link = answer(page).getByRole("link", { name: "a link (example.org)" });
    assert.equal(await link.getAttribute("rel"), "noopener noreferrer nofollow");
    await context.route("https://example.org/**", (route) => route.fulfill({ body: "there" }));
    const [opened] = await Promise.all([context.waitForEvent("page"), link.click()]);
    await opened.waitForURL("https://example.org/a_(b)?c=d#e");
    assert.equal(await opened.evaluate(() => globalThis.opener), null);
    assert.equal(page.url(), world.page);
});

test("t59: the policy stops what is not ours, even if it got in", async () => {
    const page = await signedIn();
    const added = await page.evaluate(async (elsewhere) => {
        const violations = [];
        try {
            document.body.innerHTML = "<img src=x onerror=alert(1)>";
        } catch (error) {
            violations.push(error.name);
        }
        const script = document.createElement("script");
        try {
            script.textContent = "window.hacked = true";
            document.body.append(script);
        } catch (error) {
            violations.push(error.name);
        }
        await fetch(elsewhere, { mode: "no-cors" }).catch(() => violations.push("fetch"));
        return { violations, hacked: globalThis.hacked };
    }, `${model.url}/api/tags`);
    assert.equal(added.hacked, undefined);
    assert.ok(added.violations.includes("TypeError") && added.violations.includes("fetch"), added.violations.join());
    const frame = await nextTab();
    await frame.goto(`${world.url}/healthz`);
    const framed = await frame.evaluate(async (page) => {
        const frame = document.createElement("iframe");
        frame.src = page;
        document.body.append(frame);
        await new Promise((resolve) => (frame.onload = resolve));
        return frame.contentDocument?.querySelector("#token") != null;
    }, world.page);
    assert.equal(framed, false);
    errors.length = 0; // these were meant
});

test("t61: a hostile desktop's page has no power in our origin", async () => {
    const page = await signedIn();
    await page.getByRole("button", { name: "Settings" }).click();
    await page.locator("#remember-me").check();
    const other = await nextTab();
    await other.goto(`${world.url}/t/${world.token("bob", { scope: "tunnel:proxy" })}/page`);
    assert.equal(await other.title(), "innocent");
    assert.equal(await other.evaluate(() => globalThis.origin), "null");
    await assert.rejects(other.evaluate(() => localStorage.length), /SecurityError|denied/);
    assert.deepEqual(await context.cookies(), []);
    errors.length = 0; // its script was blocked, and Chromium says so
});

test("t59: what a desktop answers in our origin does not run in the page", async () => {
    const page = await signedIn();
    const ours = `/t/${world.token("bob", { scope: "tunnel:proxy" })}/evil.js`;
    const asked = () => model.requests.filter(({ path }) => path === "/evil.js").length;
    const before = asked();
    assert.equal(await page.evaluate((url) => import(url).then(() => "ran", ({ name }) => name), ours), "TypeError");
    assert.equal(await page.evaluate(() => globalThis.hacked), undefined);
    assert.equal(asked(), before);
    // The same answer as data is what the page is for.
    assert.match(await page.evaluate((url) => fetch(url).then((response) => response.text()), ours), /hacked/);
    errors.length = 0; // Chromium says what was refused
});

test("t57, t58: pages of other origins are let in only where they are listed", async () => {
    const listing = await new World().start("--cors-origin", model.url);
    await listing.connect("bob", model);
    const page = await tab();
    await page.goto(`${model.url}/api/tags`);
    const ask = (at) => page.evaluate(async ([url, token]) => {
        const headers = { Authorization: `Bearer ${token}`, "Tunnel-Deadline": "2s" };
        return fetch(`${url}/api/tags`, { headers }).then(({ status }) => status, ({ name }) => name);
    }, [at.url, at.token("bob")]);
    assert.equal(await ask(listing), 200);
    assert.equal(await ask(world), "TypeError");
    errors.length = 0; // Chromium says why
    await context.close();
    await listing.stop();
});

test("t63: a web page cannot use Basic", async () => {
    const page = await signedIn();
    const status = await page.evaluate(async (token) => {
        const headers = { Authorization: `Basic ${btoa(`x:${token}`)}` };
        return (await fetch("/api/tags", { headers })).status;
    }, world.token("bob"));
    assert.equal(status, 403);
});

// --- For everybody.

test("the keyboard alone is enough", async () => {
    const page = await tab();
    await page.goto(world.page);
    const focused = () => page.evaluate(() => document.activeElement.id || document.activeElement.textContent.trim());
    assert.equal(await focused(), "token");
    await page.keyboard.insertText(world.token("bob"));
    await page.keyboard.press("Enter");
    await shows(page.locator("#desktop"), "online since");
    await page.locator("#model option").first().waitFor({ state: "attached" });
    assert.equal(await focused(), "prompt");
    await page.keyboard.type("hello");
    await page.keyboard.press("Shift+Enter");
    await page.keyboard.type("there");
    assert.equal(await answers(page).count(), 0);
    await page.keyboard.press("Enter");
    assert.match(await over(page), /word19/);
    assert.equal(model.requests.at(-1).body.messages[0].content, "hello\nthere");
    const seen = new Set();
    for (let stops = 0; stops < 30; stops++) {
        await page.keyboard.press("Tab");
        seen.add(await focused());
        const visible = await page.evaluate(() => {
            const { outlineStyle } = getComputedStyle(document.activeElement);
            const around = document.activeElement.closest("#composer") ?? document.activeElement;
            const nothing = document.activeElement === document.body; // between the last one and the first
            return nothing || outlineStyle !== "none" || getComputedStyle(around).outlineStyle !== "none";
        });
        assert.ok(visible, `focus is visible on ${await focused()}`);
    }
    for (const stop of ["skip", "new-chat", "theme", "open-settings", "Copy", "Try again", "model", "send", "prompt"]) {
        assert.ok(seen.has(stop), `${stop} is not in ${[...seen]}`);
    }
    await page.locator("#skip").focus();
    await page.keyboard.press("Enter");
    assert.equal(await focused(), "prompt");
    assert.equal(page.url(), world.page);
});

test("a phone's width, in the dark", async () => {
    const page = await signedIn({ ...PHONE, colorScheme: "dark" });
    await ask(page, "hostile");
    const { widths, ground } = await page.evaluate(() => ({
        widths: ["html", "#chat", "#scroll", "#turns", "#dock"].map((part) => document.querySelector(part).scrollWidth),
        ground: getComputedStyle(document.body).backgroundColor,
    }));
    assert.ok(Math.max(...widths) <= PHONE.viewport.width, `nothing is wider than the screen: ${widths}`);
    assert.equal(ground, "rgb(20, 21, 23)");
    assert.ok(await page.getByRole("button", { name: "Send" }).isVisible());
    await page.getByRole("button", { name: "Colours: Auto" }).click();
    const light = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    assert.equal(await light(), "rgb(247, 247, 245)");
    await page.reload();
    assert.equal(await light(), "rgb(247, 247, 245)", "a choice is kept");
    await page.getByRole("button", { name: "Settings" }).click();
    await page.getByRole("button", { name: "Done" }).click();
    await page.getByRole("button", { name: "New chat" }).click();
    assert.equal(await answers(page).count(), 0);
});

test("on a phone, long names of desktops leave room for the rest of the head", async () => {
    const names = ["laptop-of-bob-in-the-kitchen", "DESKTOP-4F7K2QX"];
    for (const name of names) await world.connect("ann-with-a-long-name", model, name);
    const page = await signedIn(PHONE, "ann-with-a-long-name");
    const picker = page.getByRole("combobox", { name: "Desktop" });
    for (const name of names) {
        await picker.selectOption(name);
        const { overlaps, parts, width } = await page.evaluate(() => {
            const shown = [...document.querySelectorAll("header :is(select, button, .dot, #desktop-state, #user)")];
            const boxes = shown.map((part) => [part.id || part.className, part.getBoundingClientRect()]).filter(([, box]) => box.width > 0);
            const outside = boxes.filter(([, box]) => box.left < 0 || box.right > innerWidth).map(([part]) => `${part} outside`);
            const overlaps = boxes.flatMap(([one, a], i) =>
                boxes.slice(i + 1).filter(([, b]) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom).map(([other]) => `${one} on ${other}`),
            );
            return { overlaps: [...outside, ...overlaps], parts: boxes.map(([part]) => part), width: document.documentElement.scrollWidth };
        });
        assert.deepEqual(overlaps, [], name);
        assert.deepEqual(parts, ["dot", "desktop-choice", "desktop-state", "new-chat", "theme", "open-settings"]);
        assert.ok(width <= PHONE.viewport.width, `no scrolling sideways: ${width}`);
    }
    await page.getByRole("button", { name: "Settings" }).click();
    await shows(page.locator("#account"), "Signed in as ann-with-a-long-name");
});

for (const [where, options] of [["a desktop", { viewport: { width: 1200, height: 800 } }], ["a phone", PHONE]]) {
    test(`tables keep words whole and scroll by themselves, on ${where}`, async () => {
        const page = await signedIn(options);
        await ask(page, "table");
        const table = answer(page).locator(".table");
        const broken = await table.evaluate((table) => {
            const texts = document.createTreeWalker(table, NodeFilter.SHOW_TEXT);
            const found = [];
            while (texts.nextNode()) {
                for (const { 0: word, index } of texts.currentNode.data.matchAll(/\S+/g)) {
                    const range = document.createRange();
                    range.setStart(texts.currentNode, index);
                    range.setEnd(texts.currentNode, index + word.length);
                    if (range.getClientRects().length > 1) found.push(word);
                }
            }
            return found;
        });
        assert.deepEqual(broken, []);
        const isWide = await table.evaluate(({ scrollWidth, clientWidth }) => scrollWidth > clientWidth);
        assert.equal(isWide, options === PHONE);
        assert.ok(await page.evaluate(() => document.querySelector("#scroll").scrollWidth <= innerWidth), "the chat does not scroll sideways");
        await answer(page).getByRole("button", { name: "Copy" }).focus();
        await page.keyboard.press("Shift+Tab");
        assert.ok(await table.evaluate((table) => table === document.activeElement), "keys reach it");
        if (!isWide) return;
        await page.keyboard.press("ArrowRight");
        await page.waitForFunction(() => document.activeElement.scrollLeft > 0);
    });
}

for (const [where, options] of [["light", {}], ["dark", { colorScheme: "dark" }], ["on a phone", PHONE]]) {
    test(`accessible by axe, ${where}`, async () => {
        const page = await tab({ ...options, bypassCSP: true }); // axe brings its own script and style
        await page.goto(world.page);
        await check(page, "signing in");
        await page.goto(`${world.page}#token=${world.token("bob")}`);
        await page.getByRole("dialog").waitFor();
        await check(page, "the question");
        await page.getByRole("button", { name: "Sign in as bob" }).click();
        await shows(page.locator("#desktop"), "online since");
        await ask(page, "hostile");
        await ask(page, "rich");
        await ask(page, "table");
        await ask(page, "unfinished");
        await check(page, "the chat");
        await page.getByRole("button", { name: "Settings" }).click();
        await check(page, "settings");
        await page.getByRole("button", { name: "Done" }).click();
        await page.getByRole("button", { name: "New chat" }).click();
        await page.getByRole("button", { name: "Undo" }).waitFor();
        await check(page, "a new chat");
    });
}

async function check(page, where) {
    await page.evaluate(axe.source);
    const { violations } = await page.evaluate(() => globalThis.axe.run());
    const found = violations.map(({ id, nodes }) => `${where}: ${id}: ${nodes.map((node) => node.html).join(" ")}`);
    assert.deepEqual(found, []);
}
