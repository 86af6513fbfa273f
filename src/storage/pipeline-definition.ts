// Definitions of pipelines: read when one is asked for, and again each time it begins.
import { OperationalError } from '../runtime/errors.ts';
import { PipelineError } from './pipelines.ts';

/** What is kept of a pipeline's definition. */
export interface Defined<D> {
  definition: D | undefined;
  /** Why there is no definition. */
  broken: OperationalError | undefined;
}

/**
 * Secrets may have changed since, and a definition in the database may be another version's: what was understood before
 * stays until it is understood again. `read` throws an OperationalError.
 */
export function define<D>(kept: Defined<D>, read: () => D, onBroken: (error: OperationalError) => void): D | undefined {
  kept.broken = undefined;
  try {
    kept.definition = read();
    return kept.definition;
  } catch (error) {
    if (!(error instanceof OperationalError)) throw error;
    kept.broken = error;
    onBroken(error);
    return undefined;
  }
}

/** A definition that cannot be understood refuses the request. */
export function refusing<T>(read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof OperationalError)) throw error;
    throw new PipelineError('invalid', error.message, error.hint);
  }
}
