/*
 *   create    topic= partitions=            delete  topic=
 *   produce   topic= payloads=FILE size= seconds= | records=   producers= acks= linger= batch-bytes= batch-records=
 *             codec= idempotent= in-flight= queue-records= (records are taken from FILE in turn, by reference)
 *   consume   topic= partitions= seconds= records= consumers=    from the beginning, no group
 *   tail      as produce, and one consumer that waits at the end meanwhile
 *   latency   as produce with rate=, warmup=, consumers=; parked= consumers wait at parked-topic= meanwhile
 *   fetch-random  topic= from= to= count= bytes= seed=    single reads of partition 0
 *   first     topic=                        until a first record is acknowledged; the broker may be starting
 *   evict     dir=                          drops a directory's files from the page cache
 */
#include "bench.h"

static int run_create(void) { return administer(1); }
static int run_delete(void) { return administer(0); }
static int run_version(void) { return printf("{\"version\":\"%s\"}\n", rd_kafka_version_str()) < 0; }

static const struct {
  const char *name;
  int (*run)(void);
} modes[] = {
    {"create", run_create},   {"delete", run_delete},   {"produce", run_produce}, {"consume", run_consume},
    {"tail", run_tail},       {"latency", run_latency}, {"first", run_first},     {"fetch-random", run_fetch_random},
    {"evict", run_evict},     {"version", run_version},
};

int main(int count, char **values) {
  if (count < 2) die("usage: client MODE name=value…, see main.c");
  arguments = values + 2;
  argument_count = count - 2;
  for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
    if (strcmp(values[1], modes[i].name)) continue;
    int status = modes[i].run();
    fflush(stdout);
    _exit(status); /* the handles' threads need no farewell */
  }
  die("unknown mode %s", values[1]);
}
