"""Asks by PostgreSQL's protocol with psycopg.

    postgres_clients.py HOST PORT RECORDS USER PASSWORD CA

The stream `audit` holds RECORDS records whose values are JSON with a number
`n` from 0 on. Prints a line for what was shown; fails at the first thing that
is not as it should be.
"""

import datetime
import sys
import threading

import psycopg
import psycopg.types

HOST, PORT, RECORDS, USER, PASSWORD, CA = sys.argv[1:]
RECORDS = int(RECORDS)


def connect(**more):
    settings = {
        "host": HOST,
        "port": PORT,
        "dbname": "default",
        "user": USER,
        "password": PASSWORD,
        "sslmode": "verify-full",
        "sslrootcert": CA,
        **more,
    }
    return psycopg.connect(**settings)


def shown(what):
    print(what, flush=True)


def one(cursor, *query, **more):
    return cursor.execute(*query, **more).fetchone()


def logins():
    with connect() as connection:
        assert connection.info.parameter_status("server_encoding") == "UTF8"
        assert one(connection.cursor(), "SELECT current_user") == (USER,)
    for wrong in [{"password": "wrong"}, {"user": "nobody"}]:
        try:
            connect(**wrong)
        except psycopg.OperationalError as error:
            assert "authentication failed" in str(error), error
        else:
            raise AssertionError(f"{wrong} was let in")
    try:
        connect(dbname="other")
    except psycopg.OperationalError as error:
        assert 'connect to "default"' in str(error), error
    else:
        raise AssertionError("another database was let in")
    try:
        connect(sslmode="disable")
    except psycopg.OperationalError as error:
        assert "TLS" in str(error), error
    else:
        raise AssertionError("clear text was let in")
    shown("logins over TLS; wrong passwords, unknown users and clear text are refused")


def types(connection):
    row = one(
        connection.cursor(),
        "SELECT true, 7, 1.5::double precision, 'grün', '12345678901234567890.5'::numeric(30,1), "
        "DATE '2024-03-07', TIMESTAMP '2024-03-07 12:00:00.123', NULL, make_array(1, 2)",
    )
    expected = (
        True,
        7,
        1.5,
        "grün",
        row[4],
        datetime.date(2024, 3, 7),
        datetime.datetime(2024, 3, 7, 12, 0, 0, 123000),
        None,
        [1, 2],
    )
    assert row == expected, row
    assert str(row[4]) == "12345678901234567890.5", row
    for binary in [False, True]:
        cursor = connection.cursor(binary=binary)
        row = one(cursor, "SELECT _offset, _timestamp, _value FROM audit WHERE _offset = %s", (3,))
        offset, time, value = row
        assert offset == 3 and '"n"' in value, row
        assert abs(datetime.datetime.now(datetime.UTC) - time) < datetime.timedelta(hours=1), time
    shown("values of every type, as text and in binary form")


def parameters(connection):
    cursor = connection.cursor()
    count = "SELECT count(*) FROM audit WHERE (_value->>'n')::bigint < %s"
    for limit in [0, 10, RECORDS]:
        for binary in ["%s", "%b", "%t"]:
            assert one(cursor, count.replace("%s", binary), (limit,)) == (limit,), limit
    verb = "SELECT count(*) FROM audit WHERE _value->>'verb' = %s AND _timestamp <= %s"
    now = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1)
    assert one(cursor, verb, ("get", now), prepare=True) == (RECORDS,)
    assert one(cursor, verb, ("put", now), prepare=True) == (0,)
    shown("parameters as text and in binary form, prepared and not")


