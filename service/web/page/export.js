// Results as files.

const COLUMNS = [
  ["file", (row) => row.file],
  ["probability", (row) => row.prediction?.probability],
  ["label", (row) => row.prediction?.label],
  ["threshold", (row) => row.prediction?.threshold],
  ["flagged", (row) => row.prediction?.out_of_distribution.flagged],
  ["reason", (row) => row.prediction?.out_of_distribution.reason],
  ["lung_involvement", (row) => row.prediction?.lung_involvement?.both],
  ["ood_score", (row) => row.prediction?.out_of_distribution.score],
  ["model", (row) => row.prediction?.model.name],
  ["model_version", (row) => row.prediction?.model.version],
  ["problem", (row) => row.problem?.code],
  ["problem_detail", (row) => row.problem?.detail],
  ["note", () => "research use only"],
];

/** CSV (RFC 4180); values that a spreadsheet would run as formulas become text. */
export function csv(rows) {
  const line = (values) => values.map(cell).join(",");
  return [line(COLUMNS.map(([name]) => name)), ...rows.map((row) => line(COLUMNS.map(([, of]) => of(row))))].join("\r\n") + "\r\n";
}

function cell(value) {
  let text = String(value ?? "");
  if (typeof value === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

/** The same and the rest, without the pictures. */
export const json = (rows) => JSON.stringify({ note: "Research use only, not a medical device.", results: rows }, null, 2);

/** Make the browser save a text. */
export function save(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
