// The views, and the way from one to another: #overview, #steps, #words, #memory, #guide, #in/unet.down_blocks.0, #node/1/23.

const byId = (id) => document.getElementById(id);
const link = (hash, ...children) => element("a", { href: `#${hash}` }, ...children);
// Pictures of few pixels are shown as such.
const picture = (src, words, size) => element("img", { src, alt: words, width: size, class: run.width <= 64 ? "pixels crisp" : "pixels" });
// Whether the model works on the picture itself.
const inPixels = figures.latent_elements === figures.picture_elements;
const componentNames = { text_encoder: "Text encoder", unet: "UNet", vae: "Decoder" };
const componentName = (name) => componentNames[name] || name;
const section = (title, ...children) => element("section", {}, element("h2", {}, title), ...children);
const facts = (pairs) => element("dl", { class: "facts" }, pairs.filter(Boolean).map(([name, value, note]) => element("div", {}, element("dt", {}, name), element("dd", {}, value), note ? element("dd", { class: "note" }, note) : "")));

const views = [["overview", "Overview"], ["steps", "Steps"], ["words", "Words"], ["in", "Layers"], ["memory", "Memory"], ["guide", "Guide"]];

// --- overview ---

function overview() {
  const [side] = sides;
  const edges = [
    `${side.words.reduce((most, word) => Math.max(most, word.tokens[1]), 0)} tokens`,
    `context ${times(contextShape())}`,
    inPixels ? null : `latents ${times(settings.latents)}`,
    `picture ${run.height}\u00d7${run.width}\u00d73`,
  ].filter(Boolean);
  const parts = components.map((component, number) => {
    const tree = trees[number];
    const calls = component.calls || 1;
    const name = component.name === "unet" ? `UNet, ${calls} times` : componentName(component.name);
    return link(`in/${component.name}`, element("h3", {}, name),
      element("dl", {}, ...[["parameters", count(component.parameters)], ["operations", `${flop(tree.flops)}${calls > 1 ? " each" : ""}`], ["moves at least", bytes(tree.bytes)], ["kernel time", `${time(tree.ns)}${calls > 1 ? " each" : ""}`], component.once && ["once before", time(onceTime(component))], ["dispatches", String(component.nodes.length)]].filter(Boolean)
        .flatMap(([term, value]) => [element("dt", {}, term), element("dd", {}, value)])));
  });
  const chain = element("div", { class: "pipeline" });
  edges.forEach((edge, i) => {
    chain.append(element("span", { class: "edge" }, edge));
    if (parts[i]) chain.append(parts[i]);
  });
  const box = element("div", { class: "hero" }, picture(side.picture, `the picture of \u201c${side.prompt}\u201d`, 232),
    element("div", {}, element("p", { class: "prompt" }, `\u201c${side.prompt || "(no prompt)"}\u201d`),
      element("p", { class: "faint" }, `${run.model}, ${run.width}\u00d7${run.height}, ${run.steps} steps of ${run.sampler}, guidance ${run.cfg_scale}, seed ${settings.seed}; ${run.device}, ${run.precision}`),
      element("p", {}, "Everything here was recorded while this picture was drawn: what ran, on what numbers, for how long. Nothing is an illustration."),
      element("ul", { class: "questions" },
        element("li", {}, link(nodeHash(find("group_norm")), "What does one thread of group_norm do?")),
        element("li", {}, link("words", "Which word lights up which part of the picture?")),
        element("li", {}, link("steps", "How does noise become a picture?")),
        element("li", {}, link(nodeHash(find("conv2d")), "Take one number of a convolution apart")))));
  const again = document.documentElement.hasAttribute("data-live") ? runAgain() : "";
  return [box, again, section("From words to a picture", chain), inPixels ? "" : latents()];
}

function contextShape() {
  const text = components.find((component) => component.name === "text_encoder");
  return text ? output(text.nodes[text.nodes.length - 1]).shape : [];
}

// The first dispatch of an op, one whose values are here if there is one.
function find(op) {
  const all = components.flatMap((component) => component.nodes).filter((node) => node.op === op);
  const inUnet = (node) => components[node.component].name === "unet";
  return all.find((node) => inUnet(node) && explains(node)) || all.find(explains) || all[0] || components[0].nodes[0];
}

