"""What the columns of a stream's fields hold, by the rules of the manual alone:
a second implementation, slow and plain, that knows only `_value` and the schema.

Also what the scripts beside it share: calls, waiting, and comparing."""

import base64
import json
import re
import time
import urllib.request

INTEGER = re.compile(r"-?(0|[1-9][0-9]*)\Z")
TIMESTAMP = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:([Zz])|([+-])(\d\d):(\d\d))\Z", re.A)
DATE = re.compile(r"(\d{4})-(\d\d)-(\d\d)\Z", re.A)
DEPTH_MAX = 128
UNFIT_BYTES_MAX = 4096


class Number(str):
    """A number as it is written."""


class Object(list):
    """The members of an object, twofold ones too."""


class Unfit(Exception):
    pass


class Api:
    def __init__(self, url):
        self.url = url

    def call(self, method, path, body=None, content_type="application/json", accept="*/*"):
        data = None
        if body is not None:
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method=method)
        request.add_header("Content-Type", content_type)
        request.add_header("Accept", accept)
        with urllib.request.urlopen(request) as answer:
            found = answer.read()
        if accept != "*/*":
            return found
        return json.loads(found) if found else None

    def create(self, stream, partitions=1, schema=None, **config):
        body = {"name": stream, "partitions": partitions, "config": config}
        if schema is not None:
            body["schema"] = schema
        self.call("POST", "/v1/streams", body)

    def configure(self, stream, **config):
        self.call("PATCH", f"/v1/streams/{stream}", {"config": config})

    def append(self, stream, partition, values):
        body = "\n".join(values).encode()
        path = f"/v1/streams/{stream}/records?partition={partition}"
        self.call("POST", path, body, "application/x-ndjson")

    def partitions(self, stream):
        return self.call("GET", f"/v1/streams/{stream}")["partitions"]

    def tiered(self, stream):
        is_tiered = lambda p: p["tiered_offset"] >= p["end_offset"]
        until(f"{stream} is tiered", lambda: all(map(is_tiered, self.partitions(stream))))

    def chunks(self, stream):
        return self.call("GET", f"/v1/streams/{stream}/chunks")["chunks"]

    def schema(self, stream):
        return self.call("GET", f"/v1/streams/{stream}/schema")

    def values(self, stream):
        """The value of each record, by partition and offset."""
        found = {}
        for partition in self.partitions(stream):
            number, at = partition["partition"], partition["start_offset"]
            while at < partition["end_offset"]:
                path = f"/v1/streams/{stream}/records?partition={number}&offset={at}&limit=1000"
                with urllib.request.urlopen(self.url + path) as answer:
                    lines = answer.read().decode().splitlines()
                    at = int(answer.headers["Aquifer-Next-Offset"])
                for line in lines:
                    record = json.loads(line)
                    value = record["value"]
                    if value is not None:
                        is_text = isinstance(value, str)
                        value = value.encode() if is_text else base64.b64decode(value["base64"])
                    found[number, record["offset"]] = value
        return found

    def expected(self, stream):
        """What each record has in its columns: by path, and what did not fit."""
        schema = Schema(self.schema(stream))
        rows = {at: schema.columns(value) for at, value in self.values(stream).items()}
        return schema, rows


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


class Schema:
    def __init__(self, described):
        self.version = described["version"]
        self.kinds = {tuple(f["path"].split(".")): f["kind"] for f in described["fields"]}
        self.scalars = [p for p, kind in self.kinds.items() if kind not in ("object", "opaque")]
        self.below = {}
        for path in self.kinds:
            self.below.setdefault(path[:-1], []).append(path)

    def has_column(self, path):
        return any(scalar[:len(path)] == path for scalar in self.scalars)

    def tops(self):
        return [path[0] for path in self.below.get((), []) if self.has_column(path)]

    def columns(self, value):
        """The values by path, those that are null left out; the paths that do
        not fit, or None."""
        if value is None or value.lstrip(b" \t\r\n")[:1] != b"{":
            return {}, None
        try:
            text = value.decode("utf-8")
            if depth(text) > DEPTH_MAX:
                raise ValueError("it is too deep")
            parsed = json.loads(text, object_pairs_hook=Object, parse_int=Number,
                                parse_float=Number, parse_constant=refused)
        except ValueError:
            return {}, [""]
        found, unfit = {}, []
        self.take((), parsed, found, unfit)
        if sum(map(len, map(str.encode, unfit))) > UNFIT_BYTES_MAX:
            return {}, [""]
        return found, sorted(unfit) or None

    def take(self, path, members, found, unfit):
        for field in self.below.get(path, []):
            values = [value for name, value in members if name == field[-1]]
            kind = self.kinds[field]
            if kind == "opaque" or (kind == "object" and not self.has_column(field)):
                continue
            if len(values) > 1:
                unfit.append(".".join(field))
            elif values and values[0] is not None:
                try:
                    if kind == "object":
                        if not isinstance(values[0], Object):
                            raise Unfit
                        self.take(field, values[0], found, unfit)
                    else:
                        found[field] = scalar(kind, values[0])
                except Unfit:
                    unfit.append(".".join(field))


