// The page's own server: it holds the token, serves the page, and hands out tickets. Node 18 or later, nothing else.
//
//   HELVE_URL         where the engine is                            [http://127.0.0.1:7733]
//   HELVE_TOKEN       a token with the scope `worker`
//   HELVE_SOCKET_URL  where pages find the engine, if not there      [HELVE_URL]
//   PORT              where to listen on 127.0.0.1                   [8080]
//
// The engine must allow the page's origin: HELVE_HTTP_ORIGINS=http://127.0.0.1:8080

import { randomUUID } from "node:crypto";
import { readFile } from "node:fs/promises";
import { createServer } from "node:http";

const { HELVE_URL = "http://127.0.0.1:7733", HELVE_TOKEN, PORT = "8080" } = process.env;
const socketUrl = (process.env.HELVE_SOCKET_URL ?? HELVE_URL).replace(/^http/, "ws") + "/v1/worker/connect";
const origin = `http://127.0.0.1:${PORT}`;
if (!HELVE_TOKEN) throw new Error("HELVE_TOKEN is not set");

const files = {
  "/": ["index.html", "text/html"],
  "/page.js": ["page.js", "text/javascript"],
  "/helve-worker.js": ["helve-worker.js", "text/javascript"],
  "/timers.js": ["timers.js", "text/javascript"],
};

/** Asks the engine for a ticket: it allows this one action, ten slots, and this page's origin alone, once. */
async function ticket() {
  const response = await fetch(`${HELVE_URL}/v1/worker/tickets`, {
    method: "POST",
    headers: { authorization: `Bearer ${HELVE_TOKEN}`, "content-type": "application/json" },
    body: JSON.stringify({ actions: ["digest"], slots: { default: 10 }, origin, expires_in: "30s" }),
    signal: AbortSignal.timeout(5_000),
  });
  if (!response.ok) throw new Error(`${response.status} ${await response.text()}`);
  return (await response.json()).ticket;
}

async function answer(request, response) {
  if (request.method === "POST" && request.url === "/ticket") {
    // Here your server asks who the user is: whoever gets a ticket gets work. Pages of others must not get one.
    if (request.headers.origin !== origin) return response.writeHead(403).end();
    const body = JSON.stringify({ url: socketUrl, ticket: await ticket() });
    return response.writeHead(200, { "content-type": "application/json", "cache-control": "no-store" }).end(body);
  }
  const [file, type] = files[request.url] ?? [];
  if (!file || request.method !== "GET") return response.writeHead(404).end();
  const headers = { "content-type": `${type}; charset=utf-8`, "cache-control": "no-cache" };
  headers["content-security-policy"] = `default-src 'self' data:; style-src 'unsafe-inline'; connect-src 'self' ${socketUrl}`;
  // By this the page tells a reload from its end: see page.js.
  if (request.url === "/") headers["set-cookie"] = `load=${randomUUID()}; Max-Age=30; SameSite=Strict`;
  response.writeHead(200, headers).end(await readFile(new URL(file, import.meta.url)));
}

const server = createServer((request, response) => {
  answer(request, response).catch((error) => {
    console.error(`${request.method} ${request.url}: ${error.message}`);
    if (!response.headersSent) response.writeHead(503);
    response.end();
  });
});
server.listen(Number(PORT), "127.0.0.1", () => console.log(`The worker is the page ${origin}`));
