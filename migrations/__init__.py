"""Alembic migrations of the database in calls/store.py."""
