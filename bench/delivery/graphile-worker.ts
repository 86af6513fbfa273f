// Webhooks as jobs of graphile-worker, as well as it does them: added in batches, without keys or queues; as many at once
// as the others have requests under way; sent by Millrace's own sender, so that the work outside the queue is the same. See
// peer-process.ts.
import { createRequire } from 'node:module';
import pg from 'pg';
import type { Notification } from '../../examples/notifications/notification.ts';
import { addressRule } from '../../src/deliver/webhooks/addresses.ts';
import { Sender } from '../../src/deliver/webhooks/sender.ts';
import { keyOf } from '../../src/deliver/webhooks/signature.ts';
import { graphileWorkerDirectory } from './graphile-worker-package.ts';
import { requestsAtOnce } from './notifier.ts';
import { readTopic } from './peer-source.ts';
import { secret } from './secret.ts';

interface Job {
  readonly id: string;
}
/** What is used of it. */
interface GraphileWorker {
  run(options: {
    readonly pgPool: pg.Pool;
    readonly concurrency: number;
    readonly pollInterval: number;
    readonly noHandleSignals: boolean;
    readonly logger: unknown;
    readonly taskList: Readonly<
      Record<string, (payload: Notification, helpers: { readonly job: Job }) => Promise<void>>
    >;
  }): Promise<unknown>;
  readonly Logger: new (factory: () => () => void) => unknown;
}

const [databaseUrl = '', bootstrap = '', topic = '', receiver = ''] = process.argv.slice(2);
const { run, Logger } = createRequire(`${graphileWorkerDirectory}/`)('graphile-worker') as GraphileWorker;
const timeoutMs = 15_000;
const priorities = { LOW: 2, MEDIUM: 1, HIGH: 0 } as const;

const sender = new Sender({ mayAsk: addressRule(['127.0.0.1']), maxIdle: requestsAtOnce });
const keys = [keyOf(secret)!];
/** A connection for each job that is fetched or completed. */
const pgPool = new pg.Pool({ connectionString: databaseUrl, max: 16, application_name: 'bench graphile-worker' });
await run({
  pgPool,
  concurrency: requestsAtOnce,
  pollInterval: 1000,
  noHandleSignals: true,
  logger: new Logger(() => () => {}),
  taskList: {
    async send(event, { job }) {
      const message = {
        id: job.id,
        body: JSON.stringify(event),
        headers: { 'content-type': 'application/json' },
      };
      const outcome = await sender.send(receiver, keys, message, timeoutMs);
      if (outcome.kind !== 'delivered') throw new Error(outcome.reason);
    },
  },
});

await readTopic(bootstrap, topic, async texts => {
  await pgPool.query({
    name: 'add',
    text: `SELECT FROM graphile_worker.add_jobs(ARRAY(
        SELECT ('send', payload::json, NULL, NULL, NULL, NULL, priority, NULL)::graphile_worker.job_spec
        FROM unnest($1::text[], $2::smallint[]) AS given (payload, priority)))`,
    values: [texts, texts.map(text => priorities[(JSON.parse(text) as Notification).priority])],
  });
});
process.send?.(receiver);
