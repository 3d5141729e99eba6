// The page: takes files, sends them two at a time, shows and saves the results.

import { csv, json, save } from "./export.js";
import { answered, element, failed, waiting } from "./result.js";
import { Service, ServiceProblem } from "./service.js";
import { ofHundred } from "./wording.js";

const AT_A_TIME = 2;

const find = (id) => document.getElementById(id);
const service = new Service(askForKey);
const card = service.model().then((body) => body.card).catch(() => null);

let entries = []; // { file, node, row }, in the order in which the files came
let running = 0;
let number = 0;

function take(files) {
  const fresh = [...files].map((file) => ({ file, row: null, started: false, ...waiting(nameOf(file)) }));
  if (fresh.length === 0) return;
  entries.push(...fresh);
  find("work").hidden = false;
  find("results").append(...fresh.map((entry) => entry.node));
  tell();
  pump();
}

const nameOf = (file) => file.name || "pasted image";

function pump() {
  while (running < AT_A_TIME) {
    const next = entries.find((entry) => !entry.started);
    if (!next) return;
    next.started = true;
    running += 1;
    examine(next).finally(() => {
      running -= 1;
      pump();
    });
  }
}

async function examine(entry) {
  const name = nameOf(entry.file);
  entry.say("Being examined…");
  let shown;
  try {
    const answer = await service.explain(entry.file, (seconds) => entry.say(`The service is busy; again in ${seconds} s…`));
    const { slice_png_base64: _slice, overlay_png_base64: _overlay, ...prediction } = answer;
    entry.row = { file: name, prediction, problem: null };
    number += 1;
    shown = answered(name, answer, await card, number);
  } catch (error) {
    if (!(error instanceof ServiceProblem)) console.error(error);
    const problem = error instanceof ServiceProblem ? error.body : { code: "page_failed", title: "The page failed", detail: String(error) };
    entry.row = { file: name, prediction: null, problem };
    shown = failed(name, problem);
  }
  entry.file = null;
  entry.node.replaceWith(shown);
  entry.node = shown;
  tell(entry.row);
}

/** Show the progress, and announce it in the live region for screen readers. */
function tell(last = null) {
  const rows = found();
  const failures = rows.filter((row) => row.problem).length;
  find("progress").max = Math.max(entries.length, 1);
  find("progress").value = rows.length;
  const parts = [`${rows.length} of ${entries.length} done`];
  if (failures) parts.push(`${failures} failed`);
  if (last) parts.push(`${last.file}: ${last.problem ? last.problem.detail : spoken(last.prediction)}`);
  find("status").textContent = `${parts.join(" · ")}`;
  find("save-csv").disabled = find("save-json").disabled = rows.length === 0;
}

const spoken = ({ label, probability, out_of_distribution: { flagged } }) =>
  flagged ? "does not look like a chest CT slice" : `${label}, ${ofHundred(probability)} %`;

const found = () => entries.map((entry) => entry.row).filter(Boolean);

function clear() {
  for (const entry of entries) entry.started = true;
  entries = [];
  find("results").replaceChildren();
  find("work").hidden = true;
  find("files").focus();
}

/** Show the field until the user has given a key. */
function askForKey(wasRefused) {
  const form = find("key-form");
  find("key-hint").textContent = wasRefused ? "That key was not accepted; try another." : "Kept in this page's memory until you close it.";
  form.hidden = false;
  find("key").focus();
  return new Promise((resolve) => {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      form.hidden = true;
      resolve(find("key").value.trim());
      find("key").value = "";
    }, { once: true });
  });
}

async function showModel() {
  const known = await card;
  if (!known) {
    find("model-state").textContent = "The service does not describe its model now.";
    return;
  }
  const range = ({ value, low, high }) => `${value.toFixed(3)} (${low.toFixed(3)} to ${high.toFixed(3)})`;
  const facts = [
    ["Network", known.architecture],
    ["Threshold", `${(known.threshold * 100).toFixed(1)} %: ${known.threshold_rule}`],
    ...Object.entries(known.test_metrics).map(([name, interval]) => [name === "auc" ? "AUC" : capital(name), range(interval)]),
    ["Test slices", String(known.data.test?.count ?? "unknown")],
    ["Intended use", known.intended_use],
    ["Limits", known.limits],
  ];
  find("model-link").textContent = `${known.name} ${known.version}`;
  find("model-state").textContent = `${known.name} ${known.version}; figures on the test slices, with 95 % intervals.`;
  find("model-facts").replaceChildren(...facts.flatMap(([term, text]) => [element("dt", { textContent: term }), element("dd", { textContent: text })]));
}

const capital = (word) => word[0].toUpperCase() + word.slice(1);

function listen() {
  const drop = find("drop");
  const over = (is) => (event) => {
    event.preventDefault();
    drop.classList.toggle("over", is);
  };
  for (const kind of ["dragenter", "dragover"]) document.addEventListener(kind, over(true));
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) over(false)(event); });
  document.addEventListener("drop", (event) => {
    over(false)(event);
    take(event.dataTransfer.files);
  });
  document.addEventListener("paste", (event) => take(event.clipboardData.files));
  find("files").addEventListener("change", (event) => {
    take(event.target.files);
    event.target.value = ""; // so that the same file can be chosen again
  });
  find("save-csv").addEventListener("click", () => save("covid-ct.csv", "text/csv", csv(found())));
  find("save-json").addEventListener("click", () => save("covid-ct.json", "application/json", json(found())));
  find("clear").addEventListener("click", clear);
}

listen();
showModel();
