// The routes of the service. Throws problems as `ServiceProblem`, waits while the service is busy, asks for a key.

const MAX_TRIES = 6;
const MAX_WAIT_SECONDS = 30;

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
    const data = await readable(file);
    const send = () => {
      const form = new FormData();
      form.append("image", data, "image");
      const headers = { Accept: "application/json", ...(this.#key && { "X-API-Key": this.#key }) };
      return fetch("explain?max_side=768", { method: "POST", body: form, headers, signal });
    };
    return (await this.#call(send, onWait, signal)).json();
  }

  async #call(send, onWait, signal) {
    for (let attempt = 1; ; attempt += 1) {
      const used = this.#key;
      const response = await reached(send);
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

function pause(seconds, signal) {
  return new Promise((resolve) => {
    setTimeout(resolve, seconds * 1000);
    signal?.addEventListener("abort", resolve, { once: true });
  });
}

async function reached(send) {
  try {
    return await send();
  } catch {
    throw new ServiceProblem({
      code: "unreachable",
      title: "No response",
      detail: "The service did not answer, or closed the connection. Is it still running?",
    });
  }
}

/** Read the file once, so that a retry sends the same bytes. */
async function readable(file) {
  try {
    return new Blob([await file.arrayBuffer()]);
  } catch {
    throw new ServiceProblem({
      code: "unreadable_file",
      title: "Unreadable",
      detail: "It may be a folder, or have changed since you chose it. Choose files, not folders.",
    });
  }
}

async function problemOf(response) {
  try {
    const body = await response.json();
    if (typeof body.detail === "string" && typeof body.code === "string") return body;
  } catch {
    // a response of a proxy
  }
  return { code: `http_${response.status}`, title: `HTTP ${response.status}`, detail: "This response did not come from the service." };
}
