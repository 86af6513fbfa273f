// Entries on their way into tables, as rows of COPY: events with their numbers, and those that wait for their time.

import type { CopyPayload } from '../postgres/copy.ts';
import { CopyRows } from '../postgres/copy-rows.ts';
import type { Entry } from './event.ts';

export const eventColumns = `seq, record_offset, record_time, expires_at, topic_id, partition_id, priority, subscriber, event_id,
  event_type, data, dead`;
export const waitingColumns = `inbox_id, due_at, key, topic_id, partition_id, record_offset, record_time, expires_ms, priority,
  subscriber, event_id, event_type, data`;

/** Timestamps count from 2000. */
const postgresEpochMs = 946_684_800_000n;

/** Numbered from `first` on. */
export function eventRows(entries: readonly Entry[], first: bigint): CopyPayload {
  const rows = new CopyRows();
  let seq = first;
  for (const entry of entries) {
    rows.beginRow(12);
    int64(rows, seq++);
    int64(rows, entry.offset);
    int64(rows, entry.time);
    timestamp(rows, entry.expires);
    int32(rows, entry.topicId);
    int32(rows, entry.partition);
    int16(rows, entry.priority);
    text(rows, entry.subscriber);
    text(rows, entry.eventId);
    text(rows, entry.type);
    text(rows, entry.data);
    text(rows, entry.dead);
  }
  return rows.finish();
}

export function waitingRows(entries: readonly Entry[], inboxId: number): CopyPayload {
  const rows = new CopyRows();
  for (const entry of entries) {
    rows.beginRow(13);
    int32(rows, inboxId);
    timestamp(rows, entry.due);
    rows.blob(Buffer.from(entry.key, 'hex'));
    int32(rows, entry.topicId);
    int32(rows, entry.partition);
    int64(rows, entry.offset);
    int64(rows, entry.time);
    if (entry.expires === null) rows.null();
    else int64(rows, BigInt(entry.expires));
    int16(rows, entry.priority);
    text(rows, entry.subscriber);
    text(rows, entry.eventId);
    text(rows, entry.type);
    text(rows, entry.data);
  }
  return rows.finish();
}

function int16(rows: CopyRows, value: number): void {
  rows.length(2);
  rows.uint16(value);
}

function int32(rows: CopyRows, value: number): void {
  rows.length(4);
  rows.uint32(value);
}

function int64(rows: CopyRows, value: bigint): void {
  rows.length(8);
  rows.bigint64(value);
}

/** `ms` since 1970. */
function timestamp(rows: CopyRows, ms: number | null): void {
  if (ms === null) rows.null();
  else int64(rows, (BigInt(ms) - postgresEpochMs) * 1000n);
}

function text(rows: CopyRows, value: string | null): void {
  if (value === null) rows.null();
  else rows.text(value);
}
