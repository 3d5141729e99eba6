// Sends slices two at a time, can stop and continue, and estimates the time left.

import { ServiceProblem } from "./service.js";
import { ZipError } from "./zip.js";

const AT_A_TIME = 2;
const RECENT = 30; // responses that the estimate uses
const FEWEST = 3; // responses that an estimate needs

/** A slice in the list; `state` is waiting, sending, done, failed or cancelled. */
export class Entry {
  constructor({ name, read, problem }, number) {
    Object.assign(this, { name, number, read, problem, answer: null, picture: null, note: "" });
    this.state = problem ? "failed" : "waiting";
  }
}

export class Queue {
  #service;
  #changed;
  #answered;
  #running = new Map();
  #ends = [];
  entries = [];

  /** `answered(entry, body)` is called with each response; `changed(entry)` after every change of a state. */
  constructor(service, answered, changed) {
    this.#service = service;
    this.#answered = answered;
    this.#changed = changed;
  }

  /** Add sources, and start sending. */
  add(sources) {
    if (!this.isBusy) this.#ends = [performance.now()];
    const fresh = sources.map((source, index) => new Entry(source, this.entries.length + index + 1));
    this.entries.push(...fresh);
    this.#pump();
    return fresh;
  }

  /** Stop: do not send waiting slices, and abort running requests. */
  cancel() {
    for (const entry of this.entries) if (entry.state === "waiting") this.#set(entry, "cancelled");
    for (const controller of this.#running.values()) controller.abort();
  }

  /** Send cancelled slices. */
  resume() {
    this.#ends = [performance.now()];
    for (const entry of this.entries) if (entry.state === "cancelled") this.#set(entry, "waiting");
    this.#pump();
  }

  /** Remove all slices. */
  clear() {
    const [running, old] = [[...this.#running.values()], this.entries];
    this.entries = [];
    for (const entry of old) entry.state = "forgotten";
    for (const controller of running) controller.abort();
  }

  /** Whether slices are waiting or being sent. */
  get isBusy() {
    return this.count("waiting", "sending") > 0;
  }

  /** The number of slices in one of these states. */
  count(...states) {
    return this.entries.filter((entry) => states.includes(entry.state)).length;
  }

  /** Seconds until all are done, from the rate of the last responses; null before it is known. */
  get secondsLeft() {
    const answers = this.#ends.length - 1;
    if (answers < FEWEST) return null;
    const seconds = (this.#ends.at(-1) - this.#ends[0]) / 1000;
    return (seconds / answers) * this.count("waiting", "sending");
  }

  #pump() {
    for (const entry of this.entries) {
      if (this.#running.size >= AT_A_TIME) return;
      if (entry.state === "waiting") this.#send(entry);
    }
  }

  async #send(entry) {
    const controller = new AbortController();
    this.#running.set(entry, controller);
    this.#set(entry, "sending");
    const state = await this.#examine(entry, controller.signal);
    this.#running.delete(entry);
    if (entry.state !== "forgotten") {
      this.#ends = [...this.#ends, performance.now()].slice(-RECENT);
      this.#set(entry, state);
    }
    this.#pump();
  }

  async #examine(entry, signal) {
    const wait = (seconds) => {
      entry.note = `The service is busy; retrying in ${seconds} s…`;
      this.#changed(entry);
    };
    try {
      const body = await this.#service.explain(await entry.read(), wait, signal);
      await this.#answered(entry, body);
      entry.read = null;
      return "done";
    } catch (error) {
      if (signal.aborted) return "cancelled";
      entry.problem = problemOf(error);
      return "failed";
    }
  }

  #set(entry, state) {
    Object.assign(entry, { state, note: "" });
    this.#changed(entry);
  }
}

function problemOf(error) {
  if (error instanceof ServiceProblem) return error.body;
  if (error instanceof ZipError) return { code: "unreadable_zip", title: "The file in the zip cannot be read", detail: error.message };
  console.error(error);
  return { code: "page_failed", title: "The page failed", detail: String(error) };
}
