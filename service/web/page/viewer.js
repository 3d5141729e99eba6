// One slice: the image and the map next to each other, and the result in words.

import { element, find } from "./element.js";
import { compact, drawBar, drawColours, drawContour, drawLungs } from "./map.js";
import { answers, checkScore, headline, kindOf, legend, outcome, percent, reason, relation, remedy, timing, worth } from "./wording.js";

const SIDE = 768; // pixels of the longer side: lines stay smooth on small slices
const THUMBNAIL = 112; // pixels, for screens of twice the density

/** Images of a result: the slice as a PNG, the values of the maps, a thumbnail with the map. */
export async function pictureOf({ slice_png_base64: png, heatmap, lungs }) {
  const slice = new Blob([Uint8Array.from(atob(png), (letter) => letter.charCodeAt(0))], { type: "image/png" });
  const picture = { slice, heatmap: compact(heatmap), lungs: compact(lungs) };
  const thumbnail = element("canvas");
  const image = await createImageBitmap(slice);
  drawSlice(thumbnail, image, THUMBNAIL);
  drawColours(thumbnail, picture.heatmap, 1);
  image.close();
  return { ...picture, thumbnail };
}

function drawSlice(canvas, image, side) {
  const scale = side / Math.max(image.width, image.height);
  canvas.width = Math.max(1, Math.round(image.width * scale));
  canvas.height = Math.max(1, Math.round(image.height * scale));
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, canvas.width, canvas.height);
}

export class Viewer {
  #card;
  #entry = null;
  #drawn = 0;

  /** `card` resolves to the model's card, or null. */
  constructor(card) {
    this.#card = card;
    drawBar(find("bar"));
    find("fade").addEventListener("input", () => this.#draw());
    find("outline").addEventListener("change", () => this.#draw());
  }

  /** Show a slice, which is the one at `place` (from 1) of `count`. */
  async show(entry, place, count) {
    this.#entry = entry;
    find("viewer-title").textContent = entry.name;
    find("position").textContent = `${place} of ${count}`;
    find("previous").setAttribute("aria-disabled", String(place === 1));
    find("next").setAttribute("aria-disabled", String(place === count));
    find("pictures").hidden = entry.state !== "done";
    const card = await this.#card;
    if (this.#entry !== entry) return;
    find("answer").replaceChildren(...(entry.state === "done" ? answered(entry.answer, entry.picture, card) : unanswered(entry)));
    if (entry.state === "done") await this.#draw();
  }

  async #draw() {
    const entry = this.#entry;
    if (entry?.state !== "done") return;
    const turn = (this.#drawn += 1);
    const { slice, heatmap, lungs } = entry.picture;
    const image = await createImageBitmap(slice);
    if (turn === this.#drawn) {
      const [plain, map, opacity] = [find("slice"), find("map"), find("fade").value / 100];
      for (const canvas of [plain, map]) drawSlice(canvas, image, SIDE);
      if (opacity > 0) {
        drawColours(map, heatmap, opacity);
        drawContour(map, heatmap);
      }
      if (lungs && find("outline").checked) drawLungs(map, lungs);
      find("outline").disabled = !lungs;
      find("fade").setAttribute("aria-valuetext", `${find("fade").value} %`);
      find("map-name").textContent = lungs ? "Lesion map" : "Heat map";
      find("legend").textContent = legend(entry.picture);
      plain.setAttribute("aria-label", `Slice ${entry.name}`);
      map.setAttribute("aria-label", `${lungs ? "Lesion map" : "Heat map"} over ${entry.name}`);
      map.dataset.of = entry.name;
    }
    image.close();
  }
}

const paragraph = (className, ...children) => element("p", { className }, ...children);

function unanswered(entry) {
  if (entry.state !== "failed") return [paragraph("hint", entry.note || outcome(entry))];
  const { code, detail, request_id: id } = entry.problem;
  return [
    paragraph("verdict bad", headline(entry.problem)),
    paragraph("", detail),
    paragraph("small", id ? `${code} · request ${id}` : code),
  ];
}

function answered(answer, picture, card) {
  const kind = kindOf(answer);
  const origin = paragraph("small", "Model ", element("a", { href: "#model", textContent: `${answer.model.name} ${answer.model.version}` }), ` · ${timing(answer.timings_milliseconds)}`);
  if (kind === "none") {
    return [paragraph("verdict none", `No result: ${lower(reason(answer))}`), paragraph("callout", `${checkScore(answer, card)} ${remedy(answer)}`), origin];
  }
  const words = card && answer.threshold === card.threshold ? worth(answer.label, card) : ""; // the card has scores for its own threshold only
  return [
    paragraph(`verdict ${kind}`, answer.label),
    paragraph("figure", element("strong", { textContent: percent(answer.probability) }), element("span", { textContent: `probability of COVID-19, ${relation(answer)}` })),
    bar(answer, kind),
    facts(answer, card),
    ...(words ? [paragraph("", words)] : []),
    origin,
  ];
}

const lower = (text) => text[0].toLowerCase() + text.slice(1);

function bar({ probability, threshold }, kind) {
  const value = element("div", { className: `bar-value ${kind}` });
  value.style.width = `${probability * 100}%`;
  const mark = element("div", { className: "bar-mark" });
  mark.style.left = `${threshold * 100}%`;
  mark.hidden = threshold === 0; // the lesions decide
  return element("div", { className: "bar", attributes: { role: "img", "aria-label": `Probability ${percent(probability)}, threshold ${percent(threshold)}` } }, value, mark);
}

function facts(answer, card) {
  const { lung_involvement: involved, lung_fraction: fraction } = answer;
  const rows = [["Check score", checkScore(answer, card)]];
  const both = answers(answer, card);
  if (fraction !== null) rows.unshift(["Lungs", `${percent(fraction)} of the image`]);
  if (involved) {
    const sides = `left lung ${percent(involved.left)} (on the right of the image), right lung ${percent(involved.right)}`;
    rows.unshift(["Involvement", `${percent(involved.both)} of the lungs in this slice is lesion: ${sides}`]);
  }
  if (both) rows.unshift(["Answers", both]);
  return element("dl", { className: "facts" }, ...rows.flatMap(([term, text]) => [element("dt", { textContent: term }), element("dd", { textContent: text })]));
}
