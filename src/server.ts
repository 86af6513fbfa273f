// The composition root: what a Millrace is made of, the order it starts in, and so the order it stops in. The only
// file that sees everything.
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Broker } from './broker/broker.ts';
import { readOverview } from './broker/overview.ts';
import { Captures } from './capture/captures.ts';
import { observeCaptures } from './capture/metrics.ts';
import { Deliveries } from './deliver/deliveries.ts';
import { observeDeliveries } from './deliver/metrics.ts';
import { deliveryRoutes } from './deliver/routes.ts';
import { observeWebhooks } from './deliver/webhooks/metrics.ts';
import { webhookRoutes } from './deliver/webhooks/routes.ts';
import { HttpServer } from './http/server.ts';
import type { Status } from './http/status.ts';
import { observeMirrors } from './mirror/metrics.ts';
import { Mirrors } from './mirror/mirrors.ts';
import { setAutovacuum } from './postgres/autovacuum.ts';
import { checkDatabase } from './postgres/check.ts';
import { EmbeddedPostgres } from './postgres/embedded.ts';
import { MigrationError, migrate } from './postgres/migrate.ts';
import { openPool, type Pool } from './postgres/pool.ts';
import type { Address, Settings } from './runtime/config.ts';
import { codeOf, messageOf, OperationalError } from './runtime/errors.ts';
import { Lifecycle } from './runtime/lifecycle.ts';
import { assertFree, isLoopback, isWildcard } from './runtime/listening.ts';
import type { Logger } from './runtime/logger.ts';
import { createRegistry, type Registry } from './runtime/metrics.ts';
import { formatAddress } from './runtime/setting-types.ts';
import { version } from './runtime/version.ts';
import { observeSinks } from './sink/metrics.ts';
import { Sinks } from './sink/sinks.ts';
import { serverDefaults } from './storage/server-defaults.ts';
import { effectiveConfig } from './storage/topic-config.ts';

const readinessTimeoutMs = 2000;
const maxGroupsShown = 500;

export interface Database {
  /** For a person: what it is and where. */
  readonly description: string;
  readonly url: string;
  readonly embedded: EmbeddedPostgres | undefined;
}

export class Server {
  readonly settings: Settings;
  readonly logger: Logger;
  readonly registry: Registry = createRegistry();
  readonly startedAt = new Date();
  /** Rejects when something that Millrace cannot do without has ended for good. */
  readonly failed: Promise<never>;
  readonly #fail: (error: Error) => void;
  readonly #lifecycle: Lifecycle;
  readonly #http: HttpServer;
  #database: Database | undefined;
  #pool: Pool | undefined;
  #broker: Broker | undefined;
  #captures: Captures | undefined;
  #sinks: Sinks | undefined;
  #mirrors: Mirrors | undefined;
  #deliveries: Deliveries | undefined;

  constructor(settings: Settings, logger: Logger) {
    this.settings = settings;
    this.logger = logger;
    this.#lifecycle = new Lifecycle(logger);
    const { promise, reject } = failure();
    this.failed = promise;
    this.#fail = reject;
    this.#http = new HttpServer({
      address: settings.http,
      tls: tlsOf(settings),
      registry: this.registry,
      profiling: settings.profiling,
      readiness: () => this.#readiness(),
      readStatus: () => this.#readStatus(),
      captures: () => this.#captures,
      sinks: () => this.#sinks,
      mirrors: () => this.#mirrors,
      inboxes: () => this.#deliveries,
      more: app => {
        deliveryRoutes(app, () => this.#deliveries);
        webhookRoutes(app, () => this.#deliveries);
      },
    });
  }

  /** As it is reached from here. */
  get httpUrl(): string {
    const { host, port } = this.#http.address;
    const scheme = this.settings.httpTlsCert === null ? 'http' : 'https';
    return `${scheme}://${formatAddress({ host: isWildcard(host) ? 'localhost' : host, port })}`;
  }

  get kafka(): readonly Address[] {
    return this.#broker?.addresses ?? this.settings.kafka;
  }

  /** Once started. */
  get database(): Database {
    return this.#database!;
  }

  /** Starts everything or nothing. */
  async start(): Promise<void> {
    try {
      await this.#start();
    } catch (error) {
      await this.stop();
      throw error;
    }
  }

  stop(): Promise<void> {
    return this.#lifecycle.stop(this.settings.shutdownTimeoutMs);
  }

  /** Gives up what stop() still waits for. */
  hurry(): void {
    this.#lifecycle.hurry();
  }

  async #start(): Promise<void> {
    this.#warnOfPublicListeners();
    if (this.settings.broker) for (const address of this.settings.kafka) await assertFree('Kafka', address);
    await assertFree('HTTP', this.settings.http);

