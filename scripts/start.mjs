// `npm start`: installs and builds what is missing or stale, then runs Millrace in this same process, so that
// signals reach it directly; package.json runs it by `exec`, because the shell in between would not pass them on.
import { build } from './build.mjs';
import { ensureInstalled } from './install.mjs';

const minimumNode = [20, 11];

checkNode();
ensureInstalled();
if (!build()) process.exit(1);
await import(new URL('../dist/main.js', import.meta.url));

function checkNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major > minimumNode[0] || (major === minimumNode[0] && minor >= minimumNode[1])) return;
  process.stderr.write(
    `millrace: Node ${process.versions.node} is too old; use Node ${minimumNode.join('.')} or newer\n`,
  );
  process.exit(1);
}
