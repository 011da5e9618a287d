// The dialog of one question, which is answered by yes or no.

const $ = (id) => document.getElementById(id);

/** Whether the person presses `yes`. Closing it is a no. */
export function ask({ title, text, no, yes }) {
    const dialog = $("ask");
    Object.entries({ title, text, no, yes }).forEach(([part, words]) => ($(`ask-${part}`).textContent = words));
    dialog.returnValue = "no";
    if (!dialog.open) dialog.showModal();
    return new Promise((resolve) => {
        dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
    });
}
