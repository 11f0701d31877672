// Kernels over time (flame chart), kernels against the machine (roofline), memory over time.

const CHART = { left: 64, right: 20, top: 18, bottom: 40 };

/** Weight of a step in the charts: its time, or its bytes before it was ever timed. */
const stepWeight = (step) => (program.timed ? step.time ?? 0 : Math.max(step.bytes, 1));

/** A stable colour for a name. */
function hue(name) {
  let code = 7;
  for (const letter of name) code = (code * 31 + letter.codePointAt(0)) % 3600;
  return code / 10;
}

function chart(label, width, height, ...children) {
  return svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": label }, ...children);
}

/** Something in a chart that goes to a step, by mouse and keyboard. */
function stepMark(step, tip, ...children) {
  const go = () => page.showStep(step.id);
  return svg("g", { class: "mark", tabindex: 0, role: "button", "aria-label": tip, click: go,
    "data-step": step.id, keydown: (event) => event.key === "Enter" && go() },
  svg("title", {}, tip), ...children);
}

/** Steps in order along the time of one run; above them the modules they work for. */
function flameChart(width = 1200) {
  const steps = program.leafSteps;
  const whole = steps.reduce((sum, step) => sum + stepWeight(step), 0) || 1;
  const paths = steps.map((step) => modulePath(step));
  const depth = Math.max(1, ...paths.map((path) => path.length));
  const row = 24, inner = width - 4;
  const shapes = [];
  const starts = [];
  let at = 0;
  for (const step of steps) {
    starts.push(at);
    at += (stepWeight(step) / whole) * inner;
  }
  starts.push(at);
  for (let level = 0; level < depth; level++) {
    for (let i = 0; i < steps.length;) {
      let end = i + 1;
      const name = paths[i][level];
      const prefix = paths[i].slice(0, level + 1).join(".");
      while (end < steps.length && paths[end].slice(0, level + 1).join(".") === prefix) end++;
      if (name) {
        shapes.push(flameBar(starts[i], starts[end], level * row, row, name,
          `${prefix}: ${weightText((starts[end] - starts[i]) / inner, whole)}`, hue(prefix), 0.5));
      }
      i = end;
    }
  }
  steps.forEach((step, i) => {
    const tip = `#${step.id} ${step.name}: ${weightText(stepWeight(step) / whole, whole)}`;
    shapes.push(stepMark(step, tip,
      flameBar(starts[i], starts[i + 1], depth * row, row * 1.4, step.name, tip, hue(step.name),
        0.9)));
  });
  return chart("Flame chart of one step", width, depth * row + row * 1.4 + 4, ...shapes);
}

function weightText(share, whole) {
  const amount = share * whole;
  return `${program.timed ? duration(amount) : bytes(Math.round(amount))}, ${percent(share)}`;
}

function modulePath(step) {
  const path = step.locations[0]?.module;
  return path ? path.split(".") : [place(step.locations[0] ?? {}) || "(copies)"];
}

function flameBar(from, to, y, height, text, tip, color, strength) {
  const width = Math.max(0.5, to - from - 0.6);
  return svg("g", { class: "flame" }, svg("title", {}, tip),
    svg("rect", { x: from + 2, y: y + 1, width, height: height - 2, rx: 3,
      style: `--hue:${color};--strength:${strength}` }),
    width > 28 ? svg("text", { x: from + 7, y: y + height / 2 + 4 },
      shorten(text, Math.floor((width - 8) / 6.6))) : null);
}

