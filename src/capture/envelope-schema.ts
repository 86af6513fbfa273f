// The schemas that Debezium's events carry where Kafka Connect's JSON has them: {"schema":…,"payload":…}. What stands
// before the payload is made once for each version of a table, and copied into each record.
import { asciiJson } from './json-buffer.ts';

/** One that is written before a payload; `}` comes after it. */
export const beforePayload = (schema: string): Buffer => Buffer.from(`{"schema":${schema},"payload":`);

const field = (type: string, name: string, optional = true): string =>
  `{"type":"${type}","optional":${optional},"field":${asciiJson(name)}}`;

const struct = (fields: readonly string[], rest: string): string =>
  `{"type":"struct","fields":[${fields.join(',')}],${rest}}`;

const sourceField = struct(
  [
    field('string', 'version', false),
    field('string', 'connector', false),
    field('string', 'name', false),
    field('int64', 'ts_ms', false),
    '{"type":"string","optional":true,"name":"io.debezium.data.Enum","version":1,"parameters":{"allowed":' +
      '"true,first,first_in_data_collection,last_in_data_collection,last,false,incremental"},"default":"false","field":"snapshot"}',
    field('string', 'db', false),
    field('string', 'sequence'),
    field('int64', 'ts_us'),
    field('int64', 'ts_ns'),
    field('string', 'schema', false),
    field('string', 'table', false),
    field('int64', 'txId'),
    field('int64', 'lsn'),
    field('int64', 'xmin'),
    field('string', 'origin'),
    field('int64', 'origin_lsn'),
  ],
  '"optional":false,"name":"io.debezium.connector.postgresql.Source","version":1,"field":"source"',
);

const transactionField = struct(
  [field('string', 'id', false), field('int64', 'total_order', false), field('int64', 'data_collection_order', false)],
  '"optional":true,"name":"event.block","version":1,"field":"transaction"',
);

/** `columns`: the members of each column's schema, its field's name among them. `name`: the table's topic. */
export function tableValueSchema(name: string, columns: readonly string[]): string {
  const row = (of: string) =>
    struct(
      columns.map(members => `{${members}}`),
      `"optional":true,"name":${asciiJson(`${name}.Value`)},"field":"${of}"`,
    );
  return struct(
    [
      row('before'),
      row('after'),
      sourceField,
      transactionField,
      field('string', 'op', false),
      field('int64', 'ts_ms'),
      field('int64', 'ts_us'),
      field('int64', 'ts_ns'),
    ],
    `"optional":false,"name":${asciiJson(`${name}.Envelope`)},"version":2`,
  );
}

export function tableKeySchema(name: string, columns: readonly string[]): string {
  return struct(
    columns.map(members => `{${members}}`),
    `"optional":false,"name":${asciiJson(`${name}.Key`)}`,
  );
}

const ofConnector = (name: string): string => `"optional":false,"name":"io.debezium.connector.${name}","version":1`;

export const messageKeyHead = beforePayload(struct([field('string', 'prefix')], ofConnector('postgresql.MessageKey')));

/** `content`: bytes, or string where they are written as text. */
const messageValueOf = (content: 'bytes' | 'string'): Buffer =>
  beforePayload(
    struct(
      [
        field('string', 'op', false),
        field('int64', 'ts_ms'),
        sourceField,
        transactionField,
        struct(
          [field('string', 'prefix'), field(content, 'content')],
          `${ofConnector('postgresql.Message')},"field":"message"`,
        ),
      ],
      ofConnector('postgresql.MessageValue'),
    ),
  );

export const messageValueHeads = { bytes: messageValueOf('bytes'), string: messageValueOf('string') } as const;

export const transactionKeyHead = beforePayload(
  struct([field('string', 'id', false)], ofConnector('common.TransactionMetadataKey')),
);

export const transactionValueHead = beforePayload(
  struct(
    [
      field('string', 'status', false),
      field('string', 'id', false),
      field('int64', 'event_count'),
      '{"type":"array","items":' +
        struct(
          [field('string', 'data_collection', false), field('int64', 'event_count', false)],
          '"optional":true,"name":"event.collection","version":1',
        ) +
        ',"optional":true,"field":"data_collections"}',
      field('int64', 'ts_ms', false),
    ],
    ofConnector('common.TransactionMetadataValue'),
  ),
);
