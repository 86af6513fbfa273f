import java.time.Duration;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.consumer.CloseOptions;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.clients.consumer.RoundRobinAssignor;
import org.apache.kafka.clients.consumer.StickyAssignor;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.FencedInstanceIdException;
import org.apache.kafka.common.errors.WakeupException;

/** Consumer groups: assignors, static members, members that join, leave and die, commit and resume. */
final class Groups {
  static List<Compat.Check> checks() {
    List<Compat.Check> checks = new ArrayList<>();
    for (Class<?> assignor : List.of(RangeAssignor.class, RoundRobinAssignor.class, StickyAssignor.class,
        CooperativeStickyAssignor.class)) {
      checks.add(new Compat.Check("group: members join and leave, " + assignor.getSimpleName(), () -> share(assignor)));
    }
    checks.add(new Compat.Check("group: default assignors, two topics, a pattern", Groups::pattern));
    checks.add(new Compat.Check("group: the partitions of a dead member go to the others", Groups::dead));
    checks.add(new Compat.Check("group: a static member returns without a rebalance", Groups::staticMember));
    checks.add(new Compat.Check("group: a second static member of the same name fences the first", Groups::fenced));
    checks.add(new Compat.Check("group: commit and resume, with metadata", Groups::commit));
    checks.add(new Compat.Check("group: commits by time and on close", Groups::autoCommit));
    return checks;
  }

  /** A consumer polled by a thread of its own, as in an application. */
  static final class Member {
    final KafkaConsumer<String, String> consumer;
    final List<String> values = Collections.synchronizedList(new ArrayList<>());
    volatile Set<TopicPartition> assigned = Set.of();
    volatile int generation = -1;
    volatile Exception failure;
    private final CountDownLatch ended = new CountDownLatch(1);
    private volatile CloseOptions closing;

    Member(KafkaConsumer<String, String> consumer) {
      this.consumer = consumer;
      Thread thread = new Thread(this::poll);
      thread.setDaemon(true);
      thread.start();
    }

