// Modules as nested boxes.  A module that the data leaves and enters again (forward, then
// backward) becomes one box a visit, so that boxes follow each other as the work does.

/** A box: a visit of one module, with boxes and items inside. */
class Cluster {
  constructor(id, name, parent) {
    Object.assign(this, { id, name, parent, clusters: [], items: [], all: [] });
  }

  get depth() {
    return this.parent ? this.parent.depth + 1 : 0;
  }
}

/** The tree of a stage or region: every drawn thing is an item {id, node, cluster, inputs}.  An
 * item of several results is not drawn; what reads it reads the node that has them. */
function clusterTree(stage) {
  const drawn = stage.nodes.filter((node) => node.kind !== "leaf" && node.op !== "get");
  const root = new Cluster(stage.path, stage.name, null);
  const items = new Map();
  for (const node of drawn) {
    items.set(node.id, { id: `${stage.path}n${node.id}`, node, cluster: root, inputs: [] });
  }
  divide(stage, root, [...items.values()], levelsAround(stage.owner));
  const copies = leafCopies(stage, items, root);
  for (const item of [...items.values(), ...copies]) {
    for (let box = item.cluster; box; box = box.parent) box.all.push(item);
  }
  const tree = { root, items: [...copies, ...items.values()] };
  for (const item of items.values()) {
    if (item.node.parts.length) Object.assign(item, regionsOf(item));
  }
  return tree;
}

/** The regions of an item as trees of their own, and the name of the box that they open. */
function regionsOf(item) {
  const parts = item.node.parts.map((part) => {
    const tree = clusterTree(part);
    tree.root.around = item;
    return tree;
  });
  return { parts, regionId: `${item.id}{` };
}

/** Items of a tree and of the regions in it. */
function* everyItem(tree) {
  for (const item of tree.items) {
    yield item;
    for (const part of item.parts ?? []) yield* everyItem(part);
  }
}

/** Module levels that a region need not repeat; a fused group shows no modules at all. */
function levelsAround(owner) {
  if (!owner) return 0;
  return owner.op === "fused" ? 99 : owner.module.split(".").filter(Boolean).length || 99;
}

/** The boxes that must be open for an item to be seen. */
function* boxesAround(item) {
  for (let box = item.cluster; box; box = box.parent) {
    yield box.id;
    if (!box.parent && box.around) {
      yield box.around.regionId;
      yield* boxesAround(box.around);
    }
  }
}

/** Sort the members of a box into its modules of the next level. */
function divide(stage, cluster, members, depth) {
  const groups = new Map();
  for (const item of members) {
    const name = groupName(item.node, depth);
    if (name === null) cluster.items.push(item);
    else if (groups.has(name)) groups.get(name).push(item);
    else groups.set(name, [item]);
  }
  for (const [name, group] of groups) {
    const single = group.length === 1 || (depth === 0 && name.startsWith("line ") &&
      group.length < 6);
    if (single) {
      cluster.items.push(...group);
      continue;
    }
    for (const [visit, nodes] of visits(stage, group).entries()) {
      if (nodes.length === 1) {
        cluster.items.push(...nodes);
        continue;
      }
      const label = visit ? `${name} · ${visit + 1}` : name;
      const inner = new Cluster(`${cluster.id}/${label}`, label, cluster);
      cluster.clusters.push(inner);
      for (const item of nodes) item.cluster = inner;
      divide(stage, inner, nodes, name.startsWith("line ") ? 99 : depth + 1);
    }
  }
}

function groupName(node, depth) {
  if (node.module) return node.module.split(".")[depth] ?? null;
  return depth === 0 && node.line ? `line ${node.line}` : null;
}

/** Members by visit: how often the longest path through the graph has left and come back. */
function visits(stage, members) {
  const inside = new Set(members.map((item) => item.node.id));
  const visit = new Array(stage.nodes.length).fill(-1);
  for (const node of stage.nodes) {
    let reached = inside.has(node.id) ? 0 : -1;
    for (const input of node.inputs) {
      if (visit[input] < 0) continue;
      const from = stage.origin(stage.nodes[input]).id;
      const back = inside.has(node.id) && !inside.has(from) ? 1 : 0;
      reached = Math.max(reached, visit[input] + back);
    }
    visit[node.id] = reached;
  }
  const groups = [];
  for (const item of members) (groups[visit[item.node.id]] ??= []).push(item);
  return groups.filter(Boolean);
}

/** Leaves are drawn in every box that reads them; numbers only appear in the details. */
function leafCopies(stage, items, root) {
  const copies = new Map();
  for (const item of items.values()) {
    for (const input of item.node.inputs) {
      const node = stage.origin(stage.nodes[input]);
      if (node.kind !== "leaf") {
        item.inputs.push(items.get(node.id));
        continue;
      }
      if (isScalarConstant(node)) continue;
      const home = node.op === "input" ? root : item.cluster;
      const id = `${stage.path}n${node.id}@${home.id}`;
      if (!copies.has(id)) {
        const copy = { id, node, cluster: home, inputs: [] };
        copies.set(id, copy);
        home.items.push(copy);
      }
      item.inputs.push(copies.get(id));
    }
  }
  return [...copies.values()];
}

/** Boxes to open at first: level by level while no more than `limit` things are seen. */
function initiallyOpen(root, limit = 140) {
  const open = new Set([""]);
  let seen = root.items.length + root.clusters.length;
  let level = root.clusters;
  while (level.length) {
    const next = [];
    const size = (box) => box.items.length + box.clusters.length;
    for (const box of level.sort((a, b) => size(a) - size(b))) {
      if (seen + size(box) > limit) continue;
      seen += size(box);
      open.add(box.id);
      next.push(...box.clusters);
    }
    level = next;
  }
  return open;
}
