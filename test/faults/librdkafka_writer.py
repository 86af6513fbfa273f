"""An idempotent librdkafka producer for the crash loop: librdkafka_writer.py HOST:PORT TOPIC PARTITIONS NAME.

Writes records NAME:0, NAME:1 … to random partitions until standard input ends, then waits for what is under way.
Each acknowledgement is a line: PARTITION OFFSET ID.
"""
import os
import random
import sys
import threading

from confluent_kafka import Producer

bootstrap, topic, partitions, name = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
stopping = threading.Event()


def watch_input():
    sys.stdin.read()
    stopping.set()


def acknowledged(error, message):
    if error is not None:
        print(f"failed: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    sys.stdout.write(f"{message.partition()} {message.offset()} {message.value().decode()}\n")
    sys.stdout.flush()


threading.Thread(target=watch_input, daemon=True).start()
producer = Producer({
    "bootstrap.servers": bootstrap,
    "enable.idempotence": True,
    "message.timeout.ms": 0,  # for ever: only an acknowledgement ends the attempts
    "reconnect.backoff.max.ms": 200,
    "retry.backoff.ms": 20,
    "linger.ms": 1,
    "log_level": 0,
})
number = 0
while not stopping.is_set():
    while len(producer) < 200 and not stopping.is_set():
        producer.produce(topic, f"{name}:{number}", partition=random.randrange(partitions), on_delivery=acknowledged)
        number += 1
    producer.poll(0.005)
producer.flush()
