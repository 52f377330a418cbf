"""Spark and Iceberg: session, tables, bronze, silver, gold, watermarks, maintenance; light readers without Spark."""
