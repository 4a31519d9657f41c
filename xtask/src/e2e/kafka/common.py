"""What the scripts of all Python clients share: the records they send, and how
they compare what came back. A script is started as

    python CLIENT.py BOOTSTRAP SCENARIO [ARGUMENT...]

and prints nothing but what a failure needs; its exit status says the rest."""

import hashlib
import sys
import time
import uuid

COMPRESSIONS = ["none", "gzip", "snappy", "lz4", "zstd"]
WAIT_SECONDS = 60


def records(count, salt):
    """`count` records that can be told from all others: key, value, headers and
    timestamp. A key and a value may be absent, and are not text always."""
    for at in range(count):
        digest = hashlib.sha256(f"{salt}/{at}".encode()).digest()
        key = None if at % 7 == 0 else f"key-{at % 13}".encode()
        value = None if key is not None and at % 11 == 5 else digest * (1 + at % 40)
        headers = [] if at % 3 else [("trace", digest[:4]), ("trace", b""), ("empty", None)]
        yield key, value, headers, 1_700_000_000_000 + at


def fresh(prefix):
    """A name that was never used."""
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def check(condition, message):
    if not condition:
        print(message, file=sys.stderr)
        sys.exit(1)


def same(expected, found, what):
    """Both are lists of what `records` gives; the order counts."""
    check(len(expected) == len(found), f"{what}: {len(found)} records, {len(expected)} were sent")
    for at, (sent, got) in enumerate(zip(expected, found)):
        check(sent == got, f"{what}: record {at} was sent as {sent} and is {got}")


def until(condition, what):
    """Waits until `condition()` gives something, which it returns."""
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        result = condition()
        if result:
            return result
    check(False, f"not within {WAIT_SECONDS} s: {what}")


def main(scenarios):
    bootstrap, name, *arguments = sys.argv[1:]
    scenarios[name](bootstrap, *arguments)