function latents() {
  const f = figures;
  const ratio = (a, b) => `${digits(a / b, a / b >= 10 ? 0 : 1)} times`;
  const unet = components.findIndex((component) => component.name === "unet");
  const calls = unet < 0 ? 1 : components[unet].calls;
  const rows = [
    ["Numbers to find", `${whole(f.picture_elements)} in ${run.height}\u00d7${run.width}\u00d73`, `${whole(f.latent_elements)} in ${times(settings.latents)}`, ratio(f.picture_elements, f.latent_elements)],
    f.pixel_flops && ["Operations of one call of the UNet", flop(f.pixel_flops), flop(f.unet_flops), ratio(f.pixel_flops, f.unet_flops)],
    f.pixel_flops && [`Operations of all ${calls} calls, and of the decoder that latents need once`, flop(f.pixel_flops * calls), flop(f.unet_flops * calls + f.decoder_flops), ratio(f.pixel_flops * calls, f.unet_flops * calls + f.decoder_flops)],
    f.pixel_bytes && ["Bytes that one call must move", bytes(f.pixel_bytes), bytes(f.unet_bytes), ratio(f.pixel_bytes, f.unet_bytes)],
    f.pixel_memory && ["Memory for its activations", bytes(f.pixel_memory), bytes(f.unet_memory), ratio(f.pixel_memory, f.unet_memory)],
  ].filter(Boolean);
  const table = element("table", {}, element("thead", {}, element("tr", {}, ["", "over pixels", "over latents, as it ran", "cheaper by"].map((name) => element("th", { scope: "col" }, name)))),
    element("tbody", {}, rows.map(([name, ...cells]) => element("tr", {}, element("th", { scope: "row" }, name), cells.map((cell, i) => element("td", { class: i === 2 ? "strong" : "" }, cell))))));
  return section("Why latents are cheaper", element("p", {}, `A picture is ${whole(f.picture_elements)} numbers; its latents are ${whole(f.latent_elements)}. All ${calls} calls of the UNet work on the small ones, and the decoder makes a picture of them once, at the end. `,
    "The column \u201cover pixels\u201d is counted from the plan of this same UNet with a place for every pixel; the other is this run's own."), element("div", { class: "scroll" }, table));
}

function runAgain() {
  const field = (name, value, kind) => element("label", {}, `${name} `, element("input", { name, value, type: kind, step: "any" }));
  const status = element("span", { "aria-live": "polite" });
  const form = element("form", { class: "again", onsubmit: async (event) => {
    event.preventDefault();
    const asked = Object.fromEntries(new FormData(form));
    status.textContent = "running \u2026";
    const body = JSON.stringify({ prompt: asked.prompt, seed: asked.seed, cfg_scale: Number(asked.guidance) });
    const answer = await fetch("run", { method: "POST", body }).catch((error) => ({ ok: false, text: async () => String(error) }));
    if (answer.ok) location.reload();
    else status.textContent = await answer.text();
  } }, field("prompt", sides[0].prompt, "text"), field("seed", settings.seed, "text"), field("guidance", run.cfg_scale, "number"), element("button", {}, "Run again"), status);
  return form;
}

// --- a component or block ---

function crumbs(path, last) {
  const parts = pathOf(path);
  const items = [link("overview", "pipeline")];
  parts.forEach((part, i) => {
    const here = parts.slice(0, i + 1).join(".");
    items.push(" \u203a ", i + 1 === parts.length && !last ? element("b", {}, componentName(part)) : link(`in/${here}`, componentName(part)));
  });
  if (last) items.push(" \u203a ", element("b", {}, last));
  return items;
}

function block(path) {
  const wanted = path || (components.find((component) => component.name === "unet") || components[0]).name;
  const number = components.findIndex((component) => component.name === pathOf(wanted)[0]);
  const place = number < 0 ? null : branchAt(number, wanted);
  if (!place) return [element("p", {}, `There is no ${wanted} in this run.`)];
  byId("where").replaceChildren(...crumbs(wanted));
  const chooser = element("div", { class: "chooser" }, components.map((component) => element("a", { href: `#in/${component.name}`, "aria-current": component.name === pathOf(wanted)[0] ? "true" : null }, componentName(component.name))));
  const numbers = facts([["Parameters", count(parameters(place))], ["Operations", flop(place.flops), place.nodes.some(runsOnce) ? "in one call, without what is worked out once for all" : "in one call"], ["Moves at least", bytes(place.bytes)], ["Kernel time", time(place.ns), components[number].calls > 1 ? `medians of ${components[number].calls} calls` : "one call"], ["Dispatches", String(place.nodes.length)]]);
  const own = place.nodes.filter((node) => node.module === place.path);
  const longest = Math.max(...[...place.children.values()].map((child) => child.ns), ...own.map(nodeTime), 1e-9);
  // blocks and the block's own dispatches, in the order in which they run
  const items = [...place.children.values()].map((child) => [eachCall(child)[0].number, blockRow(child, longest)]).concat(own.map((node) => [node.number, nodeRow(node, longest)]));
  items.sort((a, b) => a[0] - b[0]);
  const head = ["", "in", "out", "parameters", "operations", "moves", "time", ""].map((name, i) => element("th", { scope: "col", class: i > 2 && i < 7 ? "right" : "" }, name));
  return [chooser, element("h2", { class: "module" }, wanted), numbers, element("div", { class: "scroll" }, element("table", { class: "blocks" }, element("thead", {}, element("tr", {}, head)), element("tbody", {}, items.map(([, row]) => row))))];
}

function row(name, hash, hint, input, result, weights, flops, moved, ns, longest, kind) {
  const cells = [times(input), times(result), weights ? count(weights) : "", flops ? flop(flops) : "", bytes(moved), time(ns)];
  return element("tr", {}, element("th", { scope: "row" }, link(hash, element("i", { class: `dot ${kind}` }), name), hint ? element("span", { class: "faint" }, ` ${hint}`) : ""),
    cells.map((cell, i) => element("td", { class: i > 1 ? "right" : "" }, cell)),
    element("td", { class: "track" }, element("i", { class: kind, style: `width:${Math.min(100, (100 * ns) / longest)}%` })));
}

