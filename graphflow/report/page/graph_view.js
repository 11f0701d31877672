// The picture of a graph: pan, zoom, open and close boxes, walk with the arrow keys.

const ZOOM_STEP = 1.25;

class GraphView {
  /** `on.select(key)`, `on.box(cluster)`; `tint(node)` may name a class for a node. */
  constructor(host, label, on, tint = () => null) {
    Object.assign(this, { host, on, tint, scale: 1, x: 0, y: 0, opened: new Map() });
    this.layer = svg("g");
    this.picture = svg(
      "svg", { class: "graph", tabindex: 0, role: "group", "aria-label": label },
      svg("defs", {}, svg("marker", {
        id: `arrow-${label.replace(/\W/g, "")}`, viewBox: "0 0 8 8", refX: 7, refY: 4,
        markerWidth: 7, markerHeight: 7, orient: "auto",
      }, svg("path", { d: "M0 0L8 4L0 8z", class: "arrow" }))),
      this.layer,
    );
    this.arrow = `url(#arrow-${label.replace(/\W/g, "")})`;
    this.map = new MiniMap((x, y) => this.centre(x, y));
    host.replaceChildren(this.picture, this.map.picture, this.buttons());
    this.listen();
  }

  buttons() {
    const button = (text, title, action) =>
      html("button", { title, "aria-label": title, click: action }, text);
    return html(
      "div", { class: "zoom" },
      button("+", "Zoom in (+)", () => this.zoom(ZOOM_STEP)),
      button("−", "Zoom out (-)", () => this.zoom(1 / ZOOM_STEP)),
      button("⤢", "Fit (0)", () => this.fit()),
      button("⊞", "Open all modules (e)", () => this.openAll()),
      button("⊟", "Close all modules (c)", () => this.closeAll()),
    );
  }

  show(stage) {
    this.stage = stage;
    stage.tree ??= clusterTree(stage);
    if (!this.opened.has(stage)) this.opened.set(stage, initiallyOpen(stage.tree.root));
    this.draw();
    this.fit();
  }

  get open() {
    return this.opened.get(this.stage);
  }

  draw() {
    this.scene = buildScene(this.stage.tree, this.open);
    this.map.draw(this.scene);
    this.shapes = new Map();
    this.layer.replaceChildren(
      svg("g", {}, this.scene.boxes.map((box) => this.drawFrame(box))),
      svg("g", { class: "edges" }, this.scene.edges.map((edge) => this.drawEdge(edge))),
      svg("g", {}, this.scene.things.map((thing) =>
        thing.cluster ? this.drawClosed(thing) : this.drawNode(thing))),
    );
    this.mark();
  }

  drawFrame(box) {
    const node = box.item?.node;
    const look = node ? `region ${node.kind} ${node.op}` : box.cluster ? "" : "region part";
    const shape = svg(
      "g", { class: `frame ${look}`, "data-box": box.id },
      svg("rect", { x: box.x, y: box.y, width: box.w, height: box.h, rx: 12 }),
      svg("text", { x: box.x + (box.around ? 14 : 34), y: box.y + 21, class: "head" }, box.label),
      box.around ? null : toggleGlyph(box.x + 18, box.y + 16, true),
      svg("title", {}, node ? node.text : box.cluster
        ? `${box.label}: ${plural(box.cluster.all.length, "node")}` : box.label),
    );
    this.shapes.set(box.id, shape);
    if (node) this.shapes.set(node.key, [shape]);
    return shape;
  }

  drawClosed(thing) {
    const { cluster, x, y, w, h } = thing;
    const seconds = program.secondsOf(cluster.all.map((item) =>
      ({ key: item.node.key, last: this.stage.number === program.stages.length - 1 })));
    const share = program.timed && seconds ? ` · ${percent(seconds / program.total)}` : "";
    const tints = new Set(cluster.all.map((item) => this.tint(item.node)).filter(Boolean));
    const shape = svg(
      "g", { class: `closed ${[...tints].join(" ")}`, "data-box": thing.id },
      svg("rect", { x: x + 4, y: y + 4, width: w, height: h, rx: 10, class: "under" }),
      svg("rect", { x, y, width: w, height: h, rx: 10 }),
      toggleGlyph(x + 18, y + 18, false),
      svg("text", { x: x + 34, y: y + 22, class: "head" }, cluster.name),
      svg("text", { x: x + 34, y: y + 40, class: "type" },
        `${plural(cluster.all.length, "node")}${share}`),
    );
    this.shapes.set(thing.id, shape);
    return shape;
  }

