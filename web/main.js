// The page as a whole: signing in, the desktop in the head, the models, the chat, settings and keys.

import { models, status } from "./api.js";
import { Chat, said } from "./chat.js";
import { Desktops, moment } from "./desktops.js";
import { Problem } from "./problem.js";
import * as session from "./session.js";

const ENDS_SOON = 10 * 60_000;
const $ = (id) => document.getElementById(id);

let follows = true; // the end of the chat stays in view
let loading = Promise.resolve(); // the list of models

const chat = new Chat($("turns"), { target, changed: draw, drawn: follow, announce, failed });
const desktops = new Desktops(desktopsChanged);
let owner = session.restore() && me(); // whose chat this is
let chosen = kept("desktop"); // the desktop that was chosen, by name; "" for the server's choice
let last = ""; // the desktop that was there last
let has = { speaks: "", names: [], of: "" }; // what the desktop has
let lacks = null; // why it is not known

// --- Signing in.

/** `token` is what the link carries: null where it is none, "" where it is broken. */
async function signInByLink(token) {
    if (token === null) return session.current() ? enter() : leave();
    if (!token) return leave(new Problem("token_invalid", { title: "The token in this link is not complete" }));
    const { user, iss } = session.claims(token);
    const before = session.current();
    const isOther = before && me() !== key({ user, iss });
    // A link of somebody else must not take a person who is signed in to another desktop unasked.
    if (isOther && !(await ask(session.claims().user, user))) return enter();
    await signIn(token, !isOther && session.isRemembered());
}

async function signIn(token, remember) {
    leave();
    $("sign-in-go").disabled = true;
    session.use(token, remember);
    const problem = await status().then(() => null, (problem) => problem);
    $("sign-in-go").disabled = false;
    if (problem?.needsSignIn || problem?.code === "not_allowed") leave(problem);
    else enter(); // other problems may pass, and the chat says them
}

/** The chat, for who has a token. */
function enter() {
    if (owner && owner !== me()) chat.clear();
    owner = me();
    show("chat");
    draw();
    desktops.look();
    $("prompt").focus();
}

/** The way in, for who has none, or none that is good. */
function leave(problem) {
    desktops.stop();
    session.forget();
    $("sign-in-why").hidden = !problem;
    if (problem) $("sign-in-why").replaceChildren(...said(problem).children);
    if (problem && !chat.isEmpty) $("sign-in-why").append(" Your chat is still here.");
    show("sign-in");
    $("token").focus();
}

function show(main) {
    document.body.dataset.shows = main;
    for (const id of ["sign-in", "chat"]) $(id).hidden = id !== main;
    for (const id of ["desktop", "new-chat", "open-settings", "skip"]) $(id).hidden = main !== "chat";
}

function key({ iss, user }) {
    return JSON.stringify([iss, user]);
}
function me() {
    return key(session.claims());
}

$("sign-in-form").addEventListener("submit", (event) => {
    event.preventDefault();
    const token = session.tokenIn($("token").value);
    if (!token) {
        const advice = "A token has three parts with dots between them, and begins with “eyJ”. Copy all of it.";
        return leave(new Problem("token_invalid", { title: "This is not a token", advice }));
    }
    const remember = $("remember").checked;
    $("sign-in-form").reset();
    hideToken();
    signIn(token, remember);
});

$("show-token").addEventListener("click", () => hideToken($("token").type === "text"));
function hideToken(hide = true) {
    $("token").type = hide ? "password" : "text";
    $("show-token").textContent = hide ? "Show" : "Hide";
    $("show-token").setAttribute("aria-pressed", String(!hide));
}

$("sign-out").addEventListener("click", () => {
    $("settings").close();
    chat.clear();
    keep("system", "");
    owner = null;
    leave();
});

// A link that is opened in this very tab.
addEventListener("hashchange", () => {
    const linked = session.fromAddress();
    if (linked !== null) signInByLink(linked);
});

function ask(stay, other) {
    const dialog = $("ask");
    $("ask-text").textContent = `You are signed in as ${stay}. The link that you opened signs in as ${other}: what you write would go to that user's desktop.`;
    $("ask-yes").textContent = `Sign in as ${other}`;
    dialog.returnValue = "no";
    dialog.showModal();
    return new Promise((resolve) => {
        dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
    });
}

