// Latency and drops of the last minute, in bins, so that any frame rate takes the same room.

const SECONDS = 60;
const PER_SECOND = 4;
const LEFT = 54;
const RIGHT = 12;
const DROPS_HEIGHT = 34;
const AXIS_HEIGHT = 20;

export class History {
  constructor() {
    this.latency = new Map(); // bin -> { count, sum, low, high }
    this.drops = new Map(); // second -> frames
    this.dropped = null;
  }

  addLatency(milliseconds, now) {
    if (!Number.isFinite(milliseconds)) return;
    const key = Math.floor(now * PER_SECOND);
    const bin = this.latency.get(key) ?? { count: 0, sum: 0, low: Infinity, high: 0 };
    bin.count += 1;
    bin.sum += milliseconds;
    bin.low = Math.min(bin.low, milliseconds);
    bin.high = Math.max(bin.high, milliseconds);
    this.latency.set(key, bin);
    trim(this.latency, key - SECONDS * PER_SECOND - 1);
  }

  /** total: frames dropped so far, as the server counts; less than before where it began anew. */
  addDropped(total, now) {
    const fresh = this.dropped === null || total < this.dropped ? 0 : total - this.dropped;
    this.dropped = total;
    const key = Math.floor(now);
    this.drops.set(key, (this.drops.get(key) ?? 0) + fresh);
    trim(this.drops, key - SECONDS - 1);
  }
}

function trim(bins, oldest) {
  for (const key of bins.keys()) if (key < oldest) bins.delete(key);
}

/** Draws a history as it is at the time `now`, in seconds. */
export function drawPlot(canvas, history, now) {
  const scale = devicePixelRatio || 1;
  const width = canvas.clientWidth;
  const height = canvas.clientHeight;
  if (!width || !height) return;
  if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
  }
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue(name).trim();
  const g = canvas.getContext("2d");
  g.setTransform(scale, 0, 0, scale, 0, 0);
  g.clearRect(0, 0, width, height);
  g.font = `11px ${getComputedStyle(document.body).fontFamily}`;
  const x = (time) => LEFT + (1 - (now - time) / SECONDS) * (width - LEFT - RIGHT);
  const bottom = height - AXIS_HEIGHT;
  const upper = { top: 14, bottom: bottom - DROPS_HEIGHT - 14 };
  const lower = { top: bottom - DROPS_HEIGHT, bottom };

  const latest = [...history.latency].filter(([key]) => key / PER_SECOND >= now - SECONDS);
  const highest = latest.reduce((most, [, bin]) => Math.max(most, bin.high), 0);
  const y = axis(g, upper, width, niceCeiling(highest || 1), upper.bottom - upper.top < 120 ? 2 : 4, "ms", color);
  const mostDrops = [...history.drops.values()].reduce((most, count) => Math.max(most, count), 0);
  const yDrops = axis(g, lower, width, niceCeiling(Math.max(mostDrops, 2)), 1, "/s", color);
  timeAxis(g, bottom, width, color);

  g.save();
  g.beginPath();
  g.rect(LEFT, 0, width - LEFT - RIGHT, bottom);
  g.clip();
  latencyArea(g, latest, x, y, color("--latency"));
  g.fillStyle = color("--drops");
  for (const [second, count] of history.drops) {
    const left = x(second) + 1;
    if (count) g.fillRect(left, yDrops(count), Math.max(2, x(second + 1) - left - 1), lower.bottom - yDrops(count));
  }
  g.restore();
}

function latencyArea(g, bins, x, y, color) {
  const middle = (key) => x((key + 0.5) / PER_SECOND);
  for (const run of runs(bins)) {
    g.fillStyle = color;
    g.globalAlpha = 0.2;
    g.beginPath();
    for (const [key, bin] of run) g.lineTo(middle(key), y(bin.high));
    for (const [key, bin] of run.toReversed?.() ?? [...run].reverse()) g.lineTo(middle(key), y(bin.low));
    g.fill();
    g.globalAlpha = 1;
    g.strokeStyle = color;
    g.lineWidth = 1.75;
    g.lineJoin = "round";
    g.beginPath();
    for (const [key, bin] of run) g.lineTo(middle(key), y(bin.sum / bin.count));
    if (run.length === 1) g.lineTo(middle(run[0][0]) + 1, y(run[0][1].sum / run[0][1].count));
    g.stroke();
  }
}

/** Stretches without a gap of more than a second: a line over a gap would tell of frames that never were. */
function runs(bins) {
  const found = [];
  let last = -Infinity;
  for (const entry of bins) {
    if (entry[0] - last > PER_SECOND) found.push([]);
    found.at(-1).push(entry);
    last = entry[0];
  }
  return found;
}

/** Grid lines with numbers, 0 to `most`; returns from a value to its place. */
function axis(g, area, width, most, steps, unit, color) {
  const y = (value) => area.bottom - (value / most) * (area.bottom - area.top);
  g.strokeStyle = color("--line");
  g.fillStyle = color("--faint");
  g.lineWidth = 1;
  g.textAlign = "right";
  g.textBaseline = "middle";
  for (let step = 0; step <= steps; step++) {
    const value = (most * step) / steps;
    const line = Math.round(y(value)) + 0.5;
    g.beginPath();
    g.moveTo(LEFT, line);
    g.lineTo(width - RIGHT, line);
    g.stroke();
    const text = value.toLocaleString("en", { maximumFractionDigits: 2 });
    g.fillText(step === steps ? `${text} ${unit}` : text, LEFT - 7, line);
  }
  return y;
}

function timeAxis(g, bottom, width, color) {
  g.fillStyle = color("--faint");
  g.textBaseline = "top";
  for (let ago = SECONDS; ago >= 0; ago -= width < 480 ? 20 : 10) {
    const place = LEFT + (1 - ago / SECONDS) * (width - LEFT - RIGHT);
    g.textAlign = ago === SECONDS ? "left" : ago ? "center" : "right";
    g.fillText(ago ? `−${ago} s` : "now", place, bottom + 6);
  }
}

function niceCeiling(value) {
  const unit = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 5, 8, 10].map((factor) => factor * unit).find((nice) => nice >= value);
}
