// The token of this tab: where it comes from, where it is kept, what it says about itself.
//
// It lives in memory and in sessionStorage, which ends with the tab. Only who asks to be remembered gets it into
// localStorage. It is never put into a cookie, an address or the page.

const KEY = "token";
const A_TOKEN = /[\w-]{2,}\.[\w-]+\.[\w-]+/; // three parts of base64url
const LONGEST = 8192; // the server looks at no longer one

let token = null;
let forgotten = 0; // how often

/** The token, or null. */
export function current() {
    return token;
}

/**
 * The token of a link that was opened, `/app/#token=…`: "" where it is none, null where it was no such link. It leaves the
 * address bar and the history at once.
 */
export function fromAddress() {
    const fragment = new URLSearchParams(location.hash.slice(1));
    if (!fragment.has("token")) return null;
    history.replaceState(null, "", location.pathname);
    return tokenIn(fragment.get("token")) ?? "";
}

/** The token that this tab, or this device, has kept. */
export function restore() {
    token = read(sessionStorage) ?? read(localStorage);
    return token;
}

/** From now on this is the token. */
export function use(fresh, remember = isRemembered()) {
    token = fresh;
    write(sessionStorage, fresh);
    write(localStorage, remember ? fresh : null);
}

/** From now on there is none, and what was asked for with it comes too late. */
export function forget() {
    forgotten++;
    token = null;
    write(sessionStorage, null);
    write(localStorage, null);
}

/** Another number after each `forget()`, by which who has waited sees that it was called. */
export function generation() {
    return forgotten;
}

/** Whether this device keeps the token. */
export function isRemembered() {
    return read(localStorage) !== null;
}

/** The token in what a person has pasted: a token, with `Bearer` or not, or an address that carries one. */
export function tokenIn(text) {
    const found = A_TOKEN.exec(text.replace(/^.*(?:\/t\/|[#&]token=)/s, ""));
    return found && found[0].length <= LONGEST ? found[0] : null;
}

/** The user of a token, as the server tells users apart. */
export function who(of = token) {
    const { iss, user } = claims(of);
    return JSON.stringify([iss, user]);
}

/** Who was the last to sign in on this device, as `who()` says it; null where it does not know. */
export function lastHere() {
    return read(localStorage, "user");
}

/** This user is the last one. It is a name and no secret, and stays when the token goes. */
export function keepLastHere() {
    write(localStorage, who(), "user");
}

/** What a token says. Nobody has verified it: good enough to be shown, and for nothing else. */
export function claims(of = token) {
    try {
        const bytes = Uint8Array.from(atob(of.split(".")[1].replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
        const { iss, sub, exp, tunnel } = JSON.parse(new TextDecoder().decode(bytes));
        return { iss, user: typeof sub === "string" ? sub : "", ends: exp * 1000 || Infinity, tunnel };
    } catch {
        return { user: "", ends: Infinity };
    }
}

/** Something else that is kept for as long as this tab; "" where it is not. */
export function kept(name) {
    return read(sessionStorage, name) ?? "";
}

/** Keeps it. */
export function keep(name, value) {
    write(sessionStorage, value, name);
}

function read(storage, name = KEY) {
    try {
        return storage.getItem(`tunnel.${name}`);
    } catch {
        return null; // forbidden by the browser's settings
    }
}

function write(storage, value, name = KEY) {
    try {
        if (value === null) storage.removeItem(`tunnel.${name}`);
        else storage.setItem(`tunnel.${name}`, value);
    } catch {
        // Memory is enough until the page is left.
    }
}
