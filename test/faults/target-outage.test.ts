// A remote target that takes nothing for a while: the capture waits in bounded memory, keeps its walsender, says why, and
// goes on by itself.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ErrorCode } from '../../src/protocol/errors.ts';
import { Produce } from '../../src/protocol/messages/00-produce.ts';
import { recordCount } from '../../src/protocol/record-batch.ts';
import { openRig } from '../capture-rig.ts';
import { ScriptedBroker } from '../scripted-broker.ts';

const rows = 60_000;

test('while the target takes nothing, little is held, and the walsender stays', { timeout: 300_000 }, async () => {
  const [rig, broker] = await Promise.all([openRig(), ScriptedBroker.start()]);
  try {
    const { pool, url } = rig.database;
    await pool.query('CREATE TABLE item (id int PRIMARY KEY, v text)');
    broker.decide = api => (api.key === Produce.key ? ErrorCode.NOT_ENOUGH_REPLICAS : 'serve');
    const source = new URL(url);
    source.searchParams.set('options', '-c wal_sender_timeout=4000');
    const { host, port } = broker.address;
    const capture = rig.start('outage', {
      source: source.href,
      tables: ['public.item'],
      format: 'plain',
      target: { bootstrap: `${host}:${port}` },
    });
    await capture.reached('streaming');
    const walsender = async () =>
      (
        await pool.query<{ pid: number }>('SELECT active_pid AS pid FROM pg_replication_slots WHERE slot_name = $1', [
          `outage_${rig.suffix}`,
        ])
      ).rows[0]!.pid;
    const before = await walsender();
    for (let from = 1; from <= rows; from += 1000) {
      await pool.query(`INSERT INTO item SELECT i, repeat('x', 1000) FROM generate_series($1::int, $1 + 999) i`, [
        from,
      ]);
    }
    await rig.holds(() => capture.status().target?.trouble !== undefined && capture.status().records > 1000);
    // Longer than the walsender waits for a sign of life.
    await pool.query('SELECT pg_sleep(9)');
    assert.equal(await walsender(), before);
    const { state, records, target, slot } = capture.status();
    assert.equal(state, 'streaming');
    assert.match(target!.trouble!, /partition \d of outage\.public\.item: NOT_ENOUGH_REPLICAS/);
    // Of about 1.1 kB each: the 16 MiB that may be under way, and what had been read.
    assert.ok(records < 30_000, `${records} records are held`);
    assert.ok(slot === undefined || slot.active);
    broker.decide = () => 'serve';
    const arrived = () =>
      broker.topics
        .get('outage.public.item')!
        .flatMap(({ batches }) => batches)
        .reduce((sum, batch) => sum + recordCount(batch), 0);
    await rig.holds(() => arrived() >= rows && capture.status().target?.trouble === undefined);
    assert.equal(arrived(), rows);
    assert.deepEqual(capture.states, ['streaming']);
    await capture.finish();
  } finally {
    await rig.remove();
    await broker.stop();
  }
});
