// The way in: a token that is pasted, a link with one, or the identity provider of the server; and the way out.

import { status } from "./api.js";
import { ask } from "./ask.js";
import { said } from "./chat.js";
import * as login from "./login.js";
import { Problem } from "./problem.js";
import * as session from "./session.js";

const $ = (id) => document.getElementById(id);

/** Shows the form or the chat, by whether there is a token. */
export class SignIn {
    #app;
    #owner; // who the chat is of, and whatever else this tab keeps; "" where that is not known
    #provider = null;

    /** `app` is told by `entered(isOther)` and `left()`, and says by `isEmpty()` whether there is a chat to come back to. */
    constructor(app) {
        this.#app = app;
        this.#owner = session.kept("owner");
        session.restore();
        $("sign-in-form").addEventListener("submit", (event) => this.#pasted(event));
        $("show-token").addEventListener("click", () => hideToken($("token").type === "text"));
        $("provider-go").addEventListener("click", () => this.#toProvider());
        // A link that is opened in this very tab.
        addEventListener("hashchange", () => location.hash.includes("token=") && this.#byLink(session.fromAddress()));
    }

    /** At the start of the page. */
    async begin() {
        const linked = session.fromAddress();
        if (linked !== null) return this.#byLink(linked);
        try {
            const back = await login.returned();
            if (back) return this.#try(back.token, back.remember);
        } catch (problem) {
            return this.leave(problem);
        }
        return session.current() ? this.#enter() : this.leave();
    }

    /** Back to the form: with a problem where the token is not good any more. */
    leave(problem) {
        session.forget();
        login.forget();
        this.#app.left();
        $("sign-in-why").hidden = !problem;
        if (problem) $("sign-in-why").replaceChildren(...said(problem).children);
        if (problem && !this.#app.isEmpty()) $("sign-in-why").append(" Your chat is still here.");
        show("sign-in");
        $("token").focus();
        this.#offerProvider();
    }

    #enter() {
        const isOther = this.#owner !== session.who();
        this.#owner = session.who();
        session.keep("owner", this.#owner);
        session.keepLastHere();
        $("user-name").textContent = session.claims().user;
        show("chat");
        this.#app.entered(isOther);
    }

    async #try(token, remember) {
        session.use(token, remember);
        for (const id of ["sign-in-go", "provider-go"]) $(id).disabled = true;
        const problem = await status().then(() => null, (problem) => problem);
        for (const id of ["sign-in-go", "provider-go"]) $(id).disabled = false;
        if (problem?.needsSignIn || problem?.code === "not_allowed") this.leave(problem);
        else this.#enter(); // other problems may pass, and the chat says them
    }

    #pasted(event) {
        event.preventDefault();
        const token = session.tokenIn($("token").value);
        if (!token) {
            const advice = "A token has three parts with dots between them, and begins with “eyJ”. Copy all of it.";
            return this.leave(new Problem("token_invalid", { title: "This is not a token", advice }));
        }
        const remember = $("remember").checked;
        $("sign-in-form").reset();
        hideToken();
        this.#try(token, remember);
    }

    /** A link must not take a person to another user's desktop unasked, be that person signed in or not. */
    async #byLink(token) {
        const before = session.current();
        if (!token && before) return this.#enter();
        if (!token) return this.leave(new Problem("token_invalid", { title: "The token in this link is not complete" }));
        const isOther = session.who(token) !== (before ? session.who() : session.lastHere());
        if (isOther && !(await askWhether(session.claims(token).user || "somebody unknown"))) {
            return session.current() ? this.#enter() : this.leave();
        }
        const remember = !isOther && session.isRemembered();
        session.forget();
        login.forget();
        await this.#try(token, remember);
    }

    async #offerProvider() {
        this.#provider ??= await login.offered();
        $("provider").hidden = !this.#provider;
        if (this.#provider) $("provider-go").textContent = `Sign in with ${new URL(this.#provider.issuer).host}`;
    }

    async #toProvider() {
        await login.leaveFor(this.#provider, $("remember").checked).catch((problem) => this.leave(problem));
    }
}

function show(main) {
    document.body.dataset.shows = main;
    for (const id of ["sign-in", "chat"]) $(id).hidden = id !== main;
    for (const id of ["desktop", "user", "new-chat", "open-settings", "skip"]) $(id).hidden = main !== "chat";
}

function hideToken(hide = true) {
    $("token").type = hide ? "password" : "text";
    $("show-token").textContent = hide ? "Show" : "Hide";
    $("show-token").setAttribute("aria-pressed", String(!hide));
}

function askWhether(other) {
    const now = session.current() ? `You are signed in as ${session.claims().user}. ` : "";
    const goes = "what you write would go to that user's desktop.";
    return ask({
        title: `Sign in as ${other}?`,
        text: `${now}The link that you opened signs in as ${other}: ${goes}`,
        no: now ? "Stay" : "Cancel",
        yes: `Sign in as ${other}`,
    });
}
