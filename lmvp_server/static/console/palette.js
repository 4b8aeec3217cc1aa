// The command palette (Ctrl K). It sends the same query as the search page.
import { make } from "../widgets/dom.js";
import { plural } from "../widgets/words.js";

const PAUSE = 120;
let dialog;

export function openPalette(root) {
  dialog ??= build(root);
  dialog.showModal();
  dialog.querySelector("input").select();
}

function build(root) {
  const list = make("ul", { id: "palette-list", role: "listbox", "aria-label": "Results" });
  const count = make("p", { class: "quiet small", role: "status" }, "Type part of a name, a message or a param.");
  const input = make("input", { type: "search", placeholder: "Search models, versions, runs", "aria-label": "Search", role: "combobox", "aria-expanded": "true", "aria-controls": "palette-list", autocomplete: "off", spellcheck: "false" });
  const made = make("dialog", { class: "palette", "aria-label": "Search" }, input, list, count);
  let timer = 0;
  let asked = 0;
  let at = 0;

  const choose = (to) => {
    const rows = [...list.children];
    at = Math.max(0, Math.min(rows.length - 1, to));
    rows.forEach((row, i) => row.setAttribute("aria-selected", String(i === at)));
    if (rows[at]) {
      input.setAttribute("aria-activedescendant", rows[at].id);
      rows[at].scrollIntoView({ block: "nearest" });
    }
  };
  const look = async () => {
    const mine = asked += 1;
    const words = input.value.trim();
    let found = { items: [] };
    if (words) {
      try {
        const answer = await fetch(`${root}/search?as=json&q=${encodeURIComponent(words)}`);
        if (!answer.ok) throw new Error();
        found = await answer.json();
      } catch {
        count.textContent = "The server does not respond.";
        return;
      }
    }
    if (mine !== asked) return;
    list.replaceChildren(...found.items.map((item, i) => make("li", { role: "option", id: `palette-${i}`, onclick: () => go(item), onmousemove: () => choose(i) },
      make("span", { class: "quiet" }, item.kind), make("span", { class: "clip" }, item.name, " ", make("span", { class: "quiet" }, item.words)), make("span", { class: "quiet" }, item.project))));
    count.textContent = !words ? "Type part of a name, a message or a param." : found.items.length ? `${plural(found.items.length, "result")}${found.more ? ", and more" : ""}` : `No match for “${words}”.`;
    choose(0);
    list.found = found.items;
  };
  const go = (item) => { location.href = `${root}/${item.url}`; };

  input.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(look, PAUSE); });
  input.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) { event.preventDefault(); choose(at + step); }
    if (event.key === "Escape") made.close(); // by default, Escape would only clear the field
    if (event.key === "Enter" && list.found?.[at]) { event.preventDefault(); go(list.found[at]); }
  });
  made.addEventListener("click", (event) => { if (event.target === made) made.close(); });
  document.querySelector("body.lmvp").append(made);
  return made;
}
