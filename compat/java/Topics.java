import java.util.ArrayList;
import java.util.Collection;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.Config;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.CreateTopicsResult;
import org.apache.kafka.clients.admin.DescribeClusterResult;
import org.apache.kafka.clients.admin.ListOffsetsResult.ListOffsetsResultInfo;
import org.apache.kafka.clients.admin.LogDirDescription;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.Node;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.InvalidReplicationFactorException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.OffsetOutOfRangeException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicIdException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;

/** Topics, configs, offsets and the cluster, through the Java AdminClient. */
final class Topics {
  static List<Compat.Check> checks() {
    return List.of(
        new Compat.Check("admin: topics created, described, listed, deleted", Topics::lifecycle),
        new Compat.Check("admin: topics described and deleted by id", Topics::byId),
        new Compat.Check("admin: createTopics validated only, and invalid ones refused", Topics::refused),
        new Compat.Check("admin: partitions added, never removed", Topics::partitions),
        new Compat.Check("admin: configs described, altered step by step, refused", Topics::configs),
        new Compat.Check("admin: broker configs described", Topics::brokerConfigs),
        new Compat.Check("admin: offsets listed: earliest, latest, max timestamp, by timestamp", Topics::offsets),
        new Compat.Check("admin: records deleted before an offset", Topics::deleteRecords),
        new Compat.Check("admin: cluster described", Topics::cluster),
        new Compat.Check("admin: log directories described", Topics::logDirs));
  }

  private static TopicDescription describe(String topic) throws Exception {
    return Compat.get(Compat.admin.describeTopics(List.of(topic)).allTopicNames()).get(topic);
  }

