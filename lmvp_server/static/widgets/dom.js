// Helpers that create the elements of all views. Strings become text nodes, never HTML.

export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

export function drawing(tag, attributes, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** Disable JupyterLab's plain-key shortcuts (X cuts the cell) while the focus is inside an element. */
export function guardKeys(root) {
  const guard = (event) => {
    if (!root.contains(event.target)) return;
    root.toggleAttribute("data-lm-suppress-shortcuts", !(event.ctrlKey || event.metaKey));
  };
  window.addEventListener("keydown", guard, true);
  return () => window.removeEventListener("keydown", guard, true);
}

/** Copy text. If the clipboard API is not allowed, copy from a temporary selected field. */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const focused = document.activeElement;
    const field = make("textarea", { style: "position:fixed;opacity:0", "aria-hidden": "true", tabindex: "-1" });
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
    focused?.focus();
  }
}

export function copyButton(label, code, css, said) {
  const button = make("button", { class: `btn ${css}`, type: "button", title: code }, label);
  button.addEventListener("click", async () => {
    await copy(code);
    button.textContent = "Copied";
    said.textContent = `Copied: ${code}`;
    setTimeout(() => { button.textContent = label; }, 2000);
  });
  return button;
}

/** The placeholder of an empty view: one sentence and the code that adds content. */
export function emptiness({ words, code }, said) {
  const block = code && make("div", { class: "code" }, make("pre", { tabindex: "0" }, make("code", {}, code)),
    copyButton("Copy", code, "bare copy", said));
  return make("div", { class: "empty" }, make("p", {}, words), block || null);
}