def cursors(connection):
    with connection.transaction():
        with connection.cursor("all of it") as cursor:
            cursor.itersize = 100
            cursor.execute("SELECT _offset FROM audit ORDER BY _offset")
            assert [offset for (offset,) in cursor] == list(range(RECORDS))
        with connection.cursor("a part") as cursor:
            cursor.execute("SELECT _offset FROM audit ORDER BY _offset LIMIT %s", (20,))
            assert len(cursor.fetchmany(7)) == 7
            cursor.scroll(3)
            assert cursor.fetchone() == (10,)
    stream = connection.cursor().stream("SELECT _offset FROM audit ORDER BY _offset")
    assert [offset for (offset,) in stream] == list(range(RECORDS))
    with connection.cursor().copy("COPY (SELECT _offset, 'a,b' FROM audit) TO STDOUT (FORMAT csv)") as copy:
        lines = b"".join(copy).decode().splitlines()
    assert len(lines) == RECORDS and lines[0].endswith(',"a,b"'), lines[:1]
    shown("cursors, streams of rows, COPY TO STDOUT")


def errors(connection):
    for query, state, part in [
        ("SELEC 1", "42601", ""),
        ("SELECT * FROM aduit", "42P01", "audit"),
        ("SELECT nothing_known FROM audit", "42703", ""),
        ("INSERT INTO audit VALUES (1)", None, ""),
        ("SET client_encoding = 'LATIN1'", "22023", ""),
    ]:
        try:
            connection.execute(query)
        except psycopg.Error as error:
            assert state is None or error.sqlstate == state, (query, error.sqlstate, error)
            assert part in str(error), error
        else:
            raise AssertionError(f"{query} was answered")
    try:
        with connection.transaction():
            try:
                connection.execute("SELECT * FROM aduit")
            except psycopg.errors.UndefinedTable:
                connection.execute("SELECT 1")
    except psycopg.errors.InFailedSqlTransaction:
        pass
    else:
        raise AssertionError("a failed transaction went on")
    assert one(connection.cursor(), "SELECT 1") == (1,)
    shown("errors with their states; a failed transaction stays so to its end")


# Longer than anybody waits, and ended wherever it is.
ENDLESS = "SELECT sum(x) FROM generate_series(1, 1000000000000) AS a(x)"


def cancels(connection):
    timer = threading.Timer(1.0, connection.cancel_safe)
    timer.start()
    try:
        connection.execute(ENDLESS)
    except psycopg.errors.QueryCanceled:
        pass
    else:
        raise AssertionError("it was not cancelled")
    timer.join()
    connection.execute("SET statement_timeout = '500ms'")
    try:
        connection.execute(ENDLESS)
    except psycopg.Error as error:
        assert error.sqlstate == "57014", error
    else:
        raise AssertionError("it took longer than it may")
    connection.execute("RESET statement_timeout")
    assert one(connection.cursor(), "SELECT 1") == (1,)
    shown("a statement is cancelled, and ended by its timeout")


def catalogs(connection):
    cursor = connection.cursor()
    query = (
        "SELECT c.relname, a.attname, pg_catalog.format_type(a.atttypid, a.atttypmod) "
        "FROM pg_class c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid "
        "WHERE c.oid = 'audit'::regclass AND a.attnum > 0 ORDER BY a.attnum"
    )
    rows = cursor.execute(query).fetchall()
    assert ("audit", "_offset", "bigint") in rows, rows
    assert ("audit", "_timestamp", "timestamp with time zone") in rows, rows
    query = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'"
    assert ("audit",) in cursor.execute(query).fetchall()
    version = one(cursor, "SELECT version()")[0]
    assert version.startswith("PostgreSQL") and "Aquifer" in version, version
    assert one(cursor, "SELECT current_schema, current_database()") == ("public", "default")
    assert one(cursor, "SELECT n.nspname = ANY(current_schemas(true)) FROM pg_namespace n "
                       "WHERE n.nspname = 'public'") == (True,)
    shown("catalogs, by name and by object id")


def names(cursor):
    return [column.name for column in cursor.description]


