"""Scenarios with confluent-kafka, which is librdkafka."""

import functools
import os
import signal
import subprocess
import sys

from confluent_kafka import (
    OFFSET_BEGINNING,
    ConsumerGroupTopicPartitions,
    Consumer,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from common import COMPRESSIONS, WAIT_SECONDS, check, fresh, main, records, same, until


@functools.cache
def admin(bootstrap):
    # Kept: a client that is collected fails what it was asked.
    return AdminClient({"bootstrap.servers": bootstrap})


def create(bootstrap, partitions, config=None):
    name = fresh("confluent")
    topic = NewTopic(name, partitions, 1, config=config or {})
    for future in admin(bootstrap).create_topics([topic]).values():
        future.result(WAIT_SECONDS)
    return name


def producer(bootstrap, **settings):
    settings = {key.replace("_", "."): value for key, value in settings.items()}
    return Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, **settings})


def consumer(bootstrap, group=None, **settings):
    settings = {key.replace("_", "."): value for key, value in settings.items()}
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group or fresh("group"),
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            **settings,
        }
    )


def failing(error, message):
    if error is not None:
        print(f"delivery failed: {error}", file=sys.stderr, flush=True)
        # An exception in a callback comes up once the queue is empty, if ever.
        os._exit(1)


def send(bootstrap, topic, sent, partition=0, **settings):
    with_callbacks = producer(bootstrap, **settings)
    for key, value, headers, timestamp in sent:
        with_callbacks.produce(
            topic,
            value,
            key,
            partition=partition,
            on_delivery=failing,
            timestamp=timestamp,
            headers=list(headers),
        )
        with_callbacks.poll(0)
    check(with_callbacks.flush(WAIT_SECONDS) == 0, "not everything was delivered")


def read(bootstrap, topic, count, partition=0, **settings):
    """The first `count` records of a partition."""
    reader = consumer(bootstrap, **settings)
    reader.assign([TopicPartition(topic, partition, OFFSET_BEGINNING)])
    found = []

    def more():
        for message in reader.consume(500, 0.2):
            check(message.error() is None, f"{message.error()}")
            _, timestamp = message.timestamp()
            headers = message.headers() or []
            found.append((message.key(), message.value(), headers, timestamp))
        return len(found) >= count

    until(more, f"{count} records of {topic}, {len(found)} are there")
    reader.close()
    return found


def round_trip(bootstrap):
    """Every compression, idempotent and not: what is sent comes back."""
    for compression in COMPRESSIONS:
        for idempotent in [False, True]:
            topic = create(bootstrap, 2)
            sent = list(records(1000, topic))
            settings = {"compression_type": compression, "enable_idempotence": idempotent}
            send(bootstrap, topic, sent, 1, **settings)
            same(sent, read(bootstrap, topic, len(sent), 1), f"{compression} {idempotent}")


def offsets(bootstrap):
    """Earliest, latest, and the exact first record of a time."""
    topic = create(bootstrap, 1)
    send(bootstrap, topic, list(records(500, topic)), linger_ms=0)
    reader = consumer(bootstrap)
    check(reader.get_watermark_offsets(TopicPartition(topic, 0), WAIT_SECONDS) == (0, 500), "ends")
    for at in [0, 1, 250, 499, 500]:
        asked = TopicPartition(topic, 0, 1_700_000_000_000 + at)
        (found,) = reader.offsets_for_times([asked], WAIT_SECONDS)
        expected = at if at < 500 else -1
        check(found.offset == expected, f"time {at} is at offset {found.offset}")
    latest = admin(bootstrap).list_offsets({TopicPartition(topic, 0): OffsetSpec.latest()})
    for future in latest.values():
        check(future.result(WAIT_SECONDS).offset == 500, "latest by the admin client")
    reader.close()


def administration(bootstrap):
    """Topics, partitions, configurations, records and groups."""
    client = admin(bootstrap)
    topic = create(bootstrap, 1, {"retention.ms": "86400000", "cleanup.policy": "delete"})
    for future in client.create_topics([NewTopic(topic, 1, 1)]).values():
        try:
            future.result(WAIT_SECONDS)
            check(False, "a topic was created twice")
        except KafkaException as error:
            code = error.args[0].code()
            check(code == KafkaError.TOPIC_ALREADY_EXISTS, f"{error}")
    resource = ConfigResource(ResourceType.TOPIC, topic)

    def retention():
        (future,) = client.describe_configs([resource]).values()
        return future.result(WAIT_SECONDS)["retention.ms"].value

    check(retention() == "86400000", "the configuration that it was created with")
    entry = ConfigEntry(
        "retention.ms", "3600000", incremental_operation=AlterConfigOpType.SET
    )
    change = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    for future in client.incremental_alter_configs([change]).values():
        future.result(WAIT_SECONDS)
    check(retention() == "3600000", "an altered configuration")
    for future in client.create_partitions([NewPartitions(topic, 3)]).values():
        future.result(WAIT_SECONDS)
    metadata = client.list_topics(topic, WAIT_SECONDS)
    check(len(metadata.topics[topic].partitions) == 3, "partitions were added")
    send(bootstrap, topic, list(records(10, topic)))
    low = client.delete_records([TopicPartition(topic, 0, 4)])
    for future in low.values():
        check(future.result(WAIT_SECONDS).low_watermark == 4, "records were deleted")
    check(len(read(bootstrap, topic, 6)) == 6, "records behind the deleted ones")
    cluster = client.describe_cluster().result(WAIT_SECONDS)
    check(len(cluster.nodes) == 1 and cluster.cluster_id, f"{cluster}")
    for future in client.delete_topics([topic]).values():
        future.result(WAIT_SECONDS)
    check(topic not in client.list_topics(timeout=WAIT_SECONDS).topics, "a deleted topic")


