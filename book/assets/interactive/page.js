// What the interactive figures share: they find their place in the page, and build controls and plots there.
// A script of each kind registers itself as `Interactive.kinds.NAME = (place, data) => …`; `place` offers what is below.
"use strict";

const Interactive = { kinds: {} };

// ---- Elements ----

Interactive.element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in made && typeof value !== "string") made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
};

// A slider with its label, and the value as a reader would say it. Keys, mouse and touch are the browser's own.
Interactive.slider = (parent, label, { min, max, step, value }, say, onInput) => {
  const { element } = Interactive;
  // Screen readers hear the value from the slider itself.
  const shown = element("b", { "aria-hidden": "true" });
  const input = element("input", { type: "range", min: `${min}`, max: `${max}`, step: `${step}`, value: `${value}` });
  const refresh = () => {
    shown.textContent = say(input.valueAsNumber);
    input.setAttribute("aria-valuetext", shown.textContent);
  };
  input.addEventListener("input", () => {
    refresh();
    onInput();
  });
  refresh();
  parent.append(element("label", { class: "interactive-slider" }, element("span", {}, label, " ", shown), input));
  return Object.assign(input, { refresh });
};

Interactive.select = (parent, label, options, onInput) => {
  const { element } = Interactive;
  const input = element("select");
  Interactive.fill(input, options);
  input.addEventListener("input", onInput);
  parent.append(element("label", {}, element("span", {}, label), input));
  return input;
};

// Options are [value, text]; the choice stays where it is still offered.
Interactive.fill = (select, options) => {
  const chosen = select.value;
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  if (options.some(([value]) => `${value}` === chosen)) select.value = chosen;
};

Interactive.checkbox = (parent, label, onInput) => {
  const input = Interactive.element("input", { type: "checkbox" });
  input.addEventListener("input", onInput);
  parent.append(Interactive.element("label", { class: "interactive-checkbox" }, input, label));
  return input;
};

Interactive.button = (parent, label, onClick) => {
  const made = Interactive.element("button", { type: "button" }, label);
  made.addEventListener("click", onClick);
  parent.append(made);
  return made;
};

// ---- Plots ----

// Colours are variables of the style sheet, read when something is drawn, so that a plot follows the reader's theme.
Interactive.colour = (name) => () => getComputedStyle(document.documentElement).getPropertyValue(`--interactive-${name}`);

const FONT = "12px system-ui, sans-serif";

// One plot under a heading. `series` and `scales` are uPlot's; `axes` holds the two labels; `say` describes it to those
// who do not see it. `draw(data)` shows numbers, the first list being those of the horizontal axis, in increasing order.
Interactive.plot = (parent, { title, say, axes, scales, series, bands = [], ticks = {}, height = 220 }) => {
  const box = Interactive.element("div", { class: "interactive-canvas", role: "img", "aria-label": say });
  const heading = Interactive.element("p", { class: "interactive-title" }, title);
  parent.append(Interactive.element("div", { class: "interactive-panel" }, heading, box));
  const axis = (label, size, more) => ({
    label,
    labelSize: 18,
    labelFont: FONT,
    font: FONT,
    size,
    stroke: Interactive.colour("text"),
    grid: { stroke: Interactive.colour("grid"), width: 1 },
    ticks: { stroke: Interactive.colour("grid"), width: 1 },
    ...more,
  });
  const options = {
    width: 300,
    height,
    legend: { show: false },
    cursor: { drag: { x: false, y: false }, points: { show: false }, x: false, y: false },
    axes: [axis(axes[0], 34, ticks.x), axis(axes[1], 60, ticks.y)],
    scales,
    series: [{}, ...series],
    bands,
  };
  const made = new uPlot(options, [[0], ...series.map(() => [null])], box);
  new ResizeObserver(() => made.setSize({ width: Math.max(200, box.clientWidth), height })).observe(box);
  new MutationObserver(() => made.redraw(false)).observe(document.documentElement, { attributeFilter: ["data-theme"] });
  return { draw: (data) => made.setData(data), plot: made, box, heading };
};

// Tells where on the horizontal axis the pointer is, a mouse that hovers or a finger that moves.
Interactive.pointer = ({ plot }, onPlace) => {
  const tell = (event) => onPlace(plot.posToVal(event.clientX - plot.over.getBoundingClientRect().left, "x"));
  for (const kind of ["pointermove", "pointerdown"]) plot.over.addEventListener(kind, tell);
};

Interactive.line = (colour, more = {}) => ({
  stroke: Interactive.colour(colour),
  width: 2,
  points: { show: false },
  spanGaps: false,
  ...more,
});

Interactive.dots = (colour, size = 6) => ({
  stroke: Interactive.colour(colour),
  paths: () => null,
  points: { show: true, size, width: 1, stroke: Interactive.colour(colour), fill: Interactive.colour(colour) },
});

// Ticks at these places and no others.
Interactive.ticks = (places) => ({
  splits: () => places,
  filter: (_, splits) => splits,
  values: (_, splits) => splits.map((value) => Interactive.number(value)),
});

// Several lists of points (x, y), each of its own x, as one table with a shared x, as uPlot has it.
Interactive.together = (...lists) => uPlot.join(lists.map(([x, ...ys]) => [x, ...ys]));

// ---- Numbers ----

Interactive.number = (value, digits = 3) => {
  if (value === null || !Number.isFinite(value)) return "never";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e-3 && size < 1e5) return `${Number(value.toPrecision(digits))}`.replace("-", "−");
  const [mantissa, exponent] = value.toExponential(digits > 2 ? 1 : 0).split("e");
  const raised = [...`${Number(exponent)}`].map((sign) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(sign)]).join("");
  return `${mantissa.replace("-", "−")}·10${raised}`;
};

// ---- The page ----

Interactive.mount = (root) => {
  const data = JSON.parse(root.querySelector("script").textContent);
  const alternative = root.querySelector(".interactive-alternative");
  alternative.id = `${root.dataset.kind}-alternative`;
  const { element } = Interactive;
  const place = {
    root,
    controls: element("div", { class: "interactive-controls" }),
    panels: element("div", { class: "interactive-panels" }),
    // What the controls have led to, in words: screen readers say it when it has changed.
    status: element("p", { class: "interactive-status", role: "status" }),
  };
  root.append(place.controls, place.status, place.panels);
  root.setAttribute("aria-describedby", alternative.id);
  root.classList.add("interactive-live");
  Interactive.kinds[root.dataset.kind](place, data);
};

document.addEventListener("DOMContentLoaded", () => document.querySelectorAll("div.interactive").forEach(Interactive.mount));
