// The page: paper on one side, answers on the other, and all the ways to give it a picture.

import { Answers } from "./answers.js";
import { Paper } from "./drawing.js";
import { readPhoto } from "./photo.js";

const element = (id) => document.getElementById(id);
const percent = (share) => (share > 0.9995 ? ">99.9%" : `${(100 * share).toFixed(1)}%`); // no model is wholly sure

const paper = new Paper(element("ink"), pictureChanged);
const answers = new Answers({ answered: showAnswer, refused: showRefusal, missing: showNotice });

let sheetBefore = paper.sheet;

function pictureChanged() {
  if (paper.sheet !== sheetBefore) answers.forget(); // a stroke that only grows may be answered late
  sheetBefore = paper.sheet;
  element("hint").hidden = !paper.isEmpty;
  element("ink").setAttribute("aria-label", describePaper());
  element("undo").setAttribute("aria-disabled", !paper.canUndo);
  element("clear").setAttribute("aria-disabled", paper.isEmpty);
  if (paper.isEmpty) {
    showNothing();
  } else {
    answers.ask(() => paper.toBlob());
  }
}

function describePaper() {
  if (paper.sheet.photo) return "Your photo";
  return paper.isEmpty ? "Empty paper to draw a digit on" : "Your drawing";
}

function showAnswer({ digit, confidence, sure, probabilities, seen, version, milliseconds }) {
  element("answer").classList.remove("empty");
  element("answer").classList.toggle("unsure", !sure);
  element("digit").textContent = sure ? digit : `${digit}?`;
  element("confidence").textContent = sure ? `${percent(confidence)} sure` : "Not sure";
  say(sure ? `${digit}, ${percent(confidence)} sure` : `Not sure, maybe ${digit}`);
  showBars(probabilities);
  showSeen(seen);
  element("version").textContent = `Model version ${version}`;
  element("latency").textContent = `Answered in ${milliseconds.toFixed(0)} ms`;
}

function showRefusal(message) {
  showNothing();
  element("answer").classList.add("unsure");
  element("confidence").textContent = message;
  say(message);
}

function showNothing() {
  element("answer").classList.add("empty");
  element("answer").classList.remove("unsure");
  element("digit").textContent = "?";
  for (const name of ["confidence", "version", "latency"]) element(name).textContent = "";
  say("");
  showBars([]);
  showSeen("");
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

// `seen` is base64 of 28 x 28 bytes, 0 = paper, 255 = ink; ink is shown white on black, as in MNIST.
function showSeen(seen) {
  const image = new ImageData(28, 28);
  for (const [place, character] of [...atob(seen)].entries()) {
    image.data.set([255, 255, 255, character.charCodeAt(0)], 4 * place);
  }
  element("seen").getContext("2d").putImageData(image, 0, 0);
}

// For screen readers, and only what is new: the answer to a drawing in progress seldom changes.
function say(text) {
  if (element("spoken").textContent !== text) element("spoken").textContent = text;
}

async function take(files) {
  if (!files.length) return;
  paper.putPhoto(await readPhoto(files[0]));
}

element("undo").addEventListener("click", () => paper.undo());
element("clear").addEventListener("click", () => paper.clear());
element("file").addEventListener("change", async ({ target }) => {
  await take(target.files);
  target.value = ""; // so that the same file can be chosen again
});
addEventListener("keydown", (event) => {
  if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey) && !event.shiftKey) {
    event.preventDefault();
    paper.undo();
  }
});
addEventListener("paste", ({ clipboardData }) => take(clipboardData.files));
addEventListener("dragover", (event) => {
  event.preventDefault();
  element("paper").classList.add("dropping");
});
addEventListener("dragleave", ({ relatedTarget }) => {
  if (!relatedTarget) element("paper").classList.remove("dropping");
});
addEventListener("drop", (event) => {
  event.preventDefault(); // or the browser would leave for the file
  element("paper").classList.remove("dropping");
  take(event.dataTransfer.files);
});

pictureChanged();
answers.watch();