// The dispatches of a block that run in each call, or all if none does.
function eachCall(place) {
  const main = place.nodes.filter((node) => !runsOnce(node));
  return main.length ? main : place.nodes;
}

function blockRow(child, longest) {
  const only = child.children.size === 0 && child.nodes.length === 1 ? child.nodes[0] : null;
  const main = eachCall(child);
  const [first, last, once] = [main[0], main[main.length - 1], runsOnce(main[0])];
  const hint = `${only ? only.op : `${child.nodes.length} dispatches`}${once ? ", once for all steps" : ""}`;
  const sum = (of) => child.nodes.reduce((total, node) => total + of(node), 0);
  const [flops, moved, ns] = once ? [sum((node) => node.flops), sum((node) => node.bytes), sum(nodeTime)] : [child.flops, child.bytes, child.ns];
  return row(child.name, only ? nodeHash(only) : `in/${child.path}`, hint, first.operands[0].shape, output(last).shape, parameters(child), flops, moved, ns, longest, only ? family(only.op) : "other");
}

function nodeRow(node, longest) {
  return row(node.op, nodeHash(node), `${node.shape}${runsOnce(node) ? ", once for all steps" : ""}`, node.operands[0].shape, output(node).shape, 0, node.flops, node.bytes, nodeTime(node), longest, family(node.op));
}

// --- a dispatch ---

const nodeHash = (node) => `node/${node.component}/${node.number}`;

// What one invocation of a kernel does, with this variant's numbers; where there are no words of our own, the file's.
function threadStory(node, kernel) {
  const constants = Object.fromEntries([...kernel.variant.matchAll(/([A-Z_]+)=([\d.]+)/g)].map(([, name, value]) => [name, Number(value)]));
  const p = node.params;
  const perGroup = p.groups ? p.c / p.groups : 0;
  const steps = `For each value it reads x once, subtracts its group's mean, divides by the group's standard deviation, multiplies by the channel's gamma, adds the channel's beta${node.act ? `, applies ${node.act}` : ""}, and writes y once`;
  const c = constants;
  const every = (step) => ({ 1: "every", 2: "every second", 3: "every third" })[step] || `every ${step}th`;
  const tile = (rows, columns) => `The ${c.LANES} threads of its workgroup are one subgroup: they run in step and can hand each other values. Together they make a block of ${c.ROWS} ${rows} by ${2 * c.PAIRS * c.LANES} ${columns} of y. ` +
    `This thread keeps the sums of ${2 * c.PAIRS} ${columns} for all ${c.ROWS} ${rows} in registers. For each two neighbouring values of k it loads its own inputs (${c.GROUPS} ${rows}) and its own weights, is handed the other ${rows}' inputs by its neighbours, and so does ${c.ROWS} \u00d7 ${4 * c.PAIRS} multiply-adds`;
  const stories = {
    matmul_subgroup: `${tile("rows", "columns")}; k has ${p.k} values. Then it adds the bias and what else is added, and writes its values.`,
    conv2d_subgroup: `${tile("pixels", "channels")}. k goes over the ${p.window_h}\u00d7${p.window_w} window and its ${p.c} channels, ${whole(p.window_h * p.window_w * p.c)} values. Then it adds the bias and what else is added, and writes its values.`,
    attention_subgroup: `It has ${c.OWN} ${c.OWN === 1 ? "query" : "queries"} of one head, and goes over all ${p.keys} keys. The subgroup loads ${c.LANES} numbers of a key at once and hands each of them to all its threads; the thread multiplies them with its queries and adds up: the score. It keeps the greatest score so far, adds the key's value weighted by exp(score \u2212 greatest) to its result, and in the end divides by the sum of those weights.`,
    group_norm_stats_columns: `It keeps to one column of four neighbouring channels and goes down ${every(c.ROWS)} pixel of its chunk of ${p.chunk} pixels, once. It sums up the differences from its first value and their squares. Then the threads of the workgroup merge what they have into the mean and the sum of squared differences of each group (${perGroup} channels).`,
    group_norm: `Its workgroup has one group (${perGroup} channels) of one image, over ${constants.BLOCK} pixels. The ${kernel.lanes} threads first merge the means that group_norm_stats left for parts of the image into the group's mean and deviation, together. Then thread l takes values l, l + ${kernel.lanes}, l + ${2 * kernel.lanes} ... of the block. ${steps}.`,
    group_norm_columns: `The ${kernel.lanes} threads of its workgroup first work out, together, the mean and standard deviation of each group of channels that they need, from what group_norm_stats left for parts of the image (${perGroup} channels \u00d7 ${p.pixels} pixels are a group). Then the thread keeps to one column of four neighbouring channels and goes down the block of ${constants.BLOCK} pixels, ${every(c.STEP)} pixel, four values at a time. ${steps}.`,
    group_norm_whole: `Its workgroup has one group (${perGroup} channels) of one image, ${whole(perGroup * p.pixels)} values. Thread l takes values l, l + ${kernel.lanes}, l + ${2 * kernel.lanes} ... and keeps them in workgroup memory. The threads add up what they took, for the mean; then the squared differences from it, for the deviation. ${steps}.`,
    group_norm_whole_columns: `Its workgroup has one group (${perGroup} channels) of one image, ${whole(perGroup * p.pixels)} values. The thread keeps to one column of four neighbouring channels and goes down ${every(c.STEP)} pixel, four values at a time, which it keeps in workgroup memory. The threads add up what they took, for the mean; then the squared differences from it, for the deviation. ${steps}.`,
    layer_norm: `Its workgroup has one row of ${p.c} values (a token). The threads add up shares of the row, and of the squared differences from its mean; then each normalises every ${kernel.lanes}th value of the row.`,
    geglu: "It makes one value: it reads one number of the row's first half and its partner of the second, and writes the first times the GELU of the second.",
    add: "It makes one value: it reads one number of a and one of b and writes their sum.",
    activation: `It makes one value: ${node.act} of the one number that it reads.`,
    upsample: "It makes one value: it copies the nearest pixel's.",
    concat: "It makes one value: it copies it from a, or from b for the channels beyond a's.",
    matmul: `It makes one value of y: it goes along a row of x and a column of w, ${p.k} products, and adds them up.`,
    conv2d: `It makes one value of y: it goes over the ${p.window_h}\u00d7${p.window_w} window and all ${p.c} channels, ${p.window_h * p.window_w * p.c} products, and adds them up.`,
  };
  return stories[kernel.name] || "";
}

