"""Transactions of one record in each of two streams, until it is told to stop.

One in five is aborted.
"""

import signal
import sys
import time

from confluent_kafka import Producer

stopping = False


def stop(*_):
    global stopping
    stopping = True


signal.signal(signal.SIGTERM, stop)
producer = Producer({"bootstrap.servers": sys.argv[1], "transactional.id": "pairs", "linger.ms": 0})
producer.init_transactions(60)
number = 0
while not stopping:
    producer.begin_transaction()
    for stream in ("left", "right"):
        producer.produce(stream, value=str(number), partition=0)
    if number % 5 == 4:
        producer.flush(60)
        producer.abort_transaction(60)
    else:
        producer.commit_transaction(60)
    number += 1
    time.sleep(0.005)
