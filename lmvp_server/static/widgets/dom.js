// What every view makes its elements with. Texts go in as text, never as HTML.

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

/** JupyterLab reads keys before any element does (X cuts the cell): while the focus is in here, plain keys are ours. */
export function guardKeys(root) {
  const guard = (event) => {
    if (!root.contains(event.target)) return;
    root.toggleAttribute("data-lm-suppress-shortcuts", !(event.ctrlKey || event.metaKey));
  };
  window.addEventListener("keydown", guard, true);
  return () => window.removeEventListener("keydown", guard, true);
}

/** Copy text; where the page may not use the clipboard, by way of a field that is selected. */
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

/** What stands where there is nothing: one sentence, and the code that fills it. */
export function emptiness({ words, code }, said) {
  const block = code && make("div", { class: "code" }, make("pre", { tabindex: "0" }, make("code", {}, code)),
    copyButton("Copy", code, "bare copy", said));
  return make("div", { class: "empty" }, make("p", {}, words), block || null);
}
