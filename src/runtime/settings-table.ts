// The settings as the table of docs/configuration.md. The document is written by `npm run docs:configuration`, and
// a test finds one that does not agree with the code.
import { flagOf, settingNames, settingOf, variableOf } from './settings.ts';

export const tableBegins = '<!-- settings: written by npm run docs:configuration -->';
export const tableEnds = '<!-- end of settings -->';

export function renderSettingsTable(): string {
  const parts: string[] = [];
  let group = '';
  for (const name of settingNames) {
    const setting = settingOf(name);
    if (setting.group !== group) {
      parts.push(`\n## ${setting.group}\n\n| Setting | Type | Default | What it does |\n|---|---|---|---|\n`);
      group = setting.group;
    }
    const names = `\`${setting.key}\`<br>\`${flagOf(setting.key)}\`<br>\`${variableOf(setting.key)}\``;
    const shown = setting.defaultText ?? `\`${setting.type.format(setting.default)}\``;
    parts.push(`| ${names} | ${setting.type.name} | ${shown} | ${setting.doc} |\n`);
  }
  return `${tableBegins}\n${parts.join('')}\n${tableEnds}`;
}

/** `document` with the part between the two marks made anew. */
export function replaceSettingsTable(document: string): string {
  const begin = document.indexOf(tableBegins);
  const end = document.indexOf(tableEnds);
  if (begin < 0 || end < begin) throw new Error('the document lacks the marks around its settings');
  return document.slice(0, begin) + renderSettingsTable() + document.slice(end + tableEnds.length);
}