    // PostgreSQL is the first to start and so the last to stop; HTTP listens before it is up.
    const database = this.#chooseDatabase();
    this.#lifecycle.add(this.#http);
    await database.prepare();
    await allOf([database.start(), this.#http.start()]);

    const { url } = this.database;
    const pool = openPool(url, {
      max: this.settings.databasePoolSize,
      applicationName: 'millrace',
      onError: error => this.logger.warn({ error: error.message }, 'lost an idle database connection'),
    });
    this.#lifecycle.add({ name: 'pool', stop: () => pool.end() });
    await this.#migrate(pool);
    await setAutovacuum(pool, this.settings.autovacuumHotTables);
    this.#pool = pool;

    if (this.settings.broker) {
      const broker = new Broker({
        settings: this.settings,
        databaseUrl: url,
        pool,
        logger: this.logger,
        registry: this.registry,
        onDeposed: error => this.#fail(error),
      });
      this.#lifecycle.add(broker);
      await broker.start();
      this.#broker = broker;
      await this.#startCaptures(broker, pool);
      await this.#startSinks(broker, pool);
      await this.#startMirrors(broker, pool);
    }
    await this.#startDeliveries(pool);

    this.#lifecycle.ready();
  }

  async #startCaptures(broker: Broker, pool: Pool): Promise<void> {
    const { settings, logger } = this;
    const { url, embedded } = this.database;
    const log = broker.log!;
    const defaults = serverDefaults(settings);
    const sqlProduces = settings.sqlProduce === 'on';
    const captures = new Captures({
      context: {
        databaseUrl: url,
        pool,
        log,
        topics: broker.topics!,
        settingsOf: topic => effectiveConfig(topic, defaults),
        term: () => ({ brokerId: settings.nodeId, epoch: log.epoch }),
        defaultPartitions: settings.numPartitions,
        spoolDirectory: settings.captureSpoolDir ?? join(embedded?.directory.path ?? tmpdir(), 'spool'),
        logger,
      },
      definitions: settings.captures,
      references: { env: process.env, cwd: process.cwd() },
      produce: sqlProduces
        ? { autoCreate: settings.autoCreateTopicsEnable, maxMessageBytes: settings.messageMaxBytes }
        : undefined,
    });
    this.#lifecycle.add(captures);
    observeCaptures(this.registry, () => captures.status());
    await captures.start();
    this.#captures = captures;
  }

