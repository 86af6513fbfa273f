package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

func recordChecks() []check {
	var checks []check
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(),
		"lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	for _, name := range []string{"none", "gzip", "snappy", "lz4", "zstd"} {
		checks = append(checks, check{"produce and consume " + name, func(ctx context.Context) {
			topic := newTopic(ctx, name, 1)
			sent := numbered(name, 3000)
			send(ctx, topic, sent, kgo.ProducerBatchCompression(codecs[name]))
			records := read(ctx, topic, len(sent))
			same(sent, values(records))
			for i, record := range records {
				same(int64(i), record.Offset)
			}
		}})
	}
	acks := map[string]kgo.Acks{"0": kgo.NoAck(), "1": kgo.LeaderAck(), "all": kgo.AllISRAcks()}
	for _, name := range []string{"0", "1", "all"} {
		checks = append(checks, check{"acks=" + name + " without idempotence", func(ctx context.Context) {
			topic := newTopic(ctx, "acks", 1)
			sent := numbered("acks", 100)
			send(ctx, topic, sent, kgo.RequiredAcks(acks[name]), kgo.DisableIdempotentWrite())
			same(sent, values(read(ctx, topic, len(sent))))
		}})
	}
	return append(checks,
		check{"idempotent producer, many small batches in flight, in order", idempotent},
		check{"keys, null and empty keys and values", nulls},
		check{"headers in order, duplicates and nulls", headers},
		check{"a record of 1 MB, and one over the limit refused", large},
		check{"timestamps as given, far apart in one batch", timestamps},
		check{"start offsets: at, relative, by time, out of range", startOffsets},
		check{"a fetch smaller than a batch still advances", smallFetch},
		check{"a topic is made by producing to it", autoCreate},
	)
}

func numbered(word string, count int) []string {
	var values []string
	for i := range count {
		values = append(values, fmt.Sprintf("%s %d %s żółć", word, i, strings.Repeat("ab", i%40)))
	}
	return values
}

func values(records []*kgo.Record) []string {
	var found []string
	for _, record := range records {
		found = append(found, string(record.Value))
	}
	return found
}

// send produces the values to partition 0 and waits for every acknowledgement.
func send(ctx context.Context, topic string, values []string, options ...kgo.Opt) {
	var records []*kgo.Record
	for _, one := range values {
		records = append(records, &kgo.Record{Topic: topic, Value: []byte(one)})
	}
	must(sendRecords(ctx, records, options...))
}

func sendRecords(ctx context.Context, records []*kgo.Record, options ...kgo.Opt) error {
	producer := client(append([]kgo.Opt{kgo.RecordPartitioner(kgo.ManualPartitioner())}, options...)...)
	defer producer.Close()
	return producer.ProduceSync(ctx, records...).FirstErr()
}

func read(ctx context.Context, topic string, count int, options ...kgo.Opt) []*kgo.Record {
	start := kgo.ConsumeResetOffset(kgo.NewOffset().AtStart())
	consumer := client(append([]kgo.Opt{kgo.ConsumeTopics(topic), start}, options...)...)
	defer consumer.Close()
	return take(ctx, consumer, count)
}

func take(ctx context.Context, consumer *kgo.Client, count int) []*kgo.Record {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var records []*kgo.Record
	for len(records) < count {
		fetches := consumer.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			fail("%d of %d records came: %v", len(records), count, err)
		}
		records = append(records, fetches.Records()...)
	}
	return records
}

func idempotent(ctx context.Context) {
	topic := newTopic(ctx, "idempotent", 1)
	sent := numbered("idempotent", 20000)
	send(ctx, topic, sent, kgo.ProducerBatchMaxBytes(2048), kgo.ProducerBatchCompression(kgo.NoCompression()))
	same(sent, values(read(ctx, topic, len(sent))))
}

