// A measurement of a device as records carry it: the key is what identifies it, the value what was measured. Both in JSON,
// alone or in Kafka Connect's envelope with its schema.
import { randomBytes } from 'node:crypto';

/** How the table codes them. */
export const metricCodes = { temperature: 0, humidity: 10, pressure: 20, CO2: 30, light: 40, sound: 50 } as const;
const codes = Object.values(metricCodes);

const words =
  'alpha bravo charlie delta echo foxtrot golf hotel india juliett kilo lima mike november oscar papa quebec romeo'.split(
    ' ',
  );

export interface Metric {
  readonly deviceId: string;
  readonly metricName: number;
  /** Milliseconds since the epoch. */
  readonly publishedAt: number;
  readonly value: number;
  readonly tags: readonly string[];
}

const dayMs = 86_400_000;

/** A value from 0 to 100 at some time of the last day, with 3 to 7 words. */
export function randomMetric(deviceId: string, now: number): Metric {
  const tags: string[] = [];
  for (let count = 3 + Math.floor(Math.random() * 5); count > 0; count--) {
    tags.push(words[Math.floor(Math.random() * words.length)]!);
  }
  return {
    deviceId,
    metricName: codes[Math.floor(Math.random() * codes.length)]!,
    publishedAt: now - Math.floor(Math.random() * dayMs),
    value: Math.random() * 100,
    tags,
  };
}

export function randomDevice(): string {
  const hex = randomBytes(16).toString('hex');
  const variant = '89ab'[Number.parseInt(hex[16]!, 16) & 3];
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-4${hex.slice(13, 16)}-${variant}${hex.slice(17, 20)}-${hex.slice(20)}`;
}

const struct = (name: string, fields: readonly object[]) =>
  JSON.stringify({ type: 'struct', fields, optional: false, name });

const keySchema = struct('metric_key', [
  { type: 'string', optional: false, field: 'device_id' },
  { type: 'int16', optional: false, field: 'metric_name' },
  {
    type: 'int64',
    optional: false,
    name: 'org.apache.kafka.connect.data.Timestamp',
    version: 1,
    field: 'published_at',
  },
]);
const valueSchema = struct('metric_value', [
  { type: 'double', optional: false, field: 'value' },
  { type: 'array', items: { type: 'string', optional: false }, optional: false, field: 'tags' },
]);

export interface MetricMessage {
  readonly key: string;
  readonly value: string;
}

/** With schemas the time is a number, as Connect's Timestamp; without it is ISO 8601. */
export function messageOf({ deviceId, metricName, publishedAt, value, tags }: Metric, schemas: boolean): MetricMessage {
  const time = schemas ? publishedAt : `"${new Date(publishedAt).toISOString()}"`;
  const key = `{"device_id":"${deviceId}","metric_name":${metricName},"published_at":${time}}`;
  const body = `{"value":${value},"tags":["${tags.join('","')}"]}`;
  if (!schemas) return { key, value: body };
  return { key: `{"schema":${keySchema},"payload":${key}}`, value: `{"schema":${valueSchema},"payload":${body}}` };
}

const table = `
  CREATE TABLE IF NOT EXISTS metrics (
    device_id    uuid NOT NULL,
    published_at timestamptz NOT NULL,
    metric_name  smallint NOT NULL,
    value        float8 NOT NULL,
    tags         text[],
    created_at   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (device_id, published_at, metric_name))`;
const index = 'CREATE INDEX IF NOT EXISTS metrics_name_time ON metrics (metric_name, published_at)';

export const createMetrics = `${table}; ${index}`;

/** The same in a partition for each day, which the sink makes and drops. */
export const createPartitionedMetrics = `${table} PARTITION BY RANGE (published_at); ${index}`;
