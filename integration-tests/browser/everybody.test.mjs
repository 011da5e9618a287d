// For everybody: the keyboard, a phone, the dark, and what axe finds.

import assert from "node:assert/strict";
import { test } from "node:test";

import axe from "axe-core";

import { PHONE, answer, answers, ask, model, over, shows, signedIn, tab, world } from "./page.mjs";

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
