"""Runs the printed Spark program, and opens streams as Iceberg tables with
Spark; holds every value against what the server's own SQL answers.

Arguments: the server's URL, the folder with Iceberg's jars, and a seed. Prints
a line for each thing shown."""

import contextlib
import io
import json
import os
import pathlib
import random
import subprocess
import sys

import pyarrow as pa

from shred_reference import Api, Schema, plain, until

URL, JARS, SEED = sys.argv[1], pathlib.Path(sys.argv[2]), int(sys.argv[3])
API = Api(URL)
# Little memory, one thread, nothing that listens but on this machine.
ARGUMENTS = ["--master local[1]", "--driver-memory 1g", "--conf spark.ui.enabled=false",
             "--conf spark.driver.bindAddress=127.0.0.1", "--conf spark.driver.host=127.0.0.1",
             "--conf spark.sql.shuffle.partitions=2", "pyspark-shell"]
os.environ["PYSPARK_SUBMIT_ARGS"] = " ".join(ARGUMENTS)
# Those of a user would come first.
for name in ["SPARK_HOME", "SPARK_CONF_DIR"]:
    os.environ.pop(name, None)

from pyspark.errors import AnalysisException
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

CATALOG = "spark.sql.catalog.aquifer"
VECTORIZED = "spark.sql.iceberg.vectorization.enabled"
MICROS = pa.timestamp("us", tz="UTC")


def shown(what):
    print(what, flush=True)


def ask(sql):
    form = "application/vnd.apache.arrow.stream"
    found = API.call("POST", "/v1/sql", json.dumps({"sql": sql}).encode(), accept=form)
    return pa.ipc.open_stream(found).read_all()


def quoted(path, mark):
    return ".".join(mark + name + mark for name in path)


def value(found):
    """A value of Arrow or of Spark as both have it."""
    if isinstance(found, (bytes, bytearray)):
        return bytes(found)
    if isinstance(found, list):
        return [value(one) for one in found]
    if hasattr(found, "asDict"):
        found = found.asDict()
    if isinstance(found, dict):
        return {name: value(one) for name, one in found.items()}
    return plain(found)


def columns(stream, paths=None):
    """Name, path and kind of each column; the fields are those of the schema."""
    schema = Schema(API.schema(stream))
    records = [("_timestamp", "timestamp"), ("_appended", "timestamp"), ("_key", "bytes"),
               ("_headers", "list"), ("_value", "bytes")]
    if schema.scalars:
        records.append(("_unfit", "list"))
    found = [((name,), kind) for name, kind in records]
    found += [(path, schema.kinds[path]) for path in schema.scalars]
    return [(path, kind) for path, kind in found if paths is None or path in paths]


def of_sql(stream, wanted, where=""):
    selected = [quoted(path, '"') + f" AS c{at}" for at, (path, _) in enumerate(wanted)]
    table = ask(f'SELECT {", ".join(["_partition", "_offset", *selected])} FROM "{stream}" {where}')
    rows = {}
    for row in table.to_pylist():
        rows[row["_partition"], row["_offset"]] = [value(row[f"c{at}"]) for at in range(len(wanted))]
    assert len(rows) == table.num_rows, f"SQL has a row of {stream} twice"
    return rows


def of_spark(frame, wanted, partition):
    """The same of Spark. Its times are looked at as numbers: Python's have no
    year 1 in all time zones."""
    selected = []
    for at, (path, kind) in enumerate(wanted):
        column = F.col(quoted(path, "`"))
        column = F.unix_micros(column) if kind == "timestamp" else column
        selected.append(column.alias(f"c{at}"))
    found = frame.select(F.col(partition), F.col("_offset"), *selected).collect()
    rows = {(row[0], row[1]): [value(one) for one in row[2:]] for row in found}
    assert len(rows) == len(found), "Spark has a row twice"
    return rows


def same(what, wanted, found, expected):
    assert found.keys() == expected.keys(), f"{what}: {len(found)} rows, not {len(expected)}"
    for at, values in expected.items():
        for (path, _), one, other in zip(wanted, found[at], values, strict=True):
            assert one == other, f"{what}, {at}, {'.'.join(path)}: {one!r}, not {other!r}"
    return len(expected) * len(wanted)


