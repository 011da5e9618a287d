// Text of a model as paragraphs, headings, lists, tables and code, while it comes.
//
// T60: whatever the text says, it only ever becomes text nodes in elements made here. There is no markup and no image, and
// the one attribute of its choosing is the address of a link, to https or http alone. Works line by line, so that each piece
// costs as much as the line it is in.

const LONGEST_LINE = 4000; // a longer one goes on in a new element

/** Writes into `root` what comes in pieces. */
export class Writer {
    #root;
    #line = ""; // the last one, not ended yet
    #drawn = []; // the nodes that show it so far
    #before = null; // what `at` was before they were
    #at = { block: null, kind: "", fence: "" }; // the element that the next line may continue; what ends open code

    constructor(root) {
        this.#root = root;
    }

    /** More text. */
    write(text) {
        const lines = (this.#line + text).split("\n");
        this.#line = lines.pop();
        for (const line of lines) this.#finish(line);
        while (this.#line.length > LONGEST_LINE) {
            const head = this.#line.slice(0, LONGEST_LINE);
            this.#line = this.#line.slice(LONGEST_LINE);
            this.#finish(head);
        }
        this.#undraw();
        if (!this.#line || this.#mayBeFence()) return;
        this.#before = this.#at;
        this.#draw(this.#line);
    }

    /** There is no more. */
    end() {
        if (this.#line) this.#finish(this.#line);
        this.#line = "";
    }

    /** Three backticks that are on their way would otherwise flash up. */
    #mayBeFence() {
        return /^\s*(`{1,3}|~{1,3})$/.test(this.#line);
    }

    #finish(line) {
        this.#undraw();
        let rest = line.replace(/\r$/, "");
        do {
            this.#draw(rest.slice(0, LONGEST_LINE), true);
            rest = rest.slice(LONGEST_LINE);
        } while (rest);
        this.#drawn = [];
    }

    #undraw() {
        this.#at = this.#before ?? this.#at;
        this.#before = null;
        for (const node of this.#drawn) node.remove();
        this.#drawn = [];
    }

    #draw(line, isWhole = false) {
        const fence = /^\s{0,8}(`{3,}|~{3,})([^`]*)$/.exec(line);
        const { block, fence: open } = this.#at;
        if (open) {
            if (fence && fence[1].startsWith(open) && !fence[2].trim()) return this.#close();
            return this.#add(block.querySelector("code"), line + "\n");
        }
        if (fence) return this.#open(fence[1], fence[2].trim());
        if (!line.trim()) return this.#close();
        const heading = /^ {0,3}(#{1,6}) +(.*)$/.exec(line);
        if (heading) return this.#alone(heading[1].length > 2 ? "h4" : "h3", heading[2]);
        if (/^ {0,3}([-*_])( *\1){2,} *$/.test(line)) return this.#alone("hr");
        const item = /^(\s*)(?:([-*+])|(\d{1,4})[.)]) +(.*)$/.exec(line);
        if (item) return this.#item(item[1].length, item[3], item[4]);
        if (/^ {0,3}\|/.test(line)) return this.#row(line, isWhole);
        const quote = /^ {0,3}> ?(.*)$/.exec(line);
        if (quote) return this.#prose("blockquote", quote[1]);
        return this.#prose("p", line);
    }

    #close() {
        this.#at = { block: null, kind: "", fence: "" };
    }

    /** The block that a line of this kind belongs to: the one before, or a new one. */
    #in(kind, tag) {
        if (this.#at.kind !== kind) this.#at = { block: this.#add(this.#root, element(tag)), kind, fence: "" };
        return this.#at.block;
    }

    #prose(tag, text) {
        const block = this.#in(tag, tag);
        if (block.hasChildNodes()) this.#add(block, "\n");
        for (const node of inline(text)) this.#add(block, node);
    }

    #alone(tag, text = "") {
        this.#close();
        this.#add(this.#root, element(tag, ...inline(text)));
    }

    #item(indent, number, text) {
        const list = this.#in(number ? "ol" : "ul", number ? "ol" : "ul");
        const item = this.#add(list, element("li", ...inline(text)));
        if (number) item.value = Number(number);
        item.className = `depth-${Math.min(Math.floor(indent / 2), 3)}`;
    }

    #row(line, isWhole) {
        const table = this.#table();
        const cells = line.trim().replace(/^\||\|$/g, "").split("|", 50).map((cell) => cell.trim());
        const isRule = /^[\s|:-]+$/.test(line); // the one under the head
        if (isRule && isWhole && table.rows.length === 1) this.#at.sides = cells.map(side);
        const tag = table.hasChildNodes() ? "td" : "th";
        if (!isRule) this.#add(table, element("tr", ...cells.map((cell) => element(tag, ...inline(cell)))));
        for (const [i, cell] of [...(table.lastChild?.cells ?? [])].entries()) {
            if (this.#at.sides?.[i]) cell.className = this.#at.sides[i];
        }
    }

    #table() {
        if (this.#at.kind !== "table") {
            const around = element("div", element("table"));
            around.className = "table";
            around.tabIndex = 0; // it may scroll sideways: keys reach it
            this.#at = { block: this.#add(this.#root, around), kind: "table", fence: "" };
        }
        return this.#at.block.firstChild;
    }

    #open(fence, language) {
        const copy = element("button", "Copy");
        const head = element("div", element("span", language.slice(0, 30) || "code"), copy);
        const code = element("code");
        copy.type = "button";
        copy.dataset.copies = "code"; // what it does is the chat's
        const pre = element("pre", code);
        pre.tabIndex = 0; // it may scroll sideways: keys reach it
        this.#at = { block: this.#add(this.#root, element("figure", head, pre)), kind: "figure", fence };
    }

    #add(parent, node) {
        if (typeof node === "string") node = document.createTextNode(node);
        parent.append(node);
        this.#drawn.push(node);
        return node;
    }
}

/** An element with children, of which strings become text. */
export function element(tag, ...children) {
    const made = document.createElement(tag);
    made.append(...children);
    return made;
}

/** Where the cells of a column stand, by its part of the rule. */
const side = (rule) => (rule.endsWith(":") ? (rule.startsWith(":") ? "center" : "end") : "");

/**
 * Code, strong, emphasised, struck, a link but no image, an address as it is. No part can be read in two ways: a hostile line
 * costs little.
 */
const MARK = new RegExp(
    [
        /`(?<code>[^`]+)`/,
        /\*\*(?=\S)(?<strong>[^*]*\S)\*\*/,
        /(?<![*\w])\*(?=[^\s*])(?<em>[^*]*[^\s*])\*(?![*\w])/,
        /~~(?=[^\s~])(?<del>[^~]*[^\s~])~~/,
        /(?<!!)\[(?<label>[^[\]]+)\]\((?<address>https?:\/\/(?:[^\s()]|\([^\s()]*\))+)\)/,
        /(?<!\S)(?<bare>https?:\/\/(?:[^\s()<>"`*|\\]|\([^\s()<>"`*|\\]*\))+(?<![.,:;!?'\]}_~]))/,
    ]
        .map(({ source }) => source)
        .join("|"),
    "g",
);

/** Nodes for a line of text; the label of a link has no links in it. */
function inline(text, mayLink = true) {
    const nodes = [];
    let end = 0;
    for (const { 0: whole, index, groups } of text.matchAll(MARK)) {
        const { code, label, bare, address = bare } = groups;
        const tag = ["strong", "em", "del"].find((name) => groups[name]);
        nodes.push(text.slice(end, index));
        if (code) nodes.push(element("code", code));
        else if (tag) nodes.push(element(tag, ...inline(groups[tag], mayLink)));
        else nodes.push((mayLink && link(label ?? bare, address)) || whole);
        end = index + whole.length;
    }
    return [...nodes, text.slice(end)].filter((node) => node !== "");
}

/** Says which host it leads to, unless its label is the very address in its plain form; null where the address is none. */
function link(label, address) {
    if (!URL.canParse(address)) return null;
    const url = new URL(address);
    const isPlain = label === address && url.href.startsWith(label) && label.startsWith(url.origin);
    const host = isPlain ? [] : [element("small", ` (${url.host})`)];
    const made = element("a", element("bdi", ...inline(label, false)), ...host);
    return Object.assign(made, { href: url.href, target: "_blank", rel: "noopener noreferrer nofollow" });
}
