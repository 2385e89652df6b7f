// Small fully connected networks with squared error: risk, gradient, exact Hessian, and its eigenvalues.
// θ is one list in the library's order: W[1] row by row, b[1], W[2], …; the risk is the mean over samples of (f − y)².
"use strict";

Interactive.activations = {
  tanh: {
    value: Math.tanh,
    first: (z) => {
      const y = Math.tanh(z);
      return 1 - y * y;
    },
    second: (z) => {
      const y = Math.tanh(z);
      return -2 * y * (1 - y * y);
    },
  },
  relu: { value: (z) => Math.max(z, 0), first: (z) => (z > 0 ? 1 : 0), second: () => 0 },
};

// Widths are (1, m_1, …, 1); data are {inputs, targets}, one number each a sample. What a pass computes lies in lists that
// the next pass writes over: a descent makes some hundred thousand passes, and new lists would take most of its time.
Interactive.Network = class {
  constructor(widths, names) {
    this.widths = widths;
    this.activations = names.map((name) => Interactive.activations[name]);
    this.offsets = [0];
    for (let l = 1; l < widths.length; l++) this.offsets.push(this.offsets[l - 1] + widths[l] * (widths[l - 1] + 1));
    this.parameters = this.offsets.at(-1);
    this.depth = widths.length - 1;
    const lists = () => widths.map((width) => new Float64Array(width));
    // Of layer l: f, δ = ∂R/∂z and z (l > 0), and their derivatives along v.
    Object.assign(this, { f: lists(), z: lists(), delta: lists(), df: lists(), dz: lists(), turned: lists() });
  }

  // Where the bias of the layer l → l + 1 begins.
  biases(l) {
    return this.offsets[l] + this.widths[l] * this.widths[l + 1];
  }

  // Adds W f to z, with the weights of the layer l → l + 1.
  addProduct(theta, l, f, z) {
    let k = this.offsets[l];
    for (let i = 0; i < z.length; i++) for (let j = 0; j < f.length; j++) z[i] += theta[k++] * f[j];
  }

  // Adds Wᵀ δ to sums.
  addBack(theta, l, delta, sums) {
    let k = this.offsets[l];
    for (let i = 0; i < delta.length; i++) for (let j = 0; j < sums.length; j++) sums[j] += theta[k++] * delta[i];
  }

  // Adds δ fᵀ to the place of W.
  addOuter(sums, l, delta, f) {
    let k = this.offsets[l];
    for (let i = 0; i < delta.length; i++) for (let j = 0; j < f.length; j++) sums[k++] += delta[i] * f[j];
  }

  addBiases(sums, l, delta) {
    for (let i = 0, k = this.biases(l); i < delta.length; i++) sums[k++] += delta[i];
  }

  // Fills z and f for one input; returns the output.
  output(theta, x) {
    const { z, f, depth } = this;
    f[0][0] = x;
    for (let l = 0; l < depth; l++) {
      for (let i = 0, k = this.biases(l); i < z[l + 1].length; i++) z[l + 1][i] = theta[k++];
      this.addProduct(theta, l, f[l], z[l + 1]);
      if (l < depth - 1) for (let i = 0; i < z[l + 1].length; i++) f[l + 1][i] = this.activations[l].value(z[l + 1][i]);
    }
    return z[depth][0];
  }

  risk(theta, { inputs, targets }) {
    return inputs.reduce((sum, x, i) => sum + (this.output(theta, x) - targets[i]) ** 2, 0) / inputs.length;
  }

  gradient(theta, { inputs, targets }) {
    const { f, delta, depth } = this;
    const sums = new Float64Array(this.parameters);
    for (let i = 0; i < inputs.length; i++) {
      delta[depth][0] = (2 * (this.output(theta, inputs[i]) - targets[i])) / inputs.length;
      for (let l = depth - 1; l >= 0; l--) {
        this.addOuter(sums, l, delta[l + 1], f[l]);
        this.addBiases(sums, l, delta[l + 1]);
        if (l) this.propagate(theta, l);
      }
    }
    return sums;
  }

  // δ[l] = (Wᵀ δ[l + 1]) σ′(z[l]).
  propagate(theta, l) {
    const [delta, z] = [this.delta[l], this.z[l]];
    delta.fill(0);
    this.addBack(theta, l, this.delta[l + 1], delta);
    for (let j = 0; j < delta.length; j++) delta[j] *= this.activations[l - 1].first(z[j]);
  }

  // ∇²R v, exactly (Pearlmutter 1994): the derivative of every line of `gradient` along v.
  hessianTimes(theta, v, { inputs, targets }) {
    const { f, df, dz, delta, turned, depth } = this;
    const sums = new Float64Array(this.parameters);
    for (let i = 0; i < inputs.length; i++) {
      delta[depth][0] = (2 * (this.output(theta, inputs[i]) - targets[i])) / inputs.length;
      this.tangents(theta, v);
      turned[depth][0] = (2 * dz[depth][0]) / inputs.length;
      for (let l = depth - 1; l >= 0; l--) {
        this.addOuter(sums, l, turned[l + 1], f[l]);
        this.addOuter(sums, l, delta[l + 1], df[l]);
        this.addBiases(sums, l, turned[l + 1]);
        if (l) this.propagateTangents(theta, v, l);
      }
    }
    return sums;
  }

  // Fills dz and df, the derivatives of z and f along v.
  tangents(theta, v) {
    const { z, f, dz, df, depth } = this;
    for (let l = 0; l < depth; l++) {
      for (let i = 0, k = this.biases(l); i < dz[l + 1].length; i++) dz[l + 1][i] = v[k++];
      this.addProduct(theta, l, df[l], dz[l + 1]);
      this.addProduct(v, l, f[l], dz[l + 1]);
      if (l === depth - 1) continue;
      const { first } = this.activations[l];
      for (let i = 0; i < dz[l + 1].length; i++) df[l + 1][i] = first(z[l + 1][i]) * dz[l + 1][i];
    }
  }

  // δ[l] and its derivative along v.
  propagateTangents(theta, v, l) {
    const { first, second } = this.activations[l - 1];
    const [delta, turned, z, dz] = [this.delta[l], this.turned[l], this.z[l], this.dz[l]];
    delta.fill(0);
    turned.fill(0);
    this.addBack(theta, l, this.delta[l + 1], delta);
    this.addBack(theta, l, this.turned[l + 1], turned);
    this.addBack(v, l, this.delta[l + 1], turned);
    for (let j = 0; j < z.length; j++) {
      turned[j] = turned[j] * first(z[j]) + delta[j] * second(z[j]) * dz[j];
      delta[j] *= first(z[j]);
    }
  }

  hessian(theta, data) {
    const unit = (k) => Float64Array.from({ length: this.parameters }, (_, i) => Number(i === k));
    return Array.from({ length: this.parameters }, (_, k) => this.hessianTimes(theta, unit(k), data));
  }
};