function layer(component, at) {
  const node = components[component] && components[component].nodes[at];
  if (!node) return [element("p", {}, "There is no such dispatch in this run.")];
  const kernel = kernels[node.kernel];
  const nodes = components[component].nodes;
  byId("where").replaceChildren(...crumbs(node.module, node.op), element("span", { class: "around" },
    nodes[at - 1] ? link(nodeHash(nodes[at - 1]), "\u2190 before") : "", ` dispatch ${at + 1} of ${nodes.length} `, nodes[at + 1] ? link(nodeHash(nodes[at + 1]), "next \u2192") : ""));
  const calls = node.ns.length;
  const numbers = facts([["Operations", flop(node.flops)], ["Moves at least", bytes(node.bytes)], ["Time", time(nodeTime(node)), calls > 1 ? `median of ${calls}: ${time(Math.min(...node.ns))} to ${time(Math.max(...node.ns))}` : runsOnce(node) ? "once for all steps, before the first" : "ran once"],
    ["Parameters", count(node.operands.filter((operand) => operand.from.weight).reduce((sum, operand) => sum + product(operand.shape), 0))]]);
  const operandRows = node.operands.map((operand) => element("tr", {}, element("th", { scope: "row" }, element("code", {}, operand.name)),
    element("td", { class: "whole" }, times(operand.shape)), element("td", { class: "right" }, bytes(operand.bytes)), element("td", {}, whence(operand, nodes)),
    element("td", { class: "right" }, operand.values ? `${number(operand.values.min)} to ${number(operand.values.max)}` : "")));
  const story = threadStory(node, kernel);
  const left = element("div", {},
    section("Equation", element("pre", { class: "equation" }, element("code", {}, kernel.equation)), node.act ? element("p", {}, `act is ${node.act}.`) : ""),
    section("What goes in, what comes out", element("div", { class: "scroll" }, element("table", {}, element("tbody", {}, operandRows)))),
    section("What one thread does", story ? element("p", {}, story) : "", element("p", { class: story ? "faint" : "" }, `The file says: ${kernel.grid}.`), dispatchGrid(node, kernel)),
    section("Place on the roofline", roofline(node)));
  const right = element("div", {}, section(`${kernel.file}`, element("p", { class: "faint" }, node.kernel.endsWith("(twin)") ? "What ran is the kernel's twin on the CPU; this is the plain kernel of the op." : `As it ran: ${kernel.variant}. Marked lines have this variant's constants filled in.`), code(kernel)));
  const title = element("h2", { class: "module" }, element("i", { class: `dot ${family(node.op)}` }), `${node.module} `, element("span", { class: "faint" }, node.is.length && node.is[0].name !== node.module ? `writes the output of ${joined(node.is.map((module) => module.name))}` : ""));
  return [title, numbers, element("div", { class: "columns" }, left, right), ...activationViews(node)];
}

// Names of one module's parts: "a.to_q, to_k, to_v".
const joined = (names) => names.map((name, i) => (i && !name.endsWith(".weight") && !name.endsWith(".bias") ? name.split(".").pop() : i ? name.split(".").slice(-2).join(".") : name)).join(", ");
const partNames = (node) => (node.is.length > 1 ? node.is.map((module) => module.name.split(".").pop()) : undefined);

