// What a page looks like to a reader, for study/page_report.py; the value of this file is an object of functions.
({
  // Texts with less contrast against what is behind them than WCAG 2 AA asks for: 4.5, or 3 where letters are large.
  contrast() {
    const parse = (color) => {
      const [r, g, b, a = 1] = color.match(/[\d.]+/g).map(Number);
      return { r, g, b, a };
    };
    const over = (top, under) => {
      const mix = (key) => top.a * top[key] + (1 - top.a) * under[key];
      return { r: mix("r"), g: mix("g"), b: mix("b"), a: 1 };
    };
    const behind = (element) => {
      const layers = [];
      for (let one = element; one; one = one.parentElement) layers.push(parse(getComputedStyle(one).backgroundColor));
      const dark = getComputedStyle(document.documentElement).colorScheme.includes("dark");
      const page = dark ? { r: 18, g: 18, b: 18, a: 1 } : { r: 255, g: 255, b: 255, a: 1 };
      return layers.reverse().reduce((under, top) => over(top, under), page);
    };
    const light = ({ r, g, b }) => {
      const linear = (part) => (part / 255 <= 0.04045 ? part / 255 / 12.92 : ((part / 255 + 0.055) / 1.055) ** 2.4);
      return 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
    };
    const found = new Map();
    const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
      const element = texts.currentNode.parentElement;
      const text = texts.currentNode.textContent.trim();
      if (!text || element.closest("script, style, svg, mjx-container, noscript, [hidden], :disabled")) continue;
      if (!element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
      const style = getComputedStyle(element);
      const ground = behind(element);
      const [high, low] = [light(over(parse(style.color), ground)), light(ground)].sort((a, b) => b - a);
      const size = parseFloat(style.fontSize);
      const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
      const ratio = (high + 0.05) / (low + 0.05);
      if (ratio < (large ? 3 : 4.5) - 0.005) {
        const what = `${style.color} in ${element.tagName.toLowerCase()}.${element.className}`;
        if (!found.has(what)) found.set(what, `“${text.slice(0, 30)}” ${ratio.toFixed(2)} (${what})`);
      }
    }
    return [...found.values()];
  },

  // Pictures without words for those who do not see them; a picture that says nothing has an empty text.
  alternatives() {
    const images = [...document.querySelectorAll("img")];
    const bad = images.filter((one) => !one.hasAttribute("alt") || /\.(png|jpe?g|webp|svg)$/.test(one.alt)
      || (one.alt === "" && one.closest("figure, a, .cell_output")));
    const drawn = [...document.querySelectorAll("[role='img']:not([aria-label]), svg[aria-label='']")];
    return [...bad.map((one) => one.getAttribute("src").slice(0, 60)), ...drawn.map((one) => one.outerHTML.slice(0, 60))];
  },

  // What can be reached with the keyboard without a sign that it was; a key must have been pressed before.
  focus() {
    const looks = (one) => [one, one.parentElement, one.nextElementSibling].filter(Boolean).map((part) => {
      const style = getComputedStyle(part);
      const outline = style.outlineStyle === "none" ? "" : `${style.outlineWidth} ${style.outlineColor}`;
      const after = getComputedStyle(part, "::after").boxShadow;
      return [outline, style.boxShadow, style.borderColor, style.backgroundColor, style.textDecoration, after].join();
    }).join();
    const bad = [];
    for (const one of document.querySelectorAll("a[href], button, input, summary, select, [tabindex='0']")) {
      if (one.disabled || one.type === "hidden" || one.tabIndex < 0) continue;
      if (!one.checkVisibility({ visibilityProperty: true, opacityProperty: false })) continue;
      one.style.transition = "none";
      document.activeElement?.blur();
      const before = looks(one);
      one.focus({ preventScroll: true, focusVisible: true });
      if (document.activeElement === one && looks(one) === before) bad.push(one.outerHTML.slice(0, 80));
    }
    return bad;
  },
});
