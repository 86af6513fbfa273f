import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndTimestamp;
import org.apache.kafka.clients.consumer.OffsetOutOfRangeException;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.record.TimestampType;

/** Records there and back: codecs, keys, nulls, headers, sizes, times, positions. */
final class Records {
  static List<Compat.Check> checks() {
    List<Compat.Check> checks = new ArrayList<>();
    for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
      checks.add(new Compat.Check("produce and consume " + codec, () -> codec(codec)));
    }
    for (String acks : List.of("0", "1", "all")) {
      checks.add(new Compat.Check("acks=" + acks + " without idempotence", () -> acks(acks)));
    }
    checks.add(new Compat.Check("idempotent producer, many small batches in flight, in order", Records::idempotent));
    checks.add(new Compat.Check("keys, null and empty keys and values", Records::nulls));
    checks.add(new Compat.Check("headers in order, duplicates and nulls", Records::headers));
    checks.add(new Compat.Check("a record of 1 MB, and one over the limit refused", Records::large));
    checks.add(new Compat.Check("timestamps as given, far apart in one batch", Records::timestamps));
    checks.add(new Compat.Check("beginning, end and offsets for times", Records::offsets));
    checks.add(new Compat.Check("seek, pause, resume, position", Records::seek));
    checks.add(new Compat.Check("a fetch smaller than a batch still advances", Records::smallFetch));
    checks.add(new Compat.Check("read_committed reads all that was not transactional", Records::readCommitted));
    checks.add(new Compat.Check("an offset out of range is an error or a reset", Records::outOfRange));
    checks.add(new Compat.Check("a topic is made by producing to it", Records::autoCreate));
    return checks;
  }

  static List<ConsumerRecord<String, String>> read(String topic, int count, Object... pairs) {
    try (KafkaConsumer<String, String> consumer = Compat.consumer(pairs)) {
      consumer.assign(partitions(consumer, topic));
      consumer.seekToBeginning(consumer.assignment());
      return poll(consumer, count);
    }
  }

  static List<ConsumerRecord<String, String>> poll(KafkaConsumer<String, String> consumer, int count) {
    List<ConsumerRecord<String, String>> records = new ArrayList<>();
    long deadline = System.nanoTime() + Duration.ofSeconds(30).toNanos();
    while (records.size() < count) {
      Compat.holds(System.nanoTime() < deadline, "only " + records.size() + " of " + count + " records came");
      consumer.poll(Duration.ofMillis(200)).forEach(records::add);
    }
    return records;
  }

  private static List<TopicPartition> partitions(KafkaConsumer<?, ?> consumer, String topic) {
    return consumer.partitionsFor(topic).stream().map(one -> new TopicPartition(topic, one.partition())).toList();
  }

  static List<String> values(List<ConsumerRecord<String, String>> records) {
    return records.stream().map(ConsumerRecord::value).toList();
  }

  /** Sends to partition 0 and waits for every acknowledgement. */
  static void send(String topic, List<String> values, Object... pairs) throws Exception {
    try (KafkaProducer<String, String> producer = Compat.producer(pairs)) {
      List<Future<RecordMetadata>> sent = new ArrayList<>();
      for (String value : values) sent.add(producer.send(new ProducerRecord<>(topic, 0, null, value)));
      for (Future<RecordMetadata> one : sent) one.get();
    }
  }

  static List<String> numbered(String word, int count) {
    List<String> values = new ArrayList<>();
    for (int i = 0; i < count; i++) values.add(word + " " + i + " " + "ab".repeat(i % 40) + " żółć");
    return values;
  }

  private static void codec(String codec) throws Exception {
    String topic = Compat.newTopic(codec, 1);
    List<String> sent = numbered(codec, 3000);
    send(topic, sent, "compression.type", codec);
    List<ConsumerRecord<String, String>> records = read(topic, sent.size());
    Compat.same(sent, values(records));
    for (int i = 0; i < records.size(); i++) Compat.same((long) i, records.get(i).offset());
  }

  private static void acks(String acks) throws Exception {
    String topic = Compat.newTopic("acks", 1);
    List<String> sent = numbered("acks", 100);
    send(topic, sent, "acks", acks, "enable.idempotence", false);
    Compat.same(sent, values(read(topic, sent.size())));
  }

  private static void idempotent() throws Exception {
    String topic = Compat.newTopic("idempotent", 3);
    int count = 30_000;
    try (KafkaProducer<String, String> producer = Compat.producer("batch.size", 1024)) {
      List<Future<RecordMetadata>> sent = new ArrayList<>();
      for (int i = 0; i < count; i++) sent.add(producer.send(new ProducerRecord<>(topic, i % 3, null, "value " + i)));
      for (int i = 0; i < count; i++) Compat.same((long) (i / 3), sent.get(i).get().offset());
    }
    for (ConsumerRecord<String, String> record : read(topic, count)) {
      Compat.same("value " + (record.offset() * 3 + record.partition()), record.value());
    }
  }

  private static void nulls() throws Exception {
    String topic = Compat.newTopic("nulls", 1);
    byte[] bytes = {0, (byte) 255, (byte) 128};
    byte[][][] pairs = {{bytes, bytes}, {null, bytes}, {bytes, null}, {null, null}, {new byte[0], new byte[0]}};
    try (KafkaProducer<byte[], byte[]> producer = Compat.bytesProducer()) {
      for (byte[][] pair : pairs) producer.send(new ProducerRecord<>(topic, pair[0], pair[1]));
    }
    try (KafkaConsumer<byte[], byte[]> consumer = Compat.bytesConsumer()) {
      consumer.assign(List.of(new TopicPartition(topic, 0)));
      consumer.seekToBeginning(consumer.assignment());
      List<byte[][]> found = new ArrayList<>();
      Compat.until("five records", () -> {
        consumer.poll(Duration.ofMillis(200)).forEach(one -> found.add(new byte[][] {one.key(), one.value()}));
        return found.size() >= pairs.length;
      });
      Compat.holds(Arrays.deepEquals(pairs, found.toArray()), "keys and values as sent");
    }
  }

  private static void headers() throws Exception {
    String topic = Compat.newTopic("headers", 1);
    String[][] headers = {{"b", "2"}, {"a", "1"}, {"b", "3"}, {"none", null}, {"empty", ""}, {"", "nameless"}};
    try (KafkaProducer<String, String> producer = Compat.producer()) {
      ProducerRecord<String, String> record = new ProducerRecord<>(topic, "x");
      for (String[] one : headers) record.headers().add(one[0], one[1] == null ? null : one[1].getBytes());
      producer.send(record);
    }
    List<String[]> found = new ArrayList<>();
    for (Header one : read(topic, 1).get(0).headers()) {
      String value = one.value() == null ? null : new String(one.value(), StandardCharsets.UTF_8);
      found.add(new String[] {one.key(), value});
    }
    Compat.holds(Arrays.deepEquals(headers, found.toArray()), "headers as sent");
  }

  private static void large() throws Exception {
    String topic = Compat.newTopic("large", 1);
    String value = "Millrace ".repeat(1_048_000 / 9);
    send(topic, List.of(value));
    Compat.same(value, read(topic, 1).get(0).value());
    List<String> over = List.of("x".repeat(2_000_000));
    Compat.fails(RecordTooLargeException.class, () -> send(topic, over, "max.request.size", 10_000_000));
  }

  private static void timestamps() throws Exception {
    String topic = Compat.newTopic("times", 1);
    long[] times = {1000, System.currentTimeMillis(), 1_700_000_000_123L, 0};
    try (KafkaProducer<String, String> producer = Compat.producer("linger.ms", 100)) {
      for (long time : times) producer.send(new ProducerRecord<>(topic, 0, time, null, "x"));
    }
    List<ConsumerRecord<String, String>> records = read(topic, times.length);
    for (int i = 0; i < times.length; i++) {
      Compat.same(times[i], records.get(i).timestamp());
      Compat.same(TimestampType.CREATE_TIME, records.get(i).timestampType());
    }
  }

  private static void offsets() throws Exception {
    String topic = Compat.newTopic("offsets", 2);
    TopicPartition first = new TopicPartition(topic, 0);
    TopicPartition empty = new TopicPartition(topic, 1);
    // What is much older may fall to retention at any time.
    long minuteAgo = System.currentTimeMillis() - 60_000;
    try (KafkaProducer<String, String> producer = Compat.producer()) {
      for (int i = 0; i < 10; i++) producer.send(new ProducerRecord<>(topic, 0, minuteAgo + i * 10, null, "x")).get();
    }
    try (KafkaConsumer<String, String> consumer = Compat.consumer()) {
      Compat.same(Map.of(first, 0L, empty, 0L), consumer.beginningOffsets(List.of(first, empty)));
      Compat.same(Map.of(first, 10L, empty, 0L), consumer.endOffsets(List.of(first, empty)));
      Map<TopicPartition, OffsetAndTimestamp> found = consumer.offsetsForTimes(Map.of(first, minuteAgo + 35, empty, 0L));
      Compat.same(4L, found.get(first).offset());
      Compat.same(minuteAgo + 40, found.get(first).timestamp());
      Compat.same(null, found.get(empty));
      Compat.same(null, consumer.offsetsForTimes(Map.of(first, minuteAgo + 91)).get(first));
    }
  }

  private static void seek() throws Exception {
    String topic = Compat.newTopic("seek", 1);
    TopicPartition partition = new TopicPartition(topic, 0);
    List<String> sent = numbered("seek", 20);
    send(topic, sent);
    try (KafkaConsumer<String, String> consumer = Compat.consumer()) {
      consumer.assign(List.of(partition));
      consumer.seek(partition, 15);
      Compat.same(sent.subList(15, 20), values(poll(consumer, 5)));
      Compat.same(20L, consumer.position(partition));
      Compat.same(0L, consumer.currentLag(partition).orElse(-1));
      consumer.pause(List.of(partition));
      send(topic, List.of("later"));
      Compat.holds(consumer.poll(Duration.ofMillis(300)).isEmpty(), "nothing while paused");
      consumer.resume(List.of(partition));
      Compat.same(List.of("later"), values(poll(consumer, 1)));
    }
  }

  private static void smallFetch() throws Exception {
    String topic = Compat.newTopic("small", 1);
    List<String> sent = numbered("small", 2000);
    send(topic, sent);
    Compat.same(sent, values(read(topic, sent.size(), "max.partition.fetch.bytes", 100, "fetch.max.bytes", 100)));
  }

  private static void readCommitted() throws Exception {
    String topic = Compat.newTopic("committed", 1);
    List<String> sent = numbered("committed", 50);
    send(topic, sent);
    Compat.same(sent, values(read(topic, sent.size(), "isolation.level", "read_committed")));
  }

  private static void outOfRange() throws Exception {
    String topic = Compat.newTopic("range", 1);
    TopicPartition partition = new TopicPartition(topic, 0);
    send(topic, List.of("a", "b"));
    try (KafkaConsumer<String, String> consumer = Compat.consumer("auto.offset.reset", "none")) {
      consumer.assign(List.of(partition));
      consumer.seek(partition, 50);
      Compat.fails(OffsetOutOfRangeException.class, () -> {
        while (true) consumer.poll(Duration.ofMillis(100));
      });
    }
    try (KafkaConsumer<String, String> consumer = Compat.consumer("auto.offset.reset", "earliest")) {
      consumer.assign(List.of(partition));
      consumer.seek(partition, 50);
      Compat.same(List.of("a", "b"), values(poll(consumer, 2)));
    }
  }

  private static void autoCreate() throws Exception {
    String topic = Compat.unique("auto");
    send(topic, List.of("x"));
    Compat.same(List.of("x"), values(read(topic, 1)));
  }
}