  private static void lifecycle() throws Exception {
    String topic = Compat.unique("life");
    CreateTopicsResult created = Compat.admin.createTopics(List.of(new NewTopic(topic, 5, (short) 1)));
    Compat.same(5, Compat.get(created.numPartitions(topic)));
    Compat.same(1, Compat.get(created.replicationFactor(topic)));
    Compat.until("the topic is known", () -> Compat.get(Compat.admin.listTopics().names()).contains(topic));
    Uuid id = Compat.get(created.topicId(topic));
    Compat.holds(!id.equals(Uuid.ZERO_UUID), "an id");
    Compat.same("delete", Compat.get(created.config(topic)).get("cleanup.policy").value());
    TopicDescription description = describe(topic);
    Compat.same(id, description.topicId());
    Compat.same(5, description.partitions().size());
    Compat.holds(!description.isInternal(), "not internal");
    for (int i = 0; i < 5; i++) {
      Compat.same(i, description.partitions().get(i).partition());
      Compat.same(1, description.partitions().get(i).replicas().size());
      Compat.same(description.partitions().get(i).replicas(), description.partitions().get(i).isr());
      Compat.same(description.partitions().get(i).replicas().get(0), description.partitions().get(i).leader());
    }
    Compat.holds(Compat.get(Compat.admin.listTopics().names()).contains(topic), "listed");
    Compat.fails(TopicExistsException.class,
        () -> Compat.get(Compat.admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1))).all()));
    Compat.get(Compat.admin.deleteTopics(List.of(topic)).all());
    Compat.until("the topic is gone", () -> !Compat.get(Compat.admin.listTopics().names()).contains(topic));
    Compat.fails(UnknownTopicOrPartitionException.class, () -> describe(topic));
    Compat.fails(UnknownTopicOrPartitionException.class,
        () -> Compat.get(Compat.admin.deleteTopics(List.of(topic)).all()));
  }

  private static void byId() throws Exception {
    String topic = Compat.newTopic("id", 2);
    Uuid id = describe(topic).topicId();
    TopicCollection ids = TopicCollection.ofTopicIds(List.of(id));
    Compat.same(topic, Compat.get(Compat.admin.describeTopics(ids).allTopicIds()).get(id).name());
    Compat.get(Compat.admin.deleteTopics(ids).all());
    Compat.until("the topic is gone", () -> !Compat.get(Compat.admin.listTopics().names()).contains(topic));
    Compat.fails(UnknownTopicIdException.class, () -> Compat.get(Compat.admin.deleteTopics(ids).all()));
  }

  private static void refused() throws Exception {
    String topic = Compat.unique("refused");
    CreateTopicsOptions validateOnly = new CreateTopicsOptions().validateOnly(true);
    Compat.get(Compat.admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1)), validateOnly).all());
    Compat.holds(!Compat.get(Compat.admin.listTopics().names()).contains(topic), "not made");
    Compat.fails(InvalidTopicException.class, () -> Compat.create(new NewTopic("no spaces", 1, (short) 1)));
    Compat.fails(InvalidPartitionsException.class, () -> Compat.create(new NewTopic(topic, 0, (short) 1)));
    Compat.fails(InvalidReplicationFactorException.class, () -> Compat.create(new NewTopic(topic, 1, (short) 3)));
    Compat.fails(InvalidConfigurationException.class,
        () -> Compat.create(new NewTopic(topic, 1, (short) 1).configs(Map.of("no.such.config", "1"))));
    Compat.fails(InvalidConfigurationException.class,
        () -> Compat.create(new NewTopic(topic, 1, (short) 1).configs(Map.of("retention.ms", "soon"))));
    Compat.create(new NewTopic(topic, java.util.Optional.empty(), java.util.Optional.empty()));
  }

  private static void partitions() throws Exception {
    String topic = Compat.newTopic("grow", 2);
    Compat.get(Compat.admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(4))).all());
    Compat.until("four partitions", () -> describe(topic).partitions().size() == 4);
    for (int count : new int[] {3, 4}) {
      Compat.fails(InvalidPartitionsException.class,
          () -> Compat.get(Compat.admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(count))).all()));
    }
    String absent = Compat.unique("absent");
    Compat.fails(UnknownTopicOrPartitionException.class,
        () -> Compat.get(Compat.admin.createPartitions(Map.of(absent, NewPartitions.increaseTo(4))).all()));
  }

  private static ConfigEntry entry(ConfigResource resource, String name) throws Exception {
    return Compat.get(Compat.admin.describeConfigs(List.of(resource)).all()).get(resource).get(name);
  }

  private static void alter(ConfigResource resource, String name, String value, AlterConfigOp.OpType type)
      throws Exception {
    Collection<AlterConfigOp> operations = List.of(new AlterConfigOp(new ConfigEntry(name, value), type));
    Compat.get(Compat.admin.incrementalAlterConfigs(Map.of(resource, operations)).all());
  }

  private static void configs() throws Exception {
    String topic = Compat.unique("config");
    Compat.create(new NewTopic(topic, 1, (short) 1).configs(Map.of("retention.ms", "3600000")));
    ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
    Compat.same("3600000", entry(resource, "retention.ms").value());
    Compat.same(ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG, entry(resource, "retention.ms").source());
    Compat.same(ConfigEntry.ConfigType.LONG, entry(resource, "retention.ms").type());
    Compat.holds(entry(resource, "segment.bytes").source() != ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG, "a default");
    alter(resource, "max.message.bytes", "200000", AlterConfigOp.OpType.SET);
    Compat.until("the value set", () -> "200000".equals(entry(resource, "max.message.bytes").value()));
    Compat.same("3600000", entry(resource, "retention.ms").value());
    alter(resource, "retention.ms", null, AlterConfigOp.OpType.DELETE);
    Compat.until("the default again",
        () -> entry(resource, "retention.ms").source() != ConfigEntry.ConfigSource.DYNAMIC_TOPIC_CONFIG);
    alter(resource, "cleanup.policy", "compact", AlterConfigOp.OpType.APPEND);
    Compat.until("the list appended to",
        () -> Set.of(entry(resource, "cleanup.policy").value().split(",")).equals(Set.of("delete", "compact")));
    alter(resource, "cleanup.policy", "compact", AlterConfigOp.OpType.SUBTRACT);
    Compat.until("the list subtracted from", () -> "delete".equals(entry(resource, "cleanup.policy").value()));
    Compat.fails(InvalidConfigurationException.class,
        () -> alter(resource, "retention.ms", "soon", AlterConfigOp.OpType.SET));
    Compat.fails(InvalidConfigurationException.class,
        () -> alter(resource, "no.such.config", "1", AlterConfigOp.OpType.SET));
    ConfigResource absent = new ConfigResource(ConfigResource.Type.TOPIC, Compat.unique("absent"));
    Compat.fails(UnknownTopicOrPartitionException.class, () -> entry(absent, "retention.ms"));
    Compat.fails(UnknownTopicOrPartitionException.class,
        () -> alter(absent, "retention.ms", "1", AlterConfigOp.OpType.SET));
    List<String> large = List.of("x".repeat(300_000));
    Compat.fails(org.apache.kafka.common.errors.RecordTooLargeException.class, () -> Records.send(topic, large));
  }

  private static void brokerConfigs() throws Exception {
    String node = Compat.get(Compat.admin.describeCluster().controller()).idString();
    ConfigResource broker = new ConfigResource(ConfigResource.Type.BROKER, node);
    Config config = Compat.get(Compat.admin.describeConfigs(List.of(broker)).all()).get(broker);
    for (String name : List.of("message.max.bytes", "num.partitions", "auto.create.topics.enable", "log.retention.ms")) {
      Compat.holds(config.get(name) != null, name + " is described");
    }
  }

  private static void offsets() throws Exception {
    String topic = Compat.newTopic("offsets", 1);
    TopicPartition partition = new TopicPartition(topic, 0);
    // What is much older may fall to retention at any time.
    long minuteAgo = System.currentTimeMillis() - 60_000;
    long[] times = {minuteAgo + 1000, minuteAgo + 5000, minuteAgo + 3000};
    try (KafkaProducer<String, String> producer = Compat.producer()) {
      for (long time : times) producer.send(new ProducerRecord<>(topic, 0, time, null, "x")).get();
    }
    List<OffsetSpec> specs = List.of(OffsetSpec.earliest(), OffsetSpec.latest(), OffsetSpec.maxTimestamp(),
        OffsetSpec.forTimestamp(minuteAgo + 2000), OffsetSpec.forTimestamp(minuteAgo), OffsetSpec.forTimestamp(minuteAgo + 5001));
    List<Long> found = new ArrayList<>();
    for (OffsetSpec spec : specs) {
      found.add(Compat.get(Compat.admin.listOffsets(Map.of(partition, spec)).partitionResult(partition)).offset());
    }
    Compat.same(List.of(0L, 3L, 1L, 1L, 0L, -1L), found);
    ListOffsetsResultInfo latest = Compat.get(
        Compat.admin.listOffsets(Map.of(partition, OffsetSpec.maxTimestamp())).partitionResult(partition));
    Compat.same(minuteAgo + 5000, latest.timestamp());
    Compat.holds(latest.leaderEpoch().orElse(-1) >= 0, "a leader epoch");
  }

  private static void deleteRecords() throws Exception {
    String topic = Compat.newTopic("trim", 1);
    TopicPartition partition = new TopicPartition(topic, 0);
    List<String> sent = Records.numbered("trim", 10);
    Records.send(topic, sent);
    Compat.same(6L, deleteBefore(partition, 6));
    Compat.same(6L, deleteBefore(partition, 3));
    Compat.same(sent.subList(6, 10), Records.values(Records.read(topic, 4)));
    Compat.fails(OffsetOutOfRangeException.class, () -> deleteBefore(partition, 11));
    Compat.same(10L, deleteBefore(partition, -1));
    ListOffsetsResultInfo earliest = Compat.get(
        Compat.admin.listOffsets(Map.of(partition, OffsetSpec.earliest())).partitionResult(partition));
    Compat.same(10L, earliest.offset());
  }

  private static long deleteBefore(TopicPartition partition, long offset) throws Exception {
    Map<TopicPartition, RecordsToDelete> request = Map.of(partition, RecordsToDelete.beforeOffset(offset));
    return Compat.get(Compat.admin.deleteRecords(request).lowWatermarks().get(partition)).lowWatermark();
  }

  private static void cluster() throws Exception {
    DescribeClusterResult cluster = Compat.admin.describeCluster();
    Collection<Node> nodes = Compat.get(cluster.nodes());
    Compat.holds(nodes.stream().anyMatch(node -> (node.host() + ":" + node.port()).equals(Compat.bootstrap)), "this broker");
    Compat.holds(new HashSet<>(nodes).contains(Compat.get(cluster.controller())), "the controller is one of them");
    Compat.holds(!Compat.get(cluster.clusterId()).isEmpty(), "a cluster id");
  }

  private static void logDirs() throws Exception {
    String topic = Compat.newTopic("dirs", 1);
    Records.send(topic, List.of("x".repeat(10_000)));
    int node = Compat.get(Compat.admin.describeCluster().controller()).id();
    Map<String, LogDirDescription> found = Compat.get(Compat.admin.describeLogDirs(List.of(node)).allDescriptions()).get(node);
    TopicPartition partition = new TopicPartition(topic, 0);
    LogDirDescription directory = found.values().stream()
        .filter(one -> one.replicaInfos().containsKey(partition)).findFirst().orElseThrow();
    Compat.holds(directory.replicaInfos().get(partition).size() >= 10_000, "the size of the partition");
    Compat.same(null, directory.error());
  }
}
