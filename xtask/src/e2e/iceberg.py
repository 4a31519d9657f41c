"""Reads streams as Iceberg tables with pyiceberg and DuckDB, while they change.

Arguments: the server's URL, the grace time of chunks in seconds, and what to
do: `live` or, after a restart, `again`. Prints a line for each thing shown.
"""

import base64
import json
import pathlib
import sys
import threading
import time
import urllib.error
import urllib.request

import duckdb
import duckdb_extension_iceberg
from pyiceberg.catalog import load_catalog
from pyiceberg.exceptions import NoSuchNamespaceError, NoSuchTableError

URL, GRACE_S = sys.argv[1], float(sys.argv[2])
COLUMNS = ["_partition_id", "_offset", "_timestamp", "_appended", "_key", "_headers", "_value"]
SMALL = {"chunk_target_bytes": 65536, "chunk_max_age_ms": 100}


def call(method, path, body=None, content_type="application/json"):
    data = None
    if body is not None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(URL + path, data=data, method=method)
    request.add_header("Content-Type", content_type)
    with urllib.request.urlopen(request) as answer:
        text = answer.read().decode()
    return json.loads(text) if text else None


def create(stream, partitions=1, config=SMALL):
    call("POST", "/v1/streams", {"name": stream, "partitions": partitions, "config": config})


def append(stream, partition, values):
    body = "\n".join(values).encode()
    call("POST", f"/v1/streams/{stream}/records?partition={partition}", body, "text/plain")


def until(what, attempt, limit=60.0):
    """Waits for a condition; what it is that was waited for is said."""
    end = time.monotonic() + limit
    while True:
        found = attempt()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"not within {limit} s: {what}")
        time.sleep(0.02)


def partitions(stream):
    return call("GET", f"/v1/streams/{stream}")["partitions"]


def tiered(stream):
    is_tiered = lambda p: p["tiered_offset"] >= p["end_offset"]
    until(f"{stream} is tiered", lambda: all(map(is_tiered, partitions(stream))))


def chunks(stream):
    return call("GET", f"/v1/streams/{stream}/chunks")["chunks"]


def raw(value):
    """A key or value of the records API as bytes."""
    if value is None:
        return None
    return value.encode() if isinstance(value, str) else base64.b64decode(value["base64"])


def records(stream):
    """Every record as the HTTP API has it: (partition, offset, ms, key, headers, value)."""
    found = []
    for partition in partitions(stream):
        number, at = partition["partition"], partition["start_offset"]
        while at < partition["end_offset"]:
            path = f"/v1/streams/{stream}/records?partition={number}&offset={at}&limit=1000"
            with urllib.request.urlopen(URL + path) as answer:
                lines = answer.read().decode().splitlines()
                at = int(answer.headers["Aquifer-Next-Offset"])
            for line in lines:
                record = json.loads(line)
                headers = record["headers"] or {}
                if isinstance(headers, dict):
                    pairs = list(headers.items())
                else:
                    pairs = [(header["key"], header["value"]) for header in headers]
                found.append((
                    number,
                    record["offset"],
                    record["timestamp"],
                    raw(record["key"]),
                    tuple((key, raw(value)) for key, value in pairs),
                    raw(record["value"]),
                ))
    return found


def rows_of(arrow):
    rows = []
    for row in arrow.select(COLUMNS).to_pylist():
        ms = round(row["_timestamp"].timestamp() * 1000)
        headers = tuple((header["key"], header["value"]) for header in row["_headers"])
        rows.append((row["_partition_id"], row["_offset"], ms, row["_key"], headers, row["_value"]))
    return sorted(rows, key=lambda row: row[:2])


def catalog():
    return load_catalog("aquifer", type="rest", uri=URL + "/iceberg")


def table(stream):
    return catalog().load_table(f"default.{stream}")


def current(stream):
    """The table once its newest snapshot has all that is tiered."""
    ends = lambda: {(p["partition"], p["tiered_offset"]) for p in partitions(stream)}

    def up_to_date():
        found = table(stream)
        snapshot = found.current_snapshot()
        if snapshot is None:
            return None
        positions = snapshot.summary.additional_properties.get("aquifer.next-offsets", "")
        positions = {tuple(map(int, pair.split(":"))) for pair in positions.split(",") if pair}
        return found if positions == ends() else None

    return until(f"a snapshot has all of {stream}", up_to_date)


