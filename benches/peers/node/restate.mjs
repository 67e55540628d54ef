// Restate: a server of its own with its own log, no PostgreSQL. The service and the client are in this process.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { Agent, request } from "node:http";
import { createServer } from "node:http2";
import { createRequire } from "node:module";
import { createServer as createTcpServer } from "node:net";
import { dirname, join } from "node:path";
import * as restate from "@restatedev/restate-sdk";
import { main } from "./driver.mjs";

const quiet = (meta, ...message) => meta.level === "error" && console.error(...message);

async function freePort() {
  const server = createTcpServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  await once(server, "close");
  return port;
}

/** The server's program lies in the package for this machine. */
function program() {
  const name = `@restatedev/restate-server-${process.platform}-${process.arch}`;
  return join(dirname(createRequire(import.meta.url).resolve(`${name}/package.json`)), "bin", "restate-server");
}

/** Asks until it answers well; what the server says goes to standard error. */
async function patiently(ask) {
  const end = Date.now() + 30_000;
  for (;;) {
    const answer = await ask().catch((error) => error);
    if (answer?.ok) return answer;
    if (Date.now() > end) throw new Error(`restate-server is not ready: ${answer?.status ?? answer}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function startServer(base, slots) {
  const [node, ingress, admin] = [await freePort(), await freePort(), await freePort()];
  const env = {
    ...process.env,
    RESTATE_BIND_ADDRESS: `127.0.0.1:${node}`,
    RESTATE_ADVERTISED_ADDRESS: `http://127.0.0.1:${node}`,
    RESTATE_INGRESS__BIND_ADDRESS: `127.0.0.1:${ingress}`,
    RESTATE_ADMIN__BIND_ADDRESS: `127.0.0.1:${admin}`,
    RESTATE_WORKER__INVOKER__CONCURRENT_INVOCATIONS_LIMIT: `${slots}`,
    RESTATE_DISABLE_TELEMETRY: "true",
    RESTATE_ADMIN__DISABLE_WEB_UI: "true",
    RESTATE_LOG_FILTER: "error",
    DO_NOT_TRACK: "1",
  };
  const args = ["--base-dir", base, "--node-name", "peers", "--no-logo", "--listen-mode", "tcp"];
  const child = spawn(program(), args, { env, stdio: ["ignore", "ignore", "inherit"] });
  process.on("exit", () => child.kill("SIGKILL"));
  return { child, ingress: `http://127.0.0.1:${ingress}`, admin: `http://127.0.0.1:${admin}` };
}

/** Plain HTTP with kept connections: half the cost of `fetch`, which the client package uses. */
function poster(base) {
  const agent = new Agent({ keepAlive: true });
  return (path, payload) =>
    new Promise((resolve, reject) => {
      const body = JSON.stringify(payload);
      const headers = { "content-type": "application/json", "content-length": body.length };
      const asked = request(`${base}${path}`, { method: "POST", agent, headers }, (answer) => {
        answer.resume();
        const refused = () => reject(new Error(`${path} was answered ${answer.statusCode}`));
        answer.on("end", answer.statusCode < 300 ? resolve : refused);
      });
      asked.on("error", reject);
      asked.end(body);
    });
}

await main({
  async open({ data, phase }, enter) {
    const gated = phase === "drain" || phase === "one-slot";
    let open;
    const gate = new Promise((resolve) => (open = resolve));
    let held = 0;
    const handler = async (_, payload) => {
      // The backlog waits behind tasks that already hold the slots.
      if (gated) held += 1;
      if (gated) await gate;
      enter(payload);
    };
    const task = restate.service({ name: "task", handlers: { run: handler } });
    const queue = restate.object({ name: "queue", handlers: { run: handler } });
    const endpoint = createServer(restate.createEndpointHandler({ services: [task, queue], logger: quiet }));
    endpoint.listen(0, "127.0.0.1");
    await once(endpoint, "listening");

    const server = await startServer(join(data, `${phase}-${process.pid}`), phase === "drain" ? 4 : 1000);
    await patiently(() => fetch(`${server.admin}/health`));
    const uri = `http://127.0.0.1:${endpoint.address().port}`;
    const register = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify({ uri }) };
    await patiently(() => fetch(`${server.admin}/deployments`, register));
    const post = poster(server.ingress);
    const path = phase === "one-slot" ? "/queue/one/run" : "/task/run";
    return {
      pause: 2,
      oneSlotAtMost: 1000,
      trigger: (payload) => post(`${path}/send`, payload),
      call: (payload) => post(path, payload),
      async work() {
        if (gated) console.error(`restate: ${held} tasks hold slots`);
        open();
      },
      widen: async () => {},
      async close() {
        server.child.kill("SIGTERM");
        await once(server.child, "exit");
      },
    };
  },
});
