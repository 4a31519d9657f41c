"""Writes what of a stream is not in chunks yet as a Parquet file beside them, so
that others read the same rows, for `cargo xtask bench`.

Called as `tail.py URL STREAM OFFSET FOLDER COLUMN...`: the rows of partition 0
from OFFSET on. Columns of the chunks that are not named are null.
"""

import glob
import json
import sys
import urllib.request

import pyarrow
import pyarrow.ipc
import pyarrow.parquet

url, stream, offset, folder, *wanted = sys.argv[1:]
fixed = ["_partition", "_offset", "_timestamp", "_appended"]
names = ", ".join(f'"{name}"' for name in fixed + wanted)
sql = f"SELECT {names} FROM {stream} WHERE _partition = 0 AND _offset >= {offset} ORDER BY _offset"
request = urllib.request.Request(
    f"{url}/v1/sql",
    data=json.dumps({"sql": sql}).encode(),
    headers={
        "Content-Type": "application/json",
        "Accept": "application/vnd.apache.arrow.stream",
    },
)
with urllib.request.urlopen(request) as answer:
    rows = pyarrow.ipc.open_stream(answer).read_all()
schema = pyarrow.parquet.read_schema(sorted(glob.glob(f"{folder}/*.parquet"))[-1])
columns = [
    rows.column(field.name).cast(field.type)
    if field.name in rows.column_names
    else pyarrow.nulls(rows.num_rows, field.type)
    for field in schema
]
table = pyarrow.table(columns, schema=schema)
pyarrow.parquet.write_table(table, f"{folder}/tail.parquet", compression="zstd")
print(rows.num_rows)
