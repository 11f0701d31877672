// The page: tabs, the selected node, search, theme, keys.

const program = new ProgramIndex(JSON.parse(document.getElementById("data").textContent));
const TABS = ["overview", "graph", "compare", "kernels", "memory"];
const element = (id) => document.getElementById(id);

const page = {
  tab: "overview",
  stage: 0,
  key: null,

  start() {
    document.title = `${program.data.name} · GraphFlow`;
    element("name").textContent = program.data.name;
    element("facts").textContent = [
      [program.stages[0], program.stages.at(-1)].map((stage) => count(stage.nodes.length))
        .join(" → ") + " nodes",
      plural(program.leafSteps.length, "call"),
      program.data.measured ? `${duration(program.data.measured.seconds)} a step` : null,
    ].filter(Boolean).join(" · ");
    element("overview").append(overview());
    TABS.forEach((name) => element(`tab-${name}`).addEventListener("click", () => this.show(name)));
    element("theme").addEventListener("click", () => this.theme());
    element("help-button").addEventListener("click", () => element("help").showModal());
    element("close-details").addEventListener("click", () => this.closeDetails());
    document.addEventListener("keydown", (event) => this.pressed(event));
    window.addEventListener("hashchange", () => this.readHash());
    startSearch();
    this.readHash();
  },

  /** Bring a tab to the front; what it shows is made when first seen. */
  show(name) {
    this.tab = name;
    for (const other of TABS) {
      const on = other === name;
      element(other).hidden = !on;
      element(`tab-${other}`).setAttribute("aria-selected", String(on));
      element(`tab-${other}`).tabIndex = on ? 0 : -1;
    }
    if (name === "graph") this.showGraph();
    if (name === "compare") {
      this.comparison ??= new Comparison(element("compare"));
      this.comparison.show(Math.max(0, this.stage - 1));
    }
    if (name === "kernels") this.kernels ??= new KernelPage(element("kernels"));
    if (name === "memory" && !element("memory").firstChild) {
      element("memory").append(html("div", { class: "page" },
        html("section", { class: "wide" }, html("h2", {}, "The arena over time"), memoryChart()),
        memoryTables()));
    }
    this.writeHash();
  },

  showGraph() {
    if (!this.view) {
      this.toolbar = html("div", { class: "toolbar" });
      const pane = html("div", { class: "pane" });
      element("graph").append(this.toolbar, pane);
      this.view = new GraphView(pane, "graph", {
        select: (key) => this.select(key),
        box: (cluster) => this.details(boxDetails(cluster)),
      });
    }
    const stage = program.stages[this.stage];
    this.toolbar.replaceChildren(html("div", { class: "chips", role: "group",
      "aria-label": "Stage" }, program.stages.map((other, number) => html("button", {
      class: number === this.stage ? "chip on" : "chip",
      "aria-pressed": String(number === this.stage), click: () => this.goTo(number),
    }, other.name, html("span", { class: "dim" }, ` ${count(other.nodes.length)}`)))),
    html("span", { class: "dim note" }, stage.note));
    if (this.view.stage !== stage) this.view.show(stage);
  },

  /** The graph of a stage, with the selected node if it is there. */
  goTo(number, key = this.key) {
    this.stage = Math.min(Math.max(number, 0), program.stages.length - 1);
    this.show("graph");
    search.update(false);
    const stage = program.stages[this.stage];
    if (key !== null && stage.byKey.has(key)) this.select(key);
    else this.view.select(null, { reveal: false });
  },

  select(key) {
    if (this.tab === "compare" && this.comparison.pair.some((stage) => stage.byKey.has(key))) {
      this.comparison.select(key);
      return;
    }
    if (this.tab !== "graph") this.show("graph");
    this.details([]); // takes its room before the node is brought into sight
    const stage = program.stages[this.stage];
    const node = stage.byKey.get(key);
    if (!node) return;
    this.key = key;
    this.view.select(key);
    this.details(nodeDetails(stage, node));
    element("announce").textContent = `${node.title}, ${node.type}`;
    this.writeHash();
  },

  showStep(id) {
    if (!["kernels", "memory"].includes(this.tab)) this.show("kernels");
    document.querySelectorAll("[data-step].on").forEach((mark) => mark.classList.remove("on"));
    document.querySelectorAll(`[data-step="${id}"]`).forEach((mark) => mark.classList.add("on"));
    this.details(stepDetails(program.steps[id]));
  },

  showStepInGraph(step) {
    const last = program.stages.at(-1);
    if (step.node !== null && last.nodes[step.node]) {
      this.goTo(last.number, last.nodes[step.node].key);
      return;
    }
    const stage = [...program.stages].reverse().find((other) =>
      step.nodes.some((key) => other.byKey.has(key)));
    if (stage) this.goTo(stage.number, step.nodes.find((key) => stage.byKey.has(key)));
  },

  details(content) {
    element("details-body").replaceChildren(...content.flat(2).filter(Boolean));
    element("details").hidden = false;
    element("details-body").scrollTop = 0;
  },

  closeDetails() {
    element("details").hidden = true;
    this.view?.picture.focus();
  },

  theme() {
    const root = document.documentElement;
    const dark = root.dataset.theme ? root.dataset.theme === "dark"
      : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
  },

  /** Where one is stands in the address, so that it can be sent to somebody. */
  writeHash() {
    const parts = [this.tab];
    if (this.tab === "graph") {
      parts.push(program.stages[this.stage].name, encodeURIComponent(this.key ?? ""));
    }
    history.replaceState(null, "", `#${parts.join("/").replace(/\/+$/, "")}`);
  },

  readHash() {
    const [tab, stage, key] = location.hash.slice(1).split("/");
    const number = program.stages.findIndex((other) => other.name === stage);
    if (tab === "graph" && number >= 0) {
      this.goTo(number, key ? readKey(decodeURIComponent(key)) : null);
    }
    else this.show(TABS.includes(tab) ? tab : "overview");
  },

  pressed(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.matches("input, textarea")) return;
    if (event.target.matches("[role=tab]") && /^Arrow(Left|Right)$/.test(event.key)) {
      const step = event.key === "ArrowRight" ? 1 : TABS.length - 1;
      this.show(TABS[(TABS.indexOf(this.tab) + step) % TABS.length]);
      element(`tab-${this.tab}`).focus();
      return;
    }
    const actions = {
      "/": () => element("search").focus(),
      "?": () => element("help").showModal(),
      t: () => this.theme(),
      g: () => { this.show("graph"); this.view.picture.focus(); },
      "[": () => this.step(-1),
      "]": () => this.step(1),
      Escape: () => this.closeDetails(),
    };
    TABS.forEach((name, i) => (actions[i + 1] = () => this.show(name)));
    if (!actions[event.key] || element("help").open) return;
    event.preventDefault();
    actions[event.key]();
  },

  /** The stage before or after, in the graph or in the comparison. */
  step(by) {
    if (this.tab === "compare") this.comparison.show(this.comparison.number + by);
    else this.goTo(this.tab === "graph" ? this.stage + by : this.stage);
  },
};

page.start();
