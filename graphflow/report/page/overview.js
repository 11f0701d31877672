// The first page: what happened to the program, what it costs, where the time goes.

function overview() {
  return html("div", { class: "page" },
    html("section", { class: "wide" }, html("h2", {}, "Pipeline"), pipeline()),
    html("div", { class: "columns" },
      html("section", {}, html("h2", {}, "At a glance"), glance()),
      program.data.comparison ? html("section", {}, html("h2", {}, "Static against eager"),
        comparisonTable(program.data.comparison)) : null,
      html("section", {}, html("h2", {}, program.timed ? "Where the time goes"
        : "Largest steps, by bytes"), new Ranking().element),
      html("section", {}, html("h2", {}, "Operations by stage"), operationTable()),
    ));
}

/** One card a stage, the height of its bar the number of nodes. */
function pipeline() {
  const seconds = program.data.seconds;
  const most = Math.max(...program.stages.map((stage) => stage.nodes.length));
  const cards = program.stages.map((stage, number) => {
    const before = program.stages[number - 1]?.nodes.length;
    const change = before === undefined ? "" : signed(stage.nodes.length - before);
    return stageCard(stage.name, stage.nodes.length, "nodes", most, change,
      number ? stage.seconds : seconds.trace, () => page.goTo(number));
  });
  const calls = program.leafSteps.length;
  cards.push(stageCard("schedule", calls, "calls", most, "", seconds.schedule,
    () => page.show("kernels")));
  cards.push(stageCard("kernels", program.kernels.size, "sources", most,
    `${program.data.cache.hits} cached`, seconds.kernels, () => page.show("kernels")));
  return html("ol", { class: "pipeline" }, cards);
}

const signed = (number) => (number > 0 ? `+${number}` : number < 0 ? `−${-number}` : "±0");

function stageCard(name, size, noun, most, change, seconds, action) {
  return html("li", {}, html(
    "button", { class: "stage", click: action },
    html("span", { class: "column" },
      html("i", { style: `height:${Math.max(3, (size / most) * 100).toFixed(1)}%` })),
    html("b", {}, name),
    html("span", { class: "big" }, count(size)),
    html("span", { class: "dim" }, noun, change ? ` · ${change}` : ""),
    html("span", { class: "dim" }, seconds ? duration(seconds) : "\u00a0"),
  ));
}

function glance() {
  const { memory, cache, measured, sizes, graphflow, threads } = program.data;
  const hosts = program.leafSteps.filter((step) => step.kind === "host").map((step) => step.name);
  const saved = memory.naive_bytes ? 1 - memory.arena_bytes / memory.naive_bytes : 0;
  return factList([
    ["one step", measured ? `${duration(measured.seconds)} (${plural(measured.runs, "run")})`
      : "not timed"],
    ["in kernels", program.timed ? duration(program.total) : "not timed"],
    ["calls", count(program.leafSteps.length)],
    ["threads", String(threads)],
    ["temporaries", `${bytes(memory.arena_bytes)} instead of ${bytes(memory.naive_bytes)}`
      + (saved > 0.005 ? ` (${percent(saved)} saved)` : "")],
    ["kernels", `${cache.hits} from the cache, ${cache.misses} compiled`],
    ["on the host", hosts.length ? [...new Set(hosts)].join(", ") : "nothing"],
    Object.keys(sizes ?? {}).length && ["sizes", Object.entries(sizes)
      .map(([name, value]) => `${name} = ${value}`).join(", ")],
    ["GraphFlow", graphflow],
  ].filter(Boolean));
}

function comparisonTable(comparison) {
  const gap = comparison.max_abs_difference;
  const widest = Math.max(comparison.static.median, comparison.eager.median);
  const row = (name, timing, speedup) => [
    name, { text: duration(timing.median), class: "number" },
    { text: duration(timing.spread), class: "number" }, { text: count(timing.n), class: "number" },
    { text: speedup, class: "number" },
    html("span", { class: "bar" },
      html("i", { style: `width:${((timing.median / widest) * 100).toFixed(1)}%` })),
  ];
  return html("div", {},
    dataTable(["mode", "median step", "spread", "steps", "speed-up", ""], [
      row("eager", comparison.eager, "1"),
      row("static", comparison.static, `${significant(comparison.speedup)}×`),
    ], { class: "comparison" }),
    html("p", { class: "dim" }, `First call ${duration(comparison.first_call_s)}: trace `
      + `${duration(comparison.trace_s)}, passes ${duration(comparison.passes_s)}, kernels `
      + `${duration(comparison.codegen_s)}. Largest difference of the results: `
      + `${gap ? gap.toExponential(1) : "none"}.`));
}

function operationTable() {
  const stages = program.stages.map((stage) => {
    const counts = new Map();
    for (const { op, kind } of stage.nodes) {
      if (kind !== "leaf") counts.set(op, (counts.get(op) ?? 0) + 1);
    }
    return counts;
  });
  const names = [...new Set(stages.flatMap((counts) => [...counts.keys()]))];
  const most = (name) => Math.max(...stages.map((counts) => counts.get(name) ?? 0));
  names.sort((a, b) => most(b) - most(a));
  return html("div", { class: "scroll" }, dataTable(
    ["operation", ...program.stages.map((stage) => stage.name)],
    names.map((name) => [name, ...stages.map((counts) =>
      ({ text: counts.get(name) ?? "·", class: counts.has(name) ? "number" : "number dim" }))])));
}
