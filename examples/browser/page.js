// The page: what it can do, when it leaves, and what it shows.

import { HelveWorker, sleep } from "./helve-worker.js";

const actions = {
  /** The SHA-256 of a text, after `ms` milliseconds of "work". */
  async digest({ text, ms = 0 }, signal) {
    await sleep(ms);
    signal.throwIfAborted(); // cancelled, or given to another worker
    const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
    return { sha256: [...new Uint8Array(hash)].map((byte) => byte.toString(16).padStart(2, "0")).join("") };
  },
};

/** Our own server holds the token and decides who gets a ticket. */
async function ticket() {
  const response = await fetch("/ticket", { method: "POST", signal: AbortSignal.timeout(10_000) });
  if (!response.ok) throw new Error(`no ticket: ${response.status}`);
  return response.json();
}

/** Which load of the page the server saw last, in the last 30 s. */
const lastLoad = () => document.cookie.match(/(?:^|; )load=([^;]*)/)?.[1];
const thisLoad = lastLoad();

const worker = new HelveWorker({ name: "a page", actions, slots: { default: 10 }, ticket, changed: show });
window.worker = worker; // for a look from the console

addEventListener("pagehide", ({ persisted }) => {
  // The browser may show the page again as it is: its worker then goes on.
  if (persisted) return;
  // A reload asks the server for the page before it ends the old one. If the server has seen a newer load, this is
  // most likely a reload, which goes on with the session. If it is not, the work is given to others after the grace.
  if (lastLoad() && lastLoad() !== thisLoad) return;
  // The tab is closed: the work goes to others now.
  worker.leave();
});

function show({ status, session, tasks, results, counts }) {
  const text = (id, value) => (document.getElementById(id).textContent = value);
  text("status", status);
  text("session", session?.session ?? "none");
  text("tasks", tasks.size);
  text("results", results.size);
  text("stored", counts.stored);
}

worker.run();
