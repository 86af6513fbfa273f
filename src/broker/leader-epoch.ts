import { ErrorCode } from '../protocol/errors.ts';

/**
 * Compares the leader epoch a client believes in with ours (KIP-320). -1: it does not say.
 * FENCED_LEADER_EPOCH makes it ask for metadata, UNKNOWN_LEADER_EPOCH makes it wait for us.
 */
export function leaderEpochProblem(claimed: number, current: number): number {
  if (claimed === -1 || claimed === current) return ErrorCode.NONE;
  return claimed < current ? ErrorCode.FENCED_LEADER_EPOCH : ErrorCode.UNKNOWN_LEADER_EPOCH;
}
