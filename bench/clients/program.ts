// Runs a client program that prints one JSON object, and gives that object.
import { spawn } from 'node:child_process';

export type Arguments = Readonly<Record<string, string | number | boolean | undefined>>;

export function nameValue(values: Arguments): string[] {
  return Object.entries(values)
    .filter(([, value]) => value !== undefined)
    .map(([name, value]) => `${name}=${typeof value === 'boolean' ? Number(value) : value}`);
}

export function runProgram<T>(command: string, args: readonly string[], timeoutMs = 300_000): Promise<T> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['ignore', 'pipe', 'pipe'], timeout: timeoutMs });
    let out = '';
    let err = '';
    child.stdout.on('data', chunk => {
      out += chunk;
    });
    child.stderr.on('data', chunk => {
      err += chunk;
    });
    child.once('error', reject);
    child.once('close', (code, signal) => {
      const line = out.trim().split('\n').at(-1) ?? '';
      if (code === 0 && line.startsWith('{')) resolve(JSON.parse(line) as T);
      else reject(new Error(`${command} ${args.join(' ')}: ${signal ?? `exit ${code}`}: ${err.trim()} ${line}`));
    });
  });
}
