import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.GroupListing;
import org.apache.kafka.clients.admin.ListConsumerGroupOffsetsSpec;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.admin.MemberDescription;
import org.apache.kafka.clients.admin.MemberToRemove;
import org.apache.kafka.clients.admin.RemoveMembersFromConsumerGroupOptions;
import org.apache.kafka.clients.consumer.CloseOptions;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.GroupIdNotFoundException;
import org.apache.kafka.common.errors.GroupNotEmptyException;
import org.apache.kafka.common.errors.GroupSubscribedToTopicException;
import org.apache.kafka.common.errors.UnknownMemberIdException;

/** Consumer groups seen and changed by the Java AdminClient. */
final class GroupAdmin {
  static List<Compat.Check> checks() {
    return List.of(
        new Compat.Check("group admin: described and listed", GroupAdmin::described),
        new Compat.Check("group admin: an unknown group", GroupAdmin::unknown),
        new Compat.Check("group admin: offsets listed, altered, deleted", GroupAdmin::offsets),
        new Compat.Check("group admin: offsets of several groups at once", GroupAdmin::several),
        new Compat.Check("group admin: groups deleted when empty", GroupAdmin::deleted),
        new Compat.Check("group admin: members removed", GroupAdmin::removed));
  }

  private static ConsumerGroupDescription describe(String group) throws Exception {
    return Compat.get(Compat.admin.describeConsumerGroups(List.of(group)).describedGroups().get(group));
  }

  private static Map<TopicPartition, OffsetAndMetadata> committed(String group) throws Exception {
    return Compat.get(Compat.admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata());
  }

  private static void described() throws Exception {
    String topic = Compat.newTopic("described", 2);
    String group = Compat.unique("described");
    Groups.Member member = Groups.join(group, topic, "client.id", "compat-client", "group.instance.id", "instance");
    Compat.until("all partitions", () -> member.assigned.size() == 2);
    ConsumerGroupDescription description = describe(group);
    Compat.same(GroupState.STABLE, description.groupState());
    Compat.same(GroupType.CLASSIC, description.type());
    Compat.same("range", description.partitionAssignor());
    Compat.holds(!description.isSimpleConsumerGroup(), "a subscribing group");
    String coordinator = description.coordinator().host() + ":" + description.coordinator().port();
    Compat.same(Compat.bootstrap, coordinator);
    MemberDescription one = description.members().iterator().next();
    Compat.same("compat-client", one.clientId());
    Compat.same("instance", one.groupInstanceId().orElse(null));
    Compat.same("/127.0.0.1", one.host());
    Compat.same(member.assigned, one.assignment().topicPartitions());
    Collection<GroupListing> listed = Compat.get(Compat.admin.listGroups(ListGroupsOptions.forConsumerGroups()
        .inGroupStates(Set.of(GroupState.STABLE)).withTypes(Set.of(GroupType.CLASSIC))).all());
    GroupListing ours = listed.stream().filter(entry -> entry.groupId().equals(group)).findFirst().orElseThrow();
    Compat.same("consumer", ours.protocol());
    Compat.same(GroupState.STABLE, ours.groupState().orElse(null));
    Compat.same(GroupType.CLASSIC, ours.type().orElse(null));
    listed = Compat.get(Compat.admin.listGroups(new ListGroupsOptions().inGroupStates(Set.of(GroupState.EMPTY))).all());
    Compat.holds(listed.stream().noneMatch(entry -> entry.groupId().equals(group)), "not listed as empty");
    member.close(CloseOptions.GroupMembershipOperation.LEAVE_GROUP);
    Compat.same(GroupState.EMPTY, describe(group).groupState());
    Compat.same(0, describe(group).members().size());
  }

  private static void unknown() throws Exception {
    String group = Compat.unique("unknown");
    Compat.fails(GroupIdNotFoundException.class, () -> describe(group));
    Compat.same(Map.of(), committed(group));
    Compat.fails(GroupIdNotFoundException.class,
        () -> Compat.get(Compat.admin.deleteConsumerGroups(List.of(group)).all()));
    Set<TopicPartition> partitions = Set.of(new TopicPartition("any", 0));
    Compat.fails(GroupIdNotFoundException.class,
        () -> Compat.get(Compat.admin.deleteConsumerGroupOffsets(group, partitions).all()));
  }

