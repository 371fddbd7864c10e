// Maps: a viewer keeps its fields packed until they are asked for, and repaints its canvases at each step of the slider.
const WIDTH = 840, SPACING = 35, MISSING = 255;
const GREY = 0x73a09a98; // Half transparent, as ABGR: on light and on dark alike.
const calm = matchMedia("(prefers-reduced-motion: reduce)");

const text = (value, digits) => value.toFixed(digits).replace("-", "−");
const leadName = (hours) => (hours < 24 ? `${hours} hour${hours === 1 ? "" : "s"}` : `${Number((hours / 24).toFixed(2))} day${hours === 24 ? "" : "s"}`);

const range = (values) => {
  let low = Infinity, high = -Infinity;
  for (const value of values) { if (value < low) low = value; if (value > high) high = value; }
  return [low, high];
};

// Bytes of a field, from base64, zlib and differences from the western neighbour.
async function unpack(id, columns) {
  const packed = Uint8Array.from(atob(document.getElementById(id).textContent), (c) => c.charCodeAt(0));
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate"));
  const codes = new Uint8Array(await new Response(stream).arrayBuffer());
  for (let i = 0; i < codes.length; i += columns) for (let j = i + 1; j < i + columns; j++) codes[j] += codes[j - 1];
  return codes;
}

// A grid refined so that straight lines between its points look smooth. Cubic through the given points (Catmull-Rom),
// never beyond their range, round the circle and across the poles, where a wind changes sign; linear where values are
// missing.
class Refinement {
  constructor(rows, columns, poles) {
    Object.assign(this, { rows, columns, poles });
    this.times = Math.max(1, Math.ceil(256 / columns));
    this.height = (rows - 1) * this.times + 1;
    this.width = columns * this.times + 1;
    const weights = (cubic) => Array.from({ length: this.times }, (_, k) => {
      const t = k / this.times;
      return cubic ? [t * (-1 + t * (2 - t)) / 2, (2 + t * t * (-5 + 3 * t)) / 2, t * (1 + t * (4 - 3 * t)) / 2, t * t * (t - 1) / 2] : [0, 1 - t, t, 0];
    });
    this.kernels = { cubic: weights(true), linear: weights(false) };
  }

  // The values at the points that were given.
  given(refined) {
    const values = new Float32Array(this.rows * this.columns);
    for (let y = 0, p = 0; y < this.rows; y++)
      for (let x = 0; x < this.columns; x++, p++) values[p] = refined[(y * this.width + x) * this.times];
    return values;
  }

  refined(values, sign) {
    const { rows, columns, times, height, width } = this;
    const kernel = this.kernels[values.some(Number.isNaN) ? "linear" : "cubic"];
    const tall = new Float32Array(height * columns), out = new Float32Array(height * width);
    const [low, high] = range(values), half = columns >> 1, edge = this.poles ? 0 : 1;
    for (let y = 0; y < height; y++) {
      const base = Math.floor(y / times), weight = kernel[y % times];
      for (let k = 0; k < 4; k++) {
        const w = weight[k];
        if (w === 0) continue;
        let row = base + k - 1, across = false;
        if (row < 0) { row = -row - edge; across = true; }
        if (row >= rows) { row = 2 * rows - 2 + edge - row; across = true; }
        const factor = across ? w * sign : w;
        for (let x = 0; x < columns; x++) tall[y * columns + x] += factor * values[row * columns + (across ? (x + half) % columns : x)];
      }
    }
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        const base = Math.floor(x / times), weight = kernel[x % times];
        let sum = 0;
        for (let k = 0; k < 4; k++) if (weight[k] !== 0) sum += weight[k] * tall[y * columns + ((base + k - 1 + columns) % columns)];
        out[y * width + x] = sum < low ? low : sum > high ? high : sum;
      }
    }
    return out;
  }
}

