// The page: takes files, sends them, shows and saves the results.

import { element, find } from "./element.js";
import { entryRow, tables } from "./export.js";
import { filesOf, isPicture, sample } from "./intake.js";
import { Profile } from "./profile.js";
import { Progress } from "./progress.js";
import { Service } from "./service.js";
import { Slices } from "./slices.js";
import { Study } from "./study.js";
import { modelLines, modelScores, problemSummary, sliceSummary } from "./summary.js";
import { counted, legend, outcome, percent, words } from "./wording.js";
import { Viewer } from "./viewer.js";

const service = new Service(askForKey);
const progress = new Progress();
const viewer = new Viewer((by) => shown?.step(by));
const profile = new Profile((index) => shown.select(index));

let card = null;
let shown = null; // a `Study` or `Slices`
let stop = () => {};

function take(files) {
  if (files.length === 0) return;
  if (!files.every(isPicture)) readStudy(files);
  else if (shown instanceof Slices) shown.add(files);
  else readSlices(files);
}

async function readStudy(files) {
  begin();
  const controller = new AbortController();
  stop = () => controller.abort();
  const { signal } = controller;
  const size = files.reduce((sum, file) => sum + file.size, 0);
  let isComplete = false;
  const offerStudy = () => offer(study.downloads, isComplete ? study.missing : "The result files are being written…");
  const study = new Study(viewer, profile, () => card, offerStudy);
  const onUpload = (share) => {
    const megabytes = (bytes) => (bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0);
    progress.show("upload", `Sending ${megabytes(share * size)} of ${megabytes(size)} MB`, share);
  };
  const onLine = (line) => {
    if (line.progress) showReading(line.progress);
    if (line.answer) showStudy(study, line.answer);
    if (line.picture) study.addPicture(line.picture);
    if (line.file) study.addFile(line.file);
    if (line.problem) fail(line.problem);
  };
  const onWait = (seconds) => progress.show("wait", `The service is busy; retrying in ${seconds} s…`, null);
  try {
    onUpload(0);
    await service.study(files, { onUpload, onLine, onWait, signal });
    isComplete = true;
    if (shown === study) offerStudy();
  } catch (error) {
    if (!signal.aborted) fail(error.body ?? { code: "page_failed", detail: String(error) });
  }
}

function showReading({ done, of, seconds_left: left }) {
  if (done === 0) progress.show("finding", of ? `Reading the files: ${counted(of, "slice")} so far` : "Reading the files", null);
  else progress.show("reading", `Read ${done} of ${counted(of, "slice")}`, done / of, left);
}

function showStudy(study, answer) {
  shown = study;
  openDesk();
  study.show(answer);
  const [first] = answer.series;
  progress.end(answer.series.length > 1 ? `${answer.series.length} series` : `${first.label ?? "No lungs"}, ${percent(first.probability ?? 0)}`);
}

function readSlices(files) {
  begin();
  const slices = new Slices(service, () => card, (entry) => shown === slices && showEntry(entry), () => summarise(slices));
  shown = slices;
  stop = () => slices.cancel();
  openDesk();
  slices.add(files);
}

function showEntry(entry) {
  find("summary").replaceChildren(...sliceSummary(entry, card));
  const involved = entry.answer?.lung_involvement;
  const finding = entry.answer?.label && involved ? `${percent(involved.both)} of the lungs is lesion` : outcome(entry);
  viewer.show({ name: entry.name, picture: entry.picture ?? null, caption: entry.name, finding, hasSides: false, legend: entry.answer ? legend(entry.picture.lungs !== null) : "" });
}

