// What a person must be able to see and reach, measured on the page as it is rendered. Evaluates to an object of functions.
(() => {
  const FOCUSABLE = "a[href], button, input:not([type=hidden]), select, textarea, summary, [tabindex], [contenteditable=true], audio[controls], video[controls]";
  const COMPOSITE = "[role=tablist], [role=radiogroup], [role=toolbar], [role=grid], [role=listbox], [role=menu], [role=tree], [role=slider]";
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = 1;
  const brush = canvas.getContext("2d", { willReadFrequently: true });
  const known = new Map();

  const name = (element) => {
    const text = (element.getAttribute("aria-label") || element.textContent || "").trim().replace(/\s+/g, " ").slice(0, 40);
    const id = element.id ? `#${element.id}` : "";
    const kind = element.getAttribute("class") ? `.${element.getAttribute("class").trim().split(/\s+/).join(".")}` : "";
    return `<${element.tagName.toLowerCase()}${id}${kind}> "${text}"`;
  };

  // Red, green, blue in 0 to 255 and alpha in 0 to 1 of any colour that CSS can write.
  const colour = (text) => {
    if (!known.has(text)) {
      brush.clearRect(0, 0, 1, 1);
      brush.fillStyle = "#000";
      brush.fillStyle = text;
      brush.fillRect(0, 0, 1, 1);
      const [r, g, b, a] = brush.getImageData(0, 0, 1, 1).data;
      known.set(text, [r, g, b, a / 255]);
    }
    return known.get(text);
  };
  const over = ([r, g, b, a], below) => [r, g, b].map((value, i) => value * a + below[i] * (1 - a));
  const luminance = (rgb) => {
    const [r, g, b] = rgb.map((value) => value / 255).map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const contrast = (one, other) => {
    const [low, high] = [luminance(one), luminance(other)].sort((a, b) => a - b);
    return (high + 0.05) / (low + 0.05);
  };
  const visible = (element) => {
    if (!element.checkVisibility({ visibilityProperty: true, contentVisibilityAuto: true })) return false;
    const box = element.getBoundingClientRect();
    return box.width > 0 && box.height > 0;
  };
  // Grounds that may lie behind an element: one, or one for each colour of a gradient.
  const grounds = (element) => {
    const chain = [];
    for (let node = element; node; node = node.parentElement) chain.unshift(getComputedStyle(node));
    let found = [over(colour("Canvas"), [255, 255, 255])];
    for (const style of chain) {
      found = found.map((below) => over(colour(style.backgroundColor), below));
      const stops = style.backgroundImage.includes("gradient(") ? style.backgroundImage.match(/(?:rgba?|color|oklch|lab|hsl)\([^()]*\)/g) || [] : [];
      if (stops.length) found = stops.flatMap((stop) => found.map((below) => over(colour(stop), below)));
    }
    return found;
  };
  const opacity = (element) => {
    let value = 1;
    for (let node = element; node; node = node.parentElement) value *= Number(getComputedStyle(node).opacity);
    return value;
  };

  return {
    // Texts whose contrast to what is behind them is below `least`.
    faint(least) {
      const found = new Map();
      const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
      const range = document.createRange();
      while (walker.nextNode()) {
        const node = walker.currentNode, element = node.parentElement;
        if (!node.data.trim() || element.closest("script, style, option, noscript, :disabled, [aria-disabled=true]") || !visible(element)) continue;
        range.selectNodeContents(node);
        const box = range.getBoundingClientRect();
        if (box.width < 2 || box.height < 2 || box.right <= 0 || box.bottom + scrollY <= 0) continue;
        const style = getComputedStyle(element);
        const ink = [...colour(element instanceof SVGElement ? style.fill : style.color)];
        ink[3] *= opacity(element);
        const value = Math.min(...grounds(element).map((ground) => contrast(over(ink, ground), ground)));
        if (value < least) found.set(`${name(element)} ${value.toFixed(2)}:1`, true);
      }
      return [...found.keys()];
    },

    // What reaches beyond the right edge, where the page scrolls sideways.
    sideways() {
      const root = document.documentElement;
      if (root.scrollWidth <= root.clientWidth) return [];
      const wide = [...document.body.querySelectorAll("*")].filter((element) => {
        if (!visible(element) || element.getBoundingClientRect().right <= root.clientWidth + 0.5) return false;
        for (let node = element.parentElement; node && node !== document.body; node = node.parentElement) {
          if (getComputedStyle(node).overflowX !== "visible") return false;
        }
        return true;
      });
      return [`${root.scrollWidth} of ${root.clientWidth} px`, ...wide.slice(0, 5).map(name)];
    },

    repeated() {
      const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
      return [...new Set(ids.filter((id, i) => ids.indexOf(id) !== i))];
    },

    unfold() {
      for (const details of document.querySelectorAll("details:not([name])")) details.open = true;
    },

    // Begin to note what gets the focus; return how many steps of Tab are enough.
    listen() {
      window.reached = new Set();
      document.addEventListener("focusin", (event) => window.reached.add(event.target));
      document.activeElement?.blur();
      getSelection().removeAllRanges();
      scrollTo(0, 0);
      return document.querySelectorAll(FOCUSABLE).length + 3;
    },

    // Controls that can be seen and were not reached since `listen`.
    unreached() {
      const groups = new Set([...window.reached].filter((element) => element.type === "radio").map((element) => element.name));
      const missed = [...document.querySelectorAll(FOCUSABLE)].filter((element) => {
        if (!visible(element) || element.disabled || window.reached.has(element)) return false;
        if (element.closest("[inert]")) return false;
        if (element.type === "radio" && groups.has(element.name)) return false;
        if (element.tabIndex >= 0) return true;
        // Out of the order of Tab are only what scripts give the focus to, and members of a composite, which arrows reach.
        const composite = element.closest(COMPOSITE);
        if (composite) return ![...window.reached].some((other) => composite.contains(other));
        return element.matches("a[href], button, input, select, textarea, summary");
      });
      return missed.map(name);
    },
  };
})()
