// The whole graph in a corner, with a frame around what is in sight: click or drag to go there.

const MAP_WIDTH = 170;
const MAP_HEIGHT = 190;

class MiniMap {
  /** `go(x, y)` brings a place of the drawing into the middle of the window. */
  constructor(go) {
    this.go = go;
    this.nodes = svg("path", { class: "map-nodes" });
    this.frames = svg("path", { class: "map-frames" });
    this.hits = svg("path", { class: "map-hits" });
    this.sight = svg("rect", { class: "map-sight" });
    this.picture = svg("svg", { class: "map", "aria-hidden": "true" },
      this.frames, this.nodes, this.hits, this.sight);
    this.picture.addEventListener("pointerdown", (event) => this.drag(event));
  }

  /** Another drawing. */
  draw(scene) {
    this.scene = scene;
    const scale = Math.min(MAP_WIDTH / scene.w, MAP_HEIGHT / scene.h);
    this.picture.setAttribute("viewBox", `0 0 ${scene.w} ${scene.h}`);
    this.picture.setAttribute("width", Math.max(24, scene.w * scale).toFixed(0));
    this.picture.setAttribute("height", Math.max(24, scene.h * scale).toFixed(0));
    this.nodes.setAttribute("d", rectangles(scene.things, 1.5 / scale));
    this.frames.setAttribute("d", rectangles(scene.boxes, 0));
    this.sight.setAttribute("stroke-width", (1.5 / scale).toFixed(1));
  }

  /** Which things a search has found. */
  mark(things) {
    this.hits.setAttribute("d", rectangles(things, this.scene.h / MAP_HEIGHT * 3));
  }

  /** The part in sight; there is no map while that is everything. */
  show(x, y, w, h) {
    const { scene } = this;
    const all = x <= 0 && y <= 0 && x + w >= scene.w && y + h >= scene.h;
    this.picture.toggleAttribute("hidden", all);
    for (const [name, value] of Object.entries({ x, y, width: w, height: h })) {
      this.sight.setAttribute(name, value.toFixed(1));
    }
  }

  drag(event) {
    event.preventDefault();
    event.stopPropagation();
    const move = ({ clientX, clientY }) => {
      const box = this.picture.getBoundingClientRect();
      const scale = Math.max(this.scene.w / box.width, this.scene.h / box.height);
      const left = box.left + (box.width - this.scene.w / scale) / 2;
      const top = box.top + (box.height - this.scene.h / scale) / 2;
      this.go((clientX - left) * scale, (clientY - top) * scale);
    };
    const stop = () => {
      window.removeEventListener("pointermove", move);
      window.removeEventListener("pointerup", stop);
    };
    move(event);
    window.addEventListener("pointermove", move);
    window.addEventListener("pointerup", stop);
  }
}

/** Boxes as one path, none smaller than `least`. */
function rectangles(boxes, least) {
  return boxes.map(({ x, y, w, h }) => {
    const [wide, tall] = [Math.max(w, least), Math.max(h, least)];
    return `M${x.toFixed(0)} ${y.toFixed(0)}h${wide.toFixed(0)}v${tall.toFixed(0)}h-${
      wide.toFixed(0)}z`;
  }).join("");
}
