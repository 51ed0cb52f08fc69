/* A photo of the reader's own, represented by a classifier at six depths and read back from each, all in the page.
   data (study/live_photo.py): size (pixels a side), samples {name: address of a photo}, and for each depth a part:
   number (of convolutions), shape, feedback [steps, rate], forth (from the depth before), back (to the depth before);
   trial: what a graphics processor has to find of the first sample. */
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const { make, screen, choices } = window.touch;

  function psnr(made, photo) {
    const squares = made.reduce((sum, value, place) => sum + (value - photo[place]) ** 2, 0);
    return -10 * Math.log10(squares / photo.length);
  }

  window.live.start("photo", async (data, figure, runtime) => {
    const { size } = data;
    const image = [1, 3, size, size];
    const numbers = (shape) => shape.reduce((a, b) => a * b);
    const names = Object.keys(data.samples);
    const sample = async (name) => {
      const bytes = Uint8Array.from(atob(data.samples[name].split(",")[1]), (one) => one.charCodeAt(0));
      return window.live.square(new Blob([bytes]), size);
    };
    const texts = {};
    const parts = data.parts.map(({ forth, back, ...facts }, k) => {
      Object.assign(texts, { [`forth${k}`]: forth, [`back${k}`]: back });
      return facts;
    });
    data.parts = null;

    /* The ways through the networks, each of which `run(name, given)` computes. */
    function ways(run) {
      const one = async (name, x, shape) => {
        await window.live.breathe();
        return (await run(name, { x: [x, shape] })).y;
      };

      /* The representation at part `k`, from that of the part before. */
      const further = (k, h) => one(`forth${k}`, h, k ? parts[k - 1].shape : image);

      async function represented(photo, k) {
        let h = photo;
        for (let place = 0; place <= k; place += 1) h = await further(place, h);
        return h;
      }

      async function inverted(h, k) {
        for (let place = k; place >= 0; place -= 1) h = await one(`back${place}`, h, parts[place].shape);
        return h;
      }
      return { further, represented, inverted };
    }

    /* A graphics processor that finds something else than PyTorch, or takes too long for it, is not used. */
    async function trial(run) {
      const { step, values, within, seconds } = data.trial;
      const { represented, inverted } = ways(run);
      const deepest = parts.length - 1;
      const photo = await sample(names[0]);
      await inverted(await represented(photo, deepest), deepest); // its programs are compiled meanwhile
      const began = performance.now();
      const made = await inverted(await represented(photo, deepest), deepest);
      if (performance.now() - began > 1000 * seconds) throw new Error("the graphics processor is slow");
      const wrong = (value, place) => !(Math.abs(made[place * step] - value) <= within); // also where it is no number
      if (values.some(wrong)) throw new Error("the graphics processor finds something else");
    }

    const networks = await window.live.networks(texts, runtime, trial);
    const { further, represented, inverted } = ways(networks.run);

    /* What is read back from a representation: what the first reading loses when it is read again is given back to it,
       as often as the inverter's card says. `stale` says whether nobody waits for it any more. */
    async function readBack(h, k, stale) {
      const [steps, rate] = parts[k].feedback;
      const first = await inverted(h, k);
      let made = first;
      for (let step = 0; step < steps && !stale(); step += 1) {
        const again = await inverted(await represented(made, k), k);
        made = made.map((value, place) => Math.min(1, Math.max(0, value + rate * (first[place] - again[place]))));
      }
      return made;
    }

    // What is shown: the photo and six pictures, each with what it was made from.
    const panel = (label, words) => {
      const canvas = screen({ side: size }, label);
      const told = make("span", { class: "live-told" });
      return { canvas, told, box: make("div", { class: "live-panel" }, canvas, make("b", {}, words), told) };
    };
    const shown = panel("Your photo, as the network takes it", "photo");
    shown.told.textContent = `${numbers(image).toLocaleString("en")} numbers`;
    const panels = parts.map(({ number }) =>
      panel(`What is read back after ${number} convolutions`, `after ${number} convolutions`));
    const told = make("p", { class: "touch-told", role: "status" });

    let chosen = null; // [name, a function that returns the photo, 3 x size x size numbers]
    const compute = window.live.latest(async () => {
      const wanted = chosen;
      const stale = () => chosen !== wanted;
      delete figure.dataset.done;
      try {
        told.textContent = "Reading the photo …";
        const [, read] = wanted;
        const photo = await read();
        const began = performance.now();
        window.live.draw(shown.canvas, photo);
        panels.forEach(({ canvas, told: facts }) => {
          canvas.getContext("2d").clearRect(0, 0, size, size);
          facts.textContent = "";
        });
        figure.result = { photo, made: [] };
        let h = photo;
        for (let k = 0; k < parts.length; k += 1) {
          told.textContent = `Depth ${k + 1} of ${parts.length} …`;
          h = await further(k, h);
          const made = await readBack(h, k, stale);
          if (stale()) return;
          window.live.draw(panels[k].canvas, made);
          const count = numbers(parts[k].shape);
          panels[k].told.replaceChildren(`${psnr(made, photo).toFixed(1)} dB`, make("br"),
            `from ${count.toLocaleString("en")} numbers, ${Math.round((100 * count) / photo.length)}\u00a0% of the photo's`);
          figure.result.made.push(made);
        }
        const seconds = (performance.now() - began) / 1000;
        told.textContent = `Computed in your browser, on ${networks.where()}, in ${seconds.toFixed(1)} s. ` +
          "The photo has not left this page. Had one of these representations been sent in its place, " +
          "whoever received it, and knows the network, would see what you see here.";
        [figure.dataset.done] = wanted;
      } catch (error) {
        told.textContent = error.message;
      }
    });
    const choose = (name, read) => { chosen = [name, read]; compute(); };

    // Where a photo comes from: a sample, a file, the camera of a phone, or something dropped on the figure.
    const frames = names.map((name) => ({ name }));
    const field = choices("A photo of the book", frames, { side: size }, (place) => choose(names[place], () => sample(names[place])));
    frames.forEach(async ({ name, thumb }) => window.live.draw(thumb, await sample(name)));
    function own(photo) {
      if (!photo) return;
      for (const one of field.querySelectorAll("input")) one.checked = false;
      choose(photo.name, () => window.live.square(photo, size));
    }
    const file = (words, extra) => {
      const input = make("input", { type: "file", accept: "image/*", ...extra });
      input.addEventListener("click", () => { input.value = ""; }); // so that the same file may be chosen again
      input.addEventListener("change", () => own(input.files[0]));
      return make("label", { class: `live-file${extra.capture ? " live-camera" : ""}` }, words, input);
    };
    const files = make("div", { class: "live-files" },
      file("Choose a photo of your own", {}), file("Take a photo", { capture: "environment" }));
    for (const kind of ["dragover", "drop"]) {
      figure.addEventListener(kind, (event) => {
        event.preventDefault();
        if (kind === "drop") own(event.dataTransfer.files[0]);
      });
    }

    choose(names[0], () => sample(names[0]));
    return make("div", {}, field, files, told,
      make("div", { class: "live-panels" }, shown.box, ...panels.map(({ box }) => box)));
  });
});
