// The broker as one part of the server: topics, log, groups and housekeeping on a database, behind the Kafka
// listeners. Start: take the lead, read the ends back, load groups, then listen. Stop: answer what is under way,
// then let go of the log.
import { randomBytes } from 'node:crypto';
import { hostname } from 'node:os';
import type { Logger } from 'pino';
import type { Registry } from 'prom-client';
import type { Pool } from '../postgres/pool.ts';
import { BufferPool } from '../runtime/buffer-pool.ts';
import type { Settings } from '../runtime/config.ts';
import { type Part, StoppedWhileStarting } from '../runtime/lifecycle.ts';
import { GroupStore } from '../storage/groups.ts';
import { Log } from '../storage/log.ts';
import { Offsets } from '../storage/offsets.ts';
import type { PartitionLog } from '../storage/partition-log.ts';
import { Retention } from '../storage/retention.ts';
import { segmentRules } from '../storage/segment-rules.ts';
import { serverDefaults } from '../storage/server-defaults.ts';
import { effectiveConfig } from '../storage/topic-config.ts';
import { Topics } from '../storage/topics.ts';
import { Allowance } from './allowance.ts';
import { Budget } from './budget.ts';
import type { BrokerContext } from './context.ts';
import { Dispatcher } from './dispatch.ts';
import { FetchSessions } from './fetch-sessions.ts';
import { GroupCoordinator } from './groups/coordinator.ts';
import { handlers } from './handlers/index.ts';
import { Listener } from './listener.ts';
import { observeBroker } from './metrics.ts';
import { firstRecordSince, type Lookup } from './timestamp-lookup.ts';

/**
 * Blocks kept for the next requests when no request needs them. With fewer, malloc's heap gets holes that cost more; and
 * the tasks of a sink give back 10 MB each at once and want them again: with 16 MB instead of 40 the collector takes a
 * quarter of the process's time, and the process 20 MB more (`npm run bench -- sink-insert-schemas --peers none`).
 */
const freeMemoryBytes = 40 * 1024 * 1024;

export interface BrokerOptions {
  readonly settings: Settings;
  readonly databaseUrl: string;
  /** On the same database; the broker does not end it. */
  readonly pool: Pool;
  readonly logger: Logger;
  readonly registry: Registry;
  /** Another broker has taken the database over; this one can only stop. */
  readonly onDeposed: (error: Error) => void;
}

export class Broker implements Part {
  readonly name = 'broker';
  readonly #options: BrokerOptions;
  #log: Log | undefined;
  #groups: GroupCoordinator | undefined;
  #retention: Retention | undefined;
  #listener: Listener | undefined;
  #topics: Topics | undefined;
  #lookup: Lookup | undefined;
  #stopped = false;

  constructor(options: BrokerOptions) {
    this.#options = options;
  }

  get topics(): Topics | undefined {
    return this.#topics;
  }

  get log(): Log | undefined {
    return this.#log;
  }

