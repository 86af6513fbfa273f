// Chooses what the command line asks for, and ends the process with a sentence where that cannot be done.
import { OperationalError } from '../runtime/errors.ts';
import { version } from '../runtime/version.ts';
import { renderHelp } from './help.ts';
import { type MirrorCommand, mirrorCommand, mirrorCommands, mirrorHelp } from './mirror.ts';
import { start } from './start.ts';

export async function runCommand(argv: readonly string[]): Promise<void> {
  // A reader of our output that goes away (| head) is no reason to end.
  process.stdout.on('error', () => {});
  if (argv[0] === 'compare') {
    const { compare, compareHelp } = await import('./compare.ts');
    if (argv.includes('--help')) process.stdout.write(compareHelp);
    else process.exitCode = await compare(argv.slice(1)).catch(fail);
  } else if (isMirrorCommand(argv[0])) {
    if (argv.includes('--help')) process.stdout.write(mirrorHelp);
    else process.exitCode = await mirrorCommand(argv[0], argv.slice(1)).catch(fail);
  } else if (argv.includes('--help') || argv.includes('-h')) {
    process.stdout.write(renderHelp());
  } else if (argv.includes('--version')) {
    process.stdout.write(`${version}\n`);
  } else {
    await start(argv).then(
      code => process.exit(code),
      (error: unknown) => fail(error),
    );
  }
}

const isMirrorCommand = (word: string | undefined): word is MirrorCommand =>
  (mirrorCommands as readonly (string | undefined)[]).includes(word);

function fail(error: unknown): never {
  if (error instanceof OperationalError) {
    process.stderr.write(`millrace: ${error.sentence}\n`);
    process.exit(error.exitCode);
  }
  process.stderr.write(`millrace: ${error instanceof Error ? error.stack : String(error)}\n`);
  process.exit(1);
}
