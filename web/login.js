// Signing in at the identity provider of this server: Authorization Code with PKCE (RFC 7636), without a secret, in this tab.
//
// The server says where (GET /api/tunnel/login); the provider's own document says how. What begins here, and what a new
// token can be had with, is kept in sessionStorage, and so ends with the tab.

import { Problem } from "./problem.js";
import { generation } from "./session.js";

const STARTED = "tunnel.login";
const GRANT = "tunnel.grant";
const HERE = `${location.origin}/app/`;

let renewing = null;

/** What the server says about its provider, or null where it has none. */
export async function offered() {
    const response = await fetch("/api/tunnel/login", { credentials: "omit" }).catch(() => null);
    return response?.ok ? response.json() : null;
}

/** Leaves for the provider. Comes back only where that fails, with a Problem. */
export async function leaveFor({ issuer, client_id, audience, scope }, remember) {
    const about = await ask(`${issuer.replace(/\/+$/, "")}/.well-known/openid-configuration`);
    if (about.issuer !== issuer) throw failure(`It calls itself ${about.issuer}. The operator of this server should write exactly that.`);
    const [verifier, state, nonce] = [random(), random(), random()];
    const kind = audience === client_id ? "id_token" : "access_token"; // an ID token's audience is the client
    save(STARTED, { issuer, client_id, endpoint: about.token_endpoint, verifier, state, nonce, kind, remember });
    const address = new URL(about.authorization_endpoint);
    if (!["https:", new URL(issuer).protocol].includes(address.protocol)) throw failure("Its address is not https.");
    const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(verifier));
    const wanted = { response_type: "code", client_id, redirect_uri: HERE, scope, state, nonce };
    const proof = { code_challenge: base64url(new Uint8Array(digest)), code_challenge_method: "S256" };
    for (const [name, value] of Object.entries({ ...wanted, ...proof })) address.searchParams.set(name, value);
    if (kind === "access_token") {
        address.searchParams.set("audience", audience); // as Auth0 reads it
        if (/^https?:/.test(audience)) address.searchParams.set("resource", audience); // RFC 8707
    }
    location.assign(address);
}

/** Who comes back from the provider: `{ token, remember }`; null for everybody else. */
export async function returned() {
    const answer = new URLSearchParams(location.search);
    if (!answer.has("state")) return null;
    history.replaceState(null, "", HERE);
    const started = load(STARTED);
    sessionStorage.removeItem(STARTED);
    const isOurs = started && answer.get("state") === started.state && [null, started.issuer].includes(answer.get("iss"));
    if (!isOurs) throw failure("This page has not asked for what came back, or the tab was another one. Try again.");
    if (answer.has("error")) throw failure(answer.get("error_description") ?? answer.get("error"));
    const { client_id, endpoint, kind, verifier, nonce, remember } = started;
    const exchange = { grant_type: "authorization_code", code: answer.get("code"), redirect_uri: HERE, code_verifier: verifier };
    const tokens = await ask(endpoint, { ...exchange, client_id });
    if (tokens.id_token && claim(tokens.id_token, "nonce") !== nonce) throw failure("Its answer was meant for somebody else.");
    return { token: take(tokens, { client_id, endpoint, kind }), remember };
}

/** Whether the provider gives new tokens without asking the person again. */
export function canRenew() {
    return load(GRANT) !== null;
}

/** A new token for one that has expired, or null; also null for who has signed out meanwhile. */
export function renew() {
    const since = generation();
    renewing ??= (async () => {
        const grant = load(GRANT);
        if (!grant) return null;
        const { refresh_token, client_id, endpoint } = grant;
        const tokens = await ask(endpoint, { grant_type: "refresh_token", refresh_token, client_id }).catch(() => null);
        return tokens && since === generation() ? take({ refresh_token, ...tokens }, grant) : null;
    })().finally(() => since === generation() && (renewing = null));
    return renewing;
}

/** Signed out, or in by other means. */
export function forget() {
    renewing = null;
    save(GRANT, null);
}

function take(tokens, { client_id, endpoint, kind }) {
    const token = tokens[kind];
    if (typeof token !== "string" || token.split(".").length !== 3) {
        throw failure("Its token is not one that this server can read. The operator should look at --jwt-audience.");
    }
    const { refresh_token } = tokens;
    save(GRANT, refresh_token ? { client_id, endpoint, kind, refresh_token } : null);
    return token;
}

/** JSON of the provider; with `form`, an answer of its token endpoint. */
async function ask(address, form) {
    const init = form && { method: "POST", body: new URLSearchParams(form) };
    const response = await fetch(address, { ...init, credentials: "omit", redirect: "error" }).catch(() => null);
    if (!response) throw failure(`It cannot be reached, or does not let pages of ${location.origin} ask it (CORS).`);
    const answer = await response.json().catch(() => ({}));
    if (response.ok) return answer;
    throw failure(answer.error_description ?? answer.error ?? `It answered ${response.status}.`);
}

function failure(advice) {
    return new Problem("provider", { title: "The identity provider did not sign you in", advice: String(advice).slice(0, 500) });
}

function claim(token, name) {
    try {
        return JSON.parse(atob(token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/")))[name];
    } catch {
        return undefined;
    }
}

function random() {
    return base64url(crypto.getRandomValues(new Uint8Array(32)));
}

function base64url(bytes) {
    return btoa(String.fromCharCode(...bytes)).replace(/\+/g, "-").replace(/\//g, "_").replace(/=/g, "");
}

function load(key) {
    try {
        return JSON.parse(sessionStorage.getItem(key));
    } catch {
        return null;
    }
}

function save(key, value) {
    if (value === null) sessionStorage.removeItem(key);
    else sessionStorage.setItem(key, JSON.stringify(value));
}
