// Sinks on a real log: what is in the topic is in the table, once, whatever its key mode, format and mode of writing.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { createDatabase } from '../../test/database.ts';
import { openSinkRig, type SinkRig } from '../../test/sink-rig.ts';

let rig: SinkRig;
before(async () => {
  rig = await openSinkRig();
});
after(() => rig.remove());

const schema = (fields: readonly [string, string, string?][]) => ({
  type: 'struct',
  optional: false,
  fields: fields.map(([field, type, name]) => ({ field, type, optional: true, ...(name ? { name } : {}) })),
});

describe('writing', () => {
  test('upserts: the last offset of a key wins, within a batch and over batches', async () => {
    await rig.query('CREATE TABLE items (id int PRIMARY KEY, name text, price numeric)');
    const topic = await rig.createTopic('items');
    await rig.send(topic, [
      { key: { id: 1 }, value: { name: 'tea', price: 1.1 } },
      { key: { id: 2 }, value: { name: 'milk', price: null } },
      { key: { id: 1 }, value: '{"name": "green tea", "price": 12345678901234567890.12}' },
    ]);
    const sink = await rig.start('items', { topics: ['items'] });
    await sink.caughtUp();
    await rig.send(topic, [{ key: { id: 2 }, value: '{"name": "oat milk", "price": 0.10000000000000000001}' }]);
    await sink.caughtUp();
    assert.deepEqual(await rig.query('SELECT id, name, price FROM items ORDER BY id'), [
      { id: 1, name: 'green tea', price: '12345678901234567890.12' },
      { id: 2, name: 'oat milk', price: '0.10000000000000000001' },
    ]);
    const offsets = await rig.query(
      `SELECT committed_offset::text AS offset FROM kafka.consumer_offsets WHERE group_id = 'sink-items'`,
    );
    assert.deepEqual(offsets, [{ offset: '4' }]);
    await sink.stop();
  });

  test('numbers in text columns are as they were written', async () => {
    await rig.query('CREATE TABLE texts (id int PRIMARY KEY, t text, f float8)');
    const topic = await rig.createTopic('texts');
    await rig.send(topic, [
      { key: { id: 1 }, value: '{"t": 12345678901234567890, "f": 0.1234567890123456}' },
      { key: { id: 2 }, value: '{"t": 1e20, "f": 1}' },
      { key: { id: 3 }, value: '{"t": 1.5, "f": null}' },
    ]);
    const sink = await rig.start('texts', { topics: ['texts'] });
    await sink.caughtUp();
    assert.deepEqual(await rig.query('SELECT t, f FROM texts ORDER BY id'), [
      { t: '12345678901234567890', f: 0.1234567890123456 },
      { t: '100000000000000000000', f: 1 },
      { t: '1.5', f: null },
    ]);
    await sink.stop();
  });

  test('tombstones delete, in order with writes of the same key', async () => {
    await rig.query('CREATE TABLE gone (id int PRIMARY KEY, v text)');
    const topic = await rig.createTopic('gone');
    await rig.send(topic, [
      { key: { id: 1 }, value: { v: 'a' } },
      { key: { id: 2 }, value: { v: 'b' } },
      { key: { id: 1 }, value: null },
      { key: { id: 3 }, value: { v: 'c' } },
      { key: { id: 2 }, value: null },
      { key: { id: 2 }, value: { v: 'again' } },
    ]);
    const sink = await rig.start('gone', { topics: ['gone'], delete: true });
    const { batches } = await sink.caughtUp();
    assert.equal(batches, 1);
    assert.deepEqual(await rig.query('SELECT * FROM gone ORDER BY id'), [
      { id: 2, v: 'again' },
      { id: 3, v: 'c' },
    ]);
    await sink.stop();
  });

  test('Connect’s envelopes: logical types by their schemas', async () => {
    await rig.query(
      `CREATE TABLE metrics (device_id uuid, published_at timestamptz, metric_name smallint, value float8, tags text[],
         cost numeric(10, 2), day date, created_at timestamptz DEFAULT now(), PRIMARY KEY (device_id, published_at, metric_name))`,
    );
    const topic = await rig.createTopic('metrics', 3);
    const keySchema = schema([
      ['device_id', 'string'],
      ['metric_name', 'int16'],
      ['published_at', 'int64', 'org.apache.kafka.connect.data.Timestamp'],
    ]);
    const valueSchema = {
      ...schema([['value', 'double']]),
      fields: [
        { field: 'value', type: 'double' },
        { field: 'tags', type: 'array', items: { type: 'string' } },
        { field: 'cost', type: 'bytes', name: 'org.apache.kafka.connect.data.Decimal', parameters: { scale: '2' } },
        { field: 'day', type: 'int32', name: 'org.apache.kafka.connect.data.Date' },
      ],
    };
    const device = '6f1d2c3b-4a59-4687-8796-a5b4c3d2e1f0';
    const message = (published: number, value: number) => ({
      key: { schema: keySchema, payload: { device_id: device, metric_name: 30, published_at: published } },
      value: { schema: valueSchema, payload: { value, tags: ['a', 'b "c"', 'ü'], cost: 'MDk=', day: 19_000 } },
    });
    for (const partition of [0, 1, 2]) {
      await rig.send(
        topic,
        [message(1_700_000_000_123 + partition, 1.5), message(1_700_000_000_123 + partition, 2.5)],
        partition,
      );
    }
    const sink = await rig.start('metrics', { topics: ['metrics'], tasks: 2 });
    await sink.caughtUp();
    const rows = await rig.query('SELECT *, created_at IS NOT NULL AS created FROM metrics ORDER BY published_at');
    assert.equal(rows.length, 3);
    const { created_at: _, ...first } = rows[0] as Record<string, unknown>;
    assert.deepEqual(first, {
      device_id: device,
      published_at: new Date(1_700_000_000_123),
      metric_name: 30,
      value: 2.5,
      tags: ['a', 'b "c"', 'ü'],
      cost: '123.45',
      day: new Date(2022, 0, 8),
      created: true,
    });
    await sink.stop();
  });

  test('insert copies into the table; update changes rows that are there', async () => {
    await rig.query(
      'CREATE TABLE lines (at timestamptz, note text); CREATE TABLE stock (id int PRIMARY KEY, n int, other int)',
    );
    await rig.query('INSERT INTO stock VALUES (1, 1, 7), (2, 2, 7)');
    const lines = await rig.createTopic('lines');
    const stock = await rig.createTopic('stock');
    await rig.send(lines, [{ value: { note: 'one' } }, { value: { note: 'two' } }, { value: { note: 'two' } }]);
    await rig.send(stock, [
      { key: '1', value: { n: 10 } },
      { key: '5', value: { n: 50 } },
      { key: '1', value: { n: 11 } },
    ]);
    const inserting = await rig.start('lines', {
      topics: ['lines'],
      mode: 'insert',
      key: 'none',
      columns: { at: 'timestamp' },
    });
    const updating = await rig.start('stock', { topics: ['stock'], mode: 'update' });
    await inserting.caughtUp();
    await updating.caughtUp();
    assert.deepEqual(await rig.query('SELECT note, at FROM lines ORDER BY note'), [
      { note: 'one', at: new Date(1_700_000_000_000) },
      { note: 'two', at: new Date(1_700_000_000_000) },
      { note: 'two', at: new Date(1_700_000_000_000) },
    ]);
    assert.deepEqual(await rig.query('SELECT * FROM stock ORDER BY id'), [
      { id: 1, n: 11, other: 7 },
      { id: 2, n: 2, other: 7 },
    ]);
    await inserting.stop();
    await updating.stop();
  });

  test('absent fields leave their columns alone, and rows with other fields keep their order', async () => {
    await rig.query(`CREATE TABLE parts (id int PRIMARY KEY, a int DEFAULT 7, b int)`);
    const topic = await rig.createTopic('parts');
    await rig.send(topic, [
      { key: { id: 1 }, value: { a: 1 } },
      { key: { id: 1 }, value: { b: 2 } },
      { key: { id: 2 }, value: { b: 3 } },
      { key: { id: 1 }, value: { a: 4 } },
    ]);
    const sink = await rig.start('parts', { topics: ['parts'] });
    await sink.caughtUp();
    assert.deepEqual(await rig.query('SELECT * FROM parts ORDER BY id'), [
      { id: 1, a: 4, b: 2 },
      { id: 2, a: 7, b: 3 },
    ]);
    await sink.stop();
  });

  test('keys from value fields, headers and coordinates; columns from anywhere', async () => {
    await rig.query(`
      CREATE TABLE by_value (id int PRIMARY KEY, city text, extra jsonb);
      CREATE TABLE by_header (tenant text, seen timestamptz, PRIMARY KEY (tenant));
      CREATE TABLE by_place (kafka_topic text, kafka_partition int, kafka_offset bigint, body text,
        PRIMARY KEY (kafka_topic, kafka_partition, kafka_offset))`);
    const one = await rig.createTopic('by_value');
    await rig.send(one, [
      { value: { id: 1, user: { city: 'Utrecht' }, extra: { n: 1 }, debug: true } },
      { value: { id: 1, user: { city: 'Delft' }, extra: [1, null] } },
    ]);
    const two = await rig.createTopic('by_header');
    await rig.send(two, [{ value: { seen: 1_700_000_000 }, headers: { tenant: 'x' } }]);
    const three = await rig.createTopic('by_place', 2);
    await rig.send(three, [{ value: 'first' }, { value: 'second' }], 1);
    const sinks = [
      await rig.start('by_value', {
        topics: ['by_value'],
        key: 'value',
        columns: { city: 'value.user.city' },
        exclude: ['debug'],
      }),
      await rig.start('by_header', {
        topics: ['by_header'],
        key: 'headers',
        keyFields: ['tenant'],
        columns: { seen: { from: 'value.seen', as: 'epoch_s' } },
      }),
      await rig.start('by_place', {
        topics: ['by_place'],
        key: 'coordinates',
        format: 'text',
        columns: { body: 'value' },
      }),
    ];
    for (const sink of sinks) await sink.caughtUp();
    assert.deepEqual(await rig.query('SELECT * FROM by_value'), [{ id: 1, city: 'Delft', extra: [1, null] }]);
    assert.deepEqual(await rig.query('SELECT * FROM by_header'), [{ tenant: 'x', seen: new Date(1_700_000_000_000) }]);
    assert.deepEqual(
      await rig.query('SELECT kafka_partition, kafka_offset, body FROM by_place ORDER BY kafka_offset'),
      [
        { kafka_partition: 1, kafka_offset: 0n, body: 'first' },
        { kafka_partition: 1, kafka_offset: 1n, body: 'second' },
      ],
    );
    for (const sink of sinks) await sink.stop();
  });
});

