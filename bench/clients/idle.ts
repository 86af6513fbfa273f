// Consumers that wait: a connection each, on which one Fetch of an empty partition follows another, in a process of
// their own (idle-client.ts). Frames are made once and answers are only counted, so that a thousand cost little.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { nameValue } from './program.ts';

const program = fileURLToPath(new URL('./idle-client.ts', import.meta.url));

export interface IdleConsumers {
  readonly bootstrap: string;
  readonly topic: string;
  readonly partitions: number;
  readonly consumers: number;
}

/** Resolves when each has had its first answer; the function it gives ends them. Fails if one has lost its connection. */
export async function startIdleConsumers(wanted: IdleConsumers): Promise<() => Promise<void>> {
  const child = spawn(process.execPath, ['--import', 'tsx', program, ...nameValue({ ...wanted })], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  const ended = once(child, 'exit');
  const ready = await Promise.race([once(child.stdout, 'data').then(() => true), ended.then(() => false)]);
  if (!ready) throw new Error('the idle consumers did not start');
  return async () => {
    child.stdin.end();
    const [code] = await ended;
    if (code !== 0) throw new Error('an idle consumer lost its connection');
  };
}
