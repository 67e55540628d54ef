// The page of examples/browser at work in headless Chromium, disturbed again and again: every run must end as promised.
//
//   npm install --prefix tests/browser
//   node tests/browser/run.mjs [--minutes 1]
//
//   HELVE     the engine        [target/debug/helve]
//   CHROMIUM  the browser       [/usr/bin/chromium]

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { parseArgs } from "node:util";

import { proxy } from "./proxy.mjs";
import { Engine, browser, freePort, pageServer, sleep, until } from "./rig.mjs";

const { minutes } = parseArgs({ options: { minutes: { type: "string", default: "1" } } }).values;
const until_ms = Date.now() + Number(minutes) * 60_000;
const GRACE = 15_000; // a session without a socket keeps its work for so long
const EVERY = 200; // a trigger each so many milliseconds

const stop = []; // what was started, to be ended in reverse order

async function main() {
  const port = await freePort();
  const engine = await Engine.start({ HELVE_HTTP_ORIGINS: `http://127.0.0.1:${port}` });
  stop.push(() => engine.stop());
  // No retry: an attempt more than promised is a failed run, or one that is seen.
  await engine.put("/v1/workflows/digest", { tasks: [{ name: "digest", retries: 0, execution_timeout: "60s" }] });
  const between = await proxy(engine.port);
  stop.push(async () => between.close());
  const token = await engine.newToken("worker");
  const server = await pageServer({ PORT: port, HELVE_URL: engine.url, HELVE_TOKEN: token,
    HELVE_SOCKET_URL: `http://127.0.0.1:${between.port}` });
  stop.push(() => server.stop());
  const chromium = await browser();
  stop.push(() => chromium.close());

  const tab = new Tab(chromium, `http://127.0.0.1:${port}/`);
  await tab.open();
  const load = new Load(engine);
  const feeding = load.feed();
  const counts = await disturb(tab, between, load);
  load.over = true;
  await feeding;
  const runs = await load.finished();
  const figures = judge(runs, load.handovers);
  await closedAtOnce(tab, engine);
  console.log(JSON.stringify({ ...figures, handovers: load.handovers.length, disturbances: counts, page: tab.counts }));
}

/** A tab with the page, in a context of its own: another tab knows nothing of its session. */
class Tab {
  constructor(chromium, url) {
    Object.assign(this, { chromium, url, counts: { loads: 0, sockets: 0, resumed: 0 }, problems: [] });
  }

  async open() {
    this.context = await this.chromium.newContext();
    this.page = await this.context.newPage();
    this.page.on("pageerror", (error) => this.problems.push(error.message));
    this.cdp = await this.context.newCDPSession(this.page);
    await this.page.goto(this.url);
    await this.connected();
  }

  connected() {
    this.counts.loads += 1;
    return until("the page is connected", () => this.page.evaluate(() => window.worker?.status === "connected"));
  }

  session() {
    return this.page.evaluate(() => window.worker.session?.session);
  }

  /** Adds up what the page has counted, before it is gone. */
  async collect() {
    const { sockets, resumed } = await this.page.evaluate(() => window.worker.counts);
    this.counts.sockets += sockets;
    this.counts.resumed += resumed;
    assert.deepEqual(this.problems, [], "the page has thrown");
  }

  async close() {
    await this.collect();
    await this.page.close({ runBeforeUnload: true });
    await until("the tab is closed", async () => this.page.isClosed());
    await this.context.close();
  }

  async offline(ms) {
    await this.context.setOffline(true);
    await until("the page is offline", () => this.page.evaluate(() => window.worker.status === "offline"));
    await sleep(ms);
    await this.context.setOffline(false);
    await this.again();
  }

  /** Still, or again, connected with a socket that answers. */
  again() {
    return until("the page has come back", () =>
      this.page.evaluate(() => window.worker.status === "connected" && window.worker.welcome !== null));
  }
}

