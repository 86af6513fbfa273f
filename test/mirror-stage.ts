// Mirrors of a log in this process, for tests whose other side is scripted (test/scripted-broker.ts).
import type { TestContext } from 'node:test';
import { pino } from 'pino';
import { readDefinition } from '../src/mirror/definition.ts';
import { Mirror } from '../src/mirror/mirror.ts';
import { settingsWith } from '../src/runtime/config.ts';
import { serverDefaults } from '../src/storage/server-defaults.ts';
import type { TestDatabase } from './database.ts';
import type { OpenLog } from './open-log.ts';
import { ScriptedBroker } from './scripted-broker.ts';

export interface MirrorStage {
  readonly broker: ScriptedBroker;
  /** Of the broker. */
  readonly bootstrap: string;
  /** Begins a mirror by the definition: one process's after another's. */
  start(definition: object): Mirror;
}

/** Ended, and its mirrors before it, when the test is over. */
export async function mirrorStage(
  t: TestContext,
  database: TestDatabase,
  { log, topics }: OpenLog,
  name: string,
): Promise<MirrorStage> {
  const broker = await ScriptedBroker.start();
  const { rows } = await database.pool.query<{ id: number }>(
    'INSERT INTO kafka.mirrors (name) VALUES ($1) RETURNING mirror_id AS id',
    [name],
  );
  const mirrors: Mirror[] = [];
  t.after(async () => {
    await Promise.all(mirrors.map(mirror => mirror.stop(AbortSignal.abort())));
    await broker.stop();
  });
  const context = {
    pool: database.pool,
    log,
    topics,
    defaults: serverDefaults(settingsWith({})),
    term: () => ({ brokerId: 1, epoch: log.epoch }),
    members: async () => new Map<string, number>(),
    offsetAt: async () => undefined,
    logger: pino({ level: process.env.MILLRACE_TEST_LOG ?? 'silent' }, pino.destination(2)),
  };
  const { host, port } = broker.address;
  return {
    broker,
    bootstrap: `${host}:${port}`,
    start(definition) {
      const mirror = new Mirror(context, { definition: readDefinition(name, definition), mirrorId: rows[0]!.id });
      mirrors.push(mirror);
      mirror.start();
      return mirror;
    },
  };
}
