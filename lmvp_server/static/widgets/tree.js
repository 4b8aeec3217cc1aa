// Parts of the trees of layers and tensors: percentages, histograms, lines of a patch.
import { drawing, make } from "./dom.js";

/** A percentage, with its sign in the colour of units. */
export const percentage = (words) => {
  const [number, unit] = [words.replace(/ %$/, ""), words.endsWith(" %")];
  return unit ? [`${number} `, make("b", { class: "unit" }, "%")] : [number];
};

/** A histogram, 28 wide and 16 high. */
function outline(counts) {
  const top = Math.max(1, ...counts);
  const width = 28 / counts.length;
  return `M0 16${counts.map((count, i) => `V${(16 - (16 * count) / top).toFixed(1)}H${((i + 1) * width).toFixed(1)}`).join("")}V16Z`;
}

export function histogram(name, now, was) {
  const paths = [drawing("path", { class: was ? "now" : "", d: outline(now.counts) })];
  if (was) paths.push(drawing("path", { class: "was", d: outline(was.counts) }));
  const words = `values of ${name}${was ? " before and after" : ""}, from ${now.low} to ${now.high}`;
  return drawing("svg", { class: "histo", viewBox: "0 0 28 16", preserveAspectRatio: "none", role: "img", "aria-label": words }, ...paths);
}

/** A line of a unified diff. CSS adds its sign, so that copied text is code. */
export function patchLine(text) {
  const css = { "+": "a", "-": "r", "@": "at" }[text[0]] ?? "k";
  return make("span", { class: css }, css === "at" ? text : text.slice(1) || " ");
}
