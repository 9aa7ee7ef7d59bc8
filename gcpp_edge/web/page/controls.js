// The controls: what a viewer moves goes to /settings, and what another viewer has moved shows here.

const OFF = "off";
const BEST = -1;
const SECOND = -2;

const byId = (id) => document.getElementById(id);

/** The controls of a page. `show(settings)` puts them to what the server has. */
export class Controls {
  constructor() {
    this.settings = null;
    this.model = null;
    this.sending = new Map(); // setting -> the value that waits, undefined while one is under way
    this.held = new Set(); // what this viewer is moving now
    for (const name of ["alpha", "smooth_s"]) this.watchRange(name);
    for (const name of ["method", "colormap"]) {
      byId(name).addEventListener("change", () => this.send(name, byId(name).value));
    }
    this.watchTarget();
    byId("controls").addEventListener("submit", (event) => event.preventDefault());
  }

  /** Fill the choices of this model. */
  fit(model) {
    this.model = model;
    fill(byId("method"), model.methods);
    fill(byId("colormap"), Object.keys(model.colormaps));
    const counts = new Map();
    for (const label of model.labels) counts.set(label, (counts.get(label) ?? 0) + 1);
    this.indices = new Map(); // what the list offers -> class
    model.labels.forEach((label, index) => {
      this.indices.set(counts.get(label) > 1 ? `${label} (${index})` : label, index);
    });
    byId("labels").replaceChildren(...[...this.indices.keys()].map((text) => new Option("", text)));
    byId("target").hidden = model.target_kind === "seed";
    document.querySelector('[name="target"][value="-2"]').disabled = model.ranks < 2;
    if (this.settings) this.show(this.settings);
  }

  show(settings) {
    this.settings = settings;
    for (const name of ["alpha", "smooth_s"]) if (!this.isBusy(name)) this.showRange(name, settings[name]);
    if (!this.isBusy("colormap")) byId("colormap").value = settings.colormap;
    if (!this.isBusy("method")) byId("method").value = settings.method ?? this.model?.method ?? "";
    if (!this.isBusy("target")) this.showTarget(settings.target);
    this.showScale(this.isBusy("colormap") ? byId("colormap").value : settings.colormap);
  }

  isBusy(name) {
    return this.sending.has(name) || this.held.has(name);
  }

  watchRange(name) {
    const range = byId(name);
    range.addEventListener("input", () => {
      this.showRange(name, Number(range.value));
      this.send(name, Number(range.value));
    });
    range.addEventListener("pointerdown", () => this.held.add(name));
    for (const end of ["pointerup", "pointercancel", "blur"]) range.addEventListener(end, () => this.held.delete(name));
  }

  showRange(name, value) {
    const range = byId(name);
    range.value = value;
    range.style.setProperty("--fill", `${(100 * (range.value - range.min)) / (range.max - range.min)}%`);
    const text = name === "alpha" ? `${Math.round(100 * value)} %` : value ? `${Number(value.toFixed(2))} s` : OFF;
    byId(`${name}-value`).value = text;
    range.setAttribute("aria-valuetext", text);
  }

  showScale(colormap) {
    const colors = this.model?.colormaps[colormap];
    if (colors) byId("scale").style.background = `linear-gradient(to right, ${colors.join(", ")})`;
  }

  watchTarget() {
    const text = byId("class");
    const choose = (value) => (document.querySelector(`[name="target"][value="${value}"]`).checked = true);
    for (const radio of document.querySelectorAll('[name="target"]')) {
      radio.addEventListener("change", () => {
        if (radio.value !== "class") {
          this.held.delete("target");
          this.send("target", Number(radio.value));
        } else {
          this.held.add("target");
          if (text.value.trim()) this.sendClass();
          else text.focus();
        }
      });
    }
    text.addEventListener("focus", () => text.select());
    text.addEventListener("input", () => {
      this.held.add("target");
      choose("class");
      this.say("target", "");
      if (this.indices?.has(text.value)) this.sendClass(); // chosen from the list
    });
    text.addEventListener("change", () => this.sendClass());
    text.addEventListener("blur", () => {
      if (!text.value.trim()) {
        this.held.delete("target");
        if (this.settings) this.showTarget(this.settings.target);
      }
    });
  }

  sendClass() {
    const text = byId("class").value.trim();
    if (!text || text === this.sentClass) return;
    this.sentClass = text;
    this.held.delete("target");
    this.send("target", this.indices?.get(text) ?? (/^\d+$/.test(text) ? Number(text) : text));
  }

  showTarget(target) {
    const isRank = target === BEST || target === SECOND;
    document.querySelector(`[name="target"][value="${isRank ? target : "class"}"]`).checked = true;
    const text = byId("class");
    if (document.activeElement === text || text.getAttribute("aria-invalid") === "true") return;
    const label = typeof target === "number" ? this.model?.labels[target] : target;
    if (!isRank) text.value = label ?? String(target);
    this.sentClass = isRank ? "" : text.value;
  }

  /** Send a value; while one is under way only the newest waits. */
  async send(name, value) {
    if (this.sending.has(name)) {
      this.sending.set(name, { value });
      return;
    }
    for (let next = { value }; next; next = this.sending.get(name)) {
      this.sending.set(name, undefined);
      await this.post(name, next.value);
    }
    this.sending.delete(name);
    if (this.settings) this.show(this.settings);
  }

  async post(name, value) {
    try {
      const answer = await fetch("/settings", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ [name]: value }),
      });
      const told = await answer.json();
      this.say(name, answer.ok ? "" : told.error);
      if (answer.ok) this.settings = told;
    } catch {
      this.say(name, "Not changed: the server does not answer.");
    }
  }

  say(name, line) {
    byId(`${name}-error`).textContent = line;
    const control = name === "target" ? byId("class") : byId(name);
    if (line) control.setAttribute("aria-invalid", "true");
    else control.removeAttribute("aria-invalid");
    if (line && name === "target") this.sentClass = "";
  }
}

function fill(select, values) {
  const chosen = select.value;
  select.replaceChildren(...values.map((value) => new Option(value, value)));
  if (values.includes(chosen)) select.value = chosen;
}
