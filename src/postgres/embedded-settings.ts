// postgresql.conf of the embedded server: one machine, a log that is written in large appends and read mostly
// from memory. Chosen within the memory and disk that are there; ALTER SYSTEM overrides any of it.
import { statfsSync } from 'node:fs';
import { totalmem } from 'node:os';

const MiB = 2 ** 20;
const GiB = 2 ** 30;

export interface Machine {
  readonly memoryBytes: number;
  readonly freeDiskBytes: number;
}

export function measureMachine(directory: string): Machine {
  const limit = process.constrainedMemory(); // the container's; 0 or immense where there is none
  const disk = statfsSync(directory);
  return {
    memoryBytes: limit > 0 ? Math.min(limit, totalmem()) : totalmem(),
    freeDiskBytes: disk.bavail * disk.bsize,
  };
}

const between = (low: number, value: number, high: number): number => Math.min(high, Math.max(low, value));
const megabytes = (bytes: number): string => `${Math.floor(bytes / MiB)}MB`;

/** `version`: PostgreSQL's major one. */
export function tunedSettings({ memoryBytes, freeDiskBytes }: Machine, version: number): Record<string, string> {
  const maxWal = between(GiB, freeDiskBytes / 10, 8 * GiB);
  return {
    listen_addresses: '127.0.0.1',
    max_connections: '100',
    password_encryption: 'scram-sha-256',

    // Little: the log is written once, and read from the tail cache or the operating system's; people work on this machine.
    shared_buffers: megabytes(between(32 * MiB, memoryBytes / 32, 160 * MiB)),
    effective_cache_size: megabytes(memoryBytes / 2),
    maintenance_work_mem: megabytes(between(32 * MiB, memoryBytes / 32, 512 * MiB)),
    work_mem: megabytes(between(4 * MiB, memoryBytes / 512, 32 * MiB)),

    // Reads are of single rows, where workers have nothing to read ahead. And one that is killed (by a lack of memory, say)
    // while the server still recovers from another crash is not noticed: whoever waits for its read waits for ever.
    ...(version < 18 ? {} : { io_method: 'sync' }),

    // Few and slow checkpoints: each one makes the next change of every page write the page whole.
    wal_level: 'logical',
    // A slot and a walsender for each capture.
    max_replication_slots: '32',
    max_wal_senders: '32',
    wal_buffers: '16MB',
    wal_compression: 'off',
    // Until a checkpoint has left segments to use again, each new one would be filled with zeros and flushed while
    // every commit waits: 12 ms for each 16 MB, on a disk that flushes a commit in 0.1. Without, a busy producer of
    // 1 KiB records got 19 % more through (bench, produce-1KiB-1p), and a commit's flush took 0.10 ms instead of 0.09.
    wal_init_zero: 'off',
    max_wal_size: megabytes(maxWal),
    min_wal_size: megabytes(between(256 * MiB, maxWal / 8, GiB)),
    checkpoint_timeout: '15min',
    checkpoint_completion_target: '0.9',
    synchronous_commit: 'on',
    fsync: 'on',
    full_page_writes: 'on',

    // A statement over a topic's view locks each of its segments.
    max_locks_per_transaction: '256',
    random_page_cost: '1.1',
    jit: 'off',

    autovacuum_naptime: '15s',
    autovacuum_vacuum_scale_factor: '0.1',
    autovacuum_analyze_scale_factor: '0.05',

    shared_preload_libraries: 'pg_stat_statements',
    log_line_prefix: '%m [%p] %q%a ',
    log_timezone: 'UTC',
  };
}

export function formatSettings(settings: Readonly<Record<string, string>>): string {
  const lines = Object.entries(settings).map(([name, value]) => `${name} = '${value.replaceAll("'", "''")}'\n`);
  return `# Written by Millrace at each start. Change a setting with ALTER SYSTEM, which overrides this file.\n${lines.join('')}`;
}

/** The socket's directory is for the owner alone, so whoever gets there is let in; over TCP it takes the password. */
export const hostBasedAuthentication = `# Written by Millrace at each start.
local all         all               trust
host  all         all 127.0.0.1/32  scram-sha-256
local replication all               trust
host  replication all 127.0.0.1/32  scram-sha-256
`;
