// Formats of numbers, times and counts, for values that the browser computes. lmvp.core.number_format has the same rules in
// Python.
import { make } from "./dom.js";

const DAY = 86400;

/** A number from JSON, where values that are not finite are strings. */
export const number = (value) =>
  typeof value === "string" ? { NaN: NaN, Infinity: Infinity, "-Infinity": -Infinity }[value] : value;

export const plural = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

export function when(iso, now) {
  const seconds = Math.max(0, (now - new Date(iso)) / 1000);
  if (seconds < 60) return "just now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < DAY) return `${Math.floor(seconds / 3600)} h ago`;
  if (seconds < 2 * DAY) return "yesterday";
  if (seconds < 14 * DAY) return `${Math.floor(seconds / DAY)} d ago`;
  return iso.slice(0, 10);
}

/** A time relative to now, with the absolute time on hover. */
export function ago(at, now) {
  const absolute = `${at.slice(0, 16).replace("T", " ")} UTC`;
  return make("time", { datetime: at, title: absolute }, when(at, now));
}

/** A number with four significant digits. */
export function written(value) {
  if (value === null || value === undefined) return "–";
  if (!Number.isFinite(value)) return String(value).replace("-", "−");
  const size = Math.abs(value);
  // Very small and very large numbers are shorter with an exponent.
  if (size !== 0 && (size < 1e-4 || size >= 1e7)) return value.toExponential(2).replaceAll("-", "−");
  const digits = size >= 1000 ? { maximumFractionDigits: 0 } : { maximumSignificantDigits: 4 };
  return value.toLocaleString("en", digits).replace("-", "−");
}

/** A number with two significant digits, for the labels of a small chart. */
export const brief = (value) => `${+value.toPrecision(2)}`.replace("-", "−");

/** Seconds as a duration. */
export function clock(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return `${+seconds.toPrecision(3)} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min${whole % 60 ? ` ${whole % 60} s` : ""}`;
  return `${Math.floor(whole / 3600)} h${whole % 3600 >= 60 ? ` ${Math.floor((whole % 3600) / 60)} min` : ""}`;
}
