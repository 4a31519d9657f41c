"""Scenarios with kafka-python."""

import subprocess
import sys

import kafka
from kafka.admin import NewTopic
from kafka.errors import TopicAlreadyExistsError

from common import COMPRESSIONS, WAIT_SECONDS, check, fresh, main, records, same, until


def admin(bootstrap):
    return kafka.KafkaAdminClient(bootstrap_servers=bootstrap)


def create(bootstrap, partitions):
    name = fresh("kafka-python")
    client = admin(bootstrap)
    client.create_topics([NewTopic(name, partitions, 1)])
    client.close()
    return name


def send(bootstrap, topic, sent, partition=0, **settings):
    producer = kafka.KafkaProducer(bootstrap_servers=bootstrap, acks="all", linger_ms=5, **settings)
    under_way = [
        producer.send(topic, value, key, headers, partition, timestamp)
        for key, value, headers, timestamp in sent
    ]
    producer.flush(WAIT_SECONDS)
    offsets = [future.get(WAIT_SECONDS).offset for future in under_way]
    check(offsets == sorted(set(offsets)), "offsets do not grow")
    producer.close()


def read(bootstrap, topic, count, partition=0):
    """The first `count` records of a partition."""
    place = kafka.TopicPartition(topic, partition)
    reader = kafka.KafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="earliest")
    reader.assign([place])
    reader.seek_to_beginning()
    found = []

    def more():
        for of in reader.poll(500).get(place, []):
            found.append((of.key, of.value, list(of.headers), of.timestamp))
        return len(found) >= count

    until(more, f"{count} records of {topic}")
    reader.close()
    return found


def round_trip(bootstrap):
    """Every compression, idempotent and not: what is sent comes back."""
    for compression in COMPRESSIONS:
        for idempotent in [False, True]:
            topic = create(bootstrap, 2)
            # This client has no headers without a value.
            sent = [
                (key, value, [(name, of or b"") for name, of in headers], timestamp)
                for key, value, headers, timestamp in records(500, topic)
            ]
            settings = {
                "compression_type": None if compression == "none" else compression,
                "enable_idempotence": idempotent,
            }
            send(bootstrap, topic, sent, 1, **settings)
            same(sent, read(bootstrap, topic, len(sent), 1), f"{compression} {idempotent}")


def member(bootstrap, topic, group):
    """A member of a group, in a process of its own: prints what it consumes, and
    commits it."""
    reader = kafka.KafkaConsumer(
        topic,
        bootstrap_servers=bootstrap,
        group_id=group,
        auto_offset_reset="earliest",
        enable_auto_commit=False,
        session_timeout_ms=6000,
        heartbeat_interval_ms=500,
        metadata_max_age_ms=1000,
    )
    while True:
        for place, messages in reader.poll(500).items():
            reader.commit()
            for of in messages:
                print(place.partition, of.offset, flush=True)


def group(bootstrap):
    """Two members share a topic; one leaves by a kill, the other takes over."""
    topic, name = create(bootstrap, 4), fresh("group")
    start = lambda: subprocess.Popen(
        [sys.executable, "-u", __file__, bootstrap, "member", topic, name],
        stdout=subprocess.PIPE,
        text=True,
    )
    members = [start(), start()]
    client = admin(bootstrap)

    def is_stable():
        of = client.describe_groups([name])[name]
        return of["group_state"] == "Stable" and len(of["members"]) == 2

    def produce():
        for partition in range(4):
            send(bootstrap, topic, [(None, b"value", [], 5)] * 25, partition)

    seen = [set(), set()]

    def take(at, count):
        while len(seen[at]) < count:
            line = members[at].stdout.readline()
            check(line, f"member {at} has ended")
            place = tuple(map(int, line.split()))
            check(place not in seen[at], f"{place} was consumed twice by one member")
            seen[at].add(place)

    until(is_stable, "both members are there")
    produce()
    take(0, 50)
    take(1, 50)
    check(not seen[0] & seen[1], "both members consumed the same")
    members[1].kill()
    members[1].wait()
    produce()
    # What it was given is 50 records of its own and all 100 of the second round.
    take(0, 150)
    wanted = {(partition, offset) for partition in range(4) for offset in range(50)}
    check(seen[0] | seen[1] == wanted, f"{len(wanted - seen[0] - seen[1])} were not consumed")

    def committed():
        places = client.list_group_offsets([name])[name]
        return sorted(of.offset for of in places.values()) == [50] * 4

    until(committed, "positions are committed")
    members[0].kill()
    members[0].wait()
    client.close()


def administration(bootstrap):
    """Topics, partitions, records and positions."""
    client = admin(bootstrap)
    topic = create(bootstrap, 1)
    try:
        client.create_topics([NewTopic(topic, 1, 1)])
        check(False, "a topic was created twice")
    except TopicAlreadyExistsError:
        pass
    (described,) = client.describe_topics([topic])
    check(len(described["partitions"]) == 1, f"{described}")
    cluster = client.describe_cluster()
    check(len(cluster["brokers"]) == 1 and cluster["cluster_id"], f"{cluster}")
    client.delete_topics([topic])
    until(lambda: topic not in client.list_topics(), "the topic is deleted")
    client.close()


if __name__ == "__main__":
    main(
        {
            "round_trip": round_trip,
            "administration": administration,
            "group": group,
            "member": member,
        }
    )
