-- What an operator asks of the database under the log. Every view works for the role that owns schema kafka; a role
-- in pg_monitor sees other roles' statements as well.

-- Bloat and vacuum. All segments are one row: they are only ever inserted into and dropped, so bloat there would be
-- rows of transactions that rolled back. bloat_bytes is an estimate from the statistics of the last ANALYZE (row
-- widths) and the live rows, NULL before the first; pgstattuple measures.
CREATE VIEW kafka.table_health AS
WITH tables AS (
  SELECT s.relid, CASE WHEN s.relname ~ '^segment_\d+$' THEN 'segment_*' ELSE s.relname END AS name,
         s.n_live_tup, s.n_dead_tup, greatest(s.last_vacuum, s.last_autovacuum) AS vacuumed,
         greatest(s.last_analyze, s.last_autoanalyze) AS analyzed, s.autovacuum_count,
         pg_relation_size(s.relid) AS heap_bytes, pg_total_relation_size(s.relid) AS total_bytes,
         age(c.relfrozenxid) AS xid_age,
         coalesce((SELECT option_value::int FROM pg_options_to_table(c.reloptions) WHERE option_name = 'fillfactor'), 100) AS fill,
         -- 23 bytes of tuple header, padded, and 4 of line pointer.
         28 + (SELECT sum(w.avg_width * (1 - w.null_frac)) FROM pg_stats w
               WHERE w.schemaname = s.schemaname AND w.tablename = s.relname) AS row_bytes,
         current_setting('block_size')::int AS page
  FROM pg_stat_user_tables s JOIN pg_class c ON c.oid = s.relid
  WHERE s.schemaname = 'kafka'
)
SELECT name AS "table", count(*) AS tables, sum(n_live_tup)::bigint AS live_rows, sum(n_dead_tup)::bigint AS dead_rows,
       sum(total_bytes)::bigint AS bytes,
       CASE WHEN name <> 'segment_*' AND (min(row_bytes) IS NOT NULL OR sum(n_live_tup) = 0)
         THEN sum(greatest(heap_bytes - page * ceil(n_live_tup * coalesce(row_bytes, 0) / ((page - 24) * fill / 100.0)), 0))::bigint
       END AS bloat_bytes,
       max(vacuumed) AS last_vacuum, sum(autovacuum_count)::bigint AS autovacuums, max(analyzed) AS last_analyze, max(xid_age) AS xid_age
FROM tables
GROUP BY name
ORDER BY bytes DESC;

-- pg_stat_bgwriter up to 16, pg_stat_checkpointer from 17 on: hence dynamic SQL.
CREATE FUNCTION kafka.checkpoints(OUT timed bigint, OUT requested bigint)
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog AS $$
BEGIN
  EXECUTE CASE WHEN current_setting('server_version_num')::int >= 170000
    THEN 'SELECT num_timed, num_requested FROM pg_stat_checkpointer'
    ELSE 'SELECT checkpoints_timed, checkpoints_req FROM pg_stat_bgwriter' END INTO timed, requested;
END $$;

-- WAL: where it is, how fast it was written on average since the statistics were reset, what replication slots hold
-- back from being recycled. Checkpoints requested rather than timed: max_wal_size is too small for the load.
CREATE VIEW kafka.wal_health AS
SELECT here.lsn, w.wal_bytes, (w.wal_bytes / nullif(extract(epoch FROM now() - w.stats_reset), 0))::bigint AS bytes_per_second,
       w.wal_fpi AS full_page_images, w.wal_buffers_full, w.stats_reset, c.timed AS checkpoints_timed,
       c.requested AS checkpoints_requested,
       pg_size_bytes(current_setting('max_wal_size')) AS max_wal_size, current_setting('wal_level') AS wal_level,
       s.slots, s.inactive AS inactive_slots, coalesce(s.retained, 0)::bigint AS retained_by_slots, s.holder AS slot_retaining_most
FROM pg_stat_wal w
CROSS JOIN (SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS lsn) here
CROSS JOIN kafka.checkpoints() c
CROSS JOIN LATERAL (
  SELECT count(*) AS slots, count(*) FILTER (WHERE NOT r.active) AS inactive,
         max(pg_wal_lsn_diff(here.lsn, r.restart_lsn)) AS retained,
         (array_agg(r.slot_name ORDER BY r.restart_lsn) FILTER (WHERE r.restart_lsn IS NOT NULL))[1] AS holder
  FROM pg_replication_slots r) s;

-- Where this database's time goes: pg_stat_statements where the extension is there and loaded, else what is running
-- at this moment.
CREATE FUNCTION kafka.list_slow_queries()
  RETURNS TABLE (source text, query text, calls bigint, total_ms float8, mean_ms float8, max_ms float8, row_count bigint,
                 pid int, running_ms float8, waits_for text, blocked_by int[])
  LANGUAGE plpgsql STABLE SET search_path = pg_catalog AS $$
DECLARE
  extension_schema text;
BEGIN
  SELECT n.nspname INTO extension_schema FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace
    WHERE e.extname = 'pg_stat_statements';
  IF FOUND THEN
    BEGIN
      RETURN QUERY EXECUTE format(
        'SELECT ''pg_stat_statements'', s.query, s.calls, s.total_exec_time, s.mean_exec_time, s.max_exec_time, s.rows,
                NULL::int, NULL::float8, NULL, NULL::int[]
         FROM %I.pg_stat_statements s JOIN pg_database d ON d.oid = s.dbid
         WHERE d.datname = current_database() ORDER BY s.total_exec_time DESC LIMIT 100', extension_schema);
      RETURN;
    EXCEPTION WHEN object_not_in_prerequisite_state OR insufficient_privilege THEN
      NULL;  -- made, but not in shared_preload_libraries; or not for this role
    END;
  END IF;
  RETURN QUERY SELECT 'pg_stat_activity', a.query, NULL::bigint, NULL::float8, NULL::float8, NULL::float8, NULL::bigint, a.pid,
      extract(epoch FROM clock_timestamp() - a.query_start)::float8 * 1000, a.wait_event_type || ': ' || a.wait_event,
      pg_blocking_pids(a.pid)
    FROM pg_stat_activity a
    WHERE a.datname = current_database() AND a.state <> 'idle' AND a.pid <> pg_backend_pid()
    ORDER BY a.query_start LIMIT 100;
END $$;

CREATE VIEW kafka.slow_queries AS SELECT * FROM kafka.list_slow_queries();
