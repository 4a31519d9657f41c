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


logins()
with connect(autocommit=True) as connection:
    types(connection)
    parameters(connection)
    cursors(connection)
    errors(connection)
    cancels(connection)
    catalogs(connection)
