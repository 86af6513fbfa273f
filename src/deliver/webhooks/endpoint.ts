// An endpoint as this process knows it: how many requests it has, and whether it is asked at all. The circuit breaker:
//
//   closed ── so many failures in a row ──▶ open ── its pause is over ──▶ one attempt ── success ──▶ closed
//                                             ▲                               │
//                                             └── failure: twice the pause ───┘
import type { WebhookSettings } from './definition.ts';

export interface EndpointRow {
  readonly id: bigint;
  readonly url: string;
  readonly secrets: readonly string[];
  readonly enabled: boolean;
  /** Of the event's subscriber alone. */
  readonly own: boolean;
}

const maxPauseMs = 3_600_000;
/** How soon one that is disabled is looked at again, should the notification be lost, ms. */
const lookAgainMs = 30_000;

export class Endpoint {
  readonly id: bigint;
  readonly own: boolean;
  url: string;
  secrets: readonly string[];
  enabled: boolean;
  /** There is no such endpoint any more. */
  removed = false;
  /** Requests under way. */
  active = 0;
  /** Events that wait in memory. */
  queued = 0;
  /** Events that have failed and are to be tried again. */
  retrying = 0;
  readonly #breaker: WebhookSettings['breaker'];
  #failures = 0;
  #openings = 0;
  #pausedUntil = 0;
  #probing = false;

  constructor(row: EndpointRow, breaker: WebhookSettings['breaker']) {
    this.id = row.id;
    this.own = row.own;
    this.url = row.url;
    this.secrets = row.secrets;
    this.enabled = row.enabled;
    this.#breaker = breaker;
  }

  /** What the table says now. Another URL begins anew. */
  update(row: EndpointRow): void {
    if (row.url !== this.url || (row.enabled && !this.enabled)) {
      this.#failures = 0;
      this.#openings = 0;
      this.#pausedUntil = 0;
    }
    this.url = row.url;
    this.secrets = row.secrets;
    this.enabled = row.enabled;
  }

  get state(): 'closed' | 'open' | 'disabled' {
    if (!this.enabled) return 'disabled';
    return this.#openings > 0 ? 'open' : 'closed';
  }

  /** When it may be asked again, ms on the clock of `now`; undefined: now. */
  blockedUntil(now: number): number | undefined {
    if (!this.enabled) return now + lookAgainMs;
    if (now < this.#pausedUntil) return this.#pausedUntil;
    return this.#openings > 0 && this.#probing ? now + this.#breaker.pause : undefined;
  }

  begin(): void {
    this.active++;
    if (this.#openings > 0) this.#probing = true;
  }

  end(): void {
    this.active--;
  }

  /** Whether that has closed the breaker. */
  succeeded(): boolean {
    const wasOpen = this.#openings > 0;
    this.#failures = 0;
    this.#openings = 0;
    this.#probing = false;
    return wasOpen;
  }

  failed(now: number): void {
    this.#failures++;
    const probed = this.#probing;
    this.#probing = false;
    if (this.#openings > 0 && !probed) return; // it was on its way when the breaker opened
    if (this.#openings === 0 && this.#failures < this.#breaker.failures) return;
    const pauseMs = Math.min(this.#breaker.pause * 2 ** this.#openings, maxPauseMs);
    this.#openings++;
    this.#pausedUntil = now + pauseMs * (0.75 + Math.random() / 2);
  }

  /** It has asked for time; that is no failure. */
  throttled(now: number, ms: number): void {
    this.#probing = false;
    this.#pausedUntil = Math.max(this.#pausedUntil, now + ms);
  }

  disable(): void {
    this.#probing = false;
    this.enabled = false;
  }
}
