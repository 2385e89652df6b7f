// The race: how long networks with and without batch normalization take to a goal, at a learning rate of each arm's own.
// The chapter has trained all of them; here one chooses, and sees the risk of both, the steps at every rate, the speed-up.
"use strict";

Interactive.kinds.race = (place, data) => new Interactive.Race(place, data);

// The median of a list; null stands for a network that never arrived, later than all others.
Interactive.median = (values) => {
  const sorted = values.map((value) => value ?? Infinity).sort((a, b) => a - b);
  const half = (sorted.length - 1) / 2;
  return (sorted[Math.floor(half)] + sorted[Math.ceil(half)]) / 2;
};

Interactive.Race = class {
  constructor(place, data) {
    Object.assign(this, { place, data, arms: ["plain", "BN"] });
    this.buildControls(place.controls);
    this.buildPanels(place.panels);
    place.root.state = () => ({
      case: this.select.value,
      goal: this.goals[this.goal.value],
      rates: this.arms.map((arm) => this.chosen(arm).rate),
      medians: this.arms.map((arm) => this.steps(this.chosen(arm))),
      ratio: this.speedUp().ratio,
    });
    this.change();
  }

  buildControls(parent) {
    const { select, slider, button } = Interactive;
    this.select = select(parent, "Data and activation", Object.keys(this.data.cases).map((name) => [name, name]), () => this.change());
    this.goal = select(parent, "Goal, of the constant's risk", [], () => this.show());
    const range = { min: 0, max: 0, step: 1, value: 0 };
    const say = (arm) => (k) => `${this.runs?.[arm][k]?.rate ?? ""}`;
    const rate = (arm, label) => slider(parent, label, range, say(arm), () => this.show());
    this.rates = { plain: rate("plain", "Rate, plain:"), BN: rate("BN", "Rate, normalized:") };
    const row = Interactive.element("div", { class: "interactive-buttons" });
    parent.append(row);
    button(row, "One small rate for both", () => this.setRates((arm) => this.small(arm)));
    button(row, "Each at its best rate", () => this.setRates((arm) => this.best(arm)));
  }

  buildPanels(parent) {
    const { plot, line, dots, ticks, colour } = Interactive;
    const [steps, rates] = [ticks([1, 10, 100, 1000]), ticks([1e-3, 1e-2, 0.1, 1])];
    const dashed = { shallow: {}, deep: { dash: [6, 4] } };
    const band = (name) => [line(name, dashed[name]), line(name, { width: 0 }), line(name, { width: 0 })];
    this.curves = plot(parent, {
      title: "Risk over that of the constant: plain (blue), normalized (orange, dashed); the thin line is the goal",
      say: "The risk of both arms against the step, and the goal",
      axes: ["step", "risk"],
      scales: { x: { time: false, distr: 3 }, y: { distr: 3, range: [0.01, 3] } },
      series: [...band("shallow"), ...band("deep"), line("text", { width: 1 })],
      bands: [[2, 3, "shallow-faint"], [5, 6, "deep-faint"]].map(([low, high, name]) => ({
        series: [high, low],
        fill: colour(name),
      })),
      ticks: { x: steps, y: ticks([0.01, 0.1, 1]) },
      height: 280,
    });
    this.map = plot(parent, {
      title: "Steps to the goal against the learning rate; large dots: the chosen rates",
      say: "The median steps to the goal of both arms against the learning rate",
      axes: ["learning rate", "steps"],
      scales: { x: { time: false, distr: 3, range: [5e-4, 1.5] }, y: { distr: 3, range: [1, 4000] } },
      series: ["shallow", "deep"].flatMap((name) => [
        line(name, { ...dashed[name], points: { show: true, size: 5, fill: colour(name) } }),
        dots(name, 12),
      ]),
      ticks: { x: rates, y: steps },
      height: 280,
    });
  }

  // ---- Choices ----

  get runs() {
    return this.data.cases[this.select.value]?.runs;
  }

  get goals() {
    return this.data.cases[this.select.value].goals;
  }

  chosen(arm) {
    return this.runs[arm][this.rates[arm].valueAsNumber];
  }

  // Another case has other goals and rates; it begins at its tightest goal and the small rate.
  change() {
    Interactive.fill(this.goal, this.goals.map((goal, k) => [`${k}`, `${goal}`]));
    this.goal.value = `${this.goals.length - 1}`;
    for (const arm of this.arms) this.rates[arm].max = `${this.runs[arm].length - 1}`;
    this.setRates((arm) => this.small(arm));
  }

  setRates(of) {
    for (const arm of this.arms) {
      this.rates[arm].value = `${of(arm)}`;
      this.rates[arm].refresh();
    }
    this.show();
  }

  // The rate of the chapter's race, the same for both arms.
  small(arm) {
    return this.runs[arm].findIndex((run) => run.rate === this.data.cases[this.select.value].rate);
  }

  best(arm) {
    const medians = this.runs[arm].map((run) => this.steps(run));
    return medians.indexOf(Math.min(...medians));
  }

  // ---- Numbers ----

  reached(run) {
    return run.reached[this.goal.value];
  }

  steps(run) {
    return Interactive.median(this.reached(run));
  }

  // Steps without over steps with normalization, median over seeds, as in the chapter: who never arrives counts as last.
  speedUp() {
    const [plain, normal] = this.arms.map((arm) => this.chosen(arm));
    const last = (run) => run.steps.at(-1);
    const pairs = this.reached(plain).map((steps, k) => (steps ?? last(plain)) / (this.reached(normal)[k] ?? last(normal)));
    const [late, later] = [plain, normal].map((run) => this.reached(run).includes(null));
    return { ratio: Interactive.median(pairs), sign: late && later ? "about " : late ? "at least " : later ? "at most " : "" };
  }

  // ---- What is shown ----

  show() {
    this.showCurves();
    this.showMap();
    this.place.status.textContent = this.say();
  }

  showCurves() {
    const goal = this.goals[this.goal.value];
    const runs = this.arms.map((arm) => this.chosen(arm));
    const x = [...new Set(runs.flatMap((run) => run.steps))].sort((a, b) => a - b);
    this.curves.draw(Interactive.together(...runs.map(({ steps, middle, low, high }) => [steps, middle, low, high]),
      [x, x.map(() => goal)]));
  }

  showMap() {
    const of = (arm) => {
      const steps = this.runs[arm].map((run) => this.steps(run)).map((value) => (Number.isFinite(value) ? value : null));
      const rates = this.runs[arm].map((run) => run.rate);
      return [rates, steps, steps.map((value, k) => (k === this.rates[arm].valueAsNumber ? value : null))];
    };
    this.map.draw(Interactive.together(...this.arms.map(of)));
  }

  say() {
    const { number } = Interactive;
    const [plain, normal] = this.arms.map((arm) => this.chosen(arm));
    const { ratio, sign } = this.speedUp();
    const count = (run) => (Number.isFinite(this.steps(run)) ? `${number(this.steps(run), 4)} steps` : "more steps than were taken");
    const faster = ratio > 1 ? "Normalization is faster" : ratio < 1 ? "Normalization is slower" : "Both are equally fast";
    return (
      `To ${this.goals[this.goal.value]} of the constant's risk: plain networks take ${count(plain)} at rate ${plain.rate}, ` +
      `normalized ones ${count(normal)} at rate ${normal.rate} (medians). ${faster}: the ratio of steps, plain over ` +
      `normalized, is ${sign}${number(ratio)} (median of ${this.reached(plain).length} pairs).`
    );
  }
};
