// What is drawn: histograms, channels, dispatch grids, the roofline, memory, maps of attention.

const theme = () => getComputedStyle(document.documentElement);
const colour = (name) => theme().getPropertyValue(name).trim();

// The numbers of a colour such as #1d1c1a.
const channelsOf = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

// Values from -1 to 1 as colours: towards one hue below zero, towards another above, the ground at zero.
function diverging() {
  const [low, zero, high] = ["--low", "--zero", "--high"].map((name) => channelsOf(colour(name)));
  return (value) => {
    const end = value < 0 ? low : high;
    const share = Math.min(1, Math.abs(value)) ** 0.8;
    return zero.map((from, i) => from + (end[i] - from) * share);
  };
}

// A value that few others exceed: 99.5 of 100 lie below it in size.
function reach(values) {
  const step = Math.max(1, Math.floor(values.length / 20000));
  const sizes = [];
  for (let i = 0; i < values.length; i += step) if (Number.isFinite(values[i])) sizes.push(Math.abs(values[i]));
  sizes.sort((a, b) => a - b);
  return sizes[Math.floor(sizes.length * 0.995)] || sizes[sizes.length - 1] || 1;
}

// --- histograms ---

function histogram(values, name) {
  const [width, height] = [230, 58];
  const most = Math.max(...values.bins, 1);
  const step = width / values.bins.length;
  const bars = values.bins.map((bin, i) => drawn("rect", { x: i * step, y: height - (bin / most) * height, width: Math.max(1, step - 1), height: (bin / most) * height }));
  const zero = values.min < 0 && values.max > 0 ? (-values.min / (values.max - values.min)) * width : null;
  if (zero !== null) bars.push(drawn("line", { class: "zero", x1: zero, x2: zero, y1: 0, y2: height }));
  const words = `${name}: ${whole(values.count)} values from ${number(values.min)} to ${number(values.max)}, mean ${number(values.mean)}, deviation ${number(values.deviation)}`;
  return element("figure", { class: "histogram" },
    drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": words }, ...bars),
    element("figcaption", {}, element("b", {}, name), ` ${number(values.min)} to ${number(values.max)}, mean ${number(values.mean)} \u00b1 ${number(values.deviation)}`,
      values.odd ? element("strong", {}, `, ${values.odd} not finite`) : ""));
}

// --- values as channels ---

