/*
 * The bench's client: librdkafka driven as fast as it goes, one JSON object on stdout. Arguments are name=value.
 *
 *   create   topic= partitions=            delete  topic=
 *   produce  topic= payloads=FILE size= seconds= | records=   producers= acks= linger= batch-bytes= batch-records=
 *            codec= idempotent= in-flight= queue-records= (records are taken from FILE in turn, by reference)
 *   consume  topic= partitions= seconds= records= consumers= from the beginning, no group, each all of it
 *   tail     as produce, and consumers= that wait at the end meanwhile, each of which gets all of it
 *   latency  as produce with rate=, warmup=, consumers=; open loop: a record's clock starts when it was due, not when it was
 *            sent, so a stall is charged to every record it delays (no coordinated omission). With reader-bootstrap= and
 *            reader-topic= the consumers read a copy elsewhere, and "lag" is from a record's acknowledgement to its arrival there
 *   lag      topic= partitions= warmup= seconds=  how old changes are that arrive: by "ts_us" of Debezium's source, the commit's
 *            time (with the plain format by "ts" of its meta), on this machine's clock
 *   evict    dir=                          drops a directory's files from the page cache
 *
 * Throughput runs ask for delivery reports of failures only: acknowledged = sent - failed, after a flush.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <ftw.h>
#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

static char **arguments;
static int argument_count;

static void die(const char *format, ...) {
  va_list list;
  va_start(list, format);
  vfprintf(stderr, format, list);
  va_end(list);
  fputc('\n', stderr);
  exit(1);
}

static const char *text(const char *name, const char *otherwise) {
  size_t length = strlen(name);
  for (int i = 0; i < argument_count; i++)
    if (!strncmp(arguments[i], name, length) && arguments[i][length] == '=') return arguments[i] + length + 1;
  if (!otherwise) die("%s= is missing", name);
  return otherwise;
}

static double number(const char *name, double otherwise) {
  const char *given = text(name, "");
  return *given ? atof(given) : otherwise;
}

static int64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void set(rd_kafka_conf_t *conf, const char *name, const char *value) {
  char error[256];
  if (rd_kafka_conf_set(conf, name, value, error, sizeof error) != RD_KAFKA_CONF_OK) die("%s", error);
}

static void set_number(rd_kafka_conf_t *conf, const char *name, double value) {
  char digits[64];
  snprintf(digits, sizeof digits, "%.15g", value);
  set(conf, name, digits);
}

static rd_kafka_conf_t *conf_for(const char *bootstrap) {
  rd_kafka_conf_t *conf = rd_kafka_conf_new();
  set(conf, "bootstrap.servers", bootstrap);
  set(conf, "client.id", "millrace-bench");
  return conf;
}

static rd_kafka_conf_t *base_conf(void) { return conf_for(text("bootstrap", NULL)); }

static rd_kafka_t *open_handle(rd_kafka_type_t type, rd_kafka_conf_t *conf) {
  char error[256];
  rd_kafka_t *handle = rd_kafka_new(type, conf, error, sizeof error);
  if (!handle) die("%s", error);
  return handle;
}

/* Connected, and the topic's leaders known, before any clock starts. */
static void await_metadata(rd_kafka_t *handle, rd_kafka_topic_t *topic) {
  int64_t deadline = now_ns() + 30000000000LL;
  for (;;) {
    const struct rd_kafka_metadata *metadata;
    rd_kafka_resp_err_t error = rd_kafka_metadata(handle, 0, topic, &metadata, 10000);
    if (!error) {
      int ready = metadata->topic_cnt == 1 && !metadata->topics[0].err && metadata->topics[0].partition_cnt > 0;
      for (int i = 0; ready && i < metadata->topics[0].partition_cnt; i++)
        ready = !metadata->topics[0].partitions[i].err && metadata->topics[0].partitions[i].leader >= 0;
      rd_kafka_metadata_destroy(metadata);
      if (ready) return;
    }
    if (now_ns() > deadline) die("no metadata of the topic: %s", rd_kafka_err2str(error));
    usleep(20000);
  }
}

