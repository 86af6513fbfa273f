// What a handler sees: the broker it belongs to and the request's own circumstances.
import type { Logger } from 'pino';
import type { Settings } from '../runtime/config.ts';
import type { Log } from '../storage/log.ts';
import type { Offsets } from '../storage/offsets.ts';
import type { ServerDefaults } from '../storage/topic-config.ts';
import type { Topics } from '../storage/topics.ts';
import type { Allowance } from './allowance.ts';
import type { Budget } from './budget.ts';
import type { Ending } from './ending.ts';
import type { FetchSessions } from './fetch-sessions.ts';
import type { GroupCoordinator } from './groups/coordinator.ts';

export interface BrokerContext {
  readonly settings: Settings;
  readonly nodeId: number;
  readonly clusterId: string;
  readonly advertised: { readonly host: string; readonly port: number };
  readonly topics: Topics;
  /** What topics have where they override nothing: effectiveConfig(topic, serverDefaults). */
  readonly serverDefaults: ServerDefaults;
  readonly log: Log;
  readonly offsets: Offsets;
  readonly groups: GroupCoordinator;
  readonly fetchSessions: FetchSessions;
  readonly budget: Budget;
  /** Bytes that compressed batches have become, or may become, on their way through: requests are charged less. */
  readonly inflation: Allowance;
  readonly logger: Logger;
  /** What ApiVersions tells: each served API with its first and last version. */
  readonly served: readonly { readonly key: number; readonly versions: readonly [number, number] }[];
}

export interface RequestContext {
  readonly broker: BrokerContext;
  readonly apiVersion: number;
  readonly clientId: string | null;
  readonly clientHost: string;
  /** Begins when the connection closes or the broker stops, so that long polls end with it. */
  readonly ending: Ending;
  /** The request's effects are in order now: the connection may begin its next one before this is answered. */
  readyForNext(): void;
  closeConnection(reason: string): void;
  /** Keeps the request's bytes, which otherwise are used again once it is answered, until `work` is done. */
  hold(work: Promise<unknown>): void;
  /** Calls back when the client has taken the answer, or will not. */
  whenSent(callback: () => void): void;
}
