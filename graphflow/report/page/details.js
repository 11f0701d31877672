// The side panel: from a node to its line, its kernel, the kernel's source and its time.

const KEYWORDS = "def return for in if else elif while import from as with class and or not pass "
  + "None True False lambda yield raise self break continue";
const PYTHON = new RegExp(
  [
    /(?<comment>#.*)/, /(?<string>"""[^]*?"""|"[^"\n]*"|'[^'\n]*')/,
    new RegExp(`(?<keyword>\\b(?:${KEYWORDS.replaceAll(" ", "|")})\\b)`),
    /(?<decorator>@\w+)/, /(?<number>\b\d[\d_.]*(?:e[+-]?\d+)?\b)/,
    /(?<call>\b[A-Za-z_]\w*(?=\())/,
  ].map((part) => part.source).join("|"), "g",
);

/** Python source with its tokens marked. */
function highlighted(source) {
  const parts = [];
  let end = 0;
  for (const match of source.matchAll(PYTHON)) {
    const kind = Object.entries(match.groups).find(([, text]) => text !== undefined)[0];
    parts.push(source.slice(end, match.index), html("span", { class: `py-${kind}` }, match[0]));
    end = match.index + match[0].length;
  }
  parts.push(source.slice(end));
  return parts;
}

/** The user's lines around a place, the one itself marked. */
function sourceLines(file, line, around = 3) {
  const known = program.data.files?.[file] ?? {};
  const numbers = Object.keys(known).map(Number)
    .filter((number) => Math.abs(number - line) <= around);
  if (!numbers.length) return null;
  return html(
    "pre", { class: "source lines", tabindex: 0 },
    numbers.map((number) =>
      html("span", { class: number === line ? "line here" : "line" },
        html("span", { class: "number" }, String(number)), highlighted(known[number]), "\n")),
  );
}

function section(title, ...children) {
  return html("section", {}, html("h3", {}, title), ...children);
}

/** The classes that give a node's mark its colour. */
const dotClass = (node) => `dot ${node.op} ${node.op === "fused" ? "fused" : node.kind}`;

/** A button that goes to a node. */
function nodeLink(node) {
  return html("button", { class: "link", title: node.text, click: () => page.select(node.key) },
    html("span", { class: dotClass(node) }),
    html("b", {}, shorten(node.title, 30)), html("span", { class: "dim" }, node.type));
}

function nodeDetails(stage, node) {
  const home = node.home;
  const steps = program.stepsAround(node);
  const users = [...home.users[node.id]].map((id) => home.nodes[id]);
  const update = home.updates.get(node.id);
  const facts = [
    ["value", node.label], ["type", node.type],
    ["kind", node.op === "fused" ? `group: ${node.attrs.kind}` : node.kind],
    node.module && ["module", node.module], update && ["becomes", update],
    home.outputs.has(node.id) && ["result", home.owner ? "of the region" : "of the program"],
    ...Object.entries(node.attrs)
      .filter(([name, text]) => !text.startsWith("@") && !(node.op === "fused" && name === "kind"))
      .map(([name, text]) => [name, shorten(text, 200)]),
  ].filter(Boolean);
  return [
    html("h2", {}, html("span", { class: dotClass(node) }),
      node.title),
    factList(facts),
    home.owner ? section(`Inside of, as its ${home.name}`,
      html("div", { class: "links" }, nodeLink(home.owner))) : null,
    outerOperand(node) ? section("Stands for",
      html("div", { class: "links" }, nodeLink(outerOperand(node)))) : null,
    node.line ? section("Written at", html("p", { class: "place", title: node.file },
      place(node)), sourceLines(node.file, node.line)) : null,
    steps.length ? section(steps.length > 1 ? `Computed by ${steps.length} steps` : "Computed by",
      steps.map(stepCard)) : notComputed(node),
    node.regions.map((region) => section(
      node.op === "fused" ? "Fused operations" : `Region ${region.label}`,
      html("pre", { class: "source", tabindex: 0 },
        region.graph.nodes.filter((inner) => inner.kind !== "leaf")
          .map((inner) => inner.text).join("\n")))),
    node.inputs.length ? section(`Reads ${node.inputs.length}`,
      html("div", { class: "links" }, node.inputs.map((id) => nodeLink(home.nodes[id])))) : null,
    users.length ? section(`Read by ${users.length}`,
      html("div", { class: "links" }, users.slice(0, 40).map(nodeLink))) : null,
    section("In the stages", html("div", { class: "chips" },
      program.stagesWith(node.key).map((other) => html("button", {
        class: other === stage ? "chip on" : "chip", click: () => page.goTo(other.number, node.key),
      }, other.name)))),
  ];
}

/** What an input of a region stands for, outside of it (when that is one value). */
function outerOperand(node) {
  const { owner, graph } = node.home;
  const position = owner ? graph.inputs.indexOf(node.id) : -1;
  if (position < 0) return null;
  const outer = owner.inputs[position + owner.inputs.length - graph.inputs.length];
  return outer === undefined ? null : owner.home.origin(owner.home.nodes[outer]);
}

function notComputed(node) {
  if (node.kind === "leaf") return null;
  return section("Computed by",
    html("p", { class: "dim" }, "No step of its own: a later pass rewrote or removed it."));
}

function factList(facts) {
  return html("dl", {}, facts.flatMap(([name, text]) =>
    [html("dt", {}, name), html("dd", {}, text)]));
}

/** One step: time, work, and its kernels' sources to unfold. */
function stepCard(step) {
  const share = program.timed && step.time !== null ? step.time / program.total : 0;
  return html(
    "div", { class: "card" },
    html("div", { class: "row" },
      html("button", { class: "link strong", click: () => page.showStep(step.id) },
        `#${step.id} ${step.name}`),
      html("span", { class: "time" }, step.time === null ? "not timed" : duration(step.time))),
    share ? html("div", { class: "bar", title: percent(share) },
      html("i", { style: `width:${(share * 100).toFixed(2)}%` })) : null,
    html("p", { class: "dim" }, [
      share ? `${percent(share)} of the step` : null,
      step.bytes ? bytes(step.bytes) : null,
      step.flops ? `${rate(step.flops)}flop` : null,
      step.time ? `${rate(step.bytes / step.time)}B/s` : null,
      step.time && step.flops ? `${rate(step.flops / step.time)}flop/s` : null,
      plural(step.threads, "thread"),
    ].filter(Boolean).join(" · ")),
    step.kernels.map((name) => kernelSource(program.kernels.get(name))),
  );
}

function kernelSource(kernel) {
  return html(
    "details", { class: "kernel" },
    html("summary", {}, kernel.epilogue ? "epilogue " : "kernel ", html("code", {}, kernel.name)),
    kernel.path ? html("p", { class: "dim path" }, kernel.path) : null,
    html("pre", { class: "source", tabindex: 0 }, highlighted(kernel.source)),
  );
}

function boxDetails(cluster) {
  const operations = new Map();
  for (const { node } of cluster.all) {
    operations.set(node.op, (operations.get(node.op) ?? 0) + 1);
  }
  const rows = [...operations].sort((a, b) => b[1] - a[1]).map(([name, n]) => [name, count(n)]);
  return [
    html("h2", {}, html("span", { class: "dot box" }), cluster.name),
    factList([["path", cluster.id.slice(1).replaceAll("/", ".")],
      ["nodes", count(cluster.all.length)]]),
    section("Operations", dataTable(["operation", "nodes"], rows)),
  ];
}

function stepDetails(step) {
  return [
    html("h2", {}, `#${step.id} ${step.name}`),
    stepCard(step),
    step.locations.length ? section("Written at", step.locations.slice(0, 4).map((location) => [
      html("p", { class: "place", title: location.file }, place(location),
        html("span", { class: "dim" }, ` ${location.module}`)),
      sourceLines(location.file, location.line, 1),
    ])) : null,
    step.ir ? section("Operations", html("pre", { class: "source", tabindex: 0 }, step.ir)) : null,
    section("Memory", dataTable(["buffer", "kind", "type", ""],
      [...new Set([...step.reads, ...step.writes])].map((id) => bufferRow(step, id)))),
    step.nodes.length || step.node !== null
      ? html("button", { class: "action", click: () => page.showStepInGraph(step) },
        "Show in the graph") : null,
  ];
}

function bufferRow(step, id) {
  const buffer = program.data.memory.buffers.find((other) => other.id === id);
  const use = [step.reads.includes(id) && "read", step.writes.includes(id) && "written"];
  return [buffer.name || `b${id}`, buffer.kind, buffer.type, use.filter(Boolean).join(", ")];
}
