// franz-go and kadm against one broker. Usage: franz-go HOST:PORT [part of a check's name]
// Output as compat/suite.ts has it; exit code 1 when a check failed.
// "franz-go member HOST:PORT GROUP TOPIC" is a group member that lives until it is killed.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

type check struct {
	name string
	run  func(ctx context.Context)
}

type failure struct{ text string }

var (
	bootstrap string
	admin     *kadm.Client
	names     int
	runID     = fmt.Sprintf("%x", time.Now().UnixMilli())
)

func main() {
	if len(os.Args) == 5 && os.Args[1] == "member" {
		bootstrap = os.Args[2]
		liveAsMember(os.Args[3], os.Args[4])
	}
	bootstrap = os.Args[1]
	only := ""
	if len(os.Args) > 2 {
		only = os.Args[2]
	}
	admin = kadm.NewClient(client())
	var chosen []check
	for _, one := range append(append(recordChecks(), adminChecks()...), groupChecks()...) {
		if strings.Contains(one.name, only) {
			chosen = append(chosen, one)
		}
	}
	fmt.Printf("1..%d\n", len(chosen))
	failures := 0
	for _, one := range chosen {
		startedAt := time.Now()
		if reason := outcome(one); reason == "" {
			fmt.Printf("ok %s\n", one.name)
		} else {
			failures++
			fmt.Printf("not ok %s: %s\n", one.name, strings.Join(strings.Fields(reason), " "))
		}
		if os.Getenv("COMPAT_TIMES") != "" {
			fmt.Fprintf(os.Stderr, "# %s %d ms\n", one.name, time.Since(startedAt).Milliseconds())
		}
	}
	if failures > 0 {
		os.Exit(1)
	}
}

// outcome runs the check and says why it failed, if it did.
func outcome(one check) string {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	done := make(chan string, 1)
	go func() {
		defer func() {
			reason := ""
			switch problem := recover().(type) {
			case nil:
			case failure:
				reason = problem.text
			default:
				reason = fmt.Sprint("panic: ", problem)
			}
			done <- reason
		}()
		one.run(ctx)
	}()
	select {
	case reason := <-done:
		return reason
	case <-time.After(65 * time.Second):
		return "no result after 65 s"
	}
}

func fail(format string, args ...any) { panic(failure{fmt.Sprintf(format, args...)}) }

func must(err error) {
	if err != nil {
		fail("%v", err)
	}
}

func value[T any](result T, err error) T {
	must(err)
	return result
}

func same(expected, actual any) {
	if !reflect.DeepEqual(expected, actual) {
		fail("expected %.300q, not %.300q", fmt.Sprint(expected), fmt.Sprint(actual))
	}
}

func holds(condition bool, what string) {
	if !condition {
		fail("%s", what)
	}
}

func failsWith(expected, actual error) {
	if !errors.Is(actual, expected) {
		fail("expected %v, not %v", expected, actual)
	}
}

// until polls a condition that the library has no event for.
func until(what string, condition func() bool) {
	deadline := time.Now().Add(30 * time.Second)
	for !condition() {
		if time.Now().After(deadline) {
			fail("waited 30 s for: %s", what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func client(options ...kgo.Opt) *kgo.Client {
	common := []kgo.Opt{kgo.SeedBrokers(bootstrap), kgo.FetchMaxWait(200 * time.Millisecond), kgo.MetadataMinAge(10 * time.Millisecond)}
	return value(kgo.NewClient(append(common, options...)...))
}

// unique is a topic or group name that no earlier run against the same broker has used.
func unique(word string) string {
	names++
	return fmt.Sprintf("compat-franz-%s-%s-%d", word, runID, names)
}

func newTopic(ctx context.Context, word string, partitions int32) string {
	topic := unique(word)
	must(value(admin.CreateTopic(ctx, partitions, 1, nil, topic)).Err)
	// Kafka's controller answers before its brokers have heard of the topic.
	until("the topic is known", func() bool { return value(admin.ListTopics(ctx)).Has(topic) })
	return topic
}
