"""The gap ledger against silver: a hole open or given up is missing, a healed one is there. Each may be untrue."""

# ruff: noqa: S608 - every name that is put into a statement is the judge's own
from __future__ import annotations

from marketflow.verify.case import Case

COLUMNS = {
    "venue": "VARCHAR",
    "product_id": "VARCHAR",
    "first_missing_id": "BIGINT",
    "last_missing_id": "BIGINT",
    "status": "VARCHAR",
    "detected_at": "BIGINT",
    "healed_at": "BIGINT",
}


def load(case: Case) -> None:
    """`trade_gap`, times in µs."""
    plain = [name for name in COLUMNS if not name.endswith("_at")]
    moments = [f"(extract(epoch from {name}) * 1000000)::bigint" for name in COLUMNS if name.endswith("_at")]
    case.warehouse.copy("trade_gap", f"select {', '.join((*plain, *moments))} from ops.trade_gap", COLUMNS)


def check(case: Case) -> None:
    """Holes of the ledger whose status silver contradicts."""
    cut = "true" if case.cut_us is None else f"healed_at <= {case.cut_us}"
    since = "true" if case.since_us is None else f"detected_at >= {case.since_us}"
    # trade ids come from the table itself and not from what was loaded, since a hole may be older than the scope
    rows = case.space.rows(
        f"""
        with counted as (
          select gap.*, last_missing_id - first_missing_id + 1 as width, (
            select count(distinct trade_id) from {case.tables["silver.trades"].scan()} as trade
            where trade.venue = gap.venue and trade.product_id = gap.product_id
              and trade.trade_id between gap.first_missing_id and gap.last_missing_id) as there
          from trade_gap as gap where {since})
        select product_id, case when status = 'healed' then 'false heal' else 'stale hole' end as kind,
          venue || ' ' || product_id || ' ' || first_missing_id || ' to ' || last_missing_id || ': marked ' || status
            || ', ' || there || ' of ' || width || ' ids are in silver' as example
        from counted
        where (status in ('open', 'unrecoverable') and there = width) or (status = 'healed' and {cut} and there < width)
        order by all
        """
    )
    for product in dict.fromkeys(row[0] for row in rows):
        for kind in ("stale hole", "false heal"):
            examples = [example for of, which, example in rows if (of, which) == (product, kind)]
            if examples:
                case.report.problem("silver", "ops.trade_gap", product, kind, *examples)
