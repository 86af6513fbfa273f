-- What a capture has read from: the cluster, and the timeline of it. A standby that takes over begins another timeline, and
-- may lack what had been captured already. Null: not known yet.
ALTER TABLE kafka.captures
  ADD COLUMN source_system   text,
  ADD COLUMN source_timeline bigint;