/** Work per byte against work per second, both logarithmic; the roof is what the machine can. */
function roofline(width = 1200, height = 400) {
  const steps = program.leafSteps.filter((step) => step.time && step.flops && step.bytes);
  if (!steps.length) {
    return html("p", { class: "dim" }, "A roofline needs measured times: make the report with "
      + "arguments to run the program on.");
  }
  const intensity = (step) => step.flops / step.bytes, speed = (step) => step.flops / step.time;
  // A busy machine measures low limits: what a kernel has reached is possible too.
  const { memory, ...limits } = program.data.limits;
  const flops = Math.max(limits.flops, ...steps.map(speed));
  const caches = Math.max(limits.caches, ...steps.map((step) => step.bytes / step.time));
  const xs = logScale([...steps.map(intensity), flops / memory], CHART.left, width - CHART.right);
  const ys = logScale([...steps.map(speed), flops], height - CHART.bottom, CHART.top);
  const longest = Math.max(...steps.map((step) => step.time));
  return chart("Roofline", width, height,
    logAxes(xs, ys, width, height, "operations per byte", "flop/s"),
    roof(xs, ys, caches, flops, "caches", "roof faint"),
    roof(xs, ys, memory, flops, "memory", "roof"),
    svg("text", { x: width - CHART.right - 4, y: ys(flops) - 6, class: "note",
      "text-anchor": "end" }, `products: ${rate(flops)}flop/s`),
    [...steps].sort((a, b) => b.time - a.time).map((step) => stepMark(step,
      `#${step.id} ${step.name}: ${duration(step.time)}, ${rate(speed(step))}flop/s, `
      + `${rate(step.bytes / step.time)}B/s`,
      svg("circle", { cx: xs(intensity(step)), cy: ys(speed(step)),
        r: 3.5 + 14 * Math.sqrt(step.time / longest), style: `--hue:${hue(step.name)}` }))));
}

/** The most that so many bytes and operations a second allow. */
function roof(xs, ys, bandwidth, flops, name, look) {
  const left = Math.max(xs.low, ys.low / bandwidth), corner = flops / bandwidth;
  if (left >= corner) return null;
  const end = xs.decades.at(-1);
  const middle = Math.sqrt(left * corner);
  const slope = Math.atan2(ys(corner * bandwidth) - ys(left * bandwidth), xs(corner) - xs(left));
  return svg("g", {},
    svg("path", { class: look,
      d: `M${xs(left)} ${ys(left * bandwidth)}L${xs(corner)} ${ys(flops)}H${xs(end)}` }),
    svg("text", { class: "note", "text-anchor": "middle", transform:
      `translate(${xs(middle)} ${ys(middle * bandwidth) - 7}) rotate(${(slope * 180) / Math.PI})` },
    `${name}: ${rate(bandwidth)}B/s`));
}

/** A logarithmic scale over whole decades; `.low` and `.decades` tell where it runs. */
function logScale(values, from, to) {
  const low = Math.floor(Math.log10(Math.min(...values)));
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...values)) + 0.05));
  const scale = (value) => from + ((Math.log10(value) - low) / (high - low)) * (to - from);
  scale.low = 10 ** low;
  scale.decades = Array.from({ length: high - low + 1 }, (_, i) => 10 ** (low + i));
  return scale;
}

/** A decade without its zeros behind the point. */
const short = (value) => rate(value).replace(/(\d)\.0+\b/, "$1");

function logAxes(xs, ys, width, height, below, beside) {
  const bottom = height - CHART.bottom;
  return svg("g", { class: "axes" },
    xs.decades.map((value) => [
      svg("path", { d: `M${xs(value)} ${CHART.top}V${bottom}` }),
      svg("text", { x: xs(value), y: bottom + 16, "text-anchor": "middle" },
        value < 1 ? String(Number(value.toPrecision(1))) : short(value).trim())]),
    ys.decades.map((value) => [
      svg("path", { d: `M${CHART.left} ${ys(value)}H${width - CHART.right}` }),
      svg("text", { x: CHART.left - 8, y: ys(value) + 4, "text-anchor": "end" },
        short(value))]),
    svg("text", { x: (CHART.left + width) / 2, y: height - 4, "text-anchor": "middle" }, below),
    svg("text", { x: 6, y: CHART.top - 6 }, beside));
}

