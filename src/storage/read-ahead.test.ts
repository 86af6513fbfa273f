import assert from 'node:assert/strict';
import { test } from 'node:test';
import { eventually } from '../../test/open-log.ts';
import { PartitionLog } from './partition-log.ts';
import { ReadAhead } from './read-ahead.ts';
import type { StoredRows } from './reader.ts';

const MiB = 1024 * 1024;
const patient = { maxBytes: 4 * MiB, patienceMs: 60_000 };
const partition = () => new PartitionLog(1, 0, 0n, 1000n);

/** Rows that tell whether they have been let go. */
function someRows(): StoredRows & { released: boolean } {
  const rows = {
    rows: [],
    released: false,
    release() {
      rows.released = true;
    },
  };
  return rows;
}

test('what was read ahead is handed out once, to who asks for that offset of that partition', async () => {
  const ahead = new ReadAhead(patient);
  const [one, other] = [partition(), partition()];
  const rows = someRows();
  ahead.begin(one, 10n, MiB, async () => rows);
  assert.equal(ahead.take(one, 11n), undefined);
  assert.equal(ahead.take(other, 10n), undefined);
  assert.equal(await ahead.take(one, 10n), rows);
  assert.equal(ahead.take(one, 10n), undefined);
  assert.equal(ahead.bytes, 0);
  assert.equal(rows.released, false, 'they are the taker’s');
});

test('no more is read ahead than may be kept, and of one consumer no more than a stretch', () => {
  const ahead = new ReadAhead(patient);
  const asked: number[] = [];
  for (let i = 0; i < 6; i++) {
    ahead.begin(partition(), 0n, 50 * MiB, async bytes => {
      asked.push(bytes);
      return someRows();
    });
  }
  assert.deepEqual(asked, [MiB, MiB, MiB, MiB]);
  assert.equal(ahead.bytes, 4 * MiB);
  ahead.clear();
  assert.equal(ahead.bytes, 0);
});

test('a read ahead that failed or found nothing leaves its taker to read', async () => {
  const ahead = new ReadAhead(patient);
  const of = partition();
  ahead.begin(of, 0n, MiB, () => Promise.reject(new Error('lost the connection')));
  assert.equal(await ahead.take(of, 0n), undefined);
});

test('what nobody takes is let go, also when it comes only after that', async () => {
  const ahead = new ReadAhead({ maxBytes: 4 * MiB, patienceMs: 2 });
  const [early, late] = [someRows(), someRows()];
  let arrive!: (rows: StoredRows) => void;
  ahead.begin(partition(), 0n, MiB, async () => early);
  ahead.begin(partition(), 0n, MiB, () => new Promise(resolve => (arrive = resolve)));
  await eventually(() => ahead.bytes === 0 && early.released);
  arrive(late);
  await eventually(() => late.released);
});
