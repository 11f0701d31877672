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
    for (const step of this.steps) this.enter(step);
  }

  /** Make a step known to the nodes that it computes; of a loop or branch, what is inside. */
  enter(step) {
    const last = this.stages.at(-1).nodes[step.node];
    const inside = [...everyStep([step])].filter((inner) => !inner.steps.length);
    for (const key of new Set([...step.nodes, ...(last ? [last.key] : [])])) {
      const known = this.stepsOfKey.get(key) ?? [];
      this.stepsOfKey.set(key, [...new Set([...known, ...inside])]);
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

  /** The steps that compute a node; of one in a region, those of the node whose region it is. */
  stepsAround(node) {
    const steps = this.stepsFor(node.key);
    return steps.length || !node.home.owner ? steps : this.stepsAround(node.home.owner);
  }

  stagesWith(key) {
    return this.stages.filter((stage) => stage.byKey.has(key));
  }
}

/** One stage, or a region of one of its nodes: its nodes with users and marks.  `owner` is the
 * node whose region it is; nodes of regions are found by key in the stage too. */
class StageIndex {
  constructor(stage, number, owner = null) {
    Object.assign(this, { name: stage.name, seconds: stage.seconds, note: stage.note, number });
    const graph = stage.graph;
    this.owner = owner;
    this.stage = owner ? owner.home.stage : this;
    this.path = owner ? `${owner.home.path}${owner.id}.${stage.name}/` : "";
    this.graph = graph;
    this.nodes = graph.nodes;
    if (!owner) [this.byKey, this.inner] = [new Map(), []];
    for (const node of graph.nodes) this.enter(node);
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

  /** Make a node known, with its regions; one that stands in several places has a key in each. */
  enter(node) {
    const { byKey, inner } = this.stage;
    node.home = this;
    if (byKey.has(node.key) || (this.owner && node.kind === "leaf")) {
      node.key = `${this.path}${node.key}`;
    }
    byKey.set(node.key, node);
    if (this.owner && this.owner.op !== "fused" && node.kind !== "leaf") inner.push(node);
    node.parts = node.regions.map(({ label, graph }) =>
      new StageIndex({ name: label, graph, seconds: 0, note: "" }, this.number, node));
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

/** Numbers are not drawn; those that a loop or a branch is given are. */
const isScalarConstant = (node) => node.op === "constant" || (node.kind === "leaf"
  && node.type.endsWith("[]") && (node.home.owner?.op ?? "fused") === "fused");
