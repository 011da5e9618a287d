// What can go wrong, and what to do about it.

const OFFLINE = "Run “tunnel connect” on it. This page notices when it is back.";

/** By the server's code (the header Tunnel-Error, or `code` in a stream's last record), and five of our own. */
const TABLE = {
    tunnel_offline: ["Your desktop is offline", OFFLINE],
    upstream_unreachable: [
        "Nothing answers on your desktop",
        "The desktop is connected, but its model server is not running. Start Ollama there, then try again.",
    ],
    upstream_error: ["The model server broke off", "Look at the log of Ollama on the desktop, then try again."],
    tunnel_lost: ["The desktop was lost", "Its connection broke during the answer. Try again when it is back."],
    deadline_exceeded: [
        "The answer took too long",
        "Ask for something shorter, or ask the operator of this server to raise --stream-deadline and --stall-timeout.",
    ],
    token_expired: ["Your token has expired", "Get a new one, and sign in with it."],
    token_invalid: [
        "This token was not accepted",
        "Check that it is complete and meant for this server, or get a new one from its operator.",
    ],
    token_missing: ["You are not signed in", "Sign in with a token."],
    scope_denied: ["Your token does not allow this", "Ask the operator for one with the scope “proxy” or “infer”."],
    not_allowed: ["This is not allowed", "The server or the desktop has a rule against it."],
    too_many_streams: ["Too many requests at once", "Wait until another of your requests has finished, then try again."],
    body_too_large: ["This chat is too long for the server", "Start a new chat, or send less."],
    draining: ["The server restarts", "Nothing was sent to the desktop. Try again in a moment."],
    overloaded: ["The server is busy", "Nothing was sent to the desktop. Try again in a moment."],
    keys_unavailable: ["Your token cannot be checked now", "The server cannot reach your identity provider. Try again soon."],
    directory_unavailable: ["Your desktop cannot be looked up now", "Try again in a moment."],
    network: [
        "The server cannot be reached",
        "Check this device's connection; if that is fine, the server may be restarting. This page notices when it is back.",
    ],
    broken: ["The answer was cut off", "The connection to the server broke in the middle. Try again for a whole answer."],
    cut: [
        "The answer was cut off",
        "The connection to the desktop or to its model ended in the middle. Try again for a whole answer.",
    ],
    too_long: ["The answer was stopped", "It is longer than this page shows. Ask for something shorter."],
    no_models: ["There is no model on your desktop", "Get one there first, for example with “ollama pull llama3.2”."],
};

/** An error that a person can read. */
export class Problem extends Error {
    constructor(code, { title, advice, request, retryAfter } = {}) {
        const [known, todo] = TABLE[code] ?? ["The server refused this", "Try again, or ask its operator."];
        super(title ?? known);
        this.code = code;
        this.advice = advice ?? todo;
        this.request = request; // the id under which the server's log has it
        this.retryAfter = retryAfter;
    }

    /** Whether only another token helps. */
    get needsSignIn() {
        return ["token_expired", "token_invalid", "token_missing"].includes(this.code);
    }

    /** Whether something was not there; it may be by now. */
    get isAbsence() {
        return ["tunnel_offline", "upstream_unreachable", "network"].includes(this.code);
    }

    /** Of a response that is an error. */
    static async of(response) {
        const text = (await response.text().catch(() => "")).slice(0, 10_000);
        const request = response.headers.get("x-request-id") ?? undefined;
        const code = response.headers.get("tunnel-error"); // a desktop cannot set it
        if (code) {
            const known = code in TABLE ? {} : { advice: messageOf(parse(text)) };
            const retryAfter = Number(response.headers.get("retry-after")) || undefined;
            return new Problem(code, { ...known, ...time(code, response), request, retryAfter });
        }
        if (!request) {
            const title = `A proxy in front of the server answered ${response.status}`;
            return new Problem("proxy", { title, advice: "The server itself may be down. Try again, or ask its operator." });
        }
        const title = `The model server answered ${response.status}`;
        return new Problem("upstream", { title, advice: messageOf(parse(text)) || text.slice(0, 300), request });
    }

    /** Of a record in a stream, if it is one: the server's own end with an error, or the model server's. */
    static ofRecord(record, response) {
        if (!record?.error) return null;
        const code = record.code ?? record.error.code;
        const request = response.headers.get("x-request-id") ?? undefined;
        const ours = ["deadline_exceeded", "tunnel_lost", "upstream_error", "upstream_unreachable", "draining"];
        if (ours.includes(code)) return new Problem(code, { ...time(code, response), request });
        return new Problem("upstream", { title: "The model server gave up", advice: messageOf(record), request });
    }
}

/** Says how long the server waited. */
function time(code, response) {
    const millis = parseInt(response.headers.get("tunnel-deadline") ?? "", 10);
    if (code !== "deadline_exceeded" || !millis) return {};
    const after = millis < 120_000 ? `${millis / 1000} s` : `${Math.round(millis / 60_000)} min`;
    return { advice: `The server ends an answer after ${after}, or when nothing comes for long. ${TABLE[code][1]}` };
}

function parse(text) {
    try {
        return JSON.parse(text);
    } catch {
        return null;
    }
}

function messageOf(json) {
    const message = json?.error?.message ?? json?.error;
    return typeof message === "string" ? message.slice(0, 1000) : "";
}
