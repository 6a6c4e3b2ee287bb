#!/usr/bin/env node
import { runCli } from './cli.js';
import { processContext } from './context.js';

// A reader that stops early (`aegis inspect ... | head`) is no failure.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit(0);
});

process.exitCode = await runCli(process.argv.slice(2), processContext);