  /** The first offset whose record has this timestamp (ms since the epoch) or a later one. */
  async offsetAt(partition: PartitionLog, timestamp: bigint): Promise<bigint | undefined> {
    return (await firstRecordSince(this.#lookup!, partition, timestamp))?.offset;
  }

  get groups(): GroupCoordinator | undefined {
    return this.#groups;
  }

  /** Where it listens, with the ports that were taken. */
  get addresses(): { host: string; port: number }[] {
    return this.#listener?.addresses ?? [];
  }

  /** The address that clients are told. */
  get advertised(): { host: string; port: number } {
    const { kafkaAdvertised, kafka } = this.#options.settings;
    if (kafkaAdvertised) return kafkaAdvertised;
    const { host, port } = this.addresses[0] ?? kafka[0]!;
    const everywhere = host === '0.0.0.0' || host === '::';
    return { host: everywhere ? hostname() : host, port };
  }

  async start(): Promise<void> {
    const { settings, databaseUrl, pool, logger, registry, onDeposed } = this.#options;
    const brokerId = settings.nodeId;
    const defaults = serverDefaults(settings);
    const memory = new BufferPool(freeMemoryBytes);
    const term = () => ({ brokerId, epoch: this.#log!.epoch });
    const clusterId = await readClusterId(pool);
    const topics = await Topics.load(pool, term);
    this.#throwIfStopped();
    this.#topics = topics;
    const log = new Log({
      databaseUrl,
      pool,
      topics,
      segmentRules: segmentRules(defaults),
      brokerId,
      advertised: `${this.advertised.host}:${this.advertised.port}`,
      writers: settings.logWriterConnections,
      readers: settings.logReaderConnections,
      tailCacheBytes: settings.tailCacheBytes,
      memory,
      synchronousAcksOne: settings.synchronousCommitAcks1,
      logger,
      onDeposed,
    });
    this.#log = log;
    await log.start();
    const offsets = new Offsets({ pool, logger, term });
    const store = new GroupStore({ pool, logger, term });
    const groups = new GroupCoordinator({ store, offsets, topics, settings, logger, registry });
    this.#groups = groups;
    await groups.start();
    this.#throwIfStopped();
    this.#retention = new Retention({
      pool,
      log,
      topics,
      settingsOf: topic => effectiveConfig(topic, defaults),
      brokerId,
      intervalMs: settings.logRetentionCheckIntervalMs,
      producerIdExpirationMs: settings.producerIdExpirationMs,
      logger,
    });
    this.#retention.start();

    const budget = new Budget(settings.inFlightBytes);
    const advertised = () => this.advertised;
    const context: BrokerContext = {
      settings,
      nodeId: brokerId,
      clusterId,
      get advertised() {
        return advertised();
      },
      topics,
      serverDefaults: defaults,
      log,
      offsets,
      groups,
      fetchSessions: new FetchSessions(settings.maxIncrementalFetchSessionCacheSlots),
      budget,
      inflation: new Allowance(settings.inFlightBytes),
      logger,
      served: handlers.map(({ api, versions }) => ({ key: api.key, versions })),
    };
    this.#lookup = context;
    const listener = new Listener({
      addresses: settings.kafka,
      maxConnections: settings.maxConnections,
      logConnections: settings.logConnections,
      dispatcher: new Dispatcher(handlers, context),
      budget,
      memory,
      maxRequestBytes: settings.socketRequestMaxBytes,
      maxInFlightBytes: settings.connectionInFlightBytes,
      maxIdleMs: settings.connectionsMaxIdleMs,
      logger,
      onServed: observeBroker(registry, { log, topics, budget, connections: () => listener.connections }),
    });
    this.#listener = listener;
    await listener.start();
    if (this.#stopped) listener.abandon();
    this.#throwIfStopped();
  }

  /** Begins no more requests; answers those under way, waiting members of groups with an error they try again. */
  async drain(): Promise<void> {
    await Promise.all([this.#listener?.drain(), this.#groups?.stop()]);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#listener?.abandon();
    await this.#groups?.stop();
    await this.#retention?.stop();
    await this.#log?.stop();
    this.#listener = undefined;
    this.#retention = undefined;
    this.#log = undefined;
  }

  /** What is started from here on nobody would stop. */
  #throwIfStopped(): void {
    if (this.#stopped) throw new StoppedWhileStarting();
  }
}

/** Made once for a database: 16 random bytes as Kafka writes them, base64 for URLs. */
async function readClusterId(pool: Pool): Promise<string> {
  await pool.query('INSERT INTO kafka.cluster (cluster_id) SELECT $1 WHERE NOT EXISTS (SELECT FROM kafka.cluster)', [
    randomBytes(16).toString('base64url'),
  ]);
  const { rows } = await pool.query<{ cluster_id: string }>(
    'SELECT cluster_id FROM kafka.cluster ORDER BY created_at LIMIT 1',
  );
  return rows[0]!.cluster_id;
}
