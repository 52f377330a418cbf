"""marketflow: a market-data platform for crypto. Library code only; no Airflow lives here."""

__version__ = "0.1.0"
