// Plateaus: risk during training for one choice of target, depth and initial scale, and the function of the first network
// at the step that the slider, or the pointer over the curves, says. All numbers come from the chapter's execution.
"use strict";

Interactive.kinds.plateaus = (place, data) => new Interactive.Plateaus(place, data);

Interactive.Plateaus = class {
  constructor(place, data) {
    Object.assign(this, { place, data });
    this.buildControls(place.controls);
    this.buildPanels(place.panels);
    place.root.state = () => ({ ...this.key(), step: this.run.steps[this.record], risk: this.run.risk[0][this.record] });
    this.choose();
  }

  buildControls(parent) {
    const select = (label) => Interactive.select(parent, label, [], () => this.choose());
    this.selects = { target: select("Target"), depth: select("Hidden layers"), scale: select("Initial scale") };
    const range = { min: 0, max: 0, step: 1, value: 0 };
    this.step = Interactive.slider(parent, "Step:", range, (k) => `${this.run?.steps[k] ?? ""}`, () => this.show());
  }

  key() {
    return Object.fromEntries(Object.entries(this.selects).map(([name, select]) => [name, select.value]));
  }

  get record() {
    return this.step.valueAsNumber;
  }

  buildPanels(parent) {
    const { plot, line, dots, ticks } = Interactive;
    const most = Math.max(...this.data.runs.map((run) => run.risk.length));
    const several = Array.from({ length: most }, (_, k) => line("deep", k ? { width: 1, alpha: 0.35 } : {}));
    this.curves = plot(parent, {
      title: "Risk of all networks (orange, the first one bold), of the width-1 function (blue); dot: this step",
      say: "The risk of all networks against the step, and the risk of the width-1 function",
      axes: ["step", "risk"],
      scales: { x: { time: false, distr: 3 }, y: { distr: 3, range: [8e-3, 5] } },
      series: [...several, line("shallow"), dots("text", 9)],
      ticks: { x: ticks([1, 10, 100, 1000, 10000]), y: ticks([0.01, 0.1, 1]) },
      height: 280,
    });
    this.functions = plot(parent, {
      title: "Function of the first network (orange), width-1 function (blue), data (dots)",
      say: "The function of the first network at this step, the width-1 function and the data",
      axes: ["x", "f(x)"],
      scales: { x: { time: false }, y: { range: [-2.6, 2.6] } },
      series: [line("shallow", { width: 5, alpha: 0.5 }), line("deep"), dots("text", 5)],
      height: 280,
    });
    Interactive.pointer(this.curves, (step) => this.go(step));
  }

  // The record that is nearest to a step, as seen on the logarithmic axis.
  go(step) {
    const away = this.run.steps.map((one) => Math.abs(Math.log(one / step)));
    this.step.value = `${away.indexOf(Math.min(...away))}`;
    this.step.refresh();
    this.show();
  }

  // Another run; the step stays as near as it can. Not every target was trained at every depth.
  choose() {
    const offer = (name, runs) => {
      const values = [...new Set(runs.map((run) => `${run[name]}`))];
      Interactive.fill(this.selects[name], values.map((value) => [value, value]));
      return runs.filter((run) => `${run[name]}` === this.selects[name].value);
    };
    ["target", "depth", "scale"].reduce((runs, name) => offer(name, runs), this.data.runs);
    const key = this.key();
    const step = this.run?.steps[this.record];
    this.run = this.data.runs.find((run) => Object.entries(key).every(([name, value]) => `${run[name]}` === value));
    this.step.max = `${this.run.steps.length - 1}`;
    this.go(step ?? this.run.steps[this.run.encounter] ?? 1);
  }

  show() {
    const { run, record, data } = this;
    const target = data.targets[run.target];
    const { steps, risk } = run;
    const missing = Array.from({ length: this.curves.plot.series.length - 3 - risk.length }, () => steps.map(() => null));
    const line = steps.map(() => target.risk);
    const dot = steps.map((_, k) => (k === record ? risk[0][k] : null));
    this.curves.draw([steps, ...risk, ...missing, line, dot]);
    this.functions.draw([target.x, target.width_one, run.outputs[record], target.y]);
    this.place.status.textContent = this.say(target);
  }

  say(target) {
    const { number } = Interactive;
    const { run, record } = this;
    const layers = run.depth === 1 ? "1 hidden layer" : `${run.depth} hidden layers`;
    const stay = run.encounters ? ` and stay for ${number(run.decades, 2)} decades of steps (median of all)` : "";
    return (
      `${run.target}, ${layers}, initial scale ${run.scale}: ${run.encounters} of ${run.risk.length} networks encounter the ` +
      `width-1 function${stay}. Step ${run.steps[record]}: the first network has risk ${number(run.risk[0][record])}, ` +
      `the width-1 function ${number(target.risk)}.`
    );
  }
};