/** The arena: time to the right, bytes upwards, one box for each buffer's life. */
function memoryChart(width = 1200, height = 420) {
  const { buffers, arena_bytes: arena } = program.data.memory;
  const living = buffers.filter((buffer) => buffer.offset !== null && buffer.first !== null);
  if (!living.length) return html("p", { class: "dim" }, "This program keeps no temporaries.");
  const last = Math.max(1, program.steps.length);
  const x = (step) => CHART.left + (step / last) * (width - CHART.left - CHART.right);
  const y = (at) => height - CHART.bottom - (at / arena) * (height - CHART.top - CHART.bottom);
  return chart("Memory plan over time", width, height,
    svg("g", { class: "axes" },
      [0, 0.25, 0.5, 0.75, 1].map((part) => [
        svg("path", { d: `M${CHART.left} ${y(arena * part)}H${width - CHART.right}` }),
        svg("text", { x: CHART.left - 8, y: y(arena * part) + 4, "text-anchor": "end" },
          bytes(Math.round(arena * part)))]),
      svg("text", { x: (CHART.left + width) / 2, y: height - 6, "text-anchor": "middle" },
        `steps 0 to ${last - 1}, in order`)),
    aliveCurve(living, x, y),
    living.map((buffer) => {
      const tip = `b${buffer.id} ${buffer.name} ${buffer.type}: ${bytes(buffer.bytes)}, steps `
        + `${buffer.first} to ${buffer.last}`;
      return stepMark(program.steps[buffer.first], tip,
        svg("rect", { x: x(buffer.first), y: y(buffer.offset + buffer.bytes),
          width: Math.max(1, x(buffer.last + 1) - x(buffer.first) - 0.8),
          height: Math.max(1, y(buffer.offset) - y(buffer.offset + buffer.bytes) - 0.4),
          rx: 2, style: `--hue:${hue(buffer.type)}`, class: "buffer" }));
    }));
}

/** The bytes that are in use at every step, as a line over the plan. */
function aliveCurve(living, x, y) {
  const alive = program.steps.map((step) => living.reduce((sum, buffer) =>
    sum + (buffer.first <= step.id && step.id <= buffer.last ? buffer.bytes : 0), 0));
  const path = alive.map((size, i) => `${i ? "V" : `M${x(0)} `}${y(size)}H${x(i + 1)}`);
  return svg("path", { d: path.join(""), class: "alive" }, svg("title", {}, "bytes in use"));
}

const BUFFER_COLUMNS = ["buffer", "kind", "type", "bytes", "steps"];

/** What each kind of memory holds, and the largest buffers. */
function memoryTables() {
  const { buffers, naive_bytes: naive, arena_bytes: arena } = program.data.memory;
  const kinds = new Map();
  for (const buffer of buffers) {
    const [number, size] = kinds.get(buffer.kind) ?? [0, 0];
    kinds.set(buffer.kind, [number + 1, size + buffer.bytes]);
  }
  const largest = [...buffers].sort((a, b) => b.bytes - a.bytes).slice(0, 15);
  return html("div", { class: "columns" },
    html("section", {}, html("h2", {}, "By kind"),
      dataTable(["kind", "buffers", "bytes"], [...kinds].map(([kind, [number, size]]) =>
        [kind, { text: count(number), class: "number" }, { text: bytes(size), class: "number" }])),
      html("p", { class: "dim" }, `The plan holds ${bytes(naive)} of temporaries in `
        + `${bytes(arena)}.`)),
    html("section", {}, html("h2", {}, "Largest buffers"),
      html("div", { class: "scroll" }, dataTable(BUFFER_COLUMNS, largest.map((buffer) => [
        buffer.name || `b${buffer.id}`, buffer.kind, buffer.type,
        { text: bytes(buffer.bytes), class: "number" },
        { text: buffer.first === null ? "–" : `${buffer.first}–${buffer.last}`,
          class: "number" }])))));
}
