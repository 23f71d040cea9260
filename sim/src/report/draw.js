// Numbers, scales, colours and elements: what every picture is made of. Text goes in as text, never as markup.

const $ = (id) => document.getElementById(id);
const SVG = document.querySelector("svg").namespaceURI;

/** An SVG element with attributes and children; strings become text. */
function svg(name, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** An HTML element with a class and children. */
function html(name, className = "", ...children) {
  const element = document.createElement(name);
  if (className) element.className = className;
  element.append(...children);
  return element;
}

const clamp = (x, low, high) => Math.min(high, Math.max(low, x));
const maxOf = (list) => list.reduce((most, x) => Math.max(most, x), 0);

// Numbers.

const whole = new Intl.NumberFormat("en");
const count = (n) => whole.format(n);

function digits(x) {
  return x >= 100 ? x.toFixed(0) : x >= 10 ? x.toFixed(1).replace(/\.0$/, "") : x.toFixed(2).replace(/\.?0+$/, "");
}

/** Microseconds, as [number, unit]. */
function spanParts(us) {
  if (us === 0) return ["0", "ms"];
  if (us < 1000) return [digits(us), "µs"];
  if (us < 999_500) return [digits(us / 1e3), "ms"];
  if (us < 120e6) return [digits(us / 1e6), "s"];
  if (us < 7200e6) return [digits(us / 60e6), "min"];
  if (us < 172800e6) return [digits(us / 3600e6), "h"];
  return [digits(us / 86400e6), "d"];
}
const span = (us) => spanParts(us).join(" ");

function bytesParts(n) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (n >= 999.5 && unit < units.length - 1) { n /= 1000; unit++; }
  return [unit === 0 ? count(Math.round(n)) : digits(n), units[unit]];
}
const bytes = (n) => bytesParts(n).join(" ");
const percent = (part, all) => (all ? `${digits((part / all) * 100)} %` : "–");

// Scales: from a quantity to 0..1 and back.

/** Even. */
function linear(max) {
  return { max, of: (x) => clamp(x / max, 0, 1), back: (y) => y * max };
}

/** Even up to about `knee`, logarithmic beyond: a tenth of a second and ten minutes in one picture. */
function bent(knee, max) {
  const all = Math.log1p(max / knee);
  return { max, of: (x) => clamp(Math.log1p(x / knee) / all, 0, 1), back: (y) => knee * Math.expm1(y * all) };
}

/** For lags: even as long as they are of the order of the bound. */
function lagScale(max, bound) {
  return bound > 0 && max > 8 * bound ? bent(bound, max) : linear(max || 1);
}

/** Round durations: the ones to count in, and the ones to name where the scale is bent. */
const STEPS_US = [
  ...[1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500].map((n) => n * 1e3),
  ...[1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800].map((n) => n * 1e6),
  ...[1, 2, 3, 6, 12, 24, 48, 120, 240, 720].map((n) => n * 3600e6),
];
const NAMED_US = STEPS_US.filter((us) => ![25e3, 250e3, 15e6, 900e6].includes(us));

/** Round values along a scale of durations with their labels, at least `gap` (of 1) apart. */
function spanTicks(scale, gap) {
  if (scale.max - scale.back(0.5) < scale.max * 0.6) {
    const step = STEPS_US.find((x) => x / scale.max >= gap) ?? scale.max;
    const [size, unit] = [[1e3, "ms"], [1e6, "s"], [60e6, "min"], [3600e6, "h"], [86400e6, "d"]].findLast(([size]) => step >= size && scale.max >= 2 * size) ?? [1, "µs"];
    return Array.from({ length: Math.floor(scale.max / step + 1e-9) + 1 }, (_, i) => [i * step, `${count((i * step) / size)} ${unit}`]);
  }
  const ticks = [0];
  for (const us of NAMED_US) {
    if (us <= scale.max && scale.of(us) - scale.of(ticks[ticks.length - 1]) >= gap) ticks.push(us);
  }
  return ticks.map((us) => [us, span(us)]);
}

/** Round values from 0 to `max`, about `many`. */
function evenTicks(max, many) {
  const rough = max / many || 1;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((s) => s >= rough * 0.999);
  return Array.from({ length: Math.floor(max / step + 1e-9) + 1 }, (_, i) => i * step);
}

// Colours. Sequential ones follow viridis, which stays in order for every kind of eye and in grey. What is slow stands
// out from the page: dark on light, light on dark.

const VIRIDIS = ["#440154", "#472d7b", "#3b528b", "#2c728e", "#21918c", "#28ae80", "#5ec962", "#addc30", "#fde725"];
const rgb = VIRIDIS.map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
const CLASSES = { records: "var(--blue)", sync: "var(--orange)", blobs: "var(--pink)", control: "var(--green)" };

