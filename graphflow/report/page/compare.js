// Two neighbouring stages side by side: what a pass took away and what it put there.

class Comparison {
  constructor(host) {
    this.number = 0;
    this.heading = html("div", { class: "toolbar" });
    this.sides = ["before", "after"].map((name) => html("div", { class: "pane" }));
    this.list = html("div", { class: "changes" });
    host.replaceChildren(this.heading, html("div", { class: "panes" }, this.sides), this.list);
    const on = { select: (key) => this.select(key), box: () => {} };
    this.views = this.sides.map((side, i) => new GraphView(side, i ? "after" : "before", on,
      (node) => this.tint(node, i)));
  }

  /** `removed` or `added`; `rewired` when only what the node reads is another. */
  tint(node, side) {
    if (node.kind === "leaf" || node.op === "get" || node.home.owner?.op === "fused") return null;
    if (!this.pair || this.pair[1 - side].byKey.has(node.key)) return null;
    return this.partners.has(node.key) ? "rewired" : side ? "added" : "removed";
  }

  /** Compare stage `number` with the next. */
  show(number) {
    this.number = Math.min(Math.max(number, 0), Math.max(0, program.stages.length - 2));
    this.pair = [program.stages[this.number],
      program.stages[Math.min(this.number + 1, program.stages.length - 1)]];
    this.partners = partners(...this.pair);
    this.views.forEach((view, i) => view.show(this.pair[i]));
    this.drawHeading();
    this.drawList();
  }

  drawHeading() {
    const [before, after] = this.pair;
    const tabs = program.stages.slice(1).map((stage, i) => html("button", {
      class: i === this.number ? "chip on" : "chip", "aria-pressed": String(i === this.number),
      click: () => this.show(i),
    }, `${program.stages[i].name} → ${stage.name}`));
    const gone = before.nodes.filter((node) => this.tint(node, 0) === "removed");
    const come = after.nodes.filter((node) => this.tint(node, 1) === "added");
    const rewired = after.nodes.filter((node) => this.tint(node, 1) === "rewired");
    this.changes = [gone, come];
    this.heading.replaceChildren(
      html("div", { class: "chips" }, tabs),
      html("span", { class: "tally removed" }, `−${count(gone.length)}`),
      html("span", { class: "tally added" }, `+${count(come.length)}`),
      html("span", { class: "dim" }, `${count(rewired.length)} read other values · ${count(
        after.nodes.filter((node) => before.byKey.has(node.key)).length)} unchanged`),
    );
  }

  /** Operations taken and put, most first; a click finds the next one of them. */
  drawList() {
    this.list.replaceChildren(...this.changes.map((nodes, side) => {
      const groups = grouped(nodes, (node) => node.op);
      const chips = [...groups].sort((a, b) => b[1].length - a[1].length).map(([op, members]) => {
        let at = 0;
        return html("button", { class: `chip ${side ? "added" : "removed"}`,
          title: "Show the next one", click: () => {
            this.select(members[at].key, side);
            at = (at + 1) % members.length;
          } }, `${side ? "+" : "−"}${members.length} ${op}`);
      });
      return html("div", { class: "chips" },
        chips.length ? chips
          : html("span", { class: "dim" }, side ? "nothing new" : "nothing gone"));
    }));
  }

  /** Select a node on both sides; a fused node's members are marked on the other side. */
  select(key, side = null) {
    this.views.forEach((view, i) => {
      const here = view.stage.byKey.has(key) ? key : this.partners.get(key) ?? null;
      view.select(here, { reveal: here !== null && (side === null || side === i) });
      const members = new Set(program.stepsFor(key).flatMap((step) => step.nodes));
      const marked = here === null && members.size ? members : null;
      view.search(marked);
    });
    const stage = this.pair.find((other) => other.byKey.has(key));
    page.details(nodeDetails(stage, stage.byKey.get(key)));
  }
}

function grouped(nodes, by) {
  const groups = new Map();
  for (const node of nodes) {
    if (groups.has(by(node))) groups.get(by(node)).push(node);
    else groups.set(by(node), [node]);
  }
  return groups;
}

/** Nodes of two stages that are the same but for what they read: keys, both ways. */
function partners(before, after) {
  const signature = (node) => JSON.stringify(
    [node.op, node.type, node.attrs, node.file, node.line, node.module]);
  const waiting = grouped(before.nodes.filter((node) =>
    node.kind !== "leaf" && !after.byKey.has(node.key)), signature);
  const found = new Map();
  for (const node of after.nodes) {
    if (node.kind === "leaf" || before.byKey.has(node.key)) continue;
    const partner = waiting.get(signature(node))?.shift();
    if (!partner) continue;
    found.set(partner.key, node.key);
    found.set(node.key, partner.key);
  }
  return found;
}
