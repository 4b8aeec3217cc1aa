// Curves of runs: live while they are logged, for one run or many.
//
// An AFM module: `render({ model, el })` with `model.get("data")`, the JSON of `lmvp.render.curves.curves_data`. While a
// run goes on, messages bring what is new (`{ kind: "news", head, lines }`, the lines whole, thinned by the kernel); a
// zoom asks for its range (`{ kind: "zoom", from, to }`) and gets finer lines when the kernel is free. It needs a global
// `uPlot`: a notebook gets both in one text, a page of the console loads the vendored script first.
/* global uPlot */
import { bounds, logBounds, logTicks } from "./axes.js";
import { guardKeys, make } from "./dom.js";
import { view } from "./mount.js";
import { onTheme, Paint } from "./paint.js";
import { savers } from "./saving.js";
import { clock, number, short, written } from "./words.js";

const CHART_HEIGHT = 192;
const DASHES = [[], [7, 3], [2, 3], [9, 3, 2, 3], [4, 2], [1, 2]];
const SMOOTH = [0, 5, 15, 50, 200];
const COLOURED = 6;
const CHARTS = 8;
const READ = 6;
const WHOLE = Array.from({ length: 16 }, (_, power) => [1, 2, 5].map((digit) => digit * 10 ** power)).flat();

/** An exponential mean over so many points, without bias at the start. */
function smoothed(values, over) {
  const keep = 1 - 2 / (Math.min(over, Math.max(2, values.length / 12)) + 1); // a mean over more would lag behind
  let mean = 0;
  let weight = 0;
  return values.map((value) => {
    if (Number.isFinite(value)) {
      mean = keep * mean + (1 - keep) * value;
      weight = keep * weight + (1 - keep);
    }
    return weight ? mean / weight : null;
  });
}

/** One chart: the lines of a group. */
class Chart {
  constructor(view, group) {
    this.view = view;
    this.name = group.name;
    this.lines = group.lines;
    this.heading = make("h3", { class: "mono" }, group.name);
    this.note = make("span", { class: "small quiet" });
    this.box = make("div", { class: "plot", role: "img", tabindex: "0", onkeydown: (event) => this.key(event), ondblclick: () => view.zoom(null) });
    this.legend = make("div", { class: "legend" });
    this.root = make("figure", { class: "chart" }, make("figcaption", {}, this.heading, this.note), this.box, this.legend);
  }

  /** Lay the lines on one axis: uPlot wants the x of all, and a gap where a line has no point. */
  columns() {
    const { axis, log, smooth, range } = this.view;
    const shown = this.shown();
    const own = shown.map((line) => {
      const xs = axis === "time" ? line.times : axis === "step" || !line.axis.length ? line.steps : line.axis.map(number);
      const value = (i) => { const y = number(line.values[i]); return log && !(y > 0) ? null : y; };
      const points = [...new Map(xs.map((x, i) => [x, value(i)]))].filter(([x]) => Number.isFinite(x)).sort((a, b) => a[0] - b[0]);
      return { xs: points.map(([x]) => x), ys: points.map(([, y]) => y) };
    });
    const all = [...new Set(own.flatMap(({ xs }) => xs))].sort((a, b) => a - b);
    const place = new Map(all.map((x, i) => [x, i]));
    const spread = (xs, ys) => {
      const column = new Array(all.length);
      xs.forEach((x, i) => { column[place.get(x)] = Number.isFinite(ys[i]) ? ys[i] : null; });
      return column;
    };
    const columns = [all];
    for (const { xs, ys } of own) {
      columns.push(spread(xs, ys));
      if (smooth > 1) columns.push(spread(xs, smoothed(ys, smooth)));
    }
    this.range = range;
    return columns;
  }

  shown() { return this.lines.filter((line) => !this.view.off.has(line.id)); }

  draw() {
    const { view } = this;
    const columns = this.columns();
    const key = JSON.stringify([this.shown().map((line) => line.id), view.axis, view.smooth, view.log, this.width()]);
    if (this.plot && key === this.drawn) {
      this.plot.setData(columns, false);
      this.plot.setScale("x", this.across(columns[0]));
    } else {
      this.plot?.destroy();
      this.drawn = key;
      this.plot = new uPlot(this.options(columns), columns, this.box);
    }
    this.box.setAttribute("aria-label", this.summary());
    this.note.textContent = this.oddities();
    this.tellLegend();
  }

