"""Makes the bronze queries' checkpoints anew from what their tables hold; the old ones are put aside, not deleted.

For a checkpoint that is lost or cannot be read. The stream must be stopped. Refused where a record would be lost or
doubled by it: Kafka has forgotten what was never read, the topic was made anew, or a table lacks or repeats an offset.

    python spark_jobs/stream_reset.py --plan
    python spark_jobs/stream_reset.py --approved-by ada --topics trades,ticker

Exit status 75: the stream runs.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from marketflow.contracts.topics import TOPICS
from marketflow.errors import MarketflowError
from marketflow.lake import stream_reset
from marketflow.lake.session import spark
from marketflow.settings import load
from marketflow.warehouse import fence


def main(arguments: list[str] | None = None) -> int:
    """A JSON line a query, on standard output, and all of them in --summary."""
    named = {topic.bronze.removesuffix("_raw"): topic for topic in TOPICS}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", action="store_true", help="only say where each query would begin, or why not")
    parser.add_argument("--approved-by", default="", help="who takes the responsibility; needed without --plan")
    parser.add_argument("--topics", default="", help=f"only these of {','.join(named)} (default: every one)")
    parser.add_argument("--fence-wait-s", type=float, default=fence.WAIT_S, help=argparse.SUPPRESS)
    parser.add_argument("--summary", type=Path, help="file for the JSON list of all lines")
    asked = parser.parse_args(arguments)
    if not asked.plan and not asked.approved_by:
        parser.error("say who approves of it: --approved-by NAME (or only look: --plan)")
    chosen = [name.strip() for name in asked.topics.split(",") if name.strip()]
    if unknown := sorted(set(chosen) - set(named)):
        parser.error(f"no topic {', '.join(unknown)}; there are {', '.join(named)}")
    topics = [named[name] for name in chosen] or list(TOPICS)
    try:
        settings = load()
        session = spark(settings, "stream_reset")
        done = (
            stream_reset.plan(session, settings, topics)
            if asked.plan
            else stream_reset.reset(session, settings, topics, fence_wait_s=asked.fence_wait_s)
        )
        session.stop()
    except MarketflowError as error:
        print(f"stream_reset: {error}", file=sys.stderr)
        return error.exit_code
    lines = [one.as_dict() | ({} if asked.plan else {"approved_by": asked.approved_by}) for one in done]
    for line in lines:
        print(json.dumps(line), flush=True)
    if asked.summary:
        asked.summary.write_text(json.dumps(lines, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
