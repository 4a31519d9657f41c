"""Stands for a module of kafka-python's tests that its source distribution leaves
out: the suite asks it for the broker, which is there already."""


class ExternalService:
    """A broker that somebody else started and will end."""

    def __init__(self, host, port):
        self.host = host
        self.port = port

    def open(self):
        pass

    def close(self):
        pass

    def stop(self):
        pass

    def dump_logs(self):
        pass


class SpawnedService:
    """A broker that the suite starts: none is installed."""

    def __init__(self, args, env):
        raise RuntimeError("there is no Apache Kafka to start: %r" % (args,))
