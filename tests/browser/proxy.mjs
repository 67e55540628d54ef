// Stands between the pages and the engine, and cuts or stops what passes.

import { connect, createServer } from "node:net";

/** A proxy to `port` on 127.0.0.1. */
export async function proxy(port) {
  const pairs = new Set();
  let held = false;
  const server = createServer((page) => {
    const engine = connect(port, "127.0.0.1");
    const pair = [page, engine];
    pairs.add(pair);
    const end = () => {
      pairs.delete(pair);
      pair.forEach((socket) => socket.destroy());
    };
    for (const [from, to] of [pair, [engine, page]]) {
      from.on("data", (bytes) => to.write(bytes));
      from.on("error", end).on("close", end);
      if (held) from.pause();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const hold = (on) => {
    held = on;
    for (const socket of [...pairs].flat()) on ? socket.pause() : socket.resume();
  };
  return {
    port: server.address().port,
    open: () => pairs.size,
    kill: () => [...pairs].flat().forEach((socket) => socket.resetAndDestroy()),
    hold,
    close: () => (server.close(), [...pairs].flat().forEach((socket) => socket.destroy())),
  };
}