def dashboards(connection):
    """What a dashboard asks: probes, tables, columns, and series of time."""
    cursor = connection.cursor()
    cursor.execute("-- only to see who answers")
    assert one(cursor, "SELECT current_setting('server_version_num')::int / 100") == (906,)
    timescale = "SELECT e.extversion FROM pg_extension AS e WHERE e.extname = 'timescaledb'"
    assert cursor.execute(timescale).fetchall() == []
    path = "string_to_array(current_setting('search_path'), ',')"
    tables = (
        "SELECT quote_ident(t.table_name) FROM information_schema.tables AS t "
        "WHERE quote_ident(t.table_schema) IN (SELECT trim(part[n]) "
        f"FROM generate_series(1, array_upper({path}, 1)) AS n, {path} AS part) ORDER BY 1"
    )
    assert ("audit",) in cursor.execute(tables).fetchall()
    columns = (
        "SELECT c.column_name, c.data_type, c.udt_name, c.numeric_precision, c.datetime_precision "
        "FROM information_schema.columns AS c WHERE c.table_name = %s AND c.ordinal_position < 4 "
        "ORDER BY c.ordinal_position"
    )
    rows = cursor.execute(columns, ("audit",)).fetchall()
    assert rows[1:] == [
        ("_offset", "bigint", "int8", 64, None),
        ("_timestamp", "timestamp with time zone", "timestamptz", None, 6),
    ], rows
    now = datetime.datetime.now(datetime.UTC)
    hour = datetime.timedelta(hours=1)
    series = (
        "SELECT floor(extract(epoch FROM _timestamp) / 60) * 60 AS \"time\", "
        "_value->>'verb' AS metric, count(*) AS value FROM audit "
        f"WHERE _timestamp BETWEEN '{now - hour:%Y-%m-%dT%H:%M:%SZ}' AND "
        f"'{now + hour:%Y-%m-%dT%H:%M:%S.%fZ}' GROUP BY 1, 2 ORDER BY 1, 2"
    )
    rows = cursor.execute(series).fetchall()
    assert names(cursor) == ["time", "metric", "value"], names(cursor)
    assert sum(value for _, _, value in rows) == RECORDS, rows
    assert all(time % 60 == 0 and metric == "get" for time, metric, _ in rows), rows
    (variance,) = one(cursor, "SELECT VARIANCE((_value->>'n')::bigint) FROM audit")
    assert abs(variance - RECORDS * (RECORDS + 1) / 12) < 1, variance
    hours = cursor.execute("SELECT hour FROM generate_series(7, 9) AS hour").fetchall()
    assert hours == [(7,), (8,), (9,)], hours
    shown("a dashboard's probes, tables, columns and series")