def refused(constant):
    raise ValueError(constant)


def depth(text):
    deepest = at = 0
    in_string = skip = False
    for character in text:
        if skip:
            skip = False
        elif in_string:
            skip = character == "\\"
            in_string = character != '"'
        elif character == '"':
            in_string = True
        elif character in "[{":
            at += 1
            deepest = max(deepest, at)
        elif character in "]}":
            at -= 1
    return deepest


def scalar(kind, value):
    if kind == "boolean" and isinstance(value, bool):
        return value
    if kind == "int64" and isinstance(value, Number) and INTEGER.match(value):
        number = int(value)
        if value != "-0" and -(2**63) <= number < 2**63:
            return number
    if kind == "float64" and isinstance(value, Number):
        whole = INTEGER.match(value)
        if not whole or abs(int(value)) <= 2**53:
            number = float(value)
            if abs(number) != float("inf"):
                return number.hex()
    is_text = isinstance(value, str) and not isinstance(value, Number)
    if not is_text or any(0xD800 <= ord(character) < 0xE000 for character in value):
        raise Unfit
    if kind == "text":
        return value
    if kind == "timestamp" and (match := TIMESTAMP.match(value)):
        *numbers, fraction, zulu, sign, hours, minutes = match.groups()
        year, month, day, hour, minute, second = map(int, numbers)
        offset = 0 if zulu else int(hours) * 60 + int(minutes)
        is_sound = hour < 24 and minute < 60 and second < 60
        if is_sound and (zulu or (int(hours) < 24 and int(minutes) < 60)):
            micros = int(((fraction or "") + "000000")[:6])
            minute = minute - offset if sign != "-" else minute + offset
            seconds = ((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second
            return seconds * 1_000_000 + micros
    if kind == "date" and (match := DATE.match(value)):
        days(*map(int, match.groups()))
        return value
    raise Unfit


def days(year, month, day):
    import datetime

    try:
        return datetime.date(year, month, day).toordinal() - 719_163
    except ValueError:
        raise Unfit from None


def plain(value):
    """A value of an Arrow column as the reference has it."""
    if isinstance(value, float):
        return value.hex()
    if hasattr(value, "tzinfo"):
        import datetime

        return (value - datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc)) // datetime.timedelta(microseconds=1)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    return value


def leaves(schema, row):
    """The scalars of a row by path, those that are null left out: a column that
    none of the files has as well."""
    found = {}
    for path in schema.scalars:
        value = row
        for name in path:
            value = None if value is None else value.get(name)
        if value is not None:
            found[path] = plain(value)
    return found


def compare(what, schema, expected, table, partition="_partition"):
    """Holds a table in Arrow, of all records, against the reference."""
    found = {}
    for row in table.to_pylist():
        unfit = row.get("_unfit")
        if unfit is not None:
            unfit = sorted(unfit)
        found[row[partition], row["_offset"]] = (leaves(schema, row), unfit)
    if schema.scalars:
        assert "_unfit" in table.column_names, f"{what}: no column _unfit"
    assert found.keys() == expected.keys(), f"{what}: {len(found)} rows for {len(expected)} records"
    for at, (values, unfit) in expected.items():
        if found[at] == (values, unfit):
            continue
        for path in schema.scalars:
            one, other = found[at][0].get(path), values.get(path)
            assert one == other, f"{what}, {at}, {'.'.join(path)}: {one!r}, not {other!r}"
        raise AssertionError(f"{what}, {at}, _unfit: {found[at][1]}, not {unfit}")
    return len(expected) * max(len(schema.scalars), 1)
