/** Commands of the service: functions, tenants, keys. What they do is in files of their own, loaded when called. */
import { Option } from 'commander';
import type { Command } from 'commander';
import type { Io } from './io.ts';

const DEPLOY_EXAMPLES = `
Examples:
  mayfly init hello && mayfly deploy hello
  mayfly deploy ./resize --tenant acme
`;

function collect(value: string, before: readonly string[] = []): readonly string[] {
  return [...before, value];
}

export function addServiceCommands(program: Command, io: Io, exit: (code: number) => void): void {
  addFunctionCommands(program, io, exit);
  addTenantCommands(program, io, exit);
  addServeCommands(program, io, exit);
}

const SERVE_EXAMPLES = `
Examples:
  mayfly serve
  mayfly serve --listen 127.0.0.1:0 --concurrency 4 --warm-memory 1G
  mayfly serve --listen 0.0.0.0:8443 --tls-cert cert.pem --tls-key key.pem

The address is on stdout once events are accepted; the log is JSON on stderr. SIGTERM drains: what runs may end, and
what waits is kept for the next start. docs/SERVE.md has the rest.
`;

function addServeCommands(program: Command, io: Io, exit: (code: number) => void): void {
  program.command('serve').description('take events over HTTP, each in a VM of its own')
    .option('--listen <address>', 'ADDRESS:PORT', '127.0.0.1:8420')
    .addOption(new Option('--accel <mode>', 'auto, kvm (refuse anything weaker) or tcg').default('auto'))
    .option('--concurrency <number>', 'events that run at a time (default: one for each CPU)')
    .option('--queue <number>', 'events that wait (default: 1000)')
    .option('--warm-memory <size>', 'memory of clones that wait (default: a quarter of the machine\'s)')
    .option('--store <size>', 'of events and results on disk (default: 4G)')
    .option('--results <time>', 'results are kept so long (default: 1440m)')
    .option('--dead-letters <time>', 'dead letters are kept so long (default: 10080m)')
    .option('--drain <time>', 'events that run have so long to end when it stops (default: 30s)')
    .option('--tls-cert <file>', 'certificate chain, PEM')
    .option('--tls-key <file>', 'its key, PEM')
    .option('--open-metrics', '/metrics for everybody who can connect, not for this machine alone')
    .addHelpText('after', SERVE_EXAMPLES)
    .action(async (options) => exit(await (await import('./serve.ts')).serve(io, options)));
  const load = async (): Promise<typeof import('./dlq.ts')> => await import('./dlq.ts');
  const dlq = program.command('dlq').description('dead letters: events that have ended without a result');
  dlq.command('list').description('newest first')
    .option('--tenant <name>', 'of one tenant')
    .option('--function <name>', 'of one function')
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExample:\n  mayfly dlq list --function hello\n')
    .action(async (options) => exit(await (await load()).list(io, options)));
  dlq.command('show').description('one of them, with its payload')
    .argument('<event>')
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExample:\n  mayfly dlq show 01M86TGAECYAE9HB802MYBC0ST\n')
    .action(async (id: string, options) => exit(await (await load()).show(io, id, options)));
  for (const [name, words] of [['retry', 'run them again'], ['purge', 'forget them and their payloads']] as const) {
    dlq.command(name).description(words)
      .argument('[events...]')
      .option('--all', 'all that the options below leave, at most 200')
      .option('--tenant <name>', 'of one tenant')
      .option('--function <name>', 'of one function')
      .addHelpText('after', `\nExample:\n  mayfly dlq ${name} --all --function hello\n`)
      .action(async (ids: string[], options) => exit(await (await load())[name](io, ids, options)));
  }
}

