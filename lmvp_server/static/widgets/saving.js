// Export of a chart as PNG, SVG or CSV, in the browser.
import { make } from "./dom.js";

function save(name, type, content) {
  const url = URL.createObjectURL(new Blob([content], { type }));
  const link = make("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  // The browser needs the URL until the download has started.
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** The background of a chart: the nearest background that is not transparent. */
function paper(element) {
  for (let node = element; node; node = node.parentElement) {
    const colour = getComputedStyle(node).backgroundColor;
    if (!/rgba\(.*, 0\)|transparent/.test(colour)) return colour;
  }
  return "white";
}

/** Save the charts, one below the other with titles, as PNG at the resolution of the screen. */
async function savePng(charts, name) {
  const scale = devicePixelRatio || 1;
  const head = 24 * scale;
  const canvases = charts.map(({ plot }) => plot.ctx.canvas);
  const sheet = make("canvas", { width: Math.max(...canvases.map((one) => one.width)), height: canvases.reduce((sum, one) => sum + one.height + head, 0) });
  const ctx = sheet.getContext("2d");
  ctx.fillStyle = paper(canvases[0]);
  ctx.fillRect(0, 0, sheet.width, sheet.height);
  let top = 0;
  charts.forEach(({ title, plot }, i) => {
    ctx.font = `600 ${13 * scale}px ${getComputedStyle(plot.root).fontFamily}`;
    ctx.fillStyle = getComputedStyle(plot.root).color;
    ctx.fillText(title, 8 * scale, top + 17 * scale);
    ctx.drawImage(canvases[i], 0, top + head);
    top += canvases[i].height + head;
  });
  save(`${name}.png`, "image/png", await new Promise((done) => { sheet.toBlob(done, "image/png"); }));
}

const safe = (text) => String(text).replace(/[&<>"]/g, (letter) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[letter]);

function drawn({ title, plot }, top) {
  const scale = devicePixelRatio || 1;
  const [left, upper] = [plot.bbox.left / scale, plot.bbox.top / scale + 24];
  const ink = getComputedStyle(plot.root).color;
  const put = (x, y) => `${(left + plot.valToPos(x, "x")).toFixed(1)} ${(upper + plot.valToPos(y, "y")).toFixed(1)}`;
  const lines = plot.series.slice(1).map((series, i) => {
    let path = "";
    plot.data[i + 1].forEach((y, at) => {
      const x = plot.data[0][at];
      if (y === null || y === undefined || x < plot.scales.x.min || x > plot.scales.x.max) return;
      path += `${path ? "L" : "M"}${put(x, y)}`;
    });
    const dash = series.dash?.length ? ` stroke-dasharray="${series.dash.join(" ")}"` : "";
    return `<path d="${path}" fill="none" stroke="${safe(series.stroke(plot, i + 1))}" stroke-width="${series.width}"${dash}/>`;
  });
  const ticks = plot.axes.flatMap((axis, side) => (axis._splits ?? []).map((at, i) => {
    const words = safe(axis._values?.[i] ?? "");
    const [x, y] = side ? [left - 6, upper + plot.valToPos(at, "y") + 4] : [left + plot.valToPos(at, "x"), upper + plot.bbox.height / scale + 16];
    return words ? `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}" text-anchor="${side ? "end" : "middle"}" opacity=".7">${words}</text>` : "";
  }));
  return `<g transform="translate(0 ${top})" fill="${ink}"><text x="8" y="17" font-weight="600" font-size="13">${safe(title)}</text>${ticks.join("")}${lines.join("")}</g>`;
}

/** Save the same as SVG, with the current zoom and smoothing. */
function saveSvg(charts, name) {
  let top = 0;
  const parts = charts.map((chart) => { const part = drawn(chart, top); top += chart.plot.height + 24; return part; });
  const width = Math.max(...charts.map(({ plot }) => plot.width));
  const ground = `<rect width="${width}" height="${top}" fill="${paper(charts[0].plot.root)}"/>`;
  save(`${name}.svg`, "image/svg+xml", `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${top}" viewBox="0 0 ${width} ${top}" font-family="system-ui, sans-serif" font-size="11">${ground}${parts.join("")}</svg>`);
}

/** Escape a text that a spreadsheet could execute as a formula. `handlers/export.py` has the same rule. */
export function inert(text) {
  if (/^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$/.test(text)) return text;
  const [blank] = /^[\p{Z}\p{C}]*/u.exec(text);
  const first = text.slice(blank.length).normalize("NFKC")[0];
  return "=+-@".includes(first ?? " ") || /[\t\r\n]/.test(blank) ? `'${text}` : text;
}

/** Save rows as CSV (RFC 4180). */
function saveCsv(heads, rows, name) {
  const cell = (value) => {
    const text = typeof value === "string" ? inert(value) : String(value ?? "");
    return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  save(`${name}.csv`, "text/csv", [heads, ...rows].map((row) => row.map(cell).join(",")).join("\r\n"));
}

/** The three export buttons. `shown()` returns the charts, `numbers()` the header and the rows. */
export function savers(name, shown, numbers) {
  const file = () => name().replace(/[^\w.-]+/g, "-").replace(/^-|-$/g, "") || "lmvp";
  const button = (words, title, act) => make("button", { class: "btn bare", type: "button", title, onclick: act }, words);
  return make("span", { class: "lmvp-savers small quiet" }, "save as ",
    button("PNG", "a picture of what is on show", () => savePng(shown(), file())),
    button("SVG", "a drawing of what is on show", () => saveSvg(shown(), file())),
    button("CSV", "the numbers that are drawn", () => saveCsv(...numbers(), file())));
}