// Channels of a tensor, side by side. `pick` is told of the place in the tensor that was clicked or gone to by keys.
function channelGrid(tensor, options = {}) {
  const values = valuesOf(tensor);
  const map = asMap(options.shape || tensor.shape, options.tokens);
  const limit = reach(values);
  const state = { image: options.image === undefined ? map.n - 1 : Math.min(options.image, map.n - 1), all: false, at: options.at };
  const most = Math.max(1, Math.floor((options.tiles || 48)));
  const frame = element("div", { class: "channels" });
  const readout = element("p", { class: "readout", "aria-live": "polite" });
  const canvas = element("canvas", { tabindex: options.pick ? 0 : null, role: "img", "aria-label": `${options.name || "values"}: ${map.matrix ? "a row for each token or image" : "each channel as a picture"}${options.pick ? "; arrow keys move the chosen element" : ""}` });
  let layout;

  const place = (channel, row, column) => ((state.image * map.h + row) * map.w + column) * map.c + channel;
  const indices = (index) => ({ channel: index % map.c, column: Math.floor(index / map.c) % map.w, row: Math.floor(index / map.c / map.w) % map.h, image: Math.floor(index / map.c / map.w / map.h) });

  function draw() {
    const shown = state.all ? map.c : Math.min(map.c, most);
    const width = options.width || 620;
    const wanted = map.matrix ? width : Math.min(options.tile || 72, width / Math.min(shown, 8));
    const scale = Math.max(1, Math.floor(wanted / map.w)) || 1;
    const cell = Math.max(1, Math.min(scale, map.matrix ? Math.max(1, Math.floor(320 / map.h)) : scale));
    const [tileW, tileH] = [map.w * (map.matrix ? scale : cell), map.h * cell];
    const across = Math.max(1, Math.min(shown, Math.floor(width / (tileW + 3))));
    layout = { across, tileW, tileH, sx: map.matrix ? scale : cell, sy: cell };
    canvas.width = across * (tileW + 3) - 3;
    canvas.height = Math.ceil(shown / across) * (tileH + 3) - 3;
    const pen = canvas.getContext("2d");
    const paint = diverging();
    for (let c = 0; c < shown; c++) {
      const picture = new ImageData(tileW, tileH);
      for (let y = 0; y < tileH; y++) {
        for (let x = 0; x < tileW; x++) {
          const value = values[place(c, Math.floor(y / layout.sy), Math.floor(x / layout.sx))] / limit;
          const [r, g, b] = paint(Number.isFinite(value) ? value : 0);
          picture.data.set([r, g, b, 255], (y * tileW + x) * 4);
        }
      }
      pen.putImageData(picture, (c % across) * (tileW + 3), Math.floor(c / across) * (tileH + 3));
    }
    if (state.at !== undefined) {
      const at = indices(state.at);
      if (at.image === state.image && at.channel < shown) {
        pen.strokeStyle = colour("--ink");
        pen.lineWidth = 2;
        const [x, y] = [(at.channel % across) * (tileW + 3) + at.column * layout.sx, Math.floor(at.channel / across) * (tileH + 3) + at.row * layout.sy];
        pen.strokeRect(x - 1, y - 1, layout.sx + 2, layout.sy + 2);
      }
    }
  }

  function say(index) {
    const at = indices(index);
    const words = map.matrix ? `[${map.n > 1 ? `${at.image}, ` : ""}${at.row}, ${at.column}]` : `image ${at.image}, row ${at.row}, column ${at.column}, channel ${at.channel}`;
    readout.textContent = `${words}: ${number(values[index])}`;
  }

  const under = (event) => {
    const box = canvas.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * canvas.width;
    const y = ((event.clientY - box.top) / box.height) * canvas.height;
    const [tx, ty] = [Math.floor(x / (layout.tileW + 3)), Math.floor(y / (layout.tileH + 3))];
    const channel = ty * layout.across + tx;
    const [column, row] = [Math.floor((x - tx * (layout.tileW + 3)) / layout.sx), Math.floor((y - ty * (layout.tileH + 3)) / layout.sy)];
    return tx < layout.across && channel < map.c && column < map.w && row < map.h ? place(channel, row, column) : null;
  };
  const choose = (index) => {
    state.at = index;
    draw();
    say(index);
    options.pick(index);
  };
  canvas.addEventListener("mousemove", (event) => {
    const index = under(event);
    if (index !== null) say(index);
  });
  if (options.pick) {
    canvas.classList.add("picks");
    canvas.addEventListener("click", (event) => {
      const index = under(event);
      if (index !== null) choose(index);
    });
    canvas.addEventListener("keydown", (event) => {
      const moves = { ArrowLeft: [0, 0, -1], ArrowRight: [0, 0, 1], ArrowUp: [0, -1, 0], ArrowDown: [0, 1, 0], PageUp: [-1, 0, 0], PageDown: [1, 0, 0] };
      const move = moves[event.key];
      if (!move) return;
      event.preventDefault();
      const at = indices(state.at === undefined ? place(0, 0, 0) : state.at);
      const within = (value, size) => Math.max(0, Math.min(size - 1, value));
      choose(place(within(at.channel + move[0], map.c), within(at.row + move[1], map.h), within(at.column + move[2], map.w)));
    });
  }
  const controls = element("div", { class: "controls" });
  if (map.n > 1) {
    const images = map.n === 2 && run.cfg_scale > 1 ? ["without the prompt", "with the prompt"] : Array.from({ length: map.n }, (_, i) => `image ${i}`);
    const names = options.names && options.names.length === map.n ? options.names : images;
    const select = element("select", { "aria-label": "image", onchange: () => {
      state.image = Number(select.value);
      draw();
    } }, names.map((name, i) => element("option", { value: i, selected: i === state.image }, name)));
    controls.append(select);
  }
  if (map.c > most) {
    const button = element("button", { type: "button", onclick: () => {
      state.all = !state.all;
      button.textContent = state.all ? `first ${most} channels` : `all ${map.c} channels`;
      draw();
    } }, `all ${map.c} channels`);
    controls.append(button);
  }
  if (options.pick && !map.matrix) controls.append(element("span", { class: "faint" }, "click, or arrow keys and Page Up/Down"));
  controls.append(element("span", { class: "scale" }, element("i"), `\u00b1${number(limit)}`));
  frame.append(controls, canvas, readout);
  draw();
  if (state.at !== undefined) say(state.at);
  redraws.push([canvas, draw]);
  return frame;
}

