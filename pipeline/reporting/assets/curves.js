const scores = read("scores");
const curve = (line, metric, region, field) => scores.values[line][metric][region][field] || scores.leads.map(() => null);

function scoreChart(metric, region, field, height) {
  const name = scores.metrics[metric];
  const info = scores.fields[field];
  return plot({
    title: scores.titles[metric], units: scores.dimensionless[metric] ? "" : info.units, height, leads: true, xText: leadText, endLabels: true,
    floor: name === "bias" ? undefined : 0,
    absent: name === "acc" && info.id.includes("wind_vector") ? "Not defined for a wind vector; its components have one, under “Any field”." : undefined, ceiling: name === "acc" ? 1 : undefined, rule: { acc: 0.6, bias: 0 }[name],
    lines: scores.lines.map((line) => ({ name: line, points: scores.leads.map((lead, i) => [lead, curve(line, metric, region, field)[i]]) })),
  });
}

function scoreTable(metrics, region, field) {
  const details = make("details", {}, make("summary", {}, "Table"));
  details.addEventListener("toggle", () => {
    if (details.childElementCount > 1) return;
    const info = scores.fields[field];
    const columns = metrics.flatMap((metric) => scores.lines.map((line) => ({ metric, line, values: curve(line, metric, region, field) })))
      .filter((column) => column.values.some((value) => value !== null));
    const groups = metrics.map((metric) => [metric, columns.filter((column) => column.metric === metric).length]).filter(([, count]) => count);
    const head = [
      make("tr", {}, [make("td"), ...groups.map(([metric, count]) => make("th", { scope: "colgroup", colspan: count }, scores.titles[metric]))]),
      make("tr", {}, [make("th", { scope: "col" }, "Lead"), ...columns.map((column) => make("th", { scope: "col" }, column.line))]),
    ];
    const rows = scores.leads.map((lead, i) => make("tr", {}, [make("th", { scope: "row" }, leadText(lead)), ...columns.map((c) => make("td", {}, number(c.values[i])))]));
    const text = `${info.label}, ${scores.regions[region]}${info.units ? `; ${info.units}` : ""}`;
    const table = make("table", {}, [make("caption", {}, text), make("thead", {}, head), make("tbody", {}, rows)]);
    details.append(make("div", { class: "scroll", role: "region", tabindex: 0, "aria-label": `Table of ${info.label}` }, table));
  });
  return details;
}

const metricIndex = (name) => scores.metrics.indexOf(name);
function fillCard(card, region) {
  const field = Number(card.dataset.field);
  const open = card.querySelector("details")?.open;
  const shown = ["rmse", "acc"].map(metricIndex).filter((i) => i >= 0);
  place(card.querySelector(".plots"), shown.map((metric) => scoreChart(metric, region, field, 190)));
  card.querySelector("details")?.remove();
  const table = scoreTable(shown, region, field);
  table.open = Boolean(open);
  card.append(table);
}

const cards = [...document.querySelectorAll(".card.curve")];
const region = document.getElementById("region");
region.value = scores.region;
const fillCards = () => cards.forEach((card) => fillCard(card, Number(region.value)));
region.addEventListener("change", fillCards);
fillCards();

const explorer = document.getElementById("explorer");
const choices = ["any-field", "any-metric", "any-region"].map((id) => document.getElementById(id));
const other = scores.fields.findIndex((_, i) => !scores.headline.includes(i));
choices[0].value = Math.max(0, other);
choices[2].value = scores.region;
const fillExplorer = () => {
  const [field, metric, where] = choices.map((choice) => Number(choice.value));
  place(explorer.querySelector(".plots"), [scoreChart(metric, where, field, 300)]);
  const open = explorer.querySelector("details")?.open;
  explorer.querySelector("details")?.remove();
  const table = scoreTable([metric], where, field);
  table.open = Boolean(open);
  explorer.append(table);
};
choices.forEach((choice) => choice.addEventListener("change", fillExplorer));
if (scores.metrics.length) fillExplorer();
