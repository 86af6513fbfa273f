// Debezium's outbox table: an INSERT becomes a record of what is in its columns. id → header `id`, aggregatetype → the
// topic, aggregateid → the key, payload → the value as it stands (null: a tombstone), type → header `eventType`.
import type { Relation, Tuple } from '../postgres/pgoutput.ts';
import { CaptureError } from './source.ts';

export interface OutboxEvent {
  readonly topic: string;
  readonly key: Buffer | null;
  readonly payload: Buffer | null;
  readonly headers: readonly (readonly [string, Buffer | null])[];
}

const byteaOid = 17;
const required = ['id', 'aggregatetype', 'aggregateid', 'payload'] as const;

export class OutboxRouter {
  readonly #topic: string;
  readonly #columns = new Map<string, number>();
  readonly #payloadIsBytes: boolean;

  constructor(relation: Relation, topic: string) {
    this.#topic = topic;
    relation.columns.forEach(({ name }, index) => {
      this.#columns.set(name, index);
    });
    const missing = required.filter(name => !this.#columns.has(name));
    if (missing.length > 0) {
      throw new CaptureError(
        `the outbox table ${relation.schema}.${relation.name} lacks the column ${missing.join(', ')}`,
        'give it the columns id, aggregatetype, aggregateid, type and payload',
      );
    }
    this.#payloadIsBytes = relation.columns[this.#columns.get('payload')!]!.typeOid === byteaOid;
  }

  event(row: Tuple): OutboxEvent {
    const key = this.#text(row, 'aggregateid');
    const id = this.#text(row, 'id');
    const type = this.#text(row, 'type');
    const payload = this.#text(row, 'payload');
    const headers: [string, Buffer | null][] = [['id', id === null ? null : Buffer.from(id)]];
    if (type !== null) headers.push(['eventType', Buffer.from(type)]);
    return {
      topic: this.#topicOf(this.#text(row, 'aggregatetype') ?? ''),
      key: key === null ? null : Buffer.from(key),
      payload:
        payload === null ? null : this.#payloadIsBytes ? Buffer.from(payload.slice(2), 'hex') : Buffer.from(payload),
      headers,
    };
  }

  #topicOf(route: string): string {
    return this.#topic.replaceAll('{route}', route).replaceAll(/[^a-zA-Z0-9._-]/g, '_');
  }

  #text(row: Tuple, column: string): string | null {
    const index = this.#columns.get(column);
    return index === undefined ? null : row.text(index);
  }
}