// Canvases to be drawn again when the theme changes.
let redraws = [];

// --- the dispatch grid ---

function dispatchGrid(node, kernel) {
  if (!node.workgroups) return element("p", {}, "This ran as a CPU twin, which has no workgroups.");
  const groups = product(node.workgroups);
  const lanes = kernel.lanes || 1;
  const shown = Math.min(groups, 240);
  const across = Math.min(shown, 24);
  const rows = Math.ceil(shown / across);
  const size = 9;
  const squares = Array.from({ length: shown }, (_, i) => drawn("rect", { class: i === 0 ? "first" : "", x: (i % across) * (size + 2), y: Math.floor(i / across) * (size + 2), width: size, height: size }));
  const laneAcross = lanes > 64 ? 16 : 8;
  const laneRows = Math.ceil(lanes / laneAcross);
  const left = across * (size + 2) + 50;
  const dot = 8;
  const dots = Array.from({ length: lanes }, (_, i) => drawn("circle", { class: i === 0 ? "first" : "", cx: left + (i % laneAcross) * dot + 4, cy: Math.floor(i / laneAcross) * dot + 4, r: 2.6 }));
  const [width, height] = [left + laneAcross * dot + 4, Math.max(rows * (size + 2), laneRows * dot) + 4];
  const lens = [drawn("path", { class: "lens", d: `M ${size} 0 L ${left - 6} 0 M ${size} ${size} L ${left - 6} ${laneRows * dot}` })];
  const words = `${whole(groups)} workgroups of ${lanes} invocations`;
  const values = product(output(node).shape);
  const each = values / groups / lanes;
  return element("div", { class: "grid-drawing" },
    drawn("svg", { viewBox: `0 0 ${width} ${height}`, style: `max-width:${width * 1.25}px`, role: "img", "aria-label": words }, ...lens, ...squares, ...dots),
    element("p", {}, element("b", {}, words), ` (${times(node.workgroups)})${shown < groups ? `, ${shown} of them drawn` : ""}. Squares are workgroups; the dots are the invocations (threads) of the first. `,
      `${whole(groups * lanes)} threads make ${whole(values)} values: ${each >= 1 ? `about ${digits(each, each < 10 ? 1 : 0)} each` : `${digits(1 / each, 0)} threads work together on each`}.`));
}

// --- the roofline ---

