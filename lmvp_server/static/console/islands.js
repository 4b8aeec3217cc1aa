// Widgets in pages of the console. The page contains their data; the server answers the requests that a kernel answers
// in a notebook.
import { make } from "../widgets/dom.js";

const VIEWS = {
  diff: () => import("../widgets/diff.js"),
  model: () => import("../widgets/model.js"),
  metrics: () => import("../widgets/metrics.js"),
  curves: () => import("../widgets/curves.js"),
};
// Minimum milliseconds between two requests for the curves of an active run.
const SOONEST = 400;

/** The model of a view: data, and messages in both directions. */
class Model {
  constructor(data, answer) {
    this.data = data;
    this.answer = answer;
    this.heard = new Map();
  }

  get(name) { return name === "data" ? this.data : undefined; }

  on(name, hear) { this.heard.set(name, [...(this.heard.get(name) ?? []), hear]); }

  off(name, hear) { this.heard.set(name, (this.heard.get(name) ?? []).filter((each) => each !== hear)); }

  tell(message, buffers = []) { (this.heard.get("msg:custom") ?? []).forEach((hear) => hear(message, buffers)); }

  send(message) { this.answer(this, message); }
}

async function json(url) {
  const answer = await fetch(url, { headers: { Accept: "application/json" } });
  if (!answer.ok) throw new Error(`${answer.status}`);
  return answer.json();
}

const joined = (url, query) => `${url}${url.includes("?") ? "&" : "?"}${query}`;

/** Load the histograms of visible tensors. */
async function histograms(place, model, message) {
  const query = new URLSearchParams(message.tensors.map((name) => ["tensor", name]));
  try {
    model.tell({ kind: "histograms", ...(await json(joined(place.dataset.histograms, query))) });
  } catch { /* optional: the tree is complete without histograms */ }
}

/** Convert curves to the message of the view: all columns of a line in one array of float64. */
function lines(data, kind, range) {
  const every = data.groups.flatMap((group) => group.lines.map((line) => ({ ...line, group: group.name })));
  const written = (value) => ({ NaN: NaN, Infinity: Infinity, "-Infinity": -Infinity }[value] ?? value);
  const buffers = every.map(({ steps, times, values, axis }) =>
    new DataView(Float64Array.from([...steps, ...times, ...values.map(written), ...(axis.length ? axis.map(written) : steps.map(() => NaN))]).buffer));
  const { title, status, fact, joined: by } = data;
  return [{ kind, range, head: { title, status, fact, joined: by }, lines: every.map(({ group, id, label, run, key, count }) => ({ group, id, label, run, key, count })) }, buffers];
}

async function zoom(place, model, { from, to }) {
  if (from === null || from === undefined) return;
  try {
    model.tell(...lines(await json(joined(place.dataset.curves, `from=${from}&to=${to}`)), "finer", [from, to]));
  } catch { /* optional: the coarse lines stay visible */ }
}

/** Follow active runs: load downsampled curves when points arrive, one request at a time. */
function follow(place, model) {
  const source = new EventSource(place.dataset.live);
  const [note, status] = ["[data-lost]", "[data-status]"].map((each) => document.querySelector(each));
  let waiting = false;
  const look = async () => {
    if (waiting) return;
    waiting = true;
    const began = performance.now();
    try {
      const data = await json(place.dataset.curves);
      model.tell(...lines(data, "news"));
      if (status && data.status) Object.assign(status, { className: `status ${data.status}`, textContent: data.status });
      if (!["running", "stale"].includes(data.status) && data.status) source.close();
    } catch { /* ignored: the stream reports when the server is back */ }
    // Wait three times as long as the request took, so that a busy server gets fewer requests.
    setTimeout(() => { waiting = false; }, Math.max(SOONEST, 3 * (performance.now() - began)));
  };
  // The second request gets the points that arrive while the first one is running.
  for (const kind of ["points", "status", "reset"]) source.addEventListener(kind, () => { look(); setTimeout(look, 2 * SOONEST); });
  source.addEventListener("end", (event) => {
    source.close(); // otherwise EventSource would reconnect and be refused
    if (note) Object.assign(note, { hidden: false, textContent: `The page no longer follows the run: ${JSON.parse(event.data).message}.` });
  });
  source.addEventListener("error", () => { if (note) note.hidden = false; });
  source.addEventListener("open", () => { if (note) note.hidden = true; look(); });
}

/** If a view cannot be drawn, show its static HTML, which the server rendered. */
async function enliven(place) {
  try {
    await draw(place);
  } catch (error) {
    const still = new DOMParser().parseFromString(place.querySelector("noscript").textContent, "text/html");
    place.replaceChildren(...still.body.childNodes);
    throw error;
  }
}

async function draw(place) {
  const written = place.querySelector("script");
  const data = written ? JSON.parse(written.textContent) : await json(place.dataset[place.dataset.view]);
  const answers = { histograms, zoom };
  const model = new Model(data, (one, message) => answers[message.kind]?.(place, one, message));
  // Loaded on demand: most pages need only one of the modules.
  const { default: view } = await VIEWS[place.dataset.view]();
  const el = make("div");
  place.append(el);
  view.render({ model, el });
  // The console has its own fonts and background.
  el.querySelector(".in-notebook")?.classList.remove("in-notebook");
  place.dataset.alive = "";
  if (place.dataset.live) follow(place, model);
}

document.querySelectorAll(".island").forEach(enliven);

/** Load and draw a view in a closed section when the section is opened. */
for (const place of document.querySelectorAll("[data-later]")) {
  const around = place.closest("details");
  const open = async () => {
    if (!around.open || place.classList.contains("island")) return;
    place.classList.add("island");
    place.setAttribute("aria-busy", "true");
    try {
      await draw(place);
    } catch {
      place.classList.remove("island"); // so that opening it again retries
      place.replaceChildren(make("p", { class: "note warn" }, "The charts could not be loaded. Close this part and open it again to retry."));
    }
    place.removeAttribute("aria-busy");
  };
  around.addEventListener("toggle", open);
  open();
}
