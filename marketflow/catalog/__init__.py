"""Crawls and query engines over the lake: DuckDB here, Athena on AWS. Never writes data."""
