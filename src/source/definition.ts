// The key `source` of what reads topics: the remote Kafka that they are in.
import { z } from 'zod';
import { type Remote, readRemote, remoteKeys } from '../client/definition.ts';
import type { DefinitionPlace } from '../runtime/definition.ts';
import type { ReferenceSources } from '../runtime/references.ts';

export const sourceSchema = z
  .strictObject({
    ...remoteKeys,
    /** How often it is asked which topics there are. */
    metadataMs: z.number().int().min(100).max(3_600_000).default(10_000),
  })
  .readonly();

/** With its secrets. */
export interface RemoteSource extends Remote {
  readonly metadataMs: number;
}

/** Throws OperationalError for a reference that leads nowhere. */
export function readSource(
  { metadataMs, ...remote }: z.infer<typeof sourceSchema>,
  place: DefinitionPlace,
  references: ReferenceSources | undefined,
): RemoteSource {
  return { ...readRemote(remote, 'source', place, references), metadataMs };
}