// Where each pixel of a picture lies on the refined grid, made once for a projection and a size.
function lookup(projection, grid, spec, width, height) {
  const [hx, hy] = projection.extent;
  const index = new Int32Array(width * height).fill(-1);
  const right = new Float32Array(width * height), up = new Float32Array(width * height);
  for (let j = 0, p = 0; j < height; j++) {
    for (let i = 0; i < width; i++, p++) {
      // Colour reaches under the rim.
      const place = projection.inverse(((i + 0.5) / width * 2 - 1) * hx, (1 - (j + 0.5) / height * 2) * hy, 1.2 / width);
      if (!place) continue;
      const [x, y] = gridPosition(grid, spec, ...place);
      const column = Math.min(Math.floor(x), grid.width - 2), row = Math.min(Math.floor(y), grid.height - 2);
      index[p] = row * grid.width + column;
      right[p] = x - column;
      up[p] = y - row;
    }
  }
  return { width, height, index, right, up };
}

function gridPosition(grid, spec, longitude, latitude) {
  const x = ((((longitude - spec.longitude) % 360) + 360) % 360) / 360 * (grid.width - 1);
  const rows = spec.latitude;
  let low = 0, high = rows.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (rows[middle] <= latitude) low = middle; else high = middle;
  }
  const part = Math.min(1, Math.max(0, (latitude - rows[low]) / (rows[high] - rows[low])));
  return [x, (low + part) * grid.times];
}

const between = (field, i, right, up, width) => {
  const south = field[i] + (field[i + 1] - field[i]) * right;
  const north = field[i + width] + (field[i + width + 1] - field[i + width]) * right;
  return south + (north - south) * up;
};

function sampleAt(field, grid, spec, longitude, latitude) {
  const [x, y] = gridPosition(grid, spec, longitude, latitude);
  const column = Math.min(Math.floor(x), grid.width - 2), row = Math.min(Math.floor(y), grid.height - 2);
  return between(field, row * grid.width + column, x - column, y - row, grid.width);
}

// Colours of a scale as a table finer than its bands, so that the edges of bands are softened.
const FINE = 24;
function colourTable(scale) {
  const rgb = scale.colours.map((hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)));
  const table = new Uint32Array(rgb.length * FINE);
  for (let i = 0; i < table.length; i++) {
    const band = Math.floor(i / FINE), within = (i % FINE + 0.5) / FINE;
    const soft = 0.06;
    const other = within < soft ? Math.max(0, band - 1) : within > 1 - soft ? Math.min(rgb.length - 1, band + 1) : band;
    const share = other === band ? 0 : 0.5 * (1 - Math.min(within, 1 - within) / soft);
    const [r, g, b] = rgb[band].map((c, k) => Math.round(c + (rgb[other][k] - c) * share));
    table[i] = (255 << 24) | (b << 16) | (g << 8) | r;
  }
  return table;
}

function paint(canvas, field, places, grid, scale, table) {
  if (canvas.width !== places.width || canvas.height !== places.height) {
    canvas.width = places.width;
    canvas.height = places.height;
  }
  const context = canvas.getContext("2d");
  const image = context.createImageData(places.width, places.height);
  const pixels = new Uint32Array(image.data.buffer);
  const { index, right, up } = places, width = grid.width, last = table.length - 1;
  const factor = FINE / scale.step, start = scale.start;
  for (let p = 0; p < index.length; p++) {
    const i = index[p];
    if (i < 0) continue;
    const value = between(field, i, right[p], up[p], width);
    if (value !== value) { pixels[p] = GREY; continue; }
    const at = (value - start) * factor;
    pixels[p] = table[at <= 0 ? 0 : at >= last ? last : at | 0];
  }
  context.putImageData(image, 0, 0);
}

class Viewer {
  constructor(root) {
    this.root = root;
    this.name = root.id;
    this.spec = read(`${this.name}-data`);
    const [starts, leads, rows, columns] = this.spec.shape;
    Object.assign(this, { starts, leads, rows, columns });
    this.grid = new Refinement(rows, columns, this.spec.poles);
    this.unpacked = new Map();
    [this.start, this.lead] = this.spec.shown;
    this.field = 0;
    this.point = null;
    this.control = (part) => document.getElementById(`${this.name}-${part}`);
    this.heading = root.querySelector(".pane-title");
    this.reading = this.control("reading");
    this.output = root.querySelector("output");
    this.panels = [...root.querySelectorAll(".map")].map((figure) => ({
      figure, note: figure.querySelector("figcaption span"), picture: figure.querySelector(".picture"), svg: figure.querySelector("svg"),
    }));
    this.listen();
    this.choose();
  }

