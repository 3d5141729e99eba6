// The list of slices, twice in the same order: a table that sorts, and a strip of thumbnails. One slice is selected.

import { element } from "./element.js";
import { kindOf, outcome, percent } from "./wording.js";

const order = new Intl.Collator("en", { numeric: true });

const counts = ({ state, answer }) => state === "done" && kindOf(answer) !== "none";

const COLUMNS = [
  { key: "file", title: ["File", ""], value: ({ name }) => name },
  { key: "probability", title: ["Prob", "ability"], first: "descending", show: percent, value: (entry) => (counts(entry) ? entry.answer.probability : null) },
  { key: "label", title: ["Label", ""], value: outcome },
  { key: "involvement", title: ["Involv", "ement"], first: "descending", show: percent, value: (entry) => (counts(entry) ? entry.answer.lung_involvement?.both : null) },
  { key: "score", title: ["Check", ""], first: "descending", show: (score) => score.toFixed(2), value: ({ answer }) => answer?.out_of_distribution.score },
];

export class Results {
  #table;
  #strip;
  #onSelect;
  #items = new Map(); // entry to its row, its button and its thumbnail
  #sort = { column: null, direction: "none" };
  #ordered = [];
  #planned = false;
  selected = null;

  /** `onSelect(entry)` is called when another slice is selected. */
  constructor(table, strip, onSelect) {
    [this.#table, this.#strip, this.#onSelect] = [table, strip, onSelect];
    table.tHead.rows[0].append(...COLUMNS.map((column) => this.#heading(column)));
    table.tBodies[0].addEventListener("keydown", (event) => this.#moveInTable(event));
  }

  /** The slices in the order in which they are shown. */
  get ordered() {
    return this.#ordered;
  }

  /** Whether it shows this slice. */
  has(entry) {
    return this.#items.has(entry);
  }

  /** Show new slices at the end. */
  add(entries) {
    for (const entry of entries) this.#items.set(entry, this.#item(entry));
    this.#ordered.push(...entries);
    this.#table.tBodies[0].append(...entries.map((entry) => this.#items.get(entry).row));
    this.#strip.append(...entries.map((entry) => this.#items.get(entry).thumb));
    this.#plan();
    for (const entry of entries) this.update(entry);
    if (!this.selected && entries.length > 0) this.select(entries[0]);
  }

  /** Show the state of a slice. */
  update(entry) {
    const { row, thumb } = this.#items.get(entry);
    const none = entry.state === "failed" ? "" : "—"; // the reason replaces the numbers
    COLUMNS.forEach(({ value, show = String }, index) => {
      const found = value(entry) ?? null;
      if (index > 0) row.cells[index].textContent = found === null ? none : show(found);
    });
    const kind = entry.state === "done" ? kindOf(entry.answer) : entry.state;
    thumb.className = kind;
    row.className = entry === this.selected ? `${kind} selected` : kind;
    thumb.setAttribute("aria-label", `${entry.name}: ${outcome(entry)}`);
    if (entry.picture && thumb.childElementCount === 0) thumb.append(entry.picture.thumbnail);
    this.#plan();
  }

  /** Select a slice, and bring it into sight in the table and the strip. */
  select(entry) {
    if (this.selected && this.#items.has(this.selected)) this.#mark(this.selected, false);
    this.selected = entry;
    this.#mark(entry, true);
    const { row, thumb } = this.#items.get(entry);
    this.#strip.setAttribute("aria-activedescendant", thumb.id);
    this.#strip.scrollLeft = thumb.offsetLeft - (this.#strip.clientWidth - thumb.offsetWidth) / 2;
    const frame = this.#table.parentElement;
    const head = this.#table.tHead.offsetHeight;
    if (row.offsetTop < frame.scrollTop + head) frame.scrollTop = row.offsetTop - head;
    const over = row.offsetTop + row.offsetHeight - frame.clientHeight;
    if (over > frame.scrollTop) frame.scrollTop = over;
    this.#onSelect(entry);
  }

  /** Select the slice `by` places after this one; does nothing at the end. */
  step(by) {
    const next = this.#ordered[this.#ordered.indexOf(this.selected) + by];
    if (next) this.select(next);
  }

  /** Show nothing. */
  clear() {
    this.#items.clear();
    this.#ordered = [];
    this.selected = null;
    this.#table.tBodies[0].replaceChildren();
    this.#strip.replaceChildren();
    this.#strip.removeAttribute("aria-activedescendant");
  }

  #item(entry) {
    const [path, name] = parts(entry.name);
    const button = element("button", { type: "button", title: entry.name, tabIndex: -1 }, ...[path, name].map((textContent) => element("span", { textContent })));
    const row = element("tr", {}, element("th", { scope: "row" }, button), ...COLUMNS.slice(1).map(() => element("td")));
    const thumb = element("div", { id: `slice-${entry.number}`, title: entry.name, attributes: { role: "option", "aria-selected": "false" } });
    for (const node of [row, thumb]) node.addEventListener("click", () => this.select(entry));
    return { row, button, thumb };
  }

  #mark(entry, is) {
    const { row, button, thumb } = this.#items.get(entry);
    thumb.setAttribute("aria-selected", String(is));
    button.tabIndex = is ? 0 : -1;
    row.classList.toggle("selected", is);
    if (is) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  }

  #moveInTable(event) {
    const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!by) return;
    event.preventDefault();
    this.step(by);
    this.#items.get(this.selected).button.focus({ preventScroll: true });
  }

  #heading(column) {
    const [short, rest] = column.title;
    const button = element("button", { type: "button" }, short, element("span", { className: "wide", textContent: rest }));
    button.addEventListener("click", () => this.#sortBy(column));
    return element("th", { scope: "col", className: column.key, attributes: { "aria-sort": "none" } }, button);
  }

  /** Sort by a column; again: the other way; once more: as the files came. */
  #sortBy(column) {
    const first = column.first ?? "ascending";
    const second = first === "ascending" ? "descending" : "ascending";
    const next = this.#sort.column === column ? { [first]: second, [second]: "none" }[this.#sort.direction] : first;
    this.#sort = { column: next === "none" ? null : column, direction: next };
    COLUMNS.forEach((each, index) => {
      this.#table.tHead.rows[0].cells[index].setAttribute("aria-sort", each === this.#sort.column ? next : "none");
    });
    this.#arrange();
    if (this.selected) this.select(this.selected);
  }

