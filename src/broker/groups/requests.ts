// The requests of a group's members and their answers as the state machine sees them: the fields of the wire
// messages, without what only the wire needs.
import type { MemberIdentity } from './roster.ts';

export interface Protocol {
  readonly name: string;
  readonly metadata: Buffer;
}

/** Whose request it is, as DescribeGroups shows it. */
export interface Client {
  readonly clientId: string;
  readonly clientHost: string;
}

export interface JoinAnswer {
  readonly errorCode: number;
  readonly generationId: number;
  readonly protocolType: string | null;
  readonly protocolName: string | null;
  readonly leader: string;
  /** The leader is not to assign anew (KIP-814). */
  readonly skipAssignment: boolean;
  readonly memberId: string;
  /** Empty except for the leader. */
  readonly members: readonly { memberId: string; groupInstanceId: string | null; metadata: Buffer }[];
}

export interface SyncAnswer {
  readonly errorCode: number;
  readonly protocolType: string | null;
  readonly protocolName: string | null;
  readonly assignment: Buffer;
}

export const noBytes: Buffer = Buffer.alloc(0);

export interface JoinRequest {
  readonly sessionTimeoutMs: number;
  readonly rebalanceTimeoutMs: number;
  readonly memberId: string;
  readonly groupInstanceId: string | null;
  readonly protocolType: string;
  readonly protocols: readonly Protocol[];
  readonly reason: string | null;
}

export interface JoinFeatures {
  /** A new member is first told its id, and joins with it (KIP-394; version 4). */
  readonly memberIdFirst: boolean;
  /** The client understands skipAssignment (KIP-814; version 9). */
  readonly skipsAssignment: boolean;
}

export interface SyncRequest {
  readonly generationId: number;
  readonly memberId: string;
  readonly groupInstanceId: string | null;
  readonly protocolType: string | null;
  readonly protocolName: string | null;
  readonly assignments: readonly { memberId: string; assignment: Buffer }[];
}

export interface LeavingMember extends MemberIdentity {
  readonly reason: string | null;
}

export function joinRefused(errorCode: number, memberId: string): JoinAnswer {
  return {
    errorCode,
    generationId: -1,
    protocolType: null,
    protocolName: null,
    leader: '',
    skipAssignment: false,
    memberId,
    members: [],
  };
}

export function syncRefused(errorCode: number): SyncAnswer {
  return { errorCode, protocolType: null, protocolName: null, assignment: noBytes };
}
