import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executors;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.common.KafkaFuture;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Apache Kafka's Java client with its default settings. Usage: Compat HOST:PORT [part of a check's name]
 * One line per check, as compat/suite.ts has it; exit code 1 when a check failed.
 */
final class Compat {
  interface Body {
    void run() throws Exception;
  }

  record Check(String name, Body body) {}

  static String bootstrap;
  static Admin admin;
  private static final String RUN = Long.toString(System.currentTimeMillis(), 36);
  private static int names = 0;

  public static void main(String[] args) {
    bootstrap = args[0];
    String only = args.length > 1 ? args[1] : "";
    List<Check> checks = new ArrayList<>();
    checks.addAll(Records.checks());
    checks.addAll(Topics.checks());
    checks.addAll(Groups.checks());
    checks.addAll(GroupAdmin.checks());
    checks.addAll(Tools.checks());
    checks.removeIf(check -> !check.name().contains(only));
    System.out.println("1.." + checks.size());
    admin = Admin.create(Map.of("bootstrap.servers", bootstrap));
    int failures = 0;
    for (Check check : checks) if (!passes(check)) failures++;
    System.exit(failures > 0 ? 1 : 0);
  }

  private static boolean passes(Check check) {
    long startedAt = System.nanoTime();
    ExecutorService runner = Executors.newSingleThreadExecutor(task -> {
      Thread thread = new Thread(task);
      thread.setDaemon(true);
      return thread;
    });
    try {
      runner.submit(() -> {
        check.body().run();
        return null;
      }).get(60, TimeUnit.SECONDS);
      System.out.println("ok " + check.name());
      return true;
    } catch (TimeoutException late) {
      System.out.println("not ok " + check.name() + ": no result after 60 s");
      return false;
    } catch (Exception failure) {
      Throwable cause = failure instanceof ExecutionException ? failure.getCause() : failure;
      System.out.println("not ok " + check.name() + ": " + String.valueOf(cause).replaceAll("\\s+", " "));
      if (System.getenv("COMPAT_TIMES") != null) cause.printStackTrace();
      return false;
    } finally {
      runner.shutdownNow();
      if (System.getenv("COMPAT_TIMES") != null) {
        System.err.println("# " + check.name() + " " + (System.nanoTime() - startedAt) / 1_000_000 + " ms");
      }
    }
  }

  /** A topic or group name that no earlier run against the same broker has used. */
  static synchronized String unique(String word) {
    return "compat-java-" + word + "-" + RUN + "-" + ++names;
  }

  static String newTopic(String word, int partitions) throws Exception {
    return create(new NewTopic(unique(word), partitions, (short) 1));
  }

  /** Kafka's controller answers before its brokers have heard of the topic: this waits for them too. */
  static String create(NewTopic topic) throws Exception {
    get(admin.createTopics(List.of(topic)).all());
    until("the topic is known", () -> get(admin.listTopics().names()).contains(topic.name()));
    return topic.name();
  }

  static <T> T get(KafkaFuture<T> future) throws Exception {
    try {
      return future.get(30, TimeUnit.SECONDS);
    } catch (ExecutionException failure) {
      throw failure.getCause() instanceof Exception cause ? cause : failure;
    }
  }

  static Map<String, Object> settings(Object... pairs) {
    Map<String, Object> all = new HashMap<>(Map.of("bootstrap.servers", bootstrap));
    for (int i = 0; i < pairs.length; i += 2) all.put((String) pairs[i], pairs[i + 1]);
    return all;
  }

  static KafkaProducer<String, String> producer(Object... pairs) {
    return new KafkaProducer<>(settings(pairs), new StringSerializer(), new StringSerializer());
  }

  static KafkaProducer<byte[], byte[]> bytesProducer(Object... pairs) {
    return new KafkaProducer<>(settings(pairs), new ByteArraySerializer(), new ByteArraySerializer());
  }

  static KafkaConsumer<String, String> consumer(Object... pairs) {
    return new KafkaConsumer<>(settings(pairs), new StringDeserializer(), new StringDeserializer());
  }

  static KafkaConsumer<byte[], byte[]> bytesConsumer(Object... pairs) {
    return new KafkaConsumer<>(settings(pairs), new ByteArrayDeserializer(), new ByteArrayDeserializer());
  }

  static void same(Object expected, Object actual) {
    if (Objects.deepEquals(expected, actual)) return;
    throw new AssertionError("expected " + brief(expected) + ", not " + brief(actual));
  }

  static void holds(boolean condition, String what) {
    if (!condition) throw new AssertionError(what);
  }

  static void fails(Class<? extends Exception> expected, Body body) {
    try {
      body.run();
    } catch (Exception failure) {
      Throwable cause = failure instanceof ExecutionException ? failure.getCause() : failure;
      if (expected.isInstance(cause)) return;
      throw new AssertionError("expected " + expected.getSimpleName() + ", not " + cause);
    }
    throw new AssertionError("expected " + expected.getSimpleName() + ", not success");
  }

  interface Condition {
    boolean holds() throws Exception;
  }

  /** Polls a condition the client offers no event for. */
  static void until(String what, Condition condition) throws Exception {
    long deadline = System.nanoTime() + TimeUnit.SECONDS.toNanos(30);
    while (!condition.holds()) {
      if (System.nanoTime() > deadline) throw new AssertionError("waited 30 s for: " + what);
      Thread.sleep(20);
    }
  }

  private static String brief(Object value) {
    if (value instanceof byte[] bytes) return Arrays.toString(bytes);
    String text = value instanceof Collection<?> many ? many.size() + " of " + many : String.valueOf(value);
    return text.length() > 300 ? text.substring(0, 300) + "…" : text;
  }
}
