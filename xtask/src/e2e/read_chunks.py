"""Prints every row of the Parquet files given, once as pyarrow and once as
DuckDB sees it: one JSON object a row, in the order of files and rows."""

import base64
import json
import sys

import duckdb
import pyarrow.parquet as pq

COLUMNS = ["_partition", "_offset", "_timestamp", "_key", "_headers", "_value"]
FIELDS = ["verb", "user", "bytes", "ratio", "ok", "reason"]
ALL = COLUMNS + FIELDS + ["_unfit"]


def text(value):
    """Bytes as the HTTP interface shows them."""
    if value is None:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def show(engine, partition, offset, timestamp, key, headers, value, *fields):
    row = {
        "engine": engine,
        "partition": partition,
        "offset": offset,
        "timestamp": timestamp,
        "key": text(key),
        "headers": [[header["key"], text(header["value"])] for header in headers or []],
        "value": text(value),
        "fields": dict(zip(FIELDS, fields)),
        "unfit": fields[-1],
    }
    print(json.dumps(row))


for path in sys.argv[1:]:
    table = pq.read_table(path, columns=ALL, partitioning=None)
    for row in table.to_pylist():
        row["_timestamp"] = round(row["_timestamp"].timestamp() * 1000)
        show("pyarrow", *(row[column] for column in ALL))

select = ", ".join(f'"{column}"' for column in ALL)
select = select.replace('"_timestamp"', "epoch_ms(_timestamp)")
for path in sys.argv[1:]:
    query = f"SELECT {select} FROM read_parquet(?, hive_partitioning = false)"
    for row in duckdb.execute(query, [path]).fetchall():
        show("duckdb", *row)
