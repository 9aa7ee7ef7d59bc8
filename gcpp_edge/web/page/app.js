// The live page. The picture comes by /stream.mjpg (picture.js), everything else by the WebSocket /records (link.js).

import { Controls } from "./controls.js";
import { openLink } from "./link.js";
import { clearEntries, makeRows, showClasses, showEntries, showFigures, showFrame } from "./panels.js";
import { watchPicture } from "./picture.js";
import { History, drawPlot } from "./plot.js";

const DRAW_MS = 100; // figures that change faster are not read
const TONES = { running: "good", opening: "wait", stalled: "wait", lost: "bad", ended: "calm" };
const WORDS = {
  running: "Live",
  opening: "Opening the source…",
  stalled: "Source stalled",
  lost: "Source lost",
  ended: "Stream ended",
};
const byId = (id) => document.getElementById(id);

const view = { isPaused: false, isLinked: false, wasLinked: false, hasPicture: false, needsToken: false };
let record = null; // the newest of a frame
let counters = null;
let isDrawn = true;
let history = new History();
const controls = new Controls();

const picture = watchPicture(byId("picture"), (frame) => {
  view.hasPicture = true;
  byId("picture").dataset.frame = frame.id;
  showState();
});

openLink({
  async open() {
    view.isLinked = view.wasLinked = true;
    view.needsToken = false;
    clearEntries(); // the server sends all that it holds
    showState();
    await learnModel();
  },
  closed() {
    view.isLinked = false;
    showState();
    askWhy();
  },
  message(message) {
    if (message.kind === "log") {
      showEntries(message.entries);
      return;
    }
    controls.show(message.settings);
    counters = message.counters;
    const now = performance.now() / 1000;
    history.addDropped(counters.stale + counters.failed, now);
    if (message.kind === "frame") {
      record = message;
      history.addLatency(message.latency_ms, now);
    }
    isDrawn = false;
    showState();
  },
});

async function learnModel() {
  try {
    const model = await (await fetch("/model")).json();
    controls.fit(model);
    byId("source").textContent = byId("source").title = model.source;
    document.title = `${model.source} · gcpp-edge`;
    byId("about").textContent = `gcpp-edge ${model.version} · ${model.runtime} · ${model.layers.join(", ")}`;
  } catch {
    // the link closes as well, and this is done again when it opens
  }
}

/** A server that was started anew has another token, which the browser does not say of a WebSocket. */
async function askWhy() {
  try {
    view.needsToken = (await fetch("/settings")).status === 401;
  } catch {
    view.needsToken = false;
  }
  showState();
}

function showState() {
  const source = counters?.source_state ?? "opening";
  let [tone, words, note, line] = [TONES[source] ?? "wait", WORDS[source] ?? source, "", ""];
  if (view.needsToken) {
    [tone, words, note] = ["bad", "Token needed", "again"];
    line = "The server has another token now. Open the address that was printed when the stream was started.";
  } else if (!view.isLinked) {
    [tone, words, note] = ["wait", view.wasLinked ? "Reconnecting…" : "Connecting…", "again"];
    line = words;
  } else if (view.isPaused) [tone, words] = ["calm", "Paused"];
  else if (source === "lost" || source === "ended") [note, line] = ["again", words];
  if (!view.hasPicture) {
    note = "wait";
    line ||= source === "running" || source === "opening" ? "Waiting for the first frame…" : words;
  }
  const state = byId("state");
  if (state.textContent !== words) state.textContent = words;
  state.dataset.tone = tone;
  byId("stage").dataset.note = note;
  if (line && byId("note").textContent !== line) byId("note").textContent = line;
  byId("snapshot").disabled = !view.hasPicture;
}

function draw() {
  if (document.hidden || view.isPaused) return;
  if (!isDrawn) {
    isDrawn = true;
    if (counters) showFigures(counters);
    if (record) {
      showClasses(record);
      showFrame(record);
    }
  }
  drawPlot(byId("plot"), history, performance.now() / 1000);
}

function pause() {
  view.isPaused = !view.isPaused;
  byId("pause").setAttribute("aria-pressed", String(view.isPaused));
  byId("pause").querySelector("span").textContent = view.isPaused ? "Resume" : "Pause";
  watchWhileSeen();
  showState();
  draw();
}

/** Pictures are asked for only while somebody sees them. */
function watchWhileSeen() {
  if (document.hidden || view.isPaused) picture.stop();
  else picture.start();
}

async function snapshot() {
  const canvas = byId("picture");
  let content = null;
  let name = `frame-${String(canvas.dataset.frame).padStart(6, "0")}.png`;
  if (!view.isPaused && view.isLinked) {
    const answer = await fetch("/snapshot.png").catch(() => null);
    if (answer?.ok) {
      content = await answer.blob();
      name = `frame-${answer.headers.get("X-Frame-Id").padStart(6, "0")}.png`;
    }
  }
  content ??= await new Promise((resolve) => canvas.toBlob(resolve, "image/png")); // what is seen is what is saved
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}

function fullScreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else byId("stage").requestFullscreen();
}

const KEYS = { " ": pause, s: snapshot, f: fullScreen };

byId("pause").addEventListener("click", pause);
byId("snapshot").addEventListener("click", snapshot);
byId("fullscreen").addEventListener("click", fullScreen);
byId("fullscreen").hidden = !document.fullscreenEnabled;
document.addEventListener("visibilitychange", watchWhileSeen);
document.addEventListener("keydown", (event) => {
  const isElsewhere = event.target.closest("input, select, button, [tabindex]");
  if (isElsewhere || event.ctrlKey || event.altKey || event.metaKey || !KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
});

makeRows();
showState();
watchWhileSeen();
setInterval(draw, DRAW_MS);
