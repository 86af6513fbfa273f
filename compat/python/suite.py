"""confluent-kafka on the newest librdkafka. Usage: suite.py HOST:PORT [part of a check's name]"""

import time

from checks import admin, bootstrap, check, consumer, fails, new_topic, read, run_suite, same, send, take, unique, until
from confluent_kafka import (
    TIMESTAMP_CREATE_TIME,
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    KafkaError,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
)

import groups  # noqa: F401 - adds its checks


def numbered(word, count):
    return [f"{word} {i} {'ab' * (i % 40)} żółć".encode() for i in range(count)]


def values(records):
    return [record.value() for record in records]


def codec(name):
    @check(f"produce and consume {name}")
    def _():
        topic = new_topic(name)
        sent = numbered(name, 3000)
        send(topic, sent, **{"compression.type": name})
        records = read(topic, len(sent))
        same(sent, values(records))
        same(list(range(len(sent))), [record.offset() for record in records])


for one in ["none", "gzip", "snappy", "lz4", "zstd"]:
    codec(one)


def acks(level):
    @check(f"acks={level}")
    def _():
        topic = new_topic("acks")
        sent = numbered("acks", 100)
        send(topic, sent, acks=level)
        same(sent, values(read(topic, len(sent))))


for one in [0, 1, "all"]:
    acks(one)


@check("idempotent producer, many small batches in flight, in order")
def _():
    topic = new_topic("idempotent")
    sent = numbered("idempotent", 20000)
    send(topic, sent, **{"enable.idempotence": True, "batch.num.messages": 20})
    same(sent, values(read(topic, len(sent))))


@check("keys, null and empty keys and values")
def _():
    topic = new_topic("nulls")
    pairs = [(b"k", b"v"), (None, b"v"), (b"k", None), (None, None), (b"", b""), (b"\x00\xff\x80", b"\xff\x00")]
    send(topic, [{"key": key, "value": value, "partition": 0} for key, value in pairs])
    same(pairs, [(record.key(), record.value()) for record in read(topic, len(pairs))])


@check("headers in order, duplicates and nulls")
def _():
    topic = new_topic("headers")
    headers = [("b", b"2"), ("a", b"1"), ("b", b"3"), ("none", None), ("empty", b"")]
    send(topic, [{"value": b"x", "partition": 0, "headers": headers}])
    same(headers, read(topic, 1)[0].headers())


