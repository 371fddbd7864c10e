const SVG = "http://www.w3.org/2000/svg";

// Data of a section from its JSON element, null where the page has none.
const read = (id) => JSON.parse(document.getElementById(id)?.textContent ?? "null");

// Text enters the page by textContent and setAttribute alone, so nothing in the data can become markup.
const make = (name, attributes = {}, children = [], space = null) => {
  const node = space ? document.createElementNS(space, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  for (const child of [children].flat()) node.append(child);
  return node;
};
const draw = (name, attributes, children) => make(name, attributes, children, SVG);

const known = (value) => value !== null && value !== undefined && !Number.isNaN(value);
const number = (value) => {
  if (!known(value)) return "–";
  const size = Math.abs(value);
  const text = size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(2) : String(Number(value.toPrecision(4)));
  return text.replace("-", "−");
};
const leadText = (hours) => (hours < 24 ? `${hours} h` : `${Number((hours / 24).toFixed(2))} d`);

// Copying and downloading of rows of texts and numbers, without a network.
const csvOf = (rows) => {
  const cell = (value) => (/[",\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value));
  return rows.map((row) => row.map((value) => cell(known(value) ? value : "")).join(",")).join("\n") + "\n";
};
const exportBar = (name, rows) => {
  const said = make("span", { role: "status", class: "said" });
  const copy = make("button", { type: "button" }, "Copy");
  copy.addEventListener("click", async () => {
    const text = rows().map((row) => row.map((value) => (known(value) ? value : "")).join("\t")).join("\n");
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      const area = make("textarea", { "aria-hidden": "true" });
      area.value = text;
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
      copy.focus();
    }
    said.textContent = "Copied";
  });
  const link = make("a", { download: `${name.replace(/[^\w.-]+/g, "-").replace(/^-+|-+$/g, "")}.csv`, href: "#" }, "Download CSV");
  const fill = () => { link.href = `data:text/csv;charset=utf-8,${encodeURIComponent(csvOf(rows()))}`; };
  for (const event of ["pointerdown", "focus", "click"]) link.addEventListener(event, fill);
  return make("p", { class: "exports" }, [copy, link, said]);
};

// The text of the chosen option of a select.
const labelled = (choice) => choice.selectedOptions[0]?.textContent;