function isDark() {
  const chosen = document.documentElement.style.colorScheme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

/** Red, green, blue at 0..1, fast to slow. */
function heatParts(y) {
  const x = isDark() ? 0.22 + 0.78 * clamp(y, 0, 1) : 0.92 - 0.92 * clamp(y, 0, 1);
  const at = Math.min(x * (rgb.length - 1), rgb.length - 1.001);
  const [a, b, part] = [rgb[Math.floor(at)], rgb[Math.floor(at) + 1], at % 1];
  return a.map((from, i) => Math.round(from + (b[i] - from) * part));
}
const heat = (y) => `rgb(${heatParts(y).join(" ")})`;

/** Black or white, whichever is legible on that colour. */
function inkOn([r, g, b]) {
  return r * 0.3 + g * 0.59 + b * 0.11 > 140 ? "#111" : "#fff";
}

/** A legend for `heat` over a scale. */
function ramp(scale, title) {
  const bar = html("div");
  bar.style.background = `linear-gradient(to right, ${Array.from({ length: 17 }, (_, i) => heat(i / 16)).join(", ")})`;
  const labels = html("p");
  for (const [us, text] of spanTicks(scale, 0.2)) {
    const label = html("span", "", text);
    label.style.left = `${scale.of(us) * 100}%`;
    label.style.transform = `translateX(${-clamp(scale.of(us) * 1.3 - 0.15, 0, 1) * 100}%)`;
    labels.append(label);
  }
  return [html("span", "", title), html("div", "ramp", bar, labels)];
}

/** A legend's entry: `kind` is "", "stroke", "stroke dashed", "ring"… */
function key(label, colour, kind = "") {
  const mark = html("i", kind);
  mark.style.background = colour;
  mark.style.borderColor = colour;
  return html("span", "", mark, label);
}

// Charts.

let onPaper = false;
/** Pixels that a picture may be wide. */
const widthOf = (id) => (onPaper ? 720 : Math.max(300, $(id).clientWidth));

/** A chart with axes. `x` and `y` are scales; ticks are [value, label]; returns the SVG and functions into it. */
function chart({ width, height, left = 64, right = 18, top = 22, bottom = 42, x, y, xTicks, yTicks, xName, yName }) {
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  const [w, h] = [width - left - right, height - top - bottom];
  const px = (value) => left + x.of(value) * w;
  const py = (value) => top + h - y.of(value) * h;
  for (const [value, label] of yTicks) {
    root.append(svg("line", { class: "grid", x1: left, x2: left + w, y1: py(value), y2: py(value) }));
    root.append(svg("text", { x: left - 8, y: py(value) + 4, "text-anchor": "end" }, label));
  }
  root.append(svg("line", { class: "axis", x1: left, x2: left + w, y1: top + h, y2: top + h }));
  for (const [value, label] of xTicks) {
    root.append(svg("line", { class: "axis", x1: px(value), x2: px(value), y1: top + h, y2: top + h + 5 }));
    root.append(svg("text", { x: px(value), y: top + h + 19, "text-anchor": "middle" }, label));
  }
  root.append(svg("text", { class: "name", x: left + w, y: top + h + 37, "text-anchor": "end" }, xName));
  root.append(svg("text", { class: "name", x: left - 8, y: top - 10, "text-anchor": "start", dx: -left + 8 }, yName));
  return { root, px, py, left, right: left + w, top, bottom: top + h, w, h };
}

/** A path through points, `null` breaks it. */
function through(points) {
  let pen = "M";
  return points.map((point) => {
    if (!point) { pen = "M"; return ""; }
    const step = `${pen}${point[0].toFixed(1)} ${point[1].toFixed(1)}`;
    pen = "L";
    return step;
  }).join("");
}

/** Shows what `say(event)` returns while the pointer is over the element; nothing for null. */
function tip(element, say) {
  element.addEventListener("pointermove", (event) => {
    const text = say(event);
    $("tip").hidden = !text;
    if (!text) return;
    $("tip").textContent = text;
    const box = $("tip").getBoundingClientRect();
    const [x, y] = [event.clientX + 14, event.clientY + 16];
    $("tip").style.left = `${Math.max(4, x + box.width > innerWidth - 8 ? event.clientX - box.width - 12 : x)}px`;
    $("tip").style.top = `${y + box.height > innerHeight - 8 ? event.clientY - box.height - 12 : y}px`;
  });
  element.addEventListener("pointerleave", () => { $("tip").hidden = true; });
}

/** Where in the user units of an SVG the pointer is. */
function pointer(root, event) {
  const box = root.getBoundingClientRect();
  const view = root.viewBox.baseVal;
  return [view.x + ((event.clientX - box.left) / box.width) * view.width, view.y + ((event.clientY - box.top) / box.height) * view.height];
}

/** A table; cells are strings or elements, `head` names columns, a leading "=" makes text align left. */
function table(head, rows) {
  const body = html("tbody");
  const left = head.map((name) => name.startsWith("="));
  for (const row of rows) {
    body.append(html("tr", row.lead ? "lead" : "", ...row.map((cell, i) => html("td", left[i] ? "text" : "", cell))));
  }
  const names = html("tr", "", ...head.map((name, i) => html("th", left[i] ? "text" : "", name.replace(/^=/, ""))));
  return html("table", "", html("thead", "", names), body);
}
