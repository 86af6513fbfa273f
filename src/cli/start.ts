// Runs a server until a signal or a failure ends it. The first SIGTERM, SIGINT or SIGHUP drains and stops; a second
// one gives up what is still under way.
import { readSettings } from '../runtime/config.ts';
import { createLogger } from '../runtime/logger.ts';
import { Server } from '../server.ts';
import { renderReady } from './ready.ts';

/** npm passes on the signals that the terminal has already sent to us: two within this time are one. */
const sameSignalMs = 500;
/** How long giving up may take before the process ends regardless. */
const lastResortMs = 3000;

/** Resolves to the exit code. */
export async function start(argv: readonly string[]): Promise<number> {
  const settings = await readSettings({ argv, env: process.env, cwd: process.cwd() });
  const logger = createLogger(settings.logLevel);
  const server = new Server(settings, logger);

  let first: number | undefined;
  let gaveUp = false;
  const signalled = new Promise<void>(resolve => {
    const onSignal = (signal: NodeJS.Signals) => {
      if (first === undefined) {
        first = Date.now();
        logger.info({ signal }, 'stopping');
        resolve();
        return;
      }
      if (Date.now() - first < sameSignalMs) return;
      logger.warn({ signal }, 'giving up what is under way');
      gaveUp = true;
      server.hurry();
      setTimeout(() => process.exit(1), lastResortMs);
    };
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, onSignal);
  });
  const stopped = signalled.then(() => server.stop());

  try {
    await server.start();
    process.stdout.write(renderReady(server));
    await Promise.race([stopped, server.failed]);
  } catch (error) {
    if (first === undefined) throw error; // else whatever failed did so because it was stopped under way
  } finally {
    await server.stop();
  }
  logger.info('stopped');
  return gaveUp ? 1 : 0;
}
