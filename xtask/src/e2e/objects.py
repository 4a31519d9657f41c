"""Reads what was exported: the Parquet files with pyarrow, the CSV files with
DuckDB. Prints how many records each has and what their numbers sum up to."""

import glob
import json
import sys

import duckdb
import pyarrow.parquet

parquet, csv = sys.argv[1:]

rows = total = 0
for path in sorted(glob.glob(parquet + "/**/*.parquet", recursive=True)):
    table = pyarrow.parquet.read_table(path)
    names = ["_partition", "_offset", "_timestamp", "_key", "_headers", "_value"]
    assert table.column_names == names, table.column_names
    offsets = table.column("_offset").to_pylist()
    first, after = path.rsplit("/", 1)[1].split(".")[0].split("-")
    assert int(first) == offsets[0] and offsets[-1] < int(after), path
    rows += table.num_rows
    total += sum(json.loads(value)["n"] for value in table.column("_value").to_pylist())

found = duckdb.sql(
    "SELECT count(*), sum(CAST(json_extract(_value, '$.n') AS BIGINT)) "
    f"FROM read_csv('{csv}/**/*.csv', header = true, quote = '\"', escape = '\"', all_varchar = true)"
).fetchall()[0]
print(json.dumps({"parquet": [rows, total], "csv": [int(found[0]), int(found[1])]}))