function whence(operand, nodes) {
  const from = operand.from;
  if (from.weight) return element("span", {}, from.weight.length > 1 ? "parameters " : "parameter ", element("code", {}, joined(from.weight)));
  if (from.input) return `the component's input ${from.input}`;
  if (from.node !== undefined) {
    const writer = nodes[from.node];
    const part = writer.is.length > 1 && writer.is.find((module) => module.offset === operand.offset);
    return element("span", {}, "from ", link(nodeHash(writer), `${writer.module} (${writer.op})`), part ? `: its part ${part.name.split(".").pop()}` : "");
  }
  return "written here";
}

// Whether an operand's middle axis is tokens of the prompt and not places of a picture.
const ofTokens = (node, operand) => components[node.component].name === "text_encoder" || (node.op === "attention" && ["k", "v"].includes(operand.name) && node.params.keys !== node.params.queries);

function activationViews(node) {
  const histograms = node.operands.filter((operand) => operand.values).map((operand) => histogram(operand.values, operand.name));
  const made = [];
  if (histograms.length) made.push(section("How the values are distributed", element("div", { class: "histograms" }, histograms)));
  const kept = node.operands.filter((operand) => operand.tensor !== null && operand.values);
  if (!kept.length) {
    const names = [...new Set(components.flatMap((component) => component.nodes).filter(explains).map((other) => other.module))];
    made.push(section("Values", element("p", {}, "The values of this dispatch were not kept (--only says whose are). They are there for: "),
      element("p", { class: "kept" }, names.map((name) => [link(nodeHash(components.flatMap((component) => component.nodes).find((other) => other.module === name && explains(other))), name), " "]).flat())));
    return made;
  }
  const result = output(node);
  const tensor = (operand) => data.tensors[operand.tensor];
  const detail = element("div", { class: "detail", "aria-live": "polite" });
  const start = startElement(node, tensor(result), result);
  const show = (index) => detail.replaceChildren(...takenApart(node, index));
  const grid = channelGrid(tensor(result), { name: `output of ${node.module}`, shape: result.shape, tokens: ofTokens(node, result), names: partNames(node), pick: explains(node) ? show : null, at: explains(node) ? start : undefined, width: 560 });
  if (explains(node)) {
    show(start);
    made.push(element("section", { id: "element" }, element("h2", {}, "This element"),
      element("p", {}, `Pick one number of the output ${result.name}: here is every multiply and add that made it, computed from the recorded inputs as the kernel's CPU twin does it, beside what the device wrote.`),
      element("div", { class: "columns" }, grid, detail)));
  } else made.push(section("Output", grid));
  const inputs = kept.filter((operand) => operand !== result && operand.shape.length > 1 && !operand.from.weight && !["stats"].includes(operand.name));
  if (inputs.length) made.push(section("Inputs", element("div", { class: "columns" }, inputs.map((operand) => element("div", {}, element("h3", {}, element("code", {}, operand.name), ` ${times(operand.shape)}`),
    channelGrid(tensor(operand), { name: operand.name, shape: operand.shape, tokens: ofTokens(node, operand), width: 560 }))))));
  const weights = kept.filter((operand) => operand.from.weight && operand.shape.length > 1);
  if (weights.length) made.push(section("Weights", ...weights.map((operand) => element("div", {}, element("h3", {}, element("code", {}, joined(operand.from.weight)), ` as ${operand.name} ${times(operand.shape)}`), weightView(node, operand, tensor(operand))))));
  return made;
}

// Windows of a convolution as small pictures, a matrix as it is.
function weightView(node, operand, tensor) {
  if (operand.shape.length !== 4) return channelGrid(tensor, { name: operand.name, shape: operand.shape, names: partNames(node), width: 900 });
  const [r, s, c, n] = operand.shape;
  // (r, s, c, n) lies in memory as r x s pictures of c n channels
  return channelGrid(tensor, { name: operand.name, shape: [1, r, s, c * n], tile: 24, tiles: 144, width: 900 });
}

function startElement(node, tensor, operand) {
  const map = asMap(operand.shape, ofTokens(node, operand));
  return ((map.n - 1) * map.h + Math.floor(map.h / 2)) * map.w * map.c + Math.floor(map.w / 2) * map.c;
}

const nameOf = (node, name, index) => {
  const operand = node.operands.find((operand) => operand.name === name);
  if (name === "share") {
    // the keys of cross-attention are the prompt's tokens
    const word = node.module.endsWith("attn2") && sides[0].words.find((word) => word.tokens[0] <= index && index < word.tokens[1]);
    return `share[key ${index}${word ? `, ${word.text}` : ""}]`;
  }
  if (!operand) return `${name}[${index}]`;
  const places = [];
  for (let i = operand.shape.length - 1, rest = index; i >= 0; i--) {
    places.unshift(i === 0 ? rest : rest % operand.shape[i]);
    rest = Math.floor(rest / operand.shape[i]);
  }
  return `${name}[${places.join(",")}]`;
};

