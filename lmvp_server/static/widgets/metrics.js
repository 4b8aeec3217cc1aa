// A metric over the versions of a model: lines follow the graph, the best version is marked.
// 
// An AFM module: `render({ model, el })` with `model.get("data")`, the JSON of `lmvp.views.metric_plot.plot_data`. It needs a
// global `uPlot`: in a notebook, both are in one text; a page of the console loads the vendored script first.
/* global uPlot */
import { metricLabels } from "./axes.js";
import { emptiness, guardKeys, make } from "./dom.js";
import { view } from "./mount.js";
import { onTheme, Paint } from "./paint.js";
import { savers } from "./saving.js";
import { Tip } from "./tip.js";
import { number } from "./words.js";

const HEIGHT = 200;
const TABLE_ROWS = 50;

class PlotView {
  constructor(model, el) {
    this.model = model;
    this.root = make("div", { class: "lmvp in-notebook lmvp-plot" });
    el.replaceChildren(this.root);
    this.keys = guardKeys(this.root);
    this.onData = () => this.draw();
    model.on("change:data", this.onData);
    this.endTheme = onTheme(() => this.plot?.redraw(false, true));
    this.said = make("span", { class: "hidden", role: "status" });
    this.resized = new ResizeObserver(() => requestAnimationFrame(() => this.fit()));
    this.draw();
  }

  close() {
    this.model.off("change:data", this.onData);
    this.keys();
    this.endTheme();
    this.resized.disconnect();
    this.plot?.destroy();
  }

  get data() { return this.model.get("data"); }

  draw() {
    const { data } = this;
    this.plot?.destroy();
    this.plot = null;
    const title = make("div", { class: "title" }, make("h3", { class: "mono" }, data.title),
      make("span", { class: "quiet small" }, data.empty ? "" : data.fact));
    if (data.empty) {
      this.root.replaceChildren(title, emptiness(data.empty, this.said), this.said);
      return;
    }
    this.box = make("div", { class: "plot", role: "img", tabindex: "0", "aria-label": data.summary, onkeydown: (event) => this.key(event), onblur: () => this.tip.hide() });
    this.tip = new Tip(this.box);
    this.readout = make("output", { class: "readout", "aria-live": "polite" });
    this.root.replaceChildren(title, make("figure", { class: "chart" }, this.box), this.readout, make("div", { class: "lmvp-under" }, this.table(), this.saver()));
    this.ink = new Paint(this.root);
    this.values = data.points.map((point) => number(point.value));
    const shown = this.values.map((value) => (Number.isFinite(value) ? value : null));
    this.plot = new uPlot(this.options(), [data.points.map((point) => point.number), shown], this.box);
    this.tell(null);
    this.resized.disconnect();
    this.resized.observe(this.box);
  }

  saver() {
    const { data } = this;
    const rows = () => data.points.map((point) => [point.label, number(point.value), point.message]);
    return savers(() => `${data.title} ${data.metric}`, () => [{ title: data.fact, plot: this.plot }], () => [["version", data.metric, "message"], rows()]);
  }