static int administer(int creating) {
  rd_kafka_t *handle = open_handle(RD_KAFKA_PRODUCER, base_conf());
  rd_kafka_queue_t *queue = rd_kafka_queue_new(handle);
  const char *topic = text("topic", NULL);
  char error[256];
  if (creating) {
    rd_kafka_NewTopic_t *wanted = rd_kafka_NewTopic_new(topic, (int)number("partitions", 1), 1, error, sizeof error);
    if (!wanted) die("%s", error);
    rd_kafka_CreateTopics(handle, &wanted, 1, NULL, queue);
  } else {
    rd_kafka_DeleteTopic_t *unwanted = rd_kafka_DeleteTopic_new(topic);
    rd_kafka_DeleteTopics(handle, &unwanted, 1, NULL, queue);
  }
  rd_kafka_event_t *event = rd_kafka_queue_poll(queue, 60000);
  if (!event) die("no answer to %s", creating ? "CreateTopics" : "DeleteTopics");
  if (rd_kafka_event_error(event)) die("%s", rd_kafka_event_error_string(event));
  size_t count;
  const rd_kafka_topic_result_t **results =
      creating ? rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &count)
               : rd_kafka_DeleteTopics_result_topics(rd_kafka_event_DeleteTopics_result(event), &count);
  for (size_t i = 0; i < count; i++)
    if (rd_kafka_topic_result_error(results[i])) die("%s: %s", topic, rd_kafka_err2name(rd_kafka_topic_result_error(results[i])));
  if (creating) {
    rd_kafka_topic_t *made = rd_kafka_topic_new(handle, topic, NULL);
    await_metadata(handle, made);
    rd_kafka_topic_destroy(made);
  }
  puts("{}");
  return 0;
}

/* ---- payloads ---- */

static char *payloads;
static size_t payload_size, payload_count;

static void load_payloads(void) {
  payload_size = (size_t)number("size", 0);
  FILE *file = fopen(text("payloads", NULL), "r");
  if (!file || !payload_size) die("payloads= and size= are needed");
  size_t capacity = 1 << 20, length = 0;
  payloads = malloc(capacity);
  for (size_t got; (got = fread(payloads + length, 1, capacity - length, file)) > 0;) {
    length += got;
    if (length == capacity) payloads = realloc(payloads, capacity *= 2);
  }
  fclose(file);
  payload_count = length / (payload_size + 1); /* a line each */
  if (!payload_count) die("the payload file is empty");
}

static void *payload(uint64_t i) { return payloads + (i % payload_count) * (payload_size + 1); }

/* ---- producing ---- */

static atomic_long failed;
static _Atomic double batch_bytes_sum;
static atomic_long batch_bytes_count;
static char first_failure[128];

static void note_failure(rd_kafka_resp_err_t error) {
  if (!atomic_fetch_add(&failed, 1)) snprintf(first_failure, sizeof first_failure, "%s", rd_kafka_err2name(error));
}

static void on_failure_report(rd_kafka_t *handle, const rd_kafka_message_t *message, void *opaque) {
  if (message->err) note_failure(message->err);
}

/* The size of the batches that were really made, from librdkafka's own statistics. */
static int on_statistics(rd_kafka_t *handle, char *json, size_t length, void *opaque) {
  char *window = strstr(json, "\"batchsize\"");
  if (!window) return 0;
  char *sum = strstr(window, "\"sum\":"), *count = strstr(window, "\"cnt\":");
  if (sum && count) {
    double bytes = atof(sum + 6);
    for (double seen = batch_bytes_sum; !atomic_compare_exchange_weak(&batch_bytes_sum, &seen, seen + bytes);) {
    }
    atomic_fetch_add(&batch_bytes_count, atol(count + 6));
  }
  return 0;
}

