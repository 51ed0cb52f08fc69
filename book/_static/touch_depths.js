/* Slide through the depths: a photo on the left of a handle, its reconstruction from the chosen depth on the right.
   A sheet a photo: the photo, then its reconstruction from every depth.
   facts: unit, depths [{number, size}], psnr {name of the photo: dB at every depth}, depth (shown first). */
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const { make, screen, slider, choices, start, near } = window.touch;

  start("depths", (photos, facts) => {
    let [photo, depth] = [photos[0], facts.depth];
    const below = screen(facts, "The reconstruction");
    const above = screen(facts, "The photo", "touch-above");
    const line = make("div", { class: "touch-line", "aria-hidden": "true" });
    const handle = make("input", {
      type: "range", min: 0, max: 100, step: 2, value: 50, class: "touch-handle",
      "aria-label": "Compare: how much of the photo is shown, from the left",
    });
    const stage = make("div", { class: "touch-stage" }, below, above, handle, line);
    const legend = make("div", { class: "touch-ends", "aria-hidden": "true" },
      make("span", {}, "photo"), make("span", {}, "reconstruction"));

    const told = make("p", { class: "touch-told", "aria-live": "polite" });
    const say = (place) => {
      const { number } = facts.depths[place];
      return `after ${number} ${facts.unit}, ${facts.psnr[photo.name][place].toFixed(1)} dB`;
    };
    const control = slider("Depth", facts.depths.length - 1, depth, say, (value) => { depth = value; show(); });
    const buttons = choices("Photo", photos, facts, (place) => { photo = photos[place]; show(); });

    function show() {
      photo.draw(above, 0);
      photo.draw(below, 1 + depth);
      control.tell();
      const at = facts.depths[depth];
      const all = Object.values(facts.psnr).map((values) => values[depth]);
      const mean = all.reduce((a, b) => a + b, 0) / all.length;
      above.setAttribute("aria-label", `The photo: ${photo.name}`);
      below.setAttribute("aria-label", `Its reconstruction ${say(depth)}`);
      told.textContent =
        `${photo.name}: ${facts.psnr[photo.name][depth].toFixed(1)} dB; the ${all.length} photos here: ` +
        `${mean.toFixed(1)} dB on average. The representation has ${at.size} numbers for each number of the photo.`;
    }

    function compare() {
      stage.style.setProperty("--at", `${handle.value}%`);
      handle.setAttribute("aria-valuetext", `${handle.value} % photo`);
    }
    handle.addEventListener("input", compare);
    compare();

    const made = make("div", { class: "touch-columns" },
      make("div", { class: "touch-left" }, stage, legend),
      make("div", { class: "touch-right" }, control.row, told, buttons));
    near(made, () => {
      show();
      photos.forEach((one) => one.draw(one.thumb, 0));
    });
    return made;
  });
});
