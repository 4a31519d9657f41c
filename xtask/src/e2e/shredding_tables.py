"""Reads streams with fields as Iceberg tables, with pyiceberg and DuckDB, and
holds every column against the reference; filters on nested columns; travels
over changes of the schema.

Arguments: the server's URL, and the streams that are there."""

import pathlib
import sys

import duckdb
import duckdb_extension_iceberg
from pyiceberg.catalog import load_catalog

from shred_reference import Api, Schema, compare, until

URL, STREAMS = sys.argv[1], sys.argv[2:]
API = Api(URL)

TYPES = {"boolean": "boolean", "int64": "long", "float64": "double", "text": "string",
         "timestamp": "timestamptz", "date": "date"}


def table(stream):
    catalog = load_catalog("aquifer", type="rest", uri=URL + "/iceberg")
    return catalog.load_table(f"default.{stream}")


def current(stream):
    """The table once its newest snapshot has all that is tiered."""
    ends = lambda: {(p["partition"], p["tiered_offset"]) for p in API.partitions(stream)}

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

    def read(self, stream, rest="", columns="*"):
        # Metadata is remembered by an attached catalog.
        endpoint = f"ENDPOINT '{URL}/iceberg', AUTHORIZATION_TYPE 'none'"
        self.connection.execute(f"ATTACH OR REPLACE 'aquifer' AS aquifer (TYPE iceberg, {endpoint})")
        sql = f'SELECT {columns} FROM aquifer.default."{stream}" {rest}'
        return self.connection.execute(sql).fetch_arrow_table()


def whole(duck, stream):
    schema, expected = API.expected(stream)
    found = current(stream)
    assert found.metadata.current_schema_id == schema.version, found.metadata.current_schema_id
    types = {path: str(found.schema().find_type(".".join(path))) for path in schema.scalars}
    assert types == {path: TYPES[schema.kinds[path]] for path in schema.scalars}, types
    checked = compare(f"pyiceberg, {stream}", schema, expected, found.scan().to_arrow(), "_partition_id")
    return checked + compare(f"DuckDB, {stream}", schema, expected, duck.read(stream), "_partition_id")


def change_of_schema(duck):
    """Older snapshots have the columns of their time; older files are null in
    columns that came later, whatever their depth."""
    stream = "evolving"
    API.create(stream, 1, chunk_max_age_ms=100)
    old = ['{"verb":"get","user":{"id":%d}}' % at for at in range(50)]
    API.append(stream, 0, old)
    API.tiered(stream)
    first, first_schema = current(stream), API.schema(stream)
    _, before = API.expected(stream)
    new = ['{"verb":"put","user":{"id":%d,"name":"u%d"},"bytes":%d}' % (at, at, at * 10) for at in range(50)]
    API.append(stream, 0, new)
    API.tiered(stream)
    found = current(stream)
    schema, expected = API.expected(stream)
    assert len(expected) == 100 and schema.version > first_schema["version"]
    snapshot = first.current_snapshot()
    assert snapshot.schema_id == first_schema["version"]
    assert found.current_snapshot().schema_id == schema.version
    whole(duck, stream)

    older = Schema(first_schema)
    arrow = found.scan(snapshot_id=snapshot.snapshot_id).to_arrow()
    assert "bytes" not in arrow.column_names, arrow.column_names
    compare("pyiceberg, an older snapshot", older, before, arrow, "_partition_id")
    arrow = duck.read(stream, f"AT (VERSION => {snapshot.snapshot_id})")
    compare("DuckDB, an older snapshot", older, before, arrow, "_partition_id")

    cases = [
        ("user.id = 7", "\"user\".id = 7", lambda v: v.get(("user", "id")) == 7, 2),
        ("user.name = 'u7'", "\"user\".name = 'u7'", lambda v: v.get(("user", "name")) == "u7", 1),
        ("bytes >= 400", "bytes >= 400", lambda v: (v.get(("bytes",)) or 0) >= 400, 10),
        ("user.name is null", "\"user\".name IS NULL", lambda v: ("user", "name") not in v, 50),
    ]
    for row_filter, where, predicate, count in cases:
        wanted = {at: row for at, row in expected.items() if predicate(row[0])}
        assert len(wanted) == count
        arrow = found.scan(row_filter=row_filter).to_arrow()
        compare(f"pyiceberg, {row_filter}", schema, wanted, arrow, "_partition_id")
        arrow = duck.read(stream, f"WHERE {where}")
        compare(f"DuckDB, {where}", schema, wanted, arrow, "_partition_id")

    # One that no file has is a column at once, without a snapshot.
    API.call("PATCH", f"/v1/streams/{stream}/schema",
             {"properties": {"at": {"type": "string", "format": "date-time"},
                             "user": {"properties": {"vip": {"type": "boolean"}}}}})
    later = table(stream)
    assert later.current_snapshot().snapshot_id == found.current_snapshot().snapshot_id
    assert str(later.schema().find_type("at")) == "timestamptz"
    assert str(later.schema().find_type("user.vip")) == "boolean"
    whole(duck, stream)
    API.append(stream, 0, ['{"at":"2026-03-01T00:00:00Z","user":{"vip":true}}'] * 10)
    API.tiered(stream)
    whole(duck, stream)
    arrow = current(stream).scan(row_filter="user.vip = true").to_arrow()
    assert arrow.num_rows == 10, arrow.num_rows
    print("schemas change under tables, and older snapshots keep theirs", flush=True)


duck = Duck()
checked = sum(whole(duck, stream) for stream in STREAMS)
change_of_schema(duck)
print(f"checked {checked} values", flush=True)
