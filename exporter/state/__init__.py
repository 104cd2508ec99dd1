"""Rate limits and responses, stored in memory, in a SQLite file, or in a PostgreSQL database."""
