// Ends and ticks of axes: the twin of lmvp.render.numbers, so that the live and the static form have the same range.

const LIMIT = 1e300;
const TINY = 1e-11;

const tidy = (value) => +value.toPrecision(12);

/** The nearest of 1, 2, 5 × 10ⁿ that is no smaller. */
function nice(step) {
  const power = 10 ** Math.floor(Math.log10(step));
  return power * [1, 2, 5, 10].find((digit) => power * digit >= step * (1 - 1e-9));
}

/** The ends of an axis that shows every value from `least` to `most`, rounded outwards. */
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

/** The ends of a logarithmic axis: one digit, times a power of ten. */
export function logBounds(least, most) {
  if (least === null || least === undefined) return [1, 10];
  const [small, large] = [least, most].map((value) => Math.min(Math.max(value, 1 / LIMIT), LIMIT));
  const [below, above] = [small, large].map((value) => 10 ** Math.floor(Math.log10(value)));
  const [low, high] = [Math.floor(small / below + 1e-9) * below, Math.ceil(large / above - 1e-9) * above];
  return low < high ? [tidy(low), tidy(high)] : [tidy(low / 10), tidy(high * 10)];
}

/** The ticks of a logarithmic axis: powers of ten, with 2 and 5 of each where there are few. */
export function logTicks(low, high) {
  const [first, last] = [Math.floor(Math.log10(low) + 1e-9), Math.ceil(Math.log10(high) - 1e-9)];
  const digits = last - first < 3 ? [1, 2, 5] : [1];
  const found = [];
  for (let power = first; power <= last; power += Math.max(1, Math.floor((last - first) / 6))) {
    found.push(...digits.map((digit) => tidy(digit * 10 ** power)));
  }
  return found.filter((tick) => tick >= low * (1 - 1e-9) && tick <= high * (1 + 1e-9));
}
