-- Topics of remote clusters that sinks read (src/source/kafka-source.ts). Their numbers stand beside those of kafka.topics,
-- in kafka.sink_dead_letters for one: below zero, and never given again.

CREATE TABLE kafka.remote_topics (
  remote_topic_id int GENERATED ALWAYS AS IDENTITY (INCREMENT -1 START -1 MINVALUE -2147483648 MAXVALUE -1) PRIMARY KEY,
  cluster_id      text NOT NULL,
  topic_uuid      uuid NOT NULL,
  name            text NOT NULL,
  UNIQUE (cluster_id, topic_uuid)
);