func nulls(ctx context.Context) {
	topic := newTopic(ctx, "nulls", 1)
	pairs := [][2][]byte{
		{[]byte("k"), []byte("v")}, {nil, []byte("v")}, {[]byte("k"), nil}, {nil, nil}, {{}, {}}, {{0, 255, 128}, {255, 0}},
	}
	var records []*kgo.Record
	for _, pair := range pairs {
		records = append(records, &kgo.Record{Topic: topic, Key: pair[0], Value: pair[1]})
	}
	must(sendRecords(ctx, records))
	for i, record := range read(ctx, topic, len(pairs)) {
		same(pairs[i], [2][]byte{record.Key, record.Value})
		same(pairs[i][0] == nil, record.Key == nil)
		same(pairs[i][1] == nil, record.Value == nil)
	}
}

func headers(ctx context.Context) {
	topic := newTopic(ctx, "headers", 1)
	headers := []kgo.RecordHeader{
		{Key: "b", Value: []byte("2")}, {Key: "a", Value: []byte("1")}, {Key: "b", Value: []byte("3")},
		{Key: "none", Value: nil}, {Key: "empty", Value: []byte{}}, {Key: "", Value: []byte("nameless")},
	}
	must(sendRecords(ctx, []*kgo.Record{{Topic: topic, Value: []byte("x"), Headers: headers}}))
	same(headers, read(ctx, topic, 1)[0].Headers)
}

func large(ctx context.Context) {
	topic := newTopic(ctx, "large", 1)
	value := bytes.Repeat([]byte("Millrace "), 1_048_000/9)
	raw := []kgo.Opt{kgo.ProducerBatchCompression(kgo.NoCompression()), kgo.ProducerBatchMaxBytes(10_000_000)}
	must(sendRecords(ctx, []*kgo.Record{{Topic: topic, Value: value}}, raw...))
	holds(bytes.Equal(value, read(ctx, topic, 1)[0].Value), "the value as sent")
	over := []*kgo.Record{{Topic: topic, Value: bytes.Repeat([]byte("x"), 2_000_000)}}
	failsWith(kerr.MessageTooLarge, sendRecords(ctx, over, raw...))
}

func timestamps(ctx context.Context) {
	topic := newTopic(ctx, "times", 1)
	times := []int64{1000, time.Now().UnixMilli(), 1_700_000_000_123, 1}
	var records []*kgo.Record
	for _, at := range times {
		records = append(records, &kgo.Record{Topic: topic, Value: []byte("x"), Timestamp: time.UnixMilli(at)})
	}
	must(sendRecords(ctx, records))
	for i, record := range read(ctx, topic, len(times)) {
		same(times[i], record.Timestamp.UnixMilli())
		same(int8(0), record.Attrs.TimestampType())
	}
}

func startOffsets(ctx context.Context) {
	topic := newTopic(ctx, "start", 1)
	sent := numbered("start", 10)
	// What is much older may fall to retention at any time.
	minuteAgo := time.UnixMilli(time.Now().UnixMilli() - 60_000)
	var records []*kgo.Record
	for i, one := range sent {
		records = append(records, &kgo.Record{Topic: topic, Value: []byte(one), Timestamp: minuteAgo.Add(time.Duration(i) * time.Millisecond)})
	}
	must(sendRecords(ctx, records))
	from := func(offset kgo.Offset, count int) []string {
		partitions := map[string]map[int32]kgo.Offset{topic: {0: offset}}
		consumer := client(kgo.ConsumePartitions(partitions), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
		defer consumer.Close()
		return values(take(ctx, consumer, count))
	}
	same(sent[7:], from(kgo.NewOffset().At(7), 3))
	same(sent[8:], from(kgo.NewOffset().AtEnd().Relative(-2), 2))
	same(sent[4:], from(kgo.NewOffset().AfterMilli(minuteAgo.UnixMilli()+4), 6))
	same(sent, from(kgo.NewOffset().At(50), 10))
}

func smallFetch(ctx context.Context) {
	topic := newTopic(ctx, "small", 1)
	sent := numbered("small", 2000)
	send(ctx, topic, sent)
	same(sent, values(read(ctx, topic, len(sent), kgo.FetchMaxBytes(100), kgo.FetchMaxPartitionBytes(100))))
}

func autoCreate(ctx context.Context) {
	topic := unique("auto")
	send(ctx, topic, []string{"x"}, kgo.AllowAutoTopicCreation())
	same([]string{"x"}, values(read(ctx, topic, 1)))
}
