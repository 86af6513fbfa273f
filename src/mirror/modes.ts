// What a mirror does with one topic: what was set over HTTP while it ran (kafka.mirror_modes), else the first pattern of the
// definition's `modes` that fits, else what the definition says for all. Who takes what is produced to a topic is no setting:
// it changes by cut-over and back, when nothing is lost by it (cutover.ts).
import { z } from 'zod';
import type { Pool } from '../postgres/pool.ts';
import { matchTopic } from '../runtime/patterns.ts';

export const syncSchema = z
  .strictObject({
    timeoutMs: z.number().int().min(1).max(300_000),
    /** fail: REQUEST_TIMED_OUT, and the record is in the log nevertheless; acknowledge: as if it were not set. */
    onTimeout: z.enum(['fail', 'acknowledge']).default('fail'),
  })
  .readonly();

export const shareSchema = z.number().int().min(0).max(100);
export const readsSchema = z.enum(['follow', 'redirect']);

export const topicSettingsSchema = z
  .strictObject({
    /** off: it is not copied; where the copy is stays known. */
    mode: z.enum(['off', 'shadow']).optional(),
    /** Of its keys, %. */
    share: shareSchema.optional(),
    /** null: none. */
    sync: syncSchema.nullable().optional(),
    /** While the target is its primary. */
    reads: readsSchema.optional(),
  })
  .readonly();

export type Sync = z.infer<typeof syncSchema>;
export type TopicSettings = z.infer<typeof topicSettingsSchema>;

/** All that is decided. */
export interface TopicMode {
  readonly mode: 'off' | 'shadow';
  readonly share: number;
  readonly sync: Sync | null;
  readonly reads: 'follow' | 'redirect';
}

/** What a definition has of it. */
export interface ModesDefined {
  readonly modes: Readonly<Record<string, TopicSettings>>;
  readonly share: number;
  readonly sync: Sync | null;
  readonly reads: 'follow' | 'redirect';
}

export class Modes {
  readonly #defined: ModesDefined;
  readonly #given: ReadonlyMap<string, TopicSettings>;

  private constructor(defined: ModesDefined, given: ReadonlyMap<string, TopicSettings>) {
    this.#defined = defined;
    this.#given = given;
  }

  static async load(pool: Pool, mirrorId: number, defined: ModesDefined): Promise<Modes> {
    const { rows } = await pool.query<{ topic: string; settings: TopicSettings }>(
      'SELECT topic, settings FROM kafka.mirror_modes WHERE mirror_id = $1',
      [mirrorId],
    );
    return new Modes(defined, new Map(rows.map(({ topic, settings }) => [topic, settings])));
  }

  of(topic: string): TopicMode {
    const { modes, share, sync, reads } = this.#defined;
    const [, fitting] = Object.entries(modes).find(([pattern]) => matchTopic([pattern], topic) !== undefined) ?? [];
    return { mode: 'shadow', share, sync, reads, ...fitting, ...this.#given.get(topic) };
  }
}
