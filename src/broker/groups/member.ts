// A member of a group: what it told when it joined, what it was assigned, and the requests of it that wait.

import type { StoredMember } from '../../storage/groups.ts';
import type { Timer } from './clock.ts';
import { memberBytes } from './limits.ts';
import { type Client, type JoinAnswer, noBytes, type Protocol, type SyncAnswer } from './requests.ts';

export class Member {
  readonly memberId: string;
  readonly groupInstanceId: string | null;
  client: Client;
  sessionTimeoutMs: number;
  rebalanceTimeoutMs: number;
  protocols: readonly Protocol[];
  assignment: Buffer;
  /** Joins for the first time: it does not know its id yet, so it sends no heartbeats. */
  isNew: boolean;
  /** Answer the JoinGroup or SyncGroup that waits. */
  join: ((answer: JoinAnswer) => void) | undefined;
  sync: ((answer: SyncAnswer) => void) | undefined;
  session: Timer | undefined;
  /** What the memory budget has been charged for it. */
  charged = 0;

  constructor(stored: StoredMember, isNew: boolean) {
    this.memberId = stored.memberId;
    this.groupInstanceId = stored.groupInstanceId;
    this.client = { clientId: stored.clientId, clientHost: stored.clientHost };
    this.sessionTimeoutMs = stored.sessionTimeoutMs;
    this.rebalanceTimeoutMs = stored.rebalanceTimeoutMs;
    this.protocols = stored.protocols;
    this.assignment = stored.assignment;
    this.isNew = isNew;
  }

  get bytes(): number {
    const names = this.memberId.length + this.client.clientId.length + (this.groupInstanceId?.length ?? 0);
    return memberBytes + 2 * names + bytesOf(this.protocols) + this.assignment.length;
  }

  metadata(protocol: string | null): Buffer {
    return this.protocols.find(({ name }) => name === protocol)?.metadata ?? noBytes;
  }

  /** Compares as Kafka does: the same protocols in the same order. */
  offers(protocols: readonly Protocol[]): boolean {
    return (
      this.protocols.length === protocols.length &&
      this.protocols.every(({ name, metadata }, i) => {
        const other = protocols[i]!;
        return name === other.name && metadata.equals(other.metadata);
      })
    );
  }

  stored(assignment: Buffer): StoredMember {
    return {
      memberId: this.memberId,
      groupInstanceId: this.groupInstanceId,
      ...this.client,
      sessionTimeoutMs: this.sessionTimeoutMs,
      rebalanceTimeoutMs: this.rebalanceTimeoutMs,
      protocols: this.protocols,
      assignment,
    };
  }
}

export function bytesOf(protocols: readonly Protocol[]): number {
  let bytes = 0;
  for (const { name, metadata } of protocols) bytes += 64 + 2 * name.length + metadata.length;
  return bytes;
}

/** Copies, since what is read off a connection lives in a larger buffer; of a repeated name the first counts. */
export function ownProtocols(protocols: readonly Protocol[]): Protocol[] {
  const own = new Map<string, Protocol>();
  for (const { name, metadata } of protocols) {
    if (!own.has(name)) own.set(name, { name, metadata: copyOf(metadata) });
  }
  return [...own.values()];
}

/** In memory of its own size: a slice of Node's pool would keep all of it. */
export function copyOf(bytes: Buffer): Buffer {
  if (bytes.length === 0) return noBytes;
  const copy = Buffer.allocUnsafeSlow(bytes.length);
  bytes.copy(copy);
  return copy;
}
