// `npm test [-- files or parts of their names]`: installs and builds what is missing or stale, then test/run.ts does the rest.
import { build } from './build.mjs';
import { ensureInstalled } from './install.mjs';

ensureInstalled();
if (!build()) process.exit(1);
const { register } = await import('tsx/esm/api');
register();
await import('../test/run.ts');