function takenApart(node, index) {
  const found = explain(node, index);
  const device = valuesOf(data.tensors[output(node).tensor])[index];
  const away = Math.abs(found.value - device);
  const result = element("p", { class: "result" }, element("code", {}, nameOf(node, output(node).name, index)), " = ", element("b", {}, number(found.value)),
    element("span", { class: "faint" }, ` the device has ${number(device)}, ${away === 0 ? "the same to the last bit" : `${away.toExponential(1)} away`}`));
  const lines = element("ol", { class: "lines" }, found.lines.map((line) => element("li", {}, element("span", {}, line.text), element("output", {}, number(line.value)))));
  let most = 400;
  const order = element("select", { "aria-label": "order of the terms" }, element("option", { value: "" }, "in order"), element("option", { value: "size" }, "largest first"));
  const list = element("ol", { class: "terms", tabindex: 0, "aria-label": "terms" });
  const draw = () => {
    let sum = 0;
    const all = found.terms.map((term, i) => [term, i, (sum += term.value)]);
    if (order.value) all.sort((a, b) => Math.abs(b[0].value) - Math.abs(a[0].value));
    const longest = Math.max(greatest(found.terms.map((term) => Math.abs(term.value))), 1e-30);
    list.replaceChildren(...all.slice(0, most).map(([term, i, sum]) => element("li", { value: i + 1 },
      element("code", {}, ...term.factors.flatMap(([name, place, value], f) => [f ? " \u00d7 " : "", `${nameOf(node, name, place)} `, element("span", { class: "literal" }, number(value))])),
      element("i", { class: term.value < 0 ? "below" : "above", style: `width:${(60 * Math.abs(term.value)) / longest}px` }),
      element("output", { title: `sum so far ${number(sum)}` }, number(term.value)))),
    all.length > most ? element("li", { class: "rest" }, element("button", { type: "button", onclick: () => {
      most = all.length;
      draw();
    } }, `and ${whole(all.length - most)} more`)) : "");
  };
  order.addEventListener("change", draw);
  draw();
  return [result, lines, element("p", { class: "controls" }, `${whole(found.terms.length)} ${found.terms.length === 1 ? "term" : "terms"} `, order), list];
}

// --- the sampler's steps ---

const scrub = { at: 0, playing: null };

function steps() {
  const total = Math.max(...sides.map((side) => side.steps.length));
  if (!total) return [element("p", {}, "No step was recorded.")];
  const range = element("input", { type: "range", min: 0, max: total - 1, value: scrub.at, "aria-label": "step", oninput: () => show(Number(range.value)) });
  const play = element("button", { type: "button", onclick: () => {
    clearInterval(scrub.playing);
    if (play.textContent === "Stop") {
      play.textContent = "Play";
      return;
    }
    play.textContent = "Stop";
    if (Number(range.value) === total - 1) show(0);
    scrub.playing = setInterval(() => {
      if (!range.isConnected || scrub.at === total - 1) {
        clearInterval(scrub.playing);
        play.textContent = "Play";
      } else show(scrub.at + 1);
    }, 350);
  } }, "Play");
  const words = element("output", { class: "step-words" });
  const body = element("div", { class: `sides sides-${sides.length}` });
  const [h, w] = settings.latents;
  const tile = Math.floor((sides.length > 1 ? 54 : 66) / w) || 1;
  function show(at) {
    scrub.at = at;
    range.value = at;
    redraws = [];
    const first = sides[0].steps[Math.min(at, sides[0].steps.length - 1)];
    words.textContent = `step ${first.step + 1} of ${run.steps}, timestep ${whole(first.timestep)}, sigma ${first.sigma === null ? "\u221e" : number(first.sigma)}`;
    body.replaceChildren(...sides.map((side) => {
      const step = side.steps[Math.min(at, side.steps.length - 1)];
      const rows = [["x", "x: what the model sees", step.pictures.x], ["x0.guided", "x0: the picture it expects", step.pictures.x0], ["noise.unconditional", "predicted noise without the prompt"], ["noise.conditional", "predicted noise with the prompt"], ["noise.guided", "predicted noise, guided"]]
        .filter(([name]) => step.latents[name]);
      return element("article", {}, element("h3", {}, `\u201c${side.prompt}\u201d, guidance ${side.cfg_scale}`), element("div", { class: "latent-grid" }, rows.map(([name, title, src]) => element("div", { class: "latents" },
        src ? picture(src, `${title}, decoded`, 112) : "",
        element("div", {}, element("p", {}, element("b", {}, title), element("span", { class: "faint" }, ` size ${number(step.sizes[name])}`)),
          channelGrid(step.latents[name], { name: title, width: Math.max(w * 4 + 20, (w * tile + 3) * 4), tile: Math.max(w, w * tile) }))))));
    }));
  }
  show(Math.min(scrub.at, total - 1));
  return [element("div", { class: "scrubber" }, play, range, words), sizes(), body];
}

