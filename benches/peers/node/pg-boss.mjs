// pg-boss: LISTEN/NOTIFY where it is switched on, polling otherwise; in one process with its client.
import { PgBoss } from "pg-boss";
import { main } from "./driver.mjs";

await main({
  async open({ url, variant, phase }, enter) {
    const fast = variant === "tuned";
    const boss = new PgBoss({ connectionString: url, max: 40, useListenNotify: fast });
    boss.on("error", console.error);
    await boss.start();
    const queue = `task-${variant}`;
    if (phase === "setup") await boss.createQueue(queue, { notify: fast });

    const tuned = { batchSize: 100, burstWhenBatchFull: true, pollingIntervalSeconds: 0.5 };
    const options = (slots) => (fast ? tuned : { localConcurrency: slots });
    const work = (slots) => boss.work(queue, options(slots), async (jobs) => jobs.forEach((job) => enter(job.data)));

    // Its workers wait for a poll between two batches of one, so a single slot is a loop of its own.
    let [single, wide] = [Promise.resolve(), false];
    const loop = async () => {
      while (!wide) {
        const [job] = await boss.fetch(queue);
        if (!job) return;
        enter(job.data);
        await boss.complete(queue, job.id);
      }
    };
    return {
      pause: fast ? 2 : 2000,
      trigger: (payload) => boss.send(queue, payload),
      bulk: (payloads) => boss.insert(queue, payloads.map((data) => ({ data }))),
      work: async (slots) => (slots === 1 ? void (single = loop()) : work(slots)),
      async widen(slots) {
        wide = true;
        await single;
        await work(slots);
      },
      close: () => boss.stop({ graceful: true, close: true, timeout: 30_000 }),
    };
  },
});
