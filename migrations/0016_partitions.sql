-- The partitions that each partitioned table of a capture had when they were last looked at (src/capture/partitions.ts):
-- one that is attached later may bring rows that no change tells of. Rows go with their capture.
CREATE TABLE kafka.capture_partitions (
  capture_id  int NOT NULL REFERENCES kafka.captures ON DELETE CASCADE,
  relation_id oid NOT NULL,
  leaves      oid[] NOT NULL,
  PRIMARY KEY (capture_id, relation_id)
);