  drawNode(thing) {
    const { item: { node }, x, y, w, h } = thing;
    const leaf = node.kind === "leaf", opens = node.parts.length > 0;
    const marks = [node.home.outputs.has(node.id) && "output",
      node.home.updates.has(node.id) && "update"].filter(Boolean);
    const middle = x + w / 2 + (opens ? 10 : 0);
    const kind = node.op === "fused" ? "fused" : node.kind;
    const tint = this.tint(node) ?? "";
    const shape = svg(
      "g", { class: `node ${kind} ${node.op} ${marks.join(" ")} ${tint}`, "data-key": node.key,
        "data-region": opens ? thing.item.regionId : null },
      svg("rect", { x, y, width: w, height: h, rx: leaf ? h / 2 : 7 }),
      svg("text", { x: middle, y: y + (leaf ? 17 : 19), class: "title" }, shownTitle(node)),
      svg("text", { x: middle, y: y + (leaf ? 30 : 34), class: "type" },
        shorten(node.type, TYPE_LETTERS)),
      opens ? toggleGlyph(x + 15, y + h / 2, false) : null,
      svg("title", {}, node.text),
    );
    if (!this.shapes.has(node.key)) this.shapes.set(node.key, []);
    this.shapes.get(node.key).push(shape);
    thing.shape = shape;
    return shape;
  }

  drawEdge(edge) {
    const path = svg("path", {
      d: edgePath(edge), "marker-end": this.arrow,
      "stroke-width": Math.min(1.2 + Math.log2(edge.count) * 0.7, 5),
    }, svg("title", {}, edge.types + (edge.count > 1 ? ` and ${edge.count - 1} more` : "")));
    if (Math.abs(edge.to.y - edge.from.y) > 900) path.classList.add("far");
    edge.shape = path;
    return path;
  }

  // ---- selection -----------------------------------------------------------------

  /** Show `key` as selected; opens the boxes around it and moves it into sight. */
  select(key, { reveal = true } = {}) {
    const node = this.stage.byKey.get(key);
    this.selected = key = node ? node.home.origin(node).key : key;
    const thing = this.find(key) ?? (reveal && this.reveal(key));
    this.mark();
    if (thing && reveal) this.bringIntoSight(thing);
  }

  find(key) {
    const drawn = this.scene.things.concat(this.scene.boxes);
    return drawn.find((thing) => thing.item?.node.key === key)
      ?? drawn.find((thing) => thing.id === key);
  }

  /** Open every box around a node; returns what is drawn for it. */
  reveal(key) {
    const item = [...everyItem(this.stage.tree)].find((other) => other.node.key === key);
    if (!item) return null;
    for (const box of boxesAround(item)) this.open.add(box);
    this.draw();
    return this.find(key);
  }

  /** Put the classes of selection, neighbourhood and search on the shapes. */
  mark() {
    this.layer.querySelectorAll(".selected, .near").forEach((shape) =>
      shape.classList.remove("selected", "near"));
    for (const shape of [this.shapes.get(this.selected) ?? []].flat()) {
      shape.classList.add("selected");
    }
    for (const edge of this.scene.edges) {
      const ends = [edge.from, edge.to].map((end) => end.item?.node.key ?? end.id);
      edge.shape.classList.toggle("near", ends.includes(this.selected));
    }
    this.picture.classList.toggle("searching", Boolean(this.hits));
    const found = [];
    for (const thing of this.scene.things) {
      const hit = thing.cluster ? thing.cluster.all.some((item) => this.hits?.has(item.node.key))
        : this.hits && hasHit(thing.item.node, this.hits);
      const shape = thing.shape ?? this.shapes.get(thing.id);
      shape.classList.toggle("hit", Boolean(hit));
      if (hit) found.push(thing);
    }
    this.map.mark(found);
  }

  search(hits) {
    this.hits = hits;
    this.mark();
  }