describe('bad records', () => {
  test('go to the dead letters with their reasons, once, and the others into the table', async () => {
    await rig.query(`CREATE TABLE strict (id int PRIMARY KEY, n int NOT NULL CHECK (n < 100), label varchar(5))`);
    const topic = await rig.createTopic('strict');
    const good = Array.from({ length: 500 }, (_, id) => ({ key: { id }, value: { n: id % 100, label: 'ok' } }));
    await rig.send(topic, [
      ...good.slice(0, 200),
      { key: { id: 1000 }, value: { n: 'many', label: 'x' }, headers: { trace: 't1' } },
      { key: { id: 1001 }, value: { n: 500, label: 'x' } },
      ...good.slice(200, 300),
      { key: { id: 1002 }, value: { n: 1, label: 'too long' } },
      { key: { id: 1003 }, value: '{broken' },
      ...good.slice(300),
      { key: { id: 1004 }, value: { n: null, label: 'x' } },
      { key: { id: 1005 }, value: { n: 1, unheard: 1 } },
      { key: null, value: { n: 1 } },
    ]);
    const sink = await rig.start('strict', { topics: ['strict'], errors: 'dead-letter' });
    const status = await sink.caughtUp();
    assert.equal(status.deadLetters, 7);
    assert.deepEqual(await rig.query('SELECT count(*)::int AS n, max(id) AS max FROM strict'), [{ n: 500, max: 499 }]);
    const letters = await rig.records('strict.dead-letter');
    const reasons = letters.map(({ headers }) => [
      headers['__connect.errors.offset'],
      headers['millrace.error.code'],
      headers['millrace.error.column'],
    ]);
    assert.deepEqual(
      reasons.toSorted((a, b) => Number(a[0]) - Number(b[0])),
      [
        ['200', 'CONVERSION', 'n'],
        ['201', '23514', undefined],
        ['302', '22001', undefined],
        ['303', 'CONVERSION', undefined],
        ['504', 'CONVERSION', 'n'],
        ['505', 'CONVERSION', 'unheard'],
        ['506', 'CONVERSION', undefined],
      ],
    );
    const first = letters.find(({ headers }) => headers.trace === 't1')!;
    assert.equal(first.value, '{"n":"many","label":"x"}');
    assert.equal(first.key, '{"id":1000}');
    assert.match(first.headers['__connect.errors.exception.message']!, /column n: a whole number .* not "many"/);
    assert.deepEqual(await rig.query('SELECT FROM kafka.sink_dead_letters'), []);
    await sink.stop();
  });

  test('stop the sink with their coordinates, where they are not tolerated; what is before them is written', async () => {
    await rig.query('CREATE TABLE stops (id int PRIMARY KEY, n int CHECK (n > 0))');
    const topic = await rig.createTopic('stops');
    await rig.send(topic, [
      { key: { id: 1 }, value: { n: 1 } },
      { key: { id: 2 }, value: { n: 2 } },
      { key: { id: 3 }, value: { n: -3 } },
      { key: { id: 4 }, value: { n: 'x' } },
    ]);
    const sink = await rig.start('stops', { topics: ['stops'] });
    const refused = await sink.reached('failed');
    assert.match(refused.reason!, /stops-0@2 does not fit "public"."stops": .*check constraint.*\(23514\)/);
    assert.equal(refused.partitions[0]!.committed, 2n);
    await rig.query('ALTER TABLE stops DROP CONSTRAINT stops_n_check');
    const again = await rig.start('stops', { topics: ['stops'] });
    const unreadable = await again.reached('failed');
    assert.match(unreadable.reason!, /stops-0@3 .*column n: a whole number/);
    assert.deepEqual(await rig.query('SELECT id FROM stops ORDER BY id'), [{ id: 1 }, { id: 2 }, { id: 3 }]);
  });
});

