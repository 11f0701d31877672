// Where the time goes: calls summed up by kernel, module or line, or one by one.

const RANKINGS = {
  kernels: (step) => step.name,
  modules: (step) => step.locations[0]?.module || "(no module)",
  lines: (step) => place(step.locations[0] ?? {}) || "(no line)",
  calls: (step) => step.id,
};

class Ranking {
  constructor(most = 10) {
    this.most = most;
    this.list = html("ol", { class: "ranking" });
    this.chips = Object.keys(RANKINGS).map((by) =>
      html("button", { class: "chip", click: () => this.show(by) }, by));
    this.element = html("div", {},
      html("div", { class: "chips", role: "group", "aria-label": "Sum up by" }, this.chips),
      this.list);
    this.show("kernels");
  }

  show(by) {
    for (const chip of this.chips) {
      chip.classList.toggle("on", chip.textContent === by);
      chip.setAttribute("aria-pressed", String(chip.textContent === by));
    }
    const weight = (step) => (program.timed ? step.time ?? 0 : step.bytes);
    const sum = (steps) => steps.reduce((total, step) => total + weight(step), 0);
    const whole = sum(program.leafSteps) || 1;
    const rows = [...grouped(program.leafSteps, RANKINGS[by])]
      .map(([name, steps]) => ({ name, steps, weight: sum(steps) }))
      .sort((a, b) => b.weight - a.weight);
    this.list.replaceChildren(...rows.slice(0, this.most).map((row) => this.row(row, by, whole)));
    if (rows.length > this.most) {
      const rest = rows.slice(this.most).reduce((total, row) => total + row.weight, 0);
      this.list.append(html("li", { class: "dim rest" },
        `${count(rows.length - this.most)} more: ${percent(rest / whole)}`));
    }
  }

  /** One row; it leads to its slowest call. */
  row({ name, steps, weight }, by, whole) {
    const slowest = steps.reduce((a, b) => (stepWeight(b) > stepWeight(a) ? b : a));
    const single = by === "calls";
    const about = single ? `${place(slowest.locations[0] ?? {})} ${work(slowest)}`
      : `${plural(steps.length, "call")} · ${percent(weight / whole)}`;
    return html("li", {}, html(
      "button", { class: "link", click: () => page.showStep(slowest.id) },
      html("span", { class: "name" }, html("b", {}, single ? slowest.name : name),
        html("span", { class: "dim" }, about)),
      html("span", { class: "bar" },
        html("i", { style: `width:${((weight / whole) * 100).toFixed(2)}%` })),
      html("span", { class: "time" }, program.timed ? duration(weight) : bytes(weight)),
    ));
  }
}

/** What a step computes: its operations in order. */
function work(step) {
  const names = [...step.ir.matchAll(/ = (\w+)\(/g)].map((match) => match[1]);
  return summary(names, 6);
}