  listen() {
    const { control } = this;
    control("field").addEventListener("change", () => this.choose());
    control("start")?.addEventListener("change", (event) => { this.start = Number(event.target.value); this.show(); });
    control("projection").addEventListener("change", (event) => { this.project(event.target.value); this.show(); });
    control("lead").addEventListener("input", (event) => { this.lead = Number(event.target.value); this.show(); });
    control("play").addEventListener("click", () => (this.timer ? this.stop() : this.play()));
    const maps = this.root.querySelector(".maps");
    maps.tabIndex = 0;
    maps.setAttribute("role", "group");
    maps.setAttribute("aria-label", "Maps. The arrow keys move a point whose values are read out.");
    maps.addEventListener("keydown", (event) => this.step(event));
    for (const panel of this.panels) {
      const follow = (event) => this.pick(panel, event);
      panel.picture.addEventListener("pointermove", follow);
      panel.picture.addEventListener("pointerdown", follow);
    }
    let asked = false;
    new ResizeObserver(() => {
      if (asked) return;
      asked = true;
      requestAnimationFrame(() => { asked = false; if (this.ready && this.fit()) this.show(); });
    }).observe(this.root);
  }

  // The first choice takes over from the still pictures; later ones unpack a field and draw it.
  async choose() {
    const number = Number(this.control("field").value);
    const spec = this.spec.fields[number];
    this.wanted = number;
    if (!this.unpacked.has(number)) this.unpacked.set(number, await unpack(`${this.name}-${number}`, this.columns));
    if (this.wanted !== number) return;
    this.field = number;
    this.tables = spec.scales.map(colourTable);
    for (const bars of this.root.querySelectorAll(".of-field")) bars.hidden = Number(bars.dataset.field) !== number;
    this.panels.forEach((panel, i) => { panel.figure.hidden = spec.drawn ? !spec.drawn[i] : false; });
    this.root.querySelector(".maps").dataset.count = this.seen().length;
    if (!this.ready) {
      this.replaceStills();
      this.project(this.control("projection").value);
      this.ready = true;
    }
    this.show();
  }

  // Maps that the field has.
  seen() {
    return this.panels.filter((panel) => !panel.figure.hidden);
  }

  replaceStills() {
    for (const panel of this.panels) {
      panel.canvas = document.createElement("canvas");
      panel.canvas.setAttribute("aria-hidden", "true");
      panel.picture.prepend(panel.canvas);
      for (const old of panel.svg.querySelectorAll("image, .ground, .arrows")) old.remove();
      panel.rim = panel.svg.querySelector(".rim");
      panel.arrows = draw("path", { class: "arrows" });
      panel.key = draw("g", { class: "arrow-key" });
      panel.mark = draw("circle", { class: "mark", r: 9, hidden: "" });
      panel.svg.append(panel.arrows, panel.key, panel.mark);
      panel.own = { coast: panel.svg.querySelector(".coast"), graticule: panel.svg.querySelector(".graticule"), rim: panel.rim };
    }
  }

  // Lines of a projection: those of Equal Earth are in the page, others are drawn when they are first asked for.
  project(name) {
    this.projection = PROJECTIONS[name];
    const [hx, hy] = this.projection.extent;
    this.height = Math.round((WIDTH * hy) / hx);
    const paths = name === "equal-earth" ? null : projectedLines(name, this.projection, this.height);
    for (const panel of this.panels) {
      panel.svg.setAttribute("viewBox", `-2 -2 ${WIDTH + 4} ${this.height + 4}`);
      panel.lines?.remove();
      for (const line of Object.values(panel.own)) line.style.display = paths ? "none" : "";
      if (paths) {
        panel.lines = draw("g", {});
        for (const [kind, d] of Object.entries(paths)) panel.lines.append(draw("path", { class: kind, d }));
        panel.arrows.before(panel.lines);
      }
    }
    this.places = null;
    this.anchors = null;
    this.fit();
  }

