"""Scenarios with aiokafka."""

import asyncio
import subprocess
import sys

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import ProducerFenced

from common import COMPRESSIONS, WAIT_SECONDS, check, fresh, main, records, same


async def create(bootstrap, partitions):
    name = fresh("aiokafka")
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await client.start()
    await client.create_topics([NewTopic(name, partitions, 1)])
    await client.close()
    return name


async def started(client):
    await client.start()
    return client


async def producer(bootstrap, **settings):
    return await started(AIOKafkaProducer(bootstrap_servers=bootstrap, linger_ms=5, **settings))


async def send(client, topic, sent, partition=0):
    under_way = [
        await client.send(topic, value, key, partition, timestamp, headers)
        for key, value, headers, timestamp in sent
    ]
    await client.flush()
    offsets = [(await future).offset for future in under_way]
    check(offsets == sorted(set(offsets)), "offsets do not grow")


async def read(bootstrap, topic, count, partition=0, **settings):
    """The first `count` records of a partition."""
    place = TopicPartition(topic, partition)
    reader = await started(AIOKafkaConsumer(bootstrap_servers=bootstrap, **settings))
    reader.assign([place])
    await reader.seek_to_beginning(place)
    found = []

    async def more():
        while len(found) < count:
            of = await reader.getone()
            found.append((of.key, of.value, list(of.headers), of.timestamp))

    try:
        await asyncio.wait_for(more(), WAIT_SECONDS)
    except TimeoutError:
        check(False, f"{len(found)} of {count} records of {topic} in {WAIT_SECONDS} s")
    await reader.stop()
    return found


async def round_trip(bootstrap):
    """Every compression, idempotent and not: what is sent comes back."""
    for compression in COMPRESSIONS:
        for idempotent in [False, True]:
            topic = await create(bootstrap, 2)
            sent = list(records(500, topic))
            writer = await producer(
                bootstrap,
                compression_type=None if compression == "none" else compression,
                enable_idempotence=idempotent,
                acks="all",
            )
            await send(writer, topic, sent, 1)
            await writer.stop()
            found = await read(bootstrap, topic, len(sent), 1)
            same(sent, found, f"{compression} {idempotent}")


async def transactions(bootstrap):
    """Committed records are seen by committed readers, aborted ones by the
    others only; positions go with the transaction, or not at all."""
    topic, name = await create(bootstrap, 1), fresh("group")
    place = TopicPartition(topic, 0)
    writer = await producer(bootstrap, transactional_id=fresh("id"))
    expected = []
    for number in range(6):
        batch = list(records(50, f"{topic}{number}"))
        await writer.begin_transaction()
        await send(writer, topic, batch)
        if number % 3 == 1:
            await writer.send_offsets_to_transaction({place: 1_000_000}, name)
            await writer.abort_transaction()
        else:
            await writer.send_offsets_to_transaction({place: number}, name)
            await writer.commit_transaction()
            expected += batch
    found = await read(
        bootstrap, topic, len(expected), isolation_level="read_committed"
    )
    same(expected, found, "committed")
    check(len(await read(bootstrap, topic, 300)) == 300, "all records")
    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await client.start()
    committed = await client.list_consumer_group_offsets(name)
    check(committed[place].offset == 5, f"{committed}")
    await client.close()
    await writer.stop()


async def fencing(bootstrap):
    """A second producer with the same id ends the first one's transaction."""
    topic, name = await create(bootstrap, 1), fresh("id")
    old = await producer(bootstrap, transactional_id=name)
    await old.begin_transaction()
    await send(old, topic, [(b"key", b"old", [], 5)])
    new = await producer(bootstrap, transactional_id=name)
    try:
        await old.commit_transaction()
        check(False, "a fenced producer committed")
    except ProducerFenced:
        pass
    async with new.transaction():
        await send(new, topic, [(b"key", b"new", [], 5)])
    found = await read(bootstrap, topic, 1, isolation_level="read_committed")
    check([value for _, value, _, _ in found] == [b"new"], f"{found}")
    await new.stop()


async def member(bootstrap, topic, group):
    """A member of a group, in a process of its own: prints what it consumes, and
    commits it."""
    reader = AIOKafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=6000,
        heartbeat_interval_ms=500,
    )
    await reader.start()
    while True:
        for place, messages in (await reader.getmany(timeout_ms=500)).items():
            await reader.commit({place: messages[-1].offset + 1})
            for of in messages:
                print(place.partition, of.offset, flush=True)


async def group(bootstrap):
    """Two members share a topic; one leaves by a kill, the other takes over."""
    topic, name = await create(bootstrap, 4), fresh("group")
    writer = await producer(bootstrap)

    def start():
        arguments = [sys.executable, "-u", __file__, bootstrap, "member", topic, name]
        return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)

    async def produce():
        for partition in range(4):
            await send(writer, topic, [(None, b"value", [], 5)] * 25, partition)

    members, seen = [start(), start()], [set(), set()]

    def take(at, count):
        while len(seen[at]) < count:
            line = members[at].stdout.readline()
            check(line, f"member {at} has ended")
            place = tuple(map(int, line.split()))
            check(place not in seen[at], f"{place} was consumed twice by one member")
            seen[at].add(place)

    client = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await client.start()

    async def described():
        (answer,) = await client.describe_consumer_groups([name])
        (of,) = answer.groups
        _, _, state, _, _, members, *_ = of
        return state, len(members)

    async with asyncio.timeout(WAIT_SECONDS):
        while await described() != ("Stable", 2):
            pass
    await produce()
    take(0, 50)
    take(1, 50)
    check(not seen[0] & seen[1], "both members consumed the same")
    members[1].kill()
    members[1].wait()
    await produce()
    # What it was given is 50 records of its own and all 100 of the second round.
    take(0, 150)
    wanted = {(partition, offset) for partition in range(4) for offset in range(50)}
    check(seen[0] | seen[1] == wanted, f"{len(wanted - seen[0] - seen[1])} were not consumed")
    committed = await client.list_consumer_group_offsets(name)
    check(sorted(of.offset for of in committed.values()) == [50] * 4, f"{committed}")
    members[0].kill()
    members[0].wait()
    await client.close()
    await writer.stop()


def blocking(scenario):
    return lambda *arguments: asyncio.run(scenario(*arguments))


if __name__ == "__main__":
    scenarios = [round_trip, transactions, fencing, group, member]
    main({of.__name__: blocking(of) for of in scenarios})
