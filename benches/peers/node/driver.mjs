// One phase of one peer: loads it, counts what was executed against what was accepted, prints one line of JSON.
// A peer is a module whose default export has `open(settings, enter)`: see README.md beside this folder.

const second = 1e9;
const now = () => Number(process.hrtime.bigint());
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** What was accepted, and how often each task function was entered. */
class Ledger {
  accepted = new Set();
  entered = new Map();
  waiting = new Map();
  executed = 0;
  last = 0;
  next = 0;

  /** A payload of 200 bytes as JSON, with an id that no other process uses. */
  payload() {
    const id = `${process.pid}-${this.next++}`;
    const bare = JSON.stringify({ id, fill: "" }).length;
    return { id, fill: "x".repeat(200 - bare) };
  }

  /** Called by the task function, first thing. */
  enter = (payload) => {
    this.last = now();
    this.executed += 1;
    this.entered.set(payload.id, (this.entered.get(payload.id) ?? 0) + 1);
    this.waiting.get(payload.id)?.(this.last);
    this.waiting.delete(payload.id);
  };

  wait(id) {
    return new Promise((resolve) => this.waiting.set(id, resolve));
  }

  async all(seconds) {
    const end = now() + seconds * second;
    while (this.entered.size < this.accepted.size && now() < end) await sleep(2);
    // A second execution would come now.
    await sleep(100);
  }

  verdict() {
    const missing = [...this.accepted].filter((id) => !this.entered.has(id)).length;
    const twice = [...this.entered.values()].filter((times) => times > 1).length;
    const foreign = [...this.entered.keys()].filter((id) => !this.accepted.has(id)).length;
    return { accepted: this.accepted.size, executed: this.executed, missing, twice, foreign };
  }
}

function percentiles(samples) {
  const sorted = samples.toSorted((a, b) => a - b);
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] / 1e6;
  return sorted.length === 0 ? { samples: 0 } : { samples: sorted.length, p50_ms: at(0.5), p99_ms: at(0.99) };
}

const phases = {
  /** One at a time: from before the trigger is sent to the first line of the task function. */
  async start(session, ledger, { seconds }) {
    await session.work(100);
    const [from, end] = [now() + second, now() + (seconds + 1) * second];
    const samples = [];
    while (now() < end) {
      const payload = ledger.payload();
      const entered = ledger.wait(payload.id);
      const begin = now();
      await session.trigger(payload);
      ledger.accepted.add(payload.id);
      const at = await entered;
      if (begin >= from) samples.push(at - begin);
      // The completion is stored in silence, and a poll is met at any point of its interval.
      await sleep(1 + Math.random() * session.pause);
    }
    return percentiles(samples);
  },

  /** One at a time: until the stored result is back at the client. */
  async "round-trip"(session, ledger, { seconds }) {
    await session.work(100);
    const [from, end] = [now() + second, now() + (seconds + 1) * second];
    const samples = [];
    while (now() < end) {
      const payload = ledger.payload();
      const begin = now();
      await session.call(payload);
      ledger.accepted.add(payload.id);
      if (begin >= from) samples.push(now() - begin);
    }
    return percentiles(samples);
  },

  /** Clients that each have one task underway. */
  async throughput(session, ledger, { seconds, clients }) {
    await session.work(100);
    // Few first: connections are opened and code is compiled before the many come.
    await closedLoop(session, ledger, 4, now() + second);
    const all = closedLoop(session, ledger, clients, now() + (seconds + 1) * second);
    await sleep(1000);
    const [before, begin, used] = [ledger.executed, now(), process.cpuUsage()];
    await sleep(seconds * 1000);
    const took = now() - begin;
    const { user, system } = process.cpuUsage(used);
    const per_second = ((ledger.executed - before) * second) / took;
    await all;
    return { per_second, driver_cores: ((user + system) * 1000) / took };
  },

  /** A backlog, then one worker with 100 slots. The time runs from before the worker starts. */
  async drain(session, ledger, { backlog }) {
    const filled = await fill(session, ledger, backlog);
    const begin = now();
    await session.work(100);
    await ledger.all(120);
    return { per_second: (ledger.accepted.size * second) / (ledger.last - begin), ...filled };
  },

  /** A backlog behind one slot; what is left after the window is drained by 100, for the ledger. */
  async "one-slot"(session, ledger, { seconds }) {
    const filled = await fill(session, ledger, Math.ceil(seconds + 1) * (session.oneSlotAtMost ?? 2000));
    await session.work(1);
    await sleep(1000);
    const [before, begin] = [ledger.executed, now()];
    await sleep(seconds * 1000);
    const emptied = ledger.executed >= ledger.accepted.size;
    const per_second = ((ledger.executed - before) * second) / ((emptied ? ledger.last : now()) - begin);
    await session.widen(100);
    await ledger.all(120);
    return { per_second, emptied, ...filled };
  },
};

async function closedLoop(session, ledger, clients, end) {
  const client = async () => {
    while (now() < end) {
      const payload = ledger.payload();
      const entered = ledger.wait(payload.id);
      await (session.call ?? session.trigger)(payload);
      ledger.accepted.add(payload.id);
      await entered;
    }
  };
  await Promise.all(Array.from({ length: clients }, client));
}

async function fill(session, ledger, count) {
  const begin = now();
  const payloads = Array.from({ length: count }, () => ledger.payload());
  if (session.bulk) {
    for (let at = 0; at < count; at += 1000) await session.bulk(payloads.slice(at, at + 1000));
  } else {
    const left = payloads.values();
    const client = async () => {
      for (const payload of left) await session.trigger(payload);
    };
    await Promise.all(Array.from({ length: 32 }, client));
  }
  for (const { id } of payloads) ledger.accepted.add(id);
  return { filled_per_second: (count * second) / (now() - begin) };
}

/** Runs the phase that the command line names. */
export async function main(peer) {
  const [phase, clients] = process.argv.slice(2);
  const number = (name) => Number(process.env[name]);
  const settings = {
    url: process.env.PEER_URL,
    variant: process.env.PEER_VARIANT,
    data: process.env.PEER_DATA,
    seconds: number("PEER_SECONDS"),
    backlog: number("PEER_BACKLOG"),
    clients: Number(clients ?? 1),
    phase,
  };
  const watchdog = setTimeout(() => fail(new Error(`${phase} did not end`)), number("PEER_TIMEOUT") * 1000);
  const ledger = new Ledger();
  const session = await peer.open(settings, ledger.enter);
  let figures = {};
  if (phase !== "setup") figures = await phases[phase](session, ledger, settings);
  if (phase === "start" || phase === "throughput" || phase === "round-trip") await ledger.all(30);
  await session.close();
  clearTimeout(watchdog);
  process.stdout.write(`${JSON.stringify({ ...figures, ...ledger.verdict() })}\n`, () => process.exit(0));
}

function fail(error) {
  console.error(error);
  process.exit(1);
}
process.on("unhandledRejection", fail);
process.on("uncaughtException", fail);
