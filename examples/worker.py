"""A Helve worker. Run: pip install websockets; HELVE_URL=http://.. HELVE_TOKEN=helve_.. python3 examples/worker.py"""
import asyncio, json, os, random, sys
from contextlib import suppress
try: from websockets import ConnectionClosed, InvalidStatus, connect
except ImportError: sys.exit("the package `websockets` is missing: pip install 'websockets>=15'")
if "HELVE_TOKEN" not in os.environ: sys.exit("HELVE_TOKEN is not set: `helve dev` prints one, and the URL for HELVE_URL")
URL = os.environ.get("HELVE_URL", "http://127.0.0.1:7733").replace("http", "ws", 1) + "/v1/worker/connect"
LOGIN = {"Authorization": "Bearer " + os.environ["HELVE_TOKEN"]}
HELLO = {"type": "hello", "protocol": 1, "name": "worker.py", "actions": ["resize"], "slots": {"default": 10},
         "workflows": [{"name": "resize", "tasks": [{"name": "resize", "retries": 3, "execution_timeout": "30s"}]}]}
ws, running, results = None, {}, {}  # by attempt: what is at work, and results that are not stored yet
async def resize(input):  # your work; an exception is a failure, which the engine retries
    return {"resized": input}
async def send(**frame):
    with suppress(ConnectionClosed): await ws.send(json.dumps(frame))  # what matters is said again on the next socket
async def work(key, task):
    try: json.dumps(done := {"outcome": "succeeded", "output": await resize(task["input"])}, allow_nan=False)
    except asyncio.CancelledError: done = {"outcome": "released"}
    except Exception as e: done = {"outcome": "failed", "error": {"message": ascii(e), "code": type(e).__name__}}
    if running.pop(key, None):  # else the attempt is over, and nobody waits for it
        results[key] = dict(task_run=key[0], attempt=key[1], **done)
        await send(type="result", results=[results[key]])
async def on_frame(type, **frame):
    for item in frame.get("tasks") or frame.get("results") or frame.get("superseded") or ():
        key = item["task_run"], item["attempt"]
        if type == "assign" and key not in running | results: running[key] = asyncio.create_task(work(key, item))
        if type == "assign": await send(type="received", tasks=[dict(task_run=key[0], attempt=key[1])])
        if type == "cancel" and key in running: running[key].cancel()
        if type in ("stored", "superseded", "welcome"): results.pop(key, None)
        if type in ("superseded", "welcome") and key in running: running.pop(key).cancel()
    if type == "error": print("the engine:", frame["code"], frame["message"], frame.get("pointer", ""), file=sys.stderr)
    for warning in frame.get("warnings", ()): print("the engine:", warning["message"], file=sys.stderr)
    if type == "welcome": HELLO["resume"] = {"session": frame["session"], "secret": frame["secret"]}
    if type == "welcome": print("connected as", frame["worker"], "again" if frame["resumed"] else "", file=sys.stderr)
    for result in list(results.values()) if type == "welcome" else (): await send(type="result", results=[result])
async def main():
    global ws
    async for ws in connect(URL, additional_headers=LOGIN, max_size=None):  # tries again until the engine is there
        if "resume" in HELLO: HELLO["resume"]["holding"] = [dict(task_run=r, attempt=a) for r, a in running | results]
        await send(**HELLO)
        try:
            async for text in ws: await on_frame(**json.loads(text))
        except ConnectionClosed: pass  # the close code says what to do; what is at work goes on
        except asyncio.CancelledError:  # Ctrl-C: what is not done goes to others at once
            await send(type="goodbye")
            raise
        print("disconnected:", ws.close_code, ws.close_reason, file=sys.stderr)
        if ws.close_code in (4400, 4401, 4403, 4409, 4413): raise SystemExit(ws.close_reason)
        await asyncio.sleep(random.uniform(0, 2))  # ten thousand workers do not come back in one instant
try: asyncio.run(main())
except KeyboardInterrupt: pass
except InvalidStatus as e: sys.exit(f"refused with {e.response.status_code}: {e.response.body.decode(errors='replace')}")
