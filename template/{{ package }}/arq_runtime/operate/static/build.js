// How things are made. Text from Redis is only ever put in as text.

import { clockSkew } from "./server.js";

export const byId = (id) => document.getElementById(id);

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

// Replaces the content only when it is another one, and keeps the focus. What has come
// under the pointer cannot be pressed for a moment: one meant what was there before.
const SETTLE_MS = 400;
const shown = new WeakMap();

export function fill(parent, made) {
  const content = made.map((child) => child.outerHTML).join("");
  if (shown.get(parent) === content) return;
  const isFirst = !shown.has(parent);
  shown.set(parent, content);
  const key = parent.contains(document.activeElement) && document.activeElement.dataset.key;
  parent.replaceChildren(...made);
  const keyed = key ? [...parent.querySelectorAll("[data-key]")] : [];
  keyed.find((child) => child.dataset.key === key)?.focus();
  if (!isFirst) settle(parent);
}

export const forget = (parent) => shown.delete(parent);

// What appears above the list moves it.
export function setHidden(id, isHidden) {
  if (byId(id).hidden === isHidden) return;
  byId(id).hidden = isHidden;
  settle(byId("jobs"));
}

function settle(parent) {
  const buttons = [...parent.querySelectorAll("button")];
  for (const one of buttons) one.setAttribute("aria-disabled", "true");
  setTimeout(() => {
    for (const one of buttons) if (!one.dataset.done) one.removeAttribute("aria-disabled");
  }, SETTLE_MS);
}

export function button(text, key, onclick) {
  const made = element("button", { type: "button", textContent: text });
  made.onclick = () => {
    if (made.getAttribute("aria-disabled") !== "true") onclick(made);
  };
  made.dataset.key = key;
  return made;
}

// Text from Redis, in whichever direction it is written.
export const words = (text, className = "") =>
  element("span", { textContent: text, className, dir: "auto" });

export const count = (number, what = "job") =>
  `${number.toLocaleString()} ${what}${number === 1 ? "" : "s"}`;

// --- Times -----------------------------------------------------------------------

const ABSOLUTE = new Intl.DateTimeFormat(undefined, {
  day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit",
  timeZoneName: "short",
});

// How long ago, and when. The first is up to tick(), so that passing time is not another
// content. A next time that has passed is now: it waits for a worker.
export function time(at, isNext = false) {
  if (at === null || at === undefined) return "";
  const made = element("time", { dateTime: new Date(at).toISOString() });
  if (isNext) made.dataset.next = "";
  return element("span", { className: "when" }, made,
    element("span", { className: "at", textContent: ABSOLUTE.format(at) }));
}

export function span(seconds) {
  const units = [[86400, "d"], [3600, "h"], [60, "min"]];
  const [size, unit] = units.find(([size]) => seconds >= size) ?? [1, "s"];
  return `${Math.round(seconds / size)} ${unit}`;
}

export function tick() {
  const now = Date.now() - clockSkew;
  for (const one of document.querySelectorAll("time")) {
    const seconds = (now - Date.parse(one.dateTime)) / 1000;
    const past = "next" in one.dataset ? "now" : `${span(seconds)} ago`;
    const text = seconds >= 0 ? past : `in ${span(-seconds)}`;
    if (one.textContent !== text) one.textContent = text;
  }
  for (const one of document.querySelectorAll("[data-since]")) {
    const text = span(Math.max(0, (now - Number(one.dataset.since)) / 1000));
    if (one.textContent !== text) one.textContent = text;
  }
}

export function since(at) {
  const made = element("span");
  made.dataset.since = at;
  return made;
}

export function progress(job) {
  if (!job.progress) return [];
  const { percent, message } = job.progress;
  const bar = element("progress", { max: 100, value: percent });
  bar.setAttribute("aria-label", "Progress");
  return [bar, words(` ${Math.round(percent)} % ${message}`, "quiet")];
}