// --- The desktop and its models.

function desktopsChanged() {
    if (desktops.problem?.needsSignIn) return leave(desktops.problem);
    const desktop = inUse();
    const of = desktop ? `${desktop.name} ${desktop.since}` : "";
    if (desktop && (of !== has.of || lacks || has.names.length === 0)) loading = loadModels(of);
    draw();
}

/** The desktop that takes the next request, if it is connected. */
function inUse() {
    const name = session.claims().tunnel ?? chosen;
    return name ? desktops.list.find((desktop) => desktop.name === name) : desktops.list[0];
}

async function loadModels(of) {
    const name = inUse().name;
    try {
        const found = await models(name);
        if (name !== inUse()?.name) return; // another one was chosen meanwhile
        has = { ...found, of };
        lacks = has.names.length > 0 ? null : new Problem("no_models");
    } catch (problem) {
        if (problem.needsSignIn) return leave(problem);
        has = { speaks: "", names: [], of };
        lacks = problem;
    }
    draw();
}

function target() {
    if (desktops.problem) throw desktops.problem;
    if (!inUse()) throw new Problem("tunnel_offline");
    if (has.names.length === 0) throw (lacks ?? new Problem("no_models"));
    return { desktop: inUse().name, speaks: has.speaks, model: $("model").value, system: kept("system").trim() };
}

function failed(problem) {
    if (problem.needsSignIn) return leave(problem);
    if (problem.isAbsence) desktops.look();
}

// --- Drawing.

function draw() {
    drawDesktop();
    drawModels();
    drawNotice();
    $("stop").hidden = !chat.isRunning;
    $("send").hidden = chat.isRunning;
    $("welcome").hidden = !chat.isEmpty;
    $("new-chat").disabled = chat.isEmpty;
    $("turns").setAttribute("aria-busy", String(chat.isRunning));
}

function drawDesktop() {
    const desktop = inUse();
    const bound = session.claims().tunnel;
    const names = bound ? [bound] : desktops.list.map(({ name }) => name);
    if (chosen && !names.includes(chosen) && !bound) names.push(chosen);
    if (desktop) last = desktop.name;
    const name = bound ?? (chosen || last);
    fill($("desktop-choice"), names, name);
    $("desktop-choice").hidden = names.length < 2;
    $("desktop-name").hidden = names.length > 1;
    $("desktop-name").textContent = name || "Desktop";
    $("desktop").className = desktop ? "online" : desktops.isKnown ? "offline" : "";
    const rtt = desktop?.rtt_ms == null ? "" : ` · ${Math.round(desktop.rtt_ms)} ms`;
    const lost = desktops.lostAt ? `offline since ${moment(desktops.lostAt)}` : "offline";
    $("desktop-state").textContent = desktop ? `online since ${moment(desktop.since)}${rtt}` : desktops.isKnown ? lost : "…";
    $("welcome-text").textContent = desktop
        ? `The models on ${desktop.name} answer. What you write is kept in this tab only, and goes with it.`
        : "As soon as your desktop is connected, its models answer here.";
}

function drawModels() {
    fill($("model"), has.names, $("model").value || kept("model"));
    $("model").disabled = has.names.length === 0;
    if (has.names.length === 0) $("model").replaceChildren(new Option("No model"));
}

function fill(select, names, value) {
    const there = [...select.options].map((option) => option.value);
    if (there.join("\n") !== names.join("\n")) select.replaceChildren(...names.map((name) => new Option(name, name)));
    if (names.includes(value)) select.value = value;
}

/** What keeps the next question from being answered, and what to do about it. */
function drawNotice() {
    let problem = desktops.problem ?? (inUse() ? lacks : null);
    if (!problem && !inUse() && $("desktop").className) problem = new Problem("tunnel_offline");
    const ends = session.claims().ends;
    if (!problem && ends - Date.now() < ENDS_SOON) {
        const advice = "Open a new link, or sign out and in again. The chat stays if you are the same user.";
        problem = new Problem("ends", { title: `Your token ends at ${moment(ends)}`, advice });
    }
    const words = problem ? `${problem.message} ${problem.advice}` : "";
    if ($("notice").dataset.words === words) return; // or it would be read out again
    $("notice").dataset.words = words;
    if ($("notice").contains(document.activeElement)) $("prompt").focus();
    $("notice").replaceChildren();
    if (!problem) return;
    const notice = said(problem);
    notice.removeAttribute("role"); // what it is in has one
    notice.querySelector("small")?.remove();
    if (problem.code !== "ends") {
        const again = Object.assign(document.createElement("button"), { type: "button", textContent: "Check now" });
        again.addEventListener("click", () => desktops.look());
        notice.append(again);
    }
    $("notice").append(notice);
}

