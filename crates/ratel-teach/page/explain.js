// One element of a dispatch's output, taken apart from the recorded operands: the same arithmetic in the same order as
// `explain` in the program, whose results for some elements are in the data for a test to compare with.

const f32 = Math.fround;
const exp = (x) => f32(Math.exp(x));

function erf(x) {
  if (Math.abs(x) > 4) return Math.sign(x);
  let [term, sum] = [x, x];
  for (let n = 1; n < 90; n++) {
    term *= (-x * x) / n;
    sum += term / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * sum;
}

const activations = {
  silu: ["silu: x / (1 + exp(\u2212x))", (x) => f32(x / f32(1 + exp(-x)))],
  gelu: ["gelu: x (1 + erf(x / \u221a2)) / 2", (x) => f32(f32(0.5 * x) * f32(1 + f32(erf(f32(x * Math.SQRT1_2)))))],
  quick_gelu: ["quick gelu: x / (1 + exp(\u22121.702 x))", (x) => f32(x / f32(1 + exp(f32(-1.702 * x))))],
};

// Whether a dispatch's values are here and its op is one that can be taken apart.
function explains(node) {
  const known = ["conv2d", "matmul", "group_norm", "group_norm_stats", "group_norm_whole", "layer_norm", "attention", "geglu", "activation", "add", "index_select", "concat", "upsample"];
  const whole = !(node.params.parts > 1);
  return known.includes(node.op) && whole && node.operands.every((operand) => operand.tensor !== null);
}

function explain(node, index) {
  const p = node.params;
  const values = Object.fromEntries(node.operands.slice(0, -1).map((operand) => [operand.name, valuesOf(data.tensors[operand.tensor])]));
  const at = (name, i) => (values[name] ? values[name][i] : 0);
  const [terms, lines] = [[], []];
  const line = (text, value) => {
    lines.push({ text, value });
    return value;
  };
  const take = (name, i) => {
    terms.push({ factors: [[name, i, at(name, i)]], value: at(name, i) });
    return at(name, i);
  };
  const multiply = (a, i, b, j) => {
    const value = f32(at(a, i) * at(b, j));
    terms.push({ factors: [[a, i, at(a, i)], [b, j, at(b, j)]], value });
    return value;
  };
  const source = (row, channel) => (channel < p.c1 ? ["x", row * p.c1 + channel] : ["x2", row * (p.c - p.c1) + channel - p.c1]);
  const activate = (x) => (node.act ? line(activations[node.act][0], activations[node.act][1](x)) : x);
  const added = (value, name, i) => (values[name] ? line(`+ ${name}[${i}] = ${number(at(name, i))}`, f32(value + at(name, i))) : value);
  const epilogue = (sum, imageBias, place) => {
    const value = activate(added(sum, "image_bias", imageBias));
    if (values.residual) line(`+ residual = ${number(at("residual", place))}`, f32(value + at("residual", place)));
  };
  // Takes all values of a group: their mean, and the sum of their squared differences from it.
  const group = (row, endRow, channel, endChannel) => {
    for (let i = row; i < endRow; i++) {
      for (let c = channel; c < endChannel; c++) take(...source(i, c));
    }
    const average = mean(terms.map((term) => term.value));
    return [average, terms.reduce((sum, term) => sum + (term.value - average) ** 2, 0)];
  };
  const normal = (x, average, variance, c) => {
    const deviation = Math.sqrt(variance + p.eps);
    line("standard deviation: \u221a(variance + eps)", f32(deviation));
    const value = line(`(x \u2212 mean) / deviation \u00d7 gamma[${c}] = ${number(at("gamma", c))}`, f32((x - average) * ((1 / deviation) * at("gamma", c))));
    activate(line(`+ beta[${c}] = ${number(at("beta", c))}`, f32(value + at("beta", c))));
  };
  const ops = {
    conv2d() {
      const n = index % p.n;
      const u = Math.floor(index / p.n) % p.out_w;
      const v = Math.floor(index / p.n / p.out_w) % p.out_h;
      const i = Math.floor(index / p.n / p.out_w / p.out_h);
      let sum = 0;
      for (let r = 0; r < p.window_h; r++) {
        for (let s = 0; s < p.window_w; s++) {
          const [row, column] = [v * p.stride + r - p.pad_top, u * p.stride + s - p.pad_left];
          if (row < 0 || column < 0 || row >= p.up_h || column >= p.up_w) continue;
          const pixel = (i * p.h + Math.floor((row * p.h) / p.up_h)) * p.w + Math.floor((column * p.w) / p.up_w);
          for (let c = 0; c < p.c; c++) sum = f32(sum + multiply(...source(pixel, c), "w", ((r * p.window_w + s) * p.c + c) * p.n + n));
        }
      }
      epilogue(added(line(`sum of ${whole(terms.length)} products`, sum), "bias", n), i * p.n + n, index);
    },
    matmul() {
      const [layer, place] = [Math.floor(index / (p.m * p.n)), index % (p.m * p.n)];
      const [m, n] = [Math.floor(place / p.n), place % p.n];
      const column = (j, which) => {
        let sum = 0;
        for (let k = 0; k < p.k; k++) {
          const from = k < p.k1 ? ["x", m * p.k1 + k] : ["x2", m * (p.k - p.k1) + k - p.k1];
          sum = f32(sum + multiply(...from, "w", (layer * p.k + k) * p.w_n + j));
        }
        return added(line(`sum of ${whole(p.k)} products${which}`, sum), "bias", layer * p.w_n + j);
      };
      let value;
      if (p.w_n > p.n) {
        value = column(n, ": the value");
        const open = line("gelu(gate)", activations.gelu[1](column(n + p.n, ": its gate")));
        value = line("value gelu(gate)", f32(value * open));
      } else {
        value = column(n, "");
      }
      epilogue(value, Math.floor(m / p.image_rows) * p.n + n, place);
    },
    group_norm() {
      const [row, c] = [Math.floor(index / p.c), index % p.c];
      const [image, width] = [Math.floor(row / p.rows), p.c / p.groups];
      const [g, chunks] = [Math.floor(c / width), Math.ceil(p.pixels / p.chunk)];
      const chunk = (k) => {
        const place = ((image * chunks + k) * p.groups + g) * 2;
        return [Math.min(p.chunk, p.pixels - k * p.chunk) * width, at("stats", place), at("stats", place + 1)];
      };
      const total = p.pixels * width;
      let [average, square] = [0, 0];
      for (let k = 0; k < chunks; k++) average += chunk(k)[0] * chunk(k)[1];
      average /= total;
      for (let k = 0; k < chunks; k++) square += chunk(k)[2] + chunk(k)[0] * (chunk(k)[1] - average) ** 2;
      line(`mean of group ${g}: ${whole(total)} values, from ${chunks} chunks`, f32(average));
      normal(take(...source(row, c)), average, square / total, c);
    },
    group_norm_whole() {
      const [row, c] = [Math.floor(index / p.c), index % p.c];
      const [image, width] = [Math.floor(row / p.pixels), p.c / p.groups];
      const g = Math.floor(c / width);
      const [average, square] = group(image * p.pixels, (image + 1) * p.pixels, g * width, (g + 1) * width);
      line(`mean of the ${whole(terms.length)} values of group ${g}`, f32(average));
      normal(at(...source(row, c)), average, square / terms.length, c);
    },
    group_norm_stats() {
      const [place, g, which] = [Math.floor(index / 2 / p.groups), Math.floor(index / 2) % p.groups, index % 2];
      const [chunks, width] = [Math.ceil(p.pixels / p.chunk), p.c / p.groups];
      const [image, k] = [Math.floor(place / chunks), place % chunks];
      const first = image * p.pixels;
      const [average, square] = group(first + k * p.chunk, first + Math.min(p.pixels, (k + 1) * p.chunk), g * width, (g + 1) * width);
      line(`mean of the ${terms.length} values of group ${g} in chunk ${k}`, f32(average));
      if (which) line("sum of their squared differences from it", f32(square));
    },
    layer_norm() {
      const [row, c] = [Math.floor(index / p.c), index % p.c];
      const all = Array.from({ length: p.c }, (_, i) => take("x", row * p.c + i));
      const average = mean(all);
      const deviation = Math.sqrt(mean(all.map((x) => (x - average) ** 2)) + p.eps);
      line(`mean of the ${p.c} values of row ${row}`, f32(average));
      line("standard deviation: \u221a(variance + eps)", f32(deviation));
      const normal = line("(x \u2212 mean) / deviation", f32((all[c] - average) * (1 / deviation)));
      const value = line(`\u00d7 gamma[${c}] = ${number(at("gamma", c))}`, f32(normal * at("gamma", c)));
      line(`+ beta[${c}] = ${number(at("beta", c))}`, f32(value + at("beta", c)));
    },
    attention() {
      const row = p.heads * p.dim;
      const [query, column] = [Math.floor(index / row), index % row];
      const [image, head] = [Math.floor(query / p.queries), Math.floor(column / p.dim)];
      const seen = p.causal ? Math.min(p.keys, (query % p.queries) + 1) : p.keys;
      const scores = [];
      for (let j = 0; j < seen; j++) {
        let score = 0;
        for (let d = 0; d < p.dim; d++) {
          const q = f32(at("q", query * row + head * p.dim + d) * p.scale);
          score = f32(score + f32(q * at("k", (image * p.keys + j) * row + head * p.dim + d)));
        }
        scores.push(score);
      }
      const greatest = Math.max(...scores);
      const all = scores.reduce((sum, score) => f32(sum + exp(f32(score - greatest))), 0);
      line(`greatest of ${seen} scores q \u00b7 k / \u221a${p.dim} in head ${head}: key ${scores.indexOf(greatest)}`, greatest);
      line("sum of exp(score \u2212 greatest)", all);
      let sum = 0;
      scores.forEach((score, j) => {
        const share = f32(exp(f32(score - greatest)) / all);
        const place = (image * p.keys + j) * row + column;
        const value = f32(share * at("v", place));
        terms.push({ factors: [["share", j, share], ["v", place, at("v", place)]], value });
        sum = f32(sum + value);
      });
      line(`sum of ${seen} shares times values`, sum);
    },
    geglu() {
      const [row, column] = [Math.floor(index / p.n), index % p.n];
      const [i, gate] = [row * 2 * p.n + column, row * 2 * p.n + p.n + column];
      const open = line("gelu(gate)", activations.gelu[1](at("x", gate)));
      terms.push({ factors: [["x", i, at("x", i)], ["gelu of x", gate, open]], value: f32(at("x", i) * open) });
      line("x gelu(gate)", f32(at("x", i) * open));
    },
    activation: () => activate(take("x", index)),
    add: () => line("a + b", f32(take("a", index) + take("b", Math.floor(index / p.span) * p.period + (index % p.period)))),
    index_select() {
      const [row, c] = [Math.floor(index / p.c), index % p.c];
      const from = Math.min(at("index", row), p.rows - 1);
      line(`copied from row index[${row}] = ${from}`, take("x", from * p.c + c));
    },
    concat() {
      const [a, b] = ["a", "b"].map((name) => node.operands.find((operand) => operand.name === name).shape.at(-1));
      const [row, c] = [Math.floor(index / (a + b)), index % (a + b)];
      line("copied", c < a ? take("a", row * a + c) : take("b", row * b + c - a));
    },
    upsample() {
      const c = index % p.c;
      const u = Math.floor(index / p.c) % p.out_w;
      const v = Math.floor(index / p.c / p.out_w) % p.out_h;
      const i = Math.floor(index / p.c / p.out_w / p.out_h);
      line("copied from the nearest pixel", take("x", ((i * p.h + Math.floor((v * p.h) / p.out_h)) * p.w + Math.floor((u * p.w) / p.out_w)) * p.c + c));
    },
  };
  ops[node.op]();
  return { terms, lines, value: lines[lines.length - 1].value };
}

// Holds what the page computes against what the program computed; the failures, for a test.
function compareSamples() {
  const wrong = [];
  for (const { component, node: at, element, terms, value } of data.samples) {
    const node = components[component].nodes[at];
    if (!explains(node)) {
      wrong.push(`${node.module} ${node.op} is not explained`);
      continue;
    }
    const found = explain(node, element);
    const near = Math.abs(found.value - value) <= 2e-6 * Math.max(1, Math.abs(value));
    const same = found.terms.length === terms[0] && terms[1].every((term, i) => JSON.stringify(term.factors.map(([name, place]) => [name, place])) ===
      JSON.stringify(found.terms[i].factors.map(([name, place]) => [name, place])));
    if (!near || !same) wrong.push(`${node.module} ${node.op} [${element}]: ${found.value} is not ${value}`);
  }
  return wrong;
}