  // Pixels as fine as the screen shows them; true where that changed.
  fit() {
    const shown = this.seen()[0].picture.clientWidth * (WIDTH / (WIDTH + 4));
    const width = Math.max(120, Math.min(WIDTH, Math.round(shown * Math.min(2, devicePixelRatio || 1))));
    if (this.places?.width === width) return false;
    this.places = lookup(this.projection, this.grid, this.spec, width, Math.round((width * this.height) / WIDTH));
    return true;
  }

  // The fields of a step, refined: of each array its components, then of each panel what is coloured and its wind.
  frame() {
    const spec = this.spec.fields[this.field], codes = this.unpacked.get(this.field);
    const points = this.rows * this.columns, block = this.starts * this.leads * points;
    const from = (this.start * this.leads + this.lead) * points;
    let offset = 0;
    const arrays = {};
    for (const array of spec.arrays) {
      arrays[array.name] = array.low.map((low, i) => {
        const values = new Float32Array(points), step = array.step[i];
        for (let p = 0, q = offset + from; p < points; p++, q++) values[p] = codes[q] === MISSING ? NaN : low + step * codes[q];
        offset += block;
        return this.grid.refined(values, spec.wind ? -1 : 1);
      });
    }
    if (this.spec.kind !== "forecast") return spec.arrays.map((array) => ({ values: arrays[array.name][0] }));
    const { forecast, difference } = arrays;
    const truth = forecast.map((values, i) => values.map((value, p) => value - difference[i][p]));
    if (!spec.wind) return [forecast, truth, difference].map(([values]) => ({ values }));
    const [f, t] = [forecast, truth].map(([u, v]) => u.map((value, p) => Math.hypot(value, v[p])));
    return [{ values: f, wind: forecast }, { values: t, wind: truth }, { values: f.map((value, p) => value - t[p]), wind: difference }];
  }

  show() {
    if (!this.ready) return;
    const spec = this.spec.fields[this.field];
    this.frames = this.frame();
    this.panels.forEach((panel, i) => {
      paint(panel.canvas, this.frames[i].values, this.places, this.grid, spec.scales[i], this.tables[i]);
      panel.arrows.setAttribute("d", this.frames[i].wind ? this.arrowPaths(this.frames[i].wind, spec.references[i]) : "");
      this.drawKey(panel, this.frames[i].wind ? `${spec.references[i]} ${spec.units[i]}` : "");
    });
    this.tell(spec);
    this.read();
  }

  tell(spec) {
    const hours = this.spec.leads[this.lead], ahead = leadName(hours);
    const valid = this.spec.times ? `valid ${this.spec.times[this.start][this.lead]}` : "";
    const slider = this.control("lead");
    slider.value = this.lead;
    slider.setAttribute("aria-valuetext", valid ? `${ahead}, ${valid}` : ahead);
    this.output.textContent = ahead;
    const span = document.createElement("span");
    const count = this.spec.samples?.[this.lead];
    const over = count === undefined ? "" : `, ${count} forecast${count === 1 ? "" : "s"}`;
    span.textContent = valid ? `${ahead}, ${valid}` : `${ahead} ahead${over}`;
    this.heading.replaceChildren(spec.label, span);
    this.panels.forEach((panel, i) => {
      const title = this.spec.panels[i], [low, high] = range(this.grid.given(this.frames[i].values));
      const values = low > high ? "no values" : `${text(low, this.digits(i))} to ${text(high, this.digits(i))} ${spec.units[i]}`;
      const label = `${title}: ${spec.label}, ${ahead}${valid ? ` forecast ${valid}` : ""}; ${values}`;
      panel.svg.setAttribute("aria-label", label);
      panel.svg.querySelector("title").textContent = label;
      panel.note.textContent = this.note(i, low > high, values);
    });
  }

  note(i, empty, values) {
    if (this.spec.kind !== "forecast") return values;
    if (i === 0) return `from ${this.spec.starts[this.start]}`;
    if (i === 1) return empty ? "no truth at this time" : `valid ${this.spec.times[this.start][this.lead]}`;
    const error = this.spec.fields[this.field].errors[this.start][this.lead];
    return error === null ? "" : `RMSE ${String(error).replace("-", "−")} ${this.spec.fields[this.field].units[i]}`;
  }

  digits(i) {
    return Math.max(0, Math.ceil(-Math.log10(this.spec.fields[this.field].scales[i].step / 5)));
  }

