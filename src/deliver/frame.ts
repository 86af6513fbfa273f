// What goes over an event stream (WHATWG HTML, "Server-sent events"): events with their ids, gaps, comments, and the time
// after which a client comes back.
import type { InboxEvent } from './inbox.ts';

const lineBreak = /\r\n|\r|\n/g;

/** `inbox-seq`: an inbox that is made anew under its old name has another number. */
export const idOf = (inboxId: number, seq: bigint): string => `${inboxId}-${seq}`;

/** The number in an id of this inbox; undefined for any other text. */
export function seqOf(inboxId: number, id: string): bigint | undefined {
  const match = /^(\d{1,10})-(\d{1,18})$/.exec(id);
  return match?.[1] === String(inboxId) ? BigInt(match[2]!) : undefined;
}

/** An id that has been seen is never sent again, but for what `at least once` means over a crash. */
export function eventFrame(inboxId: number, event: InboxEvent): string {
  const type = event.type === null || event.type === '' ? '' : `event: ${event.type}\n`;
  const data =
    event.data.includes('\n') || event.data.includes('\r') ? event.data.replaceAll(lineBreak, '\ndata: ') : event.data;
  return `id: ${idOf(inboxId, event.seq)}\n${type}data: ${data}\n\n`;
}

/** Events after `after` and before `first` are gone. Carries the id to go on from, so that it is told once. */
export function gapFrame(inboxId: number, after: string, first: bigint): string {
  const data = JSON.stringify({ after, first: idOf(inboxId, first) });
  return `id: ${idOf(inboxId, first - 1n)}\nevent: gap\ndata: ${data}\n\n`;
}

/** `ms`: so that those who lose a server together do not come back together, each gets another. */
export const retryFrame = (ms: number): string => `retry: ${ms}\n\n`;

export const heartbeat = ':\n\n';