  options() {
    const { points, low, high } = this.data;
    const ink = (token) => () => this.ink.colour(token);
    const axis = { stroke: ink("ink-3"), font: this.ink.font(), ticks: { show: false } };
    return {
      width: this.width(), height: HEIGHT, legend: { show: false },
      padding: [22, 20, 0, 0],
      cursor: { y: false, drag: { setScale: false, x: false, y: false }, points: { show: false } },
      scales: { x: { time: false, range: [points[0].number - 0.5, points.at(-1).number + 0.5] }, y: { range: [low, high] } },
      axes: [
        { ...axis, size: 28, gap: 6, space: 44, grid: { show: false },
          incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000],
          values: (_, ticks) => ticks.map((at) => (Number.isInteger(at) ? `v${at}` : "")) },
        { ...axis, size: (_, texts) => 16 + 7 * Math.max(4, ...(texts ?? []).map((text) => text.length)), gap: 8, space: 24,
          grid: { stroke: ink("line"), width: 1 }, values: (_, ticks) => metricLabels(this.data.metric, ticks) },
      ],
      series: [{}, { stroke: ink("ink"), paths: () => null, points: { show: false } }],
      hooks: { draw: [() => this.paint()], setCursor: [(plot) => { this.point(plot.cursor.idx ?? null); this.tell(plot.cursor.idx ?? null); }] },
    };
  }

  width() { return Math.max(240, Math.floor(this.box.clientWidth || this.root.clientWidth || 640)); }

  fit() {
    const width = this.width();
    if (!this.box.clientWidth) return; // hidden, for example while JupyterLab changes its theme
    if (this.plot && width !== this.plot.width) this.plot.setSize({ width, height: HEIGHT });
  }

  /** The position of a point on the canvas. Values that are not finite are drawn at the edge. */
  place(i) {
    const { points, low, high } = this.data;
    const value = this.values[i];
    const shown = Number.isNaN(value) ? low : Math.min(high, Math.max(low, value));
    return [this.plot.valToPos(points[i].number, "x", true), this.plot.valToPos(shown, "y", true)];
  }

  /** Draw the lines between versions and their parents, then a dot for each, then the name of the best one. */
  paint() {
    if (!this.plot) return;
    const { ctx } = this.plot;
    const scale = uPlot.pxRatio;
    const [ink, quiet, accent] = ["ink", "ink-3", "accent"].map((token) => this.ink.colour(token));
    ctx.save();
    this.baseline(ctx, scale);
    for (const [from, to, main] of this.data.wires) {
      ctx.beginPath();
      ctx.moveTo(...this.place(from));
      ctx.lineTo(...this.place(to));
      ctx.strokeStyle = main ? ink : quiet;
      ctx.lineWidth = 1.5 * scale;
      ctx.stroke();
    }
    const crowded = this.plot.bbox.width / scale < 9 * this.data.points.length;
    this.data.points.forEach((point, i) => {
      const told = point.best || !point.main || !Number.isFinite(this.values[i]);
      if (told || !crowded) this.dot(ctx, i, point, crowded ? 2.5 : 3.5, { ink, quiet, accent }, scale);
    });
    const best = this.data.points.findIndex((point) => point.best);
    if (best >= 0 && Number.isFinite(this.values[best])) this.call(ctx, best, ink, scale);
    ctx.restore();
  }

  baseline(ctx, scale) {
    const { left, top, width, height } = this.plot.bbox;
    ctx.fillStyle = this.ink.colour("line-2");
    ctx.fillRect(left, top + height - scale / 2, width, scale);
  }

  dot(ctx, i, point, radius, { ink, quiet, accent }, scale) {
    const [x, y] = this.place(i);
    ctx.beginPath();
    ctx.arc(x, y, radius * scale, 0, 2 * Math.PI);
    if (!Number.isFinite(this.values[i])) {
      ctx.strokeStyle = quiet;
      ctx.lineWidth = 1.5 * scale;
      ctx.stroke();
      return;
    }
    ctx.fillStyle = point.best ? accent : point.main ? ink : quiet;
    ctx.fill();
    if (!point.best) return;
    ctx.beginPath();
    ctx.arc(x, y, (radius + 2.25) * scale, 0, 2 * Math.PI);
    ctx.strokeStyle = accent;
    ctx.lineWidth = 1.5 * scale;
    ctx.stroke();
  }

  call(ctx, i, ink, scale) {
    const [x, y] = this.place(i);
    const words = `best ${this.data.points[i].written}`;
    ctx.font = this.ink.font().replace("11px", `${12 * scale}px`);
    const half = ctx.measureText(words).width / 2;
    const { left, width } = this.plot.bbox;
    ctx.fillStyle = ink;
    ctx.textAlign = "center";
    ctx.textBaseline = "bottom";
    ctx.fillText(words, Math.min(Math.max(x, left + half), left + width - half), y - 9 * scale);
  }

  /** Show a version at the pointer. */
  point(i) {
    const point = i === null ? null : this.data.points[i];
    const { left, top } = this.plot.cursor;
    if (!point || left < 0) { this.tip.hide(); return; }
    this.tip.show(this.plot.over.offsetLeft + left, this.plot.over.offsetTop + top,
      make("p", {}, point.label), make("div", {}, make("span", { class: "clip" }, this.data.metric), make("b", {}, point.written)),
      point.message ? make("p", { class: "quiet clip" }, point.message) : "");
  }

  tell(i) {
    if (i === this.told) return;
    this.told = i;
    const { points, metric, summary } = this.data;
    this.readout.textContent = i === null || !points[i] ? summary : `${points[i].label}: ${metric} ${points[i].written}${points[i].message ? `, ${points[i].message}` : ""}`;
  }

  key(event) {
    const last = this.data.points.length - 1;
    const at = this.plot.cursor.idx ?? null;
    const to = { ArrowRight: at === null ? 0 : Math.min(last, at + 1), ArrowLeft: at === null ? last : Math.max(0, at - 1), Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.plot.setCursor({ left: this.plot.valToPos(this.data.points[to].number, "x"), top: 10 });
  }

  table() {
    const shown = this.data.points.slice(-TABLE_ROWS).reverse();
    const head = make("tr", {}, ...["Version", this.data.metric, "Message"].map((label, i) => make("th", { scope: "col", class: ["", "num", "wide"][i] }, label)));
    const rows = shown.map((point) => make("tr", {}, make("th", { scope: "row" }, point.label),
      make("td", { class: "num" }, point.written), make("td", { class: "wide" }, point.message)));
    const older = this.data.points.length - shown.length;
    return make("details", { class: "small" }, make("summary", {}, "the numbers as a table"),
      make("div", { class: "scroll" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows))),
      older > 0 ? make("p", { class: "quiet" }, `${older.toLocaleString("en")} older`) : null);
  }
}

export default view(PlotView);