// The sizes of x, the predicted noises and x0 over the steps, and sigma.
function sizes() {
  const side = sides[0];
  const [width, height, left] = [1000, 110, 44];
  const names = ["x", "noise.unconditional", "noise.conditional", "noise.guided", "x0.guided"].filter((name) => side.steps[0] && side.steps[0].sizes[name] !== undefined);
  const most = Math.max(...side.steps.flatMap((step) => names.map((name) => step.sizes[name])), 1e-9);
  const x = (i) => left + (i / Math.max(1, side.steps.length - 1)) * (width - left - 10);
  const y = (value) => 6 + (1 - value / most) * (height - 12);
  const lines = names.map((name, i) => drawn("polyline", { class: `line line-${i}`, points: side.steps.map((step, at) => `${x(at)},${y(step.sizes[name])}`).join(" ") }));
  return element("details", { class: "sizes" }, element("summary", {}, "Sizes over the steps (root of the mean square)"),
    drawn("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": "sizes over the steps" }, drawn("text", { x: left - 5, y: 14, "text-anchor": "end" }, number(most)), drawn("text", { x: left - 5, y: height - 4, "text-anchor": "end" }, "0"), ...lines),
    element("p", { class: "legend" }, names.map((name, i) => element("span", {}, element("i", { class: `line-${i}` }), name))));
}

// --- words ---

const heat = { steps: "all", layer: "", common: false, marks: false };

function words() {
  const modules = [...new Set(sides.flatMap((side) => side.steps.flatMap((step) => step.heat.layers.map((layer) => layer.module))))];
  if (!modules.length) return [element("p", {}, "This model has no cross-attention that was recorded.")];
  const body = element("div", { class: `sides sides-${sides.length}` });
  const choose = (label, value, options, set) => element("label", {}, `${label} `, element("select", { onchange: (event) => {
    set(event.target.value);
    draw();
  } }, options.map(([key, name]) => element("option", { value: key, selected: key === value }, name))));
  const stepNames = sides[0].steps.map((step, i) => [String(i), `step ${step.step + 1}`]);
  const controls = element("div", { class: "controls" },
    choose("over", heat.steps, [["all", "all steps"], ...stepNames], (value) => (heat.steps = value)),
    choose("in", heat.layer, [["", "all cross-attention layers"], ...modules.map((module) => [module, module])], (value) => (heat.layer = value)),
    choose("bright is", heat.common ? "common" : "own", [["own", "each word's own most"], ["common", "the most of any word"]], (value) => (heat.common = value === "common")),
    element("label", {}, element("input", { type: "checkbox", checked: heat.marks, onchange: (event) => {
      heat.marks = event.target.checked;
      draw();
    } }), " also the marks around the prompt"));
  function draw() {
    body.replaceChildren(...sides.map((side) => {
      const steps = heat.steps === "all" ? side.steps : [side.steps[Math.min(Number(heat.steps), side.steps.length - 1)]];
      const src = heat.steps === "all" ? side.picture : steps[0].pictures.x0 || side.picture;
      const shown = side.words.map((word, i) => ({ word, heat: word.real || heat.marks ? heatOf(side, i, steps, heat.layer) : null })).filter((one) => one.heat);
      const top = greatest(shown.map((one) => greatest(one.heat)));
      const size = sides.length > 1 ? 150 : 196;
      const tiles = shown.map(({ word, heat: map }) => {
        const own = Math.max(greatest(map), 1e-12);
        const tile = heatTile(map, heat.common ? top : own, src, size);
        const best = map.indexOf(own);
        const place = `row ${Math.floor(best / settings.latents[1]) + 1}, column ${(best % settings.latents[1]) + 1}`;
        tile.setAttribute("aria-label", `${word.text}: most at ${place} of ${settings.latents[0]} by ${settings.latents[1]}`);
        return element("figure", { class: word.real ? "word" : "word mark" }, tile, element("figcaption", {}, element("b", {}, word.text), ` ${percent(mean([...map]))} of attention, at most ${percent(own)} (${place})`));
      });
      const plain = element("figure", { class: "word" }, picture(src, "the picture", size), element("figcaption", {}, heat.steps === "all" ? "the picture" : "x0 expected at this step"));
      return element("article", {}, element("h3", {}, `\u201c${side.prompt}\u201d, guidance ${side.cfg_scale}`), element("div", { class: "tiles" }, plain, ...tiles));
    }));
  }
  draw();
  return [element("p", {}, "In each cross-attention layer every place of the latents asks every token of the prompt how much it matters there; the answers are shares that sum to one. ",
    "Bright is where a word's share is large. They are computed from the queries and keys that the device had, averaged over heads; a word is the sum of its tokens."), controls, body];
}

// --- memory ---

