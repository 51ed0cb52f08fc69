/* Sample again: the same logits, other noise. A sheet an image: the original, then for each inverter its samples.
   facts: inverters [name], samples (of each), psnr {image: {inverter: dB of every sample}}. */
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const { make, screen, choices, start, near } = window.touch;

  start("noise", (images, facts) => {
    const { inverters, samples } = facts;
    let image = images[0];
    let drawn = [];
    const original = screen(facts, "The image");
    const rows = inverters.map((name) => ({
      name, now: screen(facts, `One sample, ${name}`), mean: screen(facts, `Mean of the samples, ${name}`),
      words: make("span", { class: "touch-seen" }),
    }));
    const again = make("button", { type: "button", class: "touch-button" }, "Sample again");
    const told = make("p", { class: "touch-told", "aria-live": "polite" });

    /* The order in which the noise vectors come is drawn by the page; each comes once before one comes twice. */
    function shuffled() {
      const order = [...Array(samples).keys()];
      for (let last = order.length - 1; last > 0; last -= 1) {
        const other = Math.floor(Math.random() * (last + 1));
        [order[last], order[other]] = [order[other], order[last]];
      }
      return order;
    }
    let order = shuffled();

    function sample() {
      if (drawn.length === samples) [drawn, order] = [[], shuffled()];
      const one = order[drawn.length];
      drawn.push(one);
      rows.forEach((row, i) => {
        const frames = drawn.map((sample) => 1 + i * samples + sample);
        image.draw(row.now, frames.at(-1));
        image.draw(row.mean, ...frames);
        row.words.textContent = `${facts.psnr[image.name][row.name][one].toFixed(1)} dB`;
      });
      told.textContent = `Noise vector ${drawn.length} of ${samples}. Above, the sample; below, the mean of ` +
        `${drawn.length === 1 ? "this one" : `the ${drawn.length} so far`}.`;
    }

    function show() {
      drawn = [];
      image.draw(original, 0);
      original.setAttribute("aria-label", `The image: ${image.name}`);
      sample();
    }

    again.addEventListener("click", sample);
    const buttons = choices("Image", images, facts, (place) => { image = images[place]; show(); });
    const panel = make("div", { class: "touch-row" },
      make("div", { class: "touch-panel" }, original, make("b", {}, "image")),
      ...rows.map((row) => make("div", { class: "touch-panel" }, row.now, make("b", {}, row.name), row.words, row.mean,
        make("span", { class: "touch-seen" }, "mean"))));
    const made = make("div", {}, make("div", { class: "touch-bar" }, again, told), panel, buttons);
    near(made, () => {
      show();
      images.forEach((one) => one.draw(one.thumb, 0));
    });
    return made;
  });
});