class Duck:
    def __init__(self):
        folder = pathlib.Path(duckdb_extension_iceberg.__file__).parent.parent
        self.connection = duckdb.connect()
        for name in ["avro", "httpfs", "iceberg"]:
            version = f"v{duckdb.__version__}/{name}.duckdb_extension"
            path = next(folder.glob(f"duckdb_extension_{name}/extensions/{version}"))
            self.connection.execute(f"LOAD '{path}'")
        self.attach()

    def attach(self):
        endpoint = f"ENDPOINT '{URL}/iceberg', AUTHORIZATION_TYPE 'none'"
        self.connection.execute(f"ATTACH OR REPLACE 'aquifer' AS aquifer (TYPE iceberg, {endpoint})")

    def query(self, sql):
        return self.connection.execute(sql).fetchall()

    def rows(self, stream, at=""):
        # Metadata is remembered by an attached catalog.
        self.attach()
        columns = "_partition_id, _offset, epoch_ms(_timestamp), _key, _headers, _value"
        found = self.query(f"SELECT {columns} FROM aquifer.default.\"{stream}\" {at} ORDER BY 1, 2")
        pairs = lambda headers: tuple((header["key"], header["value"]) for header in headers)
        return [(*row[:4], pairs(row[4]), row[5]) for row in found]


def same(found, expected, what):
    for one, other in zip(found, expected):
        assert one == other, f"{what}: {one}, not {other}"
    assert len(found) == len(expected), f"{what}: {len(found)} rows for {len(expected)} records"


def shown(what):
    print(what, flush=True)


def lists_and_schema(duck):
    create("empty")
    found = catalog()
    assert found.list_namespaces() == [("default",)]
    assert ("default", "empty") in found.list_tables("default")
    assert found.table_exists("default.empty") and not found.table_exists("default.nothing")
    for name, error in [("default.nothing", NoSuchTableError), ("default.a b", NoSuchTableError)]:
        try:
            found.load_table(name)
            raise AssertionError(f"{name} was found")
        except error:
            pass
    try:
        found.list_tables("elsewhere")
        raise AssertionError("a namespace was found")
    except NoSuchNamespaceError:
        pass
    empty = found.load_table("default.empty")
    assert [field.name for field in empty.schema().fields] == COLUMNS, empty.schema()
    assert empty.scan().to_arrow().num_rows == 0
    assert duck.rows("empty") == []
    shown("tables are listed, an empty stream is an empty table")


def same_values(duck):
    create("values", 2)
    unusual = [
        {"partition": 0, "key": "a", "value": ""},
        {"partition": 0, "key": "", "value": None},
        {"partition": 0, "key": {"base64": "/wA="}, "value": {"base64": "gIGC"}},
        {"partition": 1, "value": "plain text", "timestamp": 1_700_000_000_123,
         "headers": {"trace": "4bf9", "origin": "naïve café ☕"}},
        {"partition": 1, "value": '{"_offset": 1, "Verb": 2}', "timestamp": -1},
        {"partition": 1, "value": "early", "timestamp": -62_135_596_800_000 + 1},
    ]
    call("POST", "/v1/streams/values/records", {"records": unusual})
    tiered("values")
    for number in range(4):
        append("values", number % 2, [f'{{"n": {number * 100 + at}}}' for at in range(100)])
        tiered("values")
    expected = records("values")
    found = current("values")
    same(rows_of(found.scan().to_arrow()), expected, "pyiceberg")
    same(duck.rows("values"), expected, "DuckDB")
    shown(f"{len(expected)} records have the same values, field by field")


def filters(duck):
    create("filtered", 2, {"chunk_target_bytes": 1 << 26, "chunk_max_age_ms": 100})
    for number in range(3):
        for partition in range(2):
            rows = [{"partition": partition, "value": str(at), "timestamp": 1000 * number + at}
                    for at in range(100)]
            call("POST", "/v1/streams/filtered/records", {"records": rows})
        tiered("filtered")
    found = current("filtered")
    total = len(list(found.scan().plan_files()))
    expected = records("filtered")
    time_of = lambda ms: f"1970-01-01T00:00:{ms // 1000:02}.{ms % 1000:03}+00:00"
    cases = [
        ("_offset < 5", "_offset < 5", lambda row: row[1] < 5),
        ("_offset >= 250", "_offset >= 250", lambda row: row[1] >= 250),
        ("_partition_id = 1 and _offset = 150", "_partition_id = 1 AND _offset = 150",
         lambda row: row[0] == 1 and row[1] == 150),
        (f"_timestamp >= '{time_of(2050)}'", f"_timestamp >= TIMESTAMPTZ '{time_of(2050)}'",
         lambda row: row[2] >= 2050),
    ]
    for row_filter, where, predicate in cases:
        scan = found.scan(row_filter=row_filter)
        planned = len(list(scan.plan_files()))
        wanted = [row for row in expected if predicate(row)]
        same(rows_of(scan.to_arrow()), wanted, row_filter)
        same(duck.rows("filtered", f"WHERE {where}"), wanted, where)
        duck.attach()
        plan = duck.query(
            f"EXPLAIN ANALYZE SELECT _value FROM aquifer.default.filtered WHERE {where}")[0][1]
        read = int(plan.split("Total Files Read:")[1].split()[0])
        assert planned < total and read < total, f"{row_filter}: {planned}, {read} of {total}"
        assert planned == read, f"{row_filter}: pyiceberg reads {planned}, DuckDB {read}"
    shown(f"{len(cases)} filters leave files out of {total}, and no rows")