@check("a record of 1 MB, and one over the limit refused")
def _():
    topic = new_topic("large")
    value = b"Millrace " * (1_048_000 // 9)
    send(topic, [value], **{"message.max.bytes": 10_000_000})
    same([value], values(read(topic, 1)))
    over = [b"x" * 2_000_000]
    fails(KafkaError.MSG_SIZE_TOO_LARGE, lambda: send(topic, over, **{"message.max.bytes": 10_000_000}))


@check("timestamps as given, far apart in one batch")
def _():
    topic = new_topic("times")
    times = [1000, int(time.time() * 1000), 1_700_000_000_123]
    send(topic, [{"value": b"x", "partition": 0, "timestamp": at} for at in times], **{"linger.ms": 100})
    same([(TIMESTAMP_CREATE_TIME, at) for at in times], [record.timestamp() for record in read(topic, 3)])


@check("watermarks and offsets for times")
def _():
    topic = new_topic("offsets", 2)
    minute_ago = int(time.time() * 1000) - 60_000  # what is much older may fall to retention at any time
    send(topic, [{"value": b"x", "partition": 0, "timestamp": minute_ago + i * 10} for i in range(10)])
    reader = consumer()
    partition = TopicPartition(topic, 0)
    same((0, 10), reader.get_watermark_offsets(partition, timeout=10))
    same((0, 0), reader.get_watermark_offsets(TopicPartition(topic, 1), timeout=10))
    wanted = [TopicPartition(topic, 0, minute_ago + 35), TopicPartition(topic, 1, 0)]
    found = reader.offsets_for_times(wanted, timeout=10)
    # librdkafka gives OFFSET_END where the broker says that there is no such record.
    same([(0, 4), (1, -1)], [(one.partition, one.offset) for one in found])
    reader.close()


@check("seek, pause, resume, position")
def _():
    topic = new_topic("seek")
    sent = numbered("seek", 20)
    send(topic, sent)
    reader = consumer()
    partition = TopicPartition(topic, 0)
    reader.assign([TopicPartition(topic, 0, 15)])
    same(sent[15:], values(take(reader, 5)))
    same(20, reader.position([partition])[0].offset)
    reader.seek(TopicPartition(topic, 0, 18))
    same(sent[18:], values(take(reader, 2)))
    reader.pause([partition])
    send(topic, [b"later"])
    assert reader.poll(0.3) is None, "nothing while paused"
    reader.resume([partition])
    same([b"later"], values(take(reader, 1)))
    reader.close()


@check("an offset out of range is an error")
def _():
    topic = new_topic("range")
    send(topic, [b"a", b"b"])
    settings = {"auto.offset.reset": "error"}
    fails(KafkaError._AUTO_OFFSET_RESET, lambda: read(topic, 1, offset=50, **settings))
    same([b"a", b"b"], values(read(topic, 2, offset=50)))


@check("a topic is made by producing to it")
def _():
    topic = unique("auto")
    send(topic, [b"x"])
    same([b"x"], values(read(topic, 1)))


@check("admin: topics created, described, listed, deleted")
def _():
    topic = new_topic("life", 5)
    listed = admin.list_topics(timeout=10)
    same(5, len(listed.topics[topic].partitions))
    assert any(f"{one.host}:{one.port}" == bootstrap for one in listed.brokers.values())
    described = admin.describe_topics(TopicCollection([topic]))[topic].result(10)
    same([0, 1, 2, 3, 4], [one.id for one in described.partitions])
    assert described.topic_id is not None
    fails(KafkaError.TOPIC_ALREADY_EXISTS, lambda: admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(10))
    admin.delete_topics([topic])[topic].result(10)
    until("the topic is gone", lambda: topic not in admin.list_topics(timeout=10).topics)
    fails(KafkaError.UNKNOWN_TOPIC_OR_PART, lambda: admin.delete_topics([topic])[topic].result(10))


@check("admin: createTopics validated only, and invalid ones refused")
def _():
    topic = unique("refused")
    admin.create_topics([NewTopic(topic, 1, 1)], validate_only=True)[topic].result(10)
    assert topic not in admin.list_topics(timeout=10).topics

    def refuse(code, name, partitions=1, replicas=1, config=None):
        made = admin.create_topics([NewTopic(name, partitions, replicas, config=config or {})])
        fails(code, lambda: made[name].result(10))

    refuse(KafkaError.TOPIC_EXCEPTION, "no spaces")
    refuse(KafkaError.INVALID_REPLICATION_FACTOR, topic, replicas=3)
    refuse(KafkaError.INVALID_CONFIG, topic, config={"retention.ms": "soon"})
    refuse(KafkaError.INVALID_CONFIG, topic, config={"no.such.config": "1"})


@check("admin: partitions added, never removed")
def _():
    topic = new_topic("grow", 2)
    admin.create_partitions([NewPartitions(topic, 4)])[topic].result(10)
    until("four partitions", lambda: len(admin.list_topics(topic, timeout=10).topics[topic].partitions) == 4)
    fewer = admin.create_partitions([NewPartitions(topic, 3)])
    fails(KafkaError.INVALID_PARTITIONS, lambda: fewer[topic].result(10))


@check("admin: configs described, altered step by step, refused")
def _():
    topic = new_topic("config", **{"retention.ms": "3600000"})

    def describe(name):
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
        return admin.describe_configs([resource])[resource].result(10)[name]

    def alter(name, value, operation=AlterConfigOpType.SET):
        entry = ConfigEntry(name, value, incremental_operation=operation)
        resource = ConfigResource(ConfigResource.Type.TOPIC, topic, incremental_configs=[entry])
        admin.incremental_alter_configs([resource])[resource].result(10)

    same("3600000", describe("retention.ms").value)
    same(ConfigSource.DYNAMIC_TOPIC_CONFIG.value, describe("retention.ms").source)
    alter("max.message.bytes", "200000")
    until("the value set", lambda: describe("max.message.bytes").value == "200000")
    alter("retention.ms", None, AlterConfigOpType.DELETE)
    until("the default again", lambda: describe("retention.ms").source != ConfigSource.DYNAMIC_TOPIC_CONFIG.value)
    fails(KafkaError.INVALID_CONFIG, lambda: alter("retention.ms", "soon"))
    fails(KafkaError.INVALID_CONFIG, lambda: alter("no.such.config", "1"))


@check("admin: offsets listed and records deleted")
def _():
    topic = new_topic("trim")
    sent = numbered("trim", 10)
    minute_ago = int(time.time() * 1000) - 60_000  # what is much older may fall to retention at any time
    send(topic, [{"value": value, "partition": 0, "timestamp": minute_ago + i} for i, value in enumerate(sent)])
    partition = TopicPartition(topic, 0)

    def at(spec):
        return admin.list_offsets({partition: spec})[partition].result(10)

    specs = (OffsetSpec.earliest(), OffsetSpec.latest(), OffsetSpec(minute_ago + 4))
    same([0, 10, 4], [at(spec).offset for spec in specs])
    same((9, minute_ago + 9), (at(OffsetSpec.max_timestamp()).offset, at(OffsetSpec.max_timestamp()).timestamp))
    before = TopicPartition(topic, 0, 6)
    same(6, admin.delete_records([before])[before].result(10).low_watermark)
    same(6, at(OffsetSpec.earliest()).offset)
    same(sent[6:], values(read(topic, 4)))
    past = TopicPartition(topic, 0, 11)
    fails(KafkaError.OFFSET_OUT_OF_RANGE, lambda: admin.delete_records([past])[past].result(10))


@check("admin: cluster described")
def _():
    cluster = admin.describe_cluster().result(10)
    assert cluster.cluster_id
    assert any(f"{node.host}:{node.port}" == bootstrap for node in cluster.nodes)
    assert cluster.controller.id in [node.id for node in cluster.nodes]


@check("group admin: described, listed, offsets altered, deleted")
def _():
    topic = new_topic("described", 2)
    group = unique("described")
    member = groups.Member(group, topic, **{"client.id": "compat-client"})
    until("all partitions", lambda: len(member.assigned) == 2)
    described = admin.describe_consumer_groups([group])[group].result(10)
    same(ConsumerGroupState.STABLE, described.state)
    same("range", described.partition_assignor)
    same(["compat-client"], [one.client_id for one in described.members])
    same([0, 1], sorted(one.partition for one in described.members[0].assignment.topic_partitions))
    stable = admin.list_consumer_groups(states={ConsumerGroupState.STABLE}).result(10)
    assert any(one.group_id == group for one in stable.valid)
    fails(KafkaError.NON_EMPTY_GROUP, lambda: admin.delete_consumer_groups([group])[group].result(10))
    member.close()
    wanted = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0, 7), TopicPartition(topic, 1, 3)])
    admin.alter_consumer_group_offsets([wanted])[group].result(10)
    found = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)])[group].result(10)
    same([(0, 7), (1, 3)], sorted((one.partition, one.offset) for one in found.topic_partitions))
    admin.delete_consumer_groups([group])[group].result(10)
    fails(KafkaError.GROUP_ID_NOT_FOUND, lambda: admin.delete_consumer_groups([group])[group].result(10))


run_suite()
