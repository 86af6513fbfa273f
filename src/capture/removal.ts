// Lets go of what a capture holds in its source: the slot, which keeps WAL from being removed, and the publication. Only
// what Millrace made; what stays is told, with the SQL that removes it.
import { quoteIdentifier } from '../postgres/replication.ts';
import { codeOf, messageOf } from '../runtime/errors.ts';
import { Source } from './source.ts';

export interface Held {
  /** The source's; may throw where it cannot be known any more. */
  readonly url: () => string;
  readonly slot: string;
  /** Millrace made it, or it has the name that only Millrace's have. */
  readonly slotIsOwn: boolean;
  readonly publication: string;
}

export interface Left {
  /** `replication slot millrace_shop`. */
  readonly what: string;
  readonly because: string;
  /** To be run in the source. */
  readonly sql: string;
}

const attempts = 3;
const timeoutMs = 30_000;

export async function release(held: Held): Promise<Left[]> {
  const slotLeft = (because: string): Left => ({
    what: `replication slot ${held.slot}`,
    because,
    sql: `SELECT pg_drop_replication_slot('${held.slot}')`,
  });
  const publicationLeft = (because: string): Left => ({
    what: `publication ${held.publication}`,
    because,
    sql: `DROP PUBLICATION ${quoteIdentifier(held.publication)}`,
  });
  let source: Source;
  try {
    source = await Source.open(held.url(), () => {}); // its queries tell of it
  } catch (error) {
    return [slotLeft(messageOf(error)), publicationLeft(messageOf(error))];
  }
  try {
    await source.client.query(`SET statement_timeout = ${timeoutMs}`);
    const left: Left[] = [];
    const foreign = 'Millrace did not make it';
    if ((await source.slot(held.slot)) !== undefined) {
      const because = held.slotIsOwn ? await failureOf(() => dropSlot(source, held.slot)) : foreign;
      if (because !== undefined) left.push(slotLeft(because));
    }
    const owner = await source.publicationOwner(held.publication);
    if (owner !== undefined) {
      const drop = () => source.client.query(`DROP PUBLICATION IF EXISTS ${quoteIdentifier(held.publication)}`);
      const because = owner === 'millrace' ? await failureOf(drop) : foreign;
      if (because !== undefined) left.push(publicationLeft(because));
    }
    return left;
  } catch (error) {
    return [slotLeft(messageOf(error)), publicationLeft(messageOf(error))];
  } finally {
    await source.end();
  }
}

async function dropSlot(source: Source, slot: string): Promise<void> {
  for (let attempt = 1; ; attempt++) {
    try {
      await source.dropSlot(slot);
      return;
    } catch (error) {
      const taken = codeOf(error) === '55006'; // somebody was quicker to read it again
      if (!taken || attempt === attempts) throw error;
    }
  }
}

async function failureOf(work: () => Promise<unknown>): Promise<string | undefined> {
  return work().then(
    () => undefined,
    (error: unknown) => messageOf(error),
  );
}