static rd_kafka_conf_t *producer_conf(void) {
  rd_kafka_conf_t *conf = base_conf();
  set(conf, "acks", text("acks", "all"));
  set_number(conf, "linger.ms", number("linger", 5));
  if (number("batch-bytes", 0)) set_number(conf, "batch.size", number("batch-bytes", 0));
  if (number("batch-records", 0)) set_number(conf, "batch.num.messages", number("batch-records", 0));
  set(conf, "compression.codec", text("codec", "none"));
  if (number("idempotent", 0)) set(conf, "enable.idempotence", "true");
  if (number("in-flight", 0)) set_number(conf, "max.in.flight.requests.per.connection", number("in-flight", 0));
  set_number(conf, "queue.buffering.max.messages", number("queue-records", 300000));
  set_number(conf, "queue.buffering.max.kbytes", 262144);
  set(conf, "delivery.timeout.ms", "120000");
  return conf;
}

struct feeder {
  pthread_t thread;
  rd_kafka_t *handle;
  rd_kafka_topic_t *topic;
  uint64_t first, sent, limit;
  int64_t begun_ns, done_ns;
  double seconds;
};

static pthread_barrier_t start_line;

static void *feed(void *argument) {
  struct feeder *feeder = argument;
  pthread_barrier_wait(&start_line);
  feeder->begun_ns = now_ns();
  int64_t deadline = feeder->seconds > 0 ? feeder->begun_ns + (int64_t)(feeder->seconds * 1e9) : INT64_MAX;
  while (feeder->sent < feeder->limit) {
    if (!rd_kafka_produce(feeder->topic, RD_KAFKA_PARTITION_UA, 0, payload(feeder->first + feeder->sent), payload_size, NULL, 0, NULL)) {
      if (++feeder->sent % 256 == 0) {
        rd_kafka_poll(feeder->handle, 0);
        if (now_ns() > deadline) break;
      }
    } else {
      if (rd_kafka_last_error() != RD_KAFKA_RESP_ERR__QUEUE_FULL) die("produce: %s", rd_kafka_err2str(rd_kafka_last_error()));
      rd_kafka_poll(feeder->handle, 2);
      if (now_ns() > deadline) break;
    }
  }
  if (rd_kafka_flush(feeder->handle, 120000)) die("records are still not acknowledged after two minutes");
  feeder->done_ns = now_ns();
  return NULL;
}

struct produced {
  uint64_t sent;
  double seconds;
};

static struct feeder *start_feeders(int count) {
  load_payloads();
  struct feeder *feeders = calloc(count, sizeof *feeders);
  double records = number("records", 0);
  pthread_barrier_init(&start_line, NULL, count + 1);
  for (int i = 0; i < count; i++) {
    rd_kafka_conf_t *conf = producer_conf();
    set(conf, "delivery.report.only.error", "true");
    rd_kafka_conf_set_dr_msg_cb(conf, on_failure_report);
    set(conf, "statistics.interval.ms", "500");
    rd_kafka_conf_set_stats_cb(conf, on_statistics);
    feeders[i].handle = open_handle(RD_KAFKA_PRODUCER, conf);
    feeders[i].topic = rd_kafka_topic_new(feeders[i].handle, text("topic", NULL), NULL);
    await_metadata(feeders[i].handle, feeders[i].topic);
    feeders[i].first = (uint64_t)i * 7919;
    feeders[i].limit = records > 0 ? (uint64_t)(records / count) : UINT64_MAX;
    feeders[i].seconds = number("seconds", 0);
    if (pthread_create(&feeders[i].thread, NULL, feed, &feeders[i])) die("no thread");
  }
  pthread_barrier_wait(&start_line);
  return feeders;
}

static struct produced join_feeders(struct feeder *feeders, int count) {
  struct produced result = {0, 0};
  int64_t begun = INT64_MAX, done = 0;
  for (int i = 0; i < count; i++) {
    pthread_join(feeders[i].thread, NULL);
    result.sent += feeders[i].sent;
    if (feeders[i].begun_ns < begun) begun = feeders[i].begun_ns;
    if (feeders[i].done_ns > done) done = feeders[i].done_ns;
  }
  result.seconds = (done - begun) / 1e9;
  return result;
}