def member(bootstrap, topic, group, assignor, protocol):
    """A member of a group, in a process of its own: prints what it consumes, and
    commits it."""
    settings = {"group.protocol": protocol}
    if protocol == "classic":
        settings |= {"partition.assignment.strategy": assignor, "session.timeout.ms": 6000}
    else:
        settings |= {"group.remote.assignor": assignor}
    reader = consumer(bootstrap, group, **settings)
    reader.subscribe([topic])
    while True:
        message = reader.poll(1)
        if message is None:
            continue
        check(message.error() is None, f"{message.error()}")
        print(message.partition(), message.offset(), flush=True)
        reader.commit(message, asynchronous=False)


def group(bootstrap, protocol="classic", assignor="range"):
    """Two members share a topic; one is killed, the other takes its part over:
    every record is consumed, and after a commit never again."""
    topic, name = create(bootstrap, 4), fresh("group")

    def start():
        arguments = [sys.executable, __file__, bootstrap, "member"]
        return subprocess.Popen(
            [*arguments, topic, name, assignor, protocol], stdout=subprocess.PIPE, text=True
        )

    def produce(round):
        for partition in range(4):
            send(bootstrap, topic, list(records(25, f"{topic}{round}")), partition)

    members = [start(), start()]
    produce(0)
    seen = [set(), set()]

    def take(at):
        line = members[at].stdout.readline()
        check(line, f"member {at} has ended")
        place = tuple(map(int, line.split()))
        check(place not in seen[at], f"{place} was consumed twice by one member")
        seen[at].add(place)

    def described():
        (future,) = admin(bootstrap).describe_consumer_groups([name]).values()
        return future.result(WAIT_SECONDS)

    until(lambda: len(described().members) == 2, "both members are there")
    shares = until(
        lambda: (
            parts := [len(of.assignment.topic_partitions) for of in described().members]
        )
        == [2, 2]
        and parts,
        "both members have two partitions",
    )
    check(sum(shares) == 4, f"{shares}")
    produce(1)
    # All of the second round is there: what the first member holds is known.
    for at in [0, 1]:
        owned = set()
        while len({p for p, o in seen[at] if o >= 25}) < 2 or len(
            [1 for p, o in seen[at] if o >= 25]
        ) < 50:
            take(at)
        owned.update(p for p, o in seen[at] if o >= 25)
        check(len(owned) == 2, f"member {at} holds {owned}")
    members[1].send_signal(signal.SIGKILL)
    members[1].wait()
    produce(2)
    while len([1 for p, o in seen[0] if o >= 50]) < 100:
        take(0)
    wanted = {(p, o) for p in range(4) for o in range(75)}
    check(seen[0] | seen[1] == wanted, f"{len(wanted - seen[0] - seen[1])} were not consumed")
    request = [ConsumerGroupTopicPartitions(name)]

    def committed():
        (future,) = admin(bootstrap).list_consumer_group_offsets(request).values()
        partitions = future.result(WAIT_SECONDS).topic_partitions
        return sorted(of.offset for of in partitions) == [75] * 4

    until(committed, "positions are committed")
    members[0].kill()
    members[0].wait()