function roofline(node) {
  // products in half precision could be done by cooperative matrices, where the device has them
  const roof = run.roof && { ...run.roof, f32_flops: node.peak || run.roof.f32_flops };
  if (!roof) return element("p", {}, "The roof of this device was not measured.");
  const all = components[node.component].nodes.filter((other) => other.flops > 0 && nodeTime(other) > 0);
  const [width, height, left, bottom] = [430, 210, 48, 34];
  const point = (other) => [other.flops / other.bytes, other.flops / (nodeTime(other) / 1e9)];
  const xs = all.map((other) => point(other)[0]).concat([0.1, (4 * roof.f32_flops) / roof.copy_bytes]);
  const ys = all.map((other) => point(other)[1]).concat([roof.f32_flops * 1.6]);
  const range = (values) => [Math.log10(Math.min(...values)) - 0.1, Math.log10(Math.max(...values)) + 0.1];
  const [[x0, x1], [y0, y1]] = [range(xs), range(ys)];
  const x = (value) => left + ((Math.log10(value) - x0) / (x1 - x0)) * (width - left - 8);
  const y = (value) => 8 + (1 - (Math.log10(value) - y0) / (y1 - y0)) * (height - bottom - 8);
  const parts = [];
  for (let power = Math.ceil(x0); power <= x1; power++) {
    parts.push(drawn("line", { class: "rule", x1: x(10 ** power), x2: x(10 ** power), y1: 8, y2: height - bottom }));
    parts.push(drawn("text", { x: x(10 ** power), y: height - 20, "text-anchor": "middle" }, String(10 ** power >= 1 ? 10 ** power : digits(10 ** power, -power))));
  }
  for (let power = Math.ceil(y0); power <= y1; power++) {
    parts.push(drawn("line", { class: "rule", x1: left, x2: width - 8, y1: y(10 ** power), y2: y(10 ** power) }));
    parts.push(drawn("text", { x: left - 5, y: y(10 ** power) + 4, "text-anchor": "end" }, scaled(10 ** power, ["", "k", "M", "G", "T"], 1000).replace(/\.0+/, "")));
  }
  const ridge = roof.f32_flops / roof.copy_bytes;
  const lowest = 10 ** y0;
  const start = Math.max(10 ** x0, lowest / roof.copy_bytes);
  parts.push(drawn("path", { class: "roof", d: `M ${x(start)} ${y(start * roof.copy_bytes)} L ${x(ridge)} ${y(roof.f32_flops)} L ${width - 8} ${y(roof.f32_flops)}` }));
  for (const other of all) if (other !== node) parts.push(drawn("circle", { class: "other", cx: x(point(other)[0]), cy: y(point(other)[1]), r: 2.2 }));
  let words = "It multiplies and adds nothing, so that it has no place on the roofline: only its bytes count.";
  if (node.flops > 0 && nodeTime(node) > 0) {
    const [intensity, rate] = point(node);
    parts.push(drawn("circle", { class: "this", cx: x(intensity), cy: y(rate), r: 6 }));
    words = `${digits(intensity, 2)} flop for each byte it must move: the roof there is ${flop(Math.min(roof.f32_flops, intensity * roof.copy_bytes))}/s, and it reaches ${flop(rate)}/s.`;
  }
  const bound = { compute: "bound by arithmetic", memory: "bound by memory", launch: "so small that starting it takes longer" }[node.bound];
  const share = node.least_ns ? `At the roof it would take ${time(node.least_ns)}; it took ${time(nodeTime(node))}${bound ? ` (${bound})` : ""}.` : "";
  return element("div", {}, drawn("svg", { class: "roofline", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": words }, ...parts,
    drawn("text", { x: width - 8, y: height - 5, "text-anchor": "end" }, "operations per byte"), drawn("text", { x: left + 5, y: 12 }, "flop/s")),
  element("p", {}, `${words} ${share} The small dots are the other dispatches of ${components[node.component].name}.`));
}

// --- WGSL ---

const keywords = /\b(fn|let|var|const|override|struct|return|if|else|for|loop|break|continue|while|alias|enable|import|switch|case|default|discard)\b/;
const tokens = new RegExp(`(//.*$)|(@[a-z_]+)|${keywords.source}|\\b(f32|f16|u32|i32|bool|vec[234]|array|mat\\d|Elem4?|Weight4?|WeightWord)\\b|\\b(\\d[\\w.]*)\\b`, "g");

function codeLine(text) {
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(tokens)) {
    parts.push(text.slice(end, match.index));
    const kind = match[1] ? "comment" : match[2] ? "attribute" : match[3] ? "keyword" : match[4] ? "type" : "literal";
    parts.push(element("span", { class: kind }, match[0]));
    end = match.index + match[0].length;
  }
  return [...parts, text.slice(end)];
}

