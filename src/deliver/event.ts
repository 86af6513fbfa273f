// A record as an event of an inbox: whom it is for, what it is known by, its type, priority and expiry. What cannot be
// understood becomes a dead row with the reason, so that nothing behind it waits.
import crypto from 'node:crypto';
import type { LogRecord } from '../protocol/records.ts';
import { originalOf } from './dead-rows.ts';
import type { InboxDefinition } from './definition.ts';
import { BadEvent, OpenRecord, type Origin } from './origin.ts';

/** A record that is to become a row of the inbox. */
export interface Entry {
  /** What it is known by for the window: a digest of 16 bytes, in hex. */
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
  /** Why it is no event; then it has no subscriber, and its data is the record (dead-rows.ts), where it is known. */
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
  const { topicId, partition } = from;
  const { offset, timestamp: time } = record;
  try {
    const open = new OpenRecord(record, from.topic);
    const subscriber = named(open, definition.subscriber, 'subscriber');
    if (subscriber === undefined || subscriber === '') throw new BadEvent('the record names no subscriber');
    const id = definition.id && named(open, definition.id, 'id');
    const type = definition.type && named(open, definition.type, 'type');
    // The type is a line of its own in an event stream.
    if (type !== undefined && /[\r\n]/.test(type)) throw new BadEvent('the type holds a line break');
    // Every property by its name: spreading an object into another takes ten times as long as all else here.
    return {
      topicId,
      partition,
      offset,
      time,
      key: id === undefined ? digest(coordinatesOf(from, offset)) : digest(`${id}\n${subscriber}`),
      expires: timeOf(open, definition.expires, 'expiry'),
      due: timeOf(open, definition.schedule, 'schedule'),
      priority: priorityOf(open, definition.priority),
      subscriber,
      eventId: id ?? placeOf(from, offset),
      type: type ?? null,
      data: open.text(definition.data) ?? '',
      dead: null,
    };
  } catch (error) {
    if (!(error instanceof BadEvent)) throw error;
    const dead = deadAs(digest(coordinatesOf(from, offset)), placeOf(from, offset), error.message);
    return { topicId, partition, offset, time, ...dead, data: originalOf(record) };
  }
}

function named(open: OpenRecord, origin: Origin, what: string): string | undefined {
  const text = open.text(origin);
  if (text !== undefined && text.length * 3 > maxNameBytes && Buffer.byteLength(text) > maxNameBytes) {
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

/** Sixteen bytes of SHA-256, in hex: who can choose ids cannot choose them to look like another's. */
function digest(text: string): string {
  return sha256(text).slice(0, 32);
}

/** In one call, which takes a third of the time, where there is one (Node 20.12). */
const sha256: (text: string) => string =
  typeof crypto.hash === 'function'
    ? text => crypto.hash('sha256', text)
    : text => crypto.createHash('sha256').update(text).digest('hex');

/** Records up to `offset` that can no longer be read. */
export function lostEntry(from: Origins, offset: bigint, reason: string): Entry {
  return {
    topicId: from.topicId,
    partition: from.partition,
    offset,
    time: BigInt(Date.now()),
    ...deadAs(digest(`lost ${coordinatesOf(from, offset)}`), placeOf(from, offset), reason),
  };
}

const placeOf = ({ topic, partition }: Origins, offset: bigint): string => `${topic}-${partition}-${offset}`;

/** Not the topic's name: one that is made again under it is another. */
const coordinatesOf = ({ topicId, partition }: Origins, offset: bigint): string => `${topicId}-${partition}-${offset}`;

/** What a dead row has of an event. */
const deadAs = (key: string, eventId: string, dead: string) => ({
  ...{ key, eventId, dead },
  ...{ expires: null, due: null, priority: 0, subscriber: null, type: null, data: null },
});