  across(xs) {
    if (this.view.range) return { min: this.view.range[0], max: this.view.range[1] };
    const [min, max] = [xs[0] ?? 0, xs.at(-1) ?? 1];
    const room = Math.max(0.5, Math.abs(min) * 1e-9); // at 2**62, a step more is the same number
    return max > min ? { min, max } : { min: min - room, max: max + room };
  }

  options(columns) {
    const { view } = this;
    const { paint } = view;
    const ink = (token) => () => paint.colour(token);
    const axis = { stroke: ink("ink-3"), font: paint.font(), ticks: { show: false } };
    const series = [{}];
    for (const line of this.shown()) {
      const token = this.token(line);
      if (view.smooth > 1) series.push({ stroke: () => paint.faint(token), width: 1, spanGaps: false, points: { show: false } });
      series.push({ stroke: ink(token), width: 1.6, dash: DASHES[this.order(line) % DASHES.length], spanGaps: false, points: { show: this.alone(line), size: 6, fill: ink(token) } });
    }
    const ends = this.endNames();
    return {
      width: this.width(), height: CHART_HEIGHT, legend: { show: false }, padding: [8, ends ? 112 : 16, 0, 0],
      cursor: { y: false, drag: { x: true, y: false, setScale: false }, points: { show: false }, sync: { key: view.sync, setSeries: false } },
      select: { show: true },
      scales: {
        x: { time: false, ...this.across(columns[0]) },
        y: view.log ? { distr: 3, range: (_, low, high) => logBounds(low, high) } : { range: (_, low, high) => bounds(low, high) },
      },
      axes: [
        { ...axis, size: 28, gap: 6, space: 56, grid: { show: false }, ...(view.axis === "step" ? { incrs: WHOLE } : {}), values: (_, ticks) => ticks.map((at) => (at === null ? "" : view.axis === "time" ? clock(at) : short(at))) },
        { ...axis, size: (_, texts) => 14 + 7 * Math.max(3, ...(texts ?? []).map((text) => (text ?? "").length)), gap: 8, space: 30, grid: { stroke: ink("line"), width: 1 }, ...(view.log ? { splits: (plot) => logTicks(plot.scales.y.min, plot.scales.y.max), filter: (_, ticks) => ticks } : {}), values: (_, ticks) => ticks.map((at) => (at === null ? "" : written(at))) },
      ],
      series,
      hooks: {
        draw: [(plot) => this.names(plot)],
        setCursor: [(plot) => view.tell(this, plot)],
        setSelect: [(plot) => this.selected(plot)],
      },
    };
  }

  width() { return Math.max(220, Math.floor(this.box.clientWidth || this.view.width() || 560)); }

  order(line) { return this.lines.indexOf(line); }

  token(line) { return this.view.lit ? (this.view.lit === line.id ? `s${(this.order(line) % COLOURED) + 1}` : "line-2") : this.order(line) < COLOURED ? `s${this.order(line) + 1}` : "ink-3"; }

  alone(line) { return line.values.filter((value) => Number.isFinite(number(value))).length === 1; }

  endNames() { return this.shown().length > 1 && this.shown().length <= COLOURED && this.width() > 380; }

  /** Write names at the ends of the lines, moved apart where they would stand on one another. */
  names(plot) {
    if (!this.endNames()) return;
    const scale = uPlot.pxRatio;
    const step = this.view.smooth > 1 ? 2 : 1;
    const { left, top, width, height } = plot.bbox;
    const ends = [];
    this.shown().forEach((line, i) => {
      const column = plot.data[1 + i * step + (step - 1)];
      let at = column.length - 1;
      while (at >= 0 && (column[at] === null || column[at] === undefined || plot.data[0][at] > plot.scales.x.max)) at -= 1;
      if (at >= 0) ends.push({ y: Math.min(top + height, Math.max(top, plot.valToPos(column[at], "y", true))), line });
    });
    ends.sort((a, b) => a.y - b.y);
    for (let i = 1; i < ends.length; i += 1) ends[i].y = Math.max(ends[i].y, ends[i - 1].y + 14 * scale);
    const over = ends.length ? Math.max(0, ends.at(-1).y - (top + height)) : 0;
    const { ctx } = plot;
    ctx.save();
    ctx.font = this.view.paint.font().replace("11px", `${11 * scale}px`);
    ctx.textBaseline = "middle";
    ctx.textAlign = "left";
    for (const { y, line } of ends) {
      ctx.fillStyle = this.view.paint.colour(this.token(line));
      const words = line.label.length > 17 ? `${line.label.slice(0, 16)}…` : line.label;
      ctx.fillText(words, left + width + 8 * scale, y - over);
    }
    ctx.restore();
  }