  // Points of arrows with the pictures of a degree east and a degree north there, for one projection.
  makeAnchors() {
    const [hx, hy] = this.projection.extent, scale = WIDTH / (2 * hx), { height } = this;
    const rows = Math.floor(height / SPACING), columns = Math.floor(WIDTH / SPACING);
    const pixel = ([x, y]) => [(x + hx) * scale, (hy - y) * scale];
    this.anchors = [];
    for (let j = 0; j < rows; j++) {
      for (let i = 0; i < columns; i++) {
        const x = (i + 0.5) * WIDTH / columns, y = (j + 0.5) * height / rows;
        const place = this.projection.inverse(x / scale - hx, hy - y / scale);
        if (!place || Math.abs(place[1]) > 84) continue;
        const [longitude, latitude] = place, small = 0.25 / Math.cos(latitude * Math.PI / 180);
        const east = pixel(this.projection.forward(longitude + small, latitude)), north = pixel(this.projection.forward(longitude, latitude + 0.25));
        const anchor = { longitude, latitude, x, y, east: [east[0] - x, east[1] - y], north: [north[0] - x, north[1] - y] };
        if (Math.hypot(...anchor.east) < SPACING && Math.hypot(...anchor.north) < SPACING) this.anchors.push(anchor);
      }
    }
  }

  arrowPaths([u, v], reference) {
    if (!this.anchors) this.makeAnchors();
    let path = "";
    for (const a of this.anchors) {
      const [east, north] = [u, v].map((component) => sampleAt(component, this.grid, this.spec, a.longitude, a.latitude));
      const speed = Math.hypot(east, north), reach = SPACING * Math.min(1.5, speed / reference);
      if (!(reach > 3)) continue;
      const tx = east * a.east[0] + north * a.north[0], ty = east * a.east[1] + north * a.north[1];
      const size = reach / Math.hypot(tx, ty);
      path += arrow(a.x, a.y, tx * size, ty * size);
    }
    return path;
  }

  drawKey(panel, label) {
    panel.key.replaceChildren();
    if (!label) return;
    const d = arrow(2 + SPACING / 2, this.height - 36, SPACING, 0);
    panel.key.append(draw("path", { class: "halo", d }), draw("path", { d }), draw("text", { x: 0, y: this.height - 6 }, label));
  }

  pick(panel, event) {
    const box = panel.svg.getBoundingClientRect(), unit = (WIDTH + 4) / box.width, [hx, hy] = this.projection.extent;
    const scale = WIDTH / (2 * hx);
    const x = (event.clientX - box.left) * unit - 2, y = (event.clientY - box.top) * unit - 2;
    const place = this.projection.inverse(x / scale - hx, hy - y / scale);
    if (place) { this.point = place; this.read(); }
  }

  step(event) {
    const moves = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    if (event.key === "Escape") this.point = null;
    else if (moves[event.key]) {
      const [dx, dy] = moves[event.key], degrees = Math.max(1, 360 / this.columns);
      const [longitude, latitude] = this.point ?? [0, 45];
      const to = this.point ? [longitude + dx * degrees, Math.max(-89, Math.min(89, latitude + dy * degrees))] : [longitude, latitude];
      this.point = [(to[0] + 540) % 360 - 180, to[1]];
    } else return;
    event.preventDefault();
    this.read();
  }

  read() {
    const [hx, hy] = this.projection.extent, scale = WIDTH / (2 * hx), spec = this.spec.fields[this.field];
    for (const panel of this.panels) panel.mark.toggleAttribute("hidden", !this.point);
    if (!this.point) {
      this.reading.textContent = "Point at a map, or move to the maps with Tab and use the arrow keys, to read its values.";
      return;
    }
    const [longitude, latitude] = this.point, [x, y] = this.projection.forward(longitude, latitude);
    const values = this.seen().map((panel) => {
      const i = this.panels.indexOf(panel);
      panel.mark.setAttribute("cx", (x + hx) * scale);
      panel.mark.setAttribute("cy", (hy - y) * scale);
      const value = sampleAt(this.frames[i].values, this.grid, this.spec, longitude, latitude);
      return `${this.spec.panels[i].toLowerCase()} ${Number.isNaN(value) ? "–" : `${text(value, this.digits(i))} ${spec.units[i]}`}`;
    });
    const place = `${Math.abs(latitude).toFixed(1)}° ${latitude < 0 ? "S" : "N"} ${Math.abs(longitude).toFixed(1)}° ${longitude < 0 ? "W" : "E"}`;
    this.reading.textContent = `${place}: ${values.join(", ")}`;
  }

