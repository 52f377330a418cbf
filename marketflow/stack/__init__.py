"""One machine: fetch, start, stop and examine Kafka, PostgreSQL, S3, Airflow and the services. Reads no market data."""
