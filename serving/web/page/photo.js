// A photo as the model takes it: as it is, where it can be.

const SERVED_TYPES = new Set(["image/png", "image/jpeg", "image/bmp", "image/gif"]);
const LARGEST_BYTES = 8e6; // well within what the server takes, and sooner there
const LARGEST_SIDE = 4096;
const SENT_SIDE = 2048; // of what is drawn anew: even pure noise stays below the server's limit
const PREVIEW_SIDE = 1024; // undo keeps every photo

// { preview, blob }: what to show, null where this browser cannot, and what to send. What the model cannot decode, but this
// browser can (WebP, AVIF, on some devices HEIC), is sent as PNG; what is huge, smaller.
export async function readPhoto(file) {
  const bitmap = await createImageBitmap(file).catch(() => null);
  if (!bitmap) return { preview: null, blob: file };
  const side = Math.max(bitmap.width, bitmap.height);
  const fits = SERVED_TYPES.has(file.type) && file.size <= LARGEST_BYTES && side <= LARGEST_SIDE;
  const blob = fits ? file : await toPng(draw(bitmap, SENT_SIDE));
  const preview = draw(bitmap, PREVIEW_SIDE);
  bitmap.close();
  return { preview, blob };
}

// A canvas of the bitmap, its longer side at most `side`.
function draw(bitmap, side) {
  const scale = Math.min(1, side / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, bitmap.width * scale);
  canvas.height = Math.max(1, bitmap.height * scale);
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas;
}

function toPng(canvas) {
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}
