// The other side of a mirror, to be killed: a second Millrace, or an Apache Kafka.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startKafka } from '../../compat/kafka/kafka.ts';
import { freePort } from '../free-port.ts';
import { TestServer } from './server.ts';

export interface Remote {
  readonly address: string;
  /** kill -9, and started again. */
  strike(): Promise<void>;
  remove(): Promise<void>;
}

/** Kafka keeps its data in `directory`. */
const openRemote = (kind: 'millrace' | 'kafka', directory: string): Promise<Remote> =>
  kind === 'kafka' ? openKafka(directory) : openMillrace();

async function openMillrace(): Promise<Remote> {
  const server = await TestServer.start({ settings: { 'log.level': 'warn' } });
  return {
    address: server.address,
    async strike() {
      await server.killBroker();
      await server.start();
    },
    remove: () => server.remove(),
  };
}

async function openKafka(directory: string): Promise<Remote> {
  const port = await freePort();
  // Fewer to make and to load again after each kill.
  const overrides = { 'offsets.topic.num.partitions': '1', 'transaction.state.log.num.partitions': '1' };
  const start = () => startKafka({ port, dataDir: join(directory, 'kafka'), heap: '400M', overrides });
  let kafka = await start();
  return {
    address: kafka.bootstrap,
    async strike() {
      await kafka.kill();
      kafka = await start();
    },
    remove: () => kafka.stop(),
  };
}

/** Runs `work` beside a Millrace that has a mirror, whose part of millrace.yaml `mirror` makes of the other side's address. */
export async function withMirror<T>(
  kind: 'millrace' | 'kafka',
  mirror: (address: string) => string,
  work: (server: TestServer, remote: Remote) => Promise<T>,
): Promise<T> {
  const directory = mkdtempSync(join(tmpdir(), 'millrace-mirror-rounds-'));
  const remote = await openRemote(kind, directory);
  try {
    const file = join(directory, 'millrace.yaml');
    writeFileSync(file, `mirror: {${mirror(remote.address)}}\n`);
    const server = await TestServer.start({ settings: { config: file, 'log.level': 'warn' } });
    try {
      return await work(server, remote);
    } finally {
      await server.remove();
    }
  } finally {
    await remote.remove();
    rmSync(directory, { recursive: true, force: true });
  }
}
