// Data of a section, from its JSON element.
const read = (id) => JSON.parse(document.getElementById(id).textContent);
const SVG = "http://www.w3.org/2000/svg";

// Text enters the page by textContent and setAttribute alone, so nothing in the data can become markup.
const make = (name, attributes = {}, children = [], space = null) => {
  const node = space ? document.createElementNS(space, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  for (const child of [children].flat()) node.append(child);
  return node;
};
const draw = (name, attributes, children) => make(name, attributes, children, SVG);

const number = (value) => {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  const text = size !== 0 && (size < 1e-3 || size >= 1e6) ? value.toExponential(2) : String(Number(value.toPrecision(4)));
  return text.replace("-", "−");
};
const leadText = (hours) => (hours < 24 ? `${hours} h` : `${Number((hours / 24).toFixed(2))} d`);
