/* A picture opens over its page, at least as large as it is and as wide as the window up to twice that, and scrolls. On
   a desktop each image of a grid (data-tile: its pixels) is at least TILE pixels wide.
   Escape, a click or a tap closes it. Where no script runs, its link (study/web_pages.py) leads to the picture itself. */
"use strict";

(() => {
  const TILE = 300, MOST = 4; // times as large as it is, at most
  let view = null;

  /* The dialog, one for all pictures of the page. */
  function dialog() {
    if (view) return view;
    view = document.createElement("dialog");
    view.className = "full-size-view";
    const close = document.createElement("button");
    close.type = "button";
    close.textContent = "Close";
    const grid = document.createElement("div"), shade = document.createElement("span");
    grid.className = "image-grid";
    grid.append(new Image(), shade);
    view.append(close, grid);
    view.addEventListener("click", () => view.close());
    view.addEventListener("close", () => view.querySelector("img").removeAttribute("src"));
    document.body.append(view);
    return view;
  }

  /* What the opened view is called: what the picture shows, else how its caption begins. */
  function named(image) {
    const caption = image.closest("figure")?.querySelector(".caption-text")?.textContent.trim().replace(/\s+/g, " ");
    return image.alt || caption?.match(/^.*?[.!?](?= |$)/)?.[0] || caption || "A picture in full size";
  }

  function show(link) {
    const shown = link.querySelector("img");
    const pixels = Number(shown.getAttribute("width")) || shown.naturalWidth;
    const picture = dialog().querySelector("img");
    picture.alt = shown.alt;
    picture.className = shown.classList.contains("chart") ? "chart" : "";
    picture.style.setProperty("--pixels", `${pixels}px`);
    picture.style.setProperty("--least", `${pixels * Math.min(MOST, TILE / (shown.dataset.tile || pixels))}px`);
    picture.src = link.href;
    const between = link.querySelector(".shade"), shade = view.querySelector(".image-grid span");
    shade.className = between ? "shade" : "";
    shade.style.cssText = between ? between.style.cssText : "";
    view.setAttribute("aria-label", named(shown));
    view.showModal();
    view.scrollTo(0, 0);
  }

  document.addEventListener("click", (event) => {
    const link = event.target.closest("a.full-size");
    if (!link || event.button || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    show(link);
  });
})();
