import java.io.File;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.TimeUnit;

/** Kafka's own command line tools, each in a JVM of its own, as their scripts run them. */
final class Tools {
  static List<Compat.Check> checks() {
    return List.of(
        new Compat.Check("kafka-topics", Tools::topics),
        new Compat.Check("kafka-configs", Tools::configs),
        new Compat.Check("kafka-console-producer, -consumer and -consumer-groups", Tools::console),
        new Compat.Check("kafka-get-offsets, kafka-delete-records and kafka-log-dirs", Tools::offsets),
        new Compat.Check("kafka-broker-api-versions", Tools::apiVersions));
  }

  private static String tool(String className, String... arguments) throws Exception {
    return toolReading("", className, arguments);
  }

  private static String toolReading(String input, String className, String... arguments) throws Exception {
    List<String> command = new ArrayList<>(List.of(System.getProperty("java.home") + "/bin/java", "-XX:TieredStopAtLevel=1",
        "-XX:+UseSerialGC", "-cp", System.getProperty("java.class.path"),
        "-Dlog4j2.configurationFile=" + System.getProperty("log4j2.configurationFile")));
    command.addAll(List.of(className, "--bootstrap-server", Compat.bootstrap));
    command.addAll(List.of(arguments));
    File output = File.createTempFile("compat-tool", ".txt");
    try {
      Process process = new ProcessBuilder(command).redirectErrorStream(true).redirectOutput(output).start();
      try (var stdin = process.getOutputStream()) {
        stdin.write(input.getBytes(StandardCharsets.UTF_8));
      }
      boolean ended = process.waitFor(50, TimeUnit.SECONDS);
      if (!ended) process.destroyForcibly();
      String text = Files.readString(output.toPath());
      if (!ended || process.exitValue() != 0) throw new AssertionError(className + " failed: " + text);
      return text;
    } finally {
      output.delete();
    }
  }

  private static void says(String expected, String text) {
    Compat.holds(text.contains(expected), "«" + expected + "» in: " + text);
  }

  private static void topics() throws Exception {
    String command = "org.apache.kafka.tools.TopicCommand";
    String topic = Compat.unique("tool");
    says("Created topic " + topic, tool(command, "--create", "--topic", topic, "--partitions", "3", "--config", "retention.ms=3600000"));
    Compat.holds(tool(command, "--list").lines().anyMatch(topic::equals), "listed");
    tool(command, "--alter", "--topic", topic, "--partitions", "4");
    String described = tool(command, "--describe", "--topic", topic);
    says("PartitionCount: 4", described);
    says("ReplicationFactor: 1", described);
    says("retention.ms=3600000", described);
    says("Partition: 3", described);
    Compat.same("", tool(command, "--describe", "--unavailable-partitions").strip());
    tool(command, "--delete", "--topic", topic);
    Compat.until("the topic is gone", () -> !Compat.get(Compat.admin.listTopics().names()).contains(topic));
  }

  private static void configs() throws Exception {
    String command = "kafka.admin.ConfigCommand";
    String topic = Compat.newTopic("tool", 1);
    String[] entity = {"--entity-type", "topics", "--entity-name", topic};
    tool(command, with(entity, "--alter", "--add-config", "max.message.bytes=100000,retention.ms=5000000"));
    String described = tool(command, with(entity, "--describe"));
    says("max.message.bytes=100000", described);
    says("retention.ms=5000000", described);
    tool(command, with(entity, "--alter", "--delete-config", "retention.ms"));
    Compat.holds(!tool(command, with(entity, "--describe")).contains("retention.ms=5000000"), "no longer set");
    says("retention.ms=", tool(command, with(entity, "--describe", "--all")));
  }

  private static String[] with(String[] first, String... second) {
    List<String> all = new ArrayList<>(List.of(first));
    all.addAll(List.of(second));
    return all.toArray(new String[0]);
  }

  private static void console() throws Exception {
    String topic = Compat.newTopic("tool", 1);
    String group = Compat.unique("tool");
    toolReading("h1:v1,h1:v2\ta:1\nh2:v\tb:2\n", "org.apache.kafka.tools.ConsoleProducer", "--topic", topic,
        "--reader-property", "parse.key=true", "--reader-property", "key.separator=:", "--reader-property", "parse.headers=true");
    String read = tool("org.apache.kafka.tools.consumer.ConsoleConsumer", "--topic", topic, "--group", group, "--from-beginning",
        "--max-messages", "2", "--formatter-property", "print.key=true", "--formatter-property", "print.headers=true",
        "--formatter-property", "print.offset=true");
    says("Offset:0\th1:v1,h1:v2\ta\t1\n", read);
    says("Offset:1\th2:v\tb\t2\n", read);
    String command = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
    Compat.holds(tool(command, "--list").lines().anyMatch(group::equals), "listed");
    String lag = tool(command, "--describe", "--group", group);
    Compat.holds(lag.lines().anyMatch(line -> line.matches(group + "\\s+" + topic + "\\s+0\\s+2\\s+2\\s+0\\s+-.*")), lag);
    says("Empty", tool(command, "--describe", "--group", group, "--state"));
    tool(command, "--reset-offsets", "--group", group, "--topic", topic, "--to-offset", "1", "--execute");
    lag = tool(command, "--describe", "--group", group, "--offsets");
    Compat.holds(lag.lines().anyMatch(line -> line.matches(group + "\\s+" + topic + "\\s+0\\s+1\\s+2\\s+1\\s+-.*")), lag);
    says("was successful", tool(command, "--delete", "--group", group));
  }

  private static void offsets() throws Exception {
    String topic = Compat.newTopic("tool", 2);
    Records.send(topic, Records.numbered("tool", 10));
    String shell = "org.apache.kafka.tools.GetOffsetShell";
    Compat.same(Set.of(topic + ":0:10", topic + ":1:0"), lines(tool(shell, "--topic", topic)));
    Path file = Files.createTempFile("compat-records", ".json");
    String request = "{\"version\":1,\"partitions\":[{\"topic\":\"" + topic + "\",\"partition\":0,\"offset\":4}]}";
    Files.writeString(file, request);
    says("low_watermark: 4", tool("org.apache.kafka.tools.DeleteRecordsCommand", "--offset-json-file", file.toString()));
    Files.delete(file);
    Compat.same(Set.of(topic + ":0:4", topic + ":1:0"), lines(tool(shell, "--topic", topic, "--time", "earliest")));
    String latest = tool(shell, "--topic-partitions", topic + ":0", "--time", "max-timestamp").strip();
    // Kafka answers from its time index, which may name an offset that DeleteRecords has taken.
    Compat.holds(latest.matches(topic + ":0:[0-9]"), latest);
    says("\"partition\":\"" + topic + "-0\"", tool("org.apache.kafka.tools.LogDirsCommand", "--describe", "--topic-list", topic));
  }

  private static Set<String> lines(String text) {
    return new TreeSet<>(text.lines().toList());
  }

  private static void apiVersions() throws Exception {
    String text = tool("org.apache.kafka.tools.BrokerApiVersionsCommand");
    says(Compat.bootstrap, text);
    for (String api : List.of("Produce(0)", "Fetch(1)", "Metadata(3)", "ApiVersions(18)")) says(api, text);
  }
}