  selected(plot) {
    if (plot.select.width < 4) return;
    const from = plot.posToVal(plot.select.left, "x");
    const to = plot.posToVal(plot.select.left + plot.select.width, "x");
    plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
    this.view.zoom([from, to]);
  }

  tellLegend() {
    const several = this.lines.length > 1;
    this.legend.hidden = !several;
    const { lit } = this.view;
    this.legend.replaceChildren(...(several ? this.lines.map((line) => {
      const off = this.view.off.has(line.id);
      const swatch = make("i", { class: "lmvp-swatch", "aria-hidden": "true" });
      swatch.style.background = this.order(line) < COLOURED ? `var(--s${this.order(line) + 1})` : "var(--ink-3)";
      return make("button", { class: "btn bare key", type: "button", "aria-pressed": String(!off), title: off ? "show" : "hide",
        onclick: () => this.view.toggle(line.id), onmouseenter: () => this.many() && this.view.light(line.id), onmouseleave: () => lit !== null && this.view.light(null) }, swatch, line.label);
    }) : []));
  }

  many() { return this.lines.length > COLOURED; }

  summary() {
    const told = this.shown().slice(0, COLOURED).map((line) => {
      const finite = line.values.map(number).filter(Number.isFinite);
      return `${line.label}: ${finite.length ? `${written(finite[0])} to ${written(finite.at(-1))}` : "no finite number"}`;
    });
    return `${this.name} by ${this.view.axis}. ${told.join("; ")}`;
  }

  /** Say what a line cannot show. */
  oddities() {
    const values = this.shown().flatMap((line) => line.values.map(number));
    const odd = values.filter((value) => !Number.isFinite(value)).length;
    if (!odd) return "";
    return odd === values.length ? "no finite number" : `${odd.toLocaleString("en")} not finite`;
  }

  key(event) {
    const xs = this.plot.data[0];
    const at = this.plot.cursor.idx ?? null;
    const { min, max } = this.plot.scales.x;
    const first = xs.findIndex((x) => x >= min);
    const last = xs.findLastIndex((x) => x <= max);
    const to = { ArrowRight: at === null ? first : Math.min(last, at + 1), ArrowLeft: at === null ? last : Math.max(first, at - 1), Home: first, End: last }[event.key];
    if (event.key === "Escape") this.view.zoom(null);
    if (to === undefined) return;
    event.preventDefault();
    this.plot.setCursor({ left: this.plot.valToPos(xs[to], "x"), top: 10 });
  }

  /** The values at a place of the axis: of each line, at its point before. */
  at(x) {
    const xs = this.plot.data[0];
    const index = xs.findLastIndex((each) => each <= x);
    const step = this.view.smooth > 1 ? 2 : 1;
    return this.shown().map((line, i) => {
      const column = this.plot.data[1 + i * step];
      let near = index;
      while (near >= 0 && (column[near] === null || column[near] === undefined)) near -= 1;
      return `${line.label} ${near < 0 ? "–" : written(column[near])}`;
    });
  }

  close() { this.plot?.destroy(); }
}

class CurvesView {
  constructor(model, el) {
    this.model = model;
    this.root = make("div", { class: "lmvp in-notebook lmvp-plot lmvp-curves" });
    el.replaceChildren(this.root);
    const data = model.get("data");
    this.sync = `lmvp-${Math.random().toString(36).slice(2)}`;
    this.axis = data.axis;
    this.log = data.log;
    this.smooth = data.smooth;
    this.range = null;
    this.off = new Set();
    this.lit = null;
    this.read = null;
    this.lines = new Map();
    this.endKeys = guardKeys(this.root);
    this.onData = () => this.build();
    this.onNews = (message, buffers) => this.take(message, buffers);
    model.on("change:data", this.onData);
    model.on("msg:custom", this.onNews);
    this.endTheme = onTheme(() => this.charts.forEach((chart) => chart.plot?.redraw(false, true)));
    this.resized = new ResizeObserver(() => requestAnimationFrame(() => this.fit()));
    this.charts = [];
    this.build();
    this.resized.observe(this.root);
    this.model.send?.({ kind: "hello" });
  }

  close() {
    this.model.off("change:data", this.onData);
    this.model.off("msg:custom", this.onNews);
    this.endKeys();
    this.endTheme();
    this.resized.disconnect();
    this.charts.forEach((chart) => chart.close());
  }