  // With reduced motion the steps are slow and end at the last lead instead of starting over.
  play() {
    if (this.lead === this.leads - 1) { this.lead = 0; this.show(); }
    const advance = () => {
      if (this.lead === this.leads - 1 && calm.matches) return this.stop();
      this.lead = (this.lead + 1) % this.leads;
      this.show();
      this.timer = setTimeout(advance, calm.matches ? 2000 : this.lead === this.leads - 1 ? 1200 : 400);
    };
    this.timer = setTimeout(advance, 200);
    this.label("Pause");
  }

  stop() {
    clearTimeout(this.timer);
    this.timer = null;
    this.label("Play");
  }

  label(word) {
    const button = this.control("play");
    button.textContent = word;
    button.classList.toggle("playing", word === "Pause");
    button.setAttribute("aria-label", `${word} the lead times`);
  }
}

const arrow = (x, y, dx, dy) => {
  const x1 = x + dx / 2, y1 = y + dy / 2, hx = dx * 0.34, hy = dy * 0.34, n = (value) => value.toFixed(1);
  return `M${n(x - dx / 2)} ${n(y - dy / 2)}L${n(x1)} ${n(y1)}M${n(x1 - hx - hy * 0.6)} ${n(y1 - hy + hx * 0.6)}L${n(x1)} ${n(y1)}L${n(x1 - hx + hy * 0.6)} ${n(y1 - hy - hx * 0.6)}`;
};

// Coast, graticule and rim of a projection as paths; a line breaks where it would cross the picture.
const projected = new Map();
function projectedLines(name, projection, height) {
  if (projected.has(name)) return projected.get(name);
  const [hx, hy] = projection.extent, scale = WIDTH / (2 * hx);
  const path = (line) => {
    let d = "", before = null;
    for (const [longitude, latitude] of line) {
      const [x, y] = projection.forward(longitude, latitude), side = projection.sides(longitude, latitude);
      const px = (x + hx) * scale, py = (hy - y) * scale;
      const joined = before && (before.side === side || Math.hypot(px - before.px, py - before.py) < 60);
      d += `${joined ? "L" : "M"}${px.toFixed(1)} ${py.toFixed(1)}`;
      before = { side, px, py };
    }
    return d;
  };
  const coast = read("coastlines").map((steps) => {
    let [longitude, latitude] = [0, 0];
    const line = [];
    for (let i = 0; i < steps.length; i += 2) line.push([(longitude += steps[i]) / 10, (latitude += steps[i + 1]) / 10]);
    return path(line);
  }).join("");
  const along = (from, to, step, point) => Array.from({ length: Math.round((to - from) / step) + 1 }, (_, k) => point(from + k * step));
  const meridians = along(-180, 120, 60, (longitude) => path(along(-90, 90, 3, (latitude) => [longitude, latitude])));
  const parallels = [-60, -30, 0, 30, 60].map((latitude) => path(along(-180, 179.9, 1, (longitude) => [longitude, latitude])));
  const circle = (x) => `M${(x - Math.SQRT2 + hx) * scale} ${height / 2}a${Math.SQRT2 * scale} ${Math.SQRT2 * scale} 0 1 0 ${2 * Math.SQRT2 * scale} 0a${Math.SQRT2 * scale} ${Math.SQRT2 * scale} 0 1 0 ${-2 * Math.SQRT2 * scale} 0`;
  const rim = name === "hemispheres" ? circle(-hx / 2 - 0.03) + circle(hx / 2 + 0.03) : `M0 0H${WIDTH}V${height}H0Z`;
  projected.set(name, { graticule: meridians.join("") + parallels.join(""), coast, rim });
  return projected.get(name);
}

for (const root of document.querySelectorAll(".map-viewer")) new Viewer(root);
