#include "bench.h"
#include <stdarg.h>
#include <sys/resource.h>
#include <time.h>

char **arguments;
int argument_count;

void die(const char *format, ...) {
  va_list list;
  va_start(list, format);
  vfprintf(stderr, format, list);
  va_end(list);
  fputc('\n', stderr);
  exit(1);
}

const char *text(const char *name, const char *otherwise) {
  size_t length = strlen(name);
  for (int i = 0; i < argument_count; i++)
    if (!strncmp(arguments[i], name, length) && arguments[i][length] == '=') return arguments[i] + length + 1;
  if (!otherwise) die("%s= is missing", name);
  return otherwise;
}

double number(const char *name, double otherwise) {
  const char *given = text(name, "");
  return *given ? atof(given) : otherwise;
}

int64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1000000000LL + time.tv_nsec;
}

void set(rd_kafka_conf_t *conf, const char *name, const char *value) {
  char error[256];
  if (rd_kafka_conf_set(conf, name, value, error, sizeof error) != RD_KAFKA_CONF_OK) die("%s", error);
}

void set_number(rd_kafka_conf_t *conf, const char *name, double value) {
  char digits[64];
  snprintf(digits, sizeof digits, "%.15g", value);
  set(conf, name, digits);
}

rd_kafka_conf_t *base_conf(void) {
  rd_kafka_conf_t *conf = rd_kafka_conf_new();
  set(conf, "bootstrap.servers", text("bootstrap", NULL));
  set(conf, "client.id", "millrace-bench");
  return conf;
}

rd_kafka_t *open_handle(rd_kafka_type_t type, rd_kafka_conf_t *conf) {
  char error[256];
  rd_kafka_t *handle = rd_kafka_new(type, conf, error, sizeof error);
  if (!handle) die("%s", error);
  return handle;
}

/* Connected, and the topic's leaders known, before any clock starts. */
void await_metadata(rd_kafka_t *handle, rd_kafka_topic_t *topic) {
  int64_t deadline = now_ns() + 60000000000LL;
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
    usleep(5000);
  }
}

double cpu_seconds(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}
