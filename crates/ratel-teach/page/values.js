"use strict";
// The data of the page, and values as people read them.

const data = JSON.parse(document.getElementById("data").textContent);
const { run, settings, figures, components, kernels, sides } = data;

// --- elements ---

// An element; attributes that begin with "on" are listeners.
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== ""));
  return made;
}

function drawn(name, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

// --- numbers ---

const digits = (value, most) => value.toLocaleString("en", { maximumFractionDigits: most, minimumFractionDigits: most });
const whole = (value) => value.toLocaleString("en", { maximumFractionDigits: 0 });
const scaled = (value, units, step) => {
  let at = 0;
  while (Math.abs(value) >= step && at + 1 < units.length) {
    value /= step;
    at += 1;
  }
  return `${at === 0 ? whole(value) : digits(value, Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2)}${units[at]}`;
};
const count = (value) => scaled(value, ["", " thousand", " million", " billion", " trillion"], 1000);
const flop = (value) => `${scaled(value, [" ", " k", " M", " G", " T", " P"], 1000)}flop`;
const bytes = (value) => scaled(value, [" B", " KiB", " MiB", " GiB", " TiB"], 1024);
const time = (ns) => (ns < 1e3 ? `${whole(ns)} ns` : scaled(ns / 1e3, [" \u00b5s", " ms", " s"], 1000).replace(/^(\d+) \u00b5s$/, "$1 \u00b5s"));
const times = (shape) => shape.join("\u00d7");
const number = (value) => {
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  return size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(3) : value.toPrecision(5).replace("-", "\u2212");
};
const percent = (share) => `${digits(share * 100, share < 0.1 ? 1 : 0)}%`;
const mean = (values) => (values.length ? values.reduce((a, b) => a + b, 0) / values.length : 0);
const median = (values) => {
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length === 0 ? 0 : sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
};
const greatest = (values) => values.reduce((a, b) => (b > a ? b : a), 0);
const product = (shape) => shape.reduce((a, b) => a * b, 1);

// --- tensors ---

const decoded = new Map();

function halves(words) {
  const values = new Float32Array(words.length);
  for (let i = 0; i < words.length; i++) {
    const sign = words[i] & 0x8000 ? -1 : 1;
    const exponent = (words[i] >> 10) & 31;
    const fraction = words[i] & 1023;
    if (exponent === 0) values[i] = sign * fraction * 2 ** -24;
    else if (exponent === 31) values[i] = fraction ? NaN : sign * Infinity;
    else values[i] = sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  return values;
}

// The values of a tensor of the data.
function valuesOf(tensor) {
  if (!decoded.has(tensor)) {
    const text = atob(tensor.data);
    const raw = new Uint8Array(text.length);
    for (let i = 0; i < text.length; i++) raw[i] = text.charCodeAt(i);
    decoded.set(tensor, tensor.elem === "f16" ? halves(new Uint16Array(raw.buffer)) : new Float32Array(raw.buffer));
  }
  return decoded.get(tensor);
}

// --- the model as a tree: component, blocks, layers, dispatches ---

// "unet.down_blocks.0.resnets.0.conv1" as steps of a path: unet, down_blocks.0, resnets.0, conv1.
function pathOf(module) {
  const path = [];
  for (const part of module.split(".")) {
    if (/^\d+$/.test(part) && path.length) path[path.length - 1] += `.${part}`;
    else path.push(part);
  }
  return path;
}

const families = [["conv", "conv"], ["matmul", "matmul"], ["sum_parts", "matmul"], ["attention", "attention"], ["norm", "norm"]];
const family = (op) => (families.find(([part]) => op.includes(part)) || ["", "other"])[1];
const output = (node) => node.operands[node.operands.length - 1];
const nodeTime = (node) => median(node.ns);
const runsOnce = (node) => node.number < components[node.component].once;
const onceTime = (component) => component.nodes.slice(0, component.once).reduce((sum, node) => sum + nodeTime(node), 0);

function branch(name, path) {
  return { name, path, children: new Map(), nodes: [], flops: 0, bytes: 0, ns: 0, weights: new Map() };
}

const trees = components.map((component, number) => {
  const root = branch(component.name, component.name);
  component.nodes.forEach((node, at) => {
    node.number = at;
    node.component = number;
    let place = root;
    const parts = pathOf(node.module).slice(1);
    for (let depth = 0; ; depth++) {
      // what is worked out once for all calls is in no call's sum
      if (!runsOnce(node)) {
        place.flops += node.flops;
        place.bytes += node.bytes;
        place.ns += nodeTime(node);
      }
      place.nodes.push(node);
      for (const operand of node.operands) if (operand.from.weight) place.weights.set(operand.from.weight.join(), product(operand.shape));
      if (depth === parts.length) break;
      const name = parts[depth];
      if (!place.children.has(name)) place.children.set(name, branch(name, `${place.path}.${name}`));
      place = place.children.get(name);
    }
  });
  return root;
});
const parameters = (place) => [...place.weights.values()].reduce((a, b) => a + b, 0);

function branchAt(number, path) {
  let place = trees[number];
  for (const name of pathOf(path).slice(1)) place = place && place.children.get(name);
  return place;
}

// Rows and columns of a map of so many places, as the latents' size is halved or doubled.
function mapSize(places) {
  const [h, w] = settings.latents;
  for (let [rows, columns] = [h, w]; rows * columns >= places; [rows, columns] = [Math.ceil(rows / 2), Math.ceil(columns / 2)]) {
    if (rows * columns === places) return [rows, columns];
    if (rows * columns === 1) break;
  }
  for (let times = 2; times <= 64; times *= 2) if (h * w * times * times === places) return [h * times, w * times];
  return null;
}

// A tensor as pictures: images, rows, columns, channels; or as one matrix.
function asMap(shape, tokens) {
  if (shape.length === 4) return { n: shape[0], h: shape[1], w: shape[2], c: shape[3] };
  if (shape.length === 3) {
    const size = tokens ? null : mapSize(shape[1]);
    return size ? { n: shape[0], h: size[0], w: size[1], c: shape[2] } : { n: shape[0], h: shape[1], w: shape[2], c: 1, matrix: true };
  }
  const rows = shape.length > 1 ? product(shape.slice(0, -1)) : 1;
  return { n: 1, h: rows, w: shape[shape.length - 1], c: 1, matrix: true };
}
