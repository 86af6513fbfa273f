// What is done to a Millrace in rounds of faults, and asking its database meanwhile.
import assert from 'node:assert/strict';
import { setTimeout as delay } from 'node:timers/promises';
import type pg from 'pg';
import type { Random } from './random.ts';
import type { TestServer } from './server.ts';

/** both: PostgreSQL and the broker; stop: as a person does. */
export type ServerFault = 'broker' | 'both' | 'stop' | 'postgres' | 'postmaster' | 'backend';

/** The server runs in the end; its PostgreSQL may still recover. */
export async function strikeServer(server: TestServer, fault: ServerFault, random: Random): Promise<void> {
  if (fault === 'postgres' || fault === 'both') server.killPostgres();
  if (fault === 'postmaster') server.killPostmaster();
  if (fault === 'backend') server.killBackend(random);
  if (fault === 'stop') await server.stop();
  if (fault === 'broker' || fault === 'both') await server.killBroker();
  if (!server.running) await server.start();
}

export function endSessions(server: TestServer, which: string): Promise<unknown> {
  return eventually(server, client =>
    client.query(`SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE ${which}`),
  );
}

/** Tries again while PostgreSQL is not there. What it did whose answer was lost may be done twice. */
export async function eventually<T>(server: TestServer, work: (client: pg.Client) => Promise<T>): Promise<T> {
  for (const deadline = Date.now() + 240_000; ; ) {
    try {
      const client = await server.sql();
      try {
        return await work(client);
      } finally {
        await client.end().catch(() => {});
      }
    } catch (error) {
      if (error instanceof assert.AssertionError || Date.now() > deadline) throw error;
      await delay(100);
    }
  }
}
