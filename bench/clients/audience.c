/*
 * Those whom the events of `npm run bench -- delivery` are for, in one thread that costs next to nothing. Arguments are
 * name=value, numbers are in ms:
 *
 *   streams   port= path= users= clock=   a connection to path with each user's name at its end, as an EventSource has one: it
 *             comes back 500 to 1,500 ms after it was lost, with the last id it had. A line `drop` on stdin: all lose theirs
 *   receiver  port= users= clock=         answers webhooks with 200; port=0 takes a free one, which the first line tells
 *
 * clock: of the one who sends the events, less CLOCK_MONOTONIC, so that both read one clock. Every event has its user, its
 * producer and its number among what that producer sends to that user: by these it is known what came, and what came twice.
 * Tells what it has seen, in total but for latencies, by a JSON object a line every fifth of a second; ends with its stdin.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netinet/tcp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { report_ms = 200, opened_at_once = 50, read_bytes = 1 << 18, most_ready = 256, max_numbers = 1 << 24 };

static void die(const char *format, ...) {
  va_list list;
  va_start(list, format);
  vfprintf(stderr, format, list);
  va_end(list);
  fputc('\n', stderr);
  exit(1);
}

static char **arguments;
static int argument_count;

static const char *text(const char *name) {
  size_t length = strlen(name);
  for (int i = 0; i < argument_count; i++)
    if (!strncmp(arguments[i], name, length) && arguments[i][length] == '=') return arguments[i] + length + 1;
  die("%s= is missing", name);
  return NULL;
}

static double monotonic_ms(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return time.tv_sec * 1e3 + time.tv_nsec / 1e6;
}

/* What has come ------------------------------------------------------------------------------------------------------- */

static const char *producers[] = {"jobs", "connections", "followers"};
enum { producer_count = 3, bucket_count = 700 };

/* A bit for each number that has come. */
struct numbers {
  uint64_t *words;
  size_t count;
};

static int user_count;
static struct numbers (*received)[producer_count];
static double clock_ms;
static long long events, duplicates, unknown, reconnects, connections;
static double first_at, last_at;
static unsigned latencies[bucket_count];

/* Buckets as Histogram has them (examples/notifications/histogram.ts). */
static void add_latency(double ms) {
  double place = ms <= 0.1 ? 0 : ceil(log(ms / 0.1) / log(1.02));
  latencies[place >= bucket_count ? bucket_count - 1 : (int)place]++;
}

static int add_number(struct numbers *numbers, size_t n) {
  size_t word = n / 64;
  if (word >= numbers->count) {
    size_t grown = numbers->count ? numbers->count : 4;
    while (grown <= word) grown *= 2;
    numbers->words = realloc(numbers->words, grown * sizeof *numbers->words);
    memset(numbers->words + numbers->count, 0, (grown - numbers->count) * sizeof *numbers->words);
    numbers->count = grown;
  }
  uint64_t bit = 1ULL << n % 64;
  if (numbers->words[word] & bit) return 0;
  numbers->words[word] |= bit;
  return 1;
}

/* What follows `name` in the JSON of an event, which is ended by a NUL. */
static const char *member(const char *json, const char *name) {
  const char *found = strstr(json, name);
  return found ? found + strlen(name) : NULL;
}

static void take_event(const char *json) {
  const char *user = member(json, "\"user_id\":\"user-"), *producer = member(json, "\"producer\":\"");
  const char *n = member(json, "\"n\":"), *sent = member(json, "\"sent_at\":");
  long at = user ? atol(user) : -1, number = n ? atol(n) : -1;
  int who = 0;
  while (producer && who < producer_count && strncmp(producer, producers[who], strlen(producers[who]))) who++;
  if (!producer || !sent || who == producer_count || at < 0 || at >= user_count || number < 0 || number > max_numbers) {
    unknown++;
    return;
  }
  if (!add_number(&received[at][who], number)) {
    duplicates++;
    return;
  }
  double now = monotonic_ms() + clock_ms;
  if (events++ == 0) first_at = now;
  last_at = now;
  add_latency(now - strtod(sent, NULL));
}

/* Connections --------------------------------------------------------------------------------------------------------- */

struct connection {
  int fd; /* -1: it has none */
  int user;
  int is_connecting, is_open;
  double due; /* when it is opened, while it has none */
  /* What has come and is not understood yet. */
  char *bytes;
  size_t length, room;
  /* Of a chunked body: what is left of the chunk, 0 before its size. The text in it that is no whole event yet. */
  size_t chunk;
  int is_chunked;
  char *body;
  size_t body_length, body_room;
  char last_id[64];
};

static int poller, is_receiver;
static struct sockaddr_in server;
static struct connection *streams;
static int opening;
static double dropped_at = -1, recovered_ms = -1;
static char scratch[read_bytes];

static void append(char **bytes, size_t *length, size_t *room, const char *from, size_t count) {
  if (*length + count + 1 > *room) {
    *room = (*length + count + 1) * 2;
    *bytes = realloc(*bytes, *room);
  }
  memcpy(*bytes + *length, from, count);
  *length += count;
  (*bytes)[*length] = 0;
}

