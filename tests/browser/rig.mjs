// What the test stands on: the engine, the page's server, the browser.

import { spawn } from "node:child_process";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { chromium } from "playwright-core";

const { HELVE = "target/debug/helve", CHROMIUM = "/usr/bin/chromium" } = process.env;
const LIMIT = 60_000;

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits until `check` gives something. */
export async function until(what, check) {
  const end = Date.now() + LIMIT;
  for (;;) {
    const found = await check();
    if (found) return found;
    if (Date.now() > end) throw new Error(`not within ${LIMIT} ms: ${what}`);
    await sleep(50);
  }
}

export async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** A program, with the first line that it prints. */
async function start(command, args, env) {
  const child = spawn(command, args, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "inherit"] });
  const ended = new Promise((resolve) => child.once("exit", resolve).once("error", resolve));
  const lines = createInterface({ input: child.stdout });
  const first = new Promise((resolve) => lines.once("line", resolve));
  const line = await Promise.race([first, ended.then((why) => Promise.reject(new Error(`${command} ended: ${why}`)))]);
  return { line, stop: async () => (child.kill("SIGTERM"), await ended) };
}

export class Engine {
  static async start(env) {
    const args = ["--log", "warn", "dev", "--ephemeral", "--port", "0", "--json"];
    const { line, stop } = await start(HELVE, args, { ...env, DATABASE_URL: undefined });
    const ready = JSON.parse(line);
    return Object.assign(new Engine(), ready, { stop, port: Number(new URL(ready.url).port), bearer: ready.token });
  }

  async call(method, path, body) {
    const response = await fetch(this.url + path, {
      method,
      headers: { authorization: `Bearer ${this.bearer}`, "content-type": "application/json" },
      body: body && JSON.stringify(body),
      signal: AbortSignal.timeout(LIMIT),
    });
    if (!response.ok) throw new Error(`${method} ${path}: ${response.status} ${await response.text()}`);
    return response.json();
  }

  get = (path) => this.call("GET", path);
  post = (path, body) => this.call("POST", path, body);
  put = (path, body) => this.call("PUT", path, body);

  /** A token of the same tenant. */
  async newToken(scopes) {
    const args = ["token", "create", "--tenant", "dev", "--scopes", scopes, "--json"];
    const { line } = await start(HELVE, args, { DATABASE_URL: this.database_url });
    return JSON.parse(line).token;
  }
}

/** The server of examples/browser. */
export function pageServer(env) {
  return start(process.execPath, [fileURLToPath(new URL("../../examples/browser/server.mjs", import.meta.url))], env);
}

export async function browser() {
  const folder = await mkdtemp(join(tmpdir(), "helve-browser-"));
  const quiet = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];
  const launched = await chromium.launch({
    executablePath: CHROMIUM,
    headless: true,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-proxy-server", ...quiet],
    env: { ...process.env, HOME: folder },
  });
  return {
    newContext: () => launched.newContext(),
    close: async () => (await launched.close(), await rm(folder, { recursive: true, force: true })),
  };
}
