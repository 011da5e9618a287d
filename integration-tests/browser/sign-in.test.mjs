// Signing in and out, and what becomes of a token.

import assert from "node:assert/strict";
import { test } from "node:test";

import { answer, answers, ask, begin, byLink, context, model, nextTab, paste, requests, shows, signedIn, stored, tab, world } from "./page.mjs";
import { AUDIENCE, CLIENT, provider } from "./provider.mjs";
import { World } from "./world.mjs";

const EXPIRED = { status: 401, headers: { "tunnel-error": "token_expired", "x-request-id": "1" }, body: "{}" };

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