def create():
    """Streams with declared fields, with fields that drift, and with values and
    times as few have them."""
    integer, number, text = {"type": "integer"}, {"type": "number"}, {"type": "string"}
    geo = {"type": "object", "properties": {"lat": number, "name": text}}
    API.create("typed", 2, {"type": "object", "properties": {
        "at": {"type": "string", "format": "date-time"}, "day": {"type": "string", "format": "date"},
        "amount": number, "ok": {"type": "boolean"}, "n": integer, "text": text,
        "customer": {"type": "object", "properties": {
            "id": integer, "vip": {"type": "boolean"}, "since": {"type": "string", "format": "date-time"},
            "geo": geo}},
        "tags": {"type": "array", "items": text},
    }}, chunk_max_age_ms=100)
    values = [
        {"at": "2026-03-01T12:00:00Z", "day": "2026-03-01", "amount": 1.5, "ok": True, "n": 2**62,
         "text": "naïve ☕", "tags": ["a", "b"],
         "customer": {"id": 1, "vip": False, "since": "1815-12-10T00:00:00Z", "geo": {"lat": -1.25}}},
        {"at": "1969-12-31T23:59:59.999999Z", "day": "1582-10-04", "amount": -0.0, "n": -2**63, "text": ""},
        {"at": "0001-01-01T00:00:00Z", "day": "0001-01-01", "amount": 1e300, "text": "\u0000"},
        {"at": "9999-12-31T23:59:59.999999Z", "day": "9999-12-31", "n": 2**63 - 1, "ok": False},
        {"at": "1582-10-10T12:00:00+05:30", "day": "1582-10-15", "amount": 0.1},
        {"at": "yesterday", "day": "2023-02-29", "n": "7", "amount": 2**53 + 1, "customer": []},
        {"at": None, "customer": {"geo": {}}}, {"customer": {"id": 2, "geo": {"name": "here"}}}, {},
    ]
    for partition in range(2):
        API.append("typed", partition, [json.dumps(one, ensure_ascii=False) for one in values])
        API.tiered("typed")

    # Each stage is tiered by itself, so the files have fields of their time.
    rng = random.Random(SEED)
    API.create("drift", 1, chunk_max_age_ms=100)
    for stage in range(3):
        API.append("drift", 0, [json.dumps(drifting(rng, stage)) for _ in range(100)])
        API.tiered("drift")

    unusual = [
        {"partition": 0, "key": "a", "value": ""},
        {"partition": 0, "key": "", "value": None},
        {"partition": 0, "key": {"base64": "/wA="}, "value": {"base64": "gIGC"}},
        {"partition": 1, "value": "plain text", "timestamp": 1_700_000_000_123,
         "headers": {"trace": "4bf9", "origin": "naïve café ☕", "empty": ""}},
        {"partition": 1, "value": '{"_offset": 1, "Verb": 2}', "timestamp": -1},
        {"partition": 1, "value": "early", "timestamp": -62_135_596_800_000 + 1},
        {"partition": 1, "value": "{"},
    ]
    API.create("unusual", 2, chunk_max_age_ms=100)
    API.call("POST", "/v1/streams/unusual/records", {"records": unusual})
    API.tiered("unusual")

    # So much that columns outgrow their dictionaries, and have several pages.
    API.create("large", 1, chunk_max_age_ms=1000)
    for _ in range(10):
        API.append("large", 0, [json.dumps({
            "id": rng.randrange(2**63), "small": rng.randrange(5), "ratio": rng.random(),
            "user": {"name": rng.choice(["ada", "bob"]), "token": "%032x" % rng.getrandbits(128)},
            "text": None if rng.random() < 0.1 else "x" * rng.randrange(60) + str(rng.random()),
        }) for _ in range(3000)])
    API.tiered("large")
    return ["typed", "drift", "unusual", "large"]


def drifting(rng, stage):
    found = {"id": rng.randrange(100), "user": {"id": rng.randrange(50)}}
    if stage >= 1:
        found["user"]["name"] = f"u{rng.randrange(50)}"
        found["later"] = {"deep": {"deeper": rng.random()}}
        found[rng.choice(["id", "user"])] = rng.choice(["text", 1.5, True, [1], {"a": 1}, None, 7])
    if stage >= 2:
        found["id"] = str(found["id"])
        found["ok"] = rng.choice([True, False])
    return found


def programs(spark, streams):
    """As it is printed, in a process of its own; then for its values as well."""
    printed = {stream: API.call("GET", f"/v1/streams/{stream}/chunks")["snippets"]["spark"]
               for stream in streams}
    script = pathlib.Path("printed.py")
    script.write_text(printed["typed"])
    told = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    counts = ask("SELECT _partition, count(*) AS n FROM typed GROUP BY 1 ORDER BY 1").to_pylist()
    lines = [line.split("|")[1:3] for line in told.stdout.splitlines() if line.startswith("|")]
    lines = [[word.strip() for word in line] for line in lines][1:]
    assert lines == [[str(row["_partition"]), str(row["n"])] for row in counts], told.stdout
    shown("the printed program runs by itself")
    checked = 0
    for stream, program in printed.items():
        names = {}
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(program, f"{stream}.py", "exec"), names)
        wanted = columns(stream)
        found = of_spark(names["records"], wanted, "_partition")
        checked += same(f"the program, {stream}", wanted, found, of_sql(stream, wanted))
    shown(f"printed programs read {checked} values as SQL does")


