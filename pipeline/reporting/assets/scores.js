// All scores, decoded once: float32 arrays in base64 become views that are cut by index.
const scores = read("scores");
const PALETTE = 8;
const floats = (text) => {
  if (!text) return null;
  const bytes = atob(text);
  const buffer = new Uint8Array(bytes.length);
  for (let i = 0; i < bytes.length; i++) buffer[i] = bytes.charCodeAt(i);
  return new Float32Array(buffer.buffer);
};
if (scores) {
  let colour = 0;
  for (const line of scores.lines) {
    for (const key of ["values", "lower", "upper"]) line[key] = floats(line[key]);
    line.css = line.kind === "baseline" ? line.name : `c${colour % PALETTE} d${Math.floor(colour / PALETTE) % 3}`;
    if (line.kind !== "baseline") colour++;
    // Lead times that its file has: a curve goes on over others, and breaks where a score is missing.
    line.has = scores.leads.map(() => false);
    line.values.forEach((value, i) => { if (known(value)) line.has[i % scores.leads.length] = true; });
  }
  for (const pair of scores.pairs) for (const key of ["lower", "upper"]) pair[key] = floats(pair[key]);
}
// Scores of a line over all leads; a key of the line is values, lower or upper.
const curveOf = (line, metric, region, field, key = "values") => {
  const size = scores.leads.length;
  const from = ((metric * scores.regions.length + region) * scores.fields.length + field) * size;
  return line[key] ? line[key].subarray(from, from + size) : null;
};