    private void poll() {
      try {
        while (closing == null) {
          for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(100))) values.add(record.value());
          assigned = new HashSet<>(consumer.assignment());
          generation = consumer.groupMetadata().generationId();
        }
        consumer.close(closing);
      } catch (WakeupException closed) {
        consumer.close(closing);
      } catch (Exception unexpected) {
        failure = unexpected;
        consumer.close(CloseOptions.groupMembershipOperation(CloseOptions.GroupMembershipOperation.REMAIN_IN_GROUP));
      } finally {
        ended.countDown();
      }
    }

    /** By default a dynamic member leaves and a static one stays. */
    void close(CloseOptions.GroupMembershipOperation operation) throws Exception {
      closing = CloseOptions.groupMembershipOperation(operation);
      Compat.holds(ended.await(20, TimeUnit.SECONDS), "the member closed");
    }

    void leave() throws Exception {
      close(CloseOptions.GroupMembershipOperation.DEFAULT);
    }
  }

  static Member join(String group, String topic, Object... pairs) {
    KafkaConsumer<String, String> consumer = groupConsumer(group, pairs);
    consumer.subscribe(List.of(topic));
    return new Member(consumer);
  }

  static KafkaConsumer<String, String> groupConsumer(String group, Object... pairs) {
    List<Object> all = new ArrayList<>(List.of("group.id", group, "auto.offset.reset", "earliest",
        "session.timeout.ms", 6000, "heartbeat.interval.ms", 300));
    all.addAll(List.of(pairs));
    return Compat.consumer(all.toArray());
  }

  /** Sends values named by the word, spread over the partitions, and adds them to the list. */
  static void send(String topic, int partitions, String word, List<String> sent) throws Exception {
    try (KafkaProducer<String, String> producer = Compat.producer()) {
      for (int i = 0; i < 40; i++) {
        sent.add(word + " " + i);
        producer.send(new ProducerRecord<>(topic, i % partitions, null, word + " " + i));
      }
    }
  }

  /** Waits until the members together have each value, and asserts that no value came twice. */
  static void received(List<String> expected, Member... members) throws Exception {
    List<String> found = new ArrayList<>();
    Compat.until(expected.size() + " records", () -> {
      found.clear();
      for (Member member : members) found.addAll(member.values);
      return found.size() >= expected.size();
    });
    List<String> sorted = new ArrayList<>(expected);
    Collections.sort(sorted);
    Collections.sort(found);
    Compat.same(sorted, found);
  }

  private static void share(Class<?> assignor) throws Exception {
    String topic = Compat.newTopic("share", 4);
    String group = Compat.unique("share");
    List<String> sent = new ArrayList<>();
    String strategy = assignor.getName();
    Member first = join(group, topic, "partition.assignment.strategy", strategy);
    Compat.until("all partitions", () -> first.assigned.size() == 4);
    send(topic, 4, "alone", sent);
    received(sent, first);
    Member second = join(group, topic, "partition.assignment.strategy", strategy);
    Compat.until("two partitions each", () -> first.assigned.size() == 2 && second.assigned.size() == 2);
    Compat.holds(Collections.disjoint(first.assigned, second.assigned), "no partition twice");
    send(topic, 4, "together", sent);
    received(sent, first, second);
    Compat.holds(!second.values.isEmpty(), "the second member reads too");
    second.leave();
    Compat.until("all partitions again", () -> first.assigned.size() == 4);
    send(topic, 4, "after", sent);
    received(sent, first, second);
    first.leave();
  }

  private static void pattern() throws Exception {
    String prefix = Compat.unique("pattern");
    List<String> topics = List.of(prefix + "-a", prefix + "-b");
    for (String topic : topics) Records.send(topic, List.of(topic));
    KafkaConsumer<String, String> consumer = groupConsumer(prefix);
    consumer.subscribe(java.util.regex.Pattern.compile(prefix + "-.*"));
    Member member = new Member(consumer);
    received(topics, member);
    member.leave();
  }

  private static void dead() throws Exception {
    String topic = Compat.newTopic("dead", 4);
    String group = Compat.unique("dead");
    List<String> sent = new ArrayList<>();
    Member doomed = join(group, topic);
    Member survivor = join(group, topic);
    Compat.until("two partitions each", () -> doomed.assigned.size() == 2 && survivor.assigned.size() == 2);
    doomed.close(CloseOptions.GroupMembershipOperation.REMAIN_IN_GROUP);
    long diedAt = System.nanoTime();
    send(topic, 4, "orphaned", sent);
    Compat.until("all partitions", () -> survivor.assigned.size() == 4);
    long tookMs = (System.nanoTime() - diedAt) / 1_000_000;
    Compat.holds(tookMs > 4000, "the dead member was expelled after " + tookMs + " ms of a session of 6 s");
    received(sent, survivor);
    survivor.leave();
  }

  private static void staticMember() throws Exception {
    String topic = Compat.newTopic("static", 4);
    String group = Compat.unique("static");
    List<String> sent = new ArrayList<>();
    Member first = join(group, topic, "group.instance.id", "first");
    Member second = join(group, topic, "group.instance.id", "second");
    Compat.until("two partitions each", () -> first.assigned.size() == 2 && second.assigned.size() == 2);
    Set<TopicPartition> before = second.assigned;
    int generation = first.generation;
    second.leave();
    Member again = join(group, topic, "group.instance.id", "second");
    Compat.until("the same partitions", () -> again.assigned.equals(before));
    Compat.same(generation, again.generation);
    Compat.same(generation, first.generation);
    send(topic, 4, "static", sent);
    received(sent, first, again);
    again.close(CloseOptions.GroupMembershipOperation.LEAVE_GROUP);
    Compat.until("all partitions", () -> first.assigned.size() == 4);
    first.close(CloseOptions.GroupMembershipOperation.LEAVE_GROUP);
  }

  private static void fenced() throws Exception {
    String topic = Compat.newTopic("fenced", 2);
    String group = Compat.unique("fenced");
    Member first = join(group, topic, "group.instance.id", "same");
    Compat.until("all partitions", () -> first.assigned.size() == 2);
    Member second = join(group, topic, "group.instance.id", "same");
    Compat.until("all partitions", () -> second.assigned.size() == 2);
    Compat.until("the first is fenced", () -> first.failure != null);
    Compat.holds(first.failure instanceof FencedInstanceIdException, "fenced, not " + first.failure);
    second.close(CloseOptions.GroupMembershipOperation.LEAVE_GROUP);
  }

  private static void commit() throws Exception {
    String topic = Compat.newTopic("commit", 1);
    String group = Compat.unique("commit");
    TopicPartition partition = new TopicPartition(topic, 0);
    List<String> sent = Records.numbered("commit", 20);
    Records.send(topic, sent);
    try (KafkaConsumer<String, String> consumer = groupConsumer(group, "enable.auto.commit", false)) {
      consumer.subscribe(List.of(topic));
      Compat.same(sent, Records.values(Records.poll(consumer, 20)));
      Compat.same(null, consumer.committed(Set.of(partition)).get(partition));
      consumer.commitSync(Map.of(partition, new OffsetAndMetadata(12, "by hand")));
      OffsetAndMetadata committed = consumer.committed(Set.of(partition)).get(partition);
      Compat.same(12L, committed.offset());
      Compat.same("by hand", committed.metadata());
    }
    try (KafkaConsumer<String, String> consumer = groupConsumer(group, "enable.auto.commit", false)) {
      consumer.subscribe(List.of(topic));
      Compat.same(sent.subList(12, 20), Records.values(Records.poll(consumer, 8)));
      CountDownLatch done = new CountDownLatch(1);
      consumer.commitAsync((offsets, failure) -> {
        if (failure == null && offsets.get(partition).offset() == 20) done.countDown();
      });
      Compat.until("the commit is answered", () -> {
        consumer.poll(Duration.ofMillis(50));
        return done.getCount() == 0;
      });
    }
  }

  private static void autoCommit() throws Exception {
    String topic = Compat.newTopic("auto", 1);
    String group = Compat.unique("auto");
    TopicPartition partition = new TopicPartition(topic, 0);
    Records.send(topic, Records.numbered("auto", 20));
    try (KafkaConsumer<String, String> consumer = groupConsumer(group, "auto.commit.interval.ms", 50)) {
      consumer.subscribe(List.of(topic));
      Records.poll(consumer, 20);
      Compat.until("a commit by time", () -> {
        consumer.poll(Duration.ofMillis(50));
        OffsetAndMetadata committed = consumer.committed(Set.of(partition)).get(partition);
        return committed != null && committed.offset() == 20;
      });
      Records.send(topic, List.of("last"));
    }
    try (KafkaConsumer<String, String> consumer = groupConsumer(group)) {
      consumer.subscribe(List.of(topic));
      Compat.same(List.of("last"), Records.values(Records.poll(consumer, 1)));
    }
    OffsetAndMetadata committed = Compat.get(
        Compat.admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata()).get(partition);
    Compat.same(21L, committed.offset());
  }
}