function code(kernel) {
  const lines = kernel.text.split("\n");
  const filled = new Set(kernel.filled);
  const rows = (from, to) => lines.slice(from, to).map((text, i) => element("div", { class: filled.has(from + i + 1) ? "filled" : "" },
    element("span", { class: "number" }, String(from + i + 1)), element("code", {}, ...codeLine(text), "\n")));
  const box = element("div", { class: "code", tabindex: 0, role: "region", "aria-label": `${kernel.file}, ${kernel.own_lines} lines` }, rows(0, kernel.own_lines));
  if (lines.length > kernel.own_lines) {
    box.append(element("details", {}, element("summary", {}, `what it imports: ${lines.length - kernel.own_lines} lines of shaders/lib and of this variant`), rows(kernel.own_lines, lines.length)));
  }
  return box;
}

// --- heat maps ---

function heatColour(share) {
  const stops = [[0, 0, 0], [60, 10, 90], [180, 40, 80], [250, 140, 30], [255, 250, 170]];
  const place = Math.min(0.9999, Math.max(0, share)) * (stops.length - 1);
  const [at, rest] = [Math.floor(place), place % 1];
  return stops[at].map((from, i) => from + (stops[at + 1][i] - from) * rest);
}

// The mean of a word's maps over steps and layers, at the latents' size, between their places as pictures are enlarged.
function heatOf(side, word, steps, module) {
  const [h, w] = settings.latents;
  const sum = new Float32Array(h * w);
  let maps = 0;
  for (const step of steps) {
    for (const layer of step.heat.layers) {
      if (module && layer.module !== module) continue;
      const [, rows, columns] = layer.maps.shape;
      const values = valuesOf(layer.maps).subarray(word * rows * columns, (word + 1) * rows * columns);
      for (let y = 0; y < h; y++) {
        for (let x = 0; x < w; x++) {
          const [v, u] = [Math.min(rows - 1, Math.max(0, ((y + 0.5) * rows) / h - 0.5)), Math.min(columns - 1, Math.max(0, ((x + 0.5) * columns) / w - 0.5))];
          const [v0, u0] = [Math.floor(v), Math.floor(u)];
          const [v1, u1] = [Math.min(rows - 1, v0 + 1), Math.min(columns - 1, u0 + 1)];
          const row = (r) => values[r * columns + u0] * (1 - (u - u0)) + values[r * columns + u1] * (u - u0);
          sum[y * w + x] += row(v0) * (1 - (v - v0)) + row(v1) * (v - v0);
        }
      }
      maps += 1;
    }
  }
  return maps ? sum.map((value) => value / maps) : null;
}

// A map over a picture: bright where the word is attended to, the picture dark elsewhere.
function heatTile(heat, top, picture, size) {
  const [h, w] = settings.latents;
  const canvas = element("canvas", { width: size, height: Math.round((size * h) / w), role: "img" });
  const small = document.createElement("canvas");
  [small.width, small.height] = [w, h];
  const pixels = new ImageData(w, h);
  heat.forEach((value, i) => {
    const share = Math.min(1, value / top);
    pixels.data.set([...heatColour(share), 90 + 150 * Math.abs(share - 0.35)], i * 4);
  });
  small.getContext("2d").putImageData(pixels, 0, 0);
  const pen = canvas.getContext("2d");
  const image = new Image();
  image.onload = () => {
    pen.filter = "grayscale(0.6)";
    pen.drawImage(image, 0, 0, canvas.width, canvas.height);
    pen.filter = "none";
    pen.imageSmoothingQuality = "high";
    pen.drawImage(small, 0, 0, canvas.width, canvas.height);
  };
  image.src = picture;
  return canvas;
}

