const runs = read("training-log") || [];
for (const [i, training] of runs.entries()) {
  const last = Math.max(1, ...training.train.map(([x]) => x), ...training.validation.map(([x]) => x));
  const stages = training.stages.filter(([, steps]) => steps);
  const common = {
    endLabels: true, xText: (x) => `update ${Math.round(x)}`,
    shades: stages.map(([first, steps], k) => [first, k + 1 < stages.length ? stages[k + 1][0] : last, steps === 1 ? "1 step" : `${steps} steps`]),
  };
  place(document.querySelector(`.training-loss[data-run="${i}"] .plots`), [plot({
    ...common, title: "Loss", units: "logarithmic", height: 300, log: true, marks: training.events,
    lines: [
      { name: "train", css: "train", points: training.train },
      { name: "validation", css: "validation", points: training.validation, dots: true },
    ],
  })]);
  const held = new Map();
  for (const [update, ratios] of training.forecasts) for (const [field, lead, ratio] of ratios) {
    const name = `${field} ${leadText(lead)}`;
    if (!held.has(name)) held.set(name, []);
    held.get(name).push([update, ratio]);
  }
  const longest = [...held].slice(0, 6).map(([name, points], k) => ({ name, css: `c${k}`, points, dots: true }));
  const pace = [
    longest.length && { title: "RMSE of held-out forecasts over persistence", units: "", lines: longest, rule: 1, floor: 0, legend: true, endLabels: false },
    { title: "Learning rate", units: "", lines: [{ name: "rate", css: "train", points: training.pace.learning_rate }], floor: 0, endLabels: false },
    { title: "Throughput", units: "samples s⁻¹", lines: [{ name: "rate", css: "train", points: training.pace.samples_per_second }], floor: 0, endLabels: false },
    { title: "Share of time waiting for data", units: "", lines: [{ name: "share", css: "train", points: training.pace.waiting }], floor: 0, ceiling: 1, endLabels: false, absent: "This log does not say." },
  ].filter(Boolean);
  const holder = document.querySelector(`.training-pace[data-run="${i}"]`);
  const cards = pace.map(() => make("div", { class: "card" }, make("div", { class: "plots" })));
  holder.replaceChildren(...cards);
  pace.forEach((spec, k) => place(cards[k].firstChild, [plot({ ...common, height: 170, ...spec, shades: undefined, breaks: [] })]));
}
