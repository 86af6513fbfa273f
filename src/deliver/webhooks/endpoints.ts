// The endpoints that this process knows: those it has something for, and those whose breaker is not closed.
import type { WebhookSettings } from './definition.ts';
import { Endpoint, type EndpointRow } from './endpoint.ts';
import type { Store } from './store.ts';

const maxKnown = 10_000;

export class Endpoints {
  readonly #store: Store;
  readonly #breaker: WebhookSettings['breaker'];
  readonly #known = new Map<bigint, Endpoint>();

  constructor(store: Store, breaker: WebhookSettings['breaker']) {
    this.#store = store;
    this.#breaker = breaker;
  }

  count(state: Endpoint['state']): number {
    let count = 0;
    for (const endpoint of this.#known.values()) if (endpoint.state === state) count++;
    return count;
  }

  of(row: EndpointRow): Endpoint {
    const known = this.#known.get(row.id);
    if (known !== undefined) {
      known.update(row);
      return known;
    }
    const endpoint = new Endpoint(row, this.#breaker);
    this.#known.set(row.id, endpoint);
    return endpoint;
  }

  /** Those that nothing is known about but what the table says. */
  forget(): void {
    if (this.#known.size <= maxKnown) return;
    for (const [id, endpoint] of this.#known) if (isIdle(endpoint)) this.#known.delete(id);
  }

  /** What the table says of them now. Returns whether there were any to look at. */
  async look(): Promise<boolean> {
    const asked = [...this.#known.values()].filter(endpoint => !isIdle(endpoint));
    if (asked.length === 0) return false;
    const rows = new Map((await this.#store.endpoints(asked.map(({ id }) => id))).map(row => [row.id, row]));
    for (const endpoint of asked) {
      const row = rows.get(endpoint.id);
      if (row !== undefined) endpoint.update(row);
      else {
        endpoint.removed = true;
        this.#known.delete(endpoint.id);
      }
    }
    return true;
  }
}

const isIdle = ({ active, queued, retrying, state }: Endpoint): boolean =>
  active + queued + retrying === 0 && state === 'closed';
