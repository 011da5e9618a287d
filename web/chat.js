// The conversation: its turns, the one answer that may be running, and what each looks like.

import { chat } from "./api.js";
import { element, Writer } from "./format.js";
import { Problem } from "./problem.js";
import { keep, kept } from "./session.js";
import { pieces } from "./stream.js";

const KEY = "chat";
const LONGEST_ANSWER = 1 << 20; // characters: a desktop that never ends must not fill the browser's memory

/** A conversation in an element. */
export class Chat {
    #root;
    #app;
    #turns = [];
    #aside = []; // the turns of the chat before this one, until this one has some
    #running = null;

    /**
     * `app` has `target()`, what to ask: `{ desktop, speaks, model, system }` or a Problem that is thrown, and `ready()`,
     * which looks first whether what was wrong still is; and is told by `changed()` what to show, by `drawn()` that there
     * is more to see, by `announce(text)` what to say aloud, by `failed(problem)` what went wrong, and by `toPrompt()` where
     * the keys go next.
     */
    constructor(root, app) {
        this.#root = root;
        this.#app = app;
        for (const saved of load()) this.#add(saved.role === "user" ? new Question(saved.content) : Answer.restored(saved));
        root.addEventListener("click", ({ target }) => this.#click(target.closest("button")));
    }

    get isEmpty() {
        return this.#turns.length === 0;
    }

    get isRunning() {
        return this.#running !== null;
    }

    /** Whether there is a chat to go back to. */
    get canUndo() {
        return this.#aside.length > 0;
    }

    /** What went wrong with the last answer, as it stands there; or null. */
    get problem() {
        return this.#turns.at(-1)?.problem ?? null;
    }

    /** Asks, and shows the answer as it comes. */
    async ask(text) {
        if (this.isRunning) return;
        this.#app.target(); // or it throws
        this.#aside = [];
        this.#add(new Question(text));
        await this.#answer();
    }

    /** Asks the last question again. */
    async retry() {
        await this.#app.ready();
        if (this.isRunning || this.isEmpty) return;
        this.#app.target();
        if (this.#turns.at(-1) instanceof Answer) this.#turns.pop().root.remove();
        await this.#answer();
    }

    /** Ends the running answer. The desktop stops computing it. */
    stop() {
        this.#running?.abort();
    }

    /** Begins a new chat. Until its first question, `undo()` brings this one back as it was. */
    startAnew() {
        this.#replace(this.#turns, []);
    }

    undo() {
        this.#replace([], this.#aside);
    }

    /** Forgets everything. */
    clear() {
        this.#replace([], []);
    }

    #replace(aside, turns) {
        this.stop();
        [this.#aside, this.#turns] = [aside, turns];
        this.#root.replaceChildren(...turns.map(({ root }) => root));
        this.#save();
        this.#app.changed();
        this.#app.drawn();
    }

    async #answer() {
        const { desktop, system, ...target } = this.#app.target();
        const messages = this.#turns.filter(({ content }) => content).map(({ role, content }) => ({ role, content }));
        if (system) messages.unshift({ role: "system", content: system });
        const answer = new Answer(target.model, () => this.#app.drawn());
        const running = (this.#running = new AbortController());
        this.#add(answer);
        this.#app.changed();
        this.#app.announce("Waiting for the answer.");
        try {
            const response = await chat({ ...target, messages }, desktop, running.signal);
            for await (const piece of pieces(response)) {
                answer.take(piece);
                if (answer.content.length > LONGEST_ANSWER) throw new Problem("too_long");
            }
            answer.end();
            this.#app.announce("The answer is complete.");
        } catch (error) {
            if (running.signal.aborted) {
                answer.end("Stopped");
                this.#app.announce("Stopped.");
            } else {
                this.#fail(answer, error);
            }
        }
        this.#running = null;
        this.#save();
        this.#app.changed();
    }

    #fail(answer, error) {
        const problem = error instanceof Problem ? error : new Problem("page", { title: "This page failed", advice: String(error) });
        answer.fail(problem);
        this.#app.failed(problem);
    }

    #add(turn) {
        this.#turns.push(turn);
        this.#root.append(turn.root);
        this.#app.drawn();
    }

    async #click(button) {
        if (button?.dataset.does === "retry") {
            this.#app.toPrompt(); // the button is about to go
            await this.retry().catch((problem) => {
                briefly(button, "Not yet", "Try again");
                this.#app.announce(`${problem.message}. ${problem.advice}`);
            });
        } else if (button?.dataset.copies) {
            const code = button.closest("figure")?.querySelector("code").textContent;
            const turn = this.#turns.find(({ root }) => root.contains(button));
            const text = button.dataset.copies === "code" ? code : turn.content;
            const refused = await navigator.clipboard.writeText(text).catch((error) => error);
            briefly(button, refused ? "Not allowed" : "Copied", "Copy");
            this.#app.announce(refused ? "The browser does not let this page copy." : "Copied.");
        }
    }

    /** So that the chat is still there when this tab is loaded again. It ends with the tab. */
    #save() {
        const saved = this.#turns.map(({ role, content, model, facts, note }) => ({ role, content, model, facts, note }));
        keep(KEY, JSON.stringify(saved));
    }
}

function load() {
    try {
        return JSON.parse(kept(KEY));
    } catch {
        return [];
    }
}

class Question {
    role = "user";

    constructor(content) {
        this.content = content;
        const text = element("div", content);
        text.className = "text plain";
        text.dir = "auto";
        this.root = element("article", heading("You"), text);
        this.root.className = "question";
    }
}

