#include "bench.h"

void open_reader(struct reader *reader, int64_t from) {
  rd_kafka_conf_t *conf = base_conf();
  set(conf, "group.id", "millrace-bench");
  set(conf, "enable.auto.commit", "false");
  set(conf, "auto.offset.reset", "error");
  set_number(conf, "queued.min.messages", number("queued-records", 1000000));
  set_number(conf, "fetch.wait.max.ms", number("fetch-wait", 500));
  reader->handle = open_handle(RD_KAFKA_CONSUMER, conf);
  rd_kafka_poll_set_consumer(reader->handle);
  const char *name = text("topic", NULL);
  rd_kafka_topic_t *topic = rd_kafka_topic_new(reader->handle, name, NULL);
  await_metadata(reader->handle, topic);
  rd_kafka_topic_destroy(topic);
  rd_kafka_topic_partition_list_t *partitions = rd_kafka_topic_partition_list_new(1);
  int count = (int)number("partitions", 1);
  for (int i = 0; i < count; i++) {
    int64_t low, high, start = from;
    if (from == RD_KAFKA_OFFSET_END) {
      /* The end as a number: with the symbol, records written before the first fetch would be skipped. */
      if (rd_kafka_query_watermark_offsets(reader->handle, name, i, &low, &high, 10000)) die("no watermark of partition %d", i);
      start = high;
    }
    rd_kafka_topic_partition_list_add(partitions, name, i)->offset = start;
  }
  reader->queue = rd_kafka_queue_get_consumer(reader->handle);
  reader->begun_ns = now_ns();
  if (rd_kafka_assign(reader->handle, partitions)) die("assign failed");
  rd_kafka_topic_partition_list_destroy(partitions);
}

static void *read_records(void *argument) {
  struct reader *reader = argument;
  enum { most = 10000 };
  rd_kafka_message_t **messages = malloc(most * sizeof *messages);
  while (reader->records < reader->wanted && now_ns() < reader->deadline_ns) {
    ssize_t count = rd_kafka_consume_batch_queue(reader->queue, 50, messages, most);
    if (count <= 0) continue;
    int64_t now = now_ns();
    for (ssize_t i = 0; i < count; i++) {
      if (!messages[i]->err) {
        if (!reader->first_ns) reader->first_ns = now;
        reader->records++;
        reader->bytes += messages[i]->len;
        reader->last_ns = now;
      } else if (messages[i]->err != RD_KAFKA_RESP_ERR__PARTITION_EOF) {
        fprintf(stderr, "consume: %s\n", rd_kafka_message_errstr(messages[i]));
      }
      rd_kafka_message_destroy(messages[i]);
    }
  }
  free(messages);
  return NULL;
}

/* Every consumer reads all of it, with a handle of its own. */
int run_consume(void) {
  int count = (int)number("consumers", 1);
  double records = number("records", 0);
  struct reader *readers = calloc(count, sizeof *readers);
  int64_t begun = INT64_MAX, first = INT64_MAX, last = 0;
  uint64_t consumed = 0, bytes = 0;
  for (int i = 0; i < count; i++) {
    readers[i].wanted = records > 0 ? (uint64_t)records : UINT64_MAX;
    readers[i].deadline_ns = INT64_MAX;
    open_reader(&readers[i], 0);
    pthread_create(&readers[i].thread, NULL, read_records, &readers[i]);
  }
  int64_t deadline = now_ns() + (int64_t)(number("seconds", 60) * 1e9);
  for (int i = 0; i < count; i++) readers[i].deadline_ns = deadline;
  for (int i = 0; i < count; i++) {
    pthread_join(readers[i].thread, NULL);
    if (!readers[i].records) die("consumer %d received nothing", i);
    if (readers[i].begun_ns < begun) begun = readers[i].begun_ns;
    if (readers[i].first_ns < first) first = readers[i].first_ns;
    if (readers[i].last_ns > last) last = readers[i].last_ns;
    consumed += readers[i].records;
    bytes += readers[i].bytes;
  }
  printf("{\"records\":%llu,\"bytes\":%llu,\"seconds\":%.6f,\"first_s\":%.6f,\"cpu_s\":%.3f}\n", (unsigned long long)consumed,
         (unsigned long long)bytes, (last - begun) / 1e9, (first - begun) / 1e9, cpu_seconds());
  return 0;
}

int run_tail(void) {
  struct reader reader = {0};
  reader.wanted = UINT64_MAX;
  reader.deadline_ns = INT64_MAX;
  open_reader(&reader, RD_KAFKA_OFFSET_END);
  pthread_create(&reader.thread, NULL, read_records, &reader);
  int count = (int)number("producers", 1);
  struct feeder *feeders = start_feeders(count);
  struct produced produced = join_feeders(feeders, count);
  reader.deadline_ns = now_ns() + 60000000000LL;
  reader.wanted = produced.sent - failed;
  pthread_join(reader.thread, NULL);
  printf("{\"consumed\":%llu,\"consumed_seconds\":%.6f,", (unsigned long long)reader.records, (reader.last_ns - reader.first_ns) / 1e9);
  print_produced(produced);
  puts("}");
  return failed != 0 || reader.records != produced.sent;
}
