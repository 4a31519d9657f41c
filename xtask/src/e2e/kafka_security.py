"""Logs in over TLS with the Python clients of Kafka, and swaps the server's
certificate under them.

    kafka_security.py BOOTSTRAP DIRECTORY USER PASSWORD

DIRECTORY holds ca.crt, tls.crt and tls.key, the latter two behind the link
..data, which stands for `first` and is swapped for `second`. Prints a line for
what was shown; fails at the first thing that is not as it should be.
"""

import asyncio
import os
import ssl
import sys
import time

import aiokafka
import confluent_kafka
import kafka

BOOTSTRAP, DIRECTORY, USER, PASSWORD = sys.argv[1:]
CA = os.path.join(DIRECTORY, "ca.crt")
MECHANISMS = ["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"]
RECORDS = 25


def values(of):
    return [f"{of}-{number}".encode() for number in range(RECORDS)]


def topic_of(client, mechanism):
    return f"{client}-{mechanism}".lower()


# librdkafka

def librdkafka(mechanism, password=PASSWORD, **more):
    return {
        "bootstrap.servers": BOOTSTRAP,
        "security.protocol": "SASL_SSL",
        "ssl.ca.location": CA,
        "sasl.mechanism": mechanism,
        "sasl.username": USER,
        "sasl.password": password,
        **more,
    }


def produce_librdkafka(producer, topic, sent):
    failed = []
    for value in sent:
        producer.produce(topic, value, on_delivery=lambda error, _: failed.append(error))
    assert producer.flush(30) == 0, "not delivered"
    assert not any(failed), failed


def consume_librdkafka(mechanism, topic, count):
    consumer = confluent_kafka.Consumer(
        librdkafka(mechanism, **{"group.id": "unused", "enable.auto.commit": False})
    )
    consumer.assign([confluent_kafka.TopicPartition(topic, 0, 0)])
    found = []
    until = time.monotonic() + 30
    while len(found) < count and time.monotonic() < until:
        message = consumer.poll(1)
        if message is not None:
            assert message.error() is None, message.error()
            found.append(message.value())
    consumer.close()
    return found


def refused_librdkafka(mechanism, password):
    errors = []
    producer = confluent_kafka.Producer(
        librdkafka(mechanism, password, error_cb=errors.append, logger=None)
    )
    producer.produce("never", b"never")
    until = time.monotonic() + 30
    while time.monotonic() < until:
        producer.poll(0.1)
        if any(error.code() == confluent_kafka.KafkaError._AUTHENTICATION for error in errors):
            producer.purge()
            return
    raise AssertionError(f"{mechanism}: not refused: {errors}")


# kafka-python

def kafka_python(mechanism, password=PASSWORD):
    return {
        "bootstrap_servers": BOOTSTRAP,
        "security_protocol": "SASL_SSL",
        "ssl_cafile": CA,
        "sasl_mechanism": mechanism,
        "sasl_plain_username": USER,
        "sasl_plain_password": password,
    }


def with_kafka_python(mechanism):
    topic = topic_of("kafka-python", mechanism)
    producer = kafka.KafkaProducer(
        **kafka_python(mechanism), acks="all", enable_idempotence=False
    )
    sent = values(topic)
    for future in [producer.send(topic, value) for value in sent]:
        future.get(30)
    producer.close()
    consumer = kafka.KafkaConsumer(**kafka_python(mechanism), consumer_timeout_ms=30_000)
    consumer.assign([kafka.TopicPartition(topic, 0)])
    consumer.seek_to_beginning()
    found = []
    for record in consumer:
        found.append(record.value)
        if len(found) == len(sent):
            break
    consumer.close()
    assert found == sent, (len(found), len(sent))


def refused_kafka_python(mechanism, password):
    try:
        client = kafka.KafkaAdminClient(
            **kafka_python(mechanism, password), bootstrap_timeout_ms=2_000
        )
        client.list_topics()
    except kafka.errors.KafkaError:
        return
    raise AssertionError(f"{mechanism}: not refused")


# aiokafka

async def with_aiokafka(mechanism):
    topic = topic_of("aiokafka", mechanism)
    options = {
        "bootstrap_servers": BOOTSTRAP,
        "security_protocol": "SASL_SSL",
        "ssl_context": ssl.create_default_context(cafile=CA),
        "sasl_mechanism": mechanism,
        "sasl_plain_username": USER,
        "sasl_plain_password": PASSWORD,
    }
    sent = values(topic)
    producer = aiokafka.AIOKafkaProducer(**options, acks="all")
    await producer.start()
    for value in sent:
        await producer.send_and_wait(topic, value)
    await producer.stop()
    consumer = aiokafka.AIOKafkaConsumer(**options)
    await consumer.start()
    partition = aiokafka.TopicPartition(topic, 0)
    consumer.assign([partition])
    await consumer.seek_to_beginning(partition)
    found = [(await asyncio.wait_for(consumer.getone(), 30)).value for _ in sent]
    await consumer.stop()
    assert found == sent


def served_certificate():
    host, port = BOOTSTRAP.rsplit(":", 1)
    return ssl.get_server_certificate((host, int(port)))


def swap_certificate():
    before = served_certificate()
    os.symlink("second", os.path.join(DIRECTORY, "..next"))
    os.replace(os.path.join(DIRECTORY, "..next"), os.path.join(DIRECTORY, "..data"))
    until = time.monotonic() + 30
    while served_certificate() == before:
        assert time.monotonic() < until, "the new certificate is not served"


def main():
    for mechanism in MECHANISMS:
        topic = topic_of("librdkafka", mechanism)
        producer = confluent_kafka.Producer(librdkafka(mechanism))
        produce_librdkafka(producer, topic, values(topic))
        assert consume_librdkafka(mechanism, topic, RECORDS) == values(topic)
        print("librdkafka", mechanism)
        with_kafka_python(mechanism)
        print("kafka-python", mechanism)
        asyncio.run(with_aiokafka(mechanism))
        print("aiokafka", mechanism)
        refused_librdkafka(mechanism, "wrong " + PASSWORD)
        refused_kafka_python(mechanism, "wrong " + PASSWORD)
        print("a wrong password is refused", mechanism)
    topic = "swapped"
    producer = confluent_kafka.Producer(librdkafka("SCRAM-SHA-512"))
    produce_librdkafka(producer, topic, values("before"))
    swap_certificate()
    produce_librdkafka(producer, topic, values("after"))
    found = consume_librdkafka("SCRAM-SHA-512", topic, 2 * RECORDS)
    assert found == values("before") + values("after"), found
    print("a certificate is swapped under an open connection")


main()
