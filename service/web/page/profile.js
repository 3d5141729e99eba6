// Profile of involvement along the body: a bar for each slice, the head at the top. It is also the slider of the stack.

import { drawing, element, find } from "./element.js";

const WIDTH = 100; // of the drawing; its height is the number of slices
const PAGE = 10; // slices
const THIN = 100; // slices, from which on there is no room between their bars
const BANDS = [0.1, 0.25, 0.5, 0.75, 1]; // upper ends of the scale

const label = (...texts) => element("p", {}, ...texts.map((textContent) => element("span", { textContent })));

export class Profile {
  #slices = [];
  #select;
  #mark = drawing("line", { class: "mark", x1: 0, x2: WIDTH });

  /** `select(index)` is called when the user chooses a slice. */
  constructor(select) {
    this.#select = select;
    const node = find("profile");
    for (const kind of ["pointerdown", "pointermove"]) {
      node.addEventListener(kind, (event) => {
        if (!(event.buttons & 1)) return;
        const { top, height } = node.querySelector("svg").getBoundingClientRect();
        this.#choose(Math.floor((1 - (event.clientY - top) / height) * this.#slices.length));
      });
    }
    node.addEventListener("keydown", (event) => this.#onKey(event));
  }

  /** Draw the bars of slices `{ kind, value, isKey }`, from the feet; `kind` is a class. */
  draw(slices) {
    this.#slices = slices;
    const node = find("profile");
    node.hidden = slices.length < 2;
    const most = Math.max(0, ...slices.map(({ value }) => value ?? 0));
    const end = BANDS.find((band) => most <= band) ?? 1;
    node.replaceChildren(
      label("Head", `${end * 100} %`),
      drawing("svg", { viewBox: `0 0 ${WIDTH} ${slices.length}`, preserveAspectRatio: "none", "aria-hidden": "true" },
        ...slices.flatMap((slice, index) => this.#bars(slice, slices.length - 1 - index, end)), this.#mark),
      label("Feet"));
    node.setAttribute("aria-valuemin", "0");
    node.setAttribute("aria-valuemax", String(slices.length - 1));
  }

  /** Mark the current slice. */
  mark(index, text) {
    const node = find("profile");
    for (const end of ["y1", "y2"]) this.#mark.setAttribute(end, this.#slices.length - index - 0.5);
    node.setAttribute("aria-valuenow", String(index));
    node.setAttribute("aria-valuetext", text);
  }

  #bars({ kind, value, isKey }, y, end) {
    const height = this.#slices.length < THIN ? 0.9 : 1;
    const bar = (name, width) => drawing("rect", { class: name, x: 0, y, width, height });
    return [bar(`back ${kind}`, WIDTH), ...(value ? [bar(isKey ? "amount key-slice" : "amount", (value / end) * WIDTH)] : [])];
  }

  #onKey(event) {
    const now = Number(find("profile").getAttribute("aria-valuenow"));
    const last = this.#slices.length - 1;
    const to = {
      ArrowUp: now + 1, ArrowRight: now + 1, ArrowDown: now - 1, ArrowLeft: now - 1,
      PageUp: now + PAGE, PageDown: now - PAGE, Home: 0, End: last,
    }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.#choose(to);
  }

  #choose(index) {
    this.#select(Math.min(Math.max(index, 0), this.#slices.length - 1));
  }
}
