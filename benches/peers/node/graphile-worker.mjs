// graphile-worker: LISTEN/NOTIFY, in one process with its client.
import { Logger, makeWorkerUtils, run, runMigrations } from "graphile-worker";
import { main } from "./driver.mjs";

const quiet = new Logger(() => (level, message) => {
  if (level === "error") console.error(message);
});

// What its page on performance recommends for many small jobs, against what it does when told nothing.
const tuning = {
  tuned: { localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0, maxPoolSize: 25 },
  defaults: {},
};

await main({
  async open({ url, variant, phase }, enter) {
    const options = { connectionString: url, logger: quiet };
    if (phase === "setup") await runMigrations(options);
    const client = await makeWorkerUtils({ ...options, maxPoolSize: 10 });
    const workers = [];
    const work = async (slots) => {
      const preset = { worker: { connectionString: url, concurrentJobs: slots, ...tuning[variant] } };
      const taskList = { task: async (payload) => enter(payload) };
      workers.push(await run({ preset, taskList, logger: quiet, noHandleSignals: true, parsedCronItems: [] }));
    };
    return {
      pause: 2,
      oneSlotAtMost: variant === "tuned" ? 20_000 : 2000,
      trigger: (payload) => client.addJob("task", payload),
      bulk: (payloads) => client.addJobs(payloads.map((payload) => ({ identifier: "task", payload }))),
      work,
      widen: work,
      async close() {
        for (const worker of workers) await worker.stop();
        await client.release();
      },
    };
  },
});
