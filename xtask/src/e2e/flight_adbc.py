"""Asks by Arrow Flight SQL with the ADBC driver, and with pyarrow's client.

    flight_adbc.py HOST PORT URL RECORDS USER PASSWORD CA

The stream `audit` holds RECORDS records whose values are JSON with a number
`n` from 0 on; URL is the server's HTTP door. Prints a line for what was shown;
fails at the first thing that is not as it should be.
"""

import datetime
import decimal
import json
import sys
import threading
import time
import urllib.request

import adbc_driver_flightsql.dbapi as adbc
import pyarrow
import pyarrow.flight
from adbc_driver_flightsql import DatabaseOptions

HOST, PORT, URL, RECORDS, USER, PASSWORD, CA = sys.argv[1:]
RECORDS = int(RECORDS)
URI = f"grpc+tls://{HOST}:{PORT}"
with open(CA) as file:
    AUTHORITY = file.read()


def connect(uri=URI, **more):
    settings = {
        "username": USER,
        "password": PASSWORD,
        DatabaseOptions.TLS_ROOT_CERTS.value: AUTHORITY,
        **more,
    }
    return adbc.connect(uri, db_kwargs=settings, autocommit=True)


def shown(what):
    print(what, flush=True)


def fails(what, *parts, kind=adbc.Error):
    """Runs what has to fail, and looks for parts in what it says."""
    try:
        what()
    except kind as error:
        for part in parts:
            assert part in str(error), f"{part!r} is not in {error}"
    else:
        raise AssertionError("it did not fail")


def ask(cursor, sql, parameters=None):
    cursor.execute(sql, parameters=parameters)
    return cursor.fetchall()


def http_arrow(sql):
    request = urllib.request.Request(
        f"{URL}/v1/sql",
        json.dumps({"sql": sql}).encode(),
        {"Content-Type": "application/json", "Accept": "application/vnd.apache.arrow.stream"},
    )
    with urllib.request.urlopen(request) as answer:
        return pyarrow.ipc.open_stream(answer.read()).read_all()


def logins():
    with connect() as connection, connection.cursor() as cursor:
        assert ask(cursor, "SELECT 1") == [(1,)]

    def asks(**more):
        def run():
            with connect(**more) as connection, connection.cursor() as cursor:
                ask(cursor, "SELECT 1")

        return run

    fails(asks(password="wrong"), "name or password is wrong")
    fails(asks(username="nobody"), "name or password is wrong")
    fails(asks(uri=f"grpc://{HOST}:{PORT}"))
    fails(asks(**{DatabaseOptions.TLS_ROOT_CERTS.value: ""}))
    # Without name and password nothing is told.
    with adbc.connect(
        URI, db_kwargs={DatabaseOptions.TLS_ROOT_CERTS.value: AUTHORITY}, autocommit=True
    ) as connection, connection.cursor() as cursor:
        fails(lambda: ask(cursor, "SELECT 1"), "log in")
    shown("logins by password, under TLS only")


def arrows_own_client():
    client = pyarrow.flight.FlightClient(URI, tls_root_certs=AUTHORITY)
    fails(lambda: list(client.list_actions()), "log in", kind=pyarrow.lib.ArrowException)
    token = client.authenticate_basic_token(USER, PASSWORD)
    options = pyarrow.flight.FlightCallOptions(headers=[token])
    actions = {action.type for action in client.list_actions(options)}
    assert "CreatePreparedStatement" in actions, actions
    fails(
        lambda: list(client.list_flights(options=options)),
        "GetTables",
        kind=pyarrow.lib.ArrowException,
    )
    # The token ends with its session.
    list(client.do_action(pyarrow.flight.Action("CloseSession", b""), options))
    fails(lambda: list(client.list_actions(options)), "anew", kind=pyarrow.lib.ArrowException)
    client.close()
    shown("pyarrow's client: token, actions, the end of a session")


def queries(cursor):
    [(count,)] = ask(cursor, "SELECT count(*) FROM audit")
    assert count == RECORDS, count
    [(offset, value)] = ask(cursor, "SELECT _offset, _value FROM audit WHERE _offset = 7")
    assert (offset, json.loads(value)["n"]) == (7, 7), (offset, value)
    assert ask(cursor, "SELECT 1 WHERE false") == []
    rows = ask(cursor, "SELECT _offset FROM audit ORDER BY _offset")
    assert rows == [(n,) for n in range(RECORDS)]
    shown("queries")


