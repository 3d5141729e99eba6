// Results as files, with the columns of the command line.

import { labelOf } from "./wording.js";

const DECIMALS = 1e4; // of the maps' values, as the service sends them

const COLUMNS = [
  ["file", ({ name }) => name],
  ["probability", ({ answer }) => answer?.probability],
  ["label", ({ answer }) => answer && labelOf(answer)],
  ["threshold", ({ answer }) => answer?.threshold],
  ["operating_point", ({ answer }) => answer?.operating_point],
  ["lesion_probability", ({ answer }) => answer?.lesion_probability],
  ["covid_given_lesion", ({ answer }) => answer?.covid_given_lesion],
  ["lesion_threshold", ({ answer }) => answer?.lesion_threshold],
  ["lung_involvement", ({ answer }) => answer?.lung_involvement?.both],
  ["lung_involvement_left", ({ answer }) => answer?.lung_involvement?.left],
  ["lung_involvement_right", ({ answer }) => answer?.lung_involvement?.right],
  ["lung_fraction", ({ answer }) => answer?.lung_fraction],
  ["ood_score", ({ answer }) => answer?.out_of_distribution.score],
  ["flagged", ({ answer }) => answer?.out_of_distribution.flagged],
  ["reason", ({ answer }) => answer?.out_of_distribution.reason],
  ["model", ({ answer }) => answer && `${answer.model.name} ${answer.model.version}`],
  ["error", ({ problem }) => problem?.code],
  ["detail", ({ problem }) => problem?.detail],
  ["note", () => "research use only"],
];

/** CSV (RFC 4180); values that a spreadsheet would run as formulas become text. */
export function csv(entries) {
  const line = (values) => values.map(cell).join(",");
  return [line(COLUMNS.map(([name]) => name)), ...entries.map((entry) => line(COLUMNS.map(([, of]) => of(entry))))].join("\r\n") + "\r\n";
}

function cell(value) {
  let text = String(value ?? "");
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** The same and the rest as JSON, without pictures; with the values of the maps if asked. */
export function json(entries, withMaps) {
  const results = entries.map(({ name, answer, problem, picture }) => ({
    file: name,
    prediction: answer && { ...answer, label: labelOf(answer) || null, ...(withMaps && { heatmap: rows(picture.heatmap), lungs: rows(picture.lungs) }) },
    problem,
  }));
  return JSON.stringify({ note: "Research use only, not a medical device.", results }, null, withMaps ? undefined : 2);
}

function rows(map) {
  if (!map) return null;
  const values = Array.from(map.values, (value) => Math.round(value * DECIMALS) / DECIMALS);
  const { width, height } = map;
  return { width, height, values: Array.from({ length: height }, (_, row) => values.slice(row * width, (row + 1) * width)) };
}

/** Make the browser save a text. */
export function save(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
