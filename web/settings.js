// The dialog of settings, and the switch between light and dark.

import { moment } from "./desktops.js";
import { canRenew } from "./login.js";
import * as session from "./session.js";

const $ = (id) => document.getElementById(id);
const NEXT = { auto: "light", light: "dark", dark: "auto" };
const NAMES = { auto: "Auto", light: "Light", dark: "Dark" };

/** Makes both work; `signedOut` is called where that is asked for. */
export function settings(signedOut) {
    $("open-settings").addEventListener("click", () => {
        const { user, ends } = session.claims();
        const until = ends === Infinity || canRenew() ? "" : `, until ${moment(ends)}`;
        $("account").textContent = `Signed in as ${user}${until}.`;
        $("system").value = session.kept("system");
        $("remember-me").checked = session.isRemembered();
        $("settings").showModal();
    });
    $("system").addEventListener("input", () => session.keep("system", $("system").value));
    $("remember-me").addEventListener("change", () => session.use(session.current(), $("remember-me").checked));
    $("sign-out").addEventListener("click", () => {
        $("settings").close();
        session.keep("system", "");
        signedOut();
    });
    $("theme").addEventListener("click", () => {
        const theme = NEXT[document.documentElement.dataset.theme] ?? "auto";
        document.documentElement.dataset.theme = theme;
        drawTheme();
        try {
            localStorage.setItem("tunnel.theme", theme);
        } catch {
            // It holds until the page is left.
        }
    });
    drawTheme();
}

function drawTheme() {
    const name = NAMES[document.documentElement.dataset.theme] ?? "Auto";
    $("theme").querySelector("span").textContent = name;
    $("theme").setAttribute("aria-label", `Colours: ${name}`);
}
