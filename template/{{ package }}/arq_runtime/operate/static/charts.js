// The history as small charts, drawn as SVG by this script.

import { byId, element, fill } from "./build.js";

const WIDTH = 480;
const HEIGHT = 64;
const SVG = "http://www.w3.org/2000/svg";

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

// A line for each row of values; where there is none, the line has a gap.
function chart(title, rows, text) {
  const most = Math.max(...rows.flatMap(({ values }) => values), 0);
  const svg = shape("svg", {
    viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
    "aria-label": `${title}, at most ${text(most)}`,
  });
  for (const { values, name } of rows) {
    const step = WIDTH / Math.max(1, values.length - 1);
    let path = "";
    let isDown = false;
    values.forEach((value, i) => {
      if (value !== null) {
        const y = HEIGHT - 2 - (most ? (value / most) * (HEIGHT - 6) : 0);
        path += `${isDown ? "L" : "M"}${(i * step).toFixed(1)} ${y.toFixed(1)}`;
        if (!isDown && values[i + 1] === null) path += "h1";
      }
      isDown = value !== null;
    });
    svg.append(shape("path", { d: path, class: name }));
  }
  const legend = rows.map(({ name, said }) => element("span", { className: `key ${name}`, textContent: said }));
  return element("figure", {},
    element("figcaption", {}, element("strong", { textContent: title }), ...legend,
      element("span", { className: "most", textContent: `at most ${text(most)}` })),
    svg);
}

const seconds = (value) =>
  value >= 1 ? `${value.toFixed(1)} s` : `${Math.round(value * 1000)} ms`;

export function showHistory({ spans, minutes }) {
  const values = (name) => spans.map((one) => one[name]);
  const rate = (name) => values(name).map((count) => count / minutes);
  const clock = (at) => new Date(at).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" });
  byId("history-range").textContent = `from ${clock(spans[0].at)} to now`;
  fill(byId("charts"), [
    chart("Jobs a minute", [
      { name: "line", said: "all", values: rate("jobs") },
      { name: "bad", said: "failed", values: rate("failed") },
    ], (value) => value.toFixed(1)),
    chart("Wait", [
      { name: "line", said: "median", values: values("wait_median") },
      { name: "high", said: "95 %", values: values("wait_95") },
    ], seconds),
    chart("Run time", [
      { name: "line", said: "median", values: values("run_median") },
      { name: "high", said: "95 %", values: values("run_95") },
    ], seconds),
  ]);
}
