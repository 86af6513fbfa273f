// --help: every setting of the table.
import { flagOf, settingNames, settingOf, variableOf } from '../runtime/settings.ts';

const width = 100;

export function renderHelp(): string {
  const lines = [
    'Millrace: event streaming that needs nothing but Postgres.',
    '',
    'Usage: npm start -- [flags]',
    '       millrace [flags]',
    '       millrace compare NAME   (a mirror with its target; millrace compare --help says more)',
    '       millrace plan|cutover|rollback NAME   (of a mirror; millrace plan --help says more)',
    '',
    'Every setting is a flag, an environment variable or a key in millrace.yaml; flags win over the',
    'environment, the environment over the file. docs/configuration.md says more.',
    '',
    '  --config FILE  (MILLRACE_CONFIG)',
    ...wrap('Read the settings from FILE instead of ./millrace.yaml.'),
    '  --capture|--sinks|--deliver|--mirror NAME=DEFINITION',
    ...wrap(
      'A pipeline, as millrace.yaml has it below its name, in one line of YAML or JSON; as often as there are any.',
    ),
    '  --help',
    '  --version',
  ];
  let group = '';
  for (const name of settingNames) {
    const setting = settingOf(name);
    if (setting.group !== group) lines.push('', `${setting.group}:`);
    group = setting.group;
    lines.push(`  ${flagOf(setting.key)} ${setting.type.name.toUpperCase()}  (${variableOf(setting.key)})`);
    lines.push(...wrap(`${setting.doc} Default: ${setting.defaultText ?? setting.type.format(setting.default)}.`));
  }
  return `${lines.join('\n')}\n`;
}

function wrap(text: string): string[] {
  const lines: string[] = [];
  let line = '     ';
  for (const word of text.split(' ')) {
    if (line.length + 1 + word.length > width) {
      lines.push(line);
      line = '     ';
    }
    line += ` ${word}`;
  }
  return [...lines, line];
}
