const niceStep = (range, count) => {
  const raw = range / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  return power * [1, 2, 2.5, 5, 10].find((m) => m * power >= raw * (1 - 1e-9));
};
const linearTicks = (low, high, count) => {
  const step = niceStep(high - low || 1, count);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + step * 1e-9; i++) ticks.push(Number((i * step).toPrecision(12)));
  return ticks;
};
const logTicks = (low, high) => {
  const all = [];
  for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e++)
    for (const m of [1, 2, 5]) all.push(Number((m * 10 ** e).toPrecision(3)));
  const within = all.filter((t) => t >= low && t <= high);
  return within.length > 2 ? within : linearTicks(low, high, 5);
};
const leadTicks = (low, high, width) => {
  const most = Math.max(2, Math.floor(width / 44));
  const step = [1, 3, 6, 12, 24, 48, 72, 120, 240].find((s) => (high - low) / s <= most && s >= (high > 72 ? 24 : high > 24 ? 12 : 1)) || 480;
  const ticks = [];
  for (let t = Math.ceil(low / step) * step; t <= high; t += step) ticks.push(t);
  return ticks;
};

// One chart. spec: title, units, height, lines [{name, css, points: [[x, y or null]], band: [[x, low, high]], dots}], log, xText,
// endLabels, legend, leads (x is hours), floor, ceiling and rule on the y axis, shades [[from, to, text]] across which lines
// break, marks [[x, text]], absent.
function plot(spec) {
  const figure = make("figure", { class: "plot" });
  const caption = make("figcaption", {}, [make("b", {}, spec.title), spec.units ? `, ${spec.units}` : ""]);
  figure.append(caption);
  const lines = spec.lines.filter((line) => line.points.some(([, y]) => y !== null && (!spec.log || y > 0)));
  if (!lines.length) {
    figure.append(make("p", { class: "note" }, spec.absent || "There is no such score."));
    return figure;
  }
  const holder = make("div", { style: `height:${spec.height}px` });
  const tip = make("div", { class: "tip", hidden: "" });
  if (spec.legend) figure.append(make("ul", { class: "legend" }, lines.map((line) => make("li", { class: line.css }, [make("i", { class: `line ${line.css}`, "aria-hidden": "true" }), line.name]))));
  figure.append(holder, tip);
  const xs = [...new Set(lines.flatMap((line) => line.points.filter(([, y]) => y !== null).map(([x]) => x)))].sort((a, b) => a - b);
  const values = lines.flatMap((line) => [...line.points.map(([, y]) => y), ...(line.band || []).flatMap(([, a, b]) => [a, b])]).filter((y) => y !== null && (!spec.log || y > 0));
  let low = Math.min(...values), high = Math.max(...values);
  if (spec.floor !== undefined) low = Math.min(low, spec.floor);
  if (spec.ceiling !== undefined) high = Math.max(high, spec.ceiling);
  if (spec.log) { low /= 1.15; high *= 1.15; }
  else if (high - low < 1e-12) { high += Math.abs(high) || 1; }
  const describe = lines.map((line) => {
    const there = line.points.filter(([, y]) => y !== null);
    const [a, b] = [there[0], there[there.length - 1]];
    return `${line.name} ${number(a[1])} at ${spec.xText(a[0])}, ${number(b[1])} at ${spec.xText(b[0])}`;
  });
  const breaks = (spec.shades || []).slice(1).map(([from]) => from); // Losses of different stages do not compare.
  const label = `${spec.title}${spec.units ? ` in ${spec.units}` : ""}: ${describe.join("; ")}`;

  const render = () => {
    const width = Math.max(240, holder.clientWidth), height = spec.height;
    const box = { left: 50, right: width - (spec.endLabels ? 96 : 12), top: spec.shades ? 24 : 12, bottom: height - 24 };
    const span = xs[xs.length - 1] - xs[0] || 1;
    const ticks = spec.log ? logTicks(low, high) : linearTicks(low, high, Math.max(3, height / 34));
    const top = spec.log ? high : Math.max(high, ticks[ticks.length - 1]);
    const scale = spec.log ? Math.log : (v) => v;
    const px = (x) => box.left + ((x - xs[0]) / span) * (box.right - box.left);
    const py = (y) => box.bottom - ((scale(y) - scale(low)) / (scale(top) - scale(low))) * (box.bottom - box.top);
    const svg = draw("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "img", "aria-label": label, tabindex: 0 }, []);
    (spec.shades || []).forEach(([from, to, text], i) => {
      const [a, b] = [px(Math.max(from, xs[0])), px(Math.min(to, xs[xs.length - 1]))];
      if (i % 2) svg.append(draw("rect", { class: "shade", x: a, y: box.top, width: Math.max(0, b - a), height: box.bottom - box.top }));
      if (b - a > 8 * text.length) svg.append(draw("text", { x: (a + b) / 2, y: box.top - 8, "text-anchor": "middle" }, text));
      if (i) svg.append(draw("line", { class: "rule", x1: a, x2: a, y1: box.top, y2: box.bottom }));
    });
    for (const t of ticks) {
      svg.append(draw("line", { class: "grid", x1: box.left, x2: box.right, y1: py(t), y2: py(t) }));
      svg.append(draw("text", { x: box.left - 7, y: py(t) + 4, "text-anchor": "end" }, number(t)));
    }
    const xTicks = spec.leads ? leadTicks(xs[0], xs[xs.length - 1], box.right - box.left) : linearTicks(xs[0], xs[xs.length - 1], Math.max(2, (box.right - box.left) / 70));
    for (const t of xTicks) svg.append(draw("text", { x: px(t), y: box.bottom + 18, "text-anchor": "middle" }, spec.leads ? leadText(t) : String(t)));
    svg.append(draw("line", { class: "base", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }));
    if (spec.rule !== undefined && spec.rule > low && spec.rule < top)
      svg.append(draw("line", { class: "rule", x1: box.left, x2: box.right, y1: py(spec.rule), y2: py(spec.rule) }));

    // Bands first, all lines above them.
    for (const line of lines) {
      const band = (line.band || []).filter(([, a]) => !spec.log || a > 0);
      if (band.length < 2) continue;
      const edge = [...band.map(([x, , b]) => [x, b]), ...[...band].reverse().map(([x, a]) => [x, a])];
      svg.append(draw("path", { class: `band ${line.css}`, d: `M${edge.map(([x, y]) => `${px(x).toFixed(1)} ${py(y).toFixed(1)}`).join("L")}Z` }));
    }
    for (const [x, text] of spec.marks || []) {
      svg.append(draw("line", { class: "event", x1: px(x), x2: px(x), y1: box.top, y2: box.bottom }, draw("title", {}, text)));
      svg.append(draw("text", { class: "event-text", x: px(x) + 4, y: box.bottom - 6 }, text));
    }
    const ends = [];
    for (const line of [...lines].reverse()) {
      let path = "", pen = false;
      const dots = [];
      line.points.forEach(([x, y], i) => {
        if (y === null || (spec.log && y <= 0)) { pen = false; return; }
        if (i && breaks.some((at) => line.points[i - 1][0] < at && at <= x)) pen = false;
        path += `${pen ? "L" : "M"}${px(x).toFixed(1)} ${py(y).toFixed(1)}`;
        const alone = !pen && (i + 1 >= line.points.length || line.points[i + 1][1] === null);
        if (alone || line.dots) dots.push(draw("circle", { class: "dot", cx: px(x), cy: py(y), r: 3.5 }));
        pen = true;
      });
      svg.append(draw("g", { class: line.css }, [draw("path", { class: "curve-line", d: path }), ...dots]));
      const last = line.points.filter(([, y]) => y !== null).pop();
      ends.push({ name: line.name, css: line.css, x: px(last[0]), y: py(last[1]) });
    }
    if (spec.endLabels) {
      // Labels at the edge share a column and must not overlap; a line that ends early has its own by its end.
      const column = ends.filter((end) => end.x > box.right - 60).sort((a, b) => a.y - b.y);
      column.forEach((end, i) => { end.y = Math.max(end.y, i ? column[i - 1].y + 14 : box.top); });
      for (let i = column.length - 1, limit = box.bottom; i >= 0; i--, limit = column[i + 1].y - 14) column[i].y = Math.min(column[i].y, limit);
      for (const end of ends) {
        const x = column.includes(end) ? box.right + 8 : end.x + 8;
        svg.append(draw("text", { class: `end ${end.css}`, x, y: end.y + 4 }, end.name.length > 14 ? `${end.name.slice(0, 13)}…` : end.name));
      }
    }
    const cursor = draw("g", {});
    svg.append(cursor);
    holder.replaceChildren(svg);

    let at = -1;
    const show = (index) => {
      at = index;
      cursor.replaceChildren();
      tip.hidden = index < 0;
      if (index < 0) return;
      const x = xs[index];
      cursor.append(draw("line", { class: "cursor", x1: px(x), x2: px(x), y1: box.top, y2: box.bottom }));
      const rows = [make("b", {}, spec.xText(x))];
      for (const line of lines) {
        const point = line.points.find(([px0]) => px0 === x);
        if (!point) continue;
        rows.push(make("span", { class: line.css }, [make("i", {}, line.name), make("span", {}, number(point[1]))]));
        if (point[1] !== null && (!spec.log || point[1] > 0))
          cursor.append(draw("g", { class: line.css }, draw("circle", { class: "dot", cx: px(x), cy: py(point[1]), r: 4.5 })));
      }
      tip.replaceChildren(...rows);
      const left = px(x) + 14 + tip.offsetWidth > width ? px(x) - 14 - tip.offsetWidth : px(x) + 14;
      tip.style.left = `${Math.max(0, left)}px`;
      tip.style.top = `${holder.offsetTop + box.top}px`;
    };
    const nearest = (event) => {
      const bounds = svg.getBoundingClientRect();
      const x = xs[0] + (((event.clientX - bounds.left) * width) / bounds.width - box.left) / (box.right - box.left) * span;
      let best = 0;
      xs.forEach((value, i) => { if (Math.abs(value - x) < Math.abs(xs[best] - x)) best = i; });
      show(best);
    };
    svg.addEventListener("pointermove", nearest);
    svg.addEventListener("pointerdown", nearest);
    svg.addEventListener("pointerleave", () => show(-1));
    svg.addEventListener("blur", () => show(-1));
    svg.addEventListener("keydown", (event) => {
      const to = { ArrowLeft: Math.max(0, at - 1), ArrowRight: Math.min(xs.length - 1, at + 1), Home: 0, End: xs.length - 1, Escape: -1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      show(to);
    });
  };
  let drawn = 0;
  figure.fit = () => {
    if (holder.clientWidth && holder.clientWidth !== drawn) { drawn = holder.clientWidth; render(); }
  };
  new ResizeObserver(figure.fit).observe(holder);
  return figure;
}

// A chart is drawn at the width it is shown at, so it must be on the page first.
const place = (parent, figures) => {
  parent.replaceChildren(...figures);
  for (const figure of figures) figure.fit?.();
};
