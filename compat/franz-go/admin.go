package main

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func adminChecks() []check {
	return []check{
		{"admin: topics created, described, listed, deleted", topics},
		{"admin: createTopics validated only, and invalid ones refused", refusedTopics},
		{"admin: partitions added, never removed", partitions},
		{"admin: configs described, altered step by step, refused", configs},
		{"admin: offsets listed and records deleted", offsets},
		{"admin: cluster, brokers and API versions", cluster},
		{"admin: log directories described", logDirs},
		{"admin: offsets for leader epochs", leaderEpochs},
	}
}

func topics(ctx context.Context) {
	topic := unique("life")
	created := value(admin.CreateTopic(ctx, 5, 1, nil, topic))
	must(created.Err)
	same(int32(5), created.NumPartitions)
	same(int16(1), created.ReplicationFactor)
	until("the topic is known", func() bool { return value(admin.ListTopics(ctx)).Has(topic) })
	described := value(admin.ListTopics(ctx, topic))[topic]
	same(created.ID, described.ID)
	same(5, len(described.Partitions))
	same([]int32{0, 1, 2, 3, 4}, described.Partitions.Numbers())
	holds(described.Partitions[0].LeaderEpoch >= 0, "a leader epoch")
	same([]int32{described.Partitions[0].Leader}, described.Partitions[0].Replicas)
	again, _ := admin.CreateTopic(ctx, 5, 1, nil, topic)
	failsWith(kerr.TopicAlreadyExists, again.Err)
	must(value(admin.DeleteTopic(ctx, topic)).Err)
	until("the topic is gone", func() bool { return !value(admin.ListTopics(ctx)).Has(topic) })
	gone, _ := admin.DeleteTopic(ctx, topic)
	failsWith(kerr.UnknownTopicOrPartition, gone.Err)
}

func refusedTopics(ctx context.Context) {
	topic := unique("refused")
	validated := value(admin.ValidateCreateTopics(ctx, 1, 1, nil, topic))
	must(validated[topic].Err)
	holds(!value(admin.ListTopics(ctx)).Has(topic), "not made")
	soon := "soon"
	refuse := func(expected error, name string, partitions int32, replicas int16, configs map[string]*string) {
		made, _ := admin.CreateTopic(ctx, partitions, replicas, configs, name)
		failsWith(expected, made.Err)
	}
	refuse(kerr.InvalidTopicException, "no spaces", 1, 1, nil)
	refuse(kerr.InvalidPartitions, topic, 0, 1, nil)
	refuse(kerr.InvalidReplicationFactor, topic, 1, 3, nil)
	refuse(kerr.InvalidConfig, topic, 1, 1, map[string]*string{"retention.ms": &soon})
	refuse(kerr.InvalidConfig, topic, 1, 1, map[string]*string{"no.such.config": &soon})
}

func partitions(ctx context.Context) {
	topic := newTopic(ctx, "grow", 2)
	must(value(admin.CreatePartitions(ctx, 2, topic))[topic].Err)
	until("four partitions", func() bool { return len(value(admin.ListTopics(ctx, topic))[topic].Partitions) == 4 })
	fewer := value(admin.UpdatePartitions(ctx, 3, topic))
	failsWith(kerr.InvalidPartitions, fewer[topic].Err)
}

