// The routes of the service. Throws problems as `ServiceProblem`, waits while the service is busy, asks for a key.

import { nameOf } from "./intake.js";

const MAX_TRIES = 6;
const MAX_WAIT_SECONDS = 30;
const NOT_REACHED = {
  code: "service_not_reached",
  detail: "The service did not answer, or a file has changed or gone since you chose it. Is the service still running? Choose the files again.",
};

export class ServiceProblem extends Error {
  constructor(body) {
    super(body.detail);
    this.body = body;
  }
}

export class Service {
  #key = "";
  #askForKey;
  #keyComing = null;

  /** `askForKey(wasRefused)` resolves to a key from the user. */
  constructor(askForKey) {
    this.#askForKey = askForKey;
  }

  /** The model's card. */
  async model() {
    return (await this.#call(() => fetch("model"), () => {})).json();
  }

  /** Prediction, maps and pictures for one file; `onWait(seconds)` is called for each wait, `signal` ends it. */
  async explain(file, onWait, signal) {
    const body = formOf([file]);
    const send = () => fetch("explain?max_side=1024", { method: "POST", body, headers: this.#headers("application/json"), signal });
    return (await this.#call(send, onWait, signal)).json();
  }

  /** Send a study; `onUpload(share)` and `onLine(line)` are called with the progress and each line of the response. */
  async study(files, { onUpload, onLine, onWait, signal }) {
    const body = formOf(files);
    const send = () => upload("predict/study?uids=true&pictures=true&files=true", body, this.#headers("application/x-ndjson"), { onUpload, onLine, signal });
    await this.#call(send, onWait, signal);
  }

  #headers(accept) {
    return { Accept: accept, ...(this.#key && { "X-API-Key": this.#key }) };
  }

  async #call(send, onWait, signal) {
    for (let attempt = 1; ; attempt += 1) {
      const used = this.#key;
      const response = await send().catch(() => {
        signal?.throwIfAborted();
        throw new ServiceProblem(NOT_REACHED);
      });
      if (response.ok) return response;
      if (response.status === 401) {
        await this.#newKey(used);
        attempt = 0;
      } else if (response.status === 503 && attempt < MAX_TRIES) {
        const seconds = Math.min(Number(response.headers.get("Retry-After")) || attempt, MAX_WAIT_SECONDS);
        onWait(seconds);
        await pause(seconds, signal);
        signal?.throwIfAborted();
      } else {
        throw new ServiceProblem(await problemOf(response));
      }
    }
  }

  /** Ask once for all files that need the key. */
  async #newKey(refused) {
    if (this.#key !== refused) return; // another file has asked in the meantime
    this.#keyComing ??= this.#askForKey(refused !== "").then((key) => {
      this.#key = key;
      this.#keyComing = null;
    });
    await this.#keyComing;
  }
}

function formOf(files) {
  const form = new FormData();
  for (const file of files) form.append("image", file, nameOf(file));
  return form;
}

/** Like `fetch`, which can't report the progress of an upload. Calls `onLine` with each line of JSON of a response. */
function upload(url, body, headers, { onUpload, onLine, signal }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    let read = 0;
    const readLines = () => {
      const text = request.status === 200 ? request.responseText : "";
      for (let end = text.indexOf("\n", read); end >= 0; end = text.indexOf("\n", read)) {
        const line = JSON.parse(text.slice(read, end));
        read = end + 1;
        onLine(line);
      }
    };
    const finish = () => {
      readLines();
      const { status } = request;
      const retry = request.getResponseHeader("Retry-After");
      resolve(new Response(status === 200 ? "" : request.responseText, { status, headers: retry ? { "Retry-After": retry } : {} }));
    };
    request.upload.addEventListener("progress", ({ loaded, total }) => onUpload(loaded / total));
    request.addEventListener("progress", readLines);
    request.addEventListener("load", finish);
    for (const kind of ["error", "abort"]) request.addEventListener(kind, reject);
    signal.addEventListener("abort", () => request.abort(), { once: true });
    request.open("POST", url);
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.send(body);
  });
}

function pause(seconds, signal) {
  return new Promise((resolve) => {
    setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", resolve, { once: true });
  });
}

async function problemOf(response) {
  try {
    const body = await response.json();
    if (typeof body.detail === "string" && typeof body.code === "string") return body;
  } catch {
    // a response of a proxy
  }
  return { code: `HTTP_${response.status}`, detail: "This response did not come from the service." };
}