def types(cursor):
    columns = {
        "true": pyarrow.bool_(),
        "7::smallint": pyarrow.int16(),
        "7::int": pyarrow.int32(),
        "7::bigint": pyarrow.int64(),
        "0.5::real": pyarrow.float32(),
        "0.5::double": pyarrow.float64(),
        "1.25::decimal(10, 2)": pyarrow.decimal128(10, 2),
        "'text'": pyarrow.string(),
        "DATE '2024-02-29'": pyarrow.date32(),
        "TIMESTAMP '2024-02-29T01:02:03.5'": None,
        "INTERVAL '1 day'": None,
        "[1, 2]": None,
        "NULL": None,
    }
    parts = ", ".join(f"{sql} AS c{at}" for at, sql in enumerate(columns))
    sql = f"SELECT {parts}, _timestamp, _headers, _key, _value FROM audit LIMIT 2"
    cursor.execute(sql)
    table = cursor.fetch_arrow_table()
    for at, expected in enumerate(columns.values()):
        found = table.schema.field(f"c{at}").type
        assert expected is None or found == expected, (found, expected)
    assert table.schema.field("_timestamp").type == pyarrow.timestamp("us", "UTC")
    over_http = http_arrow(sql)
    # ADBC holds schemas against each other, so Flight's say of nothing that it is never null.
    types = lambda of: [str(each).replace(" not null", "") for each in of.schema.types]
    assert types(table) == types(over_http), (table.schema, over_http.schema)
    assert table.to_pylist() == over_http.to_pylist()
    assert cursor.adbc_execute_schema(sql) == table.schema
    shown(f"{len(table.schema.names)} columns have the types and values that HTTP has")


def parameters(cursor):
    [row] = ask(
        cursor,
        "SELECT $1::bigint + 1, $2, $3::boolean, $4::double, $5::date, $6::timestamp, "
        "$7::decimal(10, 2), $8::bigint, $9",
        (
            41,
            "it's",
            True,
            0.5,
            datetime.date(2024, 2, 29),
            datetime.datetime(2024, 2, 29, 1, 2, 3, 500_000),
            decimal.Decimal("-0.25"),
            None,
            b"bytes",
        ),
    )
    expected = (
        42,
        "it's",
        True,
        0.5,
        datetime.date(2024, 2, 29),
        datetime.datetime(2024, 2, 29, 1, 2, 3, 500_000),
        decimal.Decimal("-0.25"),
        None,
        "bytes",
    )
    assert row == expected, row
    schema = cursor.adbc_prepare("SELECT count(*) FROM audit WHERE _offset < $1")
    assert schema.types == [pyarrow.int64()], schema
    for n in [1, 10, RECORDS + 1]:
        [(count,)] = ask(cursor, "SELECT count(*) FROM audit WHERE _offset < $1", (n,))
        assert count == min(n, RECORDS), (n, count)
    fails(lambda: ask(cursor, "SELECT $1::bigint", ("x",)), "'x'", kind=adbc.ProgrammingError)
    fails(lambda: ask(cursor, "SELECT $1 + $2", (1,)), "parameter")
    fails(lambda: ask(cursor, "SELECT $1", ([1, 2],)), "cannot be bound")
    shown("parameters of nine kinds, and statements that are prepared once")


def large_result(cursor):
    sql = (
        "SELECT a._offset * 1000 + b._offset AS n, a._value AS value FROM audit a "
        "CROSS JOIN (SELECT _offset FROM audit WHERE _offset < 500) b"
    )
    began = time.monotonic()
    cursor.execute(sql)
    flight = cursor.fetch_arrow_table()
    seconds = time.monotonic() - began
    began = time.monotonic()
    over_http = http_arrow(sql)
    http_seconds = time.monotonic() - began
    assert flight.num_rows == RECORDS * 500 >= 1_000_000, flight.num_rows
    order = [("n", "ascending"), ("value", "ascending")]
    over_http = over_http.cast(flight.schema)
    assert flight.sort_by(order).equals(over_http.sort_by(order)), "rows differ"
    shown(
        f"large result: {flight.num_rows} rows are those of HTTP's, "
        f"in {seconds:.1f} s (HTTP {http_seconds:.1f} s)"
    )
    # The rest of an answer that nobody fetches is not computed.
    cursor.execute(sql)
    assert cursor.fetch_record_batch().read_next_batch().num_rows > 0


