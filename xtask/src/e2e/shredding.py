"""Appends real and hostile JSON over HTTP and Kafka, phase by phase, and holds
what DuckDB, Polars, pyarrow and the server's own SQL read of the fields against
the reference: while records are in memory, in files, and after compaction.

Arguments: the server's URL, Kafka's address, the folder of sample data (it may
be absent), a seed, and who reads: `files`, `sql`."""

import json
import pathlib
import random
import sys
import urllib.request

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs
import pyarrow.parquet as pq
from confluent_kafka import Producer

from shred_reference import Api, Schema, compare, until

URL, KAFKA, DATA = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
API = Api(URL)
READERS = set(sys.argv[5:])
HOUR = 3_600_000
# Expressions of one statement.
COLUMNS_MAX = 40
checked = 0


def quoted(path):
    return ".".join('"' + name.replace('"', '""') + '"' for name in path)


def ask(sql):
    body = json.dumps({"sql": sql}).encode()
    form = "application/vnd.apache.arrow.stream"
    try:
        found = API.call("POST", "/v1/sql", body, accept=form)
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{sql}: {error.read().decode()}") from None
    return pa.ipc.open_stream(found).read_all()


def check_sql(stream, where):
    """Every field by its path, in statements of some columns each."""
    global checked
    if "sql" not in READERS:
        return
    schema, expected = API.expected(stream)
    for first in range(0, len(schema.scalars), COLUMNS_MAX):
        paths = schema.scalars[first:first + COLUMNS_MAX]
        selected = ", ".join(f"{quoted(path)} AS c{at}" for at, path in enumerate(paths))
        table = ask(f'SELECT _partition, _offset, _unfit, {selected} FROM "{stream}"')
        part = Schema({"version": 0, "fields": []})
        part.scalars = [(f"c{at}",) for at in range(len(paths))]
        rows = {}
        for at, (values, unfit) in expected.items():
            wanted = {(f"c{n}",): values[path] for n, path in enumerate(paths) if path in values}
            rows[at] = (wanted, unfit)
        checked += compare(f"SQL, {stream}, {where}", part, rows, table)


def check_files(stream, where):
    global checked
    if "files" not in READERS:
        return
    schema, expected = API.expected(stream)

    def read():
        """One list of files for all: those of a later one may be others."""
        chunks = sorted(API.chunks(stream), key=lambda chunk: -chunk["schema_version"])
        files = [chunk["file"] for chunk in chunks]
        fewer = pl.ScanCastOptions(missing_struct_fields="insert")
        polars = pl.scan_parquet(files, missing_columns="insert", cast_options=fewer)
        local = pyarrow.fs.LocalFileSystem()
        return {
            "DuckDB": duckdb.read_parquet(files, union_by_name=True).to_arrow_table(),
            "Polars": polars.collect().to_arrow(),
            "pyarrow": ds.dataset(files, format="parquet", filesystem=local).to_table(),
        }

    for reader, table in read().items():
        checked += compare(f"{reader}, {stream}, {where}", schema, expected, table)
    for chunk in API.chunks(stream):
        check_ids(stream, chunk)


def check_ids(stream, chunk):
    """Each column of a file has its field's id, and those of its version."""
    described = API.schema(stream)
    ids = {}

    def collect(path, fields):
        for field in fields:
            name = (*path, field.name)
            ids[name] = int(field.metadata[b"PARQUET:field_id"])
            if pa.types.is_struct(field.type):
                collect(name, [field.type.field(at) for at in range(field.type.num_fields)])

    fields = [field for field in pq.read_schema(chunk["file"]) if not field.name.startswith("_")]
    collect((), fields)
    wanted = [f for f in described["fields"] if f["since"] <= chunk["schema_version"]]
    schema = Schema({"version": chunk["schema_version"], "fields": wanted})
    wanted = {tuple(f["path"].split(".")): f["id"] for f in wanted}
    wanted = {path: id for path, id in wanted.items() if schema.has_column(path)}
    assert ids == wanted, f"{chunk['path']}: {ids}, not {wanted}"


def phase(stream, number, append):
    """Appends, looks while it is in memory, moves it into files, looks again."""
    API.configure(stream, chunk_max_age_ms=HOUR)
    append()
    check_sql(stream, f"phase {number} in memory")
    API.configure(stream, chunk_max_age_ms=100)
    API.tiered(stream)
    check_files(stream, f"phase {number}")
    check_sql(stream, f"phase {number} in files")


