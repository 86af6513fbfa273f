import io.debezium.engine.ChangeEvent;
import io.debezium.engine.DebeziumEngine;
import io.debezium.engine.Header;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/**
 * Kafka's own producer. As in Kafka Connect, the next batch is sent while earlier ones wait for their acknowledgement;
 * only what has been acknowledged counts as processed.
 */
final class KafkaTarget implements DebeziumRunner.Target {
  private record Batch(
      List<ChangeEvent<byte[], byte[]>> events,
      List<Future<RecordMetadata>> sent,
      DebeziumEngine.RecordCommitter<ChangeEvent<byte[], byte[]>> committer) {}

  private final KafkaProducer<byte[], byte[]> producer;
  private final ArrayDeque<Batch> inFlight = new ArrayDeque<>();
  private final int maxInFlight;

  KafkaTarget(String bootstrap, Properties properties) {
    Properties own = new Properties();
    for (String name : properties.stringPropertyNames()) {
      if (name.startsWith("producer.")) own.setProperty(name.substring("producer.".length()), properties.getProperty(name));
    }
    own.setProperty("bootstrap.servers", bootstrap);
    ByteArraySerializer serializer = new ByteArraySerializer();
    producer = new KafkaProducer<>(own, serializer, serializer);
    maxInFlight = Integer.parseInt(properties.getProperty("batches.in.flight", "8"));
  }

  @Override
  public synchronized void handleBatch(
      List<ChangeEvent<byte[], byte[]>> events,
      DebeziumEngine.RecordCommitter<ChangeEvent<byte[], byte[]>> committer)
      throws InterruptedException {
    List<Future<RecordMetadata>> sent = new ArrayList<>(events.size());
    for (ChangeEvent<byte[], byte[]> event : events) {
      ProducerRecord<byte[], byte[]> record =
          new ProducerRecord<>(event.destination(), event.partition(), event.key(), event.value());
      for (Header<byte[]> header : event.<byte[]>headers()) record.headers().add(header.getKey(), header.getValue());
      sent.add(producer.send(record));
    }
    inFlight.add(new Batch(events, sent, committer));
    while (inFlight.size() >= maxInFlight) finish(inFlight.remove());
    while (!inFlight.isEmpty() && isAcknowledged(inFlight.peek())) finish(inFlight.remove());
  }

  private static boolean isAcknowledged(Batch batch) {
    for (Future<RecordMetadata> record : batch.sent) if (!record.isDone()) return false;
    return true;
  }

  private static void finish(Batch batch) throws InterruptedException {
    try {
      for (Future<RecordMetadata> record : batch.sent) record.get();
    } catch (ExecutionException error) {
      throw new IllegalStateException("a record was not acknowledged", error.getCause());
    }
    for (ChangeEvent<byte[], byte[]> event : batch.events) batch.committer.markProcessed(event);
    batch.committer.markBatchFinished();
  }

  @Override
  public synchronized void close() {
    producer.close();
  }
}
