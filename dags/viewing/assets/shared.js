const WORDS = {
  done: "Done", running: "Running", failed: "Failed", interrupted: "Interrupted", incomplete: "Incomplete",
  unreadable: "Unreadable", pending: "Waiting", skipped: "Up to date",
};

const pill = (state) => make("span", { class: `pill ${state}` }, WORDS[state] || state);

const duration = (seconds) => {
  if (!known(seconds)) return "";
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(Math.round(seconds) / 60), rest = String(Math.round(seconds) % 60).padStart(2, "0");
  return minutes < 60 ? `${minutes}:${rest} min` : `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, "0")} h`;
};

const ago = (time) => {
  if (!time) return "";
  const words = new Intl.RelativeTimeFormat("en", { numeric: "auto" });
  const seconds = (Date.parse(time) - Date.now()) / 1000;
  for (const [unit, length] of [["day", 86400], ["hour", 3600], ["minute", 60]])
    if (Math.abs(seconds) >= length) return words.format(Math.round(seconds / length), unit);
  return "just now";
};

// Ask `address` again and again while the page is seen. `use` takes what comes and returns the seconds until the next time;
// `lost` is told whether there was an answer.
const follow = (address, use, lost) => {
  let timer = 0, asking = false;
  const ask = async () => {
    clearTimeout(timer);
    if (document.hidden || asking) return;
    asking = true;
    let value, pause = 5;
    try {
      const answer = await fetch(address, { cache: "no-store" });
      if (answer.ok) value = await answer.json();
    } catch {
      // The server has stopped; it may come back.
    }
    asking = false;
    lost(value === undefined);
    if (value !== undefined) pause = use(value);
    timer = setTimeout(ask, pause * 1000);
  };
  document.addEventListener("visibilitychange", ask);
  return (pause) => { timer = setTimeout(ask, pause * 1000); };
};