static void drop_front(char *bytes, size_t *length, size_t count) {
  memmove(bytes, bytes + count, *length - count + 1);
  *length -= count;
}

static void watch(int operation, struct connection *connection, uint32_t wanted) {
  struct epoll_event event = {.events = wanted, .data.ptr = connection};
  if (epoll_ctl(poller, operation, connection->fd, &event)) die("epoll_ctl: %s", strerror(errno));
}

static void lose(struct connection *connection) {
  close(connection->fd);
  connection->fd = -1;
  if (connection->is_open) connections--;
  else if (!is_receiver) opening--;
  connection->is_connecting = connection->is_open = 0;
  connection->length = connection->body_length = connection->chunk = 0;
  reconnects++;
  connection->due = monotonic_ms() + 500 + drand48() * 1000;
}

static void open_stream(struct connection *connection) {
  connection->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (connection->fd < 0) die("socket: %s", strerror(errno));
  opening++;
  connection->is_connecting = 1;
  if (connect(connection->fd, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS) {
    lose(connection);
    return;
  }
  watch(EPOLL_CTL_ADD, connection, EPOLLOUT);
}

static void send_all(struct connection *connection, const char *bytes, size_t length) {
  /* Requests and answers are far smaller than a socket's buffer. */
  if (send(connection->fd, bytes, length, MSG_NOSIGNAL) != (ssize_t)length) lose(connection);
}

static void ask(struct connection *connection) {
  char request[512], resume[96] = "";
  if (connection->last_id[0]) snprintf(resume, sizeof resume, "last-event-id: %s\r\n", connection->last_id);
  int length = snprintf(request, sizeof request,
    "GET %s%d HTTP/1.1\r\nhost: 127.0.0.1:%d\r\naccept: text/event-stream\r\n%s\r\n",
    text("path"), connection->user, ntohs(server.sin_port), resume);
  connection->is_connecting = 0;
  watch(EPOLL_CTL_MOD, connection, EPOLLIN);
  send_all(connection, request, length);
}

/* Whole events: an id and data of one line each, ended by an empty line. */
static void take_blocks(struct connection *connection) {
  char *at = connection->body, *end;
  while ((end = strstr(at, "\n\n"))) {
    *end = 0;
    char *data = NULL, *line = at;
    for (char *next; line; line = next) {
      if ((next = strchr(line, '\n'))) *next++ = 0;
      if (!strncmp(line, "id: ", 4)) snprintf(connection->last_id, sizeof connection->last_id, "%s", line + 4);
      else if (!strncmp(line, "data: ", 6)) data = line + 6;
    }
    if (data) take_event(data);
    at = end + 2;
  }
  drop_front(connection->body, &connection->body_length, at - connection->body);
}

static void take_chunks(struct connection *connection) {
  size_t at = 0;
  while (at < connection->length) {
    if (connection->chunk == 0) {
      char *line = connection->bytes + at, *end = strstr(line, "\r\n");
      if (!end) break;
      if (end != line && (connection->chunk = strtoul(line, NULL, 16)) == 0) { /* the last one */
        lose(connection);
        return;
      }
      at = end + 2 - connection->bytes;
      continue;
    }
    size_t here = connection->length - at < connection->chunk ? connection->length - at : connection->chunk;
    append(&connection->body, &connection->body_length, &connection->body_room, connection->bytes + at, here);
    connection->chunk -= here;
    at += here;
  }
  drop_front(connection->bytes, &connection->length, at);
}

static void take_stream(struct connection *connection) {
  if (!connection->is_open) {
    char *end = strstr(connection->bytes, "\r\n\r\n");
    if (!end) return;
    *end = 0;
    int status = 0;
    sscanf(connection->bytes, "HTTP/1.1 %d", &status);
    if (status != 200) {
      lose(connection);
      return;
    }
    connection->is_chunked = strcasestr(connection->bytes, "transfer-encoding: chunked") != NULL;
    opening--;
    connection->is_open = 1;
    if (++connections == user_count && dropped_at >= 0) {
      recovered_ms = monotonic_ms() - dropped_at;
      dropped_at = -1;
    }
    drop_front(connection->bytes, &connection->length, end + 4 - connection->bytes);
  }
  if (connection->is_chunked) take_chunks(connection);
  else {
    append(&connection->body, &connection->body_length, &connection->body_room, connection->bytes, connection->length);
    connection->length = 0;
  }
  if (connection->is_open && connection->body_length > 0) take_blocks(connection);
}

/* Webhooks: a request with its length, and a signature, which whoever sends has to have made. */
static void take_requests(struct connection *connection) {
  static const char answer[] = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
  for (;;) {
    char *end = connection->length ? strstr(connection->bytes, "\r\n\r\n") : NULL;
    if (!end) return;
    *end = 0;
    char *length_text = strcasestr(connection->bytes, "content-length:");
    char *signature = strcasestr(connection->bytes, "webhook-signature: v1,");
    if (!length_text || !signature) die("a webhook without its length or signature: %s", connection->bytes);
    size_t head = end + 4 - connection->bytes, whole = head + strtoul(length_text + 15, NULL, 10);
    if (connection->length < whole) {
      *end = '\r';
      return;
    }
    char after = connection->bytes[whole];
    connection->bytes[whole] = 0;
    take_event(connection->bytes + head);
    connection->bytes[whole] = after;
    drop_front(connection->bytes, &connection->length, whole);
    send_all(connection, answer, sizeof answer - 1);
    if (connection->fd < 0) return;
  }
}

static void take(struct connection *connection) {
  ssize_t count = recv(connection->fd, scratch, sizeof scratch, 0);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (count <= 0) {
    lose(connection);
    return;
  }
  append(&connection->bytes, &connection->length, &connection->room, scratch, count);
  if (is_receiver) take_requests(connection);
  else take_stream(connection);
}

static void accept_all(int listener) {
  for (int fd; (fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
    int on = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct connection *connection = calloc(1, sizeof *connection);
    connection->fd = fd;
    connection->is_open = 1;
    connections++;
    watch(EPOLL_CTL_ADD, connection, EPOLLIN);
  }
}

static int listen_on(int port) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
  socklen_t length = sizeof server;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(fd, (struct sockaddr *)&server, length) || listen(fd, 4096)) die("port %d: %s", port, strerror(errno));
  getsockname(fd, (struct sockaddr *)&server, &length);
  printf("{\"port\":%d}\n", ntohs(server.sin_port));
  fflush(stdout);
  return fd;
}

