"""The independent judge. Imports no parser, kernel or writer: it reads files with DuckDB and Postgres with psycopg."""
