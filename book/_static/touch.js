/* What the things to touch share. study/touch.py writes a figure with sheets of frames; a script of each kind calls
   touch.start(kind, build), and build makes the controls that take the place of the sheets. Where no script runs, or
   one fails, the sheets stay. Nothing is stored, and nothing is loaded but the sheets. */
"use strict";

window.touch = (() => {
  /* An element: make("p", {class: "a"}, "text", another element). */
  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (value !== null) element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  }

  /* The frames of one sheet, which is loaded when a frame is first drawn. */
  class Frames {
    constructor(picture, facts) {
      Object.assign(this, { name: picture.dataset.name, source: picture.src, facts, image: null });
    }

    loaded() {
      if (!this.image) {
        this.image = new Image();
        this.image.src = this.source;
        this.ready = this.image.decode();
      }
      return this.ready;
    }

    /* Draw one frame on a canvas, or the mean of some. A later call wins over an earlier one that still waits for its
       sheet. */
    async draw(canvas, ...places) {
      const turn = (canvas.turn = (canvas.turn || 0) + 1);
      await this.loaded();
      if (canvas.turn !== turn) return;
      const { side, columns } = this.facts;
      const context = canvas.getContext("2d");
      places.forEach((place, before) => {
        context.globalAlpha = 1 / (before + 1);
        const [x, y] = [place % columns, Math.floor(place / columns)];
        context.drawImage(this.image, x * side, y * side, side, side, 0, 0, side, side);
      });
      canvas.dataset.frame = places.join(" ");
    }
  }

  /* A canvas for frames, read out as the picture that it is. */
  function screen(facts, label, classes = "") {
    const sharp = facts.side <= 64 ? " touch-pixels" : "";
    const attributes = { width: facts.side, height: facts.side, class: `touch-screen${sharp} ${classes}` };
    return make("canvas", label ? { ...attributes, role: "img", "aria-label": label } : { ...attributes, "aria-hidden": "true" });
  }

  let count = 0;

  /* A labelled slider over the numbers 0 to `last`; `say(value)` puts its value into words. Arrow keys come with it. */
  function slider(label, last, value, say, changed) {
    const id = `touch-${(count += 1)}`;
    const input = make("input", { type: "range", id, min: 0, max: last, step: 1, value });
    input.value = value;
    const told = make("output", { for: id });
    const tell = () => {
      told.textContent = say(Number(input.value));
      input.setAttribute("aria-valuetext", told.textContent);
    };
    input.addEventListener("input", () => { tell(); changed(Number(input.value)); });
    tell();
    const row = make("div", { class: "touch-slider" }, make("label", { for: id }, label), input, told);
    return { row, input, tell };
  }

  /* Radio buttons with a picture each, of which the arrow keys choose one. */
  function choices(legend, frames, facts, changed) {
    const name = `touch-${(count += 1)}`;
    const field = make("fieldset", { class: "touch-choices" }, make("legend", {}, legend));
    frames.forEach((one, place) => {
      const input = make("input", { type: "radio", name, value: place, "aria-label": one.name });
      input.checked = place === 0;
      input.addEventListener("change", () => changed(place));
      const picture = screen(facts, null, "touch-thumb");
      field.append(make("label", { title: one.name }, input, picture));
      one.thumb = picture;
    });
    return field;
  }

  /* Turn every figure of one kind into what `build(frames of its sheets, facts, figure)` returns. */
  function start(kind, build) {
    for (const figure of document.querySelectorAll(`figure.touch[data-touch="${kind}"]`)) {
      const facts = JSON.parse(figure.dataset.facts);
      const sheets = [...figure.querySelectorAll("img.touch-sheet")];
      const frames = sheets.map((picture) => new Frames(picture, facts));
      const made = build(frames, facts, figure);
      made.classList.add("touch-made");
      figure.querySelector(".touch-still").replaceWith(made);
      figure.dataset.ready = "yes";
    }
  }

  /* Call `action` once, when the reader comes near an element: what it loads is not asked for before. */
  function near(element, action) {
    const watcher = new IntersectionObserver((entries) => {
      if (entries.some((entry) => entry.isIntersecting)) {
        watcher.disconnect();
        action();
      }
    }, { rootMargin: "600px" });
    watcher.observe(element);
  }

  return { make, screen, slider, choices, start, near };
})();