ENDLESS = (
    "SELECT count(*) FROM audit a CROSS JOIN audit b CROSS JOIN audit c CROSS JOIN audit d "
    "WHERE a._offset + b._offset + c._offset + d._offset < 0"
)


def cancels(connection):
    for _ in range(3):
        with connection.cursor() as cursor:
            done = []

            def run():
                try:
                    ask(cursor, ENDLESS)
                except adbc.Error as error:
                    done.append(error)

            asking = threading.Thread(target=run)
            asking.start()
            while asking.is_alive():
                cursor.adbc_cancel()
                asking.join(0.2)
            assert done, "an endless statement ended"
    with connection.cursor() as cursor:
        assert ask(cursor, "SELECT 1") == [(1,)]
    shown("cancelled statements make room for the next")


def errors(cursor):
    kind = adbc.ProgrammingError
    fails(lambda: ask(cursor, "SELECT * FROM audti"), "unknown-table", "audit", kind=kind)
    fails(lambda: ask(cursor, "SELEC 1"), "sql-syntax", kind=kind)
    fails(lambda: ask(cursor, "INSERT INTO audit VALUES (1)"), "statement-refused")
    fails(lambda: ask(cursor, "SELECT 1; SELECT 2"))
    # Begun, and then it fails.
    late = "SELECT 1 / (_offset - 1999) FROM audit ORDER BY _offset"
    fails(lambda: ask(cursor, late), "zero")
    table = pyarrow.table({"a": [1]})
    fails(lambda: cursor.adbc_ingest("audit", table, mode="append"), "HTTP")
    shown("errors with their names and mends")


def views(cursor):
    ask(cursor, "CREATE VIEW few AS SELECT _offset AS o FROM audit WHERE _offset < 3")
    assert ask(cursor, "SELECT count(*) FROM few") == [(3,)]
    cursor.executescript("DROP VIEW few")
    fails(lambda: ask(cursor, "SELECT * FROM few"), "unknown-table")
    ask(cursor, "CREATE VIEW few AS SELECT _offset AS o FROM audit WHERE _offset < 3")
    shown("views come and go")


def catalog(connection):
    objects = connection.adbc_get_objects(depth="all").read_all().to_pylist()
    [tenant] = objects
    assert tenant["catalog_name"] == "default", tenant
    schemas = {schema["db_schema_name"]: schema for schema in tenant["catalog_db_schemas"]}
    assert set(schemas) == {"public", "information_schema"}, set(schemas)
    tables = {table["table_name"]: table for table in schemas["public"]["db_schema_tables"]}
    kinds = {name: table["table_type"] for name, table in tables.items()}
    assert kinds == {"audit": "TABLE", "few": "VIEW"}, kinds
    columns = [column["column_name"] for column in tables["audit"]["table_columns"]]
    assert {"_offset", "_timestamp", "_key", "_value"} <= set(columns), columns
    assert [column["column_name"] for column in tables["few"]["table_columns"]] == ["o"]
    found = connection.adbc_get_objects(
        depth="tables", table_name_filter="f%", table_types_filter=["VIEW"]
    ).read_all()
    [schema] = [
        schema
        for schema in found.to_pylist()[0]["catalog_db_schemas"]
        if schema["db_schema_name"] == "public"
    ]
    assert [table["table_name"] for table in schema["db_schema_tables"]] == ["few"], schema
    schema = connection.adbc_get_table_schema("audit")
    assert schema.field("_offset").type == pyarrow.int64(), schema
    assert connection.adbc_get_table_types() == ["TABLE", "VIEW"]
    info = connection.adbc_get_info()
    assert info["vendor_name"] == "Aquifer", info
    shown("the catalog, down to columns")


def many_at_a_time():
    """Calls side by side over one connection."""
    with connect() as connection:
        found = []

        def run(n):
            with connection.cursor() as cursor:
                found.append(ask(cursor, f"SELECT count(*) FROM audit WHERE _offset < {n}") == [(n,)])

        asking = [threading.Thread(target=run, args=(n,)) for n in range(16)]
        for one in asking:
            one.start()
        for one in asking:
            one.join()
        assert found == [True] * 16, found
    shown("sixteen statements at a time")


logins()
arrows_own_client()
with connect() as connection:
    with connection.cursor() as cursor:
        queries(cursor)
        types(cursor)
        parameters(cursor)
        large_result(cursor)
    cancels(connection)
    with connection.cursor() as cursor:
        errors(cursor)
        views(connection.cursor())
    catalog(connection)
many_at_a_time()