/** Goes on until the time is over, and does each thing at least once. */
async function disturb(tab, between, load) {
  const stays = async (what) => {
    const before = await tab.session();
    await what();
    assert.equal(await tab.session(), before, "the session must go on");
  };
  const things = {
    /** The connection breaks. */
    kill: () => stays(async () => {
      const sockets = await tab.page.evaluate(() => window.worker.counts.sockets);
      between.kill();
      await until("a new socket", () => tab.page.evaluate((n) => window.worker.counts.sockets > n, sockets));
      await tab.again();
    }),
    /** The user reloads. */
    reload: () => stays(async () => {
      await tab.collect();
      await tab.page.reload();
      await tab.connected();
    }),
    /** The network is gone for a moment. */
    offline: () => stays(() => tab.offline(1_000 + Math.random() * 5_000)),
    /** The browser freezes the tab for a moment. */
    freeze: () => stays(() => frozen(tab, 2_500)),
    /** Nothing passes, and nobody is told. */
    hold: () => stays(async () => {
      between.hold(true);
      await sleep(3_000);
      between.hold(false);
      await tab.again();
    }),
    /** The tab is closed, and another one opened: work goes over. */
    close: () => load.handover(async () => {
      await tab.close();
      await tab.open();
    }),
  };
  if (Number(minutes) >= 3) {
    // Longer than an assignment may stay unconfirmed, or than the grace: work is taken back.
    things.long_offline = () => load.handover(() => tab.offline(GRACE + 4_000));
    things.sleep = () => load.handover(async () => (await frozen(tab, 9_000), await tab.again()));
    things.long_hold = () => load.handover(async () => {
      between.hold(true);
      await sleep(9_000);
      between.hold(false);
      await sleep(1_000);
      await tab.again();
    });
  }
  const counts = Object.fromEntries(Object.keys(things).map((name) => [name, 0]));
  do {
    for (const [name, thing] of Object.entries(things)) {
      await sleep(1_000 + Math.random() * 1_500);
      await thing();
      counts[name] += 1;
    }
  } while (Date.now() < until_ms - 20_000);
  return counts;
}

async function frozen(tab, ms) {
  await tab.cdp.send("Page.setWebLifecycleState", { state: "frozen" });
  await sleep(ms);
  await tab.cdp.send("Page.setWebLifecycleState", { state: "active" });
}

/** Triggers runs all the time, and knows what they must become. */
class Load {
  constructor(engine) {
    Object.assign(this, { engine, over: false, wanted: new Map(), handovers: [] });
  }

  async feed() {
    for (let i = 0; !this.over; i += 1) {
      const text = `text ${i} ${"x".repeat(i % 1_000)}`;
      const ms = i % 20 === 0 ? 4_000 : Math.round(Math.random() * 1_500);
      const run = await this.engine.post("/v1/runs", { workflow: "digest", input: { text, ms } });
      this.wanted.set(run.id, createHash("sha256").update(text).digest("hex"));
      await sleep(EVERY);
    }
  }

  /** Does what makes the engine give work to others, and notes when. */
  async handover(what) {
    const from = Date.now();
    await what();
    // The engine learns of it a little later than we do.
    this.handovers.push([from - 500, Date.now() + 1_000]);
  }

  async finished() {
    const runs = [];
    for (const [id, sha256] of this.wanted) {
      const run = await until(`${id} has ended`, async () => {
        const run = await this.engine.get(`/v1/runs/${id}`);
        return run.finished_at && run;
      });
      runs.push({ ...run, sha256 });
    }
    return runs;
  }
}

/** Each run has succeeded with the right output, and every attempt beyond the first has its reason. */
function judge(runs, handovers) {
  let again = 0;
  for (const run of runs) {
    assert.equal(run.status, "succeeded", JSON.stringify(run));
    assert.equal(run.output.sha256, run.sha256, "the output is that of the run's own input");
    const [from, to] = [Date.parse(run.created_at), Date.parse(run.finished_at)];
    const reasons = handovers.filter(([start, end]) => start <= to && from <= end).length;
    assert.ok(run.attempt <= 1 + reasons, `${run.attempt} attempts, ${reasons} reasons: ${JSON.stringify(run)}`);
    again += run.attempt - 1;
  }
  return { runs: runs.length, attempts_beyond_the_first: again };
}

/** A closed tab says goodbye: its worker is gone long before the grace is over, and its work is free. */
async function closedAtOnce(tab, engine) {
  const run = await engine.post("/v1/runs", { workflow: "digest", input: { text: "x", ms: 60_000 } });
  await until("it is at work", async () => (await engine.get(`/v1/runs/${run.id}`)).status === "running");
  const closed = Date.now();
  await tab.close();
  await until("the worker is gone", async () => (await engine.get("/v1/workers")).items.length === 0);
  await until("its work is free", async () => (await engine.get(`/v1/runs/${run.id}`)).status === "queued");
  const took = Date.now() - closed;
  assert.ok(took < GRACE / 3, `the goodbye of a closed tab took ${took} ms`);
}

let failed;
try {
  await main();
} catch (error) {
  failed = error;
}
for (const end of stop.reverse()) await end().catch((error) => console.error(`at the end: ${error.message}`));
if (failed) {
  console.error(failed);
  process.exit(1);
}
