// A study that was read: its series with their slices, pictures and result files. One slice is selected.

import { element, find } from "./element.js";
import { bytesOf, save, studyRows, tables } from "./export.js";
import { drawLayers, layersOf } from "./map.js";
import { seriesSummary } from "./summary.js";
import { legend, percent, words } from "./wording.js";

const THUMBNAIL = 112; // pixels of a side

const FILES = {
  "segmentation.dcm": "SEG",
  "report.dcm": "SR",
  "lungs.nii.gz": "Lung mask",
  "lesion.nii.gz": "Lesion mask",
};

export class Study {
  #viewer;
  #card;
  #onSeries;
  #pictures = new Map(); // "series/slice" to a picture
  #profile;
  #series = null;
  #index = 0;
  #files = [];
  answer = null;

  /** `onSeries()` is called when another series is shown. */
  constructor(viewer, profile, card, onSeries) {
    [this.#viewer, this.#profile, this.#card, this.#onSeries] = [viewer, profile, card, onSeries];
  }

  /** Show the answer. */
  show(answer) {
    this.answer = answer;
    const likely = answer.series.toSorted((one, other) => (other.probability ?? -1) - (one.probability ?? -1));
    this.#showSeries(likely[0]);
  }

  /** Keep a line with a picture, and show it if it is wanted now. */
  async addPicture({ series, index, slice_jpeg: slice, lesion_png: lesion, lungs_png: lungs }) {
    const blob = (base64, type) => base64 && new Blob([bytesOf(base64)], { type });
    const picture = { slice: blob(slice, "image/jpeg"), lesion: blob(lesion, "image/png"), lungs: blob(lungs, "image/png") };
    this.#pictures.set(`${series}/${index}`, picture);
    if (series !== this.#series.index) return;
    if (index === this.#index) this.select(index);
    if (this.#series.key_slices.includes(index)) drawThumbnail(document.querySelector(`.key-button[value="${index}"] canvas`), picture);
  }

  /** Keep a line with a result file. */
  addFile(file) {
    this.#files.push(file);
  }

  /** Results as files, those of the series too: for each a label and a function that saves it. */
  get downloads() {
    const type = (name) => (name.endsWith(".dcm") ? "application/dicom" : "application/gzip");
    const files = this.#files.filter(({ series, name }) => series === this.#series.index && name in FILES);
    return [
      ...tables(studyRows(this.answer), this.answer),
      ...files.map(({ name, content }) => [FILES[name], () => save(`covid-ct-${name}`, type(name), bytesOf(content))]),
    ];
  }

  /** Why result files of the series are missing; "" if none is. */
  get missing() {
    const file = this.#files.find(({ series, name }) => series === this.#series.index && name === "missing.txt");
    return file ? new TextDecoder().decode(bytesOf(file.content)) : "";
  }

  /** Show a slice of the series. */
  select(index) {
    this.#index = index;
    const { slices, index: series } = this.#series;
    const slice = slices[index];
    const place = `Slice ${index} (0 to ${slices.length - 1})`;
    const caption = slice.position_mm === null ? place : `${place} · ${slice.position_mm.toFixed(1)} mm`;
    const finding = findingOf(slice);
    this.#profile.mark(index, `${caption}, ${finding}`);
    for (const button of document.querySelectorAll(".key-button")) button.ariaPressed = String(Number(button.value) === index);
    const picture = this.#pictures.get(`${series}/${index}`) ?? null;
    this.#viewer.show({ name: place, picture, caption, finding, hasSides: slice.position_mm !== null, legend: `${legend(this.#series.lung_involvement !== null)} Bars: lesion in each slice.` });
  }

  /** Show the slice `by` places towards the feet. */
  step(by) {
    this.select(Math.min(Math.max(this.#index - by, 0), this.#series.slices.length - 1));
  }

  #showSeries(series) {
    this.#series = series;
    find("summary").replaceChildren(...this.#choice(), ...seriesSummary(series, this.answer, this.#card()));
    find("list").replaceChildren(...this.#keys());
    this.#profile.draw(bars(series));
    this.select(series.key_slices[0] ?? series.slices.length >> 1);
    this.#onSeries();
  }

  #choice() {
    if (this.answer.series.length < 2) return [];
    const options = this.answer.series.map(({ index, slices, label, probability }) => element("option", {
      value: index,
      selected: index === this.#series.index,
      textContent: `Series ${index}: ${slices.length} slices, ${label ? `${label} ${percent(probability)}` : "no lungs"}`,
    }));
    const onchange = ({ target }) => {
      this.#showSeries(this.answer.series[target.value]);
      find("summary").querySelector("select").focus();
    };
    return [element("select", { ariaLabel: "Series", onchange }, ...options)];
  }

  #keys() {
    const buttons = this.#series.key_slices.map((index) => {
      const canvas = element("canvas", { width: THUMBNAIL, height: THUMBNAIL, ariaHidden: "true" });
      const picture = this.#pictures.get(`${this.#series.index}/${index}`);
      if (picture) drawThumbnail(canvas, picture);
      return element("button", { type: "button", className: "key-button", value: index, onclick: () => this.select(index) }, canvas, `Slice ${index}`);
    });
    return buttons.length ? [element("h2", { textContent: "Key slices" }), element("div", { className: "keys" }, ...buttons)] : [];
  }
}

async function drawThumbnail(canvas, picture) {
  const layers = await layersOf(picture);
  const scale = THUMBNAIL / Math.max(layers.image.width, layers.image.height);
  const context = canvas.getContext("2d");
  context.setTransform(scale, 0, 0, scale, (THUMBNAIL - layers.image.width * scale) / 2, (THUMBNAIL - layers.image.height * scale) / 2);
  drawLayers(context, layers, { withOutline: false, width: 1 / scale });
  layers.image.close();
}

function findingOf({ probability, lung_involvement: involvement, reason }) {
  if (reason) return words(reason);
  return involvement === null ? `probability ${percent(probability)}` : `${percent(involvement)} of the lungs is lesion`;
}

/** Bars of the profile. Slices that were not read are like the nearest one below that was. */
function bars({ slices, key_slices: keys }) {
  let last = {};
  return slices.map(({ reason, lung_involvement: involvement, probability, index }) => {
    if (reason === null) last = { kind: "lungs", value: involvement ?? probability };
    else if (reason !== "not_read") last = { kind: reason === "no_lungs" ? "empty" : "failed", value: null };
    return { ...last, isKey: keys.includes(index) };
  });
}