class Answer {
    role = "assistant";
    content = "";
    facts = "";
    note = "";
    problem = null;
    #drawn;
    #text = element("div");
    #writer = new Writer(this.#text);
    #thoughts = null;
    #state = element("span");
    #start = performance.now();
    #firstAt = 0;
    #lastAt = 0;
    #count = 0;
    #tokens;
    #seconds;
    #unwritten = "";
    #frame = 0;
    #clock = 0;

    constructor(model, drawn = () => {}) {
        this.model = model;
        this.#drawn = drawn;
        this.#text.className = "text";
        this.#text.dir = "auto";
        this.#state.className = "facts";
        this.root = element("article", heading(model), this.#text, element("footer", this.#state));
        this.root.className = "answer waiting";
        this.#clock = setInterval(() => this.#tick(), 1000);
        this.#tick();
    }

    static restored({ content, model, facts, note }) {
        const answer = new Answer(model);
        answer.content = answer.#unwritten = content;
        answer.facts = facts;
        answer.#close(note);
        return answer;
    }

    /** The next piece of it. */
    take({ text, thinking, tokens, seconds }) {
        const isNews = (thinking && !this.#thoughts) || (text && !this.content);
        if (text || thinking) {
            this.#lastAt = performance.now();
            this.#firstAt ||= this.#lastAt;
            this.#count++;
        }
        this.#tokens = tokens ?? this.#tokens;
        this.#seconds = seconds ?? this.#seconds;
        if (thinking) this.#think(thinking);
        if (text) {
            this.content += text;
            this.#unwritten += text;
            this.#frame ||= requestAnimationFrame(() => this.#write());
        }
        if (!isNews) return;
        this.#tick();
        this.#drawn();
    }

    /** It is complete, or was stopped. */
    end(note = "") {
        this.facts = this.#figures(true);
        this.#close(note);
    }

    /** It went wrong. */
    fail(problem) {
        this.problem = problem;
        this.end(problem.message);
        this.root.querySelector(".note")?.remove();
        if (problem.isAbsence && !this.content) this.note = "Not answered"; // after a reload the page says what is not there then
        const shown = said(problem);
        if (this.content) shown.querySelector("p").textContent = `The text above lacks its end. ${capital(problem.advice)}`;
        this.root.querySelector("footer").before(shown);
        this.#drawn();
    }

    #close(note) {
        clearInterval(this.#clock);
        cancelAnimationFrame(this.#frame);
        this.#write();
        this.#writer.end();
        this.root.classList.remove("waiting");
        if (!this.content && this.#thoughts) this.#thoughts.open = true;
        this.note = note;
        if (note) this.#text.after(Object.assign(element("p", note), { className: "note" }));
        this.#state.textContent = this.facts;
        const copy = this.content ? [button("Copy", { copies: "answer" })] : [];
        this.root.querySelector("footer").append(...copy, button("Try again", { does: "retry" }));
        this.#drawn();
    }

    #write() {
        this.#frame = 0;
        if (!this.#unwritten) return;
        this.root.classList.remove("waiting");
        this.#writer.write(this.#unwritten);
        this.#unwritten = "";
        this.#drawn();
    }

    #think(thinking) {
        if (!this.#thoughts) {
            const text = Object.assign(element("div", ""), { className: "text plain", dir: "auto" });
            this.#thoughts = element("details", element("summary", "Thinking"), text);
            this.#text.before(this.#thoughts);
        }
        const { lastChild: text } = this.#thoughts;
        if (text.textContent.length < LONGEST_ANSWER) text.append(thinking);
    }

    #tick() {
        if (this.content) return void (this.#state.textContent = this.#figures(false));
        const seconds = Math.floor((performance.now() - (this.#firstAt || this.#start)) / 1000);
        const hint = seconds >= 10 ? "; a model that was not in use is loaded first" : "";
        this.#state.textContent = this.#firstAt ? `Thinking, ${seconds} s` : `Waiting for the first token, ${seconds} s${hint}`;
    }

    #figures(isOver) {
        if (!this.#firstAt) return "";
        const first = `First token after ${short((this.#firstAt - this.#start) / 1000)} s`;
        const tokens = this.#tokens ?? this.#count;
        const seconds = this.#seconds ?? (this.#lastAt - this.#firstAt) / 1000;
        const rate = tokens > 1 && seconds > 0 ? [`${short(tokens / seconds)} tokens/s`] : [];
        return [first, ...rate, ...(isOver ? [`${tokens} ${tokens === 1 ? "token" : "tokens"}`] : [])].join(" · ");
    }
}

/** A problem as it is shown, here and elsewhere. */
export function said(problem) {
    const request = problem.request ? [element("small", `Request ${problem.request}`)] : [];
    const shown = element("div", element("strong", problem.message), element("p", problem.advice), ...request);
    shown.className = "problem";
    shown.setAttribute("role", "alert");
    return shown;
}

function heading(text) {
    return element("h2", text);
}

function button(text, data) {
    const made = element("button", text);
    made.type = "button";
    made.className = "quiet";
    Object.assign(made.dataset, data);
    return made;
}

function briefly(button, words, then) {
    button.textContent = words;
    setTimeout(() => (button.textContent = then), 1500);
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);
const short = (number) => (number < 10 ? number.toFixed(2) : number < 100 ? number.toFixed(1) : number.toFixed(0));
