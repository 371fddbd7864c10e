if (scores && scores.metrics.length && document.getElementById("explorer")) {
  const metricIndex = (name) => scores.metrics.indexOf(name);
  const DRAWN = 6; // More lines in one chart than this are hard to tell apart; the reader adds others.
  const boxes = [...document.querySelectorAll('#lines input[name="line"]')];
  let fresh = 0;
  boxes.forEach((box, i) => {
    const line = scores.lines[i];
    box.checked = line.kind === "baseline" || fresh++ < DRAWN;
    box.nextElementSibling.className = line.css;
    box.nextElementSibling.prepend(make("i", { class: `line ${line.css}`, "aria-hidden": "true" }));
  });
  const shownLines = () => scores.lines.filter((_, i) => boxes[i].checked);
  const scale = () => document.querySelector('input[name="scale"]:checked').value;

  function scoreChart(metric, region, field, height) {
    const name = scores.metrics[metric];
    const info = scores.fields[field];
    const log = scale() === "log" && name !== "bias";
    const lines = shownLines().map((line) => {
      const [values, lower, upper] = ["values", "lower", "upper"].map((key) => curveOf(line, metric, region, field, key));
      const point = (array, i) => (array && known(array[i]) ? array[i] : null);
      return {
        name: line.name, css: line.css,
        points: scores.leads.map((lead, i) => [lead, point(values, i)]).filter((_, i) => line.has[i]),
        band: lower && scores.leads.map((lead, i) => [lead, point(lower, i), point(upper, i)]).filter(([, low]) => low !== null),
      };
    });
    return plot({
      title: scores.titles[metric], units: scores.dimensionless[metric] ? "" : info.units, height, leads: true, xText: leadText, endLabels: true, log, lines,
      floor: log || name === "bias" ? undefined : 0,
      ceiling: name === "acc" ? 1 : undefined,
      rule: { acc: 0.6, bias: 0, spread_skill_ratio: 1 }[name],
      absent: name === "acc" && info.id.includes("wind_vector") ? "Not defined for a wind vector; its components have one, under “Any field”." : undefined,
    });
  }

  // The numbers of a figure: one column for each line and score, with the ends of its interval in the file.
  function scoreTable(metrics, region, field) {
    const details = make("details", {}, make("summary", {}, "Numbers"));
    const info = scores.fields[field];
    const columns = () => metrics.flatMap((metric) => scores.lines.map((line) => ({ metric, line, values: curveOf(line, metric, region, field) })))
      .filter((column) => column.values.some(known));
    const exact = (value) => (known(value) ? Number(value.toPrecision(7)) : null);
    const rows = () => {
      const found = columns().flatMap(({ metric, line }) => ["values", "lower", "upper"].map((key) => ({
        head: `${line.name} ${scores.metrics[metric]}${key === "values" ? "" : `_${key}`}`, values: curveOf(line, metric, region, field, key),
      }))).filter((column) => column.values?.some(known));
      return [["lead_hours", ...found.map((column) => column.head)], ...scores.leads.map((lead, i) => [lead, ...found.map((column) => exact(column.values[i]))])];
    };
    details.addEventListener("toggle", () => {
      if (details.childElementCount > 1) return;
      const found = columns();
      const groups = metrics.map((metric) => [metric, found.filter((column) => column.metric === metric).length]).filter(([, count]) => count);
      const head = [
        make("tr", {}, [make("td"), ...groups.map(([metric, count]) => make("th", { scope: "colgroup", colspan: count }, scores.titles[metric]))]),
        make("tr", {}, [make("th", { scope: "col" }, "Lead"), ...found.map((column) => make("th", { scope: "col" }, column.line.name))]),
      ];
      const body = scores.leads.map((lead, i) => make("tr", {}, [make("th", { scope: "row" }, leadText(lead)), ...found.map((c) => make("td", {}, number(c.values[i])))]));
      const text = `${info.label}, ${scores.regions[region]}${info.units ? `; ${info.units}` : ""}`;
      const table = make("table", {}, [make("caption", {}, text), make("thead", {}, head), make("tbody", {}, body)]);
      details.append(
        exportBar(`${info.id}-${metrics.map((metric) => scores.metrics[metric]).join("-")}-${scores.regions[region]}`, rows),
        make("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": `Table of ${info.label}` }, table),
      );
    });
    return details;
  }

  const swapTable = (parent, table) => {
    table.open = Boolean(parent.querySelector("details")?.open);
    parent.querySelector("details")?.remove();
    parent.append(table);
  };
  const first = ["rmse", "acc"].map(metricIndex).filter((i) => i >= 0);
  const region = document.getElementById("region");
  region.value = scores.region;
  const fillCard = (card) => {
    const field = Number(card.dataset.field);
    place(card.querySelector(".plots"), first.map((metric) => scoreChart(metric, Number(region.value), field, 200)));
    swapTable(card, scoreTable(first, Number(region.value), field));
  };

  const explorer = document.getElementById("explorer");
  const choices = ["any-field", "any-metric", "any-region"].map((id) => document.getElementById(id));
  const other = scores.fields.findIndex((_, i) => !scores.headline.includes(i));
  choices[0].value = Math.max(0, other);
  choices[2].value = scores.region;
  const fillExplorer = () => {
    const [field, metric, where] = choices.map((choice) => Number(choice.value));
    place(explorer.querySelector(".plots"), [scoreChart(metric, where, field, 320)]);
    swapTable(explorer, scoreTable([metric], where, field));
  };

  // One chart after another, those in sight first, so that neither the first picture nor a control waits for all of them.
  const pending = new Map();
  let queued = false;
  const step = () => {
    const inSight = [...pending.keys()].find((target) => {
      const box = target.getBoundingClientRect();
      return box.bottom > 0 && box.top < innerHeight;
    });
    const target = inSight ?? pending.keys().next().value;
    const fill = pending.get(target);
    pending.delete(target);
    fill?.(target);
    queued = pending.size > 0;
    if (queued) setTimeout(step);
  };
  const cards = [...document.querySelectorAll(".card.curve")];
  const refresh = () => {
    for (const target of [...cards, explorer]) pending.set(target, target === explorer ? fillExplorer : fillCard);
    if (!queued) setTimeout(step);
    queued = true;
  };
  const drawAll = () => { while (pending.size) step(); };
  window.addEventListener("beforeprint", drawAll);
  region.addEventListener("change", refresh);
  document.getElementById("lines").addEventListener("change", refresh);
  for (const radio of document.querySelectorAll('input[name="scale"]')) radio.addEventListener("change", refresh);
  choices.forEach((choice) => choice.addEventListener("change", fillExplorer));
  refresh();
}
