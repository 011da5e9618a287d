// The threats of docs/security.md that only a browser can show.

import assert from "node:assert/strict";
import { test } from "node:test";

import { answer, ask, context, errors, model, nextTab, requests, signedIn, tab, world } from "./page.mjs";
import { HOSTILE, World } from "./world.mjs";

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