  width() { return this.root.clientWidth; }

  /** Put everything up anew. */
  build() {
    const data = this.data = structuredClone(this.model.get("data"));
    this.charts.forEach((chart) => chart.close());
    this.titleLine = make("div", { class: "title" });
    this.readout = make("output", { class: "readout", "aria-live": "polite" });
    this.grid = make("div", { class: "grid2" });
    this.table = make("details", { class: "small", ontoggle: () => this.fill() }, make("summary", {}, "the numbers as a table"));
    this.rest = make("button", { class: "btn bare", type: "button", onclick: () => { this.every = true; this.draw(); } });
    this.empty = make("p", { class: "quiet lmvp-none" });
    this.saver = savers(() => data.title, () => this.charts.filter((chart) => chart.plot && !chart.root.hidden).map((chart) => ({ title: chart.name, plot: chart.plot })), () => this.numbers());
    this.root.replaceChildren(this.titleLine, this.empty, this.grid, make("div", { class: "below" }, this.rest), this.readout, make("div", { class: "lmvp-under" }, this.table, this.saver));
    this.paint = new Paint(this.root);
    this.charts = data.groups.map((group) => new Chart(this, group));
    this.lines = new Map(data.groups.flatMap((group) => group.lines).map((line) => [line.id, line]));
    this.grid.replaceChildren(...this.charts.map((chart) => chart.root));
    this.tellTitle();
    this.draw();
  }

  draw() {
    this.empty.textContent = this.charts.length ? "" : this.data.empty;
    this.empty.hidden = Boolean(this.charts.length);
    this.charts.forEach((chart, i) => { chart.root.hidden = i >= CHARTS && !this.every; });
    this.charts.forEach((chart) => { if (!chart.root.hidden) chart.draw(); });
    const more = this.charts.length - CHARTS;
    this.rest.hidden = this.every || more <= 0;
    this.rest.textContent = `show all ${this.charts.length} charts`;
    this.table.hidden = !this.charts.length;
    this.saver.hidden = !this.charts.length;
    this.fill();
    this.told = undefined;
    const { read } = this;
    if (read && this.charts.includes(read.chart)) read.chart.plot?.setCursor({ left: read.chart.plot.valToPos(read.x, "x"), top: 10 });
    else this.readout.textContent = this.hint();
  }

  /** What is drawn, as rows. */
  numbers() {
    const rows = [...this.lines.values()].flatMap((line) => line.steps.map((step, i) => [line.label, line.key, step, line.times[i], number(line.values[i])]));
    return [["line", "metric", "step", "seconds", "value"], rows];
  }

