// A button that opens a page of the console, signed in. The data of the widget, which a notebook can save, contains no
// secret: a click asks the kernel for a link.
// 
// An AFM module: `model.get("data")` is `{ url, path, instance }`. It sends `{ kind: "link" }` and gets `{ kind:
// "link", url }` or `{ kind: "error", message }`.
import { guardKeys, make } from "./dom.js";
import { view } from "./mount.js";

/** The URL of the console below Jupyter's URL if it is the same server. It needs no sign-in there. */
async function behindJupyter({ path, instance }) {
  const config = document.getElementById("jupyter-config-data");
  const base = config ? JSON.parse(config.textContent).baseUrl : null;
  if (!base) return null;
  try {
    const found = new URL(`${base.replace(/\/$/, "")}/lmvp/`, location.href);
    // The instance id shows whether the server behind Jupyter is the kernel's server.
    const health = await (await fetch(`${found}api/v1/health`)).json();
    return health.instance === instance ? `${found}${path}` : null;
  } catch {
    return null; // the extension of the Jupyter server is disabled
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
    // Open the window during the click: browsers block windows that are opened after a reply (pop-ups).
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
      this.window.opener = null; // the console must not get access to the notebook
      this.window.location.replace(url);
      this.note.textContent = data.url;
      return;
    }
    // Windows are not allowed here, for example in VS Code. Show a link, which is only in the page and never saved.
    const link = make("a", { href: url, target: "_blank", rel: "noopener noreferrer", onclick: () => { this.note.textContent = data.url; } }, "Open it (works once)");
    this.note.replaceChildren(link);
  }
}

export default view(OpenConsole);
