"""Telling somebody: what an alert says, where it goes, and what is remembered so that it is told once and ended once.

No Airflow, and nothing that finds out what is wrong: those who know call `desk.tell` and `desk.recover`.
"""
