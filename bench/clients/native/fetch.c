/*
 * Fetch requests (version 11, which names topics and needs no session) on plain sockets, for what a Kafka client is too
 * large or too busy for: a thousand consumers that wait in one process, and the time of one read at one offset.
 */
#include "bench.h"
#include <arpa/inet.h>
#include <endian.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

enum { before_error = 8, before_topics = 14, least_answer = before_error + 2 };

static char *put16(char *at, int value) {
  uint16_t wire = htobe16((uint16_t)value);
  return memcpy(at, &wire, 2) + 2;
}

static char *put32(char *at, int32_t value) {
  uint32_t wire = htobe32((uint32_t)value);
  return memcpy(at, &wire, 4) + 4;
}

static char *put64(char *at, int64_t value) {
  uint64_t wire = htobe64((uint64_t)value);
  return memcpy(at, &wire, 8) + 8;
}

static char *put_string(char *at, const char *words) {
  size_t length = strlen(words);
  return memcpy(put16(at, (int)length), words, length) + length;
}

static int16_t get16(const char *at) {
  uint16_t wire;
  memcpy(&wire, at, 2);
  return (int16_t)be16toh(wire);
}

static int32_t get32(const char *at) {
  uint32_t wire;
  memcpy(&wire, at, 4);
  return (int32_t)be32toh(wire);
}

static int64_t get64(const char *at) {
  uint64_t wire;
  memcpy(&wire, at, 8);
  return (int64_t)be64toh(wire);
}

/* The length of a frame that asks for one partition from one offset; the frame has room for any topic's name. */
static size_t fetch_frame(char *frame, const char *topic, int partition, int64_t offset, int wait_ms, int bytes) {
  char *at = put32(frame, 0);
  at = put16(put16(at, 1), 11);                        /* Fetch */
  at = put_string(put32(at, 0), "millrace-bench");     /* correlation id, client id */
  at = put32(put32(at, -1), wait_ms);                  /* a consumer; longest wait */
  at = put32(put32(at, 1), bytes);                     /* least and most bytes */
  *at++ = 0;                                           /* read_uncommitted */
  at = put32(put32(at, 0), -1);                        /* no session */
  at = put32(put_string(put32(at, 1), topic), 1);      /* one topic, one partition */
  at = put32(put32(at, partition), -1);                /* its leader's epoch is not known */
  at = put32(put64(put64(at, offset), -1), bytes);     /* log start offset is for followers */
  at = put_string(put32(at, 0), "");                   /* nothing forgotten, no rack */
  put32(frame, (int32_t)(at - frame - 4));
  return at - frame;
}