/* The main loop -------------------------------------------------------------------------------------------------------- */

static void report(void) {
  struct rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  double cpu = usage.ru_utime.tv_sec + usage.ru_stime.tv_sec + (usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
  printf("{\"at\":%.3f,\"connections\":%lld,\"events\":%lld,\"duplicates\":%lld,\"unknown\":%lld,\"reconnects\":%lld",
    monotonic_ms() + clock_ms, connections, events, duplicates, unknown, reconnects);
  printf(",\"firstAt\":%.3f,\"lastAt\":%.3f,\"recoveredMs\":%.3f,\"cpuS\":%.6f,\"latencies\":[", first_at, last_at,
    recovered_ms, cpu);
  for (int i = 0; i < bucket_count; i++) printf(i ? ",%u" : "%u", latencies[i]);
  puts("]}");
  if (fflush(stdout)) exit(0);
  memset(latencies, 0, sizeof latencies);
}

/* All of them: who is being opened is lost as well. */
static void drop_streams(void) {
  dropped_at = monotonic_ms();
  recovered_ms = -1;
  for (int i = 0; i < user_count; i++)
    if (streams[i].fd >= 0) lose(&streams[i]);
}

static void open_due(double now) {
  for (int i = 0; i < user_count; i++) {
    if (streams[i].fd >= 0 || streams[i].due > now) continue;
    /* The first time a few at once; then each by its own clock. */
    if (streams[i].due == 0 && opening >= opened_at_once) return;
    open_stream(&streams[i]);
  }
}

int main(int count, char **values) {
  if (count < 2) die("usage: audience streams|receiver name=value…");
  arguments = values + 2;
  argument_count = count - 2;
  is_receiver = !strcmp(values[1], "receiver");
  user_count = atoi(text("users"));
  clock_ms = strtod(text("clock"), NULL);
  received = calloc(user_count, sizeof *received);
  poller = epoll_create1(EPOLL_CLOEXEC);
  server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(atoi(text("port")))};
  server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  struct connection listener = {.fd = -1}, input = {.fd = STDIN_FILENO};
  watch(EPOLL_CTL_ADD, &input, EPOLLIN);
  if (is_receiver) {
    listener.fd = listen_on(atoi(text("port")));
    watch(EPOLL_CTL_ADD, &listener, EPOLLIN);
  } else {
    streams = calloc(user_count, sizeof *streams);
    for (int i = 0; i < user_count; i++) streams[i] = (struct connection){.fd = -1, .user = i};
  }
  double reported = monotonic_ms();
  for (;;) {
    struct epoll_event ready[most_ready];
    int found = epoll_wait(poller, ready, most_ready, 10);
    for (int i = 0; i < found; i++) {
      struct connection *connection = ready[i].data.ptr;
      if (connection == &input) {
        char words[64];
        ssize_t length = read(STDIN_FILENO, words, sizeof words);
        if (length <= 0) return 0;
        if (!is_receiver) drop_streams();
        break; /* what else is ready may be of connections that are gone */
      }
      if (connection == &listener) accept_all(listener.fd);
      else if (connection->fd < 0) continue;
      else if (connection->is_connecting && !(ready[i].events & (EPOLLERR | EPOLLHUP))) ask(connection);
      else if (connection->is_connecting) lose(connection);
      else take(connection);
    }
    double now = monotonic_ms();
    if (!is_receiver && connections + opening < user_count) open_due(now);
    if (now - reported < report_ms) continue;
    reported = now;
    report();
  }
}
