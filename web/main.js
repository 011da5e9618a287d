// The page as a whole: the desktop in the head and its models, the chat, the keys.

import { models } from "./api.js";
import { ask, withdraw } from "./ask.js";
import { Chat, said } from "./chat.js";
import { Desktops, moment } from "./desktops.js";
import { canRenew } from "./login.js";
import { Problem } from "./problem.js";
import * as session from "./session.js";
import { settings } from "./settings.js";
import { SignIn } from "./sign-in.js";

const ENDS_SOON = 10 * 60_000;
const STOP = { title: "Start a new chat?", text: "The answer that is being written stops.", no: "Cancel", yes: "Stop and start" };
const $ = (id) => document.getElementById(id);

let follows = true; // the end of the chat stays in view
let loading = Promise.resolve(); // the list of models

const chat = new Chat($("turns"), { ready, target, changed: draw, drawn: follow, announce, failed, toPrompt });
const desktops = new Desktops(desktopsChanged);
let chosen = session.kept("desktop"); // the desktop that was chosen, by name; "" for the server's choice
let last = ""; // the desktop that was there last
let has = { speaks: "", names: [], of: "" }; // what the desktop has
let lacks = null; // why it is not known

const door = new SignIn({ entered, left: () => desktops.stop(), isEmpty: () => chat.isEmpty });

/** `isOther`: somebody else than what this tab keeps is of. */
function entered(isOther) {
    if (isOther) startAnew();
    draw();
    desktops.look();
    toPrompt();
}

/** Nothing that another user wrote or chose is for this one. */
function startAnew() {
    for (const name of ["system", "model", "desktop"]) session.keep(name, "");
    chosen = last = "";
    $("model").replaceChildren();
    $("prompt").value = "";
    chat.clear();
}

// --- The desktop and its models.

function desktopsChanged() {
    if (desktops.problem?.needsSignIn) return door.leave(desktops.problem);
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
        if (problem.needsSignIn) return door.leave(problem);
        has = { speaks: "", names: [], of };
        lacks = problem;
    }
    draw();
}

/** Looks again at what was wrong, if anything was. */
async function ready() {
    if (desktops.problem || !inUse() || lacks) await desktops.look();
    await loading;
}

function target() {
    if (desktops.problem) throw desktops.problem;
    if (!inUse()) throw new Problem("tunnel_offline");
    if (has.names.length === 0) throw (lacks ?? new Problem("no_models"));
    return { desktop: inUse().name, speaks: has.speaks, model: $("model").value, system: session.kept("system").trim() };
}

function failed(problem) {
    if (problem.needsSignIn) return door.leave(problem);
    desktops.look();
}

// --- Drawing.

function draw() {
    drawDesktop();
    drawModels();
    drawNotice();
    $("stop").hidden = !chat.isRunning;
    $("send").hidden = chat.isRunning;
    $("welcome").hidden = !chat.isEmpty;
    $("cleared").firstElementChild.hidden = !chat.canUndo;
    $("new-chat").disabled = chat.isEmpty;
    $("turns").setAttribute("aria-busy", String(chat.isRunning));
    if (!chat.isRunning) withdraw(STOP);
    if (!chat.isEmpty) return;
    follows = true;
    $("to-end").hidden = true;
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
    const isIdle = lacks?.code === "upstream_unreachable";
    $("desktop").className = desktop ? (isIdle ? "idle" : "online") : desktops.isKnown ? "offline" : "";
    $("desktop-rtt").textContent = desktop?.rtt_ms == null ? "" : ` · ${Math.round(desktop.rtt_ms)} ms`;
    const lost = desktops.lostAt ? `offline since ${moment(desktops.lostAt)}` : "offline";
    const online = desktop && (isIdle ? "online, no model server" : `online since ${moment(desktop.since)}`);
    const state = online ?? (desktops.isKnown ? lost : desktops.problem ? "unknown" : "…");
    $("desktop-state").firstChild.textContent = state;
    $("welcome-text").textContent = !desktop
        ? "As soon as your desktop is connected, its models answer here."
        : lacks
          ? `${desktop.name} is connected, but none of its models answers yet.`
          : `The models on ${desktop.name} answer. What you write is kept in this tab only, and goes with it.`;
}

function drawModels() {
    const wanted = session.kept("model");
    fill($("model"), has.names, has.names.includes(wanted) ? wanted : $("model").value);
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
    if (!problem && ends - Date.now() < ENDS_SOON && !canRenew()) {
        const advice = "Open a new link, or sign out and in again. The chat stays if you are the same user.";
        problem = new Problem("ends", { title: `Your token ${ends > Date.now() ? "ends" : "ended"} at ${moment(ends)}`, advice });
    }
    if (problem && problem.message === chat.problem?.message) problem = null; // the last answer says it
    const words = problem ? `${problem.message} ${problem.advice}` : "";
    if ($("notice").dataset.words === words) return; // or it would be read out again
    $("notice").dataset.words = words;
    if ($("notice").contains(document.activeElement)) toPrompt();
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
    toPrompt();
});

// --- Writing.

$("composer").addEventListener("submit", async (event) => {
    event.preventDefault();
    const text = $("prompt").value.trim();
    if (!text || chat.isRunning) return;
    await ready();
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
/** Ready to write; but on a phone its keyboard comes only when it is asked for. */
function toPrompt() {
    if (!matchMedia("(pointer: coarse)").matches) $("prompt").focus();
}
$("prompt").addEventListener("input", grow);
function grow() {
    $("prompt").style.height = "auto";
    $("prompt").style.height = `${$("prompt").scrollHeight + 2}px`;
}
$("stop").addEventListener("click", () => {
    chat.stop();
    toPrompt();
});
addEventListener("keydown", (event) => {
    if (event.key === "Escape" && chat.isRunning && !document.querySelector("dialog[open]")) chat.stop();
});
$("new-chat").addEventListener("click", async () => {
    if (chat.isRunning && !(await ask(STOP))) return;
    chat.startAnew();
    toPrompt();
});
$("undo").addEventListener("click", () => {
    toPrompt(); // the button is about to go
    chat.undo();
    announce("The chat is back.");
});
$("skip").addEventListener("click", (event) => {
    event.preventDefault();
    $("prompt").focus();
});
$("model").addEventListener("change", () => session.keep("model", $("model").value));
$("desktop-choice").addEventListener("change", () => {
    chosen = $("desktop-choice").value;
    session.keep("desktop", chosen);
    desktopsChanged();
});

settings(() => {
    chat.clear();
    door.leave();
});
document.documentElement.classList.toggle("no-clipboard", !navigator.clipboard);
door.begin();
