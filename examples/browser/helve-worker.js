// A Helve worker that lives in a page: one WebSocket, and a copy of everything that matters in sessionStorage.
// docs/protocol.md has every frame and close code.

const HANDSHAKE = 10_000; // the longest from "open a socket" to `welcome`
const PONG = 5_000; // the longest wait for the answer to a ping
const STABLE = 10_000; // a connection that lasted this long counts as a good one
const FATAL = [4400, 4403, 4413]; // the page is wrong: trying again would not help
const REPLACED = 4409; // another tab goes on with this session

const timers = new Worker("timers.js");
const waiting = new Map();
let lastTimer = 0;
timers.onmessage = ({ data: id }) => {
  waiting.get(id)();
  waiting.delete(id);
};

/** Resolves after `ms`, also in a hidden tab. */
export function sleep(ms) {
  const id = ++lastTimer;
  timers.postMessage({ id, ms });
  return new Promise((resolve) => waiting.set(id, resolve));
}

const keyOf = ({ task_run, attempt }) => `${task_run}/${attempt}`;
const attemptOf = ({ task_run, attempt }) => ({ task_run, attempt });

export class HelveWorker {
  /**
   * `actions`: a function for each action, `async (input, signal) => output`.
   * `ticket`: `async () => ({ url, ticket })`, asked for anew before each socket.
   * `changed`: called when there is something new to show.
   */
  constructor({ name, actions, slots, ticket, changed }) {
    Object.assign(this, { name, actions, slots, ticket, changed });
    this.socket = null; // the one whose frames count
    this.welcome = null; // what the engine said last, while the socket is open
    this.running = new Map(); // what is at work: an AbortController by attempt
    this.failures = 0; // since the last good connection
    this.failingSince = 0;
    this.stopped = false;
    this.status = "starting";
    this.counts = { sockets: 0, resumed: 0, stored: 0 };
    this.load();
    addEventListener("online", () => {
      this.failures = 0;
      this.wake?.();
    });
    addEventListener("offline", () => this.lost("offline"));
  }

  /** Connects, and connects again, until `leave` or a fatal close code. */
  async run() {
    this.startAll(); // after a reload: what was at work goes on, whether the engine is there or not
    while (!this.stopped) {
      const started = performance.now();
      try {
        await this.connection();
      } catch (error) {
        this.show(`no connection: ${error.message}`);
      }
      if (this.stopped) break;
      if (performance.now() - started > STABLE) this.failures = 0;
      await this.pause();
    }
  }

  /** Leaves for good: what is not done goes to others at once. */
  leave() {
    this.stopped = true;
    if (this.send({ type: "goodbye" })) this.forget();
    this.wake?.();
  }

  // ---- One connection ----

  /** Opens a socket and serves it until it ends. */
  async connection() {
    this.show("connecting");
    const { url, ticket } = await this.ticket();
    const socket = new WebSocket(url, ["helve.v1", ticket]);
    this.socket = socket;
    this.counts.sockets += 1;
    const ended = new Promise((resolve) => (this.end = resolve));
    socket.onopen = () => this.hello();
    // A socket that was given up may still say something: it does not count any more.
    socket.onmessage = ({ data }) => this.socket === socket && this.heard(JSON.parse(data));
    socket.onclose = ({ code }) => this.socket === socket && this.lost(`closed with ${code}`, code);
    this.watch(socket);
    await ended;
  }

  hello() {
    const hello = {
      type: "hello",
      protocol: 1,
      name: this.name,
      sdk: "browser-example",
      actions: Object.keys(this.actions),
      slots: this.slots,
    };
    if (this.session) {
      const held = [...this.tasks.values(), ...this.results.values()];
      hello.resume = { ...this.session, holding: held.map(attemptOf) };
    }
    this.send(hello);
  }

  /** Keeps the connection alive, and notices when it is not: after a sleep the socket may look open and be dead. */
  async watch(socket) {
    await sleep(HANDSHAKE);
    if (this.socket === socket && !this.welcome) return this.lost("no answer");
    while (this.socket === socket) {
      const asked = performance.now();
      this.send({ type: "ping" });
      await sleep(PONG);
      if (this.socket === socket && this.lastHeard < asked) return this.lost("silence");
    }
  }

  /** The connection is over. The work goes on: the engine keeps it for us for `grace_ms`. */
  lost(why, code) {
    const socket = this.socket;
    if (!socket) return;
    this.socket = null;
    this.welcome = null;
    socket.close();
    if (code === REPLACED) this.forget();
    if (FATAL.includes(code)) this.stopped = true;
    this.show(why);
    this.end();
  }

