// Kafka Connect's schemas, as JsonConverter writes them beside a payload.

export interface ConnectSchema {
  /** int8, int16, int32, int64, float32, float64 (or float, double), boolean, string, bytes, array, map, struct. */
  readonly type: string;
  readonly optional?: boolean;
  /** The field's name in its struct. */
  readonly field?: string;
  /** The logical type. */
  readonly name?: string;
  readonly parameters?: Readonly<Record<string, string>>;
  readonly fields?: readonly ConnectSchema[];
  readonly items?: ConnectSchema;
  readonly default?: unknown;
}

/** Whether a value is an envelope of schema and payload; a null schema goes with any payload. */
export function isEnvelope(value: unknown): value is { schema: ConnectSchema | null; payload: unknown } {
  if (typeof value !== 'object' || value === null || !('schema' in value) || !('payload' in value)) return false;
  const { schema } = value;
  return schema === null || (typeof schema === 'object' && 'type' in schema && Object.keys(value).length === 2);
}

const byLogicalName: Readonly<Record<string, string>> = {
  'org.apache.kafka.connect.data.Decimal': 'numeric',
  'org.apache.kafka.connect.data.Date': 'date',
  'org.apache.kafka.connect.data.Time': 'time',
  'org.apache.kafka.connect.data.Timestamp': 'timestamptz',
  'io.debezium.time.Date': 'date',
  'io.debezium.time.Time': 'time',
  'io.debezium.time.MicroTime': 'time',
  'io.debezium.time.NanoTime': 'time',
  'io.debezium.time.ZonedTime': 'timetz',
  'io.debezium.time.Timestamp': 'timestamp',
  'io.debezium.time.MicroTimestamp': 'timestamp',
  'io.debezium.time.NanoTimestamp': 'timestamp',
  'io.debezium.time.ZonedTimestamp': 'timestamptz',
  'io.debezium.time.MicroDuration': 'interval',
  'io.debezium.time.Interval': 'interval',
  'io.debezium.data.VariableScaleDecimal': 'numeric',
  'io.debezium.data.Json': 'jsonb',
  'io.debezium.data.Uuid': 'uuid',
  'io.debezium.data.Xml': 'xml',
  'io.debezium.data.geometry.Point': 'point',
};

const byType: Readonly<Record<string, string>> = {
  int8: 'smallint',
  int16: 'smallint',
  int32: 'integer',
  int64: 'bigint',
  float: 'real',
  float32: 'real',
  double: 'double precision',
  float64: 'double precision',
  boolean: 'boolean',
  string: 'text',
  bytes: 'bytea',
  map: 'jsonb',
  struct: 'jsonb',
};

/** The type of a column that is made for a field. */
export function sqlTypeOf(schema: ConnectSchema): string {
  const logical = byLogicalName[schema.name ?? ''];
  if (logical !== undefined) return logical;
  if (schema.type === 'array') return schema.items ? `${sqlTypeOf(schema.items)}[]` : 'jsonb';
  return byType[schema.type] ?? 'jsonb';
}

/** The same for a value without a schema; undefined for null, which says nothing. */
export function sqlTypeOfValue(value: unknown): string | undefined {
  if (value === null || value === undefined) return undefined;
  if (typeof value === 'string') return 'text';
  if (typeof value === 'boolean') return 'boolean';
  if (typeof value === 'number') return Number.isInteger(value) ? 'bigint' : 'double precision';
  return Array.isArray(value) || Object.getPrototypeOf(value) === Object.prototype ? 'jsonb' : 'numeric';
}
