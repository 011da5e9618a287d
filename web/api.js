// Requests to the server that this page is from, and what they need to reach the right desktop.

import { canRenew, renew } from "./login.js";
import { Problem } from "./problem.js";
import { current, generation, use } from "./session.js";

const MOST_TRIES = 3;

/** The response, or a Problem. What was not passed on to a desktop is sent again by itself, twice. */
export async function request(path, { desktop, json, signal } = {}) {
    const since = generation();
    for (let tries = 1; ; tries++) {
        const response = await send(path, desktop, json, signal);
        if (response.ok) return response;
        const problem = await Problem.of(response);
        const fresh = problem.code === "token_expired" && tries === 1 && canRenew() ? await renew() : null;
        const again = !fresh && problem.retryAfter <= 2 && tries < MOST_TRIES;
        if (again) await pause(problem.retryAfter * 1000, signal);
        // This was another session's: its token must not come back, nor what it wrote go out with the token of the next one.
        if (since !== generation()) throw new Problem("left", { title: "You have signed out meanwhile", advice: "Try again." });
        if (fresh) use(fresh);
        else if (!again) throw problem;
    }
}

async function send(path, desktop, json, signal) {
    const headers = { Accept: "*/*", Authorization: `Bearer ${current()}` };
    if (desktop) headers["Tunnel-Name"] = desktop;
    if (json) {
        headers["Content-Type"] = "application/json";
        headers["Tunnel-Deadline"] = "24h"; // as long as this server allows: here a person watches, and can stop it
    }
    const init = { method: json ? "POST" : "GET", body: json && JSON.stringify(json), headers, signal };
    try {
        return await fetch(path, { ...init, credentials: "omit", cache: "no-store", redirect: "error" });
    } catch (error) {
        if (error.name === "AbortError") throw error;
        throw new Problem("network");
    }
}

/** The caller's desktops. */
export async function status(signal) {
    return (await request("/api/tunnel/status", { signal })).json();
}

/** What a desktop has: how it speaks, and the names of its models. */
export async function models(desktop, signal) {
    let refused;
    try {
        const found = await (await request("/api/tags", { desktop, signal })).json();
        // llama-server answers here as well, with a list of OpenAI's in it, but speaks only /v1.
        if (Array.isArray(found.models) && found.object !== "list") {
            return { speaks: "ollama", names: names(found.models.filter(chats), "model") };
        }
    } catch (error) {
        if (!["upstream", "not_allowed"].includes(error.code) && !(error instanceof SyntaxError)) throw error;
        refused = error;
    }
    try {
        const found = await (await request("/v1/models", { desktop, signal })).json();
        return { speaks: "openai", names: names(found.data, "id") };
    } catch (error) {
        throw refused instanceof Problem ? refused : error;
    }
}

/** Not what only embeds, where the list tells: by `capabilities`, or by the family, of which BERT's never chat. */
function chats(model) {
    const { capabilities, details } = model ?? {};
    return Array.isArray(capabilities) ? capabilities.includes("completion") : !/bert$/.test(details?.family);
}

function names(list, key) {
    const all = (Array.isArray(list) ? list : []).map((model) => model?.[key] ?? model?.name);
    return all.filter((name) => typeof name === "string" && name !== "").slice(0, 500);
}

/** Begins an answer. */
export function chat({ speaks, ...body }, desktop, signal) {
    if (speaks === "ollama") return request("/api/chat", { desktop, signal, json: { ...body, stream: true } });
    const json = { ...body, stream: true, stream_options: { include_usage: true } };
    return request("/v1/chat/completions", { desktop, signal, json });
}

function pause(millis, signal) {
    return new Promise((resolve, reject) => {
        const timer = setTimeout(resolve, millis);
        const stop = () => (clearTimeout(timer), reject(signal.reason));
        signal?.addEventListener("abort", stop, { once: true });
    });
}
