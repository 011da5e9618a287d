// An answer as it comes: NDJSON as Ollama streams, or server-sent events as everyone else does.
//
// Yields pieces `{ text, thinking, tokens, seconds }`, each part only where there is one. Ends in peace only after the
// format's own end (`"done":true`, `[DONE]`); any other end is a Problem.

import { Problem } from "./problem.js";

const LONGEST_LINE = 1 << 20;

/** Reads the response of a chat to its end. */
export async function* pieces(response) {
    const isEvents = response.headers.get("content-type")?.startsWith("text/event-stream");
    for await (const line of lines(response.body)) {
        const data = isEvents ? /^data: ?(.*)/.exec(line)?.[1] : line.trim();
        if (!data) continue;
        if (isEvents && data === "[DONE]") return;
        const record = parse(data);
        const problem = Problem.ofRecord(record, response);
        if (problem) throw problem;
        yield isEvents ? ofEvent(record) : ofRecord(record);
        if (!isEvents && record.done === true) return;
    }
    throw new Problem("cut");
}

function ofRecord({ message, eval_count, eval_duration }) {
    const seconds = eval_duration > 0 ? eval_duration / 1e9 : undefined;
    return { text: string(message?.content), thinking: string(message?.thinking), tokens: number(eval_count), seconds };
}

function ofEvent({ choices, usage, timings }) {
    const delta = choices?.[0]?.delta;
    const seconds = timings?.predicted_ms > 0 ? timings.predicted_ms / 1e3 : undefined;
    const thinking = string(delta?.reasoning_content ?? delta?.reasoning);
    return { text: string(delta?.content), thinking, tokens: number(usage?.completion_tokens), seconds };
}

async function* lines(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    try {
        for (;;) {
            const { value, done } = await reader.read();
            if (done) break;
            const parts = (rest + value).split(/\r?\n/);
            rest = parts.pop();
            yield* parts;
            if (rest.length > LONGEST_LINE) throw new Problem("too_long");
        }
    } catch (error) {
        throw error.name === "AbortError" || error instanceof Problem ? error : new Problem("broken");
    } finally {
        reader.cancel().catch(() => {}); // also where the answer is given up half-way: the desktop stops then
    }
    if (rest) yield rest;
}

function parse(data) {
    try {
        const record = JSON.parse(data);
        if (record !== null && typeof record === "object") return record;
    } catch {
        // Said below.
    }
    const advice = "What came is not the format of a chat. Look at what runs on the desktop.";
    throw new Problem("upstream", { title: "The answer cannot be read", advice });
}

const string = (value) => (typeof value === "string" ? value : "");
const number = (value) => (typeof value === "number" && value > 0 ? value : undefined);
