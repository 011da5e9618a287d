// `tunnel login`, `connect` and `logout` with a real OpenID provider: discovery, device flow, renewal, rotation of keys.
// The provider runs in this process; tunneld and tunnel are the real programs in $BIN, with certificates in $CERTS.

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { generateKeyPairSync } from "node:crypto";
import { once } from "node:events";
import { copyFileSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { join } from "node:path";
import { after, before, test } from "node:test";
import Provider from "oidc-provider";
import { Browser } from "./browser.mjs";

const { BIN, CERTS, HOME } = process.env;
const AUDIENCE = "https://tunnel.example.com";
const TOKEN_LIFE = 12; // seconds: renewed after 8
const DEVICE = "urn:ietf:params:oauth:grant-type:device_code";
const FILE = join(HOME, "tunnel", "login.json");

const stop = [];
let issuer, server, upstream, answerAsProvider;

before(async () => {
    const provider = createServer((request, response) => answerAsProvider(request, response));
    issuer = `http://127.0.0.1:${await listen(provider)}`;
    useKeys(newKey("one"));
    upstream = await listen(createServer((_request, response) => response.end('{"models":[]}')));
    const tunneld = program("tunneld", "serve", "--listen", "127.0.0.1:0", "--log-format", "json",
        "--tls-cert", join(CERTS, "server.pem"), "--tls-key", join(CERTS, "server-key.pem"),
        "--oidc-issuer", issuer, "--oidc-client-id", "tunnel", "--jwt-audience", AUDIENCE, "--allow-user", "alice");
    const [, port] = await tunneld.says(/"listening".*127\.0\.0\.1:(\d+)/);
    server = `https://localhost:${port}`;
});

after(() => stop.reverse().forEach((end) => end()));

test("signs in with a code", async () => {
    const login = program("tunnel", "login", "--server", server, "--ca", join(CERTS, "ca.pem"));
    const { browser, page } = await codeEntered(login);
    await signIn(browser, page, "alice");
    assert.equal(await login.ended, 0);
    await login.says(/^Signed in at https:\/\/localhost:\d+ as alice\.$/m);
    assert.equal(statSync(FILE).mode & 0o777, 0o600);
});

test("connects without a token file, and moves to a renewed token without a failed request", async () => {
    const desktop = connect();
    await desktop.says(/online/);
    const first = account();
    let requests = 0;
    while (account().token === first.token || (desktop.text.match(/\bonline\b/g) ?? []).length < 2) {
        assert.equal(await status("/api/tags"), 200, desktop.text);
        requests += 1;
        await pause();
    }
    assert.ok(requests > 50, `${requests} requests`);
    assert.notEqual(account().refresh_token, first.refresh_token, "the provider rotates refresh tokens");
    assert.equal(statSync(FILE).mode & 0o777, 0o600);
    assert.ok(!desktop.text.includes("offline"), desktop.text);
});

test("a rotated key is taken over", async () => {
    useKeys(newKey("two"), "and those before");
    while (header(account().token).kid !== "two") {
        assert.equal(await status("/api/tags"), 200);
        await pause();
    }
    assert.equal(await status("/api/tags"), 200);
});

test("a refusal in the browser ends the command", async () => {
    const login = program("tunnel", "login", "--server", server, "--ca", join(CERTS, "ca.pem"));
    const { browser, page } = await codeEntered(login);
    await browser.submit(page, { abort: "yes" });
    assert.equal(await login.ended, 77);
    await login.says(/access_denied/);
    assert.equal(account().server, `${server}/`, "whoever was signed in still is");
});

test("a user who is not let in is told so, and by which name", async () => {
    const login = program("tunnel", "login", "--server", server, "--ca", join(CERTS, "ca.pem"));
    const { browser, page } = await codeEntered(login);
    await signIn(browser, page, "mallory");
    assert.equal(await login.ended, 77);
    await login.says(/signed in as mallory, but .* refuses: This user may not use this server/);
});

test("signs out, and what was given back renews nothing", async () => {
    const copy = join(HOME, "copy.json");
    copyFileSync(FILE, copy);
    const logout = program("tunnel", "logout");
    assert.equal(await logout.ended, 0);
    await logout.says(/taken the tokens back/);
    assert.throws(() => statSync(FILE));

    writeFileSync(FILE, JSON.stringify({ ...JSON.parse(readFileSync(copy)), obtained: 0, expires: 1 }));
    const desktop = connect();
    assert.equal(await desktop.ended, 64);
    await desktop.says(/the sign-in has ended.*invalid_grant.*run `tunnel login`/);
});

/** The provider with a new key to sign with, and perhaps the old ones still published. */
function useKeys(key, keep) {
    useKeys.keys = keep ? [key, ...useKeys.keys] : [key];
    const provider = new Provider(issuer, {
        adapter: Memory,
        jwks: { keys: useKeys.keys },
        cookies: { keys: ["a secret of this test"] },
        clients: [{
            client_id: "tunnel",
            application_type: "native",
            token_endpoint_auth_method: "none",
            grant_types: [DEVICE, "refresh_token"],
            redirect_uris: [],
            response_types: [],
            id_token_signed_response_alg: "ES256",
        }],
        findAccount: (_context, sub) => ({ accountId: sub, claims: () => ({ sub }) }),
        features: {
            deviceFlow: { enabled: true },
            revocation: { enabled: true },
            resourceIndicators: {
                enabled: true,
                getResourceServerInfo: (_context, audience) => ({
                    audience,
                    scope: "",
                    accessTokenFormat: "jwt",
                    accessTokenTTL: TOKEN_LIFE,
                    jwt: { sign: { alg: "ES256" } },
                }),
            },
        },
        rotateRefreshToken: true,
        ttl: { DeviceCode: 120, Grant: 600, IdToken: 60, Interaction: 600, RefreshToken: 600, Session: 600 },
    });
    answerAsProvider = provider.callback();
}

function newKey(kid) {
    const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
    return { ...privateKey.export({ format: "jwk" }), kid, use: "sig", alg: "ES256" };
}

/** What the provider keeps, over a change of its keys. */
class Memory {
    static #kept = new Map();
    #kind;

    constructor(kind) {
        this.#kind = kind;
    }

    #find(matches) {
        return [...Memory.#kept].find(([key, value]) => key.startsWith(`${this.#kind}:`) && matches(value))?.[1];
    }

    async upsert(id, value) {
        Memory.#kept.set(`${this.#kind}:${id}`, value);
    }

    async find(id) {
        return Memory.#kept.get(`${this.#kind}:${id}`);
    }

    async findByUid(uid) {
        return this.#find((value) => value.uid === uid);
    }

    async findByUserCode(code) {
        return this.#find((value) => value.userCode === code);
    }

    async consume(id) {
        (await this.find(id)).consumed = Math.floor(Date.now() / 1000);
    }

    async destroy(id) {
        Memory.#kept.delete(`${this.#kind}:${id}`);
    }

    async revokeByGrantId(grantId) {
        for (const [key, value] of Memory.#kept) if (value.grantId === grantId) Memory.#kept.delete(key);
    }
}

/** The page that asks whether the code is right, in a browser into which it was entered. */
async function codeEntered(login) {
    const [, address] = await login.says(/open\s+(\S+)/);
    const [, code] = await login.says(/enter\s+(\S+)/);
    const browser = new Browser();
    const page = await browser.submit(await browser.open(address), { user_code: code });
    assert.ok(page.text.includes(code), page.text);
    return { browser, page };
}

/** Confirms the code, signs in, and consents. */
async function signIn(browser, page, user) {
    const login = await browser.submit(page);
    const consent = await browser.submit(login, { login: user, password: "any" });
    const done = await browser.submit(consent);
    assert.match(done.text, /Sign-in Success/);
}

function connect() {
    return program("tunnel", "connect", "--to", `http://127.0.0.1:${upstream}`, "--name", "desktop");
}

/** Who is signed in, from the file. */
function account() {
    return JSON.parse(readFileSync(FILE, "utf8"));
}

function header(token) {
    return JSON.parse(Buffer.from(token.split(".")[0], "base64url"));
}

async function status(path) {
    const response = await fetch(server + path, { headers: { authorization: `Bearer ${account().token}` } });
    await response.arrayBuffer();
    return response.status;
}

/** Between two requests of a load, and two looks at something. */
function pause() {
    return new Promise((resolve) => setTimeout(resolve, 50));
}

async function listen(server) {
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    stop.push(() => server.closeAllConnections(), () => server.close());
    return server.address().port;
}

/** A running program of ours, and all that it says. */
function program(name, ...args) {
    const child = spawn(join(BIN, name), args, {
        env: { HOME, XDG_CONFIG_HOME: HOME, XDG_RUNTIME_DIR: HOME, NO_COLOR: "1" },
        stdio: ["ignore", "pipe", "pipe"],
    });
    stop.push(() => child.kill("SIGKILL"));
    const running = { text: "" };
    for (const stream of [child.stdout, child.stderr]) stream.on("data", (data) => (running.text += data));
    running.ended = once(child, "close").then(([code]) => code);
    running.says = async (pattern) => {
        const started = Date.now();
        for (;;) {
            const match = pattern.exec(running.text);
            if (match) return match;
            assert.ok(Date.now() - started < 30_000, `${name} does not say ${pattern}: ${running.text}`);
            await pause();
        }
    };
    return running;
}
