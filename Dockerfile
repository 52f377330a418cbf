# One image for every marketflow process: the library, the jobs, Airflow with its Dags. Not built where it was written
# (no Docker engine there): tests/unit/test_compose.py holds it to the embedded stack's versions.
FROM python:3.11.7-slim-bookworm

RUN apt-get update \
    && apt-get install --yes --no-install-recommends openjdk-17-jre-headless make procps \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 10001 marketflow
WORKDIR /opt/marketflow
RUN chown marketflow:marketflow /opt/marketflow
USER marketflow

COPY --chown=marketflow:marketflow pyproject.toml requirements.txt ivy.xml jars.sha256 README.md Makefile ./
COPY --chown=marketflow:marketflow scripts/ scripts/
COPY --chown=marketflow:marketflow marketflow/ marketflow/
RUN scripts/setup
COPY --chown=marketflow:marketflow dags/ dags/
COPY --chown=marketflow:marketflow plugins/ plugins/
COPY --chown=marketflow:marketflow spark_jobs/ spark_jobs/
COPY --chown=marketflow:marketflow include/ include/

ENV PATH=/opt/marketflow/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    MARKETFLOW_HOME=/var/lib/marketflow \
    AIRFLOW_HOME=/var/lib/marketflow/airflow
CMD ["marketflow", "--help"]
