// What the tests in a browser stand on: the real programs, a model server that does as it is told, and Chromium.

import { spawn } from "node:child_process";
import { createHmac, randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";

import { chromium } from "playwright-core";

const { BIN, CHROMIUM = "/usr/bin/chromium" } = process.env;
const FLAGS = [
    "--no-sandbox", // Chromium's own; it does not run as root with it
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
];

export const launch = () => chromium.launch({ executablePath: CHROMIUM, args: FLAGS });

/** A program of ours, in the background. */
class Program {
    constructor(name, args) {
        this.log = "";
        const env = { PATH: process.env.PATH, HOME: process.env.HOME, NO_COLOR: "1" };
        this.process = spawn(join(BIN, name), args, { env, stdio: ["ignore", "pipe", "pipe"] });
        for (const output of [this.process.stdout, this.process.stderr]) output.on("data", (data) => (this.log += data));
        this.ended = once(this.process, "exit");
    }

    async says(pattern) {
        for (let tries = 0; tries < 200; tries++) {
            const found = pattern.exec(this.log);
            if (found) return found;
            if (this.process.exitCode !== null) break;
            await new Promise((resolve) => setTimeout(resolve, 100));
        }
        throw new Error(`no ${pattern} in: ${this.log}`);
    }

    async stop() {
        this.process.kill("SIGTERM");
        await this.ended;
    }
}

/** A server with certificates and a secret of its own. */
export class World {
    #programs = [];
    #directory = mkdtempSync(join(tmpdir(), "tunnel-browser."));
    #secret = randomBytes(32).toString("hex");

    async start(...flags) {
        const file = (name) => join(this.#directory, name);
        const made = new Program("tunneld", ["certs", "--out", file("certs"), "--host", "localhost"]);
        await made.ended;
        writeFileSync(file("secret"), this.#secret, { mode: 0o600 });
        const tls = ["--tls-cert", file("certs/server.pem"), "--tls-key", file("certs/server-key.pem")];
        const args = ["serve", "--listen", "127.0.0.1:0", ...tls, "--jwt-secret-file", file("secret"), ...flags];
        this.server = this.run("tunneld", args);
        const [, port] = await this.server.says(/listening.*127\.0\.0\.1:(\d+)/);
        this.url = `https://localhost:${port}`;
        this.page = `${this.url}/app/`;
        return this;
    }

    run(name, args) {
        const program = new Program(name, args);
        this.#programs.push(program);
        return program;
    }

    /** A desktop in front of a model server; resolves when it is connected. */
    async connect(user, model, name = "tower", claims = {}) {
        const token = join(this.#directory, `${user}-${name}`);
        writeFileSync(token, this.token(user, { scope: "tunnel:connect", ...claims }), { mode: 0o600 });
        const where = ["--server", this.url, "--to", model.url, "--ca", join(this.#directory, "certs/ca.pem")];
        const desktop = this.run("tunnel", ["connect", "--token-file", token, "--name", name, ...where]);
        await desktop.says(/online user/);
        return desktop;
    }

    token(user, claims = {}) {
        const now = Math.floor(Date.now() / 1000);
        const encode = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
        const all = { sub: user, iat: now, exp: now + 3600, scope: "tunnel:proxy", ...claims };
        const signed = `${encode({ alg: "HS256", typ: "JWT" })}.${encode(all)}`;
        return `${signed}.${createHmac("sha256", this.#secret).update(signed).digest("base64url")}`;
    }

    async stop() {
        for (const program of this.#programs.reverse()) {
            if (program.process.exitCode === null) await program.stop();
        }
        rmSync(this.#directory, { recursive: true, force: true });
    }
}

/** What the hostile parts of a model's answer would do if they were more than text. */
export const HOSTILE = [
    "<img src=x onerror=\"window.hacked='img'\"> <script>window.hacked='script'</script>",
    "<svg onload=\"window.hacked='svg'\"><a href=\"javascript:window.hacked='a'\">x</a></svg>",
    "![x](https://evil.example/x.png) [x](javascript:window.hacked='link') <iframe src=/></iframe>",
    "```html\n<script>window.hacked='code'</script>\n```",
    "# <b>h</b>\n- **<i onclick=\"window.hacked='i'\">x</i>** `<u>y</u>`\n| <img src=x> | <style>*{display:none}</style> |",
].join("\n\n");

/** A page of a desktop that tries to act as the server. */
const HOSTILE_PAGE = `<!doctype html><title>innocent</title><body>
<script>document.title = "ran"; document.cookie = "stolen=1"; document.title = localStorage.getItem("tunnel.token");
navigator.serviceWorker?.register("/sw.js"); fetch("/api/tunnel/status");</script>
<form action="/app/"><button>x</button></form>`;

/** A model server: Ollama, or one that speaks only OpenAI's interface. What it answers is the last question's first word. */
export class Model {
    requests = [];
    left = 0; // callers who did not wait for the end
    speaks = "ollama";
    models = ["llama3.2:latest", "qwen3:8b"];
    tags = []; // more of what /api/tags lists, whole

    async start(port = 0) {
        this.server = createServer((request, response) => this.#answer(request, response).catch(() => response.destroy()));
        this.server.listen(port, "127.0.0.1");
        await once(this.server, "listening");
        this.port = this.server.address().port;
        this.url = `http://127.0.0.1:${this.port}`;
        return this;
    }

    async stop() {
        this.server.closeAllConnections();
        this.server.close();
        await once(this.server, "close");
    }

    async #answer(request, response) {
        let text = "";
        for await (const piece of request) text += piece;
        const body = text ? JSON.parse(text) : {};
        this.requests.push({ method: request.method, path: request.url, headers: request.headers, body });
        const isOllama = this.speaks === "ollama";
        const json = (status, value) => response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(value));
        const tags = [...this.models.map((model) => ({ name: model, model })), ...this.tags];
        if (request.url === "/api/tags" && isOllama) return json(200, { models: tags });
        if (request.url === "/v1/models") return json(200, { object: "list", data: this.models.map((id) => ({ id })) });
        if (request.url === "/api/chat" && isOllama) return this.#chat(body, response, ndjson);
        if (request.url === "/v1/chat/completions") return this.#chat(body, response, events);
        if (request.url === "/page") {
            const headers = { "content-type": "text/html", "set-cookie": "a=1", "service-worker-allowed": "/" };
            return response.writeHead(200, headers).end(HOSTILE_PAGE);
        }
        if (request.url === "/sw.js") return response.writeHead(200, { "content-type": "text/javascript" }).end("");
        if (request.url === "/evil.js") return response.writeHead(200, { "content-type": "text/javascript" }).end("window.hacked = 'script'");
        json(404, { error: "404 page not found" });
    }

    async #chat({ model, messages }, response, format) {
        response.on("close", () => (this.left += response.writableFinished ? 0 : 1));
        const [kind] = messages.at(-1).content.split(" ");
        const send = (text, last) => response.write(format(model, text, last));
        if (kind === "hang") return;
        if (kind === "missing") {
            return response.writeHead(404, { "content-type": "application/json" }).end('{"error":"model \'x\' not found"}');
        }
        response.writeHead(200, { "content-type": format.type });
        if (kind === "hostile") send(HOSTILE);
        else if (kind === "rich") send(RICH);
        else if (kind === "table") send(TABLE);
        else if (kind === "late") await new Promise((resolve) => (this.goOn = resolve)).then(() => send("Here I am"));
        else if (kind === "think") {
            response.write(thought(model, "Hmm, "));
            await new Promise((resolve) => (this.goOn = resolve));
            send("So be it");
            await new Promise((resolve) => (this.goOn = resolve));
        }
        else if (kind === "break") (send("Well"), response.write('{"error":"an error was encountered"}\n'));
        else if (kind === "error") response.write('{"error":"out of memory"}\n');
        else {
            for (let word = 0; word < (kind === "forever" ? 10_000 : 20) && !response.destroyed; word++) {
                send(word ? ` word${word}` : "The **answer** to");
                await new Promise((resolve) => setTimeout(resolve, 15));
            }
        }
        if (kind === "cut") return response.destroy();
        if (kind !== "unfinished") send("", true);
        response.end();
    }
}

const ndjson = (model, content, done = false) =>
    `${JSON.stringify({ model, message: { role: "assistant", content }, done, ...(done && { eval_count: 20, eval_duration: 5e8 }) })}\n`;
ndjson.type = "application/x-ndjson";
const thought = (model, thinking) => `${JSON.stringify({ model, message: { role: "assistant", content: "", thinking }, done: false })}\n`;

const events = (model, content, done = false) =>
    `data: ${JSON.stringify({ model, choices: done ? [] : [{ delta: { content } }], ...(done && { usage: { completion_tokens: 20 } }) })}\n\n` +
    (done ? "data: [DONE]\n\n" : "");
events.type = "text/event-stream";

/** Every form that a model's text takes. */
export const RICH = `Here is how to do that. It takes **three steps**, and \`one\` command:

1. Write the file
2. Run it
   - with *care*
   - and a backup

## The file

\`\`\`python
def greet(name: str) -> str:
    """Says hello, in a line that is rather long so that it has to scroll sideways on a narrow screen."""
    return f"Hello, {name}!"
\`\`\`

| model | size | good for |
|:--|--:|:-:|
| llama3.2 | 2.0 GB | chat |
| qwen3:8b | 5.2 GB | code |

> A quote, with **[a link](https://example.org/a_(b)?c=d#e)** to end with, ~~and an image~~, and https://example.org/.`;

/** A table that is wider than a phone, and as wide as the column is where the words of its cells may break. */
export const TABLE = `| Ion | Formula | Charge | Where it is found, and what for | What it is called in old books |
|:--|:--|--:|:--|:--|
| Chloride | Cl | 1- | Seawater, table salt, hydrochloric acid, gastric juices and many more | muriate |
| Permanganate | MnO4 | 1- | Disinfectants, titrations, and the cleaning of wells and of laboratory glass | chameleon mineral |`;
