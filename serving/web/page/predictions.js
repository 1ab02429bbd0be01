// Requests to the server: one at a time, only for the newest picture, and again when a model or a newer version becomes
// available.

const PAUSE_MS = 80; // before each request, so that a moving hand causes a few requests a second
const POLL_MS = 1500; // between two checks for a model
const VERSION_POLL_MS = 3000; // between two checks for a newer version

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class Predictor {
  // Calls `predicted(prediction)`, `rejected(message)` or `unavailable(message, or null when a model is ready)`.
  constructor({ predicted, rejected, unavailable }) {
    Object.assign(this, { predicted, rejected, unavailable });
    this.picture = null; // a function that returns the newest picture; null if there is none
    this.sent = null; // the newest one that was sent
    this.sending = this.waiting = false;
    this.version = 0n; // of the last prediction
    this.cancellations = 0; // a response to a request from before the last cancellation is dropped
  }

  // Sends `picture()` as soon as the response to the request before has come.
  async request(picture) {
    this.picture = picture;
    if (this.sending || this.waiting) return;
    this.sending = true;
    while (this.picture !== this.sent && !this.waiting) {
      await pause(PAUSE_MS);
      this.sent = this.picture;
      if (this.sent) await this.#send(this.sent);
    }
    this.sending = false;
  }

  // Drops the response of a pending request.
  cancel() {
    this.picture = this.sent = null;
    this.cancellations += 1;
  }

  async #send(picture) {
    const { cancellations } = this;
    const outcome = await post("predict", picture());
    if (outcome.body) this.version = BigInt(outcome.body.version);
    if (outcome.unavailable) {
      this.#waitForModel(outcome.unavailable);
    } else if (this.cancellations !== cancellations) {
      return; // the picture has changed
    } else if (outcome.rejected) {
      this.rejected(outcome.rejected);
    } else {
      this.predicted({ ...outcome.body, milliseconds: outcome.milliseconds });
    }
  }

  // Checks for a model before the first request.
  async start() {
    const { missing } = await checkReady();
    if (missing) this.#waitForModel(missing);
    this.#watchVersions();
  }

  // Sends the picture again when a version newer than the one that predicted it is available.
  async #watchVersions() {
    for (;;) {
      await pause(VERSION_POLL_MS);
      const { picture } = this;
      if (document.hidden || !picture || !this.version || this.sending || this.waiting) continue;
      const { versions = [] } = await checkReady();
      if (picture !== this.picture || !versions.some((version) => BigInt(version) > this.version)) continue;
      this.sent = null;
      this.request(picture);
    }
  }

  // Reports that no model is available until there is one, then sends the picture of that moment.
  async #waitForModel(message) {
    if (this.waiting) return;
    this.waiting = true;
    for (let missing = message; missing; { missing } = await checkReady()) {
      this.unavailable(missing);
      await pause(POLL_MS);
    }
    this.waiting = false;
    this.unavailable(null);
    const { picture } = this;
    this.sent = null;
    if (picture) this.request(picture);
  }
}

// Returns { versions }, those that are available, or { missing }, a message, if there is none.
async function checkReady() {
  try {
    const response = await fetch("readyz", { cache: "no-store" });
    const body = await response.json();
    return response.ok ? body : { missing: body.error };
  } catch {
    return { missing: "The page's own server does not respond. The page continues by itself when it is back." };
  }
}

// Sends a picture; returns { body, milliseconds }, or { rejected: message }, or { unavailable: message } if waiting helps.
export async function post(path, picture) {
  const begin = performance.now();
  try {
    const headers = { "content-type": picture.type || "application/octet-stream" };
    const response = await fetch(path, { method: "POST", headers, body: picture });
    const body = await response.json();
    if (response.ok) return { body, milliseconds: performance.now() - begin };
    return response.status === 503 ? { unavailable: body.error } : { rejected: body.error };
  } catch {
    return { unavailable: (await checkReady()).missing ?? "The connection broke before the response came." };
  }
}
