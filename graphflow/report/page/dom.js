"use strict";
// Building elements, and numbers as people read them.

const SVG_NAMESPACE = "http://www.w3.org/2000/svg";

/** Set attributes (functions become listeners) and append children; text stays text. */
function furnish(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => (child ?? null) !== null));
  return element;
}

/** An HTML element. */
function html(tag, attributes, ...children) {
  return furnish(document.createElement(tag), attributes, children);
}

/** An SVG element. */
function svg(tag, attributes, ...children) {
  return furnish(document.createElementNS(SVG_NAMESPACE, tag), attributes, children);
}

/** Three significant digits, no exponent. */
function significant(value) {
  if (value === 0) return "0";
  const digits = Math.max(0, 2 - Math.floor(Math.log10(Math.abs(value))));
  return value.toFixed(Math.min(digits, 6));
}

function scaled(value, units) {
  for (const [factor, unit] of units) {
    if (Math.abs(value) >= factor) return `${significant(value / factor)} ${unit}`;
  }
  const [factor, unit] = units.at(-1);
  return `${significant(value / factor)} ${unit}`;
}

const duration = (seconds) =>
  seconds === null || seconds === undefined
    ? "–"
    : scaled(seconds, [[1, "s"], [1e-3, "ms"], [1e-6, "µs"]]);
const bytes = (count) =>
  count < 1000 ? `${count} B` : scaled(count, [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]]);
const count = (value) => value.toLocaleString("en");
const rate = (value) => scaled(value, [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"], [1, ""]]);
const percent = (part) => `${part >= 0.0995 ? Math.round(part * 100) : significant(part * 100)} %`;
const fileName = (path) => path.split(/[\\/]/).at(-1);
const place = (location) => (location.file ? `${fileName(location.file)}:${location.line}` : "");
const shorten = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);
const plural = (number, noun) => `${count(number)} ${noun}${number === 1 ? "" : "s"}`;

/** A table.  A cell is text, an element, or {text, class, title}; a title takes the class too. */
function dataTable(headers, rows, attributes = {}) {
  const cell = (value) =>
    value?.text === undefined
      ? html("td", {}, value)
      : html("td", { class: value.class, title: value.title }, value.text);
  const title = (name, i) => html("th", { class: rows[0]?.[i]?.class }, name);
  return html(
    "table", attributes,
    html("thead", {}, html("tr", {}, headers.map(title))),
    html("tbody", {}, rows.map((row) => html("tr", {}, row.map(cell)))),
  );
}
