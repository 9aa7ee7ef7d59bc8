// The picture: parts of /stream.mjpg drawn on a canvas. A part is read when the one before is drawn, so a slow viewer
// skips frames at the server and nothing piles up here.

const WAIT_MS = [300, 600, 1200, 2000];

/** Draws until it is stopped, and starts anew when the server is gone. onFrame: of each, its id and timestamp. */
export function watchPicture(canvas, onFrame) {
  const context = canvas.getContext("2d");
  let running = null;
  let failures = 0;

  async function run(signal) {
    while (!signal.aborted) {
      try {
        const answer = await fetch("/stream.mjpg", { signal, cache: "no-store" });
        if (!answer.ok || !answer.body) throw new Error(`status ${answer.status}`);
        for await (const part of parts(answer.body.getReader())) {
          const bitmap = await createImageBitmap(new Blob([part.content], { type: "image/jpeg" }));
          if (signal.aborted) return;
          if (canvas.width !== bitmap.width || canvas.height !== bitmap.height) {
            canvas.width = bitmap.width;
            canvas.height = bitmap.height;
          }
          context.drawImage(bitmap, 0, 0);
          bitmap.close();
          failures = 0;
          onFrame({ id: Number(part.headers["x-frame-id"]), timestamp: Number(part.headers["x-timestamp"]) });
        }
      } catch {
        // the server is gone, or this was stopped: both are seen below
      }
      if (!signal.aborted) await sleep(WAIT_MS[Math.min(failures++, WAIT_MS.length - 1)], signal);
    }
  }

  return {
    start() {
      if (running) return;
      running = new AbortController();
      run(running.signal);
    },
    stop() {
      running?.abort();
      running = null;
    },
  };
}

/** Parts of a multipart stream: { headers, content }. */
async function* parts(reader) {
  const bytes = new ByteQueue(reader);
  await bytes.line(); // the first boundary
  while (true) {
    const headers = {};
    for (let line = await bytes.line(); line; line = await bytes.line()) {
      const colon = line.indexOf(":");
      headers[line.slice(0, colon).toLowerCase()] = line.slice(colon + 1).trim();
    }
    const content = await bytes.take(Number(headers["content-length"]));
    yield { headers, content };
    await bytes.take(2); // the line end that belongs to the boundary
    await bytes.line();
  }
}

/** What was read and not yet taken. */
class ByteQueue {
  constructor(reader) {
    this.reader = reader;
    this.held = new Uint8Array(0);
    this.start = 0;
  }

  async more() {
    const { done, value } = await this.reader.read();
    if (done) throw new Error("the stream has ended");
    const rest = this.held.subarray(this.start);
    this.held = new Uint8Array(rest.length + value.length);
    this.held.set(rest);
    this.held.set(value, rest.length);
    this.start = 0;
  }

  async take(count) {
    while (this.held.length - this.start < count) await this.more();
    const taken = this.held.slice(this.start, this.start + count);
    this.start += count;
    return taken;
  }

  async line() {
    let end;
    while ((end = this.held.indexOf(10, this.start)) < 0) await this.more();
    const line = new TextDecoder().decode(this.held.subarray(this.start, end));
    this.start = end + 1;
    return line.replace(/\r$/, "");
  }
}

function sleep(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
