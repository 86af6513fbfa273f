import io.debezium.engine.ChangeEvent;
import io.debezium.engine.DebeziumEngine;
import io.debezium.engine.format.JsonByteArray;
import io.debezium.engine.format.KeyValueHeaderChangeEventFormat;
import java.io.IOException;
import java.io.Reader;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicReference;

/**
 * Debezium's embedded engine: DebeziumRunner PROPERTIES-FILE --to file:PATH | kafka:HOST:PORT
 *
 * The file holds the engine's and the connector's properties, as Debezium documents them. Offsets are in memory unless
 * offset.storage.file.filename is there. Of Kafka's producer, properties begin with "producer."; "batches.in.flight" (8)
 * is how many of the engine's batches may wait for their acknowledgement. Prints "started" when the connector has
 * started; SIGTERM ends it, after what it has read is written. Ends with 1 when the engine breaks.
 */
final class DebeziumRunner {
  /** Where events go; the engine's thread alone calls it. */
  interface Target extends DebeziumEngine.ChangeConsumer<ChangeEvent<byte[], byte[]>> {
    /** Everything given is there when it returns. */
    void close() throws Exception;
  }

  public static void main(String[] args) throws Exception {
    if (args.length != 3 || !args[1].equals("--to")) {
      throw new IllegalArgumentException("usage: DebeziumRunner PROPERTIES-FILE --to file:PATH | kafka:HOST:PORT");
    }
    Properties properties = read(Path.of(args[0]));
    Target target = open(args[2], properties);
    AtomicReference<Throwable> broken = new AtomicReference<>();
    CountDownLatch ended = new CountDownLatch(1);
    DebeziumEngine<ChangeEvent<byte[], byte[]>> engine =
        DebeziumEngine.create(
                KeyValueHeaderChangeEventFormat.of(JsonByteArray.class, JsonByteArray.class, JsonByteArray.class))
            .using(properties)
            .notifying(target)
            .using(
                new DebeziumEngine.ConnectorCallback() {
                  @Override
                  public void taskStarted() {
                    System.out.println("started");
                  }
                })
            .using(
                (success, message, error) -> {
                  if (!success) broken.set(error != null ? error : new IllegalStateException(message));
                  ended.countDown();
                })
            .build();
    Thread closing =
        new Thread(
            () -> {
              try {
                if (ended.getCount() > 0) engine.close();
                ended.await(30, TimeUnit.SECONDS);
                target.close();
              } catch (Exception error) {
                error.printStackTrace();
              }
            });
    Runtime.getRuntime().addShutdownHook(closing);
    ExecutorService executor = Executors.newSingleThreadExecutor();
    executor.execute(engine);
    ended.await();
    executor.shutdown();
    Throwable error = broken.get();
    if (error == null) return;
    error.printStackTrace();
    target.close();
    Runtime.getRuntime().halt(1);
  }

  private static Properties read(Path path) throws IOException {
    Properties properties = new Properties();
    properties.setProperty("name", "debezium");
    properties.setProperty("connector.class", "io.debezium.connector.postgresql.PostgresConnector");
    properties.setProperty("plugin.name", "pgoutput");
    properties.setProperty("offset.flush.interval.ms", "1000");
    try (Reader reader = Files.newBufferedReader(path)) {
      properties.load(reader);
    }
    boolean kept = properties.containsKey("offset.storage.file.filename");
    String storage = kept ? "FileOffsetBackingStore" : "MemoryOffsetBackingStore";
    properties.putIfAbsent("offset.storage", "org.apache.kafka.connect.storage." + storage);
    return properties;
  }

  private static Target open(String to, Properties properties) throws IOException {
    if (to.startsWith("file:")) return new FileTarget(Path.of(to.substring("file:".length())));
    if (to.startsWith("kafka:")) return new KafkaTarget(to.substring("kafka:".length()), properties);
    throw new IllegalArgumentException("--to is file:PATH or kafka:HOST:PORT, not " + to);
  }

  private DebeziumRunner() {}
}
