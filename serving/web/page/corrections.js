// "Not right? It is a ...": sends the picture to be kept under the digit that the user names, if this server keeps pictures.

import { post } from "./predictions.js";

const PRIVACY = {
  true: "Pictures that you correct or confirm are kept on the server, without place and time, to train with. No others are kept.",
  false: "Pictures are not kept.",
};

const HINT = "Choose the right digit, or press its key. The predicted one confirms the prediction.";

const element = (id) => document.getElementById(id);

export class Corrections {
  // `area` has the picture.
  constructor(area) {
    this.area = area;
    this.collects = false;
    for (let digit = 0; digit < 10; digit += 1) {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: digit });
      button.setAttribute("aria-keyshortcuts", digit);
      button.addEventListener("click", () => this.send(digit));
      element("labels").append(button);
    }
    this.reset();
    addEventListener("keydown", ({ key, ctrlKey, metaKey, altKey, repeat }) => {
      if (/^[0-9]$/.test(key) && !ctrlKey && !metaKey && !altKey && !repeat) this.send(Number(key));
    });
  }

  // Asks the server whether it keeps pictures.
  async start() {
    const response = await fetch("corrections", { cache: "no-store" }).catch(() => null);
    if (!response?.ok) return;
    this.collects = (await response.json()).collects;
    element("correction").hidden = !this.collects;
    element("privacy").textContent = PRIVACY[this.collects];
  }

  async send(digit) {
    if (!this.collects || this.area.isEmpty) return;
    const { picture } = this.area;
    const { body, rejected, unavailable } = await post(`corrections/${digit}`, this.area.toBlob());
    if (picture !== this.area.picture) return;
    element("kept").textContent = body ? `Kept as a ${digit}. Pictures kept: ${body.pictures}` : (rejected ?? unavailable);
    this.#press(body ? digit : null);
  }

  // For another picture: nothing is chosen.
  reset() {
    element("kept").textContent = HINT;
    this.#press(null);
  }

  #press(chosen) {
    for (const [digit, button] of [...element("labels").children].entries()) {
      button.setAttribute("aria-pressed", digit === chosen);
      button.setAttribute("aria-disabled", this.area.isEmpty);
    }
  }
}
