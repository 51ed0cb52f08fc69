/* A quiz: which of these photos was this reconstructed from? Answers are kept in this page, until it is left.
   One sheet: the photos, then for each depth a reconstruction of each, in the photos' order.
   facts: photos [name], depths [number], unit, found [depth][photo]: which photo the network's answer is. */
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const { make, screen, start, near } = window.touch;

  start("quiz", ([frames], facts) => {
    const n = facts.photos.length;
    let [questions, place, answered] = [[], 0, []];
    const question = make("p", { class: "touch-question" });
    const picture = screen(facts, "The reconstruction", "touch-asked");
    const told = make("p", { class: "touch-told", "aria-live": "polite" });
    const rate = make("p", { class: "touch-rate" });
    const next = make("button", { type: "button", class: "touch-button" }, "Next");
    const thumbs = facts.photos.map(() => screen(facts, null));
    const buttons = facts.photos.map((name, photo) => {
      const button = make("button", { type: "button", class: "touch-answer", "aria-label": name }, thumbs[photo]);
      button.addEventListener("click", () => answer(photo));
      return button;
    });

    /* Every photo is asked for once, at depths that come in turn; the order is drawn anew each time. */
    function begin() {
      const photos = facts.photos.map((_, photo) => photo);
      for (let last = n - 1; last > 0; last -= 1) {
        const other = Math.floor(Math.random() * (last + 1));
        [photos[last], photos[other]] = [photos[other], photos[last]];
      }
      questions = photos.map((photo, i) => ({ photo, depth: i % facts.depths.length }));
      [place, answered] = [0, []];
      ask();
    }

    function ask() {
      const { photo, depth } = questions[place];
      const what = `reconstructed after ${facts.depths[depth]} ${facts.unit}`;
      frames.draw(picture, n + depth * n + photo);
      picture.setAttribute("aria-label", `Question ${place + 1}: an image ${what}`);
      question.textContent = `Question ${place + 1} of ${n}, ${what}. Which photo was it?`;
      told.textContent = "";
      next.hidden = true;
      buttons.forEach((button) => {
        button.classList.remove("touch-right-one", "touch-wrong-one");
        button.removeAttribute("aria-disabled");
      });
      tally();
    }

    function answer(chosen) {
      if (!questions.length || answered.length > place) return; // not asked yet, or answered: one answer a question
      const { photo, depth } = questions[place];
      const network = facts.found[depth][photo];
      answered.push({ reader: chosen === photo, network: network === photo });
      buttons[photo].classList.add("touch-right-one");
      if (chosen !== photo) buttons[chosen].classList.add("touch-wrong-one");
      buttons.forEach((button) => button.setAttribute("aria-disabled", "true"));
      told.textContent = `You are ${chosen === photo ? "right" : "wrong"}: it was ${facts.photos[photo]}. ` +
        `Pixel similarity is ${network === photo ? "right" : `wrong: ${facts.photos[network]}`}.`;
      next.textContent = place === n - 1 ? "Once more" : "Next";
      next.hidden = false;
      tally();
      next.focus({ preventScroll: true });
    }

    function tally() {
      const right = (who) => answered.filter((one) => one[who]).length;
      const all = facts.found.flat().length;
      const hits = facts.found.flatMap((row) => row.filter((found, photo) => found === photo)).length;
      const everywhere = `on all ${all} reconstructions ${Math.round((100 * hits) / all)}\u00a0%, ` +
        `by chance ${Math.round(100 / n)}\u00a0%.`;
      rate.textContent = answered.length
        ? `You: ${right("reader")} of ${answered.length}. Pixel similarity: ${right("network")} of ` +
          `${answered.length} here, ${everywhere}`
        : `Pixel similarity: ${everywhere}`;
    }

    next.addEventListener("click", () => {
      place += 1;
      if (place < n) ask(); else begin();
      buttons[0].focus({ preventScroll: true });
    });
    const made = make("div", { class: "touch-columns" },
      make("div", { class: "touch-left" }, picture),
      make("div", { class: "touch-right" }, question,
        make("div", { class: "touch-answers", role: "group", "aria-label": "Photos to choose from" }, ...buttons),
        told, next, rate));
    near(made, () => {
      begin();
      thumbs.forEach((canvas, photo) => frames.draw(canvas, photo));
    });
    return made;
  });
});
