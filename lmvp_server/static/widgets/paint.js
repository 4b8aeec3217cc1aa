// Computed colours and fonts for a canvas, and notification of theme changes.
import { make } from "./dom.js";

/** Resolves CSS tokens, because a canvas cannot read `light-dark()` or `var()`. */
export class Paint {
  constructor(root) { this.probe = root.appendChild(make("span", { class: "hidden", "aria-hidden": "true" })); }

  colour(token) {
    // The computed style of a hidden element is the only way to resolve a token.
    this.probe.style.color = `var(--${token})`;
    return getComputedStyle(this.probe).color;
  }

  faint(token) { return this.colour(token).replace(/^rgb\((.*)\)$/, `rgba($1, ${getComputedStyle(this.probe).getPropertyValue("--faint").trim()})`); }

  font() { return `11px ${getComputedStyle(this.probe).fontFamily}`; }
}

/** Call `redraw` when the colours of the page can have changed; return a function that stops this. */
export function onTheme(redraw) {
  const soon = () => { for (const delay of [0, 300]) setTimeout(redraw, delay); }; // again later: the host can animate
  const theme = new MutationObserver(soon);
  theme.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "data-jp-theme-name", "class"] });
  const system = ["(prefers-color-scheme: dark)", "(forced-colors: active)"].map((query) => matchMedia(query));
  system.forEach((query) => query.addEventListener("change", soon));
  document.addEventListener("lmvp-theme", soon); // the theme switch of the console
  return () => {
    theme.disconnect();
    system.forEach((query) => query.removeEventListener("change", soon));
    document.removeEventListener("lmvp-theme", soon);
  };
}
