// Pictures that are read one by one, two at a time; several are rows of a table that sorts. One is selected.

import { element } from "./element.js";
import { bytesOf } from "./export.js";
import { nameOf } from "./intake.js";
import { ServiceProblem } from "./service.js";
import { kindOf, outcome, percent } from "./wording.js";

const AT_A_TIME = 2;

const order = new Intl.Collator("en", { numeric: true });

const COLUMNS = [
  { title: "File", value: ({ name }) => name },
  { title: "Probability", value: ({ answer }) => (answer?.label ? answer.probability : null), show: percent },
  { title: "Label", value: outcome, show: String },
  { title: "Lesion", value: ({ answer }) => (answer?.label ? answer.lung_involvement?.both : null), show: percent },
];

export class Slices {
  #service;
  #card;
  #onShow;
  #onChange;
  #controller = new AbortController();
  #sort = { column: null, sign: 1 };
  #rows = element("tbody");
  #headings = COLUMNS.map((column) => this.#heading(column));
  entries = [];
  selected = null;
  table = element("table", {}, element("thead", {}, element("tr", {}, ...this.#headings)), this.#rows);

  /** `onShow(entry)` is called when the selected picture changes, `onChange()` when any does. */
  constructor(service, card, onShow, onChange) {
    [this.#service, this.#card, this.#onShow, this.#onChange] = [service, card, onShow, onChange];
  }

  /** Read more files. */
  add(files) {
    for (const file of [...files].sort((one, other) => order.compare(nameOf(one), nameOf(other)))) {
      const entry = { name: nameOf(file), file, state: "waiting", note: "" };
      const button = element("button", { type: "button", title: entry.name, tabIndex: -1 }, element("bdi", { textContent: entry.name }));
      entry.row = element("tr", { onclick: () => this.select(entry) }, element("th", { scope: "row" }, button));
      this.entries.push(entry);
      this.#update(entry);
    }
    this.#arrange();
    if (!this.selected) this.select(this.entries[0]);
    this.#pump();
  }

  /** Stop: waiting pictures are not sent, and running requests end. */
  cancel() {
    for (const entry of this.entries) if (entry.state === "waiting") this.#set(entry, { state: "cancelled" });
    this.#controller.abort();
    this.#controller = new AbortController();
  }

  /** The number of pictures in one of these states. */
  count(...states) {
    return this.entries.filter(({ state }) => states.includes(state)).length;
  }

  /** Show another picture. */
  select(entry) {
    const old = this.selected;
    this.selected = entry;
    if (old) this.#mark(old);
    this.#mark(entry);
    entry.row.scrollIntoView({ block: "nearest" });
    this.#onShow(entry);
  }

  /** Show the picture `by` rows below. */
  step(by) {
    const rows = [...this.#rows.rows];
    const next = this.entries.find(({ row }) => row === rows[rows.indexOf(this.selected.row) + by]);
    if (!next) return;
    const hasFocus = this.#rows.contains(document.activeElement);
    this.select(next);
    if (hasFocus) next.row.querySelector("button").focus({ preventScroll: true });
  }

  #pump() {
    const waiting = this.entries.filter(({ state }) => state === "waiting");
    for (const entry of waiting.slice(0, AT_A_TIME - this.count("sending"))) this.#read(entry, this.#controller.signal);
  }

  async #read(entry, signal) {
    this.#set(entry, { state: "sending" });
    const wait = (seconds) => this.#set(entry, { note: `The service is busy; retrying in ${seconds} s…` });
    try {
      const { slice_png_base64: png, overlay_png_base64: _overlay, heatmap, lungs, ...answer } = await this.#service.explain(entry.file, wait, signal);
      const slice = new Blob([bytesOf(png)], { type: "image/png" });
      this.#set(entry, { state: "done", answer, picture: { slice, lesion: heatmap, lungs } });
    } catch (error) {
      if (!signal.aborted && !(error instanceof ServiceProblem)) console.error(error);
      const problem = error.body ?? { code: "page_failed", detail: String(error) };
      this.#set(entry, signal.aborted ? { state: "cancelled" } : { state: "failed", problem, picture: await asSent(entry.file) });
    }
    this.#pump();
  }

  #set(entry, changes) {
    Object.assign(entry, { note: "" }, changes);
    this.#update(entry);
    this.#arrange();
    if (entry === this.selected) this.#onShow(entry);
    this.#onChange();
  }

  #update(entry) {
    const cells = COLUMNS.slice(1).map(({ value, show }) => {
      const content = value(entry) ?? null;
      return element("td", { textContent: content === null ? "-" : show(content) });
    });
    const isWhole = entry.state === "failed"; // the reason replaces the numbers
    entry.row.replaceChildren(entry.row.cells[0], ...(isWhole ? [element("td", { colSpan: 3, textContent: outcome(entry) })] : cells));
    this.#mark(entry);
  }

  #mark(entry) {
    const is = entry === this.selected;
    const kind = entry.state === "done" ? kindOf(entry.answer.label, this.#card()) : entry.state;
    entry.row.className = is ? `${kind} selected` : kind;
    const button = entry.row.querySelector("button");
    button.tabIndex = is ? 0 : -1;
    button.ariaCurrent = is ? "true" : null;
  }

  #heading(column) {
    const button = element("button", { type: "button", textContent: column.title, onclick: () => this.#sortBy(column) });
    return element("th", { scope: "col", ariaSort: "none" }, button);
  }

  /** Sort by a column; again: the other way; once more: as the files came. */
  #sortBy(column) {
    const first = column === COLUMNS[0] ? 1 : -1; // high numbers first
    if (this.#sort.column !== column) this.#sort = { column, sign: first };
    else this.#sort = this.#sort.sign === first ? { column, sign: -first } : { column: null, sign: 1 };
    this.#headings.forEach((heading, index) => {
      const direction = this.#sort.sign === 1 ? "ascending" : "descending";
      heading.ariaSort = COLUMNS[index] === this.#sort.column ? direction : "none";
    });
    this.#arrange();
  }

  #arrange() {
    const sorted = [...this.entries].sort(comparison(this.#sort)).map(({ row }) => row);
    if (sorted.every((row, index) => row === this.#rows.rows[index])) return;
    const active = document.activeElement;
    this.#rows.replaceChildren(...sorted);
    if (active !== document.activeElement) active.focus({ preventScroll: true });
  }
}

/** The picture of a file without a result; null if the browser can't read it. */
async function asSent(file) {
  try {
    (await createImageBitmap(file)).close();
    return { slice: file, lesion: null, lungs: null };
  } catch {
    return null;
  }
}

/** A comparison of entries; those without a value are last either way. */
function comparison({ column, sign }) {
  return (one, other) => {
    const [first, second] = [one, other].map((entry) => column?.value(entry) ?? null);
    if (first === null || second === null) return (first === null) - (second === null);
    return sign * (typeof first === "string" ? order.compare(first, second) : first - second);
  };
}
