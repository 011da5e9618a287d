// What a person does in a browser: opens pages, fills in forms, presses a button. For pages without JavaScript.

/** A browser with nothing but cookies. */
export class Browser {
    #cookies = new Map();

    /** Opens an address, follows redirects; the page: its address and text. */
    async open(url, options = {}) {
        for (let redirects = 0; redirects < 10; redirects++) {
            const cookie = [...this.#cookies].map(([name, value]) => `${name}=${value}`).join("; ");
            const response = await fetch(url, { ...options, redirect: "manual", headers: { ...options.headers, cookie } });
            for (const line of response.headers.getSetCookie()) {
                const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
                if (value === "") this.#cookies.delete(name);
                else this.#cookies.set(name, value);
            }
            const location = response.headers.get("location");
            if (!location) return { url, status: response.status, text: await response.text() };
            url = new URL(location, url).href;
            options = {};
        }
        throw new Error("too many redirects");
    }

    /** Sends the form of a page with these fields besides its own hidden ones. */
    async submit(page, fields = {}) {
        const form = /<form[^>]*>[\s\S]*?<\/form>/.exec(page.text)?.[0];
        if (!form) throw new Error(`no form in ${page.text}`);
        const attribute = (tag, name) => new RegExp(`\\b${name}="([^"]*)"`).exec(tag)?.[1];
        const body = new URLSearchParams();
        for (const [tag] of form.matchAll(/<input[^>]*>/g))
            if (attribute(tag, "type") === "hidden") body.set(attribute(tag, "name"), attribute(tag, "value") ?? "");
        for (const [name, value] of Object.entries(fields)) body.set(name, value);
        const action = new URL(attribute(form, "action") ?? "", page.url).href;
        return this.open(action, { method: "POST", body });
    }
}
