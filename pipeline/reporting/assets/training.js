const training = read("training-log");
if (training) {
  const last = Math.max(...training.train.map(([x]) => x), ...training.validation.map(([x]) => x));
  const stages = training.stages.filter(([, steps]) => steps);
  place(document.querySelector("#training-chart .plots"), [plot({
    title: "Loss", units: "logarithmic", height: 300, log: true, endLabels: true,
    xText: (x) => `update ${Math.round(x)}`,
    shades: stages.map(([first, steps], i) => [first, i + 1 < stages.length ? stages[i + 1][0] : last, steps === 1 ? "1 step" : `${steps} steps`]),
    lines: [{ name: "train", points: training.train }, { name: "validation", points: training.validation, dots: true }],
  })]);
}