  /** Full jitter: a random wait below a bound that doubles. A thousand pages must not come back in one instant. */
  async pause() {
    const now = performance.now();
    if (this.failures === 0) this.failingSince = now;
    // The engine keeps our work for 15 s, so the first minute is one of short waits.
    const most = now - this.failingSince < 60_000 ? 5_000 : 30_000;
    const bound = Math.min(most, 500 * 2 ** Math.min(this.failures, 10));
    this.failures += 1;
    while (!navigator.onLine && !this.stopped) await new Promise((resolve) => (this.wake = resolve));
    await sleep(Math.random() * bound);
  }

  // ---- Frames ----

  /** False when there is no open socket. Nothing is lost by that: what matters is said again on the next one. */
  send(frame) {
    if (this.socket?.readyState !== WebSocket.OPEN) return false;
    this.socket.send(JSON.stringify(frame));
    return true;
  }

  heard(frame) {
    this.lastHeard = performance.now();
    switch (frame.type) {
      case "welcome":
        return this.welcomed(frame);
      case "assign":
        return this.assigned(frame.tasks);
      case "stored": // the result is committed: only now it may be forgotten
        this.counts.stored += frame.results.length;
        return this.drop(frame.results);
      case "superseded": // these attempts do not count any more
        return this.drop(frame.tasks);
      case "cancel": // stop, and say anything as the result: that frees the slot
        return frame.tasks.forEach((task) => this.finish(keyOf(task), { outcome: "released" }));
      case "error":
        console.error("Helve:", frame);
    }
  }

  welcomed(frame) {
    this.welcome = frame;
    frame.warnings?.forEach((warning) => console.warn("Helve:", warning)); // what the hello hardly means
    this.counts.resumed += frame.resumed ? 1 : 0;
    this.session = { session: frame.session, secret: frame.secret }; // the secret is new each time
    this.drop(frame.superseded);
    if (this.results.size > 0) this.send({ type: "result", results: [...this.results.values()] });
    this.show("connected");
  }

  assigned(tasks) {
    for (const task of tasks) {
      const key = keyOf(task);
      // The same attempt may come twice: it is started once.
      if (!this.tasks.has(key) && !this.results.has(key)) this.tasks.set(key, task);
    }
    this.save(); // before `received`: what is confirmed survives a reload
    this.send({ type: "received", tasks: tasks.map(attemptOf) });
    this.startAll();
    this.show("connected");
  }

  // ---- Work ----

  startAll() {
    for (const [key, task] of this.tasks) if (!this.running.has(key)) this.start(key, task);
  }

  async start(key, task) {
    const abort = new AbortController();
    this.running.set(key, abort);
    try {
      const output = await this.actions[task.action](task.input, abort.signal);
      JSON.stringify(output); // what is no JSON, such as a BigInt, is a failure, and not this page's end
      this.finish(key, { outcome: "succeeded", output });
    } catch (error) {
      this.finish(key, { outcome: "failed", error: { message: String(error?.message ?? error) } });
    }
  }

  /** The attempt has ended: its result is kept until the engine says `stored`. */
  finish(key, outcome) {
    const task = this.tasks.get(key);
    if (!task) return; // it is over already, and nobody waits for its result
    const result = { ...attemptOf(task), ...outcome };
    this.stop(key);
    this.results.set(key, result);
    this.save();
    this.send({ type: "result", results: [result] });
    this.show();
  }

  /** Forgets attempts that are stored or over. */
  drop(attempts) {
    for (const attempt of attempts) {
      this.stop(keyOf(attempt));
      this.results.delete(keyOf(attempt));
    }
    this.save();
    this.show();
  }

  stop(key) {
    this.tasks.delete(key);
    this.running.get(key)?.abort();
    this.running.delete(key);
  }

  // ---- What survives a reload: this tab's sessionStorage ----

  load() {
    const kept = JSON.parse(sessionStorage.getItem("helve") ?? "{}");
    this.session = kept.session ?? null;
    this.tasks = new Map(kept.tasks ?? []); // not done, by attempt
    this.results = new Map(kept.results ?? []); // done and not yet `stored`, by attempt
  }

  /** The browser gives about 5 MB. Larger inputs and outputs belong into IndexedDB. */
  save() {
    const { session, tasks, results } = this;
    sessionStorage.setItem("helve", JSON.stringify({ session, tasks: [...tasks], results: [...results] }));
  }

  forget() {
    for (const key of [...this.running.keys()]) this.stop(key);
    this.session = null;
    this.tasks.clear();
    this.results.clear();
    this.save();
  }

  show(status = this.status) {
    this.status = status;
    this.changed?.(this);
  }
}
