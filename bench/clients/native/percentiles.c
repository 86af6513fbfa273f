#include "bench.h"

void open_latency(struct latency *latency, size_t capacity, int64_t from_ns) {
  latency->ms = malloc(capacity * sizeof *latency->ms);
  latency->count = 0;
  latency->capacity = capacity;
  latency->from_ns = from_ns;
}

void record_latency(struct latency *latency, int64_t due_ns) {
  if (due_ns < latency->from_ns) return;
  size_t at = atomic_fetch_add(&latency->count, 1);
  if (at >= latency->capacity) die("more latencies than were expected");
  latency->ms[at] = (now_ns() - due_ns) / 1e6f;
}

static int by_value(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return (x > y) - (x < y);
}

void print_latency(const char *name, struct latency *latency) {
  size_t count = latency->count;
  qsort(latency->ms, count, sizeof *latency->ms, by_value);
  printf("\"%s\":{\"count\":%zu", name, count);
  static const struct { const char *name; double share; } points[] = {{"p50", 0.5}, {"p95", 0.95}, {"p99", 0.99}, {"p999", 0.999}, {"max", 1}};
  for (size_t i = 0; count && i < sizeof points / sizeof *points; i++) {
    size_t at = (size_t)(points[i].share * count);
    printf(",\"%s\":%.3f", points[i].name, latency->ms[at < count ? at : count - 1]);
  }
  printf("}");
}
