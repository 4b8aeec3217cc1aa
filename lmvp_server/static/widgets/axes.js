// Bounds and ticks of axes. lmvp.core.number_format has the same rules in Python, so that the live and the static chart
// have equal ranges.

const LIMIT = 1e300;
const TINY = 1e-11;

const tidy = (value) => +value.toPrecision(12);

/** The smallest 1, 2 or 5 × 10ⁿ that is not less than a value. */
function nice(step) {
  const power = 10 ** Math.floor(Math.log10(step));
  return power * [1, 2, 5, 10].find((digit) => power * digit >= step * (1 - 1e-9));
}

/** The bounds of an axis from `least` to `most`, rounded outwards. */
export function bounds(least, most) {
  if (least === null || least === undefined) return [0, 1];
  const [low, high] = [least, most].map((value) => Math.min(Math.max(value, -LIMIT), LIMIT));
  if (high - low <= TINY * Math.max(Math.abs(low), Math.abs(high), TINY)) {
    const room = Math.abs(low) > TINY ? Math.abs(low) / 10 : 0.5;
    return [tidy(low - room), tidy(high + room)];
  }
  const step = nice((high - low) / 4);
  return [tidy(Math.floor(low / step + 1e-9) * step), tidy(Math.ceil(high / step - 1e-9) * step)];
}

/** The bounds of a logarithmic axis: one digit times a power of ten. */
export function logBounds(least, most) {
  if (least === null || least === undefined) return [1, 10];
  const [small, large] = [least, most].map((value) => Math.min(Math.max(value, 1 / LIMIT), LIMIT));
  const [below, above] = [small, large].map((value) => 10 ** Math.floor(Math.log10(value)));
  const [low, high] = [Math.floor(small / below + 1e-9) * below, Math.ceil(large / above - 1e-9) * above];
  return low < high ? [tidy(low), tidy(high)] : [tidy(low / 10), tidy(high * 10)];
}

/** The ticks of a logarithmic axis: powers of ten, with 2 and 5 if they are few; else those of a linear axis. */
export function logTicks(low, high) {
  const [first, last] = [Math.floor(Math.log10(low) + 1e-9), Math.ceil(Math.log10(high) - 1e-9)];
  const digits = last - first < 3 ? [1, 2, 5] : [1];
  const found = [];
  for (let power = first; power <= last; power += Math.max(1, Math.floor((last - first) / 6))) {
    found.push(...digits.map((digit) => tidy(digit * 10 ** power)));
  }
  const inside = found.filter((tick) => tick >= low * (1 - 1e-9) && tick <= high * (1 + 1e-9));
  return inside.length > 2 ? inside : ticks(low, high).filter((tick) => tick > 0);
}

/** Round values between the bounds of an axis. */
function ticks(low, high) {
  const step = nice((high - low) / 6);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => tidy((first + i) * step));
}

/** The smallest number of decimals that shows all these numbers exactly, at most `most`. */
const decimals = (values, most) => {
  let digits = 0;
  while (digits < most && values.some((value) => tidy(+value.toFixed(digits)) !== value)) digits += 1;
  return digits;
};

const EXACT = 11;
const minus = (text) => text.replaceAll("-", "−");
const fixed = (value, digits) => minus(value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits }));

/** Ticks with the decimals of the finest of them, so that no two labels are equal. */
export function labels(given) {
  const values = given.map((value) => tidy(value) + 0); // adding 0 turns −0 into 0
  const most = Math.max(0, ...values.map(Math.abs));
  const digits = decimals(values, EXACT);
  if (digits < EXACT && (most === 0 || (most >= 1e-4 && most < 1e9))) return values.map((value) => fixed(value, digits));
  let mantissa = 0;
  while (mantissa < 16 && values.some((value) => +value.toExponential(mantissa) !== value)) mantissa += 1;
  return values.map((value) => (value ? minus(value.toExponential(mantissa)).replace(/([+−])(\d)$/, "$10$2") : "0"));
}

/** Ticks of steps: with k, M or G if that is exact for all of them. */
export function stepLabels(values) {
  if (values.some((value) => !Number.isInteger(value))) return labels(values);
  const unit = (value) => [[1e9, "G"], [1e6, "M"], [1e3, "k"]].find(([limit]) => Math.abs(value) >= limit) ?? [1, ""];
  const short = values.map((value) => { const [limit, letter] = unit(value); return minus(`${+(value / limit).toFixed(2)}${letter}`); });
  const exact = values.every((value) => { const [limit] = unit(value); return +(value / limit).toFixed(2) * limit === value; });
  return exact ? short : values.map((value) => fixed(value, 0));
}

/** Distances between the ticks of a time axis, in seconds. */
export const TIMES = [...[1e-3, 1e-2, 1e-1].flatMap((power) => [1, 2, 5].map((digit) => digit * power)),
  1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, ...[1, 2, 5, 10, 20, 50, 100, 1000].map((days) => 86400 * days)];

/** Ticks of a time axis, exact, in days, hours, minutes and seconds. */
export function timeLabels(values) {
  const digits = decimals(values.map(tidy), 6);
  return values.map((value) => {
    let left = +Math.abs(value).toFixed(digits);
    const parts = [];
    for (const [length, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
      const count = Math.floor(left / length);
      if (!count) continue;
      parts.push(`${count.toLocaleString("en")} ${unit}`);
      left -= count * length;
    }
    if (left || !parts.length) parts.push(`${left.toFixed(digits)} s`);
    return (value < 0 ? "−" : "") + parts.join(" ");
  });
}

function byteLabels(values, suffix) {
  const most = Math.max(0, ...values.map(Math.abs));
  const [limit, unit] = [[1e12, "TB"], [1e9, "GB"], [1e6, "MB"], [1e3, "kB"]].find(([least]) => most >= least) ?? [1, "B"];
  const words = labels(values.map((value) => value / limit));
  return values.map((value, i) => (value ? `${words[i]} ${unit}${suffix}` : "0"));
}

/** Ticks of a metric: in bytes if its name contains the unit. */
export function metricLabels(key, values) {
  if (key.endsWith("bytes_per_second")) return byteLabels(values, "/s");
  return key.endsWith("bytes") ? byteLabels(values, "") : labels(values);
}
