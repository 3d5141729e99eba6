// The box that shows what is going on: a text, a bar, the time left; a screen reader hears ten steps of it.

import { find } from "./element.js";
import { timeLeft } from "./wording.js";

const STEPS = 10;
const LEAST_SHARE = 0.02; // before it an estimate of the time left means nothing

export class Progress {
  #phase = "";
  #began = 0;
  #step = -1;

  /** Show a share of a phase, null if it is not known; `seconds` are left, else it is estimated. */
  show(phase, text, share, seconds) {
    if (phase !== this.#phase) [this.#phase, this.#began, this.#step] = [phase, performance.now(), -1];
    find("busy").hidden = false;
    const left = seconds ?? this.#estimate(share);
    find("state").textContent = left === null ? text : `${text} · ${timeLeft(left)}`;
    if (share === null) find("progress").removeAttribute("value");
    else find("progress").value = share;
    const step = Math.floor((share ?? 0) * STEPS);
    if (step !== this.#step) find("status").textContent = text;
    this.#step = step;
  }

  /** Hide the box; `text` is for screen readers. */
  end(text) {
    this.#phase = "";
    find("busy").hidden = true;
    find("status").textContent = text;
  }

  #estimate(share) {
    if (share === null || share < LEAST_SHARE || share >= 1) return null;
    return ((performance.now() - this.#began) / 1000) * (1 / share - 1);
  }
}
