// What is told beside the picture: the classes, the figures, and the log.

const ROWS = 5;
const KEPT = 100;
const byId = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");
const FIGURES = ["captured", "explained", "stale", "reconnects"];

/** Rows that stay where they are; their words and bars change. */
export function makeRows() {
  byId("top").replaceChildren(
    ...Array.from({ length: ROWS }, () => {
      const row = document.createElement("li");
      row.append(document.createElement("i"), document.createElement("span"), document.createElement("span"));
      row.firstChild.style.transform = "scaleX(0)";
      return row;
    }),
  );
}

export function showClasses(record) {
  byId("label").textContent = byId("label").title = record.label;
  byId("probability").textContent = percent(record.probability);
  [...byId("top").children].forEach((row, place) => {
    const one = record.top?.[place];
    const [bar, name, chance] = row.children;
    bar.style.transform = `scaleX(${one?.probability ?? 0})`;
    name.textContent = name.title = one?.label ?? "";
    chance.textContent = one ? percent(one.probability) : "";
    if (one && one.class_index === record.class_index) row.setAttribute("aria-current", "true");
    else row.removeAttribute("aria-current");
  });
  byId("evidence").textContent = `Evidence ${figure(record.evidence)}, peak ${figure(record.peak)}`;
}

export function showFrame(record) {
  const parts = [`Frame ${record.id}`, clock(record.timestamp), `${figure(record.latency_ms)} ms`, record.method];
  if (!record.is_fresh) parts.push("map of an earlier frame");
  byId("frame").textContent = parts.join("  ·  ");
}

export function showFigures(counters) {
  byId("fps").textContent = counters.fps.toFixed(1);
  for (const name of ["p50", "p99"]) byId(name).textContent = figure(counters.latency_ms[name]);
  for (const name of FIGURES) byId(name).textContent = number.format(counters[name]);
  byId("source-state").textContent = counters.source_state;
}

/** Entries of the log, newest first. */
export function showEntries(entries) {
  const list = byId("journal");
  for (const entry of entries) {
    const row = document.createElement("li");
    row.dataset.kind = entry.kind;
    const time = document.createElement("time");
    time.dateTime = new Date(1000 * entry.at).toISOString();
    time.textContent = new Date(1000 * entry.at).toLocaleTimeString("en-GB");
    const where = document.createElement("b");
    where.textContent = ["raised", "cleared"].includes(entry.kind) ? `${entry.where} ${entry.kind}` : entry.where;
    const text = document.createElement("p");
    text.textContent = entry.text;
    row.append(time, where, text);
    list.prepend(row);
  }
  while (list.children.length > KEPT) list.lastChild.remove();
}

export function clearEntries() {
  byId("journal").replaceChildren();
}

function percent(chance) {
  return Number.isFinite(chance) ? `${(100 * chance).toFixed(1)} %` : "";
}

function figure(value) {
  if (!Number.isFinite(value)) return "–";
  return value >= 100 ? number.format(Math.round(value)) : String(Number(value.toPrecision(3)));
}

/** Unix time as time of day; a position in a file as minutes and seconds. */
function clock(seconds) {
  if (!Number.isFinite(seconds)) return "";
  if (seconds > 1e8) {
    const date = new Date(1000 * seconds);
    return `${date.toLocaleTimeString("en-GB")}.${String(date.getMilliseconds()).padStart(3, "0")}`;
  }
  return `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(3).padStart(6, "0")}`;
}
