/*
 * Open loop: a record's clock starts when it was due, not when it was sent, so a stall is charged to every record it
 * delays (no coordinated omission). It stops when the report came, and for each consumer when it has the record.
 */
#include "bench.h"
#include <time.h>

static struct latency acknowledged, delivered;
static atomic_ulong seen;

static void on_every_report(rd_kafka_t *handle, const rd_kafka_message_t *message, void *opaque) {
  if (message->err) note_failure(message->err);
  else record_latency(&acknowledged, (int64_t)(intptr_t)message->_private);
}

static void *poll_reports(void *argument) {
  rd_kafka_t *handle = argument;
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
      record_latency(&delivered, due);
      reader->records++;
      seen++;
    }
    rd_kafka_message_destroy(message);
  }
  return NULL;
}

int run_latency(void) {
  load_payloads();
  double rate = number("rate", 5000), seconds = number("seconds", 5), warmup = number("warmup", 1);
  int consumers = (int)number("consumers", 1);
  uint64_t total = (uint64_t)(rate * (seconds + warmup));

  rd_kafka_conf_t *conf = producer_conf();
  rd_kafka_conf_set_dr_msg_cb(conf, on_every_report);
  rd_kafka_t *producer = open_handle(RD_KAFKA_PRODUCER, conf);
  rd_kafka_topic_t *topic = rd_kafka_topic_new(producer, text("topic", NULL), NULL);
  await_metadata(producer, topic);
  struct reader *readers = calloc(consumers, sizeof *readers);
  for (int i = 0; i < consumers; i++) {
    readers[i].wanted = total;
    readers[i].deadline_ns = INT64_MAX;
    open_reader(&readers[i], RD_KAFKA_OFFSET_END);
  }
  struct parked parked = {(int)number("parked", 0)};
  if (parked.connections) start_parked(&parked);

  int64_t begun = now_ns(), counted_from = begun + (int64_t)(warmup * 1e9);
  open_latency(&acknowledged, total, counted_from);
  open_latency(&delivered, total * consumers, counted_from);
  for (int i = 0; i < consumers; i++) pthread_create(&readers[i].thread, NULL, poll_records, &readers[i]);
  pthread_t reports;
  pthread_create(&reports, NULL, poll_reports, producer);

  char *record = malloc(payload_size);
  double late_max_ms = 0;
  for (uint64_t i = 0; i < total; i++) {
    int64_t due = begun + (int64_t)(i * 1e9 / rate);
    int64_t early = due - now_ns();
    if (early > 0) {
      struct timespec until = {due / 1000000000LL, due % 1000000000LL};
      clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
    } else if (-early / 1e6 > late_max_ms && due >= counted_from) {
      late_max_ms = -early / 1e6;
    }
    memcpy(record, payload(i), payload_size);
    memcpy(record, &due, sizeof due);
    while (rd_kafka_produce(topic, RD_KAFKA_PARTITION_UA, RD_KAFKA_MSG_F_COPY, record, payload_size, NULL, 0, (void *)(intptr_t)due)) usleep(1000);
  }
  int64_t drained_by = now_ns() + (int64_t)(number("patience", 30) * 1e9);
  while (rd_kafka_outq_len(producer) > 0 && now_ns() < drained_by) usleep(10000);
  for (int i = 0; i < consumers; i++) readers[i].deadline_ns = drained_by;
  for (int i = 0; i < consumers; i++) pthread_join(readers[i].thread, NULL);
  printf("{\"records\":%llu,\"unacknowledged\":%d,\"failed\":%ld,\"expected\":%llu,\"received\":%lu,\"sender_late_max_ms\":%.3f,"
         "\"parked_answers\":%lu,\"parked_errors\":%lu,\"cpu_s\":%.3f,",
         (unsigned long long)total, rd_kafka_outq_len(producer), (long)failed, (unsigned long long)(total * consumers), (unsigned long)seen,
         late_max_ms, (unsigned long)parked.answers, (unsigned long)parked.errors, cpu_seconds());
  print_latency("ack", &acknowledged);
  putchar(',');
  print_latency("end_to_end", &delivered);
  puts("}");
  return failed != 0 || parked.errors != 0;
}
