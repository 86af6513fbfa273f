import assert from 'node:assert/strict';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { after, before, type TestContext, test } from 'node:test';
import { createDatabase, type TestDatabase } from '../../test/database.ts';
import { batchOf, eventually, type OpenLog, openLog } from '../../test/open-log.ts';
import type { Pool } from '../postgres/pool.ts';
import { ErrorCode } from '../protocol/errors.ts';
import { buildBatch } from '../protocol/records.ts';
import type { LogOptions } from './log.ts';

let database: TestDatabase;

before(async () => {
  database = await createDatabase();
});

after(async () => {
  await database?.drop();
});

/** Between the log and Postgres; can hold what Postgres answers, and cut. */
class Wire {
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #held: (() => void)[] = [];
  #holding = false;
  connections = 0;
  /** Told how many connections there were before. */
  refuse: (before: number) => boolean = () => false;

  constructor({ port, hostname }: URL) {
    this.#server = createServer(client => {
      if (this.refuse(this.connections++)) {
        client.destroy();
        return;
      }
      const server = connect(Number(port), hostname);
      for (const socket of [client, server]) {
        this.#sockets.add(socket);
        socket.on('error', () => {});
        socket.on('close', () => {
          client.destroy();
          server.destroy();
        });
      }
      client.on('data', data => server.write(data));
      server.on('data', data => {
        if (this.#holding) this.#held.push(() => client.write(data));
        else client.write(data);
      });
    });
  }

  async listen(): Promise<number> {
    await new Promise<void>(resolve => this.#server.listen(0, '127.0.0.1', resolve));
    return (this.#server.address() as { port: number }).port;
  }

  hold(): void {
    this.#holding = true;
  }

  release(): void {
    this.#holding = false;
    for (const send of this.#held.splice(0)) send();
  }

  /** What was held is lost. */
  cut(): void {
    this.#holding = false;
    this.#held.length = 0;
    for (const socket of this.#sockets) socket.destroy();
    this.#sockets.clear();
  }

  close(): void {
    this.cut();
    this.#server.close();
  }
}

/** A log whose own connections pass through a wire; its pool's do not. Stopped when the test ends. */
async function openWired(
  t: TestContext,
  options: Partial<LogOptions> = {},
  of: TestDatabase = database,
): Promise<OpenLog & { readonly wire: Wire }> {
  const url = new URL(of.url);
  const wire = new Wire(url);
  url.port = String(await wire.listen());
  const opened = await openLog(of, { databaseUrl: url.href, ...options });
  t.after(() => opened.log.stop().finally(() => wire.close()));
  return { ...opened, wire };
}

test('a group whose answer was lost has committed although a topic of it has been deleted since', async t => {
  const { wire, log, topics, createTopic, append, partition } = await openWired(t);
  const [deleted, kept] = [await createTopic('deleted'), await createTopic('kept')];
  await Promise.all([append(deleted), append(kept)]);
  wire.hold();
  const lost = append(deleted);
  const found = append(kept, 3);
  await eventually(async () => {
    const [segment] = log.segments.unsealed(kept.id);
    const { rows } = await database.pool.query(`SELECT FROM kafka.segment_${segment!.id} WHERE base_offset = 1`);
    return rows.length > 0;
  });
  await topics.delete(deleted);
  wire.cut();
  await lost; // whatever its answer
  assert.equal((await found).error, 0);
  assert.equal((await append(kept)).baseOffset, 4n);
  assert.equal(partition(kept).highWatermark, 5n);
});

test('no group is formed between two terms', async t => {
  let onEnds = (): void => {};
  const query = async (...of: unknown[]): Promise<unknown> => {
    const result = await (database.pool.query as (...of: unknown[]) => Promise<unknown>).apply(database.pool, of);
    if (String(of[0]).includes('kafka.log_ends')) onEnds();
    return result;
  };
  const pool: Pool = Object.create(database.pool, { query: { value: query } });
  const { wire, createTopic, append } = await openWired(t, { pool });
  const topic = await createTopic('between-terms', 2);
  await append(topic); // so that there is a segment
  const blocker = await database.pool.connect();
  await blocker.query('BEGIN; LOCK TABLE kafka.producer_snapshots');
  const waiting = append(topic, 1, 1);
  const isBlocked = async () => {
    const { rows } = await database.pool.query(
      `SELECT FROM pg_locks WHERE NOT granted AND relation = 'kafka.producer_snapshots'::regclass`,
    );
    return rows.length > 0;
  };
  await eventually(isBlocked);
  // The ends have been read back, and the writer waits for its new connection.
  const between = new Promise<void>(resolve => {
    onEnds = () => {
      wire.hold();
      resolve();
    };
  });
  await database.pool.query(
    `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
     WHERE datname = current_database() AND application_name IN ('millrace writer', 'millrace leader')`,
  );
  await between;
  await blocker.query('ROLLBACK');
  blocker.release();
  await eventually(async () => !(await isBlocked()));
  // What the writer waited for has been answered; a later answer of the pool says that it has been taken in.
  for (let i = 0; i < 5; i++) await database.pool.query('SELECT');
  wire.release();
  assert.deepEqual(await waiting, { error: 0, baseOffset: 0n, logAppendTime: -1n });
});

test('a term that cannot begin leaves no connections behind', async t => {
  const { wire, log, createTopic, append } = await openWired(t, { writers: 2 });
  // Every try gets the leader's connection and one writer's.
  wire.connections = 0;
  wire.refuse = before => before % 3 === 2;
  wire.cut();
  await eventually(() => wire.connections >= 9);
  const { rows } = await database.pool.query<{ writers: bigint }>(
    `SELECT count(*) AS writers FROM pg_stat_activity
     WHERE datname = current_database() AND application_name = 'millrace writer'`,
  );
  assert.ok(rows[0]!.writers <= 2n, `${rows[0]!.writers} writers are connected`);
  wire.refuse = () => false;
  await eventually(() => log.leading);
  assert.equal((await append(await createTopic('after-the-tries'))).error, 0);
});

test('what has timed out is let go while there is no lead, and is not in the log afterwards', async t => {
  const { wire, log, createTopic, append, partition } = await openWired(t);
  const topic = await createTopic('timed-out');
  await append(topic);
  wire.refuse = () => true;
  wire.cut();
  await eventually(() => !log.leading);
  const late = log.append(topic, partition(topic), batchOf(1), -1, false);
  const kept = append(topic, 3);
  await late.expire(ErrorCode.REQUEST_TIMED_OUT); // its bytes are needed no more
  assert.equal((await late.result).error, ErrorCode.REQUEST_TIMED_OUT);
  assert.equal(log.leading, false);
  wire.refuse = () => false;
  assert.deepEqual(await kept, { error: 0, baseOffset: 1n, logAppendTime: -1n });
  assert.equal(partition(topic).highWatermark, 4n);
});

test('what times out while its partition is being opened is let go when the lead is lost then', async t => {
  const { wire, log, createTopic, append, partition } = await openWired(t);
  const topic = await createTopic('opened-too-late', 2);
  await append(topic);
  const blocker = await database.pool.connect();
  await blocker.query('BEGIN; LOCK TABLE kafka.producer_snapshots');
  const late = log.append(topic, partition(topic, 1), batchOf(1), -1, false);
  await eventually(async () => {
    const { rows } = await blocker.query(
      `SELECT FROM pg_locks WHERE NOT granted AND relation = 'kafka.producer_snapshots'::regclass`,
    );
    return rows.length > 0;
  });
  wire.refuse = () => true;
  wire.cut();
  await eventually(() => !log.leading);
  const letGo = late.expire(ErrorCode.REQUEST_TIMED_OUT);
  await new Promise(setImmediate); // it is not in the queue: the writer has it
  await blocker.query('ROLLBACK');
  blocker.release();
  await letGo;
  assert.equal(log.leading, false);
  wire.refuse = () => false;
  assert.deepEqual(await append(topic, 1, 1), { error: 0, baseOffset: 0n, logAppendTime: -1n });
});

test('a topic that is deleted by another session fails its own appends only, and as one that is unknown', async t => {
  const { log, createTopic, append } = await openLog(database);
  t.after(() => log.stop());
  const [deleted, kept] = [await createTopic('deleted-by-sql'), await createTopic('not-deleted')];
  await Promise.all([append(deleted), append(kept)]);
  await log.stop();
  // Of a new term, so that the first append of each partition notes its epoch: a row that refers to the topic.
  const again = await openLog(database);
  t.after(() => again.log.stop());
  const [found, alsoFound] = ['deleted-by-sql', 'not-deleted'].map(name => again.topics.get(name)!);
  await database.pool.query('DELETE FROM kafka.topics WHERE topic_id = $1', [found!.id]);
  const answers = await Promise.all([again.append(found!), again.append(alsoFound!), again.append(found!)]);
  assert.deepEqual(
    answers.map(({ error, baseOffset }) => [error, baseOffset]),
    [
      [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1n],
      [ErrorCode.NONE, 1n],
      [ErrorCode.UNKNOWN_TOPIC_OR_PARTITION, -1n],
    ],
  );
});

test('what was created and written after the start survives the start of another term that needs several tries', async t => {
  const other = await createDatabase();
  const { wire, log, createTopic, append, partition } = await openWired(t, {}, other);
  t.after(() => other.drop());
  const topic = await createTopic('the-first-topic');
  wire.connections = 0;
  wire.refuse = before => before < 3;
  const { load } = log.segments;
  let loads = 0;
  log.segments.load = () => {
    loads++;
    return load.call(log.segments);
  };
  wire.cut();
  await eventually(() => wire.connections > 3 && log.leading);
  assert.equal((await append(topic)).error, 0);
  assert.equal(partition(topic).highWatermark, 1n);
  assert.equal(loads, 0, 'partitions that appends hold already would be replaced');
});

const mebibyte = 1024 * 1024;

function largeBatch(timestamp = 0n): Buffer {
  return buildBatch({ records: [{ timestamp, value: Buffer.alloc(mebibyte, 'x') }] });
}

async function writersIdleInTransaction(): Promise<number> {
  const { rows } = await database.pool.query(
    `SELECT FROM pg_stat_activity WHERE datname = current_database()
       AND application_name = 'millrace writer' AND state = 'idle in transaction'`,
  );
  return rows.length;
}

test('a group whose COMMIT is refused takes those with it that were copied meanwhile, and they follow without a hole', async t => {
  const { log, createTopic, append, partition } = await openLog(database, { writers: 2 });
  t.after(() => log.stop());
  const topic = await createTopic('refused-at-commit');
  await append(topic);
  const [segment] = log.segments.unsealed(topic.id);
  // Refuses once another writer has copied its group, and waits to commit.
  await database.pool.query(`
    CREATE FUNCTION refuse_when_followed() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      FOR i IN 1..1000 LOOP
        PERFORM pg_stat_clear_snapshot();
        IF EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'millrace writer'
            AND datname = current_database() AND state = 'idle in transaction' AND pid <> pg_backend_pid()) THEN
          RAISE EXCEPTION 'refused for the test';
        END IF;
        PERFORM pg_sleep(0.002);
      END LOOP;
    END $$;
    CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON kafka.segment_${segment!.id} DEFERRABLE INITIALLY DEFERRED
      FOR EACH ROW WHEN (new.max_timestamp = 666) EXECUTE FUNCTION refuse_when_followed();`);
  const send = (batch: Buffer) => log.append(topic, partition(topic), batch, -1, false).result;
  const first = [send(largeBatch(666n)), send(largeBatch()), send(largeBatch())];
  const behind = Array.from({ length: 6 }, () => send(largeBatch()));
  for (const { error, baseOffset } of await Promise.all(first)) {
    assert.deepEqual([error, baseOffset], [ErrorCode.UNKNOWN_SERVER_ERROR, -1n]);
  }
  assert.deepEqual(
    (await Promise.all(behind)).map(({ error, baseOffset }) => [error, baseOffset]),
    [1n, 2n, 3n, 4n, 5n, 6n].map(offset => [ErrorCode.NONE, offset]),
  );
  const { rows } = await database.pool.query<{ first: bigint; last: bigint; records: bigint }>(
    `SELECT min(base_offset) AS first, max(last_offset) AS last, count(*) AS records FROM kafka.segment_${segment!.id}`,
  );
  assert.deepEqual(rows, [{ first: 0n, last: 6n, records: 7n }]);
  assert.equal(partition(topic).highWatermark, 7n);
});

test('a group that is copied gives way to one before it that waits for a lock', async t => {
  const { log, createTopic, append, partition } = await openLog(database, { writers: 2 });
  t.after(() => log.stop());
  const [locked, free] = [await createTopic('locked'), await createTopic('free')];
  await Promise.all([append(locked), append(free)]);
  const [segment] = log.segments.unsealed(locked.id);
  const blocker = await database.pool.connect();
  await blocker.query(`BEGIN; LOCK TABLE kafka.segment_${segment!.id}`);
  const first = append(locked);
  await eventually(async () => {
    const { rows } = await database.pool.query(
      `SELECT FROM pg_locks WHERE NOT granted AND relation = 'kafka.segment_${segment!.id}'::regclass`,
    );
    return rows.length > 0;
  });
  const send = () => log.append(free, partition(free), largeBatch(), -1, false).result;
  const behind = [send(), send()];
  await eventually(async () => (await writersIdleInTransaction()) === 1);
  await eventually(async () => (await writersIdleInTransaction()) === 0); // what it holds may be what the lock's holder waits for
  assert.equal(partition(free).highWatermark, 1n);
  await blocker.query('ROLLBACK');
  blocker.release();
  assert.equal((await first).baseOffset, 1n);
  assert.deepEqual(
    (await Promise.all(behind)).map(({ error, baseOffset }) => [error, baseOffset]),
    [1n, 2n].map(offset => [ErrorCode.NONE, offset]),
  );
});

test('global offsets rise in the order of commits, over all partitions and connections', async t => {
  const { log, createTopic, append, partition } = await openLog(database, { writers: 3 });
  t.after(() => log.stop());
  const topic = await createTopic('in-commit-order', 4);
  const ids = [0, 1, 2, 3];
  await Promise.all(ids.map(id => append(topic, 1, id)));
  const [segment] = log.segments.unsealed(topic.id);
  const appended = Array.from(
    { length: 40 },
    (_, i) => log.append(topic, partition(topic, i % 4), largeBatch(), -1, false).result,
  );
  // A reader who has seen up to some global offset never finds a lower one later.
  const found = new Set<bigint>();
  let newest = -1n;
  const look = async (): Promise<void> => {
    const { rows } = await database.pool.query<{ global_offset: bigint }>(
      `SELECT global_offset FROM kafka.segment_${segment!.id} ORDER BY 1`,
    );
    const fresh = rows.map(row => row.global_offset).filter(offset => !found.has(offset));
    for (const offset of fresh) {
      assert.ok(offset > newest, `${offset} appeared after ${newest}`);
      found.add(offset);
    }
    newest = fresh.at(-1) ?? newest;
  };
  let done = false;
  const looking = (async () => {
    while (!done) await look();
  })();
  for (const { error } of await Promise.all(appended)) assert.equal(error, ErrorCode.NONE);
  done = true;
  await looking;
  await look();
  assert.equal(found.size, 44);
});