def current(stream):
    """The table once its newest snapshot has all that is tiered."""
    def up_to_date():
        metadata = API.call("GET", f"/iceberg/v1/namespaces/default/tables/{stream}")["metadata"]
        newest = metadata.get("current-snapshot-id")
        for snapshot in metadata["snapshots"]:
            if snapshot["snapshot-id"] == newest:
                pairs = snapshot["summary"]["aquifer.next-offsets"].split(",")
                pairs = {tuple(map(int, pair.split(":"))) for pair in pairs if pair}
                ends = {(p["partition"], p["tiered_offset"]) for p in API.partitions(stream)}
                return metadata if pairs == ends else None
        return None

    return until(f"a snapshot has all of {stream}", up_to_date)


def names(spark, streams):
    tables = {row.tableName for row in spark.sql("SHOW TABLES IN aquifer.default").collect()}
    assert tables == set(streams), tables
    found = [row.namespace for row in spark.sql("SHOW NAMESPACES IN aquifer").collect()]
    assert found == ["default"], found
    try:
        spark.sql("SELECT * FROM aquifer.default.nothing")
        raise AssertionError("a table was found")
    except AnalysisException as error:
        assert "TABLE_OR_VIEW_NOT_FOUND" in str(error), error
    properties = {row.key: row.value for row in spark.sql("SHOW TBLPROPERTIES aquifer.default.typed").collect()}
    assert properties["read.parquet.vectorization.enabled"] == "false", properties
    kinds = dict(spark.table("aquifer.default.typed").dtypes)
    wanted = {"_partition_id": "int", "_timestamp": "timestamp", "day": "date", "n": "bigint",
              "customer": "struct<id:bigint,vip:boolean,since:timestamp,geo:struct<lat:double,name:string>>"}
    assert wanted.items() <= kinds.items() and "tags" not in kinds, kinds
    shown("tables are listed and described")


def whole(spark, streams):
    checked = 0
    for stream in streams:
        current(stream)
        wanted = columns(stream)
        found = of_spark(spark.table(f"aquifer.default.{stream}"), wanted, "_partition_id")
        checked += same(f"the table, {stream}", wanted, found, of_sql(stream, wanted))
        # With no nested column among them Iceberg can read by vectors.
        flat = [(path, kind) for path, kind in wanted if len(path) == 1 and kind != "list"]
        spark.conf.set(VECTORIZED, "true")
        found = of_spark(spark.table(f"aquifer.default.{stream}"), flat, "_partition_id")
        spark.conf.unset(VECTORIZED)
        checked += same(f"the table by vectors, {stream}", flat, found, of_sql(stream, flat))
    shown(f"tables have {checked} values as SQL does")


def filters(spark):
    cases = [
        ("typed", ["customer.id = 1", "customer.geo.lat < 0", "customer.geo.name = 'here'",
                   "customer IS NULL", "n = 9223372036854775807", "amount >= 1.5", "ok = true",
                   "text = ''", "text LIKE 'na%'", "day < DATE '1582-10-15'", "ok IS NULL",
                   "at < TIMESTAMP '1970-01-01T00:00:00Z'", "at >= TIMESTAMP '2026-03-01T12:00:00Z'"]),
        ("unusual", ["_timestamp < TIMESTAMP '1970-01-01T00:00:00Z'", "_key IS NULL",
                     "_offset >= 2 AND _offset < 5"]),
        ("drift", ["id = 7", "_unfit IS NULL", "later.deep.deeper > 0.5", "ok IS NOT NULL"]),
        ("large", ["_offset BETWEEN 29990 AND 30010", "small = 3 AND ratio < 0.01", "text IS NULL"]),
    ]
    count, empty = 0, []
    for stream, wheres in cases:
        wanted = columns(stream, [("_value",)])
        for where in wheres:
            expected = of_sql(stream, wanted, f"WHERE {where}")
            frame = spark.sql(f"SELECT * FROM aquifer.default.{stream} WHERE {where}")
            same(f"{stream}, {where}", wanted, of_spark(frame, wanted, "_partition_id"), expected)
            counted = spark.sql(f"SELECT count(*) FROM aquifer.default.{stream} WHERE {where}").first()[0]
            assert counted == len(expected), f"{stream}, {where}: {counted}, not {len(expected)}"
            count += 1
            empty += [] if expected else [where]
    assert len(empty) < 2, f"filters that let nothing through: {empty}"
    shown(f"{count} filters let through what SQL's do")


