// Pipelines made over the HTTP API, in kafka.pipelines: what they were told to do, by kind and name. What a definition
// means is its feature's affair. And why such a request is refused, for every kind alike.
import type { Pool } from '../postgres/pool.ts';
import type { Term } from './topics.ts';
import { WriteLane } from './write-lane.ts';

export type PipelineKind = 'capture' | 'sink' | 'inbox' | 'mirror';

export interface StoredPipeline {
  readonly name: string;
  /** As it was given: secrets are references. */
  readonly definition: unknown;
}

/** invalid: the definition; file: it is millrace.yaml's, and changed there; state: not as it is now. */
export type Refusal = 'exists' | 'unknown' | 'invalid' | 'file' | 'state';

/** A request about a pipeline that cannot be done, and what can. */
export class PipelineError extends Error {
  override name = 'PipelineError';
  readonly refusal: Refusal;
  readonly hint: string | undefined;

  constructor(refusal: Refusal, message: string, hint?: string) {
    super(message);
    this.refusal = refusal;
    this.hint = hint;
  }
}

export class Pipelines {
  readonly #pool: Pool;
  readonly #lane: WriteLane;
  readonly #kind: PipelineKind;

  constructor(kind: PipelineKind, pool: Pool, term?: () => Term) {
    this.#kind = kind;
    this.#pool = pool;
    this.#lane = new WriteLane(pool, term);
  }

  async list(): Promise<StoredPipeline[]> {
    const { rows } = await this.#pool.query<StoredPipeline>(
      'SELECT name, definition FROM kafka.pipelines WHERE kind = $1 ORDER BY name',
      [this.#kind],
    );
    return rows;
  }

  /** Throws a PipelineError where there is one of that name. */
  async add(name: string, definition: unknown): Promise<void> {
    const { rowCount } = await this.#lane.transaction(client =>
      client.query('INSERT INTO kafka.pipelines (kind, name, definition) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING', [
        this.#kind,
        name,
        JSON.stringify(definition),
      ]),
    );
    if (rowCount === 0) throw new PipelineError('exists', `there is a ${this.#kind} ${name} already`);
  }

  async remove(name: string): Promise<void> {
    await this.#lane.transaction(client =>
      client.query('DELETE FROM kafka.pipelines WHERE kind = $1 AND name = $2', [this.#kind, name]),
    );
  }
}
