// The page: connects the drawing area, the requests and the elements that show a prediction.

import { Corrections } from "./corrections.js";
import { DrawingArea } from "./drawing.js";
import { readPhoto } from "./photo.js";
import { Predictor } from "./predictions.js";

const element = (id) => document.getElementById(id);
const percent = (share) => {
  const text = (100 * share).toFixed(1);
  return `${text === "100.0" ? ">99.9" : text}\u00a0%`; // as percent.py writes a confidence: never 100.0 %
};

const area = new DrawingArea(element("ink"), pictureChanged);
const predictor = new Predictor({ predicted: showPrediction, rejected: showRejection, unavailable: showNotice });

const corrections = new Corrections(area);

let pictureBefore = area.picture;
let newestVersion = null;

function pictureChanged() {
  if (area.picture !== pictureBefore) {
    predictor.cancel(); // not while a stroke grows: then a late response is shown
    corrections.reset();
  }
  pictureBefore = area.picture;
  element("hint").hidden = !area.isEmpty;
  element("ink").setAttribute("aria-label", describePicture());
  element("undo").setAttribute("aria-disabled", !area.canUndo);
  element("clear").setAttribute("aria-disabled", area.isEmpty);
  if (area.isEmpty) {
    showNothing();
  } else {
    predictor.request(() => area.toBlob());
  }
}

function describePicture() {
  if (area.picture.photo) return "Your photo";
  return area.isEmpty ? "Empty area to draw a digit in" : "Your drawing";
}

function showPrediction({ digit, confidence, sure, found, probabilities, normalized, version, milliseconds }) {
  element("prediction").classList.remove("empty");
  element("prediction").classList.toggle("unsure", !sure);
  if (found === 0) {
    element("digit").textContent = "?";
    element("confidence").textContent = "No digit found";
    announce("No digit found");
  } else if (found > 1) {
    element("digit").textContent = `${digit}?`;
    element("confidence").textContent = `${found} digits found. One digit, please.`;
    announce(`${found} digits found. One digit, please.`);
  } else {
    element("digit").textContent = sure ? digit : `${digit}?`;
    element("confidence").textContent = sure ? `${percent(confidence)} sure` : "Not sure";
    announce(sure ? `${digit}, ${percent(confidence)} sure` : `Not sure, maybe ${digit}`);
  }
  showBars(found === 0 ? [] : probabilities);
  showNormalized(normalized);
  element("version").textContent = `Model version ${version}`;
  element("latency").textContent = `Response in ${milliseconds.toFixed(0)} ms`;
  showIfNewer(version);
}

function showIfNewer(version) {
  if (newestVersion !== null && BigInt(version) > newestVersion) {
    element("newer").textContent = `A newer version of the model answers now: ${version}.`;
    element("newer").hidden = false;
  }
  if (newestVersion === null || BigInt(version) > newestVersion) newestVersion = BigInt(version);
}

function showRejection(message) {
  showNothing();
  element("prediction").classList.add("unsure");
  element("confidence").textContent = message;
  announce(message);
}

function showNothing() {
  element("prediction").classList.add("empty");
  element("prediction").classList.remove("unsure");
  element("digit").textContent = "?";
  for (const name of ["confidence", "version", "latency"]) element(name).textContent = "";
  announce("");
  showBars([]);
  showNormalized("");
}

function showNotice(message) {
  element("notice").hidden = !message;
  if (element("notice").textContent !== message) element("notice").textContent = message ?? "";
}

function showBars(probabilities) {
  const best = probabilities.map((share, digit) => ({ share, digit })).sort((a, b) => b.share - a.share);
  for (const [rank, row] of [...element("bars").children].entries()) {
    const [name, bar, share] = row.children;
    name.textContent = best[rank]?.digit ?? "\u2013";
    bar.firstElementChild.style.transform = `scaleX(${best[rank]?.share ?? 0})`;
    share.textContent = best[rank] ? percent(best[rank].share) : "";
  }
}

// `normalized` is base64 of 28 x 28 bytes, 0 = paper, 255 = ink; ink is shown white on black, as in MNIST.
function showNormalized(normalized) {
  const image = new ImageData(28, 28);
  for (const [index, character] of [...atob(normalized)].entries()) {
    image.data.set([255, 255, 255, character.charCodeAt(0)], 4 * index);
  }
  element("normalized").getContext("2d").putImageData(image, 0, 0);
}

// Announces `text` to screen readers if it is new: the prediction for a growing stroke seldom changes.
function announce(text) {
  if (element("spoken").textContent !== text) element("spoken").textContent = text;
}

async function loadPhoto(files) {
  if (!files.length) return;
  const [file] = files;
  if (file.type && !file.type.startsWith("image/")) {
    area.clear();
    showRejection(`\u201c${file.name}\u201d is not a picture. Choose a photo of one digit, such as a PNG or a JPEG file.`);
    return;
  }
  area.putPhoto(await readPhoto(file));
}

element("undo").addEventListener("click", () => area.undo());
element("clear").addEventListener("click", () => area.clear());
for (const button of element("examples").children) {
  button.addEventListener("click", async () => area.putPhoto(await readPhoto(button.firstElementChild)));
}
element("file").addEventListener("change", async ({ target }) => {
  await loadPhoto(target.files);
  target.value = ""; // so that the same file can be chosen again
});
addEventListener("keydown", (event) => {
  if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey) && !event.shiftKey) {
    event.preventDefault();
    area.undo();
  }
});
addEventListener("paste", ({ clipboardData }) => loadPhoto(clipboardData.files));
addEventListener("dragover", (event) => {
  event.preventDefault();
  element("drawing").classList.add("dropping");
});
addEventListener("dragleave", ({ relatedTarget }) => {
  if (!relatedTarget) element("drawing").classList.remove("dropping");
});
addEventListener("drop", (event) => {
  event.preventDefault(); // the browser would open the file instead of the page
  element("drawing").classList.remove("dropping");
  loadPhoto(event.dataTransfer.files);
});

pictureChanged();
predictor.start();
corrections.start();