func configs(ctx context.Context) {
	hour := "3600000"
	topic := unique("config")
	must(value(admin.CreateTopic(ctx, 1, 1, map[string]*string{"retention.ms": &hour}, topic)).Err)
	describe := func(name string) *kadm.Config {
		found := value(value(admin.DescribeTopicConfigs(ctx, topic)).On(topic, nil))
		for _, config := range found.Configs {
			if config.Key == name {
				return &config
			}
		}
		return &kadm.Config{}
	}
	alter := func(operation kadm.IncrementalOp, name string, text *string) error {
		altered := value(admin.AlterTopicConfigs(ctx, []kadm.AlterConfig{{Op: operation, Name: name, Value: text}}, topic))
		return altered[0].Err
	}
	until("the topic is known", func() bool { return value(admin.ListTopics(ctx)).Has(topic) })
	same("3600000", describe("retention.ms").MaybeValue())
	same(kmsg.ConfigSourceDynamicTopicConfig, describe("retention.ms").Source)
	limit, soon, compact := "200000", "soon", "compact"
	must(alter(kadm.SetConfig, "max.message.bytes", &limit))
	until("the value set", func() bool { return describe("max.message.bytes").MaybeValue() == limit })
	must(alter(kadm.DeleteConfig, "retention.ms", nil))
	until("the default again", func() bool { return describe("retention.ms").Source != kmsg.ConfigSourceDynamicTopicConfig })
	must(alter(kadm.AppendConfig, "cleanup.policy", &compact))
	until("the list appended to", func() bool { return describe("cleanup.policy").MaybeValue() == "delete,compact" })
	failsWith(kerr.InvalidConfig, alter(kadm.SetConfig, "retention.ms", &soon))
	failsWith(kerr.InvalidConfig, alter(kadm.SetConfig, "no.such.config", &soon))
}

func offsets(ctx context.Context) {
	topic := newTopic(ctx, "trim", 1)
	sent := numbered("trim", 10)
	send(ctx, topic, sent)
	at := func(listed kadm.ListedOffsets, err error) int64 {
		must(err)
		found, known := listed.Lookup(topic, 0)
		holds(known, "the partition is listed")
		must(found.Err)
		return found.Offset
	}
	same(int64(0), at(admin.ListStartOffsets(ctx, topic)))
	same(int64(10), at(admin.ListEndOffsets(ctx, topic)))
	same(int64(10), at(admin.ListCommittedOffsets(ctx, topic)))
	same(int64(0), at(admin.ListOffsetsAfterMilli(ctx, 0, topic)))
	before := func(offset int64) kadm.DeleteRecordsResponse {
		var wanted kadm.Offsets
		wanted.AddOffset(topic, 0, offset, -1)
		deleted, _ := value(admin.DeleteRecords(ctx, wanted)).Lookup(topic, 0)
		return deleted
	}
	same(int64(6), before(6).LowWatermark)
	same(int64(6), at(admin.ListStartOffsets(ctx, topic)))
	same(sent[6:], values(read(ctx, topic, 4)))
	failsWith(kerr.OffsetOutOfRange, before(11).Err)
}

func cluster(ctx context.Context) {
	metadata := value(admin.BrokerMetadata(ctx))
	holds(metadata.Cluster != "", "a cluster id")
	found := false
	for _, broker := range metadata.Brokers {
		found = found || fmt.Sprintf("%s:%d", broker.Host, broker.Port) == bootstrap
	}
	holds(found, "this broker")
	versions := value(admin.ApiVersions(ctx))
	for _, broker := range versions {
		must(broker.Err)
		for key := range int16(4) {
			_, served := broker.KeyMaxVersion(key)
			holds(served, fmt.Sprintf("API %d is served", key))
		}
	}
}

func logDirs(ctx context.Context) {
	topic := newTopic(ctx, "dirs", 1)
	must(sendRecords(ctx, []*kgo.Record{{Topic: topic, Value: make([]byte, 10_000)}}, kgo.ProducerBatchCompression(kgo.NoCompression())))
	described := value(admin.DescribeAllLogDirs(ctx, kadm.TopicsSet{topic: {0: {}}}))
	var size int64
	described.Each(func(directory kadm.DescribedLogDir) { size += directory.Size() })
	holds(size >= 10_000, fmt.Sprintf("the size of the partition, not %d", size))
}

func leaderEpochs(ctx context.Context) {
	topic := newTopic(ctx, "epochs", 1)
	send(ctx, topic, []string{"a", "b"})
	epoch := value(admin.ListTopics(ctx, topic))[topic].Partitions[0].LeaderEpoch
	ends := func(epoch int32) [2]int64 {
		var request kadm.OffsetForLeaderEpochRequest
		request.Add(topic, 0, epoch)
		found := value(admin.OffsetForLeaderEpoch(ctx, request))[topic][0]
		must(found.Err)
		return [2]int64{int64(found.LeaderEpoch), found.EndOffset}
	}
	same([2]int64{int64(epoch), 2}, ends(epoch))
	same([2]int64{-1, -1}, ends(epoch+1))
}