def time_travel(duck):
    create("travel")
    append("travel", 0, ["one"] * 50)
    tiered("travel")
    first = current("travel")
    before = records("travel")
    append("travel", 0, ["two"] * 50)
    tiered("travel")
    second = current("travel")
    one, two = first.current_snapshot(), second.current_snapshot()
    assert one.snapshot_id != two.snapshot_id and two.parent_snapshot_id == one.snapshot_id
    same(rows_of(second.scan(snapshot_id=one.snapshot_id).to_arrow()), before, "an older snapshot")
    assert second.snapshot_as_of_timestamp(two.timestamp_ms - 1).snapshot_id == one.snapshot_id
    same(rows_of(second.scan().to_arrow()), records("travel"), "the present")
    same(duck.rows("travel", f"AT (VERSION => {one.snapshot_id})"), before, "DuckDB, by version")
    at = f"AT (TIMESTAMP => make_timestamp({two.timestamp_ms - 1} * 1000))"
    same(duck.rows("travel", at), before, "DuckDB, by time")
    same(duck.rows("travel"), records("travel"), "DuckDB, the present")
    again = table("travel")
    assert again.metadata_location == second.metadata_location, "nothing changed, so no snapshot"
    shown("older snapshots show what was there then")


def compaction(duck):
    """A reader that planned before compaction ends within the grace time."""
    create("compacted")
    ids = []
    for number in range(3):
        append("compacted", 0, [f"{number}-{at}" for at in range(40)])
        tiered("compacted")
        ids.append(current("compacted").current_snapshot().snapshot_id)
    planned = current("compacted")
    before = records("compacted")
    files = {task.file.file_path for task in planned.scan().plan_files()}
    number = 3
    while any(path.endswith(chunk["path"]) for path in files for chunk in chunks("compacted")):
        append("compacted", 0, [f"{number}-{at}" for at in range(40)])
        tiered("compacted")
        number += 1
        assert number < 200, "nothing is merged"
    same(rows_of(planned.scan().to_arrow()), before, "a plan from before the compaction")
    now = current("compacted")
    same(rows_of(now.scan().to_arrow()), records("compacted"), "after the compaction")
    same(duck.rows("compacted"), records("compacted"), "DuckDB, after the compaction")
    operations = [snapshot.summary.operation.value for snapshot in now.snapshots()]
    assert {"append"} < set(operations) <= {"append", "replace", "overwrite"}, operations
    for snapshot in now.snapshots():
        count = len(now.scan(snapshot_id=snapshot.snapshot_id).to_arrow())
        assert count == int(snapshot.summary.additional_properties["total-records"]), snapshot
    shown(f"a plan outlives compaction: {' '.join(operations)}")
    return files


def truncation(duck):
    """A start within a chunk hides the rows before it."""
    create("cut")
    append("cut", 0, [f"a{at}" for at in range(100)])
    tiered("cut")
    whole = current("cut")
    for start in [30, 31, 99]:
        call("POST", "/v1/streams/cut/truncate", {"partition": 0, "offset": start})
        expected = records("cut")
        assert len(expected) == 100 - start and len(chunks("cut")) == 1
        rows = lambda: rows_of(table("cut").scan().to_arrow())
        until(f"rows below {start} are hidden", lambda: rows() == expected)
        same(duck.rows("cut"), expected, f"DuckDB, from {start}")
    same([row[1] for row in rows_of(whole.scan().to_arrow())], list(range(100)), "an older plan")
    call("POST", "/v1/streams/cut/truncate", {"all": True})
    until("all rows are gone", lambda: table("cut").scan().to_arrow().num_rows == 0)
    assert duck.rows("cut") == []
    append("cut", 0, ["b"] * 5)
    tiered("cut")
    same(rows_of(current("cut").scan().to_arrow()), records("cut"), "after it was emptied")
    same(duck.rows("cut"), records("cut"), "DuckDB, after it was emptied")
    shown("a start within a chunk hides the rows before it")


def created_again(duck):
    create("again")
    append("again", 0, ["old"] * 20)
    tiered("again")
    old = current("again")
    call("DELETE", "/v1/streams/again")
    assert not catalog().table_exists("default.again")
    create("again")
    assert table("again").scan().to_arrow().num_rows == 0
    append("again", 0, ["new"] * 3)
    tiered("again")
    new = current("again")
    assert new.metadata.table_uuid != old.metadata.table_uuid
    same(rows_of(new.scan().to_arrow()), records("again"), "the new stream")
    same(duck.rows("again"), records("again"), "DuckDB, the new stream")
    assert {row[5] for row in rows_of(old.scan().to_arrow())} == {b"old"}
    shown("a stream that is created again is another table")
    return old