  /** Open or close a box: of a module, or of the regions of a node. */
  toggle(id) {
    const node = id.endsWith("{") ? id.slice(0, -1) : id;
    const before = this.find(id) ?? this.find(node);
    const corner = before && this.onScreen(before.x, before.y);
    if (this.open.has(id)) this.open.delete(id);
    else this.open.add(id);
    this.draw();
    const after = this.find(id) ?? this.find(node);
    if (corner && after) { // the box stays where the eye is
      this.x = corner[0] - after.x * this.scale;
      this.y = corner[1] - after.y * this.scale;
      if (this.open.has(id)) this.makeRoom(after);
      this.place();
    }
  }

  /** Move an opened box to the left and up as far as it is cut off. */
  makeRoom(box, margin = 24) {
    const { clientWidth: w, clientHeight: h } = this.picture;
    const [left, top] = this.onScreen(box.x, box.y);
    const [right, bottom] = this.onScreen(box.x + box.w, box.y + box.h);
    this.x -= Math.max(0, Math.min(right + margin - w, left - margin));
    this.y -= Math.max(0, Math.min(bottom + margin - h, top - margin));
  }

  openAll() {
    for (const item of everyItem(this.stage.tree)) {
      const { owner } = item.node.home;
      if (owner?.op !== "fused") for (const box of boxesAround(item)) this.open.add(box);
    }
    this.draw();
    this.fit();
  }

  closeAll() {
    this.opened.set(this.stage, new Set([""]));
    this.draw();
    this.fit();
  }

  // ---- the window ----------------------------------------------------------------

  onScreen(x, y) {
    return [x * this.scale + this.x, y * this.scale + this.y];
  }

  place() {
    this.layer.setAttribute("transform",
      `translate(${this.x.toFixed(1)} ${this.y.toFixed(1)}) scale(${this.scale.toFixed(4)})`);
    this.picture.classList.toggle("tiny", this.scale < 0.28);
    const { clientWidth: w, clientHeight: h } = this.picture;
    this.map.show(-this.x / this.scale, -this.y / this.scale, w / this.scale, h / this.scale);
  }

  /** Bring a place of the drawing into the middle. */
  centre(x, y) {
    this.x = this.picture.clientWidth / 2 - x * this.scale;
    this.y = this.picture.clientHeight / 2 - y * this.scale;
    this.place();
  }

  zoom(factor, cx = this.picture.clientWidth / 2, cy = this.picture.clientHeight / 2) {
    const scale = Math.min(4, Math.max(0.01, this.scale * factor));
    this.x = cx - ((cx - this.x) * scale) / this.scale;
    this.y = cy - ((cy - this.y) * scale) / this.scale;
    this.scale = scale;
    this.place();
  }

  /** The whole graph if it can be read that way, else its width from the top. */
  fit() {
    const { clientWidth: w, clientHeight: h } = this.picture;
    const whole = Math.min((w - 40) / this.scene.w, (h - 40) / this.scene.h);
    const across = (w - 40) / this.scene.w;
    this.scale = Math.min(1.1, whole > 0.4 ? whole : Math.max(whole, Math.min(across, 0.75)));
    this.x = (w - this.scene.w * this.scale) / 2;
    this.y = Math.max(20, (h - this.scene.h * this.scale) / 2);
    this.place();
  }

  bringIntoSight(thing) {
    const { clientWidth: w, clientHeight: h } = this.picture;
    if (this.scale < 0.4) this.scale = 0.8;
    const [x, y] = this.onScreen(thing.x + thing.w / 2, thing.y + thing.h / 2);
    if (x < 60 || y < 50 || x > w - 60 || y > h - 90) {
      this.x += w / 2 - x;
      this.y += h / 2 - y;
    }
    this.place();
  }

  // ---- input ---------------------------------------------------------------------

  listen() {
    const { picture } = this;
    picture.addEventListener("wheel", (event) => {
      event.preventDefault();
      const box = picture.getBoundingClientRect();
      this.zoom(Math.exp(-event.deltaY * (event.ctrlKey ? 0.01 : 0.0015)),
        event.clientX - box.left, event.clientY - box.top);
    }, { passive: false });
    picture.addEventListener("pointerdown", (event) => this.drag(event));
    picture.addEventListener("click", (event) => this.click(event));
    picture.addEventListener("keydown", (event) => this.key(event));
  }