function summarise(slices) {
  if (shown !== slices) return;
  const all = slices.entries.length;
  const ended = slices.count("done", "failed");
  const parts = [`${ended} of ${all} done`, ...["failed", "cancelled"].map((state) => [slices.count(state), state]).filter(([count]) => count).map((part) => part.join(" "))];
  const [only] = slices.entries;
  find("profile").hidden = true;
  if (all > 1 && !slices.table.isConnected) find("list").append(slices.table);
  if (all > 1 && slices.count("waiting", "sending")) progress.show("slices", parts.join(" · "), ended / all);
  else progress.end(all === 1 ? [outcome(only), ...(only.answer?.label ? [percent(only.answer.probability)] : [])].join(", ") : parts.join(" · "));
  const results = slices.entries.filter(({ state }) => state === "done" || state === "failed");
  const body = results.map(({ name, answer, problem }) => ({ file: name, prediction: answer, problem }));
  offer(ended === 0 ? [] : [
    ...tables(results.map(entryRow), { note: "Research use only, not a medical device.", results: body }),
    ...(all > 1 && ended === all ? [["Read as one series", () => readStudy(slices.entries.map(({ file }) => file))]] : []),
  ], "");
}

function offer(downloads, hint) {
  find("downloads").replaceChildren(...downloads.map(([label, action]) => button(label, action)));
  find("downloads-hint").textContent = hint;
}

const button = (textContent, onclick) => element("button", { type: "button", className: "button small", textContent, onclick });

/** Forget what is shown, and hide the intake. */
function begin() {
  stop();
  shown = null;
  document.body.classList.add("working");
  for (const id of ["intake", "desk", "problem"]) find(id).hidden = true;
  find("new").hidden = false;
}

function openDesk() {
  find("desk").hidden = false;
  for (const id of ["summary", "list"]) find(id).replaceChildren();
  find("side").focus({ preventScroll: true });
}

function fail(problem) {
  progress.end(words(problem.code));
  if (shown) {
    find("downloads-hint").textContent = `The result files could not be written: ${problem.detail}`;
    return;
  }
  document.body.classList.remove("working");
  find("problem").hidden = false;
  find("problem").replaceChildren(...problemSummary(problem), button("Choose other files", clear));
}

function clear() {
  begin();
  progress.end("");
  document.body.classList.remove("working");
  find("intake").hidden = false;
  find("new").hidden = true;
  find("choose").focus();
}

/** Show the key field until the user enters a key. */
function askForKey(wasRefused) {
  const form = find("key-form");
  find("key-hint").textContent = wasRefused ? "This key was not accepted; try another." : "Kept in this page's memory until you close it.";
  form.hidden = false;
  find("key").focus();
  return new Promise((resolve) => {
    form.onsubmit = (event) => {
      event.preventDefault();
      form.hidden = true;
      resolve(find("key").value.trim());
      form.reset();
    };
  });
}

async function showModel() {
  try {
    ({ card } = await service.model());
  } catch {
    find("model-lines").replaceChildren(element("dt", { textContent: "The model card is not available now." }));
    return;
  }
  find("model-link").textContent = `Model ${card.version}`;
  find("model-lines").replaceChildren(...modelLines(card));
  find("model-scores").replaceChildren(...modelScores(card));
}

function listenForFiles() {
  const over = (is) => (event) => {
    event.preventDefault();
    document.body.classList.toggle("over", is);
  };
  for (const kind of ["dragenter", "dragover"]) document.addEventListener(kind, over(true));
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) over(false)(event); });
  document.addEventListener("drop", (event) => {
    over(false)(event);
    filesOf(event.dataTransfer).then(take);
  });
  document.addEventListener("paste", (event) => take([...event.clipboardData.files]));
  for (const [id, input] of [["choose", "files"], ["choose-folder", "folder"]]) {
    find(id).addEventListener("click", () => find(input).click());
    find(input).addEventListener("change", (event) => {
      take([...event.target.files]);
      event.target.value = ""; // so that the same file can be chosen again
    });
  }
  for (const node of document.querySelectorAll("[data-sample]")) {
    node.addEventListener("click", async () => take([await sample(node.dataset.sample)]));
  }
}

listenForFiles();
find("cancel").addEventListener("click", () => (shown instanceof Slices ? stop() : clear()));
find("new").addEventListener("click", clear);
showModel();
