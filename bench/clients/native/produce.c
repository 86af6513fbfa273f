/* Throughput runs ask for delivery reports of failures only: acknowledged = sent - failed, after a flush. */
#include "bench.h"

static char *payloads;
size_t payload_size;
static size_t payload_count;

void load_payloads(void) {
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

void *payload(uint64_t i) { return payloads + (i % payload_count) * (payload_size + 1); }

atomic_long failed;
static _Atomic double batch_bytes_sum;
static atomic_long batch_bytes_count;
static char first_failure[128];

void note_failure(rd_kafka_resp_err_t error) {
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

rd_kafka_conf_t *producer_conf(void) {
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

struct feeder *start_feeders(int count) {
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

struct produced join_feeders(struct feeder *feeders, int count) {
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

void print_produced(struct produced produced) {
  long batches = batch_bytes_count;
  printf("\"records\":%llu,\"failed\":%ld,\"failure\":\"%s\",\"seconds\":%.6f,\"batch_bytes\":%.0f,\"cpu_s\":%.3f",
         (unsigned long long)(produced.sent - failed), (long)failed, first_failure, produced.seconds,
         batches ? batch_bytes_sum / batches : 0, cpu_seconds());
}

int run_produce(void) {
  int count = (int)number("producers", 1);
  struct feeder *feeders = start_feeders(count);
  struct produced produced = join_feeders(feeders, count);
  putchar('{');
  print_produced(produced);
  puts("}");
  return failed != 0;
}
