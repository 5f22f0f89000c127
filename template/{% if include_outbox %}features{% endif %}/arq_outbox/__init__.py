"""Not a feature with routes: it shows Alembic the table of the queue's outbox."""
