// The page: takes files, sends them, shows and saves the results.

import { element, find } from "./element.js";
import { csv, json, save } from "./export.js";
import { histogram } from "./histogram.js";
import { filesOf, sourcesOf } from "./intake.js";
import { Queue } from "./queue.js";
import { Results } from "./results.js";
import { Service } from "./service.js";
import { pictureOf, Viewer } from "./viewer.js";
import { kindOf, outcome, percent, timeLeft } from "./wording.js";

const ANNOUNCEMENTS = 10; // per list, so that a screen reader is not flooded

const service = new Service(askForKey);
const card = service.model().then((body) => body.card).catch(() => null);
const queue = new Queue(service, keep, changed);
const viewer = new Viewer(card);
const results = new Results(find("table"), find("strip"), show);

let planned = false;
let announced = "";
let note = "";

async function take(files) {
  if (files.length === 0) return;
  const old = queue.entries;
  const found = await sourcesOf([...files]);
  if (queue.entries !== old) return; // the list was cleared in the meantime
  note = found.note;
  find("work").hidden = false;
  document.body.classList.add("working");
  results.add(queue.add(found.sources));
  plan();
}

/** Keep what the page shows and saves of a response. */
async function keep(entry, body) {
  entry.picture = await pictureOf(body);
  const { slice_png_base64: _slice, overlay_png_base64: _overlay, heatmap: _heatmap, lungs: _lungs, ...answer } = body;
  entry.answer = answer;
}

function changed(entry) {
  if (!results.has(entry)) return;
  results.update(entry);
  if (entry === results.selected) show(entry);
  plan();
}

function show(entry) {
  viewer.show(entry, results.ordered.indexOf(entry) + 1, results.ordered.length);
}

/** Summarise at most once per frame. */
function plan() {
  if (planned) return;
  planned = true;
  requestAnimationFrame(() => {
    planned = false;
    summarise();
  });
}

function summarise() {
  const all = queue.entries.length;
  const ended = queue.count("done", "failed");
  const [failed, cancelled] = [queue.count("failed"), queue.count("cancelled")];
  find("progress").max = Math.max(all, 1);
  find("progress").value = ended;
  const parts = [`${ended} of ${all} done`];
  if (failed) parts.push(`${failed} failed`);
  if (cancelled) parts.push(`${cancelled} cancelled`);
  const state = parts.join(" · ");
  const left = queue.isBusy ? queue.secondsLeft : null;
  find("state").textContent = [state, ...(left === null ? [] : [timeLeft(left)]), ...(note ? [note] : [])].join(" · ");
  announce(ended, all, state);
  find("cancel").hidden = !queue.isBusy;
  find("resume").hidden = queue.isBusy || cancelled === 0;
  find("save-csv").disabled = find("save-json").disabled = ended === 0;
  const answers = queue.entries.filter(({ state }) => state === "done").map(({ answer }) => answer);
  find("histogram").replaceChildren(histogram(answers.filter((answer) => kindOf(answer) !== "none")));
  find("counts").replaceChildren(...counts(answers, failed));
}

/** Announce the progress to screen readers: ten times for a list, and at the end. */
function announce(ended, all, state) {
  const [last] = queue.entries.length === 1 ? queue.entries : [];
  const step = queue.isBusy ? Math.floor((ended / all) * ANNOUNCEMENTS) : `end ${state}`;
  if (String(step) === announced) return;
  announced = String(step);
  find("status").textContent = last?.state === "done" && kindOf(last.answer) !== "none" ? `${outcome(last)}, ${percent(last.answer.probability)}` : state;
}

function counts(answers, failed) {
  const numbers = new Map(["yes", "no", "none", "failed"].map((kind) => [kind, { name: kind, count: 0 }]));
  for (const answer of answers) {
    const kind = kindOf(answer);
    const { count } = numbers.get(kind);
    numbers.set(kind, { name: kind === "none" ? "no result" : answer.label, count: count + 1 });
  }
  numbers.get("failed").count = failed;
  return [...numbers].filter(([, { count }]) => count > 0)
    .map(([kind, { name, count }]) => element("li", { className: kind }, element("strong", { textContent: String(count) }), ` ${name}`));
}

function clear() {
  queue.clear();
  results.clear();
  [announced, note] = ["", ""];
  find("status").textContent = "";
  find("work").hidden = true;
  document.body.classList.remove("working");
  find("choose").focus();
}

/** Show the key field until the user enters a key. */
function askForKey(wasRefused) {
  const form = find("key-form");
  find("key-hint").textContent = wasRefused ? "This key was not accepted; try another." : "Kept in this page's memory until you close it.";
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
    find("model-state").textContent = "The model card is not available now.";
    return;
  }
  const range = ({ value, low, high }) => `${value.toFixed(3)} (${low.toFixed(3)} to ${high.toFixed(3)})`;
  const figures = (metrics) => Object.keys(metrics).length === 0 ? "no scores" : Object.entries(metrics).map(([name, interval]) => `${name === "auc" ? "AUC" : name} ${range(interval)}`).join(", ");
  const facts = [
    ["Network", known.architecture],
    ["Threshold", `${percent(known.threshold)}: ${known.threshold_rule}`],
    [known.data.test ? `Official test (${known.data.test.count} slices)` : "Official test", figures(known.test_metrics)],
    ...Object.entries(known.left_out_metrics).map(([source, metrics]) => [`Left-out source: ${source}`, figures(metrics)]),
    ["Intended use", known.intended_use],
    ["Limits", known.limits],
  ];
  find("model-link").textContent = `${known.name} ${known.version}`;
  find("model-state").textContent = `${known.name} ${known.version}; scores with 95 % intervals.`;
  find("model-facts").replaceChildren(...facts.flatMap(([term, text]) => [element("dt", { textContent: term }), element("dd", { textContent: text })]));
}

function listenForFiles() {
  const over = (is) => (event) => {
    event.preventDefault();
    find("drop").classList.toggle("over", is);
  };
  for (const kind of ["dragenter", "dragover"]) document.addEventListener(kind, over(true));
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) over(false)(event); });
  document.addEventListener("drop", (event) => {
    over(false)(event);
    filesOf(event.dataTransfer).then(take);
  });
  document.addEventListener("paste", (event) => take(event.clipboardData.files));
  for (const [button, input] of [["choose", "files"], ["choose-folder", "folder"]]) {
    find(button).addEventListener("click", () => find(input).click());
    find(input).addEventListener("change", (event) => {
      take([...event.target.files]);
      event.target.value = ""; // so that the same file can be chosen again
    });
  }
}

function listenForKeys() {
  document.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!by || !results.selected || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (event.target.closest("input, textarea, select, [contenteditable]")) return;
    event.preventDefault();
    results.step(by);
  });
}

function listenForButtons() {
  const ended = () => queue.entries.filter(({ state }) => state === "done" || state === "failed");
  find("save-csv").addEventListener("click", () => save("covid-ct.csv", "text/csv", csv(ended())));
  find("save-json").addEventListener("click", () => save("covid-ct.json", "application/json", json(ended(), find("with-maps").checked)));
  find("cancel").addEventListener("click", () => queue.cancel());
  find("resume").addEventListener("click", () => queue.resume());
  find("clear").addEventListener("click", clear);
  find("previous").addEventListener("click", () => results.step(-1));
  find("next").addEventListener("click", () => results.step(1));
}

listenForFiles();
listenForKeys();
listenForButtons();
showModel();
