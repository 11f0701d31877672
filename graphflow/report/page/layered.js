// Layered drawing of a directed graph, top to bottom: layers by longest path, order within a
// layer by barycentres, coordinates by least squares under the constraint of no overlap.

const GAP_X = 22;
const GAP_Y = 40;
const WIDE_LAYER = 1500;
const LONGEST_ROUTE = 9; // layers; longer edges are one curve behind the nodes

/**
 * Place boxes {w, h} joined by edges {from, to} (positions in `boxes`, which stand in an order
 * that edges mostly follow).  Sets box.x, box.y (corner) and edge.route (points between).
 */
function layeredLayout(boxes, edges) {
  const parts = components(boxes.length, edges);
  const placed = parts.map((part) => layoutComponent(boxes, edges, part));
  return shelves(boxes, edges, parts, placed);
}

/** Connected parts: {members, edges} in order of their first member. */
function components(size, edges) {
  const parent = Array.from({ length: size }, (_, i) => i);
  const find = (i) => {
    while (parent[i] !== i) i = parent[i] = parent[parent[i]];
    return i;
  };
  for (const edge of edges) parent[find(edge.from)] = find(edge.to);
  const parts = new Map();
  for (let i = 0; i < size; i++) {
    const root = find(i);
    if (!parts.has(root)) parts.set(root, { members: [], edges: [] });
    parts.get(root).members.push(i);
  }
  for (const edge of edges) parts.get(find(edge.from)).edges.push(edge);
  return [...parts.values()];
}

/** Put the parts in rows, so that many small ones make a block and not a line. */
function shelves(boxes, edges, parts, placed) {
  const area = placed.reduce((sum, part) => sum + (part.w + GAP_X) * (part.h + GAP_X), 0);
  const widest = Math.max(0, ...placed.map((part) => part.w));
  const limit = Math.max(widest, Math.sqrt(area * 1.8));
  let x = 0, y = 0, row = 0, width = 0;
  parts.forEach((part, number) => {
    const size = placed[number];
    if (x > 0 && x + size.w > limit) [x, y, row] = [0, y + row + GAP_X, 0];
    for (const i of part.members) {
      boxes[i].x += x;
      boxes[i].y += y;
    }
    for (const edge of part.edges) {
      edge.route = edge.route.map(([px, py]) => [px + x, py + y]);
    }
    x += size.w + GAP_X * 1.5;
    row = Math.max(row, size.h);
    width = Math.max(width, x - GAP_X * 1.5);
  });
  return { w: width, h: y + row };
}

function layoutComponent(boxes, edges, part) {
  const links = part.edges.map((edge) =>
    edge.from < edge.to ? { edge, from: edge.from, to: edge.to }
      : { edge, from: edge.to, to: edge.from, reversed: true });
  const layer = assignLayers(part.members, links);
  wrapWide(boxes, part.members, layer);
  const { points, layers } = withRoutes(boxes, part.members, links, layer);
  orderLayers(points, layers);
  placeAcross(points, layers);
  return finish(boxes, links, points, layers);
}

/** Layer of every member: longest path from the top, then sources move down to their users. */
function assignLayers(members, links) {
  const layer = new Map(members.map((i) => [i, 0]));
  const outgoing = new Map(members.map((i) => [i, []]));
  const incoming = new Map(members.map((i) => [i, 0]));
  for (const link of links) {
    outgoing.get(link.from).push(link.to);
    incoming.set(link.to, incoming.get(link.to) + 1);
  }
  for (const i of members) { // ascending positions are a topological order of the links
    for (const to of outgoing.get(i)) layer.set(to, Math.max(layer.get(to), layer.get(i) + 1));
  }
  for (const i of [...members].reverse()) {
    const below = outgoing.get(i).map((to) => layer.get(to) - 1);
    if (below.length > incoming.get(i)) layer.set(i, Math.max(layer.get(i), Math.min(...below)));
  }
  return layer;
}

/** Split layers that would be much wider than the drawing is tall into several rows. */
function wrapWide(boxes, members, layer) {
  const rows = [];
  for (const i of members) (rows[layer.get(i)] ??= []).push(i);
  const area = members.reduce((sum, i) => sum + (boxes[i].w + GAP_X) * (boxes[i].h + GAP_Y), 0);
  const widest = Math.max(...members.map((i) => boxes[i].w));
  const limit = Math.max(WIDE_LAYER, widest, 1.6 * Math.sqrt(area));
  let next = 0;
  for (const row of rows) {
    const width = row.reduce((sum, i) => sum + boxes[i].w + GAP_X, 0);
    const share = width / Math.ceil(width / limit);
    let used = 0;
    for (const i of row) {
      if (used > 0 && used + boxes[i].w / 2 > share) [next, used] = [next + 1, 0];
      layer.set(i, next);
      used += boxes[i].w + GAP_X;
    }
    next += 1;
  }
}