function addFunctionCommands(program: Command, io: Io, exit: (code: number) => void): void {
  const load = async (): Promise<typeof import('./function.ts')> => await import('./function.ts');
  program.command('init').description('write a function to begin with: mayfly.yaml and a handler')
    .argument('[folder]', 'new or empty', 'hello')
    .option('--runtime <name>', 'node or python', 'node')
    .addHelpText('after', '\nExample:\n  mayfly init hello --runtime python\n')
    .action(async (folder: string, options) => exit(await (await load()).init(io, folder, options)));
  program.command('deploy').description('make a folder with a mayfly.yaml the version in use of its function')
    .argument('<folder>')
    .option('--tenant <name>', 'whose function it is', 'default')
    .option('--json', 'as JSON')
    .addHelpText('after', DEPLOY_EXAMPLES)
    .action(async (folder: string, options) => exit(await (await load()).deploy(io, folder, options)));
  const functions = program.command('function').description('functions that are deployed, and their versions');
  functions.command('list').description('all functions')
    .option('--tenant <name>', 'of one tenant')
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExample:\n  mayfly function list\n')
    .action(async (options) => exit(await (await load()).list(io, options)));
  functions.command('show').description('manifest and versions of one function')
    .argument('<name>')
    .option('--tenant <name>', 'whose function it is', 'default')
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExample:\n  mayfly function show hello\n')
    .action(async (name: string, options) => exit(await (await load()).show(io, name, options)));
  functions.command('rollback').description('back to the version before, or to the one named')
    .argument('<name>')
    .option('--tenant <name>', 'whose function it is', 'default')
    .option('--to <version>', 'digest, or the beginning of its hex digits')
    .addHelpText('after', '\nExample:\n  mayfly function rollback hello --to 3f9a\n')
    .action(async (name: string, options) => exit(await (await load()).rollback(io, name, options)));
  functions.command('delete').description('forget a function and its versions')
    .argument('<name>')
    .option('--tenant <name>', 'whose function it is', 'default')
    .addHelpText('after', '\nExample:\n  mayfly function delete hello\n')
    .action(async (name: string, options) => exit(await (await load()).remove(io, name, options)));
}

function addTenantCommands(program: Command, io: Io, exit: (code: number) => void): void {
  const load = async (): Promise<typeof import('./tenant.ts')> => await import('./tenant.ts');
  const tenant = program.command('tenant').description('who has functions, and how much of this machine');
  tenant.command('create').description('make a tenant, or change its quota')
    .argument('<name>')
    .option('--rate <number>', 'events per second (default: 100)')
    .option('--queued <number>', 'events that wait (default: 500)')
    .option('--concurrency <number>', 'events that run at a time (default: as many as the service runs)')
    .addHelpText('after', '\nExample:\n  mayfly tenant create acme --rate 20\n')
    .action(async (name: string, options) => exit(await (await load()).createTenant(io, name, options)));
  tenant.command('list').description('all tenants')
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExample:\n  mayfly tenant list\n')
    .action(async (options) => exit(await (await load()).listTenants(io, options)));
  tenant.command('delete').description('a tenant without functions, and its keys')
    .argument('<name>')
    .addHelpText('after', '\nExample:\n  mayfly tenant delete acme\n')
    .action(async (name: string) => exit(await (await load()).deleteTenant(io, name)));
  const key = program.command('key').description('API keys of tenants');
  key.command('create').description('a new key, on stdout, once')
    .option('--tenant <name>', 'whose key it is', 'default')
    .option('--role <name>', 'invoke, deploy, investigate or admin; repeat for more (default: invoke)', collect)
    .option('--label <text>', 'what it is for')
    .option('--days <number>', 'it expires after so many days (default: never)')
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExample:\n  KEY=$(mayfly key create --role invoke)\n')
    .action(async (options) => exit(await (await load()).createKey(io, options)));
  key.command('list').description('keys without their secrets')
    .option('--tenant <name>', 'of one tenant')
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExample:\n  mayfly key list --tenant acme\n')
    .action(async (options) => exit(await (await load()).listKeys(io, options)));
  key.command('revoke').description('end a key, at once')
    .argument('<id>')
    .addHelpText('after', '\nExample:\n  mayfly key revoke 3fq0m2k7x9a4c1zd\n')
    .action(async (id: string) => exit(await (await load()).revokeKey(io, id)));
}
