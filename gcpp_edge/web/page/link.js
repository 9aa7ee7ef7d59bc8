// The WebSocket of records. It is opened again for as long as the page is there.

const WAIT_MS = [250, 500, 1000, 2000];
const SILENCE_MS = 6000; // the server says something every second

/** on.open, on.closed, on.message(message): called as it happens. */
export function openLink(on) {
  let failures = 0;
  let silence = 0;

  function connect() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const channel = new WebSocket(`${scheme}://${location.host}/records`);
    const listen = () => {
      clearTimeout(silence);
      silence = setTimeout(() => channel.close(), SILENCE_MS);
    };
    channel.onopen = () => {
      failures = 0;
      listen();
      on.open();
    };
    channel.onmessage = (event) => {
      listen();
      on.message(JSON.parse(event.data));
    };
    channel.onclose = () => {
      clearTimeout(silence);
      on.closed();
      setTimeout(connect, WAIT_MS[Math.min(failures++, WAIT_MS.length - 1)]);
    };
  }
  connect();
}
