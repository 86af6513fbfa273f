#!/bin/sh
# Makes test/fixtures/messages and test/fixtures/record-batches.json with Kafka's Java classes (Java 17, Maven).
# Kafka 4.3.1 knows the newest versions; what it no longer knows comes from 3.9.1. The output is always the same.
set -eu
cd "$(dirname "$0")"
fixtures=../../test/fixtures
build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
for version in 4.3.1 3.9.1; do
  mvn -q dependency:copy-dependencies -Dkafka.version=$version -DoutputDirectory="$build/$version"
done
rm -rf $fixtures/messages
mkdir -p $fixtures/messages
java -cp "$build/4.3.1/*" MessageFixtures.java $fixtures/messages/kafka-4.3.1.json
java -cp "$build/3.9.1/*" MessageFixtures.java $fixtures/messages/kafka-3.9.1.json $fixtures/messages/kafka-4.3.1.json
java -cp "$build/4.3.1/*" BatchFixtures.java $fixtures/record-batches.json
