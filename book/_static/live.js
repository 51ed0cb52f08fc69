/* Networks that run in the page. study/live.py writes scripts that hold runtimes and networks as text; they are
   loaded when the reader asks, so that a page opened from a file needs to fetch nothing. Nothing leaves the page. */
"use strict";

window.live = (() => { // other scripts may have begun it: the book loads them in any order
  const data = {};

  /* Load a script with networks or the runtime, once. */
  const scripts = {};
  function load(name) {
    scripts[name] ??= new Promise((done, failed) => {
      const script = document.createElement("script");
      script.src = `_static/live/${name}.js`;
      script.onload = done;
      script.onerror = () => failed(new Error("a script beside this page is missing"));
      document.head.append(script);
    });
    return scripts[name];
  }

  /* The bytes of a text that was compressed and then written in base64. */
  async function unpacked(text) {
    const bytes = Uint8Array.from(atob(text), (one) => one.charCodeAt(0));
    const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(plain).arrayBuffer());
  }

  /* Let the page draw and answer before the next network computes. */
  const breathe = () => new Promise((done) => setTimeout(done));

  /* One call after the other, of which only the newest waits: a slider asks more often than a network answers. */
  function latest(action) {
    let [busy, again] = [false, false];
    return async function ask() {
      if (busy) { again = true; return; }
      busy = true;
      do {
        again = false;
        await action();
      } while (again);
      busy = false;
    };
  }

  /* Draw an image, 3 x side x side numbers from 0 to 1, on a canvas. */
  function draw(canvas, numbers) {
    const { width: side } = canvas;
    const pixels = new ImageData(side, side);
    for (let place = 0; place < side * side; place += 1) {
      for (let colour = 0; colour < 3; colour += 1) {
        pixels.data[4 * place + colour] = Math.round(255 * numbers[colour * side * side + place]);
      }
      pixels.data[4 * place + 3] = 255;
    }
    canvas.getContext("2d").putImageData(pixels, 0, 0);
  }

  /* Numbers from a normal distribution (Box and Muller 1958). */
  function normal(count) {
    const one = () => Math.sqrt(-2 * Math.log(1 - Math.random())) * Math.cos(2 * Math.PI * Math.random());
    return Float32Array.from({ length: count }, one);
  }

  /* In every figure of one kind for which the book has its networks: a button, and once it is pressed, what `build`
     makes of them, with the runtime for this browser, takes the place of the picture. Where that fails, the picture
     stays, and a sentence says so. */
  function start(kind, build) {
    const { make } = window.touch;
    for (const figure of document.querySelectorAll(`figure.live[data-live="${kind}"][data-processor]`)) {
      const { time } = figure.dataset;
      const button = make("button", { type: "button", class: "touch-button" });
      const says = (runtime) => {
        const on = runtime === "processor" ? "" : " on the graphics processor";
        button.textContent = `Compute it here${on} (loads ${figure.dataset[runtime]} MB${time ? `; ${time}` : ""})`;
      };
      says("processor");
      const chosen = window.live.runtimeOf(figure);
      chosen.then(says);
      const told = make("p", { class: "touch-told", role: "status" });
      button.addEventListener("click", async () => {
        button.disabled = true;
        told.textContent = "Loading …";
        try {
          await load(kind);
          const made = await build(data[kind], figure, await chosen);
          made.classList.add("touch-made");
          figure.querySelector(".live-still").replaceWith(made);
          made.querySelector("input").focus();
          figure.dataset.ready = "yes";
        } catch (error) {
          told.textContent = `This browser cannot run the networks (${error.message}). The picture stays.`;
        }
      });
      figure.querySelector(".live-still").append(button, told);
    }
  }

  return Object.assign(window.live ?? {}, { data, load, unpacked, breathe, latest, draw, normal, start });
})();