  drag(event) {
    if (event.button) return;
    const from = [event.clientX - this.x, event.clientY - this.y];
    const start = [event.clientX, event.clientY];
    this.dragged = false;
    const move = (next) => {
      if (Math.hypot(next.clientX - start[0], next.clientY - start[1]) > 4) this.dragged = true;
      if (!this.dragged) return;
      [this.x, this.y] = [next.clientX - from[0], next.clientY - from[1]];
      this.place();
    };
    const stop = () => {
      window.removeEventListener("pointermove", move);
      window.removeEventListener("pointerup", stop);
    };
    window.addEventListener("pointermove", move);
    window.addEventListener("pointerup", stop);
  }

  click(event) {
    if (this.dragged) return;
    const node = event.target.closest("[data-key]");
    const box = event.target.closest("[data-box]");
    if (node?.dataset.region && event.target.closest(".toggle")) this.toggle(node.dataset.region);
    else if (node) this.on.select(readKey(node.dataset.key));
    else if (box && event.target.closest(".toggle, .closed, .head")) this.toggle(box.dataset.box);
    else if (box) this.chooseBox(box.dataset.box);
  }

  chooseBox(id) {
    this.selected = id;
    this.mark();
    const thing = this.find(id);
    if (thing?.cluster) this.on.box(thing.cluster);
    else if (thing?.item) this.on.select(thing.item.node.key);
  }

  key(event) {
    const arrows = { ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };
    const actions = {
      "+": () => this.zoom(ZOOM_STEP), "=": () => this.zoom(ZOOM_STEP),
      "-": () => this.zoom(1 / ZOOM_STEP), 0: () => this.fit(),
      e: () => this.openAll(), c: () => this.closeAll(),
      Enter: () => this.enter(), " ": () => this.enter(),
    };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (arrows[event.key] && event.shiftKey) this.pan(...arrows[event.key]);
    else if (arrows[event.key]) this.walk(...arrows[event.key]);
    else if (actions[event.key]) actions[event.key]();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  pan(dx, dy) {
    this.x -= dx * 80;
    this.y -= dy * 80;
    this.place();
  }

  /** Enter: open or close a box or the regions of a node, or close the box around a node. */
  enter() {
    const thing = this.find(this.selected);
    if (!thing) return;
    if (thing.cluster) this.toggle(thing.id);
    else if (thing.item?.parts) this.toggle(thing.item.regionId);
    else if (thing.parent?.parent) {
      const id = thing.parent.around?.regionId ?? thing.parent.id;
      this.toggle(id);
      this.chooseBox(id.endsWith("{") ? id.slice(0, -1) : id);
    }
  }

  /** Go to the nearest thing in a direction. */
  walk(dx, dy) {
    const here = this.find(this.selected);
    const things = this.scene.things;
    const middle = (thing) => [thing.x + thing.w / 2, thing.y + thing.h / 2];
    let best = null, least = Infinity;
    for (const thing of things) {
      if (thing === here) continue;
      if (!here) {
        if (thing.y < least) [best, least] = [thing, thing.y];
        continue;
      }
      const [x, y] = middle(thing), [x0, y0] = middle(here);
      const along = (x - x0) * dx + (y - y0) * dy;
      const across = Math.abs((x - x0) * dy) + Math.abs((y - y0) * dx);
      const far = along + 2.5 * across;
      if (along > 2 && far < least) [best, least] = [thing, far];
    }
    if (!best) return;
    if (best.cluster) this.chooseBox(best.id);
    else this.on.select(best.item.node.key);
    this.bringIntoSight(best);
  }
}

/** Whether a node, or one in its regions, is among those found. */
const hasHit = (node, hits) => hits.has(node.key)
  || node.parts.some((part) => part.nodes.some((inner) => hasHit(inner, hits)));

/** A node's key as it stands in an attribute or the address. */
const readKey = (text) => (/^\d+$/.test(text) ? Number(text) : text);

/** The small square with plus or minus that opens or closes a box. */
function toggleGlyph(x, y, isOpen) {
  return svg(
    "g", { class: "toggle" },
    svg("rect", { x: x - 8, y: y - 8, width: 16, height: 16, rx: 4 }),
    svg("path", { d: `M${x - 4} ${y}h8${isOpen ? "" : `M${x} ${y - 4}v8`}` }),
  );
}
