"""What the schema cannot say, so that generated requests get behind the first refusal."""

import schemathesis
from schemathesis import GenerationMode


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.meta is None or case.meta.generation.mode != GenerationMode.POSITIVE:
        return
    query, body = case.query, case.body
    if isinstance(query, dict):
        # An invented cursor is always refused; the lists' own tests follow real ones.
        query.pop("cursor", None)
        # Nobody works here: every wait lasts as long as it may.
        if "wait" in query:
            query["wait"] = "100ms"
    if case.headers and "Prefer" in case.headers:
        case.headers["Prefer"] = "wait=0.1"
    if isinstance(body, dict):
        runs = body.get("runs")
        for item in [body, *(runs if isinstance(runs, list) else [])]:
            if not isinstance(item, dict):
                continue
            # A workflow that .ci/contract has registered.
            if isinstance(item.get("workflow"), str):
                item["workflow"] = "contract"
            # One of the two, not both.
            if "delay" in item:
                item.pop("run_at", None)
