"""Prints the rows of a Parquet file as JSON, a line each, for `cargo xtask bench`;
before them how many there are."""

import sys

import duckdb

connection = duckdb.connect()
# The rows are to come in the order of the file.
connection.execute("SET threads = 1")
file = sys.argv[1].replace("'", "''")
(count,) = connection.execute(f"SELECT count(*) FROM read_parquet('{file}')").fetchone()
print(count, flush=True)
connection.execute(
    f"COPY (SELECT * FROM read_parquet('{file}')) TO '/dev/stdout' (FORMAT json)"
)
