// Profile of involvement along the body: a bar for each slice, the head at the top, under the slider of the stack.

import { element, find } from "./element.js";

const BANDS = [0.1, 0.25, 0.5, 0.75, 1]; // upper ends of the scale

export class Profile {
  /** `select(index)` is called when the user chooses a slice. */
  constructor(select) {
    find("slice").addEventListener("input", ({ target }) => select(Number(target.value)));
  }

  /** Draw the bars of slices `{ kind, value, isKey }`, from the feet; `kind` is a class. */
  draw(slices) {
    const most = Math.max(0, ...slices.map(({ value }) => value ?? 0));
    const end = BANDS.find((band) => most <= band) ?? 1;
    find("profile").hidden = slices.length < 2;
    find("profile").style.setProperty("--count", slices.length);
    find("profile-end").textContent = `${end * 100} %`;
    find("slice").max = slices.length - 1;
    find("bars").replaceChildren(...slices.map(({ kind, value, isKey }) => (
      element("i", { className: isKey ? `${kind} key-slice` : kind, style: `--share: ${((value ?? 0) / end) * 100}%` }))));
  }

  /** Mark the current slice. */
  mark(index, text) {
    find("slice").value = index;
    find("slice").ariaValueText = text;
  }
}
