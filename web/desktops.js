// Which desktops are connected: asked for now and then, more rarely the longer nothing changes, never in a hidden tab.

import { status } from "./api.js";

const STEADY = 15_000;
const FIRST = 3_000; // while something is wrong, and then half as long again each time
const MOST = 30_000;

/** Watches, and calls `changed` with what it knows after each look. */
export class Desktops {
    #changed;
    #timer = 0;
    #wait = FIRST;
    #asking = null;

    /** The names and states, the one that takes requests first: `{ name, since, rtt_ms }`. */
    list = [];
    /** When the last one was lost, if the server knows it. */
    lostAt = null;
    /** Why nothing is known: a Problem, or null; also before the first look. */
    problem = null;
    /** Whether the list is what the server says now. */
    isKnown = false;

    constructor(changed) {
        this.#changed = changed;
        document.addEventListener("visibilitychange", () => this.#asking && this.look());
        addEventListener("online", () => this.#asking && this.look());
        addEventListener("offline", () => this.#asking && this.look());
    }

    /** Looks now, and from now on. Resolves when this look is over. */
    async look() {
        this.stop();
        if (document.hidden) return void (this.#asking = new AbortController()); // `visibilitychange` comes
        const asking = (this.#asking = new AbortController());
        try {
            this.#take(await status(asking.signal), null);
        } catch (problem) {
            if (asking.signal.aborted) return;
            this.#take({}, problem);
        }
        if (this.#asking !== asking) return; // somebody has stopped it meanwhile
        const isFine = this.list.length > 0;
        this.#timer = setTimeout(() => this.look(), isFine ? STEADY : this.#wait);
        this.#wait = isFine ? FIRST : Math.min(this.#wait * 1.5, MOST);
    }

    /** Looks no more. */
    stop() {
        clearTimeout(this.#timer);
        this.#asking?.abort();
        this.#asking = null;
    }

    #take({ tunnels = [], offline_since = null }, problem) {
        [this.list, this.lostAt] = [tunnels, offline_since];
        this.problem = problem;
        this.isKnown = !problem;
        this.#changed();
    }
}

/** A moment in words: the time today, else with its date. */
export function moment(date) {
    const time = new Date(date);
    const isToday = time.toDateString() === new Date().toDateString();
    const day = isToday ? {} : { day: "numeric", month: "short" };
    return time.toLocaleString(undefined, { ...day, hour: "2-digit", minute: "2-digit" });
}