/** Points of the drawing: boxes, and one point a layer for every edge that passes it. */
function withRoutes(boxes, members, links, layer) {
  const points = new Map();
  const layers = [];
  const add = (point) => {
    (layers[point.layer] ??= []).push(point);
    return point;
  };
  for (const i of members) {
    const point = { box: i, w: boxes[i].w, h: boxes[i].h, layer: layer.get(i), up: [], down: [] };
    points.set(i, add(point));
  }
  for (const link of links) {
    let above = points.get(link.from);
    const end = points.get(link.to);
    link.bends = [];
    if (end.layer - above.layer > LONGEST_ROUTE) continue;
    for (let at = above.layer + 1; at < end.layer; at++) {
      const bend = add({ w: 4, h: 0, layer: at, up: [above], down: [], bend: true });
      above.down.push(bend);
      link.bends.push(bend);
      above = bend;
    }
    above.down.push(end);
    end.up.push(above);
  }
  return { points, layers: layers.map((row) => row ?? []) };
}

/** Barycentre sweeps, down and up in turn. */
function orderLayers(points, layers) {
  for (const row of layers) row.forEach((point, i) => (point.rank = i));
  const sweeps = points.size > 1500 ? 8 : 14;
  for (let sweep = 0; sweep < sweeps; sweep++) {
    const side = sweep % 2 ? "down" : "up";
    const rows = sweep % 2 ? [...layers].reverse() : layers;
    for (const row of rows) {
      for (const point of row) {
        const near = point[side];
        point.weight = near.length
          ? near.reduce((sum, other) => sum + other.rank / Math.max(1, layers[other.layer].length),
            0) / near.length
          : point.rank / Math.max(1, row.length);
      }
      row.sort((a, b) => a.weight - b.weight || a.rank - b.rank);
      row.forEach((point, i) => (point.rank = i));
    }
  }
}

/** Horizontal places: every point wants to stand below or above its neighbours. */
function placeAcross(points, layers) {
  for (const row of layers) {
    let x = 0;
    for (const point of row) {
      point.x = x + point.w / 2;
      x += point.w + GAP_X;
    }
    for (const point of row) point.x -= (x - GAP_X) / 2;
  }
  for (let sweep = 0; sweep < 12; sweep++) {
    const rows = sweep % 2 ? [...layers].reverse() : layers;
    for (const row of rows) {
      for (const point of row) {
        const near = sweep >= 8 ? [...point.up, ...point.down] : point[sweep % 2 ? "down" : "up"];
        point.wish = near.length
          ? near.reduce((sum, other) => sum + other.x, 0) / near.length : point.x;
        point.pull = (point.bend ? 4 : 1) * (near.length ? 1 : 0.1);
      }
      separate(row);
    }
  }
}

/** Least squares of x against the wishes, neighbours kept apart (pool adjacent violators). */
function separate(row) {
  const blocks = [];
  let shift = 0;
  row.forEach((point, i) => {
    if (i) {
      const gap = point.bend || row[i - 1].bend ? GAP_X / 2 : GAP_X;
      shift += (row[i - 1].w + point.w) / 2 + gap;
    }
    point.shift = shift;
    blocks.push({ from: i, pull: point.pull, mean: point.wish - shift });
    while (blocks.length > 1 && blocks.at(-2).mean > blocks.at(-1).mean) {
      const last = blocks.pop(), first = blocks.at(-1);
      const pull = first.pull + last.pull;
      first.mean = (first.mean * first.pull + last.mean * last.pull) / pull;
      first.pull = pull;
    }
  });
  blocks.forEach((block, i) => {
    const end = blocks[i + 1]?.from ?? row.length;
    for (let at = block.from; at < end; at++) row[at].x = block.mean + row[at].shift;
  });
}

/** Corners from centres, heights from layers, and the bends of every edge. */
function finish(boxes, links, points, layers) {
  let top = 0, left = Infinity, right = -Infinity;
  for (const row of layers) {
    const tall = Math.max(0, ...row.map((point) => point.h));
    for (const point of row) {
      point.y = top + tall / 2;
      left = Math.min(left, point.x - point.w / 2);
      right = Math.max(right, point.x + point.w / 2);
    }
    top += tall + GAP_Y;
  }
  for (const point of points.values()) {
    const box = boxes[point.box];
    box.x = point.x - point.w / 2 - left;
    box.y = point.y - point.h / 2;
  }
  for (const link of links) {
    const bends = link.bends.map((bend) => [bend.x - left, bend.y]);
    link.edge.route = link.reversed ? bends.reverse() : bends;
  }
  return { w: right - left, h: top - GAP_Y };
}