def compacted(stream, more):
    """Goes on until each file of the beginning is merged into another."""
    first = {chunk["path"] for chunk in API.chunks(stream)}
    for number in range(200):
        if not first & {chunk["path"] for chunk in API.chunks(stream)}:
            break
        more(number)
        API.tiered(stream)
    else:
        raise AssertionError(f"{stream} is not merged")
    assert any(chunk["generation"] > 0 for chunk in API.chunks(stream))
    check_files(stream, "merged")
    check_sql(stream, "merged")


def produce(stream, partition, values):
    producer = Producer({"bootstrap.servers": KAFKA, "linger.ms": 5, "compression.type": "lz4"})
    failed = []
    for value in values:
        report = lambda error, _: failed.append(error) if error else None
        producer.produce(stream, partition=partition, value=value, on_delivery=report)
    assert producer.flush(60) == 0 and not failed, failed


def shown(what):
    print(what, flush=True)


def samples():
    """Real events, each kind as a stream of its own."""
    if not DATA.is_dir():
        shown("gap: no sample data")
        return
    lines = lambda name: (DATA / name).read_text().splitlines()
    github = lines("github_events.ndjson")
    API.create("github", 2, chunk_max_age_ms=HOUR)
    half = len(github) // 2
    phase("github", 1, lambda: API.append("github", 0, github[:half]))
    phase("github", 2, lambda: produce("github", 1, [line.encode() for line in github[half:]]))
    kinds = Schema(API.schema("github")).kinds
    for path, kind in {("type",): "text", ("actor", "login"): "text"}.items():
        assert kinds.get(path) == kind, f"{path} is {kinds.get(path)}"

    nginx = lines("nginx_plus.ndjson")[:200]
    API.create("nginx", 1, chunk_max_age_ms=HOUR)
    phase("nginx", 1, lambda: API.append("nginx", 0, nginx))

    audit = [path.read_bytes() for path in sorted((DATA / "k8s_audit").glob("*.json"))]
    API.create("audit", 1, chunk_max_age_ms=HOUR)
    phase("audit", 1, lambda: produce("audit", 0, audit))
    shown(f"{len(github) + len(nginx) + len(audit)} real events")


def drifting(rng, stage):
    """A value whose fields have, in part, what they had not before."""
    base = {
        "id": rng.randrange(10**6),
        "name": rng.choice(["ada", "naïve ☕", "", "\u0000", "x" * 300]),
        "ok": rng.choice([True, False, None]),
        "ratio": rng.choice([0.5, 1, -3, 1e300, 2**53, 0.1]),
        "user": {"id": rng.randrange(100), "tags": ["a"], "geo": {"lat": 1.5, "lon": -2.25}},
        "labels": {f"k{rng.randrange(10**9)}": "v"},
    }
    if stage >= 1:
        base["user"]["name"] = "ada"
        base["later"] = {"deep": {"deeper": {"deepest": rng.randrange(9)}}}
        base[rng.choice(["id", "name", "ok", "ratio", "user"])] = rng.choice(
            ["text", 1, 1.5, True, [], [1], {}, {"a": 1}, {"id": "text"}, 2**63, -(2**63), None])
    if stage >= 2:
        base["Id"] = 1
        base["_offset"] = 7
        base["a.b"] = 1
        base[f"new_{rng.randrange(5)}"] = rng.choice([1, "one"])
    return base


