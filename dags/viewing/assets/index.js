const table = document.querySelector(".runs");
const [lead, measure, find] = ["lead", "measure", "find"].map((id) => document.getElementById(id));
const chosen = new Set();
let library = read("library");
let sort = { key: "when", down: true };
let shown = JSON.stringify(library); // Only news are drawn: a table drawn again loses its place for who walks through it.

const PLAIN = [
  { key: "name", title: "Run", value: (run) => run.name.toLowerCase() },
  { key: "state", title: "State", value: (run) => WORDS[run.state] },
  { key: "data", title: "Data", value: (run) => run.data.toLowerCase() },
  { key: "stages", title: "Stages", value: (run) => (run.total ? run.done / run.total : null) },
  { key: "when", title: "Last worked on", value: (run) => run.when || null, down: true },
];

const scoresOf = (run, field) => {
  const scores = run.scores[field], k = lead.selectedIndex;
  const rmse = scores?.model?.[k] ?? null, other = scores?.persistence?.[k] ?? null;
  return { rmse, gain: known(rmse) && other ? 100 * (rmse / other - 1) : null };
};
const columns = () => [
  ...PLAIN,
  ...library.fields.map((field) => ({
    key: field.id, title: field.name, note: measure.value === "rmse" ? field.units : "% of persistence", field,
    label: `${field.label}, ${measure.value === "rmse" ? `RMSE in ${field.units}` : "difference from persistence in %"}`,
    value: (run) => scoresOf(run, field.id)[measure.value],
  })),
];

const percent = (value) => (known(value) ? `${value > 0 ? "+" : "−"}${Math.abs(value).toFixed(0)} %` : "–");
const score = (run, field) => {
  const { rmse, gain } = scoresOf(run, field);
  if (!known(rmse)) return ["–"];
  const [first, second] = measure.value === "rmse" ? [number(rmse), percent(gain)] : [percent(gain), number(rmse)];
  return [make("b", {}, first), make("small", {}, second)];
};

// On narrow screens a row is a card whose entries carry their headings; roles keep it a table for screen readers.
const entry = (heading, content, css = "") => make("td", { role: "cell", class: css, "data-heading": heading }, content);

const rowOf = (run) => {
  const box = make("input", { type: "checkbox", name: "run", value: run.name, "aria-label": `Compare ${run.name}` });
  box.checked = chosen.has(run.name);
  box.addEventListener("change", () => { box.checked ? chosen.add(run.name) : chosen.delete(run.name); tellChosen(); });
  const report = `${run.address}report.html`, finished = run.report && run.state === "done";
  const more = finished ? make("a", { href: run.address }, "Stages and training")
    : run.report ? make("a", { href: report }, run.state === "running" ? "Earlier report" : "Report") : null;
  const cell = make("th", { scope: "row", role: "rowheader" }, [make("a", { href: finished ? report : run.address, class: "name" }, run.name)]);
  if (run.description || run.fault) cell.append(make("span", { class: "about" }, run.fault || run.description));
  if (more) cell.append(more);
  const meter = make("span", { class: `meter ${run.state}`, "aria-hidden": "true" }, make("i", { style: `width:${run.total ? (100 * run.done) / run.total : 0}%` }));
  const when = run.when ? make("time", { datetime: run.when, title: run.when.replace("T", " ").replace("Z", " UTC") }, ago(run.when)) : "–";
  return make("tr", { role: "row" }, [
    entry("", run.scored ? make("label", {}, box) : [], "choose"),
    cell,
    entry("State", pill(run.state)),
    entry("Data", run.simulated ? make("span", { class: "simulated" }, run.data) : run.data || "–"),
    entry("Stages", make("span", {}, [run.total ? `${run.done} of ${run.total}` : "–", meter])),
    entry("Last worked on", when),
    ...library.fields.map((field) => {
      const there = known(scoresOf(run, field.id).rmse);
      return entry(field.name, make("span", {}, score(run, field.id)), there ? "score" : "score absent");
    }),
  ]);
};

const draw_table = () => {
  const all = columns();
  const by = all.find((column) => column.key === sort.key) || all[0];
  const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
  const runs = library.runs.filter((run) => words.every((word) => `${run.name} ${run.description} ${run.data} ${run.state}`.toLowerCase().includes(word)));
  runs.sort((a, b) => {
    const [x, y] = [by.value(a), by.value(b)];
    if (!known(x) || !known(y)) return known(y) - known(x); // What is not known comes last either way.
    return (x < y ? -1 : x > y ? 1 : 0) * (sort.down ? -1 : 1) || (a.name < b.name ? -1 : 1);
  });
  const focus = document.activeElement?.closest(".runs") && [document.activeElement.dataset.key, document.activeElement.value, document.activeElement.getAttribute("href")];
  const heads = all.map((column) => {
    const on = column.key === by.key;
    const button = make("button", { type: "button", "data-key": column.key, ...(column.label ? { "aria-label": column.label, title: column.label } : {}) }, column.title);
    button.addEventListener("click", () => {
      sort = { key: column.key, down: on ? !sort.down : Boolean(column.down) };
      draw_table();
    });
    const cell = make("th", { scope: "col", role: "columnheader", ...(on ? { "aria-sort": sort.down ? "descending" : "ascending" } : {}) }, button);
    if (column.note) cell.append(make("small", {}, column.note));
    return cell;
  });
  table.tHead.replaceChildren(make("tr", { role: "row" }, [entry("", [], "choose"), ...heads]));
  table.tBodies[0].replaceChildren(...runs.map(rowOf));
  if (focus) {
    const [key, value, link] = focus;
    [...table.querySelectorAll("button, input, a")].find((node) => (key ? node.dataset.key === key : link ? node.getAttribute("href") === link : node.value === value))?.focus();
  }
  const working = library.runs.filter((run) => run.state === "running").length;
  document.getElementById("tally").textContent = library.runs.length
    ? `${library.runs.length} run${library.runs.length > 1 ? "s" : ""}${working ? `, ${working} at work` : ""}${words.length ? `; ${runs.length} shown` : ""}` : "";
  document.getElementById("none").hidden = library.runs.length > 0;
  document.getElementById("runs").hidden = library.runs.length === 0;
};

const tellChosen = () => {
  document.getElementById("compare").disabled = chosen.size < 2;
  document.getElementById("chosen").textContent = chosen.size < 2
    ? "Choose two or more runs to see them side by side." : `${chosen.size} runs chosen.`;
};

const fill = () => {
  const [k, kind] = [lead.selectedIndex, measure.value];
  lead.replaceChildren(...library.leads.map((hours) => make("option", { value: hours }, leadText(hours))));
  lead.selectedIndex = k < 0 ? Math.min(1, library.leads.length - 1) : k;
  measure.replaceChildren(make("option", { value: "rmse" }, "RMSE"), make("option", { value: "gain" }, "Difference from persistence"));
  measure.value = kind || "rmse";
};

fill();
draw_table();
tellChosen();
for (const choice of [lead, measure]) choice.addEventListener("change", draw_table);
find.addEventListener("input", draw_table);
document.getElementById("runs").addEventListener("submit", (event) => {
  if (chosen.size < 2) { event.preventDefault(); return; } // Enter in the field of the search
  document.getElementById("chosen").textContent = "Writing the comparison; this takes some seconds a run…";
});
addEventListener("pageshow", tellChosen);
follow("/runs.json", (value) => {
  const text = JSON.stringify(value);
  if (text !== shown) {
    library = value;
    shown = text;
    draw_table();
  }
  return 5;
}, () => {})(5);
