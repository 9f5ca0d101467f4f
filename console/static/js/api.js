// The REST API and the live sockets.

export class ApiError extends Error {
  /** @param {number} status @param {string} error @param {string} hint */
  constructor(status, error, hint) {
    super(error);
    this.status = status;
    this.hint = hint;
  }
}

/** To the sign-in page and back here afterwards. */
function signIn() {
  location.assign(`/login?next=${encodeURIComponent(location.pathname + location.search)}`);
}

/**
 * @param {string} path below /api/v1
 * @param {RequestInit} [options]
 * @returns {Promise<any>} the JSON; throws ApiError
 */
export async function api(path, options = {}) {
  let response;
  try {
    response = await fetch(`/api/v1${path}`, { headers: { "content-type": "application/json" }, ...options });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ApiError(0, "The console does not answer", "Is offhook running?");
  }
  if (response.status === 401) signIn();
  const body = await response.json().catch(() => ({}));
  if (!response.ok) throw new ApiError(response.status, body.error || `HTTP ${response.status}`, body.hint || "");
  return body;
}

/**
 * A WebSocket that comes back by itself and resumes after the last event it saw.
 * States: "connecting", "live", "lost" (trying again), "over" (nothing more will come), "unknown" (no such call).
 */
export class LiveSocket {
  /**
   * @param {string} path below /api/v1
   * @param {(message: any) => void} onMessage
   * @param {(state: string) => void} onState
   */
  constructor(path, onMessage, onState) {
    this.path = path;
    this.onMessage = onMessage;
    this.onState = onState;
    this.position = "";
    this.tries = 0;
    this.closed = false;
    this.connect();
  }

  connect() {
    this.onState(this.tries ? "lost" : "connecting");
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const after = this.position ? `&after=${this.position}` : "";
    const socket = new WebSocket(`${scheme}://${location.host}/api/v1${this.path}?batch=1${after}`);
    this.socket = socket;
    let opened = false;
    socket.onopen = () => {
      opened = true;
      this.tries = 0;
      this.onState("live");
    };
    socket.onmessage = ({ data }) => {
      for (const message of [JSON.parse(data)].flat()) {
        if (message.position) this.position = message.position;
        this.onMessage(message);
      }
    };
    socket.onclose = ({ code }) => {
      if (this.closed) return;
      if (code === 1000) return this.onState("over");
      if (code === 4404) return this.onState("unknown");
      this.onState("lost");
      // A session that has expired refuses the socket without saying why: ask once over HTTP, which can say.
      if (!opened) api("/calls?live=true&limit=1").catch(() => {});
      const wait = code === 1013 ? 50 : Math.min(500 * 2 ** this.tries, 5000) * (0.7 + 0.6 * Math.random());
      this.tries += 1;
      this.timer = setTimeout(() => this.connect(), wait);
    };
  }

  close() {
    this.closed = true;
    clearTimeout(this.timer);
    this.socket.close();
  }
}
