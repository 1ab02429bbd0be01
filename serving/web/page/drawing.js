// The drawing area: pointer events to strokes, strokes to pixels, with undo.
//
// A picture is { strokes, photo } and is never changed: each stroke, photo or clearing appends a new one to the history, and
// undo removes the last. A stroke is a list of points { x, y, width }, relative to the canvas's side, so that it can be drawn
// at any size. Only the newest stroke still grows.

const STROKE_WIDTH = 0.06; // like a felt pen's, and like MNIST's
const SENT_SIDE = 336; // pixels of the drawing as it is sent to the model

const EMPTY = { strokes: [], photo: null };

export class DrawingArea {
  // `changed` is called after every change, also in the middle of a stroke.
  constructor(canvas, changed) {
    this.canvas = canvas;
    this.changed = changed;
    this.history = [EMPTY];
    this.stroke = this.frame = null;
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#extend(event));
    canvas.addEventListener("pointerup", () => this.#end());
    canvas.addEventListener("pointercancel", () => this.#end());
    new ResizeObserver(() => this.#paint()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#paint());
  }

  get picture() {
    return this.history.at(-1);
  }

  get isEmpty() {
    return !this.picture.strokes.length && !this.picture.photo;
  }

  get canUndo() {
    return this.history.length > 1;
  }

  // `photo` is { preview, blob }: the picture to show (null if the browser cannot show it) and the file to send.
  putPhoto(photo) {
    this.#append({ strokes: [], photo });
  }

  clear() {
    if (!this.isEmpty) this.#append(EMPTY);
  }

  undo() {
    if (!this.canUndo) return;
    this.stroke = null;
    this.history.pop();
    this.#show();
  }

  // Returns the picture as a file: the photo as it is, or the drawing in black on white, whatever the page's colours.
  toBlob() {
    if (this.picture.photo) return this.picture.photo.blob;
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = SENT_SIDE;
    const context = canvas.getContext("2d");
    context.fillStyle = "white";
    context.fillRect(0, 0, SENT_SIDE, SENT_SIDE);
    drawStrokes(context, this.picture.strokes, SENT_SIDE, "black");
    // canvas.toBlob would wait until the page is idle, which it is not while somebody draws.
    const [, base64] = canvas.toDataURL("image/png").split(",");
    return new Blob([Uint8Array.from(atob(base64), (character) => character.charCodeAt(0))], { type: "image/png" });
  }

  #append(picture) {
    this.history.push(picture);
    this.#show();
  }

  #show() {
    // Painted once per frame, however often the pointer moves in it.
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
    this.#append({ strokes: [...this.picture.strokes, this.stroke], photo: null });
  }

  #extend(event) {
    if (!this.stroke || !event.isPrimary) return;
    // A fast hand moves several times between two frames; the coalesced events have all the points.
    const events = event.getCoalescedEvents?.() ?? [];
    this.stroke.push(...(events.length ? events : [event]).map((one) => this.#point(one)));
    this.#show();
  }

  #end() {
    this.stroke = null;
  }

  #point(event) {
    const box = this.canvas.getBoundingClientRect();
    const pressure = event.pointerType === "pen" ? 0.5 + event.pressure : 1; // a mouse and a finger report no real pressure
    return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height, width: STROKE_WIDTH * pressure };
  }

  #paint() {
    const side = Math.max(1, Math.round(this.canvas.clientWidth * devicePixelRatio));
    if (this.canvas.width !== side) this.canvas.width = this.canvas.height = side;
    const context = this.canvas.getContext("2d");
    context.clearRect(0, 0, side, side);
    if (this.picture.photo?.preview) drawPhoto(context, this.picture.photo.preview, side);
    drawStrokes(context, this.picture.strokes, side, getComputedStyle(this.canvas).color);
  }
}

function drawPhoto(context, preview, side) {
  const scale = side / Math.max(preview.width, preview.height);
  const [width, height] = [preview.width * scale, preview.height * scale];
  context.drawImage(preview, (side - width) / 2, (side - height) / 2, width, height);
}

// Quadratic curves between the midpoints of neighbouring points, with the points as control points: smooth and close to
// the hand's path.
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
      context.lineTo(to.x * side + 0.01, to.y * side); // a line without length, from a tap, would leave no dot
      context.stroke();
      from = to;
    }
  }
}