  /** Arrange once a frame, however many answers come. */
  #plan() {
    if (this.#planned || !this.#sort.column) return;
    this.#planned = true;
    requestAnimationFrame(() => {
      this.#planned = false;
      this.#arrange();
    });
  }

  #arrange() {
    const sorted = [...this.#items.keys()].sort(comparison(this.#sort));
    if (sorted.every((entry, index) => entry === this.#ordered[index])) return;
    this.#ordered = sorted;
    const [active, frame] = [document.activeElement, this.#table.parentElement];
    const places = [frame.scrollTop, this.#strip.scrollLeft];
    this.#table.tBodies[0].replaceChildren(...sorted.map((entry) => this.#items.get(entry).row));
    this.#strip.replaceChildren(...sorted.map((entry) => this.#items.get(entry).thumb));
    [frame.scrollTop, this.#strip.scrollLeft] = places;
    if (active !== document.activeElement) active.focus({ preventScroll: true });
    if (this.selected) this.#onSelect(this.selected);
  }
}

/** The folder or zip of a file, and its own name: where both do not fit, the folder is cut first. */
function parts(name) {
  const at = Math.max(name.lastIndexOf("/"), name.lastIndexOf("!")) + 1;
  return [name.slice(0, at), name.slice(at)];
}

/** A comparison of slices; those without a value are last either way, equal ones as they came. */
function comparison({ column, direction }) {
  const arrival = (one, other) => one.number - other.number;
  if (!column) return arrival;
  const sign = direction === "ascending" ? 1 : -1;
  return (one, other) => {
    const [first, second] = [column.value(one) ?? null, column.value(other) ?? null];
    if (first === null || second === null) return (first === null) - (second === null) || arrival(one, other);
    const difference = typeof first === "string" ? order.compare(first, second) : first - second;
    return sign * difference || arrival(one, other);
  };
}
