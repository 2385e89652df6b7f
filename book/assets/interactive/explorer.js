// The lifting explorer: a critical point of f(x) = v tanh(w x + b) + d, and the networks over it with one inserted ReLU
// neuron, f(x) = v tanh(B ReLU(A x + c) + b') + d, where B = w / A and b' = b − B c. The kink lies at x = −c / A, so that
// A and the kink are two coordinates of the lifted set, which has two dimensions. All is computed here, in the page.
"use strict";

Interactive.kinds.explorer = (place, data) => new Interactive.Explorer(place, data);

Interactive.Explorer = class {
  constructor(place, data) {
    Object.assign(this, { place, data, descent: [] });
    this.shallow = new Interactive.Network([1, 1, 1], ["tanh"]);
    this.shallowRisk = this.shallow.risk(data.theta, data);
    this.buildControls(place.controls);
    this.buildPanels(place.panels);
    // What tests, and whoever opens the console, compare with the library.
    place.root.state = () => this.state();
    this.show();
  }

  // ---- Controls ----

  buildControls(parent) {
    const moved = () => this.moved();
    const { slider, button } = Interactive;
    const plain = (value) => Interactive.number(value);
    this.sign = Interactive.select(parent, "Sign of A", [["1", "A > 0"], ["-1", "A < 0"]], () => this.reset());
    this.size = slider(parent, "Size of A:", { min: 0.2, max: 3, step: 0.01, value: 0.5 }, plain, moved);
    this.kink = slider(parent, "Kink at x =", { min: -4.5, max: 4.5, step: 0.01, value: -2.5 }, plain, moved);
    this.spare = Interactive.checkbox(parent, "Add the spare neuron", moved);
    const row = Interactive.element("div", { class: "interactive-buttons" });
    parent.append(row);
    button(row, "Push one sample over the edge", () => this.pushOne());
    button(row, "Back to the lifted set", () => this.reset());
    this.follow = button(row, "Follow the descent", () => this.descend());
    const steps = { min: 0, max: 0, step: 1, value: 0 };
    this.step = slider(parent, "Step of the descent:", steps, (k) => `${this.descent[k]?.step ?? "none yet"}`, () => this.show());
    this.step.disabled = true;
  }

  reset() {
    this.setKink(-2.5 * Number(this.sign.value));
  }

  // Between the first sample that reaches the edge and the second.
  pushOne() {
    const sign = Number(this.sign.value);
    const [first, second] = [...this.data.inputs].sort((x, y) => sign * (x - y));
    this.setKink((first + second) / 2);
  }

  setKink(x) {
    this.kink.value = `${x}`;
    this.kink.refresh();
    this.moved();
  }

  // The point on (or off) the lifted set is another one: a descent from the old one says nothing about it.
  moved() {
    this.run = null;
    this.descent = [];
    Object.assign(this.step, { max: "0", value: "0", disabled: true });
    this.step.refresh();
    this.show();
  }

  // ---- The network ----

  get network() {
    return new Interactive.Network([1, this.spare.checked ? 2 : 1, 1, 1], ["relu", "tanh"]);
  }

  member() {
    const [w, b, v, d] = this.data.theta;
    const A = Number(this.sign.value) * this.size.valueAsNumber;
    const c = -A * this.kink.valueAsNumber;
    const B = w / A;
    const last = [b - B * c, v, d];
    if (!this.spare.checked) return [A, c, B, ...last];
    const [a, offset] = this.data.spare;
    return [A, a, c, offset, B, 0, ...last];
  }

  theta() {
    return this.descent.length ? this.descent[this.step.valueAsNumber].theta : this.member();
  }

  state() {
    const [network, theta] = [this.network, this.theta()];
    const eigen = Interactive.eigen(network.hessian(theta, this.data));
    return {
      widths: network.widths,
      theta: [...theta],
      risk: network.risk(theta, this.data),
      gradient: Interactive.norm(network.gradient(theta, this.data)),
      eigenvalues: eigen.map(({ value }) => value),
      steepest: eigen[0].vector,
      running: Boolean(this.run),
    };
  }

  // ---- Descent ----

  // From the point, moved a little along the eigenvector of the smallest eigenvalue, to the side where the risk is lower.
  descend() {
    this.moved();
    const { theta: start, steepest, eigenvalues } = this.state();
    const [one, other] = [1, -1].map((side) => {
      const theta = start.map((value, k) => value + side * this.data.push * steepest[k]);
      return { step: 0, theta, risk: this.network.risk(theta, this.data) };
    });
    this.descent = [one.risk <= other.risk ? one : other];
    this.rate = 1 / eigenvalues.at(-1);
    this.current = undefined;
    const run = (this.run = () => {
      if (this.run !== run) return;
      this.advance();
      requestAnimationFrame(run);
    });
    requestAnimationFrame(run);
  }

  // As many steps as fit into a frame, or up to the next one that is kept: a thirtieth of a decade apart, as between them
  // nothing could be seen.
  advance() {
    const until = performance.now() + 12;
    const network = this.network;
    const last = this.descent.at(-1);
    const next = Math.min(this.data.steps, Math.max(last.step + 1, Math.round(last.step * 10 ** (1 / 30))));
    let { current = last } = this;
    while (current.step < next && performance.now() < until) {
      const gradient = network.gradient(current.theta, this.data);
      current = { step: current.step + 1, theta: current.theta.map((value, k) => value - this.rate * gradient[k]) };
    }
    this.current = current.step < next ? current : undefined;
    if (this.current) return;
    this.descent.push({ ...current, risk: network.risk(current.theta, this.data) });
    if (next === this.data.steps) this.run = null;
    const end = `${this.descent.length - 1}`;
    Object.assign(this.step, { max: end, value: end, disabled: false });
    this.step.refresh();
    this.show();
  }

  // ---- What is shown ----

  buildPanels(parent) {
    const { plot, line, dots } = Interactive;
    const linear = { time: false };
    this.functions = plot(parent, {
      title: "Function: shallow (blue), deeper (orange), data (dots)",
      say: "The shallow and the deeper function and the data against x",
      axes: ["x", "f(x)"],
      scales: { x: linear, y: { range: [-3.5, 3.5] } },
      series: [line("shallow", { width: 5, alpha: 0.5 }), line("deep"), dots("text", 5)],
    });
    this.pieces = plot(parent, {
      title: "Inserted neuron: samples in (green) and off (red) the affine piece",
      say: "The pre-activations of the inserted neuron on the graph of ReLU",
      axes: ["pre-activation", "ReLU"],
      scales: { x: linear },
      series: [line("grid"), dots("inside"), dots("outside", 8)],
    });
    this.spectrum = plot(parent, {
      title: "Eigenvalues of the Hessian: negative (red), zero (grey), positive (blue)",
      say: "The eigenvalues of the Hessian in increasing order",
      axes: ["rank", "eigenvalue"],
      scales: {
        x: { time: false, range: (_, low, high) => [0, high + 1] },
        y: { distr: 4, asinh: 1e-3, range: [-100, 100] },
      },
      series: [dots("outside", 9), dots("muted", 9), dots("shallow", 9)],
      ticks: { x: { incrs: [1, 2] }, y: Interactive.ticks([-100, -1, -0.01, 0, 0.01, 1, 100]) },
    });
    this.falling = plot(parent, {
      title: "Risk during the descent; the line is that of the shallow network",
      say: "The risk during the descent against the step",
      axes: ["step + 1", "risk"],
      scales: {
        x: { time: false, distr: 3, range: [1, this.data.steps + 1] },
        y: { range: [0.5 * this.shallowRisk, 1.1 * this.shallowRisk] },
      },
      series: [line("shallow", { width: 1 }), line("deep"), dots("deep", 8)],
      ticks: { x: Interactive.ticks([1, 10, 100, 1000, 10000]) },
    });
  }

  show() {
    const [network, theta, state] = [this.network, this.theta(), this.state()];
    this.showFunctions(network, theta);
    this.showPieces(network, theta);
    this.showSpectrum(state.eigenvalues);
    this.showDescent();
    this.place.status.setAttribute("aria-busy", `${state.running}`);
    this.place.status.textContent = this.say(network, theta, state);
  }

  showFunctions(network, theta) {
    const x = Array.from({ length: 361 }, (_, i) => -4.5 + i / 40);
    const curves = [this.shallow.output.bind(this.shallow, this.data.theta), network.output.bind(network, theta)];
    const lines = [x, ...curves.map((f) => x.map((one) => f(one)))];
    this.functions.draw(Interactive.together(lines, [this.data.inputs, this.data.targets]));
  }

  preactivations(network, theta) {
    const first = (x) => (network.output(theta, x), network.z[1][0]);
    return this.data.inputs.map(first).sort((p, q) => p - q);
  }

  showPieces(network, theta) {
    const z = this.preactivations(network, theta);
    const ends = [Math.min(z[0], -0.5), 0, Math.max(z.at(-1), 0.5)];
    const relu = ends.map((one) => Math.max(one, 0));
    const [inside, outside] = [z.filter((one) => one > 0), z.filter((one) => one <= 0)];
    this.pieces.draw(Interactive.together([ends, relu], [inside, inside], [outside, outside.map(() => 0)]));
  }

  signs(eigenvalues) {
    const zero = 1e-10 * Math.max(...eigenvalues.map(Math.abs));
    return eigenvalues.map((value) => (Math.abs(value) <= zero ? 0 : Math.sign(value)));
  }

  showSpectrum(eigenvalues) {
    const signs = this.signs(eigenvalues);
    const of = (sign) => eigenvalues.map((value, k) => (signs[k] === sign ? value : null));
    this.spectrum.draw([eigenvalues.map((_, k) => k + 1), of(-1), of(0), of(1)]);
  }

  showDescent() {
    const { descent } = this;
    const x = descent.length ? descent.map(({ step }) => step + 1) : [1];
    const here = descent.map(({ risk }, k) => (k === this.step.valueAsNumber ? risk : null));
    this.falling.draw(
      Interactive.together([[1, this.data.steps], [this.shallowRisk, this.shallowRisk]],
        [x, descent.map(({ risk }) => risk), here]),
    );
  }

  say(network, theta, { risk, gradient, eigenvalues }) {
    const { number } = Interactive;
    const left = this.preactivations(network, theta).filter((z) => z <= 0).length;
    const count = (sign) => this.signs(eigenvalues).filter((one) => one === sign).length;
    const where = this.descent.length
      ? `Step ${this.descent[this.step.valueAsNumber].step} of the descent.`
      : left
        ? `Off the lifted set: ${left} of ${this.data.inputs.length} samples have left the affine piece.`
        : `On the lifted set: all ${this.data.inputs.length} samples lie in the affine piece.`;
    const critical = gradient <= 1e-10;
    const kind = !critical ? "no critical point" : count(-1) ? "a strict saddle" : "a critical point";
    return (
      `${where} Risk ${number(risk, 4)} (shallow: ${number(this.shallowRisk, 4)}), gradient norm ${number(gradient, 2)}: ` +
      `${kind}. Eigenvalues of the Hessian: ${count(-1)} negative, ${count(0)} zero, ${count(1)} positive; ` +
      `the smallest is ${number(eigenvalues[0], 2)}.`
    );
  }
};
