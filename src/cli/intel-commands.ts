/** `mayfly intel …`: its commands, options and help; what they do is in intel.ts, loaded when called. */
import type { Command } from 'commander';
import type { Io } from './io.ts';

const INTEL_EXAMPLES = `
Examples:
  mayfly intel sync                          pull every feed of MAYFLY_HOME/intel/feeds.yaml
  mayfly intel sync botnet-ips --accept      take a quarantined feed, without the rows that were found
  mayfly intel status --json                 exit code 3 when a feed is stale, failing or quarantined
  mayfly intel lookup 203.0.113.7            exit code 1 when it is not listed
  mayfly intel score --event e.json --source 203.0.113.7
`;

export function addIntelCommands(program: Command, io: Io, exit: (code: number) => void): void {
  const intel = program.command('intel').description('threat feeds, and what they say about an event')
    .addHelpText('after', INTEL_EXAMPLES);
  const load = async (): Promise<typeof import('./intel.ts')> => await import('./intel.ts');
  intel.command('sync').description('pull feeds; a suspicious one is quarantined and its last good copy stays')
    .argument('[feeds...]', 'names (default: all)')
    .option('--accept', 'take a copy that would be quarantined, without the rows that were found')
    .option('--due', 'only feeds whose time has come (`every` in feeds.yaml)')
    .option('--watch', 'go on pulling feeds in their time, until Ctrl-C')
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExample:\n  mayfly intel sync --json\n')
    .action(async (feeds: string[], options) => exit(await (await load()).intelSync(io, feeds, options)));
  intel.command('status').description('how fresh each feed is')
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExample:\n  mayfly intel status\n')
    .action(async (options) => exit(await (await load()).intelStatus(io, options)));
  intel.command('list').description('indicators of the copies in use')
    .argument('[feeds...]', 'names (default: all)')
    .option('--limit <number>', 'at most so many', '100')
    .option('--json', 'one JSON object a line')
    .addHelpText('after', '\nExample:\n  mayfly intel list botnet-ips --limit 20\n')
    .action(async (feeds: string[], options) => exit(await (await load()).intelList(io, feeds, options)));
  intel.command('lookup').description('what feeds say about one value')
    .argument('<value>', 'address, domain, URL, e-mail address or hash')
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExample:\n  mayfly intel lookup bad.example\n')
    .action(async (value: string, options) => exit(await (await load()).intelLookup(io, value, options)));
  intel.command('score').description('threat score and complexity of an event, explained; nothing runs')
    .requiredOption('--event <file>', 'event as JSON, - for stdin')
    .option('--source <address>', 'address that it came from')
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExample:\n  mayfly intel score --event e.json --json | jq .level\n')
    .action(async (options) => exit(await (await load()).intelScore(io, options)));
}
