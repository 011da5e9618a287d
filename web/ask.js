// The dialog of one question, which is answered by yes or no.

const $ = (id) => document.getElementById(id);
let asked = null;

/** Whether the person presses `yes`. Closing it is a no. */
export function ask(question) {
    const { title, text, no, yes } = (asked = question);
    const dialog = $("ask");
    Object.entries({ title, text, no, yes }).forEach(([part, words]) => ($(`ask-${part}`).textContent = words));
    dialog.returnValue = "no";
    if (!dialog.open) dialog.showModal();
    return new Promise((resolve) => {
        dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
    });
}

/** Closes the question if it is this one: what it asks about is over. */
export function withdraw(question) {
    if (asked === question) $("ask").close("no");
}
