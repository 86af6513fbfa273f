// `npm test [-- files or parts of their names]`: installs what is missing, then test/run.ts does the rest.
import { ensureInstalled } from './install.mjs';

ensureInstalled();
const { register } = await import('tsx/esm/api');
register();
await import('../test/run.ts');