def time_travel(spark):
    stream = "travel"
    API.create(stream, 1, chunk_max_age_ms=100)
    API.append(stream, 0, ['{"a":%d}' % at for at in range(50)])
    API.tiered(stream)
    first = current(stream)
    wanted = columns(stream)
    before = of_sql(stream, wanted)
    API.append(stream, 0, ['{"a":"text","b":{"c":%d}}' % at for at in range(50)])
    API.tiered(stream)
    second = current(stream)
    one, two = first["current-snapshot-id"], second["current-snapshot-id"]
    made = next(s["timestamp-ms"] for s in second["snapshots"] if s["snapshot-id"] == two)
    for what in [f"VERSION AS OF {one}", f"TIMESTAMP AS OF timestamp_millis({made - 1})"]:
        frame = spark.sql(f"SELECT * FROM aquifer.default.{stream} {what}")
        assert "a" in frame.columns and "b" not in frame.columns, frame.columns
        same(what, wanted, of_spark(frame, wanted, "_partition_id"), before)
    whole(spark, [stream])
    rows = spark.sql(f"SELECT snapshot_id, parent_id, operation FROM aquifer.default.{stream}.snapshots").collect()
    rows = {tuple(row) for row in rows}
    assert rows == {(one, None, "append"), (two, one, "append")}, rows
    files = spark.sql(f"SELECT sum(record_count) FROM aquifer.default.{stream}.files").first()[0]
    assert files == 100, files
    added = spark.read.option("start-snapshot-id", one).option("end-snapshot-id", two)
    added = added.format("iceberg").load(f"aquifer.default.{stream}")
    expected = {at: row for at, row in of_sql(stream, columns(stream)).items() if at not in before}
    same("what was added", columns(stream), of_spark(added, columns(stream), "_partition_id"), expected)
    shown("older snapshots have the rows and columns of their time")


def truncation(spark):
    """A start within a chunk hides the rows before it, however they are read."""
    API.create("cut", 1, chunk_max_age_ms=100)
    API.append("cut", 0, ['{"a":%d}' % at for at in range(100)])
    API.tiered("cut")
    for start in [30, 99]:
        API.call("POST", "/v1/streams/cut/truncate", {"partition": 0, "offset": start})
        wanted = columns("cut", [("_value",), ("a",)])
        expected = of_sql("cut", wanted)
        assert len(expected) == 100 - start
        read = lambda: of_spark(spark.table("aquifer.default.cut"), wanted, "_partition_id")
        until(f"rows below {start} are hidden", lambda: len(read()) == len(expected))
        for vectorized in ["false", "true"]:
            spark.conf.set(VECTORIZED, vectorized)
            same(f"from {start}, by vectors: {vectorized}", wanted, read(), expected)
            counted = spark.sql("SELECT count(*) FROM aquifer.default.cut").first()[0]
            assert counted == len(expected), counted
        spark.conf.unset(VECTORIZED)
    shown("rows before the start are hidden")


def refusals(spark):
    statements = [
        "INSERT INTO aquifer.default.cut SELECT * FROM aquifer.default.cut",
        "DELETE FROM aquifer.default.cut WHERE _offset >= 0",
        "TRUNCATE TABLE aquifer.default.cut",
        "ALTER TABLE aquifer.default.cut ADD COLUMN another int",
        "DROP TABLE aquifer.default.cut",
        "CREATE TABLE aquifer.default.another (a int)",
        "CREATE NAMESPACE aquifer.another",
    ]
    wanted = columns("cut")
    before = of_sql("cut", wanted)
    for statement in statements:
        try:
            spark.sql(statement)
        except Exception as error:
            assert "does not support" in str(error), f"{statement}: {error}"
        else:
            raise AssertionError(f"it was done: {statement}")
    same("after all refusals", wanted, of_sql("cut", wanted), before)
    found = of_spark(spark.table("aquifer.default.cut"), wanted, "_partition_id")
    same("the table after all refusals", wanted, found, before)
    shown(f"{len(statements)} changes are refused")


def main():
    streams = create()
    jars = ",".join(map(str, sorted(JARS.glob("*.jar"))))
    builder = SparkSession.builder.config("spark.jars", jars)
    builder = builder.config(CATALOG, "org.apache.iceberg.spark.SparkCatalog")
    # A table that a session remembers is looked up again after half a minute at
    # the earliest.
    for name, setting in {"type": "rest", "uri": URL + "/iceberg", "cache-enabled": "false"}.items():
        builder = builder.config(f"{CATALOG}.{name}", setting)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    programs(spark, streams)
    names(spark, streams)
    whole(spark, streams)
    filters(spark)
    time_travel(spark)
    truncation(spark)
    refusals(spark)
    spark.stop()


main()
