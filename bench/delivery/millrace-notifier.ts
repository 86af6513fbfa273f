// An inbox of the Millrace that is measured, made and deleted over HTTP.
import type { Millrace } from '../peers/millrace.ts';
import type { Processes } from '../processes.ts';
import type { Notifier } from './notifier.ts';

const inbox = 'bench';

export class MillraceNotifier implements Notifier {
  readonly name = 'millrace';
  readonly description = 'Millrace: an inbox of the topic, deduplicated by event id, and its event streams';
  readonly #millrace: Millrace;

  constructor(millrace: Millrace) {
    this.#millrace = millrace;
  }

  get url(): string {
    return this.#millrace.http;
  }

  get databaseUrl(): string {
    return this.#millrace.databaseUrl!;
  }

  get processes(): Processes {
    return this.#millrace.payers.broker;
  }

  async start(topic: string): Promise<void> {
    const origins = { subscriber: '$.user_id', id: '$.event_id', type: '$.event_type', priority: '$.priority' };
    await this.#ask('POST', '', { name: inbox, definition: { topics: [topic], ...origins } });
  }

  async stop(): Promise<void> {
    await this.#ask('DELETE', `/${inbox}`);
  }

  async #ask(method: string, path: string, body?: unknown): Promise<void> {
    const given =
      body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } };
    const answer = await fetch(`${this.url}/api/inboxes${path}`, { method, ...given });
    if (!answer.ok) throw new Error(`${method} /api/inboxes${path}: ${await answer.text()}`);
  }
}