function announce(text) {
    $("announce").textContent = text;
}

// --- Scrolling: the end stays in view while somebody looks at it.

function follow() {
    if (follows) $("scroll").scrollTop = $("scroll").scrollHeight;
    $("to-end").hidden = follows;
}
$("scroll").addEventListener("scroll", () => {
    const { scrollHeight, scrollTop, clientHeight } = $("scroll");
    follows = scrollHeight - scrollTop - clientHeight < 48;
    $("to-end").hidden = follows;
});
new ResizeObserver(follow).observe($("scroll")); // a notice has come, or the keyboard of a phone
$("to-end").addEventListener("click", () => {
    follows = true;
    follow();
    $("prompt").focus();
});

// --- Writing.

$("composer").addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = $("prompt").value.trim();
    if (!text || chat.isRunning) return;
    if (desktops.problem || !inUse()) await desktops.look();
    await loading;
    try {
        follows = true;
        const answered = chat.ask(text);
        $("prompt").value = "";
        grow();
        await answered;
    } catch (problem) {
        $("prompt").value = text;
        grow();
        announce(`${problem.message}. ${problem.advice}`);
    }
});
$("prompt").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    $("composer").requestSubmit();
});
$("prompt").addEventListener("input", grow);
function grow() {
    $("prompt").style.height = "auto";
    $("prompt").style.height = `${$("prompt").scrollHeight + 2}px`;
}
$("stop").addEventListener("click", () => {
    chat.stop();
    $("prompt").focus();
});
addEventListener("keydown", (event) => {
    if (event.key === "Escape" && chat.isRunning && !document.querySelector("dialog[open]")) chat.stop();
});
$("new-chat").addEventListener("click", () => {
    chat.clear();
    $("prompt").focus();
});
$("skip").addEventListener("click", (event) => {
    event.preventDefault();
    $("prompt").focus();
});
$("model").addEventListener("change", () => keep("model", $("model").value));
$("desktop-choice").addEventListener("change", () => {
    chosen = $("desktop-choice").value;
    keep("desktop", chosen);
    desktopsChanged();
});

// --- Settings.

$("open-settings").addEventListener("click", () => {
    const { user, ends } = session.claims();
    const until = ends === Infinity ? "" : `, until ${moment(ends)}`;
    $("account").textContent = `Signed in as ${user}${until}.`;
    $("system").value = kept("system");
    $("remember-me").checked = session.isRemembered();
    $("settings").showModal();
});
$("system").addEventListener("input", () => keep("system", $("system").value));
$("remember-me").addEventListener("change", () => session.use(session.current(), $("remember-me").checked));

const THEMES = { auto: "light", light: "dark", dark: "auto" };
const NAMES = { auto: "Auto", light: "Light", dark: "Dark" };
$("theme").addEventListener("click", () => {
    const theme = THEMES[document.documentElement.dataset.theme] ?? "auto";
    document.documentElement.dataset.theme = theme;
    drawTheme();
    try {
        localStorage.setItem("tunnel.theme", theme);
    } catch {
        // It holds until the page is left.
    }
});
function drawTheme() {
    const name = NAMES[document.documentElement.dataset.theme] ?? "Auto";
    $("theme").querySelector("span").textContent = name;
    $("theme").setAttribute("aria-label", `Colours: ${name}`);
}
drawTheme();
document.documentElement.classList.toggle("no-clipboard", !navigator.clipboard);

/** Kept for as long as this tab. */
function kept(name) {
    try {
        return sessionStorage.getItem(`tunnel.${name}`) ?? "";
    } catch {
        return "";
    }
}
function keep(name, value) {
    try {
        sessionStorage.setItem(`tunnel.${name}`, value);
    } catch {
        // It holds until the page is left.
    }
}

signInByLink(session.fromAddress());
