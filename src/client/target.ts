// The remote Kafka that a pipeline writes to, as its definition names it: `target`.
import { z } from 'zod';
import type { DefinitionPlace } from '../runtime/definition.ts';
import type { ReferenceSources } from '../runtime/references.ts';
import { type Remote, readRemote, remoteKeys } from './definition.ts';

export const targetSchema = z
  .strictObject({
    ...remoteKeys,
    createTopics: z.boolean().default(true),
    /** Of topics that are made; -1: the cluster's default. */
    replicationFactor: z.number().int().min(-1).max(32_767).default(-1),
  })
  .readonly();

/** With its secrets. */
export interface RemoteTarget extends Remote {
  readonly createTopics: boolean;
  readonly replicationFactor: number;
}

/** Throws OperationalError for a reference that leads nowhere. */
export function readTarget(
  { createTopics, replicationFactor, ...remote }: z.infer<typeof targetSchema>,
  place: DefinitionPlace,
  references?: ReferenceSources,
): RemoteTarget {
  return { ...readRemote(remote, 'target', place, references), createTopics, replicationFactor };
}
