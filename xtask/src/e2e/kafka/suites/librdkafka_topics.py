"""Stands for Apache Kafka's kafka-topics.sh, as far as librdkafka's tests call it."""

import argparse

from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

SECONDS_MAX = 30


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bootstrap-server", required=True)
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--create", action="store_true")
    action.add_argument("--alter", action="store_true")
    action.add_argument("--delete", action="store_true")
    parser.add_argument("--topic", required=True)
    parser.add_argument("--partitions", type=int, default=-1)
    parser.add_argument("--replication-factor", type=int, default=-1)
    parser.add_argument("--config", action="append", default=[])
    asked = parser.parse_args()
    admin = AdminClient({"bootstrap.servers": asked.bootstrap_server})
    if asked.create:
        config = dict(setting.split("=", 1) for setting in asked.config)
        topic = NewTopic(asked.topic, asked.partitions, asked.replication_factor, config=config)
        done = admin.create_topics([topic])
    elif asked.alter:
        done = admin.create_partitions([NewPartitions(asked.topic, asked.partitions)])
    else:
        done = admin.delete_topics([asked.topic])
    done[asked.topic].result(SECONDS_MAX)


main()
