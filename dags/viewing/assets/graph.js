// The graph of the stages: a box for each, laid out by what it has to wait for, and an arrow from each that it reads.
// Boxes stand in columns, one for each depth; where the page is too narrow for them, below each other in running order.
const LANE = 9, ROUND = 7, HEAD = 6;

// Arrows as {from, to, implied}; one is implied where the stage waits for another that has waited for the same.
const arrowsOf = (stages) => {
  const upstream = new Map(stages.map((stage) => [stage.name, stage.upstream]));
  const before = (name) => new Set((upstream.get(name) || []).flatMap((up) => [up, ...before(up)]));
  return stages.flatMap((stage) => stage.upstream.map((up) => ({
    from: up, to: stage.name, implied: stage.upstream.some((other) => other !== up && before(other).has(up)),
  })));
};

// Column and row of each stage: of those at one depth, the one that the next depth waits for comes first.
const placesOf = (stages) => {
  const depth = new Map(stages.map((stage) => [stage.name, stage.depth]));
  const next = (name) => Math.min(...stages.filter((stage) => stage.upstream.includes(name)).map((stage) => depth.get(stage.name)));
  return new Map(stages.map((stage) => {
    const beside = stages.filter((other) => other.depth === stage.depth).sort((a, b) => next(a.name) - next(b.name));
    return [stage.name, { column: stage.depth, row: beside.indexOf(stage) }];
  }));
};

// A path through corners, rounded, with the head of an arrow at its end; lines run along the axes.
const wire = (points) => {
  const toward = ([x, y], [u, v], by) => {
    const length = Math.hypot(u - x, v - y) || 1, share = Math.min(by, length / 2) / length;
    return [x + (u - x) * share, y + (v - y) * share];
  };
  const text = (point) => point.map((value) => value.toFixed(1)).join(" ");
  let d = `M${text(points[0])}`;
  points.slice(1, -1).forEach((corner, i) => {
    d += `L${text(toward(corner, points[i], ROUND))}Q${text(corner)} ${text(toward(corner, points[i + 2], ROUND))}`;
  });
  const end = points[points.length - 1], last = points[points.length - 2];
  const [x, y] = end, size = Math.hypot(x - last[0], y - last[1]) || 1;
  const [dx, dy] = [((x - last[0]) / size) * HEAD, ((y - last[1]) / size) * HEAD];
  d += `L${text(end)}M${text([x - dx - dy * 0.7, y - dy + dx * 0.7])}L${text(end)}L${text([x - dx + dy * 0.7, y - dy - dx * 0.7])}`;
  return d;
};

// Lanes of brackets beside a row of boxes, so that none lies upon another: [{low, high}] become numbers, the shortest nearest.
const lanesOf = (brackets) => {
  const lanes = [];
  const taken = new Map();
  for (const bracket of [...brackets].sort((a, b) => a.high - a.low - (b.high - b.low))) {
    const free = lanes.findIndex((held) => held.every((other) => other.high < bracket.low || bracket.high < other.low));
    const lane = free < 0 ? lanes.push([]) - 1 : free;
    lanes[lane].push(bracket);
    taken.set(bracket, lane);
  }
  return { lane: (bracket) => taken.get(bracket), count: lanes.length };
};

// Arrows that pass by other boxes, as brackets on one side of them; boxes lie along an axis with ends [low, high] there.
// Ends share a side: what arrives takes its first half, what leaves its second, in the order in which none crosses another.
const bracketsOf = (arrows, ends, order) => {
  const span = (arrow) => order.get(arrow.to) - order.get(arrow.from);
  const at = (name, share) => ends.get(name)[0] + share * (ends.get(name)[1] - ends.get(name)[0]);
  return arrows.map((arrow) => {
    const leaving = arrows.filter((other) => other.from === arrow.from).sort((a, b) => span(b) - span(a));
    const arriving = arrows.filter((other) => other.to === arrow.to).sort((a, b) => span(a) - span(b));
    return {
      arrow,
      low: at(arrow.from, 0.56 + (0.34 * (leaving.indexOf(arrow) + 0.5)) / leaving.length),
      high: at(arrow.to, 0.1 + (0.34 * (arriving.indexOf(arrow) + 0.5)) / arriving.length),
    };
  });
};

// Draws the arrows behind the boxes of `list`, whose items carry the stages' names; again whenever the boxes have moved.
const drawArrows = (list, stages) => {
  const holder = list.parentElement;
  const svg = holder.querySelector("svg") || holder.insertBefore(draw("svg", { "aria-hidden": "true" }), list);
  const nodes = new Map([...list.children].map((node) => [node.dataset.stage, node]));
  const box = (name) => {
    const node = nodes.get(name), [left, top] = [node.offsetLeft, node.offsetTop];
    const [right, bottom] = [left + node.offsetWidth, top + node.offsetHeight];
    return { left, top, right, bottom, x: (left + right) / 2, y: (top + bottom) / 2 };
  };
  const arrows = arrowsOf(stages), places = placesOf(stages), order = new Map(stages.map((stage, i) => [stage.name, i]));
  const wide = getComputedStyle(list).getPropertyValue("--wide").trim() === "1";
  const column = (name) => places.get(name).column, row = (name) => places.get(name).row;
  const beside = ({ from, to }) => (wide ? row(from) === row(to) && column(to) - column(from) === 1 : order.get(to) - order.get(from) === 1);
  const around = arrows.filter((arrow) => !beside(arrow) && (!wide || (row(arrow.from) === 0 && row(arrow.to) === 0)));
  const ends = () => new Map(stages.map(({ name }) => { const b = box(name); return [name, wide ? [b.left, b.right] : [b.top, b.bottom]]; }));
  // The boxes make room for the lanes first.
  const room = `${lanesOf(bracketsOf(around, ends(), order)).count * LANE + 8}px`;
  list.style.paddingTop = wide ? room : "";
  list.style.paddingLeft = wide ? "" : room;

  const brackets = bracketsOf(around, ends(), order), { lane } = lanesOf(brackets);
  const path = (arrow) => {
    const [from, to] = [box(arrow.from), box(arrow.to)];
    const bracket = brackets.find((each) => each.arrow === arrow);
    if (bracket && wide) {
      const y = Math.min(from.top, to.top) - (lane(bracket) + 1) * LANE;
      return wire([[bracket.low, from.top], [bracket.low, y], [bracket.high, y], [bracket.high, to.top]]);
    }
    if (bracket) {
      const x = Math.min(from.left, to.left) - (lane(bracket) + 1) * LANE;
      return wire([[from.left, bracket.low], [x, bracket.low], [x, bracket.high], [to.left, bracket.high]]);
    }
    if (!wide) return wire([[from.x, from.bottom], [to.x, to.top]]);
    if (row(arrow.from) < row(arrow.to)) return wire([[from.x, from.bottom], [from.x, to.y], [to.left, to.y]]);
    if (row(arrow.from) > row(arrow.to)) {
      const y = from.y + (arrow.implied ? 2 * LANE : 0);
      return wire([[from.right, y], [to.x, y], [to.x, to.bottom]]);
    }
    return wire([[from.right, from.y], [to.left, to.y]]);
  };
  const done = new Set(stages.filter((stage) => ["done", "skipped"].includes(stage.state)).map((stage) => stage.name));
  svg.replaceChildren(...arrows.sort((a, b) => b.implied - a.implied).map((arrow) =>
    draw("path", { class: `arrow${arrow.implied ? " implied" : ""}${done.has(arrow.from) ? " done" : ""}`, "data-from": arrow.from, "data-to": arrow.to, d: path(arrow) })));
};
