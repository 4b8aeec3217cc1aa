// Maintenance actions with progress: the script submits the form and reads the response line by line.
import { make } from "../widgets/dom.js";

const share = (done, total) => (total ? Math.min(100, (100 * done) / total) : 0);

async function watch(form, body, work) {
  const bar = make("i", { style: "width:0" });
  const note = make("p", { class: "quiet small", role: "status" }, "Started");
  const box = make("div", { style: "margin-top:var(--3);max-width:28rem" }, make("div", { class: "progress" }, bar), note);
  form.querySelector("[data-progress]")?.remove();
  box.dataset.progress = "";
  form.append(box);
  const answer = await fetch(form.action, { method: "POST", body, headers: { Accept: "application/x-ndjson" } });
  if (!answer.ok) {
    note.textContent = "The server refused the task. Load the page again and sign in if necessary.";
    return;
  }
  const lines = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (let part = await lines.read(); !part.done; part = await lines.read()) {
    const whole = (rest + part.value).split("\n");
    rest = whole.pop();
    for (const line of whole.filter(Boolean).map((each) => JSON.parse(each))) {
      if (line.total) {
        bar.style.width = `${share(line.done, line.total)}%`;
        note.textContent = `${share(line.done, line.total).toFixed(0)} %`;
      }
      if (line.error) note.textContent = `${line.error.message}. Existing data is unchanged.`;
      if (line.result) {
        bar.style.width = "100%";
        note.textContent = told(work, line.result);
      }
    }
  }
}

function told(work, result) {
  const count = (number, noun) => `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
  const waiting = result.waiting ? `; ${count(result.waiting, "removed object")} can be restored until ${result.until.slice(0, 10)}; the data stays until then` : "";
  if (work === "gc") return `${count(result.chunks, "chunk")} deleted, ${count(result.bytes, "byte")} freed${waiting}`;
  if (work === "compact") return `${count(result.chunks, "chunk")} encoded: ${count(result.before, "byte")} reduced to ${result.after.toLocaleString("en")}`;
  const wrong = result.problems ?? [];
  return `${count(result.versions, "version")}, ${count(result.chunks, "chunk")} verified; ${count(wrong.length, "problem")}${wrong.slice(0, 20).map((each) => `; ${each.what}`).join("")}`;
}

for (const form of document.querySelectorAll("[data-maintenance] form")) {
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    event.stopPropagation();
    const button = event.submitter;
    const body = new URLSearchParams(new FormData(form, button)); // before disabling: disabled fields are left out
    button.disabled = true;
    watch(form, body, button.value).catch(() => {
      form.querySelector("[role=status]").textContent = "The connection is lost; what was begun goes on. Load the page again.";
    }).finally(() => { button.disabled = false; });
  });
}
