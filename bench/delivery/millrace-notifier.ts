// An inbox of the Millrace that is measured, made and deleted over HTTP.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Millrace } from '../peers/millrace.ts';
import type { Processes } from '../processes.ts';
import { type Notifier, requestsAtOnce } from './notifier.ts';
import { secret } from './secret.ts';

const inbox = 'bench';

/** What the server is started with: it may ask the receiver, and as often at once as the others. */
export const deliverySettings = ['deliver.webhook.allow=127.0.0.1', `deliver.webhook.workers=${requestsAtOnce}`];

export class MillraceNotifier implements Notifier {
  readonly name = 'millrace';
  readonly description = 'Millrace: an inbox of the topic, deduplicated by event id, and its event streams or webhooks';
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

  async start(topic: string, receiver: string | undefined): Promise<void> {
    const origins = { subscriber: '$.user_id', id: '$.event_id', type: '$.event_type', priority: '$.priority' };
    const definition = { topics: [topic], ...origins, ...(receiver === undefined ? {} : this.#webhook(receiver)) };
    await this.#ask('POST', '', { name: inbox, definition });
  }

  #webhook(url: string) {
    const file = join(this.#millrace.dataDir, 'bench-webhook-secret');
    writeFileSync(file, secret);
    return { channel: 'webhook', webhook: { url, secrets: [`file:${file}`], concurrency: requestsAtOnce } };
  }

  async pause(): Promise<void> {
    await this.#ask('POST', `/${inbox}/pause`);
  }

  async resume(): Promise<void> {
    await this.#ask('POST', `/${inbox}/resume`);
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
