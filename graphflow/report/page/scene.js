// From a stage and its open boxes to a drawing: what is seen, where it stands, what joins it.

const PAD = 16;
const HEAD = 28;
const TYPE_LETTERS = 32;
const LETTER = 7.3; // width of one letter of the labels

/** Everything to draw: {boxes, things, edges, w, h}, in absolute coordinates. */
function buildScene(tree, open) {
  const things = new Map();
  const top = { cluster: tree.root, children: [], edges: new Map(), parent: null };
  gather(tree.root, top, open, things);
  const edges = joinThings(shownItems(tree, things), things);
  const size = arrange(top);
  const boxes = [], placed = [];
  settle(top, 0, 0, boxes, placed);
  return { boxes, things: placed, edges: [...edges.values()], w: size.w, h: size.h };
}

/** The children of an open box; `things` maps items to what stands for them. */
function gather(cluster, box, open, things) {
  const children = [];
  for (const item of cluster.items) {
    const thing = { id: item.id, item, parent: box, order: item.node.id };
    if (open.has(item.regionId)) gatherRegions(item, thing, open, things);
    else Object.assign(thing, sizeOf(item.node));
    things.set(item, thing);
    children.push(thing);
  }
  for (const inner of cluster.clusters) {
    const ids = inner.all.map((item) => item.node).filter((node) => node.kind !== "leaf");
    const order = ids.reduce((sum, node) => sum + node.id, 0) / Math.max(1, ids.length);
    const thing = { id: inner.id, cluster: inner, parent: box, order, isOpen: open.has(inner.id) };
    if (thing.isOpen) {
      Object.assign(thing, { edges: new Map(), label: inner.name });
      gather(inner, thing, open, things);
    } else {
      Object.assign(thing, { w: Math.max(176, inner.name.length * LETTER + 54), h: 52 });
      for (const item of inner.all) things.set(item, thing);
    }
    children.push(thing);
  }
  box.children = children;
}

/** An item whose regions are open: a frame around them, each in one of its own if several. */
function gatherRegions(item, thing, open, things) {
  Object.assign(thing, {
    id: item.regionId, isOpen: true, edges: new Map(), label: shownTitle(item.node),
  });
  if (item.parts.length === 1) {
    gather(item.parts[0].root, thing, open, things);
    return;
  }
  thing.children = item.parts.map((part, order) => {
    const inner = { id: `${item.regionId}${order}`, parent: thing, order, edges: new Map(),
      label: part.root.name, around: item };
    gather(part.root, inner, open, things);
    return inner;
  });
}

/** The items of a tree and of the regions that are open. */
function* shownItems(tree, things) {
  for (const item of tree.items) {
    yield item;
    if (!things.get(item)?.isOpen || !item.parts || things.get(item).item !== item) continue;
    for (const part of item.parts) yield* shownItems(part, things);
  }
}

/** Children so that edges lead onwards; where boxes wait for each other, the earlier is first. */
function orderedByFlow(children, edges) {
  const waiting = new Map(children.map((child) => [child, new Set()]));
  const users = new Map(children.map((child) => [child, []]));
  for (const { outer, inner } of edges) {
    waiting.get(inner).add(outer);
    users.get(outer).push(inner);
  }
  const left = [...children].sort((a, b) => a.order - b.order);
  const ready = left.filter((child) => !waiting.get(child).size);
  const done = new Set();
  const ordered = [];
  let first = 0;
  while (ordered.length < children.length) {
    while (done.has(left[first])) first++;
    const child = ready.pop() ?? left[first];
    if (done.has(child)) continue;
    done.add(child);
    ordered.push(child);
    for (const user of users.get(child)) {
      if (waiting.get(user).delete(child) && !waiting.get(user).size) ready.push(user);
    }
  }
  return ordered;
}

/** The title where there is little room: names keep their end, the rest its beginning. */
function shownTitle(node) {
  const { title } = node;
  if (node.kind === "leaf" && title.length > 28) return `…${title.slice(-27)}`;
  return shorten(title, 34);
}

function sizeOf(node) {
  const leaf = node.kind === "leaf";
  const type = Math.min(node.type.length, TYPE_LETTERS);
  const letters = Math.max(shownTitle(node).length * 1.08, type * 0.86);
  const toggle = node.parts.length ? 22 : 0;
  return { w: Math.max(64, letters * LETTER + 24) + toggle, h: leaf ? 40 : 44 };
}

/** Edges between visible things; each is also an edge of the innermost box around both. */
function joinThings(items, things) {
  const edges = new Map();
  for (const item of items) {
    for (const input of item.inputs) {
      const from = things.get(input), to = things.get(item);
      if (from === to) continue;
      const id = `${from.id}>${to.id}`;
      if (edges.has(id)) {
        edges.get(id).count += 1;
        continue;
      }
      edges.set(id, { id, from, to, count: 1, types: input.node.type, level: levelEdge(from, to) });
    }
  }
  return edges;
}

function levelEdge(from, to) {
  const above = new Map();
  for (let at = from; at.parent; at = at.parent) above.set(at.parent, at);
  let inner = to;
  while (!above.has(inner.parent)) inner = inner.parent;
  const box = inner.parent, outer = above.get(box);
  const id = `${outer.id}>${inner.id}`;
  if (!box.edges.has(id)) box.edges.set(id, { outer, inner, box });
  return box.edges.get(id);
}

/** Lay out a box from the inside out; returns its size. */
function arrange(box) {
  for (const child of box.children) {
    if (child.children) {
      const size = arrange(child);
      child.w = Math.max(size.w, child.label.length * LETTER + 60) + 2 * PAD;
      child.h = size.h + HEAD + 2 * PAD;
    }
  }
  box.flow = [...box.edges.values()].filter((edge) => edge.outer !== edge.inner);
  box.children = orderedByFlow(box.children, box.flow);
  const position = new Map(box.children.map((child, i) => [child, i]));
  for (const edge of box.flow) {
    edge.from = position.get(edge.outer);
    edge.to = position.get(edge.inner);
  }
  return layeredLayout(box.children, box.flow);
}

/** Absolute places, outer boxes first. */
function settle(box, x, y, boxes, placed) {
  for (const edge of box.flow) edge.points = edge.route.map(([px, py]) => [px + x, py + y]);
  for (const child of box.children) {
    child.x += x;
    child.y += y;
    if (child.children) {
      boxes.push(child);
      settle(child, child.x + PAD, child.y + HEAD + PAD, boxes, placed);
    } else placed.push(child);
  }
}

/** The curve of an edge: out at the bottom, through its bends, in at the top. */
function edgePath(edge) {
  const start = [edge.from.x + edge.from.w / 2, edge.from.y + edge.from.h];
  const end = [edge.to.x + edge.to.w / 2, edge.to.y];
  const points = [start, ...edge.level.points, end];
  let path = `M${start[0].toFixed(1)} ${start[1].toFixed(1)}`;
  for (let i = 1; i < points.length; i++) {
    const [x0, y0] = points[i - 1], [x1, y1] = points[i];
    const reach = Math.min(Math.max(12, Math.abs(y1 - y0) / 2), 160);
    path += `C${x0.toFixed(1)} ${(y0 + reach).toFixed(1)} ${x1.toFixed(1)} `
      + `${(y1 - reach).toFixed(1)} ${x1.toFixed(1)} ${y1.toFixed(1)}`;
  }
  return path;
}
