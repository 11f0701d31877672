// The program's data, indexed: who uses what, which step computes a node, how long it takes.

/** Index of everything the page looks up. */
class ProgramIndex {
  constructor(data) {
    this.data = data;
    this.stages = data.stages.map((stage, number) => new StageIndex(stage, number));
    this.steps = [...everyStep(data.steps)];
    this.kernels = new Map(data.kernels.map((kernel) => [kernel.name, kernel]));
    const runs = data.measured?.runs ?? 0;
    for (const step of this.steps) {
      step.time = step.seconds !== null && runs ? (step.seconds * step.runs) / runs : null;
    }
    this.leafSteps = this.steps.filter((step) => !step.steps.length);
    this.total = this.leafSteps.reduce((sum, step) => sum + (step.time ?? 0), 0);
    this.timed = this.total > 0;
    this.stepsOfKey = new Map();
    for (const step of this.leafSteps) {
      const last = this.stages.at(-1).nodes[step.node];
      for (const key of new Set([...step.nodes, ...(last ? [last.key] : [])])) {
        if (!this.stepsOfKey.has(key)) this.stepsOfKey.set(key, []);
        this.stepsOfKey.get(key).push(step);
      }
    }
  }

  stepsFor(key) {
    return this.stepsOfKey.get(key) ?? [];
  }

  /** Seconds that a set of nodes takes: each step shared out among the nodes it computes. */
  secondsOf(nodes) {
    let sum = 0;
    for (const node of nodes) {
      for (const step of this.stepsFor(node.key)) {
        sum += (step.time ?? 0) / (node.last ? 1 : Math.max(1, step.nodes.length));
      }
    }
    return sum;
  }

  stagesWith(key) {
    return this.stages.filter((stage) => stage.byKey.has(key));
  }
}

/** One stage: its nodes with users and marks. */
class StageIndex {
  constructor(stage, number) {
    Object.assign(this, { name: stage.name, seconds: stage.seconds, note: stage.note, number });
    const graph = stage.graph;
    this.graph = graph;
    this.nodes = graph.nodes;
    this.byKey = new Map(graph.nodes.map((node) => [node.key, node]));
    this.users = graph.nodes.map(() => new Set());
    for (const node of graph.nodes) for (const input of node.inputs) this.users[input].add(node.id);
    this.outputs = new Set(graph.outputs);
    this.updates = new Map(graph.updates.map(([cell, value]) => [value, graph.nodes[cell].label]));
    for (const node of graph.nodes) {
      node.title = titleOf(node);
      if (node.op !== "get") continue;
      const source = this.origin(node).id;
      if (this.outputs.has(node.id)) this.outputs.add(source);
      if (this.updates.has(node.id)) this.updates.set(source, this.updates.get(node.id));
    }
  }

  /** The node that is drawn for a node: for one of several results, the one that has them all. */
  origin(node) {
    let at = node;
    while (at.op === "get") at = this.nodes[at.inputs[0]];
    return at;
  }
}

function* everyStep(steps) {
  for (const step of steps) {
    yield step;
    yield* everyStep(step.steps);
  }
}

/** Operations inside a fused group, in order. */
function bodyOperations(node) {
  return node.regions.flatMap((region) =>
    region.graph.nodes.filter((inner) => inner.kind !== "leaf").map((inner) => inner.op));
}

/** The first names of a list, repeated ones counted. */
function summary(names, most) {
  const runs = [];
  for (const name of names) {
    if (runs.at(-1)?.name === name) runs.at(-1).times += 1;
    else runs.push({ name, times: 1 });
  }
  const shown = runs.slice(0, most)
    .map((run) => run.name + (run.times > 1 ? ` ×${run.times}` : ""));
  return shown.join(" · ") + (runs.length > most ? ` +${runs.length - most}` : "");
}

/** What to call a node: the name of a leaf, the operations of a group, or the operation. */
function titleOf(node) {
  if (node.op === "constant") return node.text.replace(/.*constant/, "");
  if (node.kind === "leaf") return node.label.replace(/^%/, "");
  if (node.op !== "fused") return node.op;
  return summary(bodyOperations(node), 3);
}

const isScalarConstant = (node) => node.op === "constant" || (node.kind === "leaf"
  && node.type.endsWith("[]"));
