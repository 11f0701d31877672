// Every step in a table that sorts, under the flame chart and beside the roofline.

const COLUMNS = [
  ["#", (step) => step.id, (step) => String(step.id)],
  ["kernel", (step) => step.name, (step) => step.name],
  ["time", (step) => step.time ?? 0, (step) => duration(step.time)],
  ["share", (step) => step.time ?? 0, null],
  ["bytes", (step) => step.bytes, (step) => bytes(step.bytes)],
  ["flop", (step) => step.flops, (step) => (step.flops ? rate(step.flops) : "–")],
  ["B/s", (step) => (step.time ? step.bytes / step.time : 0), (step) =>
    (step.time ? rate(step.bytes / step.time) : "–")],
  ["flop/s", (step) => (step.time ? step.flops / step.time : 0), (step) =>
    (step.time && step.flops ? rate(step.flops / step.time) : "–")],
  ["line", (step) => place(step.locations[0] ?? {}), (step) => place(step.locations[0] ?? {})],
  ["module", (step) => step.locations[0]?.module ?? "", (step) => step.locations[0]?.module ?? ""],
];

class KernelPage {
  constructor(host) {
    this.sort = program.timed ? 2 : 0;
    this.up = !program.timed;
    this.body = html("tbody");
    this.head = html("tr");
    host.replaceChildren(html("div", { class: "page" },
      html("section", { class: "wide" }, html("h2", {}, "One step, from left to right"),
        flameChart()),
      html("section", { class: "wide" }, html("h2", {}, "Roofline"), roofline()),
      html("section", { class: "wide" }, html("h2", {}, "Steps"),
        html("div", { class: "scroll" }, html("table", { class: "steps" },
          html("thead", {}, this.head), this.body)))));
    this.draw();
  }

  draw() {
    this.head.replaceChildren(...COLUMNS.map(([name], i) => html("th", {
      "aria-sort": i !== this.sort ? "none" : this.up ? "ascending" : "descending",
    }, html("button", { click: () => this.sortBy(i) }, name,
      i === this.sort ? (this.up ? " ▲" : " ▼") : ""))));
    const [, value] = COLUMNS[this.sort];
    const ordered = [...program.leafSteps].sort((a, b) => {
      const [one, two] = [value(a), value(b)];
      const order = one < two ? -1 : one > two ? 1 : a.id - b.id;
      return this.up ? order : -order;
    });
    this.body.replaceChildren(...ordered.map((step) => this.row(step)));
  }

  sortBy(column) {
    this.up = column === this.sort ? !this.up : column < 2;
    this.sort = column;
    this.draw();
    this.head.children[column].firstChild.focus();
  }

  row(step) {
    const share = program.timed ? (step.time ?? 0) / program.total : 0;
    return html("tr", { "data-step": step.id, click: () => page.showStep(step.id) },
      COLUMNS.map(([name, , text], i) => html("td", { class: i === 1 || i > 7 ? "" : "number" },
        name === "share" ? html("span", { class: "bar" },
          html("i", { style: `width:${(share * 100).toFixed(2)}%` }))
          : name === "kernel" ? html("button", { class: "link strong" }, step.name) : text(step))));
  }
}
