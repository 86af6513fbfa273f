// What the demo's producers send and its clients check: each producer numbers what it sends to a user, so that a client
// sees what is missing and what comes twice.
export interface Notification {
  readonly event_id: string;
  readonly event_type: string;
  readonly priority: 'LOW' | 'MEDIUM' | 'HIGH';
  readonly user_id: string;
  /** ms since the epoch, with fractions. */
  readonly sent_at: number;
  readonly producer: string;
  /** From 0, of this producer to this user. */
  readonly n: number;
  readonly payload: { readonly text: string };
}

export const now = (): number => performance.timeOrigin + performance.now();

/** What the clients tell once a second, since they told last. */
export interface ClientReport {
  readonly connections: number;
  readonly events: number;
  readonly duplicates: number;
  /** Less than none where what was missing has come. */
  readonly lost: number;
  readonly reconnects: number;
  /** From `drop` until all were connected again, where that has come about. */
  readonly recoveredMs: number | undefined;
  readonly latencies: readonly number[];
}