def trees(connection):
    """What tools that show a tree of objects ask."""
    cursor = connection.cursor()
    query = (
        "SELECT t.oid, t.*, d.description FROM pg_class AS t LEFT JOIN pg_description AS d "
        "ON d.objoid = t.oid AND d.classoid = 'pg_class'::regclass "
        "WHERE t.relnamespace = %s AND t.relname = %s"
    )
    row = one(cursor, query, (2200, "audit"))
    found = dict(zip(names(cursor), row, strict=True))
    assert len(found) == len(row) and found["relkind"] == "r", found
    for catalog in ["pg_database", "pg_namespace", "pg_roles", "pg_tablespace", "pg_type"]:
        rows = cursor.execute(f"SELECT x.oid, x.* FROM pg_catalog.{catalog} x ORDER BY x.oid")
        assert len(rows.fetchall()) >= 1 and names(cursor).count("oid") == 1, catalog
    for catalog in ["pg_am", "pg_collation", "pg_foreign_server", "pg_language", "pg_extension"]:
        rows = cursor.execute(f"SELECT x.oid, x.* FROM pg_catalog.{catalog} x ORDER BY x.oid")
        assert rows.fetchall() == [] and names(cursor)[0] == "oid", catalog
    granted = "SELECT relname, (aclexplode(relacl)).grantee AS whom FROM pg_class"
    assert cursor.execute(granted).fetchall() == []
    granted = (
        "SELECT p.privilege_type FROM information_schema.table_privileges AS p "
        "WHERE p.table_name = 'audit' AND p.grantee = current_user"
    )
    assert cursor.execute(granted).fetchall() == [("SELECT",)]
    rights = "SELECT has_table_privilege('audit', 'SELECT'), has_table_privilege('audit', 'INSERT')"
    assert one(cursor, rights) == (True, False)
    triggers = (
        "SELECT (SELECT count(*) FROM pg_trigger AS g WHERE g.tgrelid = t.oid LIMIT 1) AS triggers "
        "FROM pg_class AS t WHERE t.relname = 'audit'"
    )
    assert one(cursor, triggers) == (0,)
    cursor.execute("CREATE OR REPLACE VIEW late AS SELECT _offset FROM audit WHERE _offset > 10")
    (definition,) = one(cursor, "SELECT pg_get_viewdef('late'::regclass::oid, true)")
    cursor.execute("DROP VIEW late")
    assert "audit" in definition, definition
    assert one(cursor, "SELECT to_regclass('public.audit') > 0, to_regclass('nothing')") == (True, None)
    words = (
        "SELECT count(*) FROM pg_catalog.pg_get_keywords() AS k "
        "WHERE k.catcode = 'R' AND k.word <> ALL('{select,from}'::text[])"
    )
    assert one(cursor, words)[0] > 50
    cursor.execute("SELECT version(), current_database()")
    assert names(cursor) == ["version", "current_database"], names(cursor)
    shown("trees of databases, schemas, tables and types; rights; a view's words")


def reports(connection):
    """What reporting tools and object mappers ask."""
    cursor = connection.cursor()
    schemas = (
        "SELECT s.nspname FROM pg_namespace s "
        "WHERE s.nspname NOT LIKE 'pg/_' || '%' ESCAPE '/' ORDER BY 1"
    )
    assert cursor.execute(schemas).fetchall() == [("information_schema",), ("public",)]
    keys = (
        "SELECT C.CONSTRAINT_NAME, K.COLUMN_NAME, K.ORDINAL_POSITION "
        "FROM INFORMATION_SCHEMA.TABLE_CONSTRAINTS C JOIN INFORMATION_SCHEMA.KEY_COLUMN_USAGE K "
        "ON K.CONSTRAINT_NAME = C.CONSTRAINT_NAME WHERE C.TABLE_NAME = 'audit'"
    )
    assert cursor.execute(keys).fetchall() == []
    column = (
        "SELECT format('%I.%s', c.udt_schema, c.udt_name), c.is_updatable, c.is_identity "
        "FROM information_schema.columns c WHERE c.table_name = 'audit' AND c.column_name = '_offset'"
    )
    assert one(cursor, column) == ("pg_catalog.int8", "NO", "NO")
    element = (
        "SELECT whole.typname, part.typname FROM pg_type AS whole "
        "JOIN pg_type AS part ON part.oid = whole.typelem WHERE whole.oid = 1009"
    )
    assert one(cursor, element) == ("_text", "text")
    members = (
        "SELECT t.relname FROM pg_class AS t WHERE t.relname = 'audit' AND t.relnamespace = "
        "ANY(ARRAY(SELECT s.oid FROM pg_namespace AS s WHERE s.nspname = 'public'))"
    )
    assert cursor.execute(members).fetchall() == [("audit",)]
    assert psycopg.types.TypeInfo.fetch(connection, "timestamptz").oid == 1184
    assert psycopg.types.TypeInfo.fetch(connection, "hstore") is None
    shown("schemas, keys, columns and types as reporting tools ask for them")


logins()
with connect(autocommit=True) as connection:
    types(connection)
    parameters(connection)
    cursors(connection)
    errors(connection)
    cancels(connection)
    catalogs(connection)
    dashboards(connection)
    trees(connection)
    reports(connection)
