/** `mayfly evidence …`: commands, options, help and examples. What they do is in evidence.ts. */
import type { Command } from 'commander';
import type { Io } from './io.ts';

export function addEvidenceCommands(program: Command, io: Io, exit: (code: number) => void): void {
  const load = (): Promise<typeof import('./evidence.ts')> => import('./evidence.ts');
  const group = program
    .command('evidence')
    .description('what was run here: one signed record for every event')
    .addHelpText('after', `
Examples:
  mayfly evidence list --last 5
  mayfly evidence show 01J…
  mayfly evidence verify --witness sha256:…
`);
  group
    .command('verify', { isDefault: true })
    .description('check the chain of records and their signatures; names the first bad record')
    .option('--witness <hash>', 'a hash that `run --json` printed: it must be in the chain')
    .option('--key <file>', 'public key of the machine that signed, in PEM (default: this machine\'s)')
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExample:\n  mayfly evidence verify --witness sha256:…\n')
    .action(async (options) => exit(await (await load()).verify(io, options)));
  group
    .command('list')
    .description('the last records')
    .option('--last <number>', 'how many (default: 20)')
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExample:\n  mayfly evidence list --last 100 --json | jq .[].verdict\n')
    .action(async (options) => exit(await (await load()).list(io, options)));
  group
    .command('show')
    .description('one record with its profile, reasons, proof and connections, as JSON')
    .argument('<run>', 'its id, or its number in the chain')
    .addHelpText('after', '\nExample:\n  mayfly evidence show 0 | jq .verdict\n')
    .action(async (run: string) => exit(await (await load()).show(io, run)));
}
