// The small tables that are updated all the time, and how eagerly PostgreSQL vacuums them. Left to the default, a fifth
// of such a table and its index would be dead before it is looked at; a thousand rows are vacuumed in milliseconds.
import type { Pool } from './pool.ts';

const hotTables = ['consumer_groups', 'consumer_offsets', 'partitions', 'producer_snapshots'];
const eager: Readonly<Record<string, string>> = {
  autovacuum_vacuum_scale_factor: '0.0',
  autovacuum_vacuum_threshold: '1000',
  autovacuum_vacuum_cost_delay: '0',
};

/** Brings the tables to the setting `autovacuum.hot.tables`; changes nothing that is so already. */
export async function setAutovacuum(pool: Pool, eagerly: boolean): Promise<void> {
  const { rows } = await pool.query<{ name: string; options: string[] | null }>(
    `SELECT relname AS name, reloptions AS options FROM pg_class
     WHERE relnamespace = 'kafka'::regnamespace AND relname = ANY($1)`,
    [hotTables],
  );
  for (const { name, options } of rows) {
    const set = new Map((options ?? []).map(option => option.split('=') as [string, string]));
    const names = Object.keys(eager);
    const done = eagerly ? names.every(key => set.get(key) === eager[key]) : !names.some(key => set.has(key));
    if (done) continue;
    const change = eagerly
      ? `SET (${names.map(key => `${key} = ${eager[key]}`).join(', ')})`
      : `RESET (${names.join(', ')})`;
    await pool.query(`ALTER TABLE kafka.${name} ${change}`);
  }
}