describe('tables', () => {
  test('are made, and given columns, of what records have', async () => {
    const topic = await rig.createTopic('made');
    await rig.send(topic, [{ key: { id: 1 }, value: { name: 'a', n: 1.5 } }]);
    const sink = await rig.start('made', { topics: ['made'], create: true, evolve: true, table: 'shop.made_{topic}' });
    await sink.caughtUp();
    await rig.send(topic, [
      { key: { id: 2 }, value: { name: 'b', tags: ['x'], later: null } },
      { key: { id: 3 }, value: { later: true } },
    ]);
    await sink.caughtUp();
    assert.deepEqual(await rig.query('SELECT * FROM shop.made_made ORDER BY id'), [
      { id: 1n, name: 'a', n: 1.5, tags: null, later: null },
      { id: 2n, name: 'b', n: null, tags: ['x'], later: null },
      { id: 3n, name: null, n: null, tags: null, later: true },
    ]);
    await sink.stop();
  });

  test('that do not fit the definition are named, and looked for again', async () => {
    const topic = await rig.createTopic('absent');
    await rig.send(topic, [{ key: '7', value: { v: 1 } }]);
    const sink = await rig.start('absent', { topics: ['absent'] });
    assert.match((await sink.reached('retrying')).reason!, /no table public.absent: create it, or set create: true/);
    await rig.query('CREATE TABLE absent (id int, v int)');
    await rig.query('ALTER TABLE absent ADD PRIMARY KEY (id)');
    await sink.caughtUp();
    // A column that is added while the sink runs.
    await rig.query('ALTER TABLE absent ADD w int');
    await rig.send(topic, [{ key: '8', value: { v: 1, w: 2 } }]);
    await sink.caughtUp();
    // And one that goes.
    await rig.query('ALTER TABLE absent DROP v');
    await rig.send(topic, [{ key: '9', value: { w: 3 } }]);
    await sink.caughtUp();
    assert.deepEqual(await rig.query('SELECT * FROM absent ORDER BY id'), [
      { id: 7, w: null },
      { id: 8, w: 2 },
      { id: 9, w: 3 },
    ]);
    await sink.stop();
  });
});

