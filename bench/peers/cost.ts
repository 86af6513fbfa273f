// What a piece of work costs its system: CPU time, memory, WAL.
import { anonymousMb, cpuSeconds, ownMb, type Processes, proportionalMb, residentMb } from '../processes.ts';
import type { Scenario } from '../scenario.ts';
import { walPosition } from './database.ts';
import type { Sample } from './system.ts';

const million = 1e6;

export interface Payers {
  /** Empty where there is none, or where it is not ours to look at. */
  readonly broker: Processes;
  readonly postgres: Processes;
  /** Of the Postgres, for the WAL it writes. */
  readonly databaseUrl?: string | undefined;
}

/** Begins to count; the function it gives tells what was spent since, `clientCpu` being what the client says itself. */
export async function startCost({ broker, postgres, databaseUrl }: Payers) {
  const wal = databaseUrl === undefined ? 0 : await walPosition(databaseUrl);
  const brokerBefore = cpuSeconds(broker);
  const postgresBefore = cpuSeconds(postgres);
  return async (records: number, { recordBytes }: Scenario, clientCpu: number): Promise<Sample> => {
    const brokerCpu = cpuSeconds(broker) - brokerBefore;
    const postgresCpu = cpuSeconds(postgres) - postgresBefore;
    const millions = records / million;
    const sample: Sample = { client_cpu_s_per_million: clientCpu / millions };
    const hasBroker = broker.roots.length > 0;
    const hasPostgres = postgres.roots.length > 0;
    if (hasBroker || hasPostgres) {
      sample.cpu_s_per_million = (brokerCpu + postgresCpu) / millions;
      sample.rss_mb = residentMb(broker) + proportionalMb(postgres);
    }
    if (hasBroker) {
      sample.broker_cpu_s_per_million = brokerCpu / millions;
      sample.broker_rss_mb = residentMb(broker);
      sample.total_rss_mb = sample.broker_rss_mb + ownMb(postgres);
    }
    if (hasPostgres) {
      sample.postgres_cpu_s_per_million = postgresCpu / millions;
      sample.postgres_rss_mb = proportionalMb(postgres);
      sample.postgres_own_mb = anonymousMb(postgres);
    }
    if (databaseUrl !== undefined) {
      sample.wal_bytes_per_record = ((await walPosition(databaseUrl)) - wal) / records;
      sample.wal_bytes_per_byte = sample.wal_bytes_per_record / recordBytes;
    }
    return sample;
  };
}

/** Begins to count CPU time; the function it gives tells what a million of `count` things have cost since. */
export function startCpu(servers: readonly Processes[], postgres: Processes): (count: number) => Sample {
  const read = () => [servers.reduce((sum, one) => sum + cpuSeconds(one), 0), cpuSeconds(postgres)] as const;
  const before = read();
  return count => {
    const [ofServers, ofPostgres] = read().map((cpu, i) => ((cpu - before[i]!) / count) * million) as [number, number];
    return {
      cpu_s_per_million: ofServers + ofPostgres,
      broker_cpu_s_per_million: ofServers,
      postgres_cpu_s_per_million: ofPostgres,
    };
  };
}

export const none: Processes = { roots: [] };
