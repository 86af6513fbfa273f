package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

func groupChecks() []check {
	balancers := map[string]kgo.GroupBalancer{
		"range": kgo.RangeBalancer(), "round robin": kgo.RoundRobinBalancer(), "sticky": kgo.StickyBalancer(),
		"cooperative sticky": kgo.CooperativeStickyBalancer(),
	}
	var checks []check
	for _, name := range []string{"range", "round robin", "sticky", "cooperative sticky"} {
		checks = append(checks, check{"group: members join and leave, " + name, func(ctx context.Context) {
			share(ctx, kgo.Balancers(balancers[name]))
		}})
	}
	return append(checks,
		check{"group: the partitions of a killed member go to the others", killed},
		check{"group: a static member returns to its partitions", staticMember},
		check{"group: commit and resume", commit},
		check{"group admin: described, listed, lag, offsets altered and deleted", groupAdmin},
	)
}

// member is a group consumer polled by a goroutine of its own.
type member struct {
	client   *kgo.Client
	mutex    sync.Mutex
	values   []string
	assigned []int32
	commits  bool
	done     chan struct{}
}

func join(group, topic string, options ...kgo.Opt) *member {
	return joinCommitting(true, group, topic, options...)
}

func joinCommitting(commits bool, group, topic string, options ...kgo.Opt) *member {
	one := &member{commits: commits, done: make(chan struct{})}
	changed := func(change func(old, changed []int32) []int32) func(context.Context, *kgo.Client, map[string][]int32) {
		return func(_ context.Context, _ *kgo.Client, partitions map[string][]int32) {
			one.mutex.Lock()
			defer one.mutex.Unlock()
			one.assigned = change(one.assigned, partitions[topic])
			slices.Sort(one.assigned)
		}
	}
	added := changed(func(old, more []int32) []int32 { return append(old, more...) })
	removed := changed(func(old, less []int32) []int32 {
		return slices.DeleteFunc(old, func(partition int32) bool { return slices.Contains(less, partition) })
	})
	common := []kgo.Opt{
		kgo.ConsumerGroup(group), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.SessionTimeout(6 * time.Second), kgo.HeartbeatInterval(300 * time.Millisecond),
		kgo.OnPartitionsAssigned(added),
		kgo.OnPartitionsRevoked(func(ctx context.Context, client *kgo.Client, partitions map[string][]int32) {
			// What was polled is processed: commit it before the others read on.
			if one.commits {
				_ = client.CommitUncommittedOffsets(ctx)
			}
			removed(ctx, client, partitions)
		}),
		kgo.OnPartitionsLost(removed), kgo.BlockRebalanceOnPoll(),
	}
	one.client = client(append(common, options...)...)
	go one.poll()
	return one
}

func (m *member) poll() {
	defer close(m.done)
	for {
		fetches := m.client.PollFetches(context.Background())
		if fetches.IsClientClosed() {
			return
		}
		m.mutex.Lock()
		for _, record := range fetches.Records() {
			m.values = append(m.values, string(record.Value))
		}
		m.mutex.Unlock()
		m.client.AllowRebalance()
	}
}

func (m *member) partitions() []int32 {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return slices.Clone(m.assigned)
}

func (m *member) read() []string {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	return slices.Clone(m.values)
}

// leave commits what was read and leaves; a static member only goes away.
func (m *member) leave() {
	m.client.CloseAllowingRebalance()
	<-m.done
}

// spread sends values named by the word over the partitions and adds them to those sent.
func spread(ctx context.Context, topic string, partitions int, word string, sent []string) []string {
	var records []*kgo.Record
	for i := range 40 {
		text := fmt.Sprintf("%s %d", word, i)
		sent = append(sent, text)
		records = append(records, &kgo.Record{Topic: topic, Partition: int32(i % partitions), Value: []byte(text)})
	}
	must(sendRecords(ctx, records))
	return sent
}

// received waits until the members together have each value, and asserts that no value came twice.
func received(expected []string, members ...*member) {
	var found []string
	until(fmt.Sprintf("%d records", len(expected)), func() bool {
		found = nil
		for _, one := range members {
			found = append(found, one.read()...)
		}
		return len(found) >= len(expected)
	})
	slices.Sort(found)
	same(slices.Sorted(slices.Values(expected)), found)
}

func share(ctx context.Context, balancer kgo.Opt) {
	topic := newTopic(ctx, "share", 4)
	group := unique("share")
	first := join(group, topic, balancer)
	until("all partitions", func() bool { return len(first.partitions()) == 4 })
	sent := spread(ctx, topic, 4, "alone", nil)
	received(sent, first)
	second := join(group, topic, balancer)
	until("two partitions each", func() bool { return len(first.partitions()) == 2 && len(second.partitions()) == 2 })
	sent = spread(ctx, topic, 4, "together", sent)
	received(sent, first, second)
	holds(len(second.read()) > 0, "the second member reads too")
	second.leave()
	until("all partitions again", func() bool { return len(first.partitions()) == 4 })
	sent = spread(ctx, topic, 4, "after", sent)
	received(sent, first, second)
	first.leave()
}

