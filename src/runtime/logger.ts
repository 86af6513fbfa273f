// Log lines go to stderr, so that stdout stays for people: JSON, one object a line, or short text when stderr is
// a terminal. Messages are constant, values are in fields, and no payload or secret is ever a field.
import { Writable } from 'node:stream';
import { type Logger, pino } from 'pino';

export type { Logger } from 'pino';

export function createLogger(level: string): Logger {
  const options = {
    level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label: string) => ({ level: label }) },
  };
  // Synchronous: lines are few, and the last ones before an exit are the ones that matter.
  if (!process.stderr.isTTY) return pino(options, pino.destination({ dest: 2, sync: true }));
  const terminal = new Writable({
    write(chunk, _encoding, done) {
      process.stderr.write(forPeople(String(chunk)), done);
    },
  });
  return pino(options, terminal);
}

function forPeople(line: string): string {
  const { level, time, msg, err, ...fields } = JSON.parse(line);
  const rest = Object.entries(fields).map(
    ([name, value]) => ` ${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`,
  );
  const stack = err ? `\n${err.stack ?? err.message}` : '';
  return `${time.slice(11, 23)} ${level.padEnd(5)} ${msg}${rest.join('')}${stack}\n`;
}
