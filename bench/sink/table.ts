// The table that all systems write to, in the log's own database, and how far it has come by the markers in it.
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import { createMetrics } from '../../examples/metrics/metric.ts';
import { markerDevice, partitions } from './stream.ts';

const role = 'bench';
const password = 'bench';
const pollMs = 20;
/** Of a table that does not come to its end. */
const patienceMs = 300_000;

interface Marker {
  readonly partition: number;
  readonly ordinal: number;
  readonly value: number;
}

export class MetricsTable {
  readonly url: string;
  readonly #client: pg.Client;
  #ordinals: number[] = [];

  private constructor(client: pg.Client, url: string) {
    this.#client = client;
    this.url = url;
  }

  /** `url`: of a superuser. The table as in the reference, with its key and both indexes. */
  static async open(url: string): Promise<MetricsTable> {
    const client = new pg.Client({ connectionString: url, application_name: 'millrace-bench' });
    client.on('error', () => {}); // a query tells; when the run is interrupted, Millrace stops its server
    await client.connect();
    await client.query(`DROP TABLE IF EXISTS metrics; ${createMetrics}`);
    await client.query(`DO $$ BEGIN CREATE ROLE ${role} LOGIN SUPERUSER PASSWORD '${password}';
      EXCEPTION WHEN duplicate_object THEN NULL; END $$`);
    // Without it JDBC's sink cannot write a uuid by UNNEST.
    await client.query(`DO $$ BEGIN CREATE CAST (text AS uuid) WITH INOUT AS ASSIGNMENT;
      EXCEPTION WHEN duplicate_object THEN NULL; END $$`);
    return new MetricsTable(client, url);
  }

  async end(): Promise<void> {
    await this.#client.end();
  }

  /** For clients that connect over TCP. */
  get tcp(): { readonly host: string; readonly database: string; readonly user: string; readonly password: string } {
    const { port, pathname } = new URL(this.url);
    return { host: `127.0.0.1:${port}`, database: pathname.slice(1), user: role, password };
  }

  /** Empty, with nothing left to be written of what was before. */
  async empty(autovacuum: boolean): Promise<void> {
    this.#ordinals = new Array(partitions).fill(0);
    await this.#client.query(`ALTER TABLE metrics SET (autovacuum_enabled = ${autovacuum})`);
    await this.#client.query('TRUNCATE metrics');
    await this.#client.query('CHECKPOINT');
  }

  async rows(): Promise<number> {
    const { rows } = await this.#client.query<{ count: string }>('SELECT count(*) FROM metrics');
    return Number(rows[0]!.count);
  }

  /** Those that have come since the last look. */
  async newMarkers(): Promise<Marker[]> {
    const { rows } = await this.#client.query<Marker>({
      name: 'markers',
      text: `SELECT m.metric_name AS partition, (extract(epoch FROM m.published_at) * 1000)::int AS ordinal, m.value
        FROM unnest($2::smallint[], $3::float8[]) AS g (partition, ordinal)
        JOIN LATERAL (SELECT * FROM metrics WHERE device_id = $1 AND metric_name = g.partition
          AND published_at > to_timestamp(g.ordinal / 1000)) m ON true ORDER BY 2`,
      values: [markerDevice, this.#ordinals.map((_, partition) => partition), this.#ordinals],
    });
    for (const { partition, ordinal } of rows) this.#ordinals[partition] = ordinal;
    return rows;
  }

  /** Records whose rows are there, to the last marker of each partition. */
  async progress(): Promise<number> {
    await this.newMarkers();
    return this.#ordinals.reduce((sum, one) => sum + one, 0);
  }

  /** Resolves with how many there are once there are at least `records`. `failed`: why there will not be. */
  async reached(records: number, failed: () => Promise<string | undefined>): Promise<number> {
    const deadline = Date.now() + patienceMs;
    for (let looks = 1; ; looks++) {
      const now = await this.progress();
      if (now >= records) return now;
      const late = Date.now() > deadline ? 'the time is up' : undefined;
      const why = late ?? (looks % 50 === 0 ? await failed() : undefined);
      if (why !== undefined) throw new Error(`the table has ${now} of ${records} records: ${why}`);
      await delay(pollMs);
    }
  }
}
