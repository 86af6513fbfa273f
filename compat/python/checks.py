"""The common shape of compat/suite.ts for Python, and the clients the checks use."""

import os
import sys
import threading
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

bootstrap = sys.argv[1] if len(sys.argv) > 1 else os.environ.get("BOOTSTRAP", "127.0.0.1:9092")
_run = f"{int(time.time() * 1000):x}"
_names = 0
_checks = []


def check(name):
    """Adds the function to the table of checks."""

    def add(function):
        _checks.append((name, function))
        return function

    return add


def run_suite():
    only = sys.argv[2] if len(sys.argv) > 2 else ""
    chosen = [(name, function) for name, function in _checks if only in name]
    print(f"1..{len(chosen)}", flush=True)
    failures = sum(not _passes(name, function) for name, function in chosen)
    sys.stdout.flush()
    os._exit(1 if failures else 0)


def _passes(name, function, timeout=60):
    outcome = []

    def body():
        try:
            function()
            outcome.append(None)
        except BaseException as error:  # noqa: BLE001 - every failure is reported
            outcome.append(f"{type(error).__name__} {error}")

    started = time.monotonic()
    thread = threading.Thread(target=body, daemon=True)
    thread.start()
    thread.join(timeout)
    reason = outcome[0] if outcome else f"no result after {timeout} s"
    print(f"ok {name}" if reason is None else f"not ok {name}: {' '.join(reason.split())[:500]}", flush=True)
    if os.environ.get("COMPAT_TIMES"):
        print(f"# {name} {round((time.monotonic() - started) * 1000)} ms", file=sys.stderr)
    return reason is None


def unique(word):
    """A topic or group name that no earlier run against the same broker has used."""
    global _names
    _names += 1
    return f"compat-python-{word}-{_run}-{_names}"


# One for all checks: a client that is collected fails the futures it has given.
admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 1})


def new_topic(word, partitions=1, **config):
    topic = unique(word)
    made = admin.create_topics([NewTopic(topic, partitions, 1, config=config)])
    made[topic].result(30)
    # Kafka's controller answers before its brokers have heard of the topic.
    until("the topic is known", lambda: topic in admin.list_topics(timeout=10).topics)
    return topic


def send(topic, values, **settings):
    """Sends values, or dictionaries of what produce() takes, and waits for every acknowledgement."""
    failures = []
    producer = Producer({"bootstrap.servers": bootstrap, "log_level": 1, **settings})
    for value in values:
        record = value if isinstance(value, dict) else {"value": value, "partition": 0}
        producer.produce(topic, on_delivery=lambda error, _: error and failures.append(error), **record)
        producer.poll(0)
    left = producer.flush(30)
    if failures:
        raise KafkaException(failures[0])
    assert left == 0, f"{left} records without acknowledgement"


def consumer(group=None, **settings):
    return Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": group or unique("reader"),
            "auto.offset.reset": "earliest",
            "session.timeout.ms": 6000,
            "heartbeat.interval.ms": 300,
            "fetch.wait.max.ms": 100,
            "log_level": 1,
            **settings,
        }
    )


def take(reader, count):
    """The next records of an assigned or subscribed consumer."""
    records = []
    deadline = time.monotonic() + 30
    while len(records) < count:
        assert time.monotonic() < deadline, f"only {len(records)} of {count} records came"
        message = reader.poll(0.2)
        if message is None:
            continue
        if message.error():
            raise KafkaException(message.error())
        records.append(message)
    return records


def read(topic, count, partition=0, offset=0, **settings):
    reader = consumer(**settings)
    reader.assign([TopicPartition(topic, partition, offset)])
    try:
        return take(reader, count)
    finally:
        reader.close()


def same(expected, actual):
    assert expected == actual, f"expected {repr(expected)[:200]}, not {repr(actual)[:200]}"


def fails(code, function):
    """Asserts the error that a broker (or the client) answers with."""
    try:
        function()
    except KafkaException as error:
        found = error.args[0].code()
        assert found == code, f"expected {KafkaError(code).name()}, not {error.args[0].name()}: {error}"
        return
    raise AssertionError(f"expected {KafkaError(code).name()}, not success")


def until(what, condition, timeout=30):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout} s for: {what}"
        time.sleep(0.02)
