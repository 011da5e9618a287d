// A tab of the web client, and what a person does there. Whoever imports this has Chromium, a server, a model server and a
// desktop of bob before the first test, and none of them after the last.

import assert from "node:assert/strict";
import { after, afterEach, beforeEach } from "node:test";

import { Model, World, launch } from "./world.mjs";

export const PHONE = { viewport: { width: 360, height: 640 }, isMobile: true, hasTouch: true };

export let world, model, desktop;
export let context, errors, requests; // of the test that runs
let browser, started;

beforeEach(() => (started ??= start())); // not before(): node runs that one, but no after(), where NAME leaves no test

async function start() {
    [browser, world, model] = await Promise.all([launch(), new World().start(), new Model().start()]);
    await connect();
}

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

/** Bob's desktop, once more. */
export async function connect() {
    desktop = await world.connect("bob", model);
}

/** A tab of a browser that has never been here; `options` are Playwright's. */
export async function tab(options = {}) {
    context = await browser.newContext({ ignoreHTTPSErrors: true, permissions: ["clipboard-read", "clipboard-write"], ...options });
    [errors, requests] = [[], []];
    return nextTab();
}

export async function nextTab() {
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
export async function signedIn(options, user = "bob", at = world) {
    const page = await tab(options);
    await byLink(page, at.token(user), user, at.page);
    await page.getByRole("combobox", { name: "Model" }).locator("option", { hasText: "qwen3:8b" }).waitFor({ state: "attached" });
    return page;
}

/** Opens a link of a user whom this device does not know yet, and accepts it. */
export async function byLink(page, token, user = "bob", address = world.page) {
    await page.goto(`${address}#token=${token}`);
    await page.getByRole("button", { name: `Sign in as ${user}` }).click();
}

/** Signs in by the form. */
export async function paste(page, token) {
    await page.getByLabel("Token", { exact: true }).fill(token);
    await page.keyboard.press("Enter");
}

export const answers = (page) => page.locator("article.answer");
export const answer = (page) => answers(page).last();

/** Asks, and waits for the end of the answer. */
export async function ask(page, text) {
    await begin(page, text);
    return over(page);
}

export async function begin(page, text) {
    const count = await answers(page).count();
    await page.getByLabel("Message", { exact: true }).fill(text);
    await page.keyboard.press("Enter");
    await answers(page).nth(count).waitFor();
}

export async function over(page) {
    await page.getByRole("button", { name: "Send" }).waitFor();
    return answer(page).innerText();
}

export async function shows(locator, text) {
    await locator.filter({ hasText: text }).first().waitFor();
}

export const stored = (page, where) => page.evaluate((where) => globalThis[where].getItem("tunnel.token"), where);
