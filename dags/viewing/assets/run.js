const main = document.querySelector("main");
const base = main.dataset.address;
const part = (id) => document.getElementById(id);
const section = (id, there) => { part(id).closest("section").hidden = !there; return there; };
// A text is set only where it is new: readers of the screen announce every change.
const say = (node, text) => { if (node.textContent !== text) node.textContent = text; };
const name = document.querySelector("h1").textContent;
let training = null, before = null, drawn = null;

const percent = (fraction) => `${Math.floor(100 * fraction)} %`;

const sentence = (status) => {
  const at = status.stages.filter((stage) => stage.state === "running").map((stage) => stage.name);
  const done = status.stages.filter((stage) => ["done", "skipped"].includes(stage.state)).length;
  return {
    running: at.length ? `Working on ${at.join(" and ")}.` : "Between two stages.",
    done: "All stages are done.",
    failed: "A stage has failed; finished stages are kept.",
    interrupted: "Stopped; finished stages are kept.",
    incomplete: `${done} of ${status.stages.length} stages are done; nobody works on it.`,
  }[status.state];
};

const drawStages = (status) => {
  const places = placesOf(status.stages);
  part("stages").style.setProperty("--columns", Math.max(...status.stages.map((stage) => stage.depth)) + 1);
  part("stages").replaceChildren(...status.stages.map((stage) => {
    const working = stage.state === "running";
    const time = working ? duration(stage.elapsed) : duration(stage.seconds);
    const { column, row } = places.get(stage.name);
    const node = make("li", { class: stage.state, title: stage.summary, "data-stage": stage.name, style: `--column:${column + 1};--row:${row + 1}` }, [
      make("b", {}, stage.name), pill(stage.state),
      make("span", { class: "took" }, working && known(stage.fraction) ? `${percent(stage.fraction)}, ${time}` : time || " "),
    ]);
    if (stage.upstream.length) node.append(make("span", { class: "hidden" }, `after ${stage.upstream.join(", ")}`));
    return node;
  }));
  drawArrows(part("stages"), status.stages);
  drawn = status.stages;
};

const drawWork = (status) => {
  const working = status.stages.filter((stage) => stage.state === "running");
  if (!section("work", working.length)) return;
  part("work").replaceChildren(...working.map((stage) => {
    const fraction = known(stage.fraction) ? stage.fraction : null;
    const task = stage.task && stage.task !== stage.name ? `${stage.task}: ` : "";
    const bar = make("div", {
      class: `bar${fraction === null ? " unknown" : ""}`, role: "progressbar", "aria-label": `Progress of ${stage.name}`, "aria-valuemin": 0, "aria-valuemax": 100,
      ...(fraction === null ? {} : { "aria-valuenow": Math.floor(100 * fraction) }),
    }, make("i", { style: `width:${fraction === null ? 100 : 100 * fraction}%` }));
    const times = [known(stage.elapsed) && `${duration(stage.elapsed)} so far`, known(stage.remaining) && `about ${duration(stage.remaining)} left`].filter(Boolean);
    return make("div", { class: "card" }, [
      make("h3", {}, [stage.name, make("span", {}, stage.summary)]), bar,
      make("p", { class: "figures" }, [make("b", {}, fraction === null ? "Started" : percent(fraction)), make("span", {}, times.join(", "))]),
      make("p", { class: "note" }, `${task}${stage.note || ""}`),
    ]);
  }));
};

const drawProblem = (status) => {
  const open = ["failed", "interrupted", "incomplete"].includes(status.state);
  const text = JSON.stringify([status.state, status.resume, status.stages.map((stage) => stage.error)]);
  if (!section("problem", open) || part("problem").dataset.shown === text) return;
  const failed = status.stages.filter((stage) => stage.state === "failed");
  const copy = make("button", { type: "button" }, "Copy");
  const said = make("span", { role: "status", class: "said" });
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(status.resume);
      say(said, "Copied");
    } catch {
      getSelection().selectAllChildren(command);
      say(said, "Selected; copy it with the keyboard");
    }
  });
  const command = make("code", {}, status.resume);
  part("problem").dataset.shown = text;
  part("problem").replaceChildren(
    ...failed.flatMap((stage) => [
      make("h3", {}, `${stage.name} failed`),
      make("pre", { class: "fault", tabindex: 0, role: "region", "aria-label": `Error of ${stage.name}` }, stage.error || "The log below says why."),
    ]),
    make("p", { class: "resume" }, [make("span", {}, "Go on with"), command, copy, said]),
  );
};

// Repairs of the training, at their updates; of many the first.
const marksOf = (curve) => curve.events.slice(0, 50).map((event) => [event.update, event.event === "rollback" ? "rolled back" : "skipped"]);

const drawLoss = (curve) => {
  if (!section("loss", curve?.train.length)) return;
  const held = document.activeElement?.closest("#loss");
  const last = Math.max(1, ...curve.train.map(([x]) => x), ...curve.validation.map(([x]) => x));
  const stages = curve.stages.filter(([, steps]) => steps);
  place(part("loss"), [plot({
    title: "Loss", units: "logarithmic", height: 300, log: true, endLabels: true, xText: (x) => `update ${Math.round(x)}`, marks: marksOf(curve),
    shades: stages.map(([first, steps], k) => [first, k + 1 < stages.length ? stages[k + 1][0] : last, steps === 1 ? "1 step" : `${steps} steps`]),
    lines: [
      { name: "train", css: "train", points: curve.train },
      { name: "validation", css: "validation", points: curve.validation, dots: true },
    ],
  })]);
  if (held) part("loss").querySelector("svg")?.focus();
};

const fetchLoss = async () => {
  try {
    const answer = await fetch(`${base}training.json`, { cache: "no-store" });
    if (answer.ok) drawLoss(await answer.json());
  } catch {
    training = null; // Next time, then.
  }
};

const show = (status) => {
  if (before === "running" && status.state === "done" && status.report) {
    location.replace(`${base}report.html`);
    return 5;
  }
  before = status.state;
  part("state").replaceChildren(pill(status.state));
  say(part("now"), sentence(status));
  const working = status.stages.filter((stage) => stage.state === "running");
  const started = working.map((stage) => stage.elapsed).filter(known);
  const all = status.stages.map((stage) => stage.seconds).filter(known).reduce((a, b) => a + b, 0) + started.reduce((a, b) => a + b, 0);
  say(part("times"), [all && `${duration(all)} of work`, known(status.remaining) && `about ${duration(status.remaining)} left`].filter(Boolean).join(", "));
  document.title = `${working.length && known(working[0].fraction) ? `${percent(working[0].fraction)} ${working[0].name}` : WORDS[status.state]} · ${name} · Spherecast`;
  part("report").hidden = !status.report;
  drawStages(status);
  drawWork(status);
  drawProblem(status);
  if (section("log", status.log)) {
    say(part("log-heading"), `Last lines of the log of ${status.log.stage}`);
    const log = part("log"), following = log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
    say(log, status.log.lines);
    if (following) log.scrollTop = log.scrollHeight;
  }
  if (status.training !== training) {
    training = status.training;
    if (training) fetchLoss();
    else section("loss", false);
  }
  return status.state === "running" ? 2 : 5;
};

new ResizeObserver(() => drawn && drawArrows(part("stages"), drawn)).observe(part("stages").parentElement);
follow(`${base}status.json`, show, (lost) => {
  part("stale").hidden = !lost;
  say(part("stale"), lost ? "The server does not answer; this page shows what it said last." : "");
})(show(read("status")));