def while_it_runs(duck):
    """Each snapshot is a prefix of the stream, whatever is tiered and merged."""
    create("busy", 2)
    append("busy", 0, ["x"] * 10)
    append("busy", 1, ["x"] * 10)
    tiered("busy")
    stop = threading.Event()

    def write():
        number = 0
        while not stop.is_set():
            append("busy", number % 2, [f"{number}-{at}" for at in range(50)])
            number += 1

    writer = threading.Thread(target=write)
    writer.start()
    seen, merged, replaced = set(), 0, 0
    try:
        end = time.monotonic() + 6
        while time.monotonic() < end or len(seen) < 5:
            assert time.monotonic() < end + 120, f"{len(seen)} snapshots only"
            found = table("busy")
            snapshot = found.current_snapshot()
            seen.add(snapshot.snapshot_id)
            rows = found.scan(selected_fields=("_partition_id", "_offset")).to_arrow().to_pylist()
            for partition in range(2):
                offsets = sorted(row["_offset"] for row in rows if row["_partition_id"] == partition)
                assert offsets == list(range(len(offsets))), f"partition {partition} has holes"
            duck.attach()
            counts = "count(*), count(DISTINCT _offset), max(_offset) + 1"
            query = f"SELECT {counts} FROM aquifer.default.busy GROUP BY _partition_id"
            for count in duck.query(query):
                assert count[0] == count[1] == count[2], f"DuckDB: {count}"
            # Those that are listed are the last hundred at most; look at each once.
            for listed in found.snapshots():
                replaced += listed.summary.operation.value != "append"
            merged = max(merged, max((int(chunk["records"]) for chunk in chunks("busy")), default=0))
    finally:
        stop.set()
        writer.join()
    tiered("busy")
    same(rows_of(current("busy").scan().to_arrow()), records("busy"), "in the end")
    assert merged > 50 and replaced, "nothing was merged meanwhile"
    shown(f"{len(seen)} snapshots of a busy stream have no hole and no duplicate")


def expiry(files, old):
    """What nobody may read any more goes, and no listed snapshot with it."""
    gone = lambda url: not pathlib.Path(url.removeprefix("file://")).exists()
    until("merged chunks are deleted", lambda: all(map(gone, files)), GRACE_S * 4 + 60)
    now = table("compacted")
    for snapshot in now.snapshots():
        count = len(now.scan(snapshot_id=snapshot.snapshot_id).to_arrow())
        assert count == int(snapshot.summary.additional_properties["total-records"]), snapshot
    folder = pathlib.Path(now.metadata.location.removeprefix("file://")) / "metadata"

    def is_tidy():
        found = table("compacted")
        needed = {found.metadata_location}
        for snapshot in found.snapshots():
            needed.add(snapshot.manifest_list)
            needed.update(manifest.manifest_path for manifest in snapshot.manifests(found.io))
        return {f"file://{path}" for path in folder.iterdir()} <= needed

    until("metadata that nothing names is deleted", is_tidy, GRACE_S * 4 + 60)
    left = pathlib.Path(old.metadata.location.removeprefix("file://"))
    is_empty = lambda: not any(path.is_file() for path in left.rglob("*"))
    until("a deleted stream's table is deleted", is_empty, GRACE_S * 4 + 60)
    shown("what nobody may read any more is deleted")


def live():
    duck = Duck()
    lists_and_schema(duck)
    same_values(duck)
    filters(duck)
    time_travel(duck)
    files = compaction(duck)
    old = created_again(duck)
    truncation(duck)
    while_it_runs(duck)
    expiry(files, old)


def again():
    """After a restart: history goes on."""
    duck = Duck()
    found = table("travel")
    operations = [snapshot.summary.operation.value for snapshot in found.snapshots()]
    assert operations == ["append", "append"], operations
    one, two = found.snapshots()
    assert two.parent_snapshot_id == one.snapshot_id
    assert len(found.scan(snapshot_id=one.snapshot_id).to_arrow()) == 50
    append("travel", 0, ["three"] * 50)
    tiered("travel")
    found = current("travel")
    last = found.current_snapshot()
    assert last.parent_snapshot_id == two.snapshot_id
    assert last.summary.additional_properties["added-records"] == "50", last.summary
    for stream in ["travel", "values", "compacted", "cut", "busy"]:
        same(rows_of(current(stream).scan().to_arrow()), records(stream), stream)
        same(duck.rows(stream), records(stream), f"DuckDB, {stream}")
    shown("after a restart history goes on")


{"live": live, "again": again}[sys.argv[3]]()