def hostile():
    """Values as no program should write them."""
    return [
        b'{"id":1,"id":2,"name":"twice"}',
        b'{"user":{"id":1},"user":{"id":2}}',
        b'{"user":{"id":1,"id":1,"name":"n"}}',
        b'{"id":1.0}', b'{"id":1e3}', b'{"id":-0}', b'{"id":9223372036854775807}',
        b'{"id":9223372036854775808}', b'{"id":-9223372036854775808}', b'{"id":007}',
        b'{"ratio":9007199254740992}', b'{"ratio":9007199254740993}', b'{"ratio":-0}',
        b'{"ratio":1e400}', b'{"ratio":-0.0}', b'{"ratio":1e-400}', b'{"ratio":NaN}',
        b'{"name":"\\u00e4\\n\\ud83d\\ude00"}', b'{"name":"\\ud800"}', b'{"name":"\\udc00x"}',
        b'{"na\\u006de":"escaped name"}', b'{"name":"a\tb"}', b'{"name":"a\\qb"}',
        b'{"id":1}x', b'{"id":1}{"id":2}', b'{"id":1,}', b"{", b"{}", b" \n\t{\"id\":5} \r\n",
        b'{"id":null,"user":null}', b'{"user":{}}', b'{"user":[]}', b'{"user":{"geo":7}}',
        b"[1]", b'"text"', b"7", b"null", b"", b"\xff\xfe", b"not json", b"  ",
        b'\xef\xbb\xbf{"id":1}', b'\x0b{"id":1}',
        b'{"id":' + b"[" * 200 + b"]" * 200 + b"}", b'{"x":' + b"[" * 100 + b"]" * 100 + b"}",
        b'{"later":' + b'{"deep":' * 20 + b"1" + b"}" * 21,
        None,
    ]


def drift():
    rng = random.Random(int(sys.argv[4]))
    text = lambda stage: json.dumps(drifting(rng, stage), ensure_ascii=rng.random() < 0.5)
    API.create("drift", 2, chunk_max_age_ms=HOUR)
    for stage in range(3):
        phase("drift", stage, lambda: API.append("drift", 0, [text(stage) for _ in range(150)]))
    phase("drift", 3, lambda: produce("drift", 1, hostile()))
    described = API.schema("drift")
    kinds = {field["path"]: field["kind"] for field in described["fields"]}
    wanted = {"id": "int64", "name": "text", "ok": "boolean", "ratio": "float64",
              "user": "object", "user.id": "int64", "user.geo.lat": "float64",
              "user.tags": "opaque", "labels": "opaque", "later.deep.deeper.deepest": "int64"}
    assert wanted.items() <= kinds.items(), f"{kinds}"
    assert not any(path.startswith("_") or path == "Id" for path in kinds), f"{kinds}"
    more = lambda number: API.append("drift", number % 2, [text(number % 3) for _ in range(20)])
    compacted("drift", more)
    shown(f"{len(kinds)} fields of values that drift")


def declared():
    """Columns from the first record on, of the kinds that were declared."""
    schema = {
        "$ref": "#/$defs/event",
        "$defs": {"event": {"type": "object", "properties": {
            "at": {"type": ["string", "null"], "format": "date-time"},
            "day": {"type": "string", "format": "date"},
            "amount": {"type": "number"},
            "customer": {"type": "object", "properties": {
                "id": {"type": "integer"}, "vip": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
            }},
            "lines": {"type": "array", "items": {"type": "object"}},
        }}},
    }
    API.create("declared", 1, schema, chunk_max_age_ms=HOUR)
    names = [field["path"] for field in API.schema("declared")["fields"]]
    assert names == ["at", "day", "amount", "customer", "customer.id", "customer.vip"], names
    values = [
        {"at": "2026-03-01T12:00:00Z", "day": "2026-03-01", "amount": 1, "customer": {"id": 1}},
        {"at": "2026-03-01T12:00:00.123456789+05:30", "amount": 1.5, "customer": {"vip": True}},
        {"at": "1969-12-31T23:59:59.999999-00:00", "day": "2024-02-29", "lines": [{"a": 1}]},
        {"at": "yesterday", "day": "2023-02-29", "amount": "1", "customer": {"id": "1"}},
        {"at": 1_772_366_400_000, "day": "2026-3-1", "amount": 2**53 + 1, "customer": []},
        {"at": None, "day": None, "amount": None, "customer": None},
        {"undeclared": {"since": "later"}, "customer": {"plan": "gold"}},
    ]
    lines = [json.dumps(value) for value in values]
    phase("declared", 1, lambda: API.append("declared", 0, lines))
    more = {"properties": {"customer": {"properties": {"born": {"type": "string", "format": "date"}}}}}
    API.call("PATCH", "/v1/streams/declared/schema", more)
    check_files("declared", "with a field that no file has")
    check_sql("declared", "with a field that no file has")
    lines.append('{"customer":{"born":"1815-12-10"}}')
    phase("declared", 2, lambda: API.append("declared", 0, lines))
    compacted("declared", lambda number: API.append("declared", 0, lines))
    shown("declared fields")


declared()
drift()
samples()
shown(f"checked {checked} values")
