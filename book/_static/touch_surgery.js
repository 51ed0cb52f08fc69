/* Surgery on logits: choose a change of an image's logits and its strength, and see what is reconstructed.
   A sheet an image, its rows as long as the longest list of strengths: the original; then, for each inverter, a row of
   each change.
   facts: inverters [name], directions [{name, text, unchanged (place of a strength), strengths [in words]}],
   measured {image: {inverter: directions x strengths of {own, other (is the class still seen?), distance}}}. */
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const { make, screen, slider, choices, start, near } = window.touch;

  start("surgery", (images, facts) => {
    const { inverters, directions, columns } = facts;
    let image = images[0];
    let [direction, strength] = [0, directions[0].unchanged];
    const original = screen(facts, "The image");
    const screens = inverters.map((name) => screen(facts, name));
    const words = inverters.map(() => make("span", { class: "touch-seen" }));
    const panel = make("div", { class: "touch-row" },
      make("div", { class: "touch-panel" }, original, make("b", {}, "image")),
      ...inverters.map((name, i) => make("div", { class: "touch-panel" }, screens[i], make("b", {}, name), words[i])));
    const told = make("p", { class: "touch-told", "aria-live": "polite" });

    const which = slider("Change", directions.length - 1, direction, (place) => directions[place].name, (place) => {
      direction = place;
      strength = directions[place].unchanged;
      far.input.max = directions[place].strengths.length - 1;
      far.input.value = strength;
      far.tell();
      show();
    });
    const far = slider("Strength", directions[direction].strengths.length - 1, strength,
      (place) => directions[direction].strengths[place] + (place === directions[direction].unchanged ? " (unchanged)" : ""),
      (place) => { strength = place; show(); });
    const buttons = choices("Image", images, facts, (place) => { image = images[place]; show(); });

    function show() {
      image.draw(original, 0);
      original.setAttribute("aria-label", `The image: ${image.name}`);
      inverters.forEach((name, i) => {
        image.draw(screens[i], columns * (1 + i * directions.length + direction) + strength);
        const { own, other, distance } = facts.measured[image.name][name][direction][strength];
        const lines = [`class ${own ? "kept" : "lost"}`, `for another: ${other ? "kept" : "lost"}`,
          `distance ${distance.toFixed(2)}`];
        words[i].replaceChildren(...lines.flatMap((line) => [line, make("br")]));
        screens[i].setAttribute("aria-label", `Reconstruction, ${name}: ${lines.join(", ")}`);
      });
      told.textContent = directions[direction].text;
    }

    const made = make("div", {}, panel, which.row, far.row, told, buttons);
    near(made, () => {
      show();
      images.forEach((one) => one.draw(one.thumb, 0));
    });
    return made;
  });
});
