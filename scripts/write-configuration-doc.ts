// Writes the settings of src/runtime/settings.ts into docs/configuration.md: npm run docs:configuration
import { readFileSync, writeFileSync } from 'node:fs';
import { replaceSettingsTable } from '../src/runtime/settings-table.ts';

const path = new URL('../docs/configuration.md', import.meta.url);
writeFileSync(path, replaceSettingsTable(readFileSync(path, 'utf8')));