  private static void offsets() throws Exception {
    String topic = Compat.newTopic("offsets", 2);
    String group = Compat.unique("offsets");
    TopicPartition first = new TopicPartition(topic, 0);
    TopicPartition second = new TopicPartition(topic, 1);
    List<String> sent = Records.numbered("offsets", 10);
    Records.send(topic, sent);
    Map<TopicPartition, OffsetAndMetadata> wanted = Map.of(first, new OffsetAndMetadata(7), second, new OffsetAndMetadata(0));
    Compat.get(Compat.admin.alterConsumerGroupOffsets(group, wanted).all());
    Compat.same(wanted, committed(group));
    Groups.Member member = Groups.join(group, topic, "enable.auto.commit", false);
    Groups.received(sent.subList(7, 10), member);
    Compat.fails(UnknownMemberIdException.class,
        () -> Compat.get(Compat.admin.alterConsumerGroupOffsets(group, wanted).all()));
    Compat.fails(GroupSubscribedToTopicException.class,
        () -> Compat.get(Compat.admin.deleteConsumerGroupOffsets(group, Set.of(first)).partitionResult(first)));
    member.leave();
    Compat.get(Compat.admin.deleteConsumerGroupOffsets(group, Set.of(first)).all());
    Compat.same(Set.of(second), committed(group).keySet());
  }

  private static void several() throws Exception {
    String topic = Compat.newTopic("several", 1);
    TopicPartition partition = new TopicPartition(topic, 0);
    List<String> groups = List.of(Compat.unique("several"), Compat.unique("several"));
    for (int i = 0; i < 2; i++) {
      Compat.get(Compat.admin.alterConsumerGroupOffsets(groups.get(i), Map.of(partition, new OffsetAndMetadata(i + 3))).all());
    }
    ListConsumerGroupOffsetsSpec spec = new ListConsumerGroupOffsetsSpec().topicPartitions(List.of(partition));
    Map<String, Map<TopicPartition, OffsetAndMetadata>> found =
        Compat.get(Compat.admin.listConsumerGroupOffsets(Map.of(groups.get(0), spec, groups.get(1), spec)).all());
    for (int i = 0; i < 2; i++) Compat.same((long) (i + 3), found.get(groups.get(i)).get(partition).offset());
  }

  private static void deleted() throws Exception {
    String topic = Compat.newTopic("deleted", 1);
    String group = Compat.unique("deleted");
    Groups.Member member = Groups.join(group, topic);
    Compat.until("a partition", () -> member.assigned.size() == 1);
    Compat.fails(GroupNotEmptyException.class,
        () -> Compat.get(Compat.admin.deleteConsumerGroups(List.of(group)).all()));
    member.leave();
    Compat.get(Compat.admin.deleteConsumerGroups(List.of(group)).all());
    Compat.fails(GroupIdNotFoundException.class, () -> describe(group));
  }

  private static void removed() throws Exception {
    String topic = Compat.newTopic("removed", 2);
    String group = Compat.unique("removed");
    Groups.Member first = Groups.join(group, topic, "group.instance.id", "first");
    Groups.Member second = Groups.join(group, topic, "group.instance.id", "second");
    Compat.until("a partition each", () -> first.assigned.size() == 1 && second.assigned.size() == 1);
    second.leave();
    List<MemberToRemove> gone = List.of(new MemberToRemove("second"));
    RemoveMembersFromConsumerGroupOptions options = new RemoveMembersFromConsumerGroupOptions(gone);
    options.reason("it will not come back");
    Compat.admin.removeMembersFromConsumerGroup(group, options).all().get(20, TimeUnit.SECONDS);
    Compat.until("all partitions", () -> first.assigned.size() == 2);
    List<String> instances = new ArrayList<>();
    describe(group).members().forEach(one -> instances.add(one.groupInstanceId().orElse("")));
    Compat.same(List.of("first"), instances);
    first.close(CloseOptions.GroupMembershipOperation.LEAVE_GROUP);
  }
}
