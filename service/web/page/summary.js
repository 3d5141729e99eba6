// Results in words and numbers: of a series, of a slice, of a failure, and of the model.

import { element } from "./element.js";
import { checkScore, counted, kindOf, outcome, percent, relation, sentences, SEVERITY, words, worth } from "./wording.js";

const paragraph = (className, ...children) => element("p", { className }, ...children);

/** The result of a series. */
export function seriesSummary(series, answer, card) {
  const { lung_involvement: involved, severity } = series;
  if (series.label === null) return [paragraph("verdict none", "No lungs in this series"), seriesFacts(series)];
  return [
    ...verdict(series, card),
    ...(severity ? [paragraph("severity", element("strong", { textContent: severity }), ` ${percent(involved.both)} of the lungs is lesion (band: ${SEVERITY[severity]})`)] : []),
    seriesFacts(series),
    ...spoken(series),
    ...warnings(series.warnings),
    ...others(answer),
    paragraph("small", `Series probability: ${series.rule}.`),
  ];
}

/** The result of a slice, or why there is none. */
export function sliceSummary(entry, card) {
  const { answer, state, name } = entry;
  const title = element("h2", { textContent: name });
  if (state === "failed") return [title, ...problemSummary(entry.problem)];
  if (state !== "done") return [title, paragraph("hint", entry.note || outcome(entry))];
  if (!answer.label) return [title, paragraph("verdict none", outcome(entry)), paragraph("callout", checkScore(answer, card))];
  const worthOfLabel = card && answer.threshold === card.threshold ? worth(answer.label, card) : ""; // the card has scores for its own threshold only
  const { lung_involvement: involved, lung_fraction: fraction } = answer;
  return [
    title,
    ...verdict(answer, card),
    facts([
      ...(involved ? [["Involvement", `${percent(involved.both)} of the lungs in this slice`], ["Left lung", `${percent(involved.left)} (right side of the image)`], ["Right lung", percent(involved.right)]] : []),
      ...(fraction === null ? [] : [["Lungs", `${percent(fraction)} of the image`]]),
      ["Check score", checkScore(answer, card)],
    ]),
    ...spoken(answer),
    ...(worthOfLabel ? [paragraph("small", worthOfLabel)] : []),
  ];
}

/** A problem document of the service. */
export const problemSummary = ({ code, detail, request_id: id }) => [
  paragraph("verdict bad", words(code)),
  paragraph("", detail),
  paragraph("small", id ? `${code} · request ${id}` : code),
];

/** The model's card in three lines. */
export function modelLines(card) {
  const auc = (name, { auc: area }) => (area ? [`${name} ${interval(area, 2)}`] : []);
  const test = card.data.test ? `official test (${counted(card.data.test.count, "slice")})` : "official test";
  const judged = [...auc(test, card.test_metrics), ...Object.entries(card.left_out_metrics).flatMap(([source, metrics]) => auc(`${source}, left out of training,`, metrics))];
  return pairs([
    ["What it is", `${card.name} ${card.version}, ${card.architecture.split(" (")[0]}. ${card.intended_use}`],
    ["Judged on", judged.length ? `AUC with 95 % interval: ${judged.join("; ")}` : "no test"],
    ["Limits", card.limits],
  ]);
}

/** All scores of the card, a row for each test and a column for each score; then the thresholds. */
export function modelScores(card) {
  const tests = [["official test", card.test_metrics], ...Object.entries(card.left_out_metrics)];
  const names = [...new Set(["auc", ...tests.flatMap(([, metrics]) => Object.keys(metrics))])];
  const heading = (name) => (name.length > 3 ? name.replaceAll("_", " ") : name.toUpperCase());
  const cell = (tag, textContent, scope) => element(tag, { textContent, ...(scope && { scope }) });
  const rows = tests.map(([test, metrics]) => element("tr", {}, cell("th", test, "row"), ...names.map((name) => cell("td", metrics[name] ? interval(metrics[name]) : "-"))));
  const points = Object.entries(card.operating_points).map(([name, threshold]) => `${name} ${percent(threshold)}`).join(", ");
  return [
    element("table", {}, element("caption", { textContent: "Scores with 95 % intervals" }),
      element("thead", {}, element("tr", {}, cell("th", "Test", "col"), ...names.map((name) => cell("th", heading(name), "col")))), element("tbody", {}, ...rows)),
    paragraph("", `Thresholds: ${points}. Default: ${percent(card.threshold)}, ${card.threshold_rule}.`),
    paragraph("", `Network: ${card.architecture}.`),
  ];
}

const interval = ({ value, low, high }, digits = 3) => `${value.toFixed(digits)} (${low.toFixed(digits)} to ${high.toFixed(digits)})`;

const pairs = (rows) => rows.flatMap(([term, text]) => [element("dt", { textContent: term }), element("dd", { textContent: text })]);

const facts = (rows) => element("dl", { className: "facts" }, ...pairs(rows));

function verdict(answer, card) {
  const kind = kindOf(answer.label, card);
  return [
    paragraph(`verdict ${kind}`, answer.label),
    paragraph("figure", element("strong", { textContent: percent(answer.probability) }), element("span", { textContent: `probability of COVID-19, ${relation(answer)}` })),
    bar(answer, kind),
  ];
}

const bar = ({ probability, threshold }, kind) => element("div",
  { className: "bar", role: "img", ariaLabel: `Probability ${percent(probability)}, threshold ${percent(threshold)}` },
  element("div", { className: `bar-value ${kind}`, style: `width: ${probability * 100}%` }),
  element("div", { className: "bar-mark", style: `left: ${threshold * 100}%`, hidden: threshold === 0 })); // 0: the lesions decide

function spoken(answer) {
  const lines = sentences(answer);
  return lines.length ? [element("ul", { className: "sentences" }, ...lines.map((textContent) => element("li", { textContent })))] : [];
}

function seriesFacts(series) {
  const { lung_involvement: involved, spacing_mm: spacing } = series;
  const ml = (volume) => `${Math.round(volume).toLocaleString("en")} ml`;
  const more = [
    [series.slices_without_lungs, "without lungs"], [series.slices_not_read, "not read (thin series)"], [series.slices_failed, "failed"],
  ].filter(([count]) => count > 0).map(([count, text]) => `${count} ${text}`);
  return facts([
    ...(involved ? [["Left lung", `${percent(involved.left)} lesion`], ["Right lung", `${percent(involved.right)} lesion`]] : []),
    ...(series.lung_volume_ml === null ? [] : [["Volumes", `lungs ${ml(series.lung_volume_ml)}, lesions ${ml(series.lesion_volume_ml)}`]]),
    ["Slices", [`${series.slices_read} read`, ...more].join(", ") + (spacing ? `; ${spacing.toFixed(1)} mm apart` : "")],
  ]);
}

function warnings(list) {
  return list.length ? [element("ul", { className: "callout", ariaLabel: "Warnings" }, ...list.map(({ detail }) => element("li", { textContent: detail })))] : [];
}

/** Files of the study without a slice, each with its reason. */
function others({ skipped, failed }) {
  const line = ({ name, file, detail, reason: code }) => element("li", {}, element("strong", { textContent: name ?? `file ${file}` }), ` ${words(code)}: ${detail}`);
  const part = (files, text, className) => (files.length ? [element("details", { className },
    element("summary", { textContent: `${counted(files.length, "other file")} ${text}` }), element("ul", {}, ...files.map(line)))] : []);
  return [...part(failed, "failed", "failed"), ...part(skipped, "skipped", "")];
}
