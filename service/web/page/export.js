// Results as files, with the columns of the command line (covid_ct/rows.py).

const COLUMNS = [
  "path", "sha256", "model", "window", "study", "series", "instance", "position_mm", "probability", "label", "threshold",
  "operating_point", "lesion_probability", "covid_given_lesion", "lesion_threshold", "lung_involvement",
  "lung_involvement_left", "lung_involvement_right", "lung_fraction", "ood_score", "flagged", "reason", "error", "detail",
];

const modelOf = (answer) => `${answer.model.name} ${answer.model.version}`;

/** Row of a slice that was read on its own. */
export function entryRow({ name, answer, problem }) {
  if (!answer) return { path: name, error: problem?.code, detail: problem?.detail };
  const { lung_involvement: involved, out_of_distribution: check } = answer;
  return {
    ...answer,
    path: name,
    model: modelOf(answer),
    lung_involvement: involved?.both,
    lung_involvement_left: involved?.left,
    lung_involvement_right: involved?.right,
    ood_score: check.score,
    flagged: check.flagged,
    reason: check.reason,
  };
}

/** Rows of a study: its slices from the feet to the head, then the files that failed. */
export function studyRows(answer) {
  const model = modelOf(answer);
  const slices = answer.series.flatMap(({ slices, threshold, operating_point, study_uid: study, series_uid: series }) => slices.map((slice) => ({
    path: slice.frame === null ? slice.name : `${slice.name}#${slice.frame - 1}`,
    model,
    study,
    series,
    instance: slice.instance_uid,
    position_mm: slice.position_mm,
    probability: slice.probability,
    lung_involvement: slice.lung_involvement,
    error: slice.reason,
    ...(slice.probability !== null && { threshold, operating_point }),
  })));
  return [...slices, ...answer.failed.map(({ name, reason, detail }) => ({ path: name, model, error: reason, detail }))];
}

/** Rows as CSV and a body as JSON: for each a label and a function that saves it. */
export const tables = (rows, body) => [
  ["CSV", () => save("covid-ct.csv", "text/csv", csv(rows))],
  ["JSON", () => save("covid-ct.json", "application/json", JSON.stringify(body, null, 1))],
];

/** CSV (RFC 4180); values that a spreadsheet would run as formulas become text. */
function csv(rows) {
  return [COLUMNS, ...rows.map((row) => COLUMNS.map((name) => row[name]))].map((values) => `${values.map(cell).join(",")}\r\n`).join("");
}

function cell(value) {
  let text = String(value ?? "");
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** Decode base64; `Uint8Array.fromBase64` is missing in browsers older than 2025. */
export function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at += 1) bytes[at] = text.charCodeAt(at);
  return bytes;
}

/** Make the browser save a file. */
export function save(name, type, content) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([content], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
