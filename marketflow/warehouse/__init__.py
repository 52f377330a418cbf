"""PostgreSQL: schema, publication, freshness, ledger, audit, locks. No Spark."""
