#!/usr/bin/env node
// The command `millrace`.
import { runCommand } from './cli/command.ts';

await runCommand(process.argv.slice(2));
