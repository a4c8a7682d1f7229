/** `mayfly forensics …`: commands, options, help and examples. What they do is in forensics.ts. */
import type { Command } from 'commander';
import type { Io } from './io.ts';

export function addForensicsCommands(program: Command, io: Io, exit: (code: number) => void): void {
  const load = (): Promise<typeof import('./forensics.ts')> => import('./forensics.ts');
  const group = program
    .command('forensics')
    .description('what was kept of clones: memory, files, processes, connections')
    .addHelpText('after', `
A run is kept with \`mayfly run --keep\`, or when its profile says so. Who may look: MAYFLY_HOME/roles.json.

Examples:
  mayfly forensics list
  mayfly forensics show 01J… --html report.html
  mayfly forensics export 01J… ./case-7
`);
  group
    .command('list')
    .description('snapshots, and until when they stay')
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExample:\n  mayfly forensics list --json | jq .[].runId\n')
    .action(async (options) => exit(await (await load()).list(io, options)));
  group
    .command('show')
    .description('processes, files with their hashes and types, connections, indicators and changed memory of a run')
    .argument('<run>')
    .option('--html <file>', 'as one page to read and print')
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExample:\n  mayfly forensics show 01J… --html report.html\n')
    .action(async (run: string, options) => exit(await (await load()).show(io, run, options)));
  group
    .command('timeline')
    .description('what happened, in order of time, and who says so')
    .argument('<run>')
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExample:\n  mayfly forensics timeline 01J…\n')
    .action(async (run: string, options) => exit(await (await load()).timeline(io, run, options)));
  group
    .command('diff')
    .description('what one clone did and another did not')
    .argument('<one>')
    .argument('<two>')
    .addHelpText('after', '\nExample:\n  mayfly forensics diff 01J… 01K…\n')
    .action(async (one: string, two: string) => exit(await (await load()).diff(io, one, two)));
  group
    .command('export')
    .description('memory as an ELF core with symbols for Volatility 3, files, report: decrypted, into a new folder')
    .argument('<run>')
    .argument('<folder>')
    .addHelpText('after', '\nExample:\n  mayfly forensics export 01J… ./case-7\n')
    .action(async (run: string, folder: string) => exit(await (await load()).exportSnapshot(io, run, folder)));
  group
    .command('hold')
    .description('keep a snapshot beyond its time')
    .argument('<run>')
    .option('--because <text>', 'why')
    .option('--lift', 'take the hold away')
    .addHelpText('after', '\nExample:\n  mayfly forensics hold 01J… --because "case 7"\n')
    .action(async (run: string, options) => exit(await (await load()).hold(io, run, options)));
  group
    .command('purge')
    .description('remove what has expired, or one snapshot')
    .argument('[run]')
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExample:\n  mayfly forensics purge\n')
    .action(async (run: string | undefined, options) => exit(await (await load()).purge(io, run, options)));
}
