// A button that opens a page of the console, signed in. Nothing secret is in the data of the widget, which a notebook may
// save: the kernel is asked for a link when the button is clicked.
//
// An AFM module: `model.get("data")` is `{ url, path, instance }`. It sends `{ kind: "link" }` and gets `{ kind: "link", url }`
// or `{ kind: "error", message }`.
import { guardKeys, make } from "./dom.js";
import { view } from "./mount.js";

/** The address of the console below Jupyter's own URL, if Jupyter leads to the same server: no sign-in is needed there. */
async function behindJupyter({ path, instance }) {
  const config = document.getElementById("jupyter-config-data");
  const base = config ? JSON.parse(config.textContent).baseUrl : null;
  if (!base) return null;
  try {
    const found = new URL(`${base.replace(/\/$/, "")}/lmvp/`, location.href);
    const health = await (await fetch(`${found}api/v1/health`)).json();
    return health.instance === instance ? `${found}${path}` : null;
  } catch {
    return null; // the extension of the Jupyter server is off
  }
}

class OpenConsole {
  constructor(model, el) {
    this.model = model;
    this.root = make("div", { class: "lmvp in-notebook" });
    el.replaceChildren(this.root);
    this.button = make("button", { class: "btn primary", type: "button", onclick: () => this.open() }, "Open the console");
    this.note = make("span", { class: "quiet small", role: "status" }, model.get("data").url);
    this.root.append(make("div", { class: "acts" }, this.button, this.note));
    this.onMessage = (message) => this.take(message);
    model.on("msg:custom", this.onMessage);
    this.endKeys = guardKeys(this.root);
  }

  close() {
    this.model.off("msg:custom", this.onMessage);
    this.endKeys();
  }

  async open() {
    // Opened now, by the click: a window that is opened after an answer has come counts as a pop-up.
    this.window = window.open("", "_blank");
    const proxied = await behindJupyter(this.model.get("data"));
    if (proxied) return this.lead(proxied);
    this.note.textContent = "asking the kernel for a link; a cell that is running comes first";
    this.model.send({ kind: "link" });
    return undefined;
  }

  take(message) {
    if (message.kind === "link") this.lead(message.url);
    if (message.kind === "error") {
      this.window?.close();
      this.note.textContent = message.message;
    }
  }

  lead(url) {
    const data = this.model.get("data");
    if (this.window && !this.window.closed) {
      this.window.opener = null; // the console gets no hold of the notebook
      this.window.location.replace(url);
      this.note.textContent = data.url;
      return;
    }
    // No window may be opened here, as in VS Code: a link that the user follows. It is in the page alone, not saved.
    const link = make("a", { href: url, target: "_blank", rel: "noopener noreferrer", onclick: () => { this.note.textContent = data.url; } }, "Open it (works once)");
    this.note.replaceChildren(link);
  }
}

export default view(OpenConsole);
