// A record as an event of an inbox: whom it is for, what it is known by, its type, priority and expiry. What cannot be
// understood becomes a dead row with the reason, so that nothing behind it waits.
import { createHash } from 'node:crypto';
import type { LogRecord } from '../protocol/records.ts';
import type { InboxDefinition } from './definition.ts';
import { BadEvent, OpenRecord, type Origin } from './origin.ts';

/** A record that is to become a row of the inbox. */
export interface Entry {
  /** What it is known by for the window: a digest, as a UUID is written. */
  readonly key: string;
  readonly topicId: number;
  readonly partition: number;
  readonly offset: bigint;
  /** Of the record, ms since the epoch. */
  readonly time: bigint;
  /** ms since the epoch. */
  readonly expires: number | null;
  /** When it is to be in the inbox, ms since the epoch; null for at once. */
  readonly due: number | null;
  /** 0 is the least, 9 the highest. */
  readonly priority: number;
  readonly subscriber: string | null;
  readonly eventId: string;
  readonly type: string | null;
  readonly data: string | null;
  /** Why it is no event; then it has no subscriber and no data. */
  readonly dead: string | null;
}

export interface Origins {
  readonly topic: string;
  readonly topicId: number;
  readonly partition: number;
}

export const middlePriority = 4;
const namedPriorities: Readonly<Record<string, number>> = { LOW: 1, MEDIUM: middlePriority, HIGH: 7 };
/** An index entry holds a third of a page; and these are headers and keys, not contents. */
const maxNameBytes = 1000;

/** Undefined for a tombstone: it says nothing to anybody. */
export function entryOf(definition: InboxDefinition, record: LogRecord, from: Origins): Entry | undefined {
  if (record.value === null) return undefined;
  const place = `${from.topic}-${from.partition}-${record.offset}`;
  const fixed = { topicId: from.topicId, partition: from.partition, offset: record.offset, time: record.timestamp };
  try {
    const open = new OpenRecord(record, from.topic);
    const subscriber = named(open, definition.subscriber, 'subscriber');
    if (subscriber === undefined || subscriber === '') throw new BadEvent('the record names no subscriber');
    const id = definition.id && named(open, definition.id, 'id');
    const type = definition.type && named(open, definition.type, 'type');
    // The type is a line of its own in an event stream.
    if (type !== undefined && /[\r\n]/.test(type)) throw new BadEvent('the type holds a line break');
    return {
      ...fixed,
      key: id === undefined ? digest(place) : digest(`${id}\n${subscriber}`),
      expires: timeOf(open, definition.expires, 'expiry'),
      due: timeOf(open, definition.schedule, 'schedule'),
      priority: priorityOf(open, definition.priority),
      subscriber,
      eventId: id ?? place,
      type: type ?? null,
      data: open.text(definition.data) ?? '',
      dead: null,
    };
  } catch (error) {
    if (!(error instanceof BadEvent)) throw error;
    return { ...fixed, ...deadAs(digest(place), place, error.message) };
  }
}

function named(open: OpenRecord, origin: Origin, what: string): string | undefined {
  const text = open.text(origin);
  if (text !== undefined && Buffer.byteLength(text) > maxNameBytes) {
    throw new BadEvent(`the ${what} is longer than ${maxNameBytes} bytes`);
  }
  return text;
}

function priorityOf(open: OpenRecord, origin: Origin | undefined): number {
  const text = origin && open.text(origin);
  if (text === undefined) return middlePriority;
  const priority = /^\d$/.test(text) ? Number(text) : namedPriorities[text.toUpperCase()];
  if (priority === undefined) throw new BadEvent('the priority is not LOW, MEDIUM, HIGH or a number from 0 to 9');
  return priority;
}

/** A number is ms since the epoch, or seconds where that would be before 1973; else a date as ISO 8601 has it. */
function timeOf(open: OpenRecord, origin: Origin | undefined, what: string): number | null {
  const text = origin && open.text(origin);
  if (text === undefined) return null;
  const number = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  const at = Number.isNaN(number) ? Date.parse(text) : number < 100_000_000_000 ? number * 1000 : number;
  if (Number.isNaN(at)) throw new BadEvent(`the ${what} is neither a time as ISO 8601 has it nor a number`);
  return Math.trunc(at);
}

/** Sixteen bytes of SHA-256: who can choose ids cannot choose them to look like another's. */
function digest(text: string): string {
  const hex = createHash('sha256').update(text).digest('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20, 32)}`;
}

/** Records up to `offset` that can no longer be read. */
export function lostEntry(from: Origins, offset: bigint, reason: string): Entry {
  const place = `${from.topic}-${from.partition}-${offset}`;
  return {
    topicId: from.topicId,
    partition: from.partition,
    offset,
    time: BigInt(Date.now()),
    ...deadAs(digest(`lost ${place}`), place, reason),
  };
}

/** What a dead row has of an event. */
const deadAs = (key: string, eventId: string, dead: string) => ({
  ...{ key, eventId, dead },
  ...{ expires: null, due: null, priority: 0, subscriber: null, type: null, data: null },
});
