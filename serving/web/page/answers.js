// Questions to the server: one at a time, only ever the newest, and again when a model is back.

const PAUSE_MS = 80; // before a question, so that a moving hand asks a few times a second
const RETRY_MS = 1500; // between two looks for a model

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class Answers {
  // `answered(answer)`, `refused(message)` and `missing(message or null)` are told what comes of the questions.
  constructor({ answered, refused, missing }) {
    Object.assign(this, { answered, refused, missing });
    this.picture = null; // a function that gives the newest picture; null when there is none to ask about
    this.asked = null; // the newest one asked about
    this.asking = this.waiting = false;
    this.forgotten = 0; // how often; an answer to a question from before is stale
  }

  // Asks about what `picture()` will give, once the question before has been answered.
  async ask(picture) {
    this.picture = picture;
    if (this.asking || this.waiting) return;
    this.asking = true;
    while (this.picture !== this.asked && !this.waiting) {
      await pause(PAUSE_MS);
      this.asked = this.picture;
      if (this.asked) await this.#askOnce(this.asked);
    }
    this.asking = false;
  }

  // Forgets the question: an answer still to come is dropped.
  forget() {
    this.picture = this.asked = null;
    this.forgotten += 1;
  }

  async #askOnce(picture) {
    const { forgotten } = this;
    const outcome = await send(picture());
    if (outcome.missing) {
      this.#waitForModel(outcome.missing);
    } else if (this.forgotten !== forgotten) {
      return; // it is about another picture by now
    } else if (outcome.refused) {
      this.refused(outcome.refused);
    } else {
      this.answered(outcome.answer);
    }
  }

  // Looks for a model before the first question.
  async watch() {
    const message = await look();
    if (message) this.#waitForModel(message);
  }

  // Says that there is none until there is one, then asks about the picture that is there by then.
  async #waitForModel(message) {
    if (this.waiting) return;
    this.waiting = true;
    for (let missing = message; missing; missing = await look()) {
      this.missing(missing);
      await pause(RETRY_MS);
    }
    this.waiting = false;
    this.missing(null);
    const { picture } = this;
    this.asked = null;
    if (picture) this.ask(picture);
  }
}

// What is missing, in words; null when a model is ready.
async function look() {
  try {
    const response = await fetch("readyz", { cache: "no-store" });
    return response.ok ? null : (await response.json()).error;
  } catch {
    return "The page's own server does not answer. The page goes on by itself when it is back.";
  }
}

async function send(picture) {
  const begin = performance.now();
  try {
    const headers = { "content-type": picture.type || "application/octet-stream" };
    const response = await fetch("predict", { method: "POST", headers, body: picture });
    const answer = await response.json();
    if (response.ok) return { answer: { ...answer, milliseconds: performance.now() - begin } };
    return response.status === 503 ? { missing: answer.error } : { refused: answer.error };
  } catch {
    return { missing: await look() ?? "The answer was lost on the way." };
  }
}
