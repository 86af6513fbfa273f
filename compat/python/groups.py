"""Consumer groups: assignors, static members, members that join, leave and die, commit and resume.

As a program (groups.py HOST:PORT GROUP TOPIC) it is a member that lives until it is killed."""

import subprocess
import sys
import threading

from checks import bootstrap, check, consumer, new_topic, same, send, take, unique, until
from confluent_kafka import TopicPartition


class Member:
    """A consumer polled by a thread of its own."""

    def __init__(self, group, topic, **settings):
        self.assigned = set()
        self.values = []
        self.failure = None
        self._closing = threading.Event()
        self._consumer = consumer(group, **settings)
        self._consumer.subscribe([topic])
        self._thread = threading.Thread(target=self._poll, daemon=True)
        self._thread.start()

    def _poll(self):
        while not self._closing.is_set():
            message = self._consumer.poll(0.05)
            self.assigned = {one.partition for one in self._consumer.assignment()}
            if message is not None and message.error():
                self.failure = message.error()
            elif message is not None:
                self.values.append(message.value().decode())
        self._consumer.close()

    def close(self):
        self._closing.set()
        self._thread.join(20)
        assert not self._thread.is_alive(), "the member closed"


def spread(topic, partitions, word, sent):
    """Sends values named by the word, spread over the partitions, and adds them to the list."""
    fresh = [f"{word} {i}" for i in range(40)]
    send(topic, [{"value": value, "partition": i % partitions} for i, value in enumerate(fresh)])
    sent.extend(fresh)


def received(expected, *members):
    """Waits until the members together have each value, and asserts that no value came twice."""
    until(f"{len(expected)} records", lambda: sum(len(one.values) for one in members) >= len(expected))
    same(sorted(expected), sorted(value for one in members for value in one.values))


def share(assignor):
    @check(f"group: members join and leave, {assignor}")
    def _():
        topic = new_topic("share", 4)
        group = unique("share")
        sent = []
        settings = {"partition.assignment.strategy": assignor}
        first = Member(group, topic, **settings)
        until("all partitions", lambda: len(first.assigned) == 4)
        spread(topic, 4, "alone", sent)
        received(sent, first)
        second = Member(group, topic, **settings)
        until("two partitions each", lambda: len(first.assigned) == 2 and len(second.assigned) == 2)
        assert not first.assigned & second.assigned, "no partition twice"
        spread(topic, 4, "together", sent)
        received(sent, first, second)
        assert second.values, "the second member reads too"
        second.close()
        until("all partitions again", lambda: len(first.assigned) == 4)
        spread(topic, 4, "after", sent)
        received(sent, first, second)
        first.close()


for strategy in ["range", "roundrobin", "cooperative-sticky"]:
    share(strategy)


@check("group: the partitions of a killed member go to the others")
def _():
    topic = new_topic("killed", 4)
    group = unique("killed")
    child = subprocess.Popen([sys.executable, __file__, bootstrap, group, topic], stdout=subprocess.PIPE)
    same(b"joined\n", child.stdout.readline())
    survivor = Member(group, topic)
    until("two partitions", lambda: len(survivor.assigned) == 2)
    child.kill()
    child.wait()
    sent = []
    spread(topic, 4, "orphaned", sent)
    until("all partitions", lambda: len(survivor.assigned) == 4)
    received(sent, survivor)
    survivor.close()


@check("group: a static member returns to its partitions")
def _():
    topic = new_topic("static", 4)
    group = unique("static")
    first = Member(group, topic, **{"group.instance.id": "first"})
    second = Member(group, topic, **{"group.instance.id": "second"})
    until("two partitions each", lambda: len(first.assigned) == 2 and len(second.assigned) == 2)
    before = second.assigned
    second.close()
    again = Member(group, topic, **{"group.instance.id": "second"})
    until("the same partitions", lambda: again.assigned == before)
    sent = []
    spread(topic, 4, "static", sent)
    received(sent, first, again)
    same(2, len(first.assigned))
    first.close()
    again.close()


@check("group: commit and resume, with metadata")
def _():
    topic = new_topic("commit")
    group = unique("commit")
    partition = TopicPartition(topic, 0)
    sent = [f"record {i}".encode() for i in range(20)]
    send(topic, sent)
    for start, committed in ((0, 12), (12, 20)):
        reader = consumer(group, **{"enable.auto.commit": False})
        reader.subscribe([topic])
        same(sent[start:], [record.value() for record in take(reader, 20 - start)])
        reader.commit(offsets=[TopicPartition(topic, 0, committed, metadata="by hand")], asynchronous=False)
        [found] = reader.committed([partition], timeout=10)
        same((committed, "by hand"), (found.offset, found.metadata))
        reader.close()


if __name__ == "__main__":
    member = Member(sys.argv[2], sys.argv[3])
    until("an assignment", lambda: len(member.assigned) > 0)
    print("joined", flush=True)
    threading.Event().wait()
