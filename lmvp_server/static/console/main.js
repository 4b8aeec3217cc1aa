// Scripts of every console page: copy buttons, theme switch, command palette. The pages also work without them.
import { copyButton, make } from "../widgets/dom.js";
import { openPalette } from "./palette.js";

const said = make("span", { class: "hidden", role: "status" });
document.body.append(said);

for (const block of document.querySelectorAll(".code[data-copy]")) {
  block.append(copyButton("Copy", block.querySelector("code").textContent.trim(), "bare copy", said));
}

const root = document.documentElement.dataset.root || ".";
const base = new URL(root, location.href).pathname;
for (const choice of document.querySelectorAll("input[name=theme]")) {
  choice.addEventListener("change", () => {
    const name = document.documentElement.dataset.themeCookie || "lmvp_theme";
    const where = name.startsWith("__Host-") ? "path=/; secure" : `path=${base}`;
    document.cookie = `${name}=${choice.value}; ${where}; max-age=31536000; samesite=lax`;
    document.dispatchEvent(new Event("lmvp-theme"));
  });
}

/** Ignore a second submit of a form. */
document.addEventListener("submit", (event) => {
  if (event.target.dataset.sent) event.preventDefault();
  else if (event.target.method === "post") {
    event.target.dataset.sent = "yes";
    // If the request fails, the user can submit the form again.
    setTimeout(() => delete event.target.dataset.sent, 5000);
  }
});
// The back button shows the page with its old state (back/forward cache).
addEventListener("pageshow", () => document.querySelectorAll("form").forEach((form) => delete form.dataset.sent));

document.addEventListener("keydown", (event) => {
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "k") {
    event.preventDefault();
    openPalette(root);
  }
});
document.querySelector(".find")?.addEventListener("click", (event) => {
  event.preventDefault();
  openPalette(root);
});

// Not scrollIntoView, which would change where keyboard focus starts.
const tab = document.querySelector(".tabs [aria-current]");
if (tab) tab.parentElement.scrollLeft = tab.offsetLeft + tab.offsetWidth - tab.parentElement.offsetLeft - tab.parentElement.clientWidth;

if (document.querySelector(".island")) import("./islands.js");

if (document.querySelector("[data-maintenance]")) import("./upkeep.js");
