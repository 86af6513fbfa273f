// Commits that wait for a standby that does not exist: Postgres has written them, but has not said so.
import type pg from 'pg';

/** Returns once every commit is held. */
export async function holdCommits(sql: pg.Client, probe: pg.Client): Promise<void> {
  await sql.query(`ALTER SYSTEM SET synchronous_standby_names = 'nope'`);
  await sql.query('SELECT pg_reload_conf()');
  // The server heeds it a little later: when a commit of our own is held.
  const pid = (await probe.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')).rows[0]!.pid;
  let committed = true;
  while (!(await isHeld(sql, pid))) {
    if (!committed) continue;
    committed = false;
    const commit = probe.query(`COMMENT ON SCHEMA public IS 'probe'`);
    commit.then(
      () => {
        committed = true;
      },
      () => {}, // the test has ended PostgreSQL
    );
  }
}

async function isHeld(sql: pg.Client, pid: number): Promise<boolean> {
  const query = `SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'SyncRep'`;
  return ((await sql.query(query, [pid])).rowCount ?? 0) > 0;
}

export async function releaseCommits(sql: pg.Client): Promise<void> {
  await sql.query('ALTER SYSTEM RESET synchronous_standby_names');
  await sql.query('SELECT pg_reload_conf()');
}

/** Resolves when that many connections of this name wait in COMMIT. */
export async function heldCommits(sql: pg.Client, applicationName: string, count: number): Promise<void> {
  const query = `SELECT FROM pg_stat_activity WHERE application_name = $1 AND wait_event = 'SyncRep'`;
  while (((await sql.query(query, [applicationName])).rowCount ?? 0) < count) await sql.query('SELECT pg_sleep(0.01)');
}