describe('another database', () => {
  test('has the rows and the progress in one transaction; the group follows', async () => {
    const other = await createDatabase({ empty: true });
    try {
      await other.pool.query('CREATE TABLE far (n int CHECK (n <> 13))');
      const topic = await rig.createTopic('far', 2);
      const settings = { topics: ['far'], database: other.url, mode: 'insert', key: 'none', errors: 'dead-letter' };
      for (let n = 0; n < 20; n++) await rig.send(topic, [{ value: { n } }], n % 2);
      const one = await rig.start('far', settings);
      await one.caughtUp();
      const two = await rig.start('far', settings);
      for (let n = 20; n < 200; n++) await rig.send(topic, [{ value: { n } }], n % 2);
      await one.caughtUp();
      await two.caughtUp();
      // Its connections break while more comes.
      for (let n = 200; n < 300; n++) {
        await rig.send(topic, [{ value: { n } }], n % 2);
        if (n % 30 === 0) {
          await other.pool.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND application_name = 'millrace sink'`);
        }
      }
      await one.caughtUp();
      await two.caughtUp();
      await Promise.all([one.stop(), two.stop()]);
      const { rows } = await other.pool.query('SELECT count(*)::int AS n, count(DISTINCT n)::int AS d FROM far');
      assert.deepEqual(rows, [{ n: 299, d: 299 }]);
      const { rows: progress } = await other.pool.query('SELECT topic, next_offset FROM millrace_sink_progress');
      assert.deepEqual(progress, [
        { topic: 'far', next_offset: 150n },
        { topic: 'far', next_offset: 150n },
      ]);
      const offsets = await rig.query(
        `SELECT committed_offset AS o FROM kafka.consumer_offsets WHERE group_id = 'sink-far'`,
      );
      assert.deepEqual(offsets, [{ o: 150n }, { o: 150n }]);
      assert.equal((await rig.records('far.dead-letter')).length, 1);
    } finally {
      await other.drop();
    }
  });
});

describe('offsets', () => {
  test('that somebody moves are followed, and a second sink of the group writes nothing twice', async () => {
    await rig.query('CREATE TABLE moved (n int)');
    const topic = await rig.createTopic('moved');
    const settings = { topics: ['moved'], mode: 'insert', key: 'none', group: 'movers' };
    await rig.send(topic, [{ value: { n: 0 } }]);
    const one = await rig.start('one', settings);
    const two = await rig.start('two', settings);
    await one.caughtUp();
    for (let n = 1; n <= 200; n++) await rig.send(topic, [{ value: { n } }]);
    await one.caughtUp();
    await two.caughtUp();
    await two.stop();
    assert.deepEqual(await rig.query('SELECT count(*)::int AS n, count(DISTINCT n)::int AS d FROM moved'), [
      { n: 201, d: 201 },
    ]);
    await rig.query(`UPDATE kafka.consumer_offsets SET committed_offset = 200 WHERE group_id = 'movers'`);
    await rig.send(topic, [{ value: { n: 201 } }]);
    await one.caughtUp();
    const repeated = await rig.query(
      'SELECT n, count(*)::int AS times FROM moved WHERE n >= 199 GROUP BY n ORDER BY n',
    );
    assert.deepEqual(repeated, [
      { n: 199, times: 1 },
      { n: 200, times: 2 },
      { n: 201, times: 1 },
    ]);
    await one.stop();
  });

  test('before the log’s start stop the sink: nothing is passed over silently', async () => {
    await rig.query('CREATE TABLE trimmed (n int)');
    const topic = await rig.createTopic('trimmed');
    await rig.send(topic, [{ value: { n: 0 } }, { value: { n: 1 } }]);
    const settings = { topics: ['trimmed'], mode: 'insert', key: 'none' };
    const sink = await rig.start('trimmed', settings);
    await sink.caughtUp();
    await sink.stop();
    await rig.send(topic, [{ value: { n: 2 } }, { value: { n: 3 } }]);
    await rig.log.trim(rig.log.partition(topic, 0)!, 3n);
    const again = await rig.start('trimmed', settings);
    assert.match((await again.reached('failed')).reason!, /trimmed-0 has offsets 3 to 4, and the sink is at 2/);
  });

  test('a sink of a pattern takes topics in that are made later', async () => {
    await rig.query(
      'CREATE SCHEMA twin; CREATE TABLE twin.a (id int PRIMARY KEY); CREATE TABLE twin.b (id int PRIMARY KEY)',
    );
    const sink = await rig.start('pattern', { topics: ['src.*'], table: 'twin.{1}' });
    await sink.reached('waiting');
    await rig.send(await rig.createTopic('src.a'), [{ key: { id: 1 }, value: {} }]);
    await sink.reached('running');
    await rig.send(await rig.createTopic('src.b', 2), [{ key: { id: 2 }, value: {} }], 1);
    while ((await rig.query('SELECT FROM twin.b')).length === 0) await new Promise(resolve => setTimeout(resolve, 5));
    assert.deepEqual(await rig.query('SELECT id FROM twin.a UNION ALL SELECT id FROM twin.b'), [{ id: 1 }, { id: 2 }]);
    await sink.stop();
  });
});
