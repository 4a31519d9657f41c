"""Producers that stay while the server dies and comes back, and what they were
told held against what is there."""

import os
import signal
import sys

from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from common import WAIT_SECONDS, check, main, until

SETTINGS = {"reconnect.backoff.ms": 20, "reconnect.backoff.max.ms": 200, "log_level": 0}


def produce(bootstrap, topic, name, partitions):
    """Numbers to every partition until SIGTERM; then prints each that was
    acknowledged, as `name partition offset number`."""
    acknowledged = []
    partitions, is_stopped = int(partitions), []
    signal.signal(signal.SIGTERM, lambda *_: is_stopped.append(True))

    def delivered(number):
        def told(error, message):
            if error is not None:
                print(f"delivery failed: {error}", file=sys.stderr, flush=True)
                os._exit(1)
            acknowledged.append((name, message.partition(), message.offset(), number))

        return told

    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "acks": "all",
            "linger.ms": 2,
            "queue.buffering.max.messages": 1000,
            **SETTINGS,
        }
    )
    number = 0
    while not is_stopped:
        for partition in range(partitions):
            told = delivered(number)
            while True:
                try:
                    producer.produce(
                        topic, f"{name} {number}", partition=partition, on_delivery=told
                    )
                    break
                except BufferError:
                    producer.poll(0.1)
        producer.poll(0)
        number += 1
    check(producer.flush(WAIT_SECONDS) == 0, "not everything was delivered")
    for of in acknowledged:
        print(*of)


def verify(bootstrap, topic, partitions, *files):
    """Every acknowledged record is there once, in order, where it was said to be;
    prints how many."""
    lines = [line.split() for name in files for line in open(name)]
    reader = Consumer({"bootstrap.servers": bootstrap, "group.id": "unused", **SETTINGS})
    for partition in range(int(partitions)):
        place = TopicPartition(topic, partition, OFFSET_BEGINNING)
        _, end = reader.get_watermark_offsets(place, WAIT_SECONDS)
        reader.assign([place])
        found = {}

        def more():
            for message in reader.consume(1000, 0.2):
                check(message.error() is None, f"{message.error()}")
                check(message.offset() not in found, f"offset {message.offset()} came twice")
                found[message.offset()] = message.value().decode()
            return len(found) >= end

        until(more, f"{end} records of partition {partition}")
        check(list(found) == list(range(end)), f"partition {partition} is not read in order")
        numbers = {}
        for value in found.values():
            name, number = value.split()
            numbers.setdefault(name, []).append(int(number))
        acknowledged = {}
        for name, of, offset, number in lines:
            if int(of) != partition:
                continue
            acknowledged.setdefault(name, []).append(int(number))
            # A repeated batch may be acknowledged without its offset.
            if int(offset) >= 0:
                is_there = found.get(int(offset))
                check(is_there == f"{name} {number}", f"{name} {number} at {offset}: {is_there}")
        for name, sent in acknowledged.items():
            is_whole = sent == list(range(len(sent))) and numbers.get(name) == sent
            check(is_whole, f"{name}, partition {partition}: {len(sent)} acknowledged, "
                f"{len(numbers.get(name, []))} are there or out of order")
        check(set(numbers) == set(acknowledged), f"producers of partition {partition}")
    reader.close()
    print(len(lines))


if __name__ == "__main__":
    main({"produce": produce, "verify": verify})
