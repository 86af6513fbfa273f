/* What is done around the measuring: topics, the first record after a start, the page cache. */
#include "bench.h"
#include <fcntl.h>
#include <ftw.h>
#include <sys/mman.h>
#include <sys/stat.h>

int administer(int creating) {
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

static atomic_long acknowledged_ns;

static void on_report(rd_kafka_t *handle, const rd_kafka_message_t *message, void *opaque) {
  if (message->err) die("not acknowledged: %s", rd_kafka_err2str(message->err));
  acknowledged_ns = now_ns();
}

/* When the first record was acknowledged, on the monotonic clock that every process of the machine shares. The broker
   may still be down: by itself librdkafka would try again once a second only, which is no part of a start. */
int run_first(void) {
  int64_t deadline = now_ns() + (int64_t)(number("seconds", 60) * 1e9);
  await_listener(deadline);
  rd_kafka_conf_t *conf = base_conf();
  set(conf, "acks", "all");
  set(conf, "linger.ms", "0");
  set(conf, "reconnect.backoff.ms", "5");
  set(conf, "reconnect.backoff.max.ms", "10");
  rd_kafka_conf_set_dr_msg_cb(conf, on_report);
  rd_kafka_t *handle = open_handle(RD_KAFKA_PRODUCER, conf);
  rd_kafka_topic_t *topic = rd_kafka_topic_new(handle, text("topic", NULL), NULL);
  await_metadata(handle, topic);
  if (rd_kafka_produce(topic, 0, RD_KAFKA_MSG_F_COPY, "first", 5, NULL, 0, NULL)) die("produce: %s", rd_kafka_err2str(rd_kafka_last_error()));
  while (!acknowledged_ns && now_ns() < deadline) rd_kafka_poll(handle, 5);
  if (!acknowledged_ns) die("nothing was acknowledged");
  printf("{\"acknowledged_ns\":%lld}\n", (long long)acknowledged_ns);
  return 0;
}

static size_t file_pages, cached_pages;

/* Only clean pages can be dropped, and none that a process has mapped: what stays is counted. */
static int evict_file(const char *path, const struct stat *status, int kind, struct FTW *walk) {
  if (kind != FTW_F || status->st_size == 0) return 0;
  int file = open(path, O_RDONLY);
  if (file < 0) return 0;
  fdatasync(file);
  posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
  size_t page = (size_t)sysconf(_SC_PAGESIZE), pages = (status->st_size + page - 1) / page;
  void *mapped = mmap(NULL, status->st_size, PROT_READ, MAP_SHARED, file, 0);
  unsigned char *cached = malloc(pages);
  if (mapped != MAP_FAILED && !mincore(mapped, status->st_size, cached))
    for (size_t i = 0; i < pages; i++) cached_pages += cached[i] & 1;
  file_pages += pages;
  free(cached);
  if (mapped != MAP_FAILED) munmap(mapped, status->st_size);
  close(file);
  return 0;
}

/* Drops a directory's files from the page cache. */
int run_evict(void) {
  if (nftw(text("dir", NULL), evict_file, 16, FTW_PHYS)) die("cannot walk %s", text("dir", NULL));
  double mb = sysconf(_SC_PAGESIZE) / 1e6;
  printf("{\"mb\":%.3f,\"still_cached_mb\":%.3f}\n", file_pages * mb, cached_pages * mb);
  return 0;
}