static double cpu_seconds(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static void print_produced(struct produced produced) {
  long batches = batch_bytes_count;
  printf("\"records\":%llu,\"failed\":%ld,\"failure\":\"%s\",\"seconds\":%.6f,\"batch_bytes\":%.0f,\"cpu_s\":%.3f",
         (unsigned long long)(produced.sent - failed), (long)failed, first_failure, produced.seconds,
         batches ? batch_bytes_sum / batches : 0, cpu_seconds());
}

static int run_produce(void) {
  int count = (int)number("producers", 1);
  struct feeder *feeders = start_feeders(count);
  struct produced produced = join_feeders(feeders, count);
  putchar('{');
  print_produced(produced);
  puts("}");
  return failed != 0;
}

/* ---- consuming ---- */

struct latency {
  float *ms;
  size_t count, capacity;
  int64_t from_ns; /* records due earlier warm up and are not counted */
};

struct reader {
  pthread_t thread;
  rd_kafka_t *handle;
  rd_kafka_queue_t *queue;
  _Atomic uint64_t wanted; /* stops there */
  uint64_t records, bytes;
  int64_t begun_ns, first_ns, last_ns;
  _Atomic int64_t deadline_ns;
  struct latency delivered;
};

/* A broker may announce a partition a moment before it answers for it. */
static int64_t end_of(rd_kafka_t *handle, const char *topic, int partition) {
  int64_t deadline = now_ns() + 30000000000LL;
  for (;;) {
    int64_t low, high;
    rd_kafka_resp_err_t error = rd_kafka_query_watermark_offsets(handle, topic, partition, &low, &high, 10000);
    if (!error) return high;
    if (now_ns() > deadline) die("no end of partition %d: %s", partition, rd_kafka_err2str(error));
    usleep(20000);
  }
}

static void open_reader(struct reader *reader, int64_t from) {
  rd_kafka_conf_t *conf = conf_for(text("reader-bootstrap", text("bootstrap", NULL)));
  set(conf, "group.id", "millrace-bench");
  set(conf, "enable.auto.commit", "false");
  set(conf, "auto.offset.reset", "error");
  set_number(conf, "queued.min.messages", number("queued-records", 1000000));
  set_number(conf, "fetch.wait.max.ms", number("fetch-wait", 500));
  reader->handle = open_handle(RD_KAFKA_CONSUMER, conf);
  rd_kafka_poll_set_consumer(reader->handle);
  const char *name = text("reader-topic", text("topic", NULL));
  rd_kafka_topic_t *topic = rd_kafka_topic_new(reader->handle, name, NULL);
  await_metadata(reader->handle, topic);
  rd_kafka_topic_destroy(topic);
  rd_kafka_topic_partition_list_t *partitions = rd_kafka_topic_partition_list_new(1);
  int count = (int)number("partitions", 1);
  for (int i = 0; i < count; i++) {
    /* The end as a number: with the symbol, records written before the first fetch would be skipped. */
    int64_t start = from == RD_KAFKA_OFFSET_END ? end_of(reader->handle, name, i) : from;
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

static int run_consume(void) {
  int count = (int)number("consumers", 1);
  struct reader *readers = calloc(count, sizeof *readers);
  for (int i = 0; i < count; i++) {
    struct reader *reader = &readers[i];
    reader->wanted = number("records", 0) > 0 ? (uint64_t)number("records", 0) : UINT64_MAX;
    open_reader(reader, 0);
    reader->deadline_ns = reader->begun_ns + (int64_t)(number("seconds", 60) * 1e9);
    if (pthread_create(&reader->thread, NULL, read_records, reader)) die("no thread");
  }
  uint64_t records = 0, bytes = 0;
  int64_t begun = INT64_MAX, first = INT64_MAX, last = 0;
  for (int i = 0; i < count; i++) {
    struct reader *reader = &readers[i];
    pthread_join(reader->thread, NULL);
    if (!reader->records) die("nothing was consumed");
    records += reader->records;
    bytes += reader->bytes;
    if (reader->begun_ns < begun) begun = reader->begun_ns;
    if (reader->first_ns < first) first = reader->first_ns;
    if (reader->last_ns > last) last = reader->last_ns;
  }
  printf("{\"records\":%llu,\"bytes\":%llu,\"seconds\":%.6f,\"first_s\":%.6f,\"cpu_s\":%.3f}\n", (unsigned long long)records,
         (unsigned long long)bytes, (last - begun) / 1e9, (first - begun) / 1e9, cpu_seconds());
  return 0;
}

static int run_tail(void) {
  int reader_count = (int)number("consumers", 1);
  struct reader *readers = calloc(reader_count, sizeof *readers);
  for (int i = 0; i < reader_count; i++) {
    readers[i].wanted = UINT64_MAX;
    readers[i].deadline_ns = INT64_MAX;
    open_reader(&readers[i], RD_KAFKA_OFFSET_END);
    if (pthread_create(&readers[i].thread, NULL, read_records, &readers[i])) die("no thread");
  }
  int count = (int)number("producers", 1);
  struct feeder *feeders = start_feeders(count);
  struct produced produced = join_feeders(feeders, count);
  uint64_t wanted = produced.sent - failed;
  int64_t deadline = now_ns() + 60000000000LL;
  for (int i = 0; i < reader_count; i++) {
    readers[i].deadline_ns = deadline;
    readers[i].wanted = wanted;
  }
  uint64_t consumed = 0;
  int64_t first = INT64_MAX, last = 0;
  int all = 1;
  for (int i = 0; i < reader_count; i++) {
    struct reader *reader = &readers[i];
    pthread_join(reader->thread, NULL);
    if (!reader->records) die("nothing was consumed");
    consumed += reader->records;
    all = all && reader->records == wanted;
    if (reader->first_ns < first) first = reader->first_ns;
    if (reader->last_ns > last) last = reader->last_ns;
  }
  printf("{\"consumed\":%llu,\"consumed_seconds\":%.6f,", (unsigned long long)consumed, (last - first) / 1e9);
  print_produced(produced);
  puts("}");
  return failed != 0 || !all;
}

/* ---- latency ---- */

static struct latency acknowledged;

/* By record, where a copy is read: when it was acknowledged, and when it arrived. Its number is behind its due time. */
static int64_t *acknowledged_ns, *arrived_ns;

static void record_moment(int64_t *moments, const rd_kafka_message_t *message) {
  if (!moments) return;
  uint64_t i;
  memcpy(&i, (char *)message->payload + sizeof(int64_t), sizeof i);
  moments[i] = now_ns();
}

/* What is read before the producer has heard of its acknowledgement has no lag. */
static struct latency copy_lag(uint64_t first, uint64_t total) {
  struct latency lag = {malloc(total * sizeof(float)), 0, total, 0};
  for (uint64_t i = first; i < total; i++) {
    if (!acknowledged_ns[i] || !arrived_ns[i]) continue;
    int64_t ns = arrived_ns[i] - acknowledged_ns[i];
    lag.ms[lag.count++] = ns > 0 ? ns / 1e6f : 0;
  }
  return lag;
}

static void record_latency(struct latency *latency, int64_t due_ns) {
  if (due_ns < latency->from_ns || latency->count == latency->capacity) return;
  latency->ms[latency->count++] = (now_ns() - due_ns) / 1e6f;
}

static void on_every_report(rd_kafka_t *handle, const rd_kafka_message_t *message, void *opaque) {
  if (message->err) {
    note_failure(message->err);
    return;
  }
  record_latency(&acknowledged, (int64_t)(intptr_t)message->_private);
  record_moment(acknowledged_ns, message);
}

static void *poll_reports(void *argument) {
  rd_kafka_t *handle = argument;
  pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, NULL);
  for (;;) rd_kafka_poll(handle, 1000);
  return NULL;
}

static void *poll_records(void *argument) {
  struct reader *reader = argument;
  while (reader->records < reader->wanted && now_ns() < reader->deadline_ns) {
    rd_kafka_message_t *message = rd_kafka_consumer_poll(reader->handle, 100);
    if (!message) continue;
    if (!message->err) {
      int64_t due;
      memcpy(&due, message->payload, sizeof due);
      record_latency(&reader->delivered, due);
      record_moment(arrived_ns, message);
      reader->records++;
    }
    rd_kafka_message_destroy(message);
  }
  return NULL;
}

static int by_value(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}

static void print_latency(const char *name, struct latency *latency) {
  qsort(latency->ms, latency->count, sizeof *latency->ms, by_value);
  printf("\"%s\":{\"count\":%zu", name, latency->count);
  static const struct { const char *name; double share; } points[] = {{"p50", 0.5}, {"p95", 0.95}, {"p99", 0.99}, {"p999", 0.999}, {"max", 1}};
  for (size_t i = 0; latency->count && i < sizeof points / sizeof *points; i++) {
    size_t at = (size_t)(points[i].share * latency->count);
    printf(",\"%s\":%.3f", points[i].name, latency->ms[at < latency->count ? at : latency->count - 1]);
  }
  printf("}");
}

static int run_latency(void) {
  load_payloads();
  double rate = number("rate", 5000), seconds = number("seconds", 5), warmup = number("warmup", 1);
  uint64_t total = (uint64_t)(rate * (seconds + warmup));
  acknowledged.capacity = total;
  acknowledged.ms = malloc(total * sizeof(float));
  int of_copy = *text("reader-topic", "") != 0;
  if (of_copy) {
    if (payload_size < sizeof(int64_t) + sizeof(uint64_t)) die("size= leaves no room for a record's number");
    acknowledged_ns = calloc(total, sizeof *acknowledged_ns);
    arrived_ns = calloc(total, sizeof *arrived_ns);
  }

  rd_kafka_conf_t *conf = producer_conf();
  rd_kafka_conf_set_dr_msg_cb(conf, on_every_report);
  rd_kafka_t *producer = open_handle(RD_KAFKA_PRODUCER, conf);
  rd_kafka_topic_t *topic = rd_kafka_topic_new(producer, text("topic", NULL), NULL);
  await_metadata(producer, topic);
  int count = (int)number("consumers", 1);
  struct reader *readers = calloc(count, sizeof *readers);
  struct latency delivered = {malloc(total * count * sizeof(float)), 0, total * count, 0};
  for (int i = 0; i < count; i++) {
    readers[i].wanted = total;
    readers[i].deadline_ns = INT64_MAX;
    readers[i].delivered = (struct latency){malloc(total * sizeof(float)), 0, total, INT64_MAX};
    open_reader(&readers[i], RD_KAFKA_OFFSET_END);
  }
  pthread_t reports;
  pthread_create(&reports, NULL, poll_reports, producer);

  char *record = malloc(payload_size);
  int64_t begun = now_ns();
  acknowledged.from_ns = begun + (int64_t)(warmup * 1e9);
  for (int i = 0; i < count; i++) {
    readers[i].delivered.from_ns = acknowledged.from_ns;
    if (pthread_create(&readers[i].thread, NULL, poll_records, &readers[i])) die("no thread");
  }
  double late_max_ms = 0;
  for (uint64_t i = 0; i < total; i++) {
    int64_t due = begun + (int64_t)(i * 1e9 / rate);
    int64_t early = due - now_ns();
    if (early > 0) {
      struct timespec until = {due / 1000000000LL, due % 1000000000LL};
      clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    } else if (-early / 1e6 > late_max_ms && due >= acknowledged.from_ns) {
      late_max_ms = -early / 1e6;
    }
    memcpy(record, payload(i), payload_size);
    memcpy(record, &due, sizeof due);
    if (of_copy) memcpy(record + sizeof due, &i, sizeof i);
    while (rd_kafka_produce(topic, RD_KAFKA_PARTITION_UA, RD_KAFKA_MSG_F_COPY, record, payload_size, NULL, 0, (void *)(intptr_t)due)) usleep(1000);
  }
  int64_t drained_by = now_ns() + (int64_t)(number("patience", 30) * 1e9);
  while (rd_kafka_outq_len(producer) > 0 && now_ns() < drained_by) usleep(10000);
  for (int i = 0; i < count; i++) readers[i].deadline_ns = drained_by;
  uint64_t received = 0;
  for (int i = 0; i < count; i++) {
    struct latency *one = &readers[i].delivered;
    pthread_join(readers[i].thread, NULL);
    received += readers[i].records;
    memcpy(delivered.ms + delivered.count, one->ms, one->count * sizeof(float));
    delivered.count += one->count;
  }
  printf("{\"records\":%llu,\"unacknowledged\":%d,\"failed\":%ld,\"received\":%llu,\"sender_late_max_ms\":%.3f,\"cpu_s\":%.3f,",
         (unsigned long long)total, rd_kafka_outq_len(producer), (long)failed, (unsigned long long)received, late_max_ms, cpu_seconds());
  print_latency("ack", &acknowledged);
  putchar(',');
  print_latency("end_to_end", &delivered);
  if (of_copy) {
    struct latency lag = copy_lag((uint64_t)(rate * warmup), total);
    putchar(',');
    print_latency("lag", &lag);
  }
  puts("}");
  return failed != 0;
}

/* ---- lag of captured changes ---- */

/* Microseconds since 1970; 0 where the value says nothing. */
static int64_t commit_time(const char *value, size_t length) {
  static const char micros[] = "\"ts_us\":", iso[] = "\"ts\":\"";
  const char *found = memmem(value, length, micros, sizeof micros - 1);
  if (found) return strtoll(found + sizeof micros - 1, NULL, 10);
  found = memmem(value, length, iso, sizeof iso - 1);
  struct tm time = {0};
  const char *rest = found ? strptime(found + sizeof iso - 1, "%Y-%m-%dT%H:%M:%S.", &time) : NULL;
  return rest ? timegm(&time) * 1000000LL + strtol(rest, NULL, 10) : 0;
}

static int run_lag(void) {
  double warmup = number("warmup", 1), seconds = number("seconds", 5);
  struct reader reader = {0};
  open_reader(&reader, RD_KAFKA_OFFSET_END);
  size_t capacity = 1 << 22;
  struct latency lag = {malloc(capacity * sizeof(float)), 0, capacity, 0};
  int64_t from = now_ns() + (int64_t)(warmup * 1e9), until = from + (int64_t)(seconds * 1e9);
  for (int64_t now; (now = now_ns()) < until;) {
    rd_kafka_message_t *message = rd_kafka_consumer_poll(reader.handle, 100);
    if (!message) continue;
    if (!message->err && message->payload) {
      struct timespec clock;
      clock_gettime(CLOCK_REALTIME, &clock);
      int64_t committed = commit_time(message->payload, message->len);
      if (!committed) die("a value without the time of its commit");
      if (now >= from && lag.count < capacity) lag.ms[lag.count++] = (clock.tv_sec * 1000000LL + clock.tv_nsec / 1000 - committed) / 1e3f;
    }
    rd_kafka_message_destroy(message);
  }
  printf("{\"records\":%zu,\"cpu_s\":%.3f,", lag.count, cpu_seconds());
  print_latency("end_to_end", &lag);
  puts("}");
  return lag.count == 0;
}

/* ---- page cache ---- */

static int evict_file(const char *path, const struct stat *status, int kind, struct FTW *walk) {
  if (kind != FTW_F) return 0;
  int file = open(path, O_RDONLY);
  if (file < 0) return 0;
  fdatasync(file); /* only clean pages can be dropped */
  posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
  close(file);
  return 0;
}

int main(int count, char **values) {
  if (count < 2) die("usage: librdkafka create|delete|produce|consume|tail|latency|lag|evict|version name=value…");
  arguments = values + 2;
  argument_count = count - 2;
  const char *mode = values[1];
  int status;
  if (!strcmp(mode, "create")) status = administer(1);
  else if (!strcmp(mode, "delete")) status = administer(0);
  else if (!strcmp(mode, "produce")) status = run_produce();
  else if (!strcmp(mode, "consume")) status = run_consume();
  else if (!strcmp(mode, "tail")) status = run_tail();
  else if (!strcmp(mode, "latency")) status = run_latency();
  else if (!strcmp(mode, "lag")) status = run_lag();
  else if (!strcmp(mode, "evict")) status = nftw(text("dir", NULL), evict_file, 16, FTW_PHYS), puts("{}");
  else if (!strcmp(mode, "version")) status = printf("{\"version\":\"%s\"}\n", rd_kafka_version_str()) < 0;
  else die("unknown mode %s", mode);
  fflush(stdout);
  _exit(status); /* the handles' threads need no farewell */
}
