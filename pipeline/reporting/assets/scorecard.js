const card = document.getElementById("scorecard-table");
if (scores && card) {
  const COARSE = [-60, -40, -20, 0, 20, 40, 60];
  const FINE = [-10, -5, -2, 0, 2, 5, 10];
  const COLOURS = ["g4", "g3", "g2", "g1", "b1", "b2", "b3", "b4"];
  const control = (name) => document.getElementById(`card-${name}`);
  const rmse = scores.metrics.indexOf("rmse");
  const indexOf = (name) => scores.lines.findIndex((line) => line.name === name);
  const chosen = (name) => control(name) && labelled(control(name));
  const signed = (value) => (value === 0 ? "0" : `${value < 0 ? "−" : "+"}${Math.abs(value)}`);
  const percent = (change) => {
    const text = Math.abs(change) >= 9.95 ? Math.abs(change).toFixed(0) : Math.abs(change).toFixed(1);
    return Number(text) === 0 ? text : `${change < 0 ? "−" : "+"}${text}`;
  };
  const longLead = (hours) => (hours < 24 ? `${hours} hour${hours === 1 ? "" : "s"}` : `${Number((hours / 24).toPrecision(6))} day${hours === 24 ? "" : "s"}`);
  if (control("region")) control("region").value = scores.region;

  const cell = (own, other, pair, region, field, position, edges) => {
    const lead = scores.cardLeads[position];
    const [mine, theirs] = [own, other].map((line) => curveOf(line, rmse, region, field)[lead]);
    if (!known(mine) || !(theirs > 0)) return make("td", { class: "none", "aria-label": "no score" }, "–");
    const change = 100 * (mine / theirs - 1);
    const at = (region * scores.fields.length + field) * scores.cardLeads.length + position;
    const [low, high] = [pair?.lower?.[at], pair?.upper?.[at]];
    const mark = low > 0 ? "▲" : high < 0 ? "▼" : "";
    const info = scores.fields[field];
    let title = `${info.short} at ${longLead(scores.leads[lead])}: ${own.name} ${number(mine)}, ${other.name} ${number(theirs)} ${info.units}`.trim();
    if (known(low)) title += `; skill of MSE ${(100 * low).toFixed(0)} to ${(100 * high).toFixed(0)} %, ${mark ? "" : "not "}significant`;
    const colour = COLOURS[edges.filter((edge) => edge <= change).length];
    return make("td", { class: colour, title: title.replaceAll("-", "−") }, [percent(change), ...(mark ? [make("i", {}, mark)] : [])]);
  };

  // Why some or all cells have no mark.
  const without = (pair, own, other, region, fields) => {
    if (pair?.without) return `No marks: ${pair.without}.`;
    let shown = 0, lacking = 0;
    for (const field of fields) scores.cardLeads.forEach((lead, position) => {
      const [mine, theirs] = [own, other].map((line) => curveOf(line, rmse, region, field)[lead]);
      if (!known(mine) || !(theirs > 0)) return;
      shown++;
      if (!known(pair?.lower?.[(region * scores.fields.length + field) * scores.cardLeads.length + position])) lacking++;
    });
    const beyond = scores.limited && (region !== scores.region || fields.some((field) => !scores.headline.includes(field)));
    return lacking ? `No marks in ${lacking === shown ? "any cell" : `${lacking} of ${shown} cells`}: ${beyond ? scores.limited : scores.few}.` : "";
  };

  const fill = () => {
    const own = scores.lines[indexOf(chosen("forecast") ?? scores.lines[0].name)];
    const other = scores.lines[indexOf(chosen("other"))];
    const region = Number(control("region")?.value ?? scores.region);
    const edges = other.kind === "baseline" ? COARSE : FINE;
    const pair = scores.pairs.find((each) => scores.lines[each.forecast] === own && scores.lines[each.other] === other);
    const fields = chosen("fields") === "all" ? scores.fields.map((_, i) => i) : scores.headline;
    card.querySelector("caption").textContent = `RMSE of ${own.name}, difference from ${other.name} in per cent, region ${scores.regions[region]}`;
    card.querySelector("tbody").replaceChildren(...fields.map((field) => make("tr", {}, [
      make("th", { scope: "row" }, [make("b", {}, scores.fields[field].short), make("span", {}, scores.fields[field].label)]),
      ...scores.cardLeads.map((_, position) => cell(own, other, pair, region, field, position, edges)),
    ])));
    document.getElementById("card-without").textContent = own === other ? "A forecast beside itself." : without(pair, own, other, region, fields);
    const bounds = [null, ...edges, null];
    document.querySelectorAll("#card-key span").forEach((text, i) => {
      const [low, high] = [bounds[i], bounds[i + 1]];
      text.textContent = low === null ? `below ${signed(high)} %` : high === null ? `above ${signed(low)} %` : `${signed(low)} to ${signed(high)}`;
    });
    prepare();
  };

  // Cells say their numbers in a box of their own, on hover and on focus, and to screen readers as their label; arrow keys
  // go from cell to cell, so that the whole table is one stop of the Tab key.
  const tip = make("div", { class: "tip card-tip", hidden: "" });
  const holder = card.closest(".card-holder");
  holder.append(tip);
  const cells = () => [...card.tBodies[0].rows].map((row) => [...row.querySelectorAll("td")]);
  function prepare() {
    tip.hidden = true;
    cells().flat().forEach((td, i) => {
      td.tabIndex = i ? -1 : 0;
      if (!td.title) return;
      td.dataset.says = td.title;
      td.setAttribute("aria-label", `${td.textContent.replace(/[▲▼]/, "")} per cent. ${td.title}`);
      td.removeAttribute("title");
    });
  }
  const say = (td) => {
    tip.hidden = !td?.dataset.says;
    if (tip.hidden) return;
    const [head, skill] = td.dataset.says.split("; ");
    const [what, ...rest] = head.split(": ");
    tip.replaceChildren(make("b", {}, what), make("div", {}, rest.join(": ")), ...(skill ? [make("div", {}, skill)] : []));
    const [box, frame] = [td.getBoundingClientRect(), holder.getBoundingClientRect()];
    tip.style.left = `${Math.max(0, Math.min(box.left - frame.left, frame.width - tip.offsetWidth))}px`;
    const below = box.bottom - frame.top + 6;
    tip.style.top = `${below}px`;
  };
  card.addEventListener("pointerover", (event) => say(event.target.closest("tbody td")));
  card.addEventListener("pointerleave", () => say(null));
  card.addEventListener("focusin", (event) => say(event.target.closest("tbody td")));
  card.addEventListener("focusout", () => say(null));
  card.addEventListener("keydown", (event) => {
    const grid = cells();
    const row = grid.findIndex((line) => line.includes(event.target));
    if (row < 0) return;
    const column = grid[row].indexOf(event.target);
    const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0], Escape: [0, 0] }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = grid[row + step[0]]?.[column + step[1]];
    if (event.key === "Escape") say(null);
    else if (next) { event.target.tabIndex = -1; next.tabIndex = 0; next.focus(); }
  });
  for (const name of ["forecast", "other", "region", "fields"]) control(name)?.addEventListener("change", fill);
  prepare();
}