  /** The numbers behind the picture, made when they are looked at. */
  fill() {
    if (!this.table.open) return;
    const head = make("tr", {}, ...["Metric", "First", "Last", "Least", "Greatest", "Points"].map((label, i) => make("th", { scope: "col", class: i ? "num" : "" }, label)));
    const rows = [...this.lines.values()].map((line) => {
      const finite = line.values.map(number).filter(Number.isFinite);
      const ends = finite.length ? [number(line.values[0]), number(line.values.at(-1)), finite.reduce((a, b) => Math.min(a, b)), finite.reduce((a, b) => Math.max(a, b))] : [];
      const cells = [0, 1, 2, 3].map((i) => make("td", { class: "num" }, i < ends.length ? written(ends[i]) : ""));
      return make("tr", {}, make("th", { scope: "row" }, line.label), ...cells, make("td", { class: "num" }, line.count.toLocaleString("en")));
    });
    this.table.querySelector(".scroll")?.remove();
    this.table.append(make("div", { class: "scroll" }, make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows))));
  }

  hint() {
    if (!this.charts.length) return "";
    const more = this.data.hidden ? ` · ${this.data.hidden} metrics more` : "";
    return `${this.range ? "" : "drag to zoom, "}hover for values${more}`;
  }

  tellTitle() {
    const { data } = this;
    const parts = [make("h3", { class: "mono" }, data.title)];
    if (data.status) parts.push(make("span", { class: `status ${data.status}` }, data.status));
    parts.push(make("span", { class: "quiet small lmvp-fact" }, data.fact));
    const acts = make("span", { class: "end acts" },
      this.range ? this.button("reset zoom", "show all again: double click or Esc", () => this.zoom(null)) : null,
      this.button(`x: ${this.axis}`, "change the axis", () => this.turn()),
      this.button("log axis", "logarithmic values", () => { this.log = !this.log; this.restart(); }, this.log),
      this.button(this.smooth > 1 ? `smooth ${this.smooth}` : "smooth", "smooth the lines", () => { this.smooth = SMOOTH[(SMOOTH.indexOf(this.smooth) + 1) % SMOOTH.length]; this.restart(); }, this.smooth > 1));
    this.titleLine.replaceChildren(...parts, ...(data.groups.length ? [acts] : []));
  }

  button(words, title, act, pressed) {
    return make("button", { class: "btn bare", type: "button", title, "aria-pressed": pressed === undefined ? null : String(pressed), onclick: act }, words);
  }

  /** The next axis: step, time, and the metric that the lines were joined with, as epochs. */
  turn() {
    const axes = ["step", "time", ...(this.data.joined ? [this.data.joined] : [])];
    this.axis = axes[(axes.indexOf(this.axis) + 1) % axes.length];
    this.range = null;
    this.restart();
  }

  restart() { this.tellTitle(); this.draw(); }

  toggle(id) {
    if (!this.off.delete(id)) this.off.add(id);
    this.draw();
  }

  light(id) {
    this.lit = id;
    this.charts.forEach((chart) => chart.plot?.redraw(false, true));
  }

  zoom(range) {
    for (const line of this.lines.values()) { Object.assign(line, line.wide); delete line.wide; } // until the finer ones come
    this.range = range;
    this.read = null;
    this.restart();
    if (this.axis === "step") this.model.send?.({ kind: "zoom", from: range?.[0] ?? null, to: range?.[1] ?? null });
  }

  fit() {
    const width = this.width();
    if (!width || width === this.fitted) return; // out of sight, as while JupyterLab changes its theme
    this.fitted = width;
    this.charts.forEach((chart) => { if (!chart.root.hidden) chart.draw(); });
  }

  /** Say what stands under the cursor, in all charts. */
  tell(chart, plot) {
    const at = plot.cursor.idx;
    if (at === this.told) return;
    this.told = at;
    if (at === null || at === undefined) {
      this.read = null;
      this.readout.textContent = this.hint();
      return;
    }
    const x = plot.data[0][at];
    this.read = { chart, x };
    const place = this.axis === "time" ? clock(x) : `${this.axis} ${x.toLocaleString("en")}`;
    const shown = this.charts.filter((each) => each.plot && !each.root.hidden).slice(0, READ);
    this.readout.textContent = `${place}: ${shown.flatMap((each) => each.at(x)).slice(0, 2 * READ).join(", ")}`;
  }

  /** Take what the kernel sends while a run goes on: whole lines, their columns as bytes. */
  take(message, buffers) {
    if (message.kind !== "news" && message.kind !== "finer") return;
    if (message.kind === "finer" && JSON.stringify(message.range) !== JSON.stringify(this.range)) return;
    if (message.head) Object.assign(this.data, message.head);
    message.lines.forEach((line, i) => this.put(line, buffers[i], message.kind));
    this.tellTitle();
    this.draw();
  }

  put(line, buffer, kind) {
    const view = buffer instanceof DataView ? buffer : new DataView(buffer.buffer ?? buffer);
    const bytes = view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength);
    const numbers = new Float64Array(bytes);
    const n = numbers.length / 4;
    const [steps, times, values, axis] = [0, 1, 2, 3].map((i) => [...numbers.subarray(i * n, (i + 1) * n)]);
    const columns = { steps, times, values, axis: Number.isNaN(axis[0]) ? [] : axis };
    const known = this.lines.get(line.id);
    if (known) {
      if (kind === "finer") known.wide ??= { steps: known.steps, times: known.times, values: known.values, axis: known.axis };
      Object.assign(known, columns, { count: line.count });
      return;
    }
    const fresh = { ...line, ...columns };
    this.lines.set(line.id, fresh);
    this.place(fresh, line.group);
  }

  /** Find the chart of a new line, or make one. */
  place(line, group) {
    let chart = this.charts.find((each) => each.name === group) ?? this.charts.find((each) => each.lines.length === 1 && each.lines[0].key.split("/").at(-1) === group);
    if (!chart) {
      chart = new Chart(this, { name: group, lines: [] });
      this.charts.push(chart);
      this.grid.append(chart.root);
      this.data.groups.push({ name: group, lines: chart.lines });
    }
    chart.name = group;
    chart.heading.textContent = group;
    chart.lines.push(line);
  }
}

export default view(CurvesView);
