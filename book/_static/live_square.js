/* A photo file as the networks take it: upright, in sRGB, transparency on white, the central square, resized as
   invkit.data.images.fit_square resizes (bilinear, antialiased), so that no browser does it in a way of its own. */
"use strict";

(window.live ??= {}).square = (() => {
  const MOST = 4096; // pixels a side of a square that is read whole; a larger one is shrunk by the browser first

  /* Where a line of `from` pixels is looked up to become one of `to`: for each new pixel the first old one and the
     weights from there, those of a triangle as wide as both pixels. */
  function looks(from, to) {
    const scale = from / to;
    const reach = Math.max(1, scale);
    return Array.from({ length: to }, (_, place) => {
      const middle = scale * (place + 0.5);
      const first = Math.max(0, Math.trunc(middle - reach + 0.5));
      const last = Math.min(from, Math.trunc(middle + reach + 0.5));
      const weights = [];
      for (let old = first; old < last; old += 1) {
        weights.push(Math.max(0, 1 - Math.abs((old - middle + 0.5) / reach)));
      }
      const sum = weights.reduce((a, b) => a + b, 0);
      return [first, weights.map((one) => one / sum)];
    });
  }

  /* The pixels of a square picture, RGBA bytes, as 3 x side x side numbers from 0 to 1. */
  function resized(pixels, from, side) {
    const lines = looks(from, side);
    const narrow = new Float32Array(3 * from * side); // every old row, as wide as the new ones
    for (let colour = 0; colour < 3; colour += 1) {
      for (let y = 0; y < from; y += 1) {
        for (let x = 0; x < side; x += 1) {
          const [first, weights] = lines[x];
          let sum = 0;
          let at = 4 * (y * from + first) + colour;
          for (let k = 0; k < weights.length; k += 1, at += 4) sum += weights[k] * pixels[at];
          narrow[(colour * from + y) * side + x] = sum / 255;
        }
      }
    }
    const found = new Float32Array(3 * side * side);
    for (let colour = 0; colour < 3; colour += 1) {
      for (let y = 0; y < side; y += 1) {
        const [first, weights] = lines[y];
        for (let x = 0; x < side; x += 1) {
          let sum = 0;
          let at = (colour * from + first) * side + x;
          for (let k = 0; k < weights.length; k += 1, at += side) sum += weights[k] * narrow[at];
          found[(colour * side + y) * side + x] = Math.min(1, Math.max(0, sum));
        }
      }
    }
    return found;
  }

  /* A photo, a File or another Blob, as 3 x side x side numbers; throws what the reader is told where it is none. */
  return async function square(photo, side) {
    let picture;
    try {
      picture = await createImageBitmap(photo, { imageOrientation: "from-image" });
    } catch (error) {
      throw new Error("This browser cannot read that file as a picture: choose a JPEG or a PNG.");
    }
    const whole = Math.min(picture.width, picture.height);
    const kept = Math.ceil(whole / Math.ceil(whole / MOST));
    const [left, top] = [picture.width, picture.height].map((length) => Math.floor((length - whole) / 2));
    const canvas = new OffscreenCanvas(kept, kept);
    const context = canvas.getContext("2d");
    context.fillStyle = "white";
    context.fillRect(0, 0, kept, kept);
    context.drawImage(picture, left, top, whole, whole, 0, 0, kept, kept);
    picture.close();
    return resized(context.getImageData(0, 0, kept, kept).data, kept, side);
  };
})();
