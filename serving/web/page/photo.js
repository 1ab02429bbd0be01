// A photo as the model takes it: as it is, where it can be.

const SERVED_TYPES = new Set(["image/png", "image/jpeg", "image/bmp", "image/gif"]);
const LARGEST_BYTES = 8e6; // well within what the server takes, and sooner there
const LARGEST_SIDE = 4096;

// { bitmap, blob }: what to show, null where this browser cannot, and what to send. What the model cannot decode, but this
// browser can (WebP, AVIF, on some devices HEIC), is sent as PNG; what is huge, smaller.
export async function readPhoto(file) {
  const bitmap = await createImageBitmap(file).catch(() => null);
  const side = bitmap ? Math.max(bitmap.width, bitmap.height) : 0;
  const fits = SERVED_TYPES.has(file.type) && file.size <= LARGEST_BYTES && side <= LARGEST_SIDE;
  return { bitmap, blob: fits || !bitmap ? file : await redraw(bitmap, Math.min(1, LARGEST_SIDE / 2 / side)) };
}

function redraw(bitmap, scale) {
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, bitmap.width * scale);
  canvas.height = Math.max(1, bitmap.height * scale);
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}
