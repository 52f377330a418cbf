"""What can exist at a given polling interval, with the arithmetic, said before anything is started."""

from __future__ import annotations

from marketflow.settings import Settings


def warm_up(settings: Settings) -> list[str]:
    """Lines for `make up DATASET=live`: which measures this plan's interval allows.

    change over h seconds needs an observation between h and h + tolerance seconds old, so an interval of at most the
    tolerance always has one; a longer interval has one only now and then.
    """
    from marketflow.ingest import quotas

    interval = quotas.effective_interval_s(settings)
    pages = quotas.calls_per_poll(settings)
    month = 30 * 86_400
    lines = [
        f"CoinGecko plan {settings.coingecko_plan}: {pages} call{'s' if pages > 1 else ''} every {interval:.0f} s = "
        f"{pages * month / interval:,.0f} calls in 30 days"
    ]
    if interval <= settings.change_tolerance_s:
        lines.append(
            f"change_1min, change_5min and movers exist: {interval:.0f} s is within the tolerance of "
            f"{settings.change_tolerance_s} s"
        )
    else:
        lines.append(
            f"change_1min, change_5min and movers will often be null: one poll every {interval:.0f} s leaves no "
            f"observation between 60 and {60 + settings.change_tolerance_s} s (300 and "
            f"{300 + settings.change_tolerance_s} s) old; {settings.change_tolerance_s} s or less needs a paid plan"
        )
    return lines
