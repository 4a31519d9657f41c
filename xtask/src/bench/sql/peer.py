"""Answers statements in DuckDB or DataFusion, for `cargo xtask bench`.

Called as `peer.py ENGINE MEMORY_BYTES THREADS SPILL_FOLDER`. Each line of
standard input is a request in JSON, each line of standard output its answer:

{"do": "about"}                             {"version": "..."}
{"do": "table", "name": ..., "folder": ...} {}
{"do": "run", "sql": ...}                   {}
{"do": "ask", "sql": ...}                   {"seconds": ..., "rows": [[...]]}

What fails is answered with {"error": "..."}. A statement's time ends when all
of its rows are here; turning them into JSON is not part of it.
"""

import datetime
import decimal
import glob
import importlib.metadata
import json
import os
import sys
import threading
import time

import pyarrow.parquet

# Whoever waits for an answer is told that there is none by the end of the process.
STATEMENT_SECONDS_MAX = 900


def have_one_schema(folder):
    files = sorted(glob.glob(f"{folder}/*.parquet"))
    first = pyarrow.parquet.read_schema(files[0])
    return all(pyarrow.parquet.read_schema(file).equals(first) for file in files[1:])


class DuckDb:
    def __init__(self, memory, threads, spill):
        import duckdb

        self.connection = duckdb.connect()
        for setting, value in [
            ("memory_limit", f"{memory}B"),
            ("threads", threads),
            ("temp_directory", spill),
        ]:
            self.connection.execute(f"SET {setting} = '{value}'")

    def table(self, name, folder):
        # Looking for columns in all files costs at each statement.
        option = "" if have_one_schema(folder) else ", union_by_name = true"
        self.connection.execute(
            f"CREATE OR REPLACE VIEW {name} AS SELECT * FROM read_parquet('{folder}/*.parquet'{option})"
        )

    def run(self, sql):
        return self.connection.execute(sql).fetchall()


class DataFusion:
    def __init__(self, memory, threads, spill):
        from datafusion import RuntimeEnvBuilder, SessionConfig, SessionContext

        runtime = RuntimeEnvBuilder().with_fair_spill_pool(memory)
        runtime = runtime.with_disk_manager_specified(spill)
        config = SessionConfig().with_target_partitions(threads)
        self.context = SessionContext(config, runtime)

    def table(self, name, folder):
        self.context.register_parquet(name, f"{folder}/")

    def run(self, sql):
        rows = []
        for batch in self.context.sql(sql).collect():
            columns = [batch.column(number).to_pylist() for number in range(batch.num_columns)]
            rows.extend(zip(*columns))
        return rows


def cell(value):
    """As JSON has it, in the way that the server writes it."""
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value).decode()
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    return value


def answer(engine, kind, request):
    match request["do"]:
        case "about":
            return {"version": importlib.metadata.version(kind)}
        case "table":
            engine.table(request["name"], request["folder"])
            return {}
        case "run":
            engine.run(request["sql"])
            return {}
        case "ask":
            started = time.perf_counter()
            rows = engine.run(request["sql"])
            seconds = time.perf_counter() - started
            return {"seconds": seconds, "rows": [[cell(value) for value in row] for row in rows]}
        case other:
            return {"error": f"nothing is known of {other}"}


def main():
    kind, memory, threads, spill = sys.argv[1:]
    os.makedirs(spill, exist_ok=True)
    make = {"duckdb": DuckDb, "datafusion": DataFusion}[kind]
    engine = make(int(memory), int(threads), spill)
    for line in sys.stdin:
        limit = threading.Timer(STATEMENT_SECONDS_MAX, os._exit, [3])
        limit.daemon = True
        limit.start()
        try:
            found = answer(engine, kind, json.loads(line))
        except BaseException as error:  # pyo3's panics are no Exceptions.
            if isinstance(error, KeyboardInterrupt):
                raise
            found = {"error": f"{type(error).__name__}: {error}"}
        limit.cancel()
        print(json.dumps(found), flush=True)


main()
