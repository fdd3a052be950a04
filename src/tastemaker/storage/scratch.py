"""Tables that may outgrow memory, in temporary files of the process."""

from __future__ import annotations

import sqlite3


def scratch_table(columns: str) -> sqlite3.Connection:
    """Make an empty table with the name `items`, ordered by its key.

    Its cache is a few megabytes, however many rows there are; the file goes with the connection.

    Args:
        columns: In SQL, with a primary key.

    Returns:
        The connection, for one thread.
    """
    table = sqlite3.connect("")
    table.execute("PRAGMA journal_mode = OFF")
    table.execute("PRAGMA synchronous = OFF")
    table.execute(f"CREATE TABLE items ({columns}) WITHOUT ROWID")
    return table
