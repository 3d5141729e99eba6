// The list item of one image: waiting, answered or failed. All text is inserted as text, never as markup.

import { headline, involvement, timing, verdict, worth } from "./wording.js";

/** An element with properties, attributes (in `attributes`) and children. */
export function element(tag, { attributes = {}, ...properties } = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** A list item with the state of the file. */
export function waiting(name) {
  const state = element("p", { className: "hint", textContent: "Waiting…" });
  const node = element("li", { className: "result waiting" }, nameOf(name), state);
  return { node, say: (text) => { state.textContent = text; } };
}

/** The list item of an answer. */
export function answered(name, answer, card, number) {
  return element("li", { className: "result done" }, view(name, answer, number), details(name, answer, card));
}

/** The list item of a problem. */
export function failed(name, problem) {
  return element(
    "li",
    { className: "result failed" },
    nameOf(name),
    element("h3", { className: "verdict", textContent: headline(problem) }),
    element("p", { textContent: problem.detail }),
    element("p", { className: "small failed-code", textContent: reference(problem) }),
  );
}

const reference = ({ code, request_id: id }) => (id ? `${code} · request ${id}` : code);

const nameOf = (name) => element("p", { className: "result-name", textContent: name });

const png = (base64) => `data:image/png;base64,${base64}`;

function view(name, answer, number) {
  const overlay = element("img", { src: png(answer.overlay_png_base64), alt: "", className: "overlay" });
  const id = `fade-${number}`;
  const slider = element("input", { type: "range", id, min: "0", max: "100", value: "100" });
  slider.setAttribute("aria-valuetext", "100 %");
  slider.addEventListener("input", () => {
    overlay.style.opacity = String(slider.value / 100);
    slider.setAttribute("aria-valuetext", `${slider.value} %`);
  });
  const words = (text) => element("span", { textContent: text });
  const colours = element("span", { attributes: { "aria-hidden": "true" } });
  const label = element("label", { htmlFor: id, textContent: "Lesion map" });
  return element(
    "div",
    { className: "view" },
    element("div", { className: "stack" }, element("img", { src: png(answer.slice_png_base64), alt: `Slice ${name}` }), overlay),
    element("div", { className: "fade" }, label, slider,
      element("div", { className: "scale" }, words("0"), colours, words("1"))),
  );
}

function details(name, answer, card) {
  const { kind, text } = verdict(answer, card);
  const parts = [nameOf(name), element("h3", { className: `verdict ${kind}`, textContent: text })];
  if (kind === "none") parts.push(element("p", { className: "callout", textContent: unlike(answer) }));
  parts.push(figure(answer), bar(answer, kind));
  const words = kind === "none" || !card ? "" : worth(answer.label, card);
  if (words) parts.push(element("p", { className: "words", textContent: words }));
  const area = involvement(answer);
  if (area && kind !== "none") parts.push(element("p", { className: "words", textContent: area }));
  parts.push(element("p", { className: "small", textContent: "Colours show the probability of a lesion at each place of the lungs, from 0 to 1; the scale is the same for every slice." }));
  parts.push(origin(answer));
  return element("div", { className: "answer" }, ...parts);
}

function unlike({ out_of_distribution: { score, threshold } }) {
  return `The checks of the picture failed (score ${score.toFixed(2)}, limit ${threshold.toFixed(2)}), so the probability below means nothing. Send one axial chest CT slice in a lung window.`;
}

function figure({ probability }) {
  const value = element("strong", { textContent: percent(probability) });
  return element("p", { className: "figure" }, value, element("span", { textContent: "probability of COVID-19, says the model" }));
}

const percent = (share) => `${(share * 100).toFixed(1)} %`;

function bar({ probability, threshold }, kind) {
  const value = element("div", { className: `bar-value ${kind}` });
  value.style.width = `${probability * 100}%`;
  const mark = element("div", { className: "bar-mark" });
  const label = element("span", { className: "bar-label", textContent: `threshold ${percent(threshold)}` });
  mark.style.left = `${threshold * 100}%`;
  label.style.left = `${Math.min(Math.max(threshold * 100, 18), 82)}%`;
  const spoken = `Probability ${percent(probability)}, threshold ${percent(threshold)}`;
  return element("div", { className: "bar", attributes: { role: "img", "aria-label": spoken } }, value, mark, label);
}

function origin({ model, timings_milliseconds: milliseconds }) {
  const link = element("a", { href: "#model", textContent: `${model.name} ${model.version}` });
  return element("p", { className: "small" }, "Model ", link, ` · ${timing(milliseconds)}`);
}
