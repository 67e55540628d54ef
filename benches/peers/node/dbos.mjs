// DBOS: workflows run in the process that starts them, or come from a queue that is polled.
import { DBOS, DBOSClient } from "@dbos-inc/dbos-sdk";
import { main } from "./driver.mjs";

const quiet = { info() {}, debug() {}, warn() {}, error: console.error };
// A version of its own keeps the client's tasks and the executor's together.
const application = { name: "peers", applicationVersion: "1", logger: quiet };

await main({
  async open({ url, variant, phase }, enter) {
    const config = { ...application, systemDatabaseUrl: url, systemDatabasePoolSize: 40 };
    const task = DBOS.registerWorkflow(async (payload) => enter(payload), { name: "task" });
    DBOS.setConfig(variant === "direct" ? { ...config, listenQueues: [] } : config);
    if (phase === "setup" || variant === "direct") await DBOS.launch();
    if (variant === "direct" || phase === "setup") {
      const start = DBOS.startWorkflow(task);
      return {
        pause: 2,
        trigger: (payload) => start(payload),
        call: async (payload) => (await start(payload)).getResult(),
        work: async () => {},
        close: () => DBOS.shutdown({ workflowCompletionTimeoutMS: 10_000 }),
      };
    }
    const client = await DBOSClient.create({
      systemDatabaseUrl: url,
      systemDatabasePoolSize: 40,
      applicationName: application.name,
      logger: quiet,
    });
    const poll = variant === "queue" ? { minPollingIntervalMs: 10 } : {};
    const enqueue = { queueName: "tasks", workflowName: "task", appVersion: application.applicationVersion };
    let queue;
    return {
      pause: poll.minPollingIntervalMs ?? 1000,
      oneSlotAtMost: 100,
      trigger: (payload) => client.enqueue(enqueue, payload),
      async work(slots) {
        queue = await client.registerQueue("tasks", { workerConcurrency: slots, ...poll });
        await DBOS.launch();
      },
      widen: (slots) => queue.setWorkerConcurrency(slots),
      async close() {
        await DBOS.shutdown({ workflowCompletionTimeoutMS: 10_000 });
        await client.destroy();
      },
    };
  },
});
