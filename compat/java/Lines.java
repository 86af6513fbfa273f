import java.io.BufferedOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.time.Duration;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Reads a topic of one partition in a consumer group and prints a line for each record's value.
 * Usage: Lines HOST:PORT TOPIC GROUP COUNT. Halfway a second member takes over and reads on from what was committed.
 */
final class Lines {
  public static void main(String[] args) throws IOException {
    int count = Integer.parseInt(args[3]);
    try (OutputStream output = new BufferedOutputStream(System.out, 1 << 20)) {
      int read = copy(args, count / 2, output);
      copy(args, count - read, output);
    }
  }

  /** Copies at least so many records; closing commits what was polled. */
  private static int copy(String[] args, int wanted, OutputStream output) throws IOException {
    Map<String, Object> settings =
        Map.of("bootstrap.servers", args[0], "group.id", args[2], "auto.offset.reset", "earliest");
    ByteArrayDeserializer bytes = new ByteArrayDeserializer();
    int read = 0;
    try (KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(settings, bytes, bytes)) {
      consumer.subscribe(List.of(args[1]));
      long progressAt = System.nanoTime();
      while (read < wanted) {
        for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofSeconds(1))) {
          output.write(record.value());
          output.write('\n');
          read++;
          progressAt = System.nanoTime();
        }
        if (System.nanoTime() - progressAt > 30_000_000_000L) throw new IOException("no record for 30 s, after " + read);
      }
    }
    return read;
  }
}