function memory() {
  const number = Number(memory.component || Math.max(0, components.findIndex((component) => component.name === "unet")));
  const component = components[number];
  const chooser = element("div", { class: "chooser" }, components.map((other, i) => element("a", { href: `#memory/${i}`, "aria-current": i === number ? "true" : null }, componentName(other.name))));
  const readout = element("div", { class: "readout memory-readout", "aria-live": "polite" });
  const chart = memoryChart(component, (step, alive, tenants) => {
    const node = component.nodes[step];
    readout.replaceChildren(element("p", {}, `dispatch ${step + 1}: `, link(nodeHash(node), node.module), ` (${node.op}); ${tenants.length} tensors, ${bytes(alive)} of ${bytes(component.slots.reduce((a, b) => a + b, 0))} in use`),
      element("ul", {}, tenants.sort((a, b) => b.bytes - a.bytes).slice(0, 8).map((tenant) => element("li", {}, `${bytes(tenant.bytes)} \u2013 ${component.nodes[tenant.first].module} ${times(output(component.nodes[tenant.first]).shape)}, until dispatch ${tenant.last + 1}`))));
  });
  const total = component.slots.reduce((a, b) => a + b, 0);
  const apart = component.tenants.reduce((sum, tenant) => sum + tenant.bytes, 0);
  return [chooser, element("p", {}, `Tensors that don't live at the same time share memory. ${component.tenants.length} tensors of ${componentName(component.name)} would take ${bytes(apart)} side by side; in ${component.slots.length} slots they take ${bytes(total)}. Beside them lie the weights, ${bytes(component.weight_bytes)}. `,
    "A row is a slot, a block a tensor from the dispatch that writes it to the last that reads it; below, the bytes in use."), legend(), element("div", { class: "scroll" }, chart), readout];
}

// --- the guide ---

const guide = () => [element("article", { class: "guide" }, byId("guide").content.cloneNode(true))];

const legend = () => element("p", { class: "legend" }, ["conv", "matmul", "attention", "norm", "other"].map((kind) => element("span", {}, element("i", { class: kind }), kind === "conv" ? "written by a convolution" : kind)));

// --- the way around ---

const made = (view, rest) => ({ overview, steps, words, memory, guide, in: () => block(rest[0]), node: () => layer(Number(rest[0]), Number(rest[1])) }[view] || overview)();

// Draws every view, one dispatch of each kernel and every one whose values are here, for a test; what failed.
function drawAll() {
  const kernelsSeen = new Set();
  const some = (node) => explains(node) || (!kernelsSeen.has(node.kernel) && kernelsSeen.add(node.kernel));
  const nodes = components.flatMap((component) => component.nodes).filter(some).map((node) => ["node", [String(node.component), String(node.number)]]);
  const blocks = components.map((component) => ["in", [component.name]]);
  const failed = [];
  for (const [view, rest] of [...views.map(([view]) => [view, []]), ...blocks, ...nodes]) {
    try {
      made(view, rest);
    } catch (error) {
      failed.push(`#${[view, ...rest].join("/")}: ${error}`);
    }
  }
  return failed;
}

function route() {
  clearInterval(scrub.playing);
  redraws = [];
  const [view, ...rest] = decodeURIComponent(location.hash.slice(1) || "overview").split("/");
  byId("where").replaceChildren();
  memory.component = view === "memory" ? rest[0] : undefined;
  byId("view").replaceChildren(...made(view, rest).filter(Boolean));
  const current = view === "node" ? "in" : view;
  for (const tab of byId("tabs").children) {
    if (tab.hash === `#${current}`) tab.setAttribute("aria-current", "page");
    else tab.removeAttribute("aria-current");
  }
  window.scrollTo(0, 0);
}

function keys(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || ["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName)) return;
  const tab = Number(event.key) - 1;
  const [view, component, at] = location.hash.slice(1).split("/");
  if (tab >= 0 && tab < views.length) location.hash = views[tab][0];
  else if (view === "node" && ["n", "p"].includes(event.key)) {
    const other = components[component].nodes[Number(at) + (event.key === "n" ? 1 : -1)];
    if (other) location.hash = nodeHash(other);
  } else if (view === "node" && event.key === "u") location.hash = `in/${pathOf(components[component].nodes[at].module).slice(0, -1).join(".")}`;
  else if (view === "in" && event.key === "u") location.hash = component.includes(".") ? `in/${pathOf(component).slice(0, -1).join(".")}` : "overview";
}

function start() {
  document.title = `Inspect: ${sides[0].prompt}`;
  byId("title").textContent = `Ratel inspect \u00b7 ${run.model}`;
  byId("tabs").append(...views.map(([hash, name], i) => element("a", { href: `#${hash}`, title: `key ${i + 1}` }, name)));
  byId("footer").textContent = `Written by ${run.program}. Keys: 1 to 6 for the views, p and n for the dispatch before and after, u for up, Tab and Enter for links. ` +
    `Layers as they were in step ${settings.step + 1}; values kept of ${settings.only.join(", ")}.`;
  const button = byId("theme");
  const preferred = window.matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const set = (theme) => {
    document.documentElement.dataset.theme = theme;
    button.textContent = theme === "dark" ? "Light" : "Dark";
    for (const [canvas, draw] of redraws) if (canvas.isConnected) draw();
  };
  button.addEventListener("click", () => set(document.documentElement.dataset.theme === "dark" ? "light" : "dark"));
  set(new URLSearchParams(location.search).get("theme") || preferred);
  // for a test: what the page computes against what the program computed
  if (new URLSearchParams(location.search).has("check")) {
    const wrong = [...compareSamples(), ...drawAll()];
    document.documentElement.dataset.compared = data.samples.length;
    document.documentElement.dataset.wrong = wrong.join("; ");
  }
  window.addEventListener("hashchange", route);
  document.addEventListener("keydown", keys);
  route();
}

start();