func liveAsMember(group, topic string) {
	one := join(group, topic)
	until("an assignment", func() bool { return len(one.partitions()) > 0 })
	fmt.Println("joined")
	select {}
}

func killed(ctx context.Context) {
	topic := newTopic(ctx, "killed", 4)
	group := unique("killed")
	child := exec.Command(os.Args[0], "member", bootstrap, group, topic)
	output := value(child.StdoutPipe())
	must(child.Start())
	value(output.Read(make([]byte, 16)))
	survivor := join(group, topic)
	until("two partitions", func() bool { return len(survivor.partitions()) == 2 })
	must(child.Process.Kill())
	_ = child.Wait()
	sent := spread(ctx, topic, 4, "orphaned", nil)
	until("all partitions", func() bool { return len(survivor.partitions()) == 4 })
	received(sent, survivor)
	survivor.leave()
}

func staticMember(ctx context.Context) {
	topic := newTopic(ctx, "static", 4)
	group := unique("static")
	// Long enough for one to be away on a machine that does much else.
	patient := kgo.SessionTimeout(45 * time.Second)
	first := join(group, topic, kgo.InstanceID("first"), patient)
	second := join(group, topic, kgo.InstanceID("second"), patient)
	until("two partitions each", func() bool { return len(first.partitions()) == 2 && len(second.partitions()) == 2 })
	before := second.partitions()
	_, generation := first.client.GroupMetadata()
	second.leave()
	again := join(group, topic, kgo.InstanceID("second"), patient)
	until("the same partitions", func() bool { return slices.Equal(again.partitions(), before) })
	sent := spread(ctx, topic, 4, "static", nil)
	received(sent, first, again)
	_, after := first.client.GroupMetadata()
	same(generation, after)
	left := value(admin.LeaveGroup(ctx, kadm.LeaveGroup(group).InstanceIDs("second").Reason("the check is over")))
	must(left["second"].Err)
	until("all partitions", func() bool { return len(first.partitions()) == 4 })
	again.leave()
	first.leave()
}

func commit(ctx context.Context) {
	topic := newTopic(ctx, "commit", 1)
	group := unique("commit")
	sent := numbered("commit", 20)
	send(ctx, topic, sent)
	epoch := value(admin.ListTopics(ctx, topic))[topic].Partitions[0].LeaderEpoch
	for _, step := range [][2]int{{0, 12}, {12, 20}} {
		one := joinCommitting(false, group, topic, kgo.DisableAutoCommit())
		received(sent[step[0]:], one)
		record := &kgo.Record{Topic: topic, Partition: 0, Offset: int64(step[1] - 1), LeaderEpoch: epoch}
		must(one.client.CommitRecords(ctx, record))
		found, _ := value(admin.FetchOffsets(ctx, group)).Lookup(topic, 0)
		same(int64(step[1]), found.At)
		one.leave()
	}
}

func groupAdmin(ctx context.Context) {
	topic := newTopic(ctx, "described", 2)
	group := unique("described")
	send(ctx, topic, numbered("described", 10))
	one := join(group, topic, kgo.ClientID("compat-client"), kgo.Balancers(kgo.RangeBalancer()))
	until("all partitions", func() bool { return len(one.partitions()) == 2 })
	described := value(admin.DescribeGroups(ctx, group))[group]
	must(described.Err)
	same([]string{"Stable", "range", "consumer"}, []string{described.State, described.Protocol, described.ProtocolType})
	same([]string{"compat-client", "/127.0.0.1"}, []string{described.Members[0].ClientID, described.Members[0].ClientHost})
	same([]int32{0, 1}, described.AssignedPartitions().Sorted()[0].Partitions)
	_, stable := value(admin.ListGroups(ctx, "Stable"))[group]
	holds(stable, "listed as stable")
	busy, _ := admin.DeleteGroup(ctx, group)
	failsWith(kerr.NonEmptyGroup, busy.Err)
	until("all is read", func() bool { return len(one.read()) == 10 })
	one.leave()
	var wanted kadm.Offsets
	wanted.AddOffset(topic, 0, 7, -1)
	wanted.AddOffset(topic, 1, 0, -1)
	must(admin.CommitAllOffsets(ctx, group, wanted))
	lag := value(admin.Lag(ctx, group))[group]
	same(int64(3), lag.Lag.Total())
	same("Empty", lag.State)
	var unwanted kadm.TopicsSet
	unwanted.Add(topic, 0)
	must(value(admin.DeleteOffsets(ctx, group, unwanted)).Error())
	left := value(admin.FetchOffsets(ctx, group))
	_, first := left.Lookup(topic, 0)
	_, second := left.Lookup(topic, 1)
	same([]bool{false, true}, []bool{first, second})
	must(value(admin.DeleteGroup(ctx, group)).Err)
	gone, _ := admin.DeleteGroup(ctx, group)
	failsWith(kerr.GroupIDNotFound, gone.Err)
}
