"use strict";
// The page of a profile. The numbers were summed up by the program; here they are only drawn, sorted and filtered.

const data = JSON.parse(document.getElementById("data").textContent);
const { run, runs, summary, rows, spans, memory } = data;
const byId = (id) => document.getElementById(id);

// --- numbers as people read them ---

const digits = (value, most) => value.toLocaleString("en", { maximumFractionDigits: most, minimumFractionDigits: most });
const ms = (ns) => digits(ns / 1e6, 2);
const time = (ns) => (ns < 1e9 ? `${digits(ns / 1e6, ns < 1e7 ? 2 : 1)} ms` : `${digits(ns / 1e9, 2)} s`);
const percent = (share) => `${digits(share * 100, 1)}%`;
const mebibytes = (bytes) => `${digits(bytes / 2 ** 20, 1)} MiB`;
const giga = (value) => (value / 1e9 >= 0.005 ? digits(value / 1e9, 2) : value > 0 ? "<0.01" : "0");
const rate = (value) => (value >= 1e12 ? `${digits(value / 1e12, 1)} T` : value >= 1e9 ? `${digits(value / 1e9, 1)} G` : `${digits(value / 1e6, 1)} M`);

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.append(...children);
  return made;
}

function drawn(name, attributes, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

// The family of a kernel, which gives it its colour.
function family(row) {
  const name = row.kernels[0] || "";
  return ["conv", "matmul", "attention", "norm"].find((family) => name.includes(family)) || "other";
}

// --- what was run, in numbers ---

const clocks = {
  device: "timed by the device's clock",
  host: "timed by the host one dispatch at a time, each too long by its submission",
  twins: "CPU twins, timed by the host",
};

function header() {
  const title = `${run.model}, ${run.width}\u00d7${run.height}, ${run.steps} steps of ${run.sampler}`;
  document.title = `Profile: ${title}`;
  byId("title").textContent = title;
  const [from, to] = run.recorded_steps;
  const part = from === 0 && to === run.steps ? "" : ` \u00b7 steps ${from} to ${to - 1} only`;
  byId("subtitle").textContent = `${run.device}${run.driver ? `, ${run.driver}` : ""} \u00b7 ${run.precision} \u00b7 ` +
    `${clocks[run.clock]} \u00b7 ${runs === 1 ? "one run" : `medians of ${runs} runs`}${part}`;
  byId("footer").textContent = `Written by ${run.program}. Operations and bytes are what an op needs at least: a multiply-add ` +
    "counts as two, every operand is moved once. The attainable roof is the lesser of the device's operations a second and its " +
    "bytes a second times operations a byte, as measured on the device.";
}

function tiles() {
  const noise = (samples) => (samples.count > 1 ? ` (${time(samples.low)} to ${time(samples.high)})` : "");
  const used = Math.max(0, ...memory.map(([, , used]) => used || 0));
  const idle = summary.idle_ns / Math.max(1, summary.idle_ns + summary.busy_ns);
  const all = [
    ["Wall time", time(summary.wall_ns.median), `without loading weights (${time(summary.loading_ns)})${noise(summary.wall_ns)}`],
    ["Device time", time(summary.device_ns.median), `in ${summary.dispatches} dispatches${noise(summary.device_ns)}`],
    run.clock === "host"
      ? ["Idle", "not known", "the host waited for each dispatch"]
      : ["Idle", percent(idle), `${time(summary.idle_ns)} in which the device waited for the host`],
    ...(run.first_step_ns ? [["First step", time(run.first_step_ns), "after the first run began: weights loaded, pipelines built"]] : []),
    ...(summary.host ? [["CPU time", time(summary.host.step_ns.median), `a step, ${digits(summary.host.dispatch_ns / 1e3, 1)} \u00b5s for each of its ${summary.host.dispatches} dispatches`]] : []),
    ["Peak memory", mebibytes(summary.peak_bytes), `held; ${mebibytes(used)} the most in use by a step`],
  ];
  if (summary.cost) {
    const { share, longer, plain_ns: plain } = summary.cost;
    const signed = (value) => `${value >= 0 ? "+" : "\u2212"}${percent(Math.abs(value))}`;
    const range = share.count === 1 ? "one run of each" : `${signed(share.low)} to ${signed(share.high)} in ${share.count} pairs of runs, longer in ${longer}`;
    all.push(["Cost of profiling", signed(share.median), `${time(plain.median)} with no dispatch timed; ${range}`]);
  }
  for (const [name, value, note] of all) {
    byId("tiles").append(element("div", {}, element("dt", {}, name), element("dd", {}, value), element("dd", {}, note)));
  }
}

function gains() {
  const all = summary.gains.slice(0, 3).filter((gain) => gain.gain_ns > 0);
  byId("gains").hidden = all.length === 0;
  const longest = Math.max(...all.map((gain) => gain.ns));
  for (const gain of all) {
    const width = (ns) => `width:${(100 * ns) / longest}%`;
    const track = element("span", { class: "track", title: "the time at the roof, and what lies beyond it" },
      element("i", { style: width(gain.roof_ns) }), element("i", { style: width(gain.gain_ns) }));
    const words = `${time(gain.gain_ns)} of ${time(gain.ns)} (${percent(gain.share_of_wall)} of the wall time), bound by ${gain.bound}`;
    byId("gain-list").append(element("li", {}, element("span", {}, gain.kernel), track, element("span", {}, words)));
  }
}

function stages() {
  for (const stage of summary.stages) {
    const numbers = [ms(stage.wall_ns.median), ms(stage.device_ns.median), stage.dispatches, digits(stage.flops / 1e9, 2)];
    byId("stages").append(element("tr", {}, element("th", { scope: "row" }, stage.stage),
      ...numbers.map((value) => element("td", { class: "number" }, String(value)))));
  }
}

// --- the table ---

const columns = [
  { name: "Name", of: (row) => row.name, show: (row) => row.name, text: true },
  { name: "ms", of: (row) => row.ns.median, show: (row) => ms(row.ns.median) },
  { name: "Share", of: (row) => row.share, show: (row) => percent(row.share), share: true },
  { name: "Count", of: (row) => row.dispatches, show: (row) => row.dispatches },
  { name: "GFLOP/s", of: (row) => row.flops_per_second, show: (row) => giga(row.flops_per_second) },
  { name: "GB/s", of: (row) => row.bytes_per_second, show: (row) => giga(row.bytes_per_second) },
  { name: "Of roof", of: (row) => row.roof_share, show: (row) => percent(row.roof_share), roof: true },
  { name: "Bound by", of: (row) => row.bound, show: (row) => row.bound, text: true, roof: true },
  { name: "Gain, ms", of: (row) => row.gain_ns, show: (row) => ms(row.gain_ns), roof: true },
  { name: "Kernels", of: (row) => row.kernels.join(", "), show: (row) => row.kernels.join(", "), text: true, only: "module" },
].filter((column) => run.roof || !column.roof);

const FEW = 25;
const state = { grouping: "kernel", sort: columns[1], descending: true, filter: "", all: false, marked: null };

function shown() {
  const wanted = state.filter.toLowerCase();
  const found = rows[state.grouping].filter((row) => `${row.name} ${row.kernels.join(" ")}`.toLowerCase().includes(wanted));
  const order = (a, b) => {
    const [x, y] = [state.sort.of(a), state.sort.of(b)];
    return typeof x === "string" ? x.localeCompare(y, "en", { numeric: true }) : x - y;
  };
  return found.sort((a, b) => (state.descending ? -order(a, b) : order(a, b)));
}

function table() {
  const used = columns.filter((column) => !column.only || column.only === state.grouping);
  byId("head").replaceChildren(...used.map((column) => {
    const button = element("button", { type: "button" }, column.name);
    button.addEventListener("click", () => {
      state.descending = state.sort === column ? !state.descending : !column.text;
      state.sort = column;
      table();
      byId("head").children[used.indexOf(column)].firstChild.focus();
    });
    const head = element("th", { scope: "col", class: column.text ? "" : "number" }, button);
    if (state.sort === column) head.setAttribute("aria-sort", state.descending ? "descending" : "ascending");
    return head;
  }));
  const found = shown();
  const some = state.all ? found : found.slice(0, FEW);
  const largest = Math.max(...rows[state.grouping].map((row) => row.share));
  byId("body").replaceChildren(...some.map((row) => {
    const line = element("tr", { "data-name": row.name }, ...used.map((column, i) => {
      const cell = element(i === 0 ? "th" : "td", i === 0 ? { scope: "row" } : {}, String(column.show(row)));
      if (!column.text) cell.classList.add("number");
      if (column.share) {
        cell.classList.add("share");
        cell.style.setProperty("--share", row.share / largest);
      }
      return cell;
    }));
    line.title = row.files.join(", ");
    line.classList.toggle("marked", row.name === state.marked);
    line.addEventListener("mouseenter", () => mark(row.name));
    return line;
  }));
  byId("more").hidden = found.length <= FEW;
  byId("more").textContent = state.all ? `Show the first ${FEW}` : `Show all ${found.length}`;
}

function controls() {
  for (const [grouping, name] of [["kernel", "kernel"], ["module", "module"], ["shape", "kernel and sizes"]]) {
    const input = element("input", { type: "radio", name: "grouping", value: grouping });
    input.checked = grouping === state.grouping;
    input.addEventListener("change", () => {
      Object.assign(state, { grouping, marked: null, all: false });
      if (state.sort.only && state.sort.only !== grouping) Object.assign(state, { sort: columns[1], descending: true });
      table();
      roofline();
    });
    byId("grouping").append(element("label", {}, input, ` ${name}`));
  }
  byId("filter").addEventListener("input", (event) => {
    state.filter = event.target.value;
    table();
    roofline();
  });
  byId("more").addEventListener("click", () => {
    state.all = !state.all;
    table();
  });
  const dark = () => (document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const label = () => { byId("theme").textContent = dark() ? "Light" : "Dark"; };
  byId("theme").addEventListener("click", () => {
    document.documentElement.dataset.theme = dark() ? "light" : "dark";
    label();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", label);
  label();
}

// Marks a row in the table and its point in the plot.
function mark(name) {
  state.marked = name;
  for (const line of byId("body").children) line.classList.toggle("marked", line.dataset.name === name);
  for (const circle of byId("roofline").querySelectorAll("circle")) {
    circle.classList.toggle("marked", circle.dataset.name === name);
  }
  const row = rows[state.grouping].find((row) => row.name === name);
  byId("point").textContent = row ? describe(row) : "";
}

function describe(row) {
  const parts = [`${row.name}: ${time(row.ns.median)} (${percent(row.share)})`];
  if (row.flops > 0) parts.push(`${rate(row.flops_per_second)}FLOP/s`);
  parts.push(`${rate(row.bytes_per_second)}B/s`);
  if (row.bytes > 0) parts.push(`${digits(row.flops / row.bytes, 1)} FLOP a byte`);
  if (row.roof_share !== null) parts.push(`${percent(row.roof_share)} of the roof, bound by ${row.bound}`);
  return parts.join(" \u00b7 ");
}

// --- the roofline ---

// Powers of ten from the one below `least` to the one above `most`: two at least, and six decades at most.
function decades(least, most) {
  const last = Math.ceil(Math.log10(most * 1.01));
  const first = Math.min(last - 1, Math.max(Math.floor(Math.log10(least)), last - 6));
  return Array.from({ length: last - first + 1 }, (_, i) => 10 ** (first + i));
}

function roofline() {
  const [width, height, left, right, top, bottom] = [960, 440, 64, 16, 16, 44];
  const svg = byId("roofline");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  // a row that moves no bytes has no place on the axis of operations a byte
  const points = shown().filter((row) => row.flops > 0 && row.bytes > 0 && row.ns.median > 0)
    .map((row) => ({ row, x: row.flops / row.bytes, y: row.flops_per_second }));
  points.sort((a, b) => b.row.ns.median - a.row.ns.median);
  const roofs = run.roof
    ? [["f32", run.roof.f32_flops], ["matrices", run.roof.matrix_flops]].filter(([, flops]) => flops)
    : [];
  byId("roofline-note").textContent = run.roof
    ? "Each point is a row of the table below, the larger the longer it takes. The slope is the memory's rate, the level lines are " +
      "the arithmetic's. The further a point lies below its roof, the more there is to gain."
    : "Each point is a row of the table below, the larger the longer it takes. The device's roof was not measured, so only " +
      "points are drawn.";
  if (points.length === 0) {
    svg.replaceChildren(drawn("text", { x: width / 2, y: height / 2, "text-anchor": "middle" }, "no row with arithmetic in it"));
    return;
  }
  const ridge = roofs.map(([, flops]) => flops / run.roof.copy_bytes);
  const xs = points.map((point) => point.x).concat(ridge.map((x) => x * 2));
  const ys = points.map((point) => point.y).concat(roofs.map(([, flops]) => flops * 1.2));
  const [xAxis, yAxis] = [decades(Math.min(...xs), Math.max(...xs)), decades(Math.min(...ys), Math.max(...ys))];
  const [x0, x1, y0, y1] = [xAxis[0], xAxis[xAxis.length - 1], yAxis[0], yAxis[yAxis.length - 1]];
  const scale = (value, from, to, start, end) =>
    start + ((Math.log10(value) - Math.log10(from)) / (Math.log10(to) - Math.log10(from))) * (end - start);
  const px = (x) => scale(Math.max(x, x0), x0, x1, left, width - right);
  const py = (y) => scale(Math.max(y, y0), y0, y1, height - bottom, top);

  const parts = [];
  const names = []; // above everything, so that no point hides them
  for (const x of xAxis) {
    parts.push(drawn("line", { class: "grid", x1: px(x), x2: px(x), y1: top, y2: height - bottom }));
    parts.push(drawn("text", { x: px(x), y: height - bottom + 18, "text-anchor": "middle" }, String(Number(x.toPrecision(1)))));
  }
  for (const y of yAxis) {
    parts.push(drawn("line", { class: "grid", x1: left, x2: width - right, y1: py(y), y2: py(y) }));
    const name = y >= 1e12 ? `${y / 1e12} T` : y >= 1e9 ? `${y / 1e9} G` : `${y / 1e6} M`;
    parts.push(drawn("text", { x: left - 8, y: py(y) + 4, "text-anchor": "end" }, name.replace(/(\.\d\d)\d+/, "$1")));
  }
  parts.push(drawn("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, "operations a byte (FLOP/B)"));
  parts.push(drawn("text", { x: 14, y: (top + height - bottom) / 2, "text-anchor": "middle", transform: `rotate(-90 14 ${(top + height - bottom) / 2})` }, "FLOP/s"));
  if (run.roof) {
    const copy = run.roof.copy_bytes;
    const highest = Math.max(...roofs.map(([, flops]) => flops));
    const start = Math.max(x0, y0 / copy);
    parts.push(drawn("line", { class: "roof", x1: px(start), y1: py(start * copy), x2: px(highest / copy), y2: py(highest) }));
    const at = Math.sqrt(start * (highest / copy));
    const angle = (Math.atan2(py(at * copy * 10) - py(at * copy), px(at * 10) - px(at)) * 180) / Math.PI;
    names.push(drawn("text", { class: "roof-name", x: px(at), y: py(at * copy) - 8, "text-anchor": "middle", transform: `rotate(${angle} ${px(at)} ${py(at * copy) - 8})` }, `memory ${rate(copy)}B/s`));
    for (const [name, flops] of roofs) {
      parts.push(drawn("line", { class: "roof", x1: px(flops / copy), y1: py(flops), x2: width - right, y2: py(flops) }));
      names.push(drawn("text", { class: "roof-name", x: width - right - 6, y: py(flops) - 6, "text-anchor": "end" }, `${name} ${rate(flops)}FLOP/s`));
    }
  }
  const longest = points[0].row.ns.median;
  const circles = points.map(({ row, x, y }, i) => {
    const radius = 3 + 19 * Math.sqrt(row.ns.median / longest);
    const circle = drawn("circle", {
      class: family(row), cx: px(x), cy: py(y), r: radius, tabindex: i === 0 ? 0 : -1, role: "img", "aria-label": describe(row),
    });
    circle.dataset.name = row.name;
    circle.append(drawn("title", {}, describe(row)));
    circle.addEventListener("mouseenter", () => mark(row.name));
    circle.addEventListener("focus", () => mark(row.name));
    const go = () => byId("body").querySelector("tr.marked")?.scrollIntoView({ block: "center" });
    circle.addEventListener("click", go);
    circle.addEventListener("keydown", (event) => {
      const by = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Enter") go();
      if (by === undefined) return;
      event.preventDefault();
      const next = circles[(i + by + circles.length) % circles.length];
      circle.setAttribute("tabindex", -1);
      next.setAttribute("tabindex", 0);
      next.focus();
    });
    return circle;
  });
  svg.replaceChildren(...parts, ...circles, ...names);
  const families = [["conv", "convolution"], ["matmul", "matrix product"], ["attention", "attention"], ["norm", "norm"], ["other", "other"]];
  const present = new Set(points.map(({ row }) => family(row)));
  byId("legend").replaceChildren(...families.filter(([name]) => present.has(name))
    .map(([name, words]) => element("span", { class: name }, element("i"), words)));
}

// --- memory over time ---

// What is in use is known of a plan's steps. Of what runs beside them it is what it is of the step before or after.
function inUse(stages) {
  const used = memory.map(([, , used]) => used);
  const stage = memory.map(([at]) => stages.filter((stage) => stage.begin <= at).pop());
  const fill = (i, from) => {
    if (used[i] === null && memory[from] && stage[from] === stage[i]) used[i] = used[from];
  };
  for (let i = 0; i < used.length; i++) fill(i, i - 1);
  for (let i = used.length - 1; i >= 0; i--) fill(i, i + 1);
  return used.map((used) => used ?? 0);
}

// The spans in runs that people know: steps of UNet and sampler in turn are the denoising.
function chapters() {
  const all = [];
  for (const [stage, , begin, ns] of spans) {
    const name = { unet: "denoising", sampler: "denoising", text_encoder: "text encoder", vae_decoder: "VAE decoder" }[stage] || stage;
    const last = all[all.length - 1];
    if (last && last.name === name) last.end = begin + ns;
    else all.push({ name, begin, end: begin + ns });
  }
  return all;
}

function memoryChart() {
  const [width, height, left, right, top, bottom] = [960, 280, 64, 16, 40, 40];
  const svg = byId("memory");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  const stages = chapters();
  const end = Math.max(1, ...stages.map((stage) => stage.end), ...memory.map(([at]) => at));
  const most = Math.max(1, ...memory.map(([, held]) => held));
  const px = (ns) => left + (ns / end) * (width - left - right);
  const py = (bytes) => height - bottom - (bytes / (most * 1.08)) * (height - top - bottom);
  const parts = [];
  const step = niceStep(most / 2 ** 20 / 4) * 2 ** 20;
  for (let bytes = 0; bytes <= most * 1.05; bytes += step) {
    parts.push(drawn("line", { class: "grid", x1: left, x2: width - right, y1: py(bytes), y2: py(bytes) }));
    parts.push(drawn("text", { x: left - 8, y: py(bytes) + 4, "text-anchor": "end" }, `${Number((bytes / 2 ** 20).toPrecision(3))} MiB`));
  }
  const tick = niceStep(end / 1e6 / 8) * 1e6;
  for (let ns = 0; ns <= end; ns += tick) {
    parts.push(drawn("text", { x: px(ns), y: height - bottom + 18, "text-anchor": "middle" }, String(Number((ns / 1e6).toPrecision(6)))));
  }
  parts.push(drawn("text", { x: (left + width - right) / 2, y: height - 6, "text-anchor": "middle" }, "ms"));
  stages.forEach((stage, i) => {
    const [x, wide] = [px(stage.begin), Math.max(1, px(stage.end) - px(stage.begin))];
    const bar = drawn("rect", { class: i % 2 ? "stage alternate" : "stage", x, y: 10, width: wide, height: 20 });
    bar.append(drawn("title", {}, `${stage.name}: ${time(stage.end - stage.begin)}`));
    parts.push(bar);
    if (wide > 7 * stage.name.length + 8) {
      parts.push(drawn("text", { class: "stage-name", x: x + wide / 2, y: 24, "text-anchor": "middle" }, stage.name));
    }
  });
  // level from point to point
  const path = (value) => memory.map(([at], i) => {
    const [x, y] = [px(at).toFixed(2), py(value(i)).toFixed(2)];
    return i === 0 ? `M${x},${y}` : `H${x}V${y}`;
  }).join("");
  if (memory.length > 0) {
    const close = `H${px(end).toFixed(2)}`;
    const ground = py(0).toFixed(2);
    const used = inUse(stages);
    parts.push(drawn("path", { class: "used", d: `${path((i) => used[i])}${close}V${ground}H${px(memory[0][0]).toFixed(2)}Z` }));
    parts.push(drawn("path", { class: "held", d: path((i) => memory[i][1]) + close }));
  }
  const cursor = drawn("line", { class: "cursor", y1: top - 4, y2: height - bottom, visibility: "hidden" });
  parts.push(cursor);
  svg.replaceChildren(...parts);

  let at = -1;
  const show = (i) => {
    if (memory.length === 0) return;
    at = Math.max(0, Math.min(memory.length - 1, i));
    const [begin, held, used] = memory[at];
    cursor.setAttribute("visibility", "visible");
    cursor.setAttribute("x1", px(begin));
    cursor.setAttribute("x2", px(begin));
    const stage = stages.filter((stage) => stage.begin <= begin).pop();
    const inUse = used === null ? "" : `, ${mebibytes(used)} in use`;
    byId("moment").textContent = `at ${ms(begin)} ms${stage ? `, ${stage.name}` : ""}: ${mebibytes(held)} held${inUse}`;
  };
  svg.addEventListener("mousemove", (event) => {
    const box = svg.getBoundingClientRect();
    const ns = ((((event.clientX - box.left) / box.width) * width - left) / (width - left - right)) * end;
    const after = memory.findIndex(([begin]) => begin > ns);
    show((after < 0 ? memory.length : after) - 1);
  });
  svg.addEventListener("keydown", (event) => {
    const by = { ArrowRight: 1, ArrowLeft: -1, PageUp: 50, PageDown: -50, Home: -Infinity, End: Infinity }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    show(at + by);
  });
}

// The smallest of 1, 2, 5, 10, 20 ... that is no less.
function niceStep(least) {
  const power = 10 ** Math.floor(Math.log10(Math.max(least, 1e-9)));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= least);
}

header();
tiles();
gains();
controls();
table();
roofline();
memoryChart();
stages();
