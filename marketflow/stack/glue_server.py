"""`python -m marketflow.stack.glue_server`: moto's Glue, and no other of its services, until it is told to end."""

from __future__ import annotations

import logging
import sys

from moto.moto_server.werkzeug_app import create_backend_app
from werkzeug.serving import run_simple

from marketflow.errors import MarketflowError
from marketflow.settings import load


def main() -> None:
    """Serve on the settings' port of loopback; in a container on its own network."""
    try:
        settings = load()
    except MarketflowError as error:
        print(f"glue: {error}", file=sys.stderr, flush=True)
        sys.exit(error.exit_code)
    # a line a request would be all that the log holds
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    run_simple(settings.listen_host, settings.glue_port, create_backend_app("glue"), threaded=True)


if __name__ == "__main__":
    main()
