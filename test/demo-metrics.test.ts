// The demonstration of examples/metrics, for two seconds: what was produced is in the table when it ends.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { createDatabase } from './database.ts';

const root = fileURLToPath(new URL('..', import.meta.url));

for (const [title, settings] of [
  ['schemas and repeats', { METRICS_REPEATS: '0.5' }],
  ['plain JSON, a partition for each day', { METRICS_SCHEMAS: 'false', METRICS_RETENTION_DAYS: '3' }],
] as const) {
  test(`npm run demo:metrics: ${title}`, { timeout: 300_000 }, async () => {
    const database = await createDatabase();
    const directory = mkdtempSync(join(tmpdir(), 'millrace-demo-'));
    try {
      const child = spawn(process.execPath, ['--import', 'tsx', 'examples/metrics/main.ts'], {
        cwd: root,
        stdio: ['ignore', 'pipe', 'pipe'],
        env: {
          PATH: process.env.PATH ?? '',
          HOME: '/nonexistent',
          POSTGRES_URL: database.url,
          METRICS_DATA_DIR: directory,
          METRICS_SECONDS: '2',
          PRODUCER_MIN_METRICS: '100',
          PRODUCER_MAX_METRICS: '300',
          ...settings,
        },
      });
      let said = '';
      for (const stream of [child.stdout, child.stderr]) stream.on('data', chunk => (said += chunk));
      const [code] = await once(child, 'close');
      assert.equal(code, 0, said);
      const produced = Number(/produced ([\d,]+), all in the table/.exec(said)?.[1]?.replaceAll(',', ''));
      assert.ok(produced > 0, said);
      const { rows } = await database.pool.query<{ records: number; distinct: number; rows: number }>(
        `SELECT count(*)::int AS records, count(DISTINCT convert_from(key, 'UTF8'))::int AS distinct,
                (SELECT count(*)::int FROM metrics) AS rows
         FROM kafka.messages WHERE topic = 'metrics'`,
      );
      assert.equal(rows[0]!.records, produced);
      assert.equal(rows[0]!.rows, rows[0]!.distinct);
      if ('METRICS_REPEATS' in settings) assert.ok(rows[0]!.distinct < produced, 'nothing was repeated');
    } finally {
      await database.drop();
      rmSync(directory, { recursive: true, force: true });
    }
  });
}
