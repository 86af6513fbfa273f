// The captures' crash loop into a remote cluster of the drill's own, which is killed as well: a second Millrace, or an
// Apache Kafka. Read with kafkajs.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startKafka } from '../../compat/kafka/kafka.ts';
import { createDatabase } from '../database.ts';
import { freePort } from '../free-port.ts';
import { readRemote } from '../read-remote.ts';
import { captureRounds, type Rounds, type RoundsTarget } from './capture-rounds.ts';
import { TestServer } from './server.ts';

export type RoundsInto = Omit<Rounds, 'target'>;

/** Returns how many changes there were. Throws when what was captured is not what was committed. */
export async function roundsIntoMillrace(rounds: RoundsInto): Promise<number> {
  const log = await createDatabase();
  const server = await TestServer.start({ databaseUrl: log.url });
  try {
    const target: RoundsTarget = {
      bootstrap: server.address,
      async strike() {
        await server.killBroker();
        for (let tries = 1; ; tries++) {
          try {
            return await server.start();
          } catch (error) {
            // Where everything is slow its database may take longer to let it in than it waits.
            if (tries === 5 || !String(error).includes('cannot reach the database')) throw error;
          }
        }
      },
      read: topic => readRemote(server.address, topic),
    };
    return await captureRounds({ ...rounds, target });
  } finally {
    await server.remove();
    await log.drop();
  }
}

/** As `roundsIntoMillrace`; where there is Java. */
export async function roundsIntoKafka(rounds: RoundsInto): Promise<number> {
  const dataDir = mkdtempSync(join(tmpdir(), 'millrace-kafka-'));
  const port = await freePort();
  const start = () => startKafka({ port, dataDir, heap: '400M' });
  let kafka = await start();
  try {
    const target: RoundsTarget = {
      bootstrap: kafka.bootstrap,
      async strike() {
        await kafka.kill();
        kafka = await start();
      },
      read: topic => readRemote(kafka.bootstrap, topic),
    };
    return await captureRounds({ ...rounds, target });
  } finally {
    await kafka.stop();
    rmSync(dataDir, { recursive: true, force: true });
  }
}
