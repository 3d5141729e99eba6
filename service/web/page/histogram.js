// Histogram of the probabilities: the number of slices in each twentieth.

import { drawing } from "./element.js";
import { kindOf, percent } from "./wording.js";

const BINS = 20;
const [WIDTH, HEIGHT, BASE, TOP] = [400, 120, 96, 16];

/** An SVG of `answers`; those with the positive label are drawn on top, in its colour. */
export function histogram(answers) {
  const bins = Array.from({ length: BINS }, () => ({ yes: 0, no: 0 }));
  for (const answer of answers) {
    bins[Math.min(Math.floor(answer.probability * BINS), BINS - 1)][kindOf(answer)] += 1;
  }
  const most = Math.max(1, ...bins.map(({ yes, no }) => yes + no));
  const threshold = answers.at(-1)?.threshold;
  return drawing("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": spoken(answers, bins, most) },
    drawing("line", { class: "axis", x1: 0, x2: WIDTH, y1: BASE + 0.5, y2: BASE + 0.5 }),
    ...bins.flatMap((bin, index) => columns(bin, index, (BASE - TOP) / most)),
    ...[0, 0.25, 0.5, 0.75, 1].map((share) => tick(share)),
    ...(threshold ? mark(threshold) : []));
}

function columns({ yes, no }, index, unit) {
  const width = WIDTH / BINS;
  const column = (kind, count, from) =>
    drawing("rect", { class: kind, x: index * width + 1, width: width - 2, y: BASE - (from + count) * unit, height: count * unit });
  const parts = [];
  if (no) parts.push(column("no", no, 0));
  if (yes) parts.push(column("yes", yes, no));
  if (yes + no) parts.push(drawing("text", { class: "count", x: (index + 0.5) * width, y: BASE - (yes + no) * unit - 4 }, String(yes + no)));
  return parts;
}

const anchor = (share) => (share === 0 ? "start" : share === 1 ? "end" : "middle");

const tick = (share) => drawing("text", { x: share * WIDTH, y: HEIGHT - 6, "text-anchor": anchor(share) }, `${share * 100} %`);

function mark(threshold) {
  const x = threshold * WIDTH;
  return [drawing("line", { class: "threshold", x1: x, x2: x, y1: 4, y2: BASE + 5 })];
}

function spoken(answers, bins, most) {
  if (answers.length === 0) return "No results yet";
  const fullest = bins.findIndex(({ yes, no }) => yes + no === most);
  const values = answers.map(({ probability }) => probability).sort((one, other) => one - other);
  return `Probabilities of ${answers.length} slices: lowest ${percent(values[0])}, middle ${percent(values[values.length >> 1])}, ` +
    `highest ${percent(values.at(-1))}; most are between ${(fullest * 100) / BINS} and ${((fullest + 1) * 100) / BINS} %`;
}
