// Colours and fonts as the page computes them, for a canvas; and word of it when they change.
import { make } from "./dom.js";

/** A canvas cannot read `light-dark()` or `var()` itself. */
export class Paint {
  constructor(root) { this.probe = root.appendChild(make("span", { class: "hidden", "aria-hidden": "true" })); }

  colour(token) {
    this.probe.style.color = `var(--${token})`;
    return getComputedStyle(this.probe).color;
  }

  faint(token) { return this.colour(token).replace(/^rgb\((.*)\)$/, `rgba($1, ${getComputedStyle(this.probe).getPropertyValue("--faint").trim()})`); }

  font() { return `11px ${getComputedStyle(this.probe).fontFamily}`; }
}

/** Call `redraw` whenever the colours of the page may be others; gives what ends that. */
export function onTheme(redraw) {
  const soon = () => { for (const delay of [0, 300]) setTimeout(redraw, delay); }; // a host may still be fading over
  const theme = new MutationObserver(soon);
  theme.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light", "data-jp-theme-name", "class"] });
  const system = ["(prefers-color-scheme: dark)", "(forced-colors: active)"].map((query) => matchMedia(query));
  system.forEach((query) => query.addEventListener("change", soon));
  document.addEventListener("lmvp-theme", soon); // a page of the console has a choice of its own
  return () => {
    theme.disconnect();
    system.forEach((query) => query.removeEventListener("change", soon));
    document.removeEventListener("lmvp-theme", soon);
  };
}
