/* A glyph, its logits and a reconstruction from them, all computed in the page as its factors are moved.
   data (study/live.py): characters, label and factors of the first, noise (numbers in a noise vector), and two networks:
   read (label, factors) -> (image, logits), write (noise, logits) -> made. */
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const { make, screen, slider } = window.touch;
  const SIDE = 32;
  const MOST = 5; // logits shown

  window.live.start("glyphs", async (data, figure, runtime) => {
    const { characters } = data;
    const networks = await window.live.networks({ read: data.read, write: data.write }, runtime);
    const factors = Float32Array.from(data.factors);
    let { label } = data;
    let factor = 1;
    let noise = window.live.normal(data.noise);

    const image = screen({ side: SIDE }, "The glyph");
    const made = screen({ side: SIDE }, "Its reconstruction from the logits");
    const bars = make("ol", { class: "live-logits", "aria-label": "The largest logits" });
    const told = make("p", { class: "touch-told" });

    const compute = window.live.latest(async () => {
      const began = performance.now();
      const seen = await networks.run("read", { label: [Int32Array.of(label), [1]], factors: [factors.slice(), [1, factors.length]] });
      const changed = seen.logits.map((one) => factor * one);
      const given = { noise: [noise.slice(), [1, noise.length]], logits: [changed, [1, changed.length]] };
      const back = (await networks.run("write", given)).made;
      const milliseconds = performance.now() - began;
      window.live.draw(image, seen.image);
      window.live.draw(made, back);
      logits(changed);
      told.textContent = `Computed in your browser in ${Math.max(1, Math.round(milliseconds))} ms.`;
      figure.result = { label, factors: [...factors], factor, noise: [...given.noise[0]], image: [...seen.image],
        logits: [...seen.logits], made: [...back] };
    });

    function logits(values) {
      const order = [...values.keys()].sort((a, b) => values[b] - values[a]).slice(0, MOST);
      const longest = Math.max(1e-6, ...order.map((place) => Math.abs(values[place])));
      bars.replaceChildren(...order.map((place) => {
        const bar = make("span", { class: "live-bar", "aria-hidden": "true" });
        bar.style.width = `${(60 * Math.abs(values[place])) / longest}%`;
        return make("li", {}, make("b", {}, characters[place]), bar, values[place].toFixed(1));
      }));
    }

    /* A slider for one factor, from `low` to `high`. */
    function moves(name, place, low, high, say, steps = 60) {
      const value = (step) => low + ((high - low) * step) / steps;
      const first = Math.round((steps * (factors[place] - low)) / (high - low));
      return slider(name, steps, first, (step) => say(value(step)), (step) => {
        factors[place] = value(step);
        compute();
      }).row;
    }

    const share = (value) => `${Math.round(100 * value)} %`;
    const turn = (value) => `${Math.round(360 * value)}°`;
    const rows = [
      slider("Character", characters.length - 1, label, (place) => characters[place],
        (place) => { label = place; compute(); }).row,
      moves("Sideways", 0, -0.15, 0.15, share),
      moves("Down", 1, -0.15, 0.15, share),
      moves("Size", 2, 0.5, 0.85, share),
      moves("Rotation", 3, -25, 25, (value) => `${value.toFixed(0)}°`),
      moves("Ink", 4, 0, 1, (value) => `hue ${turn(value)}`),
      moves("Ground", 5, 0, 1, (value) => `hue ${turn(value)}`),
      moves("Contrast", 6, -0.7, 0.7, (value) => `ink ${Math.abs(value).toFixed(2)} ${value < 0 ? "darker" : "lighter"}`),
      slider("Logits", 40, 20, (step) => `times ${(step / 20).toFixed(2)}${step === 20 ? " (unchanged)" : ""}`,
        (step) => { factor = step / 20; compute(); }).row,
    ];
    const again = make("button", { type: "button", class: "touch-button" }, "Draw other noise");
    again.addEventListener("click", () => { noise = window.live.normal(data.noise); compute(); });

    await compute();
    return make("div", {},
      make("div", { class: "touch-row" },
        make("div", { class: "touch-panel" }, image, make("b", {}, "image")),
        make("div", { class: "touch-panel" }, make("b", {}, "logits"), bars),
        make("div", { class: "touch-panel" }, made, make("b", {}, "reconstruction"))),
      make("div", { class: "live-sliders" }, ...rows), again, told);
  });
});