Interactive.norm = (vector) => Math.hypot(...vector);

// Eigenvalues of a symmetric matrix in increasing order, each with its unit eigenvector, by Jacobi's rotations.
Interactive.eigen = (matrix) => {
  const n = matrix.length;
  // Rounding leaves the two halves a little different.
  const a = matrix.map((row, i) => Array.from(row, (value, j) => (value + matrix[j][i]) / 2));
  const vectors = a.map((_, i) => a.map((_, j) => Number(i === j)));
  const size = Interactive.norm(a.flat());
  const outside = () => Math.sqrt(a.reduce((s, row, i) => s + row.reduce((t, x, j) => t + (i === j ? 0 : x * x), 0), 0));
  // Convergence is quadratic: some eight sweeps do, and 40 are never needed.
  for (let sweep = 0; sweep < 40 && outside() > 1e-17 * size; sweep++)
    for (let p = 0; p < n; p++) for (let q = p + 1; q < n; q++) Interactive.rotate(a, vectors, p, q);
  return a
    .map((row, k) => ({ value: row[k], vector: vectors.map((line) => line[k]) }))
    .sort((left, right) => left.value - right.value);
};

// One rotation in the plane of p and q, which brings a[p][q] to zero.
Interactive.rotate = (a, vectors, p, q) => {
  if (a[p][q] === 0) return;
  const theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
  const t = (theta < 0 ? -1 : 1) / (Math.abs(theta) + Math.hypot(theta, 1));
  const c = 1 / Math.hypot(t, 1);
  const turn = (row, s) => ([row[p], row[q]] = [c * row[p] - s * row[q], s * row[p] + c * row[q]]);
  a.forEach((row) => turn(row, t * c));
  const [first, second] = [a[p], a[q]];
  a[p] = first.map((x, k) => c * x - t * c * second[k]);
  a[q] = first.map((x, k) => t * c * x + c * second[k]);
  a[p][q] = a[q][p] = 0;
  vectors.forEach((row) => turn(row, t * c));
};
