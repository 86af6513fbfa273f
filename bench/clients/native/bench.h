/*
 * The bench's client: librdkafka driven as fast as it goes, one JSON object on stdout. Arguments are name=value, looked
 * up where they are used. A file for each kind of work; main.c lists the modes.
 */
#ifndef BENCH_H
#define BENCH_H
#define _GNU_SOURCE
#include <librdkafka/rdkafka.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* common.c */
extern char **arguments;
extern int argument_count;
void die(const char *format, ...);
const char *text(const char *name, const char *otherwise); /* without otherwise the argument must be there */
double number(const char *name, double otherwise);
int64_t now_ns(void);
double cpu_seconds(void);
void set(rd_kafka_conf_t *conf, const char *name, const char *value);
void set_number(rd_kafka_conf_t *conf, const char *name, double value);
rd_kafka_conf_t *base_conf(void);
rd_kafka_t *open_handle(rd_kafka_type_t type, rd_kafka_conf_t *conf);
void await_metadata(rd_kafka_t *handle, rd_kafka_topic_t *topic);

/* produce.c */
struct feeder {
  pthread_t thread;
  rd_kafka_t *handle;
  rd_kafka_topic_t *topic;
  uint64_t first, sent, limit;
  int64_t begun_ns, done_ns;
  double seconds;
};
struct produced {
  uint64_t sent;
  double seconds;
};
extern atomic_long failed;
extern size_t payload_size;
void load_payloads(void);
void *payload(uint64_t i);
void note_failure(rd_kafka_resp_err_t error);
rd_kafka_conf_t *producer_conf(void);
struct feeder *start_feeders(int count);
struct produced join_feeders(struct feeder *feeders, int count);
void print_produced(struct produced produced);
int run_produce(void);

/* consume.c */
struct reader {
  pthread_t thread;
  rd_kafka_t *handle;
  rd_kafka_queue_t *queue;
  _Atomic uint64_t wanted; /* stops there */
  uint64_t records, bytes;
  int64_t begun_ns, first_ns, last_ns;
  _Atomic int64_t deadline_ns;
};
void open_reader(struct reader *reader, int64_t from);
int run_consume(void);
int run_tail(void);

/* percentiles.c: any thread may record */
struct latency {
  float *ms;
  atomic_size_t count;
  size_t capacity;
  int64_t from_ns; /* records due earlier warm up and are not counted */
};
void open_latency(struct latency *latency, size_t capacity, int64_t from_ns);
void record_latency(struct latency *latency, int64_t due_ns);
void print_latency(const char *name, struct latency *latency);

/* latency.c */
int run_latency(void);

/* fetch.c: Fetch requests on plain sockets */
struct parked {
  int connections;
  atomic_ulong answers, errors;
};
void await_listener(int64_t deadline_ns);
void start_parked(struct parked *parked);
int run_fetch_random(void);

/* admin.c */
int administer(int creating);
int run_first(void);
int run_evict(void);
#endif
