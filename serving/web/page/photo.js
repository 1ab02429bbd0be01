// Photos in a form that the model accepts: unchanged if possible.

const SERVED_TYPES = new Set(["image/png", "image/jpeg", "image/bmp", "image/gif"]);
const LARGEST_BYTES = 8e6; // half of the server's limit, to keep uploads short
const LARGEST_SIDE = 4096;
const SENT_SIDE = 2048; // of a photo that is encoded again: even pure noise stays below the server's limit
const PREVIEW_SIDE = 1024; // limits memory, because undo keeps every photo

// `file` is a file or an image element. Returns { preview, blob }: the picture to show, null if this browser cannot decode it,
// and the file to send. A format that only the browser decodes (WebP, AVIF, on some devices HEIC) is sent as PNG; a huge photo
// is scaled down.
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

// Returns a canvas with the bitmap, its longer side at most `side`.
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