def transactions(bootstrap):
    """Committed records are seen by everybody, aborted ones by readers that ask
    for what is not committed only; an open transaction hides what follows it."""
    topic = create(bootstrap, 2)
    with_id = producer(bootstrap, transactional_id=fresh("id"))
    with_id.init_transactions(WAIT_SECONDS)
    expected = []
    for number in range(6):
        with_id.begin_transaction()
        batch = list(records(20, f"{topic}{number}"))
        for key, value, headers, timestamp in batch:
            with_id.produce(
                topic,
                value,
                key,
                partition=0,
                on_delivery=failing,
                timestamp=timestamp,
                headers=list(headers),
            )
        check(with_id.flush(WAIT_SECONDS) == 0, "a transaction's records")
        if number % 3 == 1:
            with_id.abort_transaction(WAIT_SECONDS)
        else:
            with_id.commit_transaction(WAIT_SECONDS)
            expected += batch
    found = read(bootstrap, topic, len(expected), isolation_level="read_committed")
    same(expected, found, "committed")
    check(len(read(bootstrap, topic, 120, isolation_level="read_uncommitted")) == 120, "all")
    with_id.begin_transaction()
    with_id.produce(topic, b"open", partition=1)
    check(with_id.flush(WAIT_SECONDS) == 0, "an open transaction's record")
    send(bootstrap, topic, [(None, b"behind", [], 5)], 1)
    reader = consumer(bootstrap, isolation_level="read_committed")
    reader.assign([TopicPartition(topic, 1, OFFSET_BEGINNING)])
    check(not reader.consume(1, 3), "an open transaction hides what follows")
    # A newer instance takes over: the open transaction is aborted.
    with_id.abort_transaction(WAIT_SECONDS)
    (message,) = until(lambda: reader.consume(1, 1), "what the transaction hid")
    check(message.value() == b"behind", f"{message.value()}")
    reader.close()


def fencing(bootstrap):
    """A second producer with the same id ends the first one's transaction."""
    topic, name = create(bootstrap, 1), fresh("id")
    old = producer(bootstrap, transactional_id=name)
    old.init_transactions(WAIT_SECONDS)
    old.begin_transaction()
    old.produce(topic, b"old", partition=0)
    check(old.flush(WAIT_SECONDS) == 0, "the old one's record")
    new = producer(bootstrap, transactional_id=name)
    new.init_transactions(WAIT_SECONDS)
    try:
        old.commit_transaction(WAIT_SECONDS)
        check(False, "a fenced producer committed")
    except KafkaException as error:
        code = error.args[0].code()
        fenced = [KafkaError._FENCED, KafkaError.INVALID_PRODUCER_EPOCH, KafkaError.PRODUCER_FENCED]
        check(code in fenced, f"{error}")
    new.begin_transaction()
    new.produce(topic, b"new", partition=0)
    new.commit_transaction(WAIT_SECONDS)
    (found,) = read(bootstrap, topic, 1, isolation_level="read_committed")
    check(found[1] == b"new", f"{found}")


def transform(bootstrap, source, target, name):
    """Consumes, transforms and produces exactly once, without an end; killed at
    any moment and started again."""
    worker = producer(bootstrap, transactional_id=name, transaction_timeout_ms=30000)
    reader = consumer(
        bootstrap, name, isolation_level="read_committed", session_timeout_ms=6000
    )
    reader.subscribe([source])
    worker.init_transactions(WAIT_SECONDS)
    while True:
        messages = [of for of in reader.consume(20, 0.2) if of.error() is None]
        if not messages:
            continue
        worker.begin_transaction()
        for message in messages:
            worker.produce(target, message.value(), partition=message.partition())
        worker.send_offsets_to_transaction(
            reader.position(reader.assignment()), reader.consumer_group_metadata(), WAIT_SECONDS
        )
        worker.commit_transaction(WAIT_SECONDS)
        print(len(messages), flush=True)


def produce_numbers(bootstrap, topic, first, end):
    """The numbers from `first`, in the order of partitions and records."""
    numbers = producer(bootstrap, enable_idempotence=True)
    for at in range(int(first), int(end)):
        numbers.produce(topic, str(at).encode(), partition=at % 2, on_delivery=failing)
        numbers.poll(0)
    check(numbers.flush(WAIT_SECONDS) == 0, "not everything was delivered")


def exactly_once_create(bootstrap):
    print(create(bootstrap, 2), create(bootstrap, 2))


def exactly_once_check(bootstrap, target, count):
    """Every number once, in its order."""
    for partition in [0, 1]:
        expected = [str(at).encode() for at in range(int(count)) if at % 2 == partition]
        found = read(
            bootstrap, target, len(expected), partition, isolation_level="read_committed"
        )
        found = [value for _, value, _, _ in found]
        check(found == expected, f"partition {partition}: {len(found)} of {len(expected)}")
    reader = consumer(bootstrap, isolation_level="read_committed")
    for partition in [0, 1]:
        reader.assign([TopicPartition(target, partition, OFFSET_BEGINNING)])
        until(lambda: reader.consume(100, 0.2) == [], "the end")
    reader.close()


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main(
        {
            "round_trip": round_trip,
            "offsets": offsets,
            "administration": administration,
            "group": group,
            "member": member,
            "transactions": transactions,
            "fencing": fencing,
            "transform": transform,
            "produce_numbers": produce_numbers,
            "exactly_once_create": exactly_once_create,
            "exactly_once_check": exactly_once_check,
        }
    )