  async #startSinks(broker: Broker, pool: Pool): Promise<void> {
    const { settings, logger } = this;
    const log = broker.log!;
    const defaults = serverDefaults(settings);
    const sinks = new Sinks({
      context: {
        databaseUrl: this.database.url,
        pool,
        log,
        topics: broker.topics!,
        settingsOf: topic => effectiveConfig(topic, defaults),
        term: () => ({ brokerId: settings.nodeId, epoch: log.epoch }),
        logger,
      },
      definitions: settings.sinks,
      references: { env: process.env, cwd: process.cwd() },
    });
    this.#lifecycle.add(sinks);
    observeSinks(this.registry, () => sinks.status());
    await sinks.start();
    this.#sinks = sinks;
  }

  async #startMirrors(broker: Broker, pool: Pool): Promise<void> {
    const { settings, logger } = this;
    const log = broker.log!;
    const mirrors = new Mirrors({
      context: {
        pool,
        log,
        topics: broker.topics!,
        defaults: serverDefaults(settings),
        term: () => ({ brokerId: settings.nodeId, epoch: log.epoch }),
        logger,
        members: async groups => {
          const described = await broker.groups!.describe(groups);
          return new Map(described.map(({ groupId, members }) => [groupId, members.length]));
        },
        offsetAt: (partition, timestamp) => broker.offsetAt(partition, timestamp),
      },
      definitions: settings.mirrors,
      references: { env: process.env, cwd: process.cwd() },
    });
    this.#lifecycle.add(mirrors);
    observeMirrors(this.registry, () => mirrors.status());
    await mirrors.start();
    this.#mirrors = mirrors;
  }

  async #startDeliveries(pool: Pool): Promise<void> {
    const { settings, logger } = this;
    const { log, topics } = this.#broker ?? {};
    const deliveries = new Deliveries({
      databaseUrl: this.database.url,
      pool,
      logger,
      definitions: settings.inboxes,
      access: {
        jwtKey: settings.deliverJwtKey,
        jwtKeyFile: settings.secretFiles.deliverJwtKey,
        jwtIssuer: settings.deliverJwtIssuer,
        jwtAudience: settings.deliverJwtAudience,
        urlKey: settings.deliverUrlKey,
        urlKeyFile: settings.secretFiles.deliverUrlKey,
        corsOrigins: settings.deliverCorsOrigins,
        host: settings.http.host,
      },
      limits: {
        connections: settings.deliverMaxConnections,
        connectionsPerSubscriber: settings.deliverMaxConnectionsPerSubscriber,
        requestsPerSecond: settings.deliverRequestsPerSecond,
        bufferBytes: settings.deliverBufferBytes,
        stallMs: settings.deliverStallMs,
        heartbeatMs: settings.deliverHeartbeatMs,
        compression: settings.deliverCompression,
      },
      webhooks: {
        workers: settings.deliverWebhookWorkers,
        leaseMs: settings.deliverWebhookLeaseMs,
        pollMs: settings.deliverWebhookPollMs,
        allow: settings.deliverWebhookAllow,
      },
      references: { env: process.env, cwd: process.cwd() },
      ingest: log && topics && { log, topics, term: () => ({ brokerId: settings.nodeId, epoch: log.epoch }) },
    });
    this.#lifecycle.add(deliveries);
    observeDeliveries(this.registry, () => deliveries.status());
    observeWebhooks(this.registry, () => deliveries.webhooks());
    await deliveries.start();
    this.#deliveries = deliveries;
  }

  #chooseDatabase(): { prepare(): Promise<void>; start(): Promise<void> } {
    const { databaseUrl } = this.settings;
    if (databaseUrl !== null) return { prepare: async () => {}, start: () => this.#checkExternal(databaseUrl) };
    const embedded = new EmbeddedPostgres({
      dataDir: this.settings.dataDir,
      logger: this.logger,
      onFailure: error => this.#fail(error),
    });
    this.#lifecycle.add({ name: 'postgres', stop: hurry => embedded.stop(hurry) });
    return {
      prepare: () => embedded.prepare(),
      start: async () => {
        await embedded.start();
        const description = `embedded PostgreSQL, data in ${embedded.directory.path}`;
        this.#database = { description, url: embedded.url, embedded };
      },
    };
  }

  async #checkExternal(url: string): Promise<void> {
    const { databasePoolSize, logWriterConnections, logReaderConnections } = this.settings;
    // One more holds the leadership, one hears of webhooks.
    const report = await checkDatabase(url, databasePoolSize + logWriterConnections + logReaderConnections + 2);
    for (const warning of report.warnings) this.logger.warn({ database: report.database }, warning);
    const description = `PostgreSQL ${report.version}, database ${report.database} as ${report.role}`;
    this.#database = { description, url, embedded: undefined };
  }

  async #migrate(pool: Pool): Promise<void> {
    try {
      const applied = await migrate(pool);
      if (applied.length > 0) this.logger.info({ migrations: applied }, 'brought schema kafka up to date');
    } catch (error) {
      if (error instanceof MigrationError) {
        const [message = '', hint = ''] = error.message.split('; ');
        throw new OperationalError(message, { code: 'SCHEMA', hint, cause: error });
      }
      if (codeOf(error) === '42501') {
        throw new OperationalError(`the role may not make what schema kafka needs (${messageOf(error)})`, {
          code: 'DATABASE_PERMISSION',
          hint: 'connect as the owner of schema kafka',
          cause: error,
        });
      }
      throw error;
    }
  }

  #warnOfPublicListeners(): void {
    const { kafka, http } = this.settings;
    for (const address of [...kafka, http]) {
      if (isLoopback(address.host)) continue;
      this.logger.warn({ address: formatAddress(address) }, 'listening beyond this machine, without authentication');
    }
  }

  async #readiness(): Promise<string | undefined> {
    if (this.#lifecycle.state !== 'ready') return this.#lifecycle.state;
    if (this.settings.broker && !this.#broker?.log?.leading) return 'the broker does not lead the log at the moment';
    const answer = this.#pool!.query('SELECT').then(
      () => undefined,
      (error: unknown) => `the database does not answer (${messageOf(error)})`,
    );
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<string>(resolve => {
      timer = setTimeout(resolve, readinessTimeoutMs, 'the database does not answer');
    });
    return Promise.race([answer, late]).finally(() => clearTimeout(timer));
  }

  async #readStatus(): Promise<Status | undefined> {
    const pool = this.#pool;
    if (pool === undefined) return undefined;
    const { rows } = await pool.query<{ bytes: bigint }>('SELECT pg_database_size(current_database()) AS bytes');
    const { topics, log, groups } = this.#broker ?? {};
    const overview = topics && log && groups && (await readOverview({ topics, log, groups, pool }, maxGroupsShown));
    return {
      version,
      startedAt: this.startedAt,
      kafka: this.kafka.map(formatAddress).join(', '),
      database: this.database.description,
      databaseBytes: rows[0]!.bytes,
      topics: overview?.topics ?? [],
      groups: overview?.groups ?? [],
      captures: this.#captures?.status() ?? [],
    };
  }
}

/** All of them, and when one fails not before the others have ended too: what is stopped must not still be starting. */
async function allOf(works: readonly Promise<void>[]): Promise<void> {
  await Promise.allSettled(works);
  await Promise.all(works);
}

function failure(): { promise: Promise<never>; reject: (error: Error) => void } {
  let reject: (error: Error) => void = () => {};
  const promise = new Promise<never>((_, rejectPromise) => {
    reject = rejectPromise;
  });
  promise.catch(() => {}); // whoever cares awaits it
  return { promise, reject };
}

/** Throws an OperationalError where one of the two is missing. */
function tlsOf({ httpTlsCert: cert, httpTlsKey: key }: Settings): { cert: string; key: string } | undefined {
  if (cert !== null && key !== null) return { cert, key };
  if (cert === null && key === null) return undefined;
  throw new OperationalError(`${cert === null ? 'http.tls.cert' : 'http.tls.key'} is not set, and the other is`, {
    code: 'BAD_SETTING',
    hint: 'set both, or neither',
  });
}
