// What every connection of Millrace begins with. A role or a database may have defaults that suit its people and that
// the log cannot live with:
//  - synchronous_commit = off: what is acknowledged could be taken back; stricter values stay
//  - repeatable read or serializable: kafka.fence would look with a snapshot older than the lock it waited for
//  - timeouts: a wait for a lock, a VACUUM or an idle connection is none of a person's mistakes
//  - a DateStyle that pg does not read
export const settleSession = `
  SELECT pg_backend_pid() AS pid, count(set_config(name, value, false)) AS settled
  FROM pg_settings JOIN (VALUES
    ('default_transaction_isolation', 'read committed'), ('DateStyle', 'ISO'),
    ('statement_timeout', '0'), ('lock_timeout', '0'), ('idle_session_timeout', '0'), ('transaction_timeout', '0'),
    (CASE current_setting('synchronous_commit') WHEN 'off' THEN 'synchronous_commit' END, 'on')
  ) AS wanted (key, value) ON name = key`;
