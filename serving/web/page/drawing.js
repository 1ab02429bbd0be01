// The paper: pointers to strokes, strokes to pixels, with undo.
//
// A sheet is { strokes, photo } and is never changed: each stroke, photo or clearing lays a new one on top, and undo takes it
// off again. A stroke is a list of points { x, y, width }, all in sides of the paper, so that it can be drawn at any size.

const WIDTH = 0.06; // of a stroke; near that of a felt pen, and of MNIST's
const SENT_SIDE = 336; // pixels of the drawing that the model is sent

const EMPTY = { strokes: [], photo: null };

export class Paper {
  // `changed` is called after every change, also in the middle of a stroke.
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.changed = changed;
    this.sheets = [EMPTY];
    this.stroke = this.frame = null;
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#extend(event));
    canvas.addEventListener("pointerup", () => this.#end());
    canvas.addEventListener("pointercancel", () => this.#end());
    new ResizeObserver(() => this.#paint()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#paint());
  }

  get sheet() {
    return this.sheets.at(-1);
  }

  get isEmpty() {
    return !this.sheet.strokes.length && !this.sheet.photo;
  }

  get canUndo() {
    return this.sheets.length > 1;
  }

  // `photo` is { preview, blob }: what is shown (null if the browser cannot show it) and what is sent.
  putPhoto(photo) {
    this.#lay({ strokes: [], photo });
  }

  clear() {
    if (!this.isEmpty) this.#lay(EMPTY);
  }

  undo() {
    if (!this.canUndo) return;
    this.stroke = null;
    this.sheets.pop();
    this.#show();
  }

  // The picture as a file: the photo as it is, or the drawing in black on white, whatever its colours here.
  toBlob() {
    if (this.sheet.photo) return this.sheet.photo.blob;
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SENT_SIDE;
    const context = canvas.getContext("2d");
    context.fillStyle = "white";
    context.fillRect(0, 0, SENT_SIDE, SENT_SIDE);
    drawStrokes(context, this.sheet.strokes, SENT_SIDE, "black");
    // Not canvas.toBlob: browsers leave its work for when the page is idle, which it is not while somebody draws.
    const [, base64] = canvas.toDataURL("image/png").split(",");
    return new Blob([Uint8Array.from(atob(base64), (character) => character.charCodeAt(0))], { type: "image/png" });
  }

  #lay(sheet) {
    this.sheets.push(sheet);
    this.#show();
  }

  #show() {
    // Once per frame, however often the pointer moves in it.
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.#paint();
    });
    this.changed();
  }

  #begin(event) {
    if (!event.isPrimary || event.button !== 0) return;
    event.preventDefault(); // no selection, no drag
    this.canvas.setPointerCapture(event.pointerId);
    this.stroke = [this.#point(event)];
    this.#lay({ strokes: [...this.sheet.strokes, this.stroke], photo: null });
  }

  #extend(event) {
    if (!this.stroke || !event.isPrimary) return;
    // A fast hand moves several times between two frames; all those places are in the coalesced events.
    const events = event.getCoalescedEvents?.() ?? [];
    this.stroke.push(...(events.length ? events : [event]).map((one) => this.#point(one)));
    this.#show();
  }

  #end() {
    this.stroke = null;
  }

  #point(event) {
    const box = this.canvas.getBoundingClientRect();
    const pressure = event.pointerType === "pen" ? 0.5 + event.pressure : 1; // others report no real pressure
    return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height, width: WIDTH * pressure };
  }

  #paint() {
    const side = Math.max(1, Math.round(this.canvas.clientWidth * devicePixelRatio));
    if (this.canvas.width !== side) this.canvas.width = this.canvas.height = side;
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, side, side);
    if (this.sheet.photo?.preview) drawPhoto(context, this.sheet.photo.preview, side);
    drawStrokes(context, this.sheet.strokes, side, getComputedStyle(this.canvas).color);
  }
}

function drawPhoto(context, preview, side) {
  const scale = side / Math.max(preview.width, preview.height);
  const [width, height] = [preview.width * scale, preview.height * scale];
  context.drawImage(preview, (side - width) / 2, (side - height) / 2, width, height);
}

// Curves through the middles between the points, bent towards the points: smooth, and never far from the hand.
function drawStrokes(context, strokes, side, colour) {
  context.strokeStyle = colour;
  context.lineCap = context.lineJoin = "round";
  for (const points of strokes) {
    let from = points[0];
    for (const [index, point] of points.entries()) {
      const next = points[index + 1] ?? point;
      const to = { x: (point.x + next.x) / 2, y: (point.y + next.y) / 2 };
      context.lineWidth = point.width * side;
      context.beginPath();
      context.moveTo(from.x * side, from.y * side);
      context.quadraticCurveTo(point.x * side, point.y * side, to.x * side, to.y * side);
      context.lineTo(to.x * side + 0.01, to.y * side); // a tap, too, must have a length, or it would leave no dot
      context.stroke();
      from = to;
    }
  }
}