/* A connection, or -1 where nobody listens. */
static int try_socket(void) {
  char host[256];
  snprintf(host, sizeof host, "%s", text("bootstrap", NULL));
  char *port = strrchr(host, ':');
  if (!port) die("bootstrap= has no port");
  *port++ = 0;
  struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
  if (getaddrinfo(host, port, &hints, &found)) die("no address for %s", host);
  int handle = socket(found->ai_family, SOCK_STREAM, 0), yes = 1;
  int refused = connect(handle, found->ai_addr, found->ai_addrlen);
  freeaddrinfo(found);
  if (refused) return close(handle), -1;
  setsockopt(handle, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  return handle;
}

static int open_socket(void) {
  int handle = try_socket();
  if (handle < 0) die("cannot connect to %s", text("bootstrap", NULL));
  return handle;
}

void await_listener(int64_t deadline_ns) {
  int handle;
  while ((handle = try_socket()) < 0) {
    if (now_ns() > deadline_ns) die("nobody listens");
    usleep(2000);
  }
  close(handle);
}

static void send_all(int handle, const char *bytes, size_t length) {
  for (size_t sent = 0; sent < length;) {
    ssize_t count = send(handle, bytes + sent, length - sent, MSG_NOSIGNAL);
    if (count <= 0) die("the broker has closed a connection");
    sent += count;
  }
}

/* Reads one answer without its length; its size. The buffer grows as needed. */
static size_t read_answer(int handle, char **buffer, size_t *capacity) {
  char prefix[4];
  if (recv(handle, prefix, 4, MSG_WAITALL) != 4) die("the broker has closed a connection");
  size_t length = (size_t)get32(prefix);
  if (length > *capacity) *buffer = realloc(*buffer, *capacity = length);
  if (recv(handle, *buffer, length, MSG_WAITALL) != (ssize_t)length) die("an answer ends early");
  return length;
}

/* ---- consumers that wait ---- */

static char parked_frame[512];
static size_t parked_length;
static int parked_poll;

static void *park(void *argument) {
  struct parked *parked = argument;
  size_t capacity = 1 << 16;
  char *answer = malloc(capacity);
  struct epoll_event ready[256];
  for (;;) {
    int count = epoll_wait(parked_poll, ready, 256, -1);
    for (int i = 0; i < count; i++) {
      size_t length = read_answer(ready[i].data.fd, &answer, &capacity);
      if (length < least_answer || get16(answer + before_error)) parked->errors++;
      parked->answers++;
      send_all(ready[i].data.fd, parked_frame, parked_length);
    }
  }
  return NULL;
}

/* Each consumer waits at the beginning of an empty topic, and asks again at once when its wait is over. */
void start_parked(struct parked *parked) {
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  parked_length = fetch_frame(parked_frame, text("parked-topic", NULL), 0, 0, (int)number("parked-wait", 500), 1 << 20);
  parked_poll = epoll_create1(0);
  double stagger_us = number("parked-wait", 500) * 1000 / parked->connections;
  for (int i = 0; i < parked->connections; i++) {
    struct epoll_event event = {.events = EPOLLIN, .data.fd = open_socket()};
    if (epoll_ctl(parked_poll, EPOLL_CTL_ADD, event.data.fd, &event)) die("epoll_ctl failed");
    send_all(event.data.fd, parked_frame, parked_length);
    usleep((useconds_t)stagger_us); /* real consumers did not all start in one instant */
  }
  pthread_t thread;
  if (pthread_create(&thread, NULL, park, parked)) die("no thread");
}

/* ---- one read at a random offset ---- */

/* Where the records of the only partition in an answer begin; their length in *length. */
static const char *records_of(const char *answer, int32_t *length) {
  const char *at = answer + before_topics + 4;
  at += 2 + get16(at) + 4; /* the topic's name, one partition */
  int error = get16(at + 4);
  if (error) die("fetch: error %d", error);
  at += 4 + 2 + 8 + 8 + 8;
  int32_t aborted = get32(at);
  at += 4 + (aborted > 0 ? aborted * 16 : 0) + 4;
  *length = get32(at);
  return at + 4;
}

int run_fetch_random(void) {
  const char *topic = text("topic", NULL);
  int64_t from = (int64_t)number("from", 0), to = (int64_t)number("to", 0);
  int count = (int)number("count", 200), bytes = (int)number("bytes", 65536);
  if (to <= from) die("to= must be more than from=");
  struct latency latency;
  open_latency(&latency, count, 0);
  srand48((long)number("seed", 1));
  int handle = open_socket();
  size_t capacity = 1 << 21;
  char *answer = malloc(capacity), frame[512];
  for (int i = 0; i < count; i++) {
    int64_t offset = from + (int64_t)(drand48() * (double)(to - from)), begun = now_ns();
    send_all(handle, frame, fetch_frame(frame, topic, 0, offset, 0, bytes));
    size_t got = read_answer(handle, &answer, &capacity);
    record_latency(&latency, begun);
    if (got < least_answer || get16(answer + before_error)) die("fetch at %lld failed", (long long)offset);
    int32_t length;
    const char *records = records_of(answer, &length);
    if (length < 61 || get64(records) > offset || get64(records) + get32(records + 23) < offset)
      die("the answer does not begin with offset %lld", (long long)offset);
  }
  putchar('{');
  print_latency("fetch", &latency);
  puts("}");
  return 0;
}
