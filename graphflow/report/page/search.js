// Search: operations, names, types, modules, lines and kernels of the stage in sight.

const MOST_RESULTS = 60;
const search = { results: [], at: -1, update: () => {} };

/** Words that a node is found by. */
function searchText(node) {
  const kernels = program.stepsAround(node).flatMap((step) => [step.name, ...step.kernels]);
  return [node.title, node.op, node.label, node.type, node.module, place(node), node.kind,
    ...(node.op === "fused" ? bodyOperations(node) : []), ...kernels].join(" ").toLowerCase();
}

function startSearch() {
  const field = element("search");
  const list = element("results");
  search.update = (shown = true) => {
    const words = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    const stage = program.stages[page.stage];
    search.at = -1;
    search.results = words.length ? [...stage.nodes, ...stage.inner].filter((node) => {
      if (node.op === "get") return false;
      node.words ??= searchText(node);
      return words.every((word) => node.words.includes(word));
    }) : [];
    page.view?.search(words.length ? new Set(search.results.map((node) => node.key)) : null);
    showResults(list, shown && words.length > 0);
  };
  field.addEventListener("input", () => search.update());
  field.addEventListener("focus", () => search.update());
  field.addEventListener("keydown", (event) => searchKey(event, field, list));
  document.addEventListener("pointerdown", (event) => {
    if (!event.target.closest(".search")) list.hidden = true;
  });
}

function searchKey(event, field, list) {
  if (event.key === "Escape") {
    field.value = "";
    search.update();
    field.blur();
    return;
  }
  const step = { ArrowDown: 1, ArrowUp: -1, Enter: 0 }[event.key];
  if (step === undefined || !search.results.length) return;
  event.preventDefault();
  const shown = Math.min(search.results.length, MOST_RESULTS);
  if (step) {
    search.at = (search.at + step + shown) % shown;
    showResults(list, true);
    return;
  }
  choose(search.results[Math.max(0, search.at)], list);
}

function choose(node, list) {
  list.hidden = true;
  if (page.tab !== "graph") page.show("graph");
  page.select(node.key);
  page.view.search(new Set(search.results.map((other) => other.key)));
  page.view.picture.focus();
}

function showResults(list, searching) {
  list.hidden = !searching;
  const stage = program.stages[page.stage];
  list.replaceChildren(
    html("li", { class: "dim" }, `${plural(search.results.length, "match")
      .replace("matchs", "matches")} in ${stage.name}`),
    ...search.results.slice(0, MOST_RESULTS).map((node, i) => html("li", {},
      html("button", { class: i === search.at ? "link on" : "link", tabindex: -1,
        click: () => choose(node, list) },
      html("span", { class: dotClass(node) }),
      html("b", {}, shorten(node.title, 30)), html("span", { class: "dim" },
        `${node.type} ${node.module} ${place(node)}`)))));
  list.querySelector(".on")?.scrollIntoView({ block: "nearest" });
}