// --- memory ---

function memoryChart(component, tell) {
  const [width, left] = [1100, 70];
  const steps = component.nodes.length;
  const order = component.slots.map((size, slot) => [size, slot]).sort((a, b) => b[0] - a[0]);
  const largest = Math.max(...component.slots, 1);
  const x = (step) => left + (step / steps) * (width - left - 4);
  const parts = [];
  let y = 6;
  for (const [size, slot] of order) {
    const height = Math.max(9, (size / largest) * 46);
    parts.push(drawn("rect", { class: "slot", x: left, y, width: width - left - 4, height }));
    parts.push(drawn("text", { x: left - 6, y: y + height / 2 + 4, "text-anchor": "end" }, bytes(size)));
    for (const tenant of component.tenants.filter((tenant) => tenant.slot === slot)) {
      const node = component.nodes[tenant.first];
      const used = Math.max(3, height * (tenant.bytes / size));
      parts.push(drawn("rect", { class: `tenant ${family(node.op)}`, x: x(tenant.first), y: y + height - used, width: Math.max(1.5, x(tenant.last + 1) - x(tenant.first) - 0.6), height: used },
        drawn("title", {}, `${node.module}: ${times(output(node).shape)}, ${bytes(tenant.bytes)}, from dispatch ${tenant.first} to ${tenant.last}`)));
    }
    y += height + 4;
  }
  const slotsEnd = y;
  const alive = component.nodes.map((_, step) => component.tenants.filter((tenant) => tenant.first <= step && tenant.last >= step).reduce((sum, tenant) => sum + tenant.bytes, 0));
  const total = component.slots.reduce((a, b) => a + b, 0);
  const height = 90;
  const level = (value) => slotsEnd + 14 + height * (1 - value / Math.max(total, 1));
  const outline = alive.map((value, step) => `L ${x(step)} ${level(value)} L ${x(step + 1)} ${level(value)}`).join(" ");
  parts.push(drawn("path", { class: "used", d: `M ${x(0)} ${level(0)} ${outline} L ${x(steps)} ${level(0)} Z` }));
  parts.push(drawn("line", { class: "held", x1: left, x2: width - 4, y1: level(total), y2: level(total) }));
  parts.push(drawn("text", { x: left - 6, y: level(total) + 4, "text-anchor": "end" }, bytes(total)));
  parts.push(drawn("text", { x: left - 6, y: level(0) + 4, "text-anchor": "end" }, "0"));
  const cursor = drawn("line", { class: "cursor", y1: 0, y2: level(0) });
  parts.push(cursor);
  const svg = drawn("svg", { class: "memory", viewBox: `0 0 ${width} ${level(0) + 8}`, tabindex: 0, role: "img", "aria-label": "Memory over the dispatches: arrow keys move the cursor" }, ...parts);
  let at = 0;
  const go = (step) => {
    at = Math.max(0, Math.min(steps - 1, step));
    for (const end of ["x1", "x2"]) cursor.setAttribute(end, x(at + 0.5));
    tell(at, alive[at], component.tenants.filter((tenant) => tenant.first <= at && tenant.last >= at));
  };
  svg.addEventListener("mousemove", (event) => {
    const box = svg.getBoundingClientRect();
    go(Math.floor(((((event.clientX - box.left) / box.width) * width - left) / (width - left - 4)) * steps));
  });
  svg.addEventListener("keydown", (event) => {
    const move = { ArrowLeft: -1, ArrowRight: 1, PageUp: -10, PageDown: 10 }[event.key];
    if (!move) return;
    event.preventDefault();
    go(at + move);
  });
  go(alive.indexOf(Math.max(...alive)));
  return svg;
}
