/**
 * The command line: commands, options, help and examples. What a command does is in its own file, loaded when called.
 */
import { Command, CommanderError, Option } from 'commander';
import { asMayflyError, errorTable, exitCodes, MayflyError } from '../core/errors.ts';
import { addEvidenceCommands } from './evidence-commands.ts';
import { addForensicsCommands } from './forensics-commands.ts';
import { addImageCommands } from './image-commands.ts';
import { addIntelCommands } from './intel-commands.ts';
import { paint } from './io.ts';
import type { Io } from './io.ts';
import { formatProblem, jsonProblem } from './report.ts';
import { addServiceCommands } from './service-commands.ts';

const EXIT_CODES = `
Exit codes:
  0    the function's output is on stdout
  1    the function failed: it threw, timed out, ran out of memory or returned something unusable
  2    the command line, event or function cannot be used as given
  3    the machine is not able to run clones (mayfly doctor)
  4    Mayfly itself failed
  5    the guest broke the rules: treat the function as hostile
  130  interrupted (143 by SIGTERM, 129 by SIGHUP); nothing is left behind
`;

const RUN_EXAMPLES = `
Examples:
  mayfly run --handler h.mjs --event e.json           a Node handler: export default async (event, context) => …
  mayfly run --handler h.py --data '{"n": 1}'          a Python handler: def handler(event, context)
  mayfly run --exec ./count.sh --event - < e.json      any executable: event on stdin, result on stdout
  mayfly run --image python --program /usr/bin/python3 --raw -- -c 'print(40 + 2)'
  mayfly run --handler server.mjs --port 8080 --data '{"method": "GET", "path": "/"}'
  mayfly run --handler h.mjs --allow api.example.com:443 --trace
  mayfly run --handler app/h.mjs --timeout 5s --memory 512M --trace
  mayfly run --handler h.mjs --schema out.schema.json --secrets secrets.json --validator check.mjs

A handler is shipped alone, or with its folder when package.json or node_modules stands beside it.
stdout has the output and nothing else; logs, progress and errors go to stderr.
${EXIT_CODES}`;

const EXPLAIN_EXAMPLES = `
Exit code 0 when it is allowed, 1 when it is not. A policy is JSON:

  {
    "mode": "rules",
    "rules": [
      {"allow": "*.example.com", "ports": [443]},
      {"deny": "admin.example.com"},
      {"allow": "db.corp.example:5432", "cidr": "10.0.7.0/24", "private": true}
    ],
    "limits": {"connections": 100, "bytes": 10000000}
  }

mode is none, rules, or audit (everything that no rule denies). Deny beats allow, wherever they stand. Addresses that
are not of the public Internet are denied unless an allow rule names their exact range with "private": true.

Example:
  mayfly egress explain --allow '*.example.com:443' https://api.example.com/
`;

/** Resolves to the exit code; never rejects. */
export async function runProgram(io: Io, argv: readonly string[]): Promise<number> {
  let exitCode: number = exitCodes.ok;
  const program = buildProgram(io, (code) => {
    exitCode = code;
  });
  try {
    await program.parseAsync([...argv], { from: 'user' });
    return exitCode;
  } catch (thrown) {
    if (thrown instanceof CommanderError && thrown.exitCode === 0) return exitCodes.ok;
    const error = thrown instanceof CommanderError ? usageError(thrown) : explain(io, thrown);
    const json = argv.slice(0, argv.includes('--') ? argv.indexOf('--') : argv.length).includes('--json');
    if (json) io.out(`${JSON.stringify({ ok: false, runId: null, error: jsonProblem(error) })}\n`);
    else io.err(formatProblem(error, paint(io.colour)));
    return errorTable[error.code].exit;
  }
}

/** Programs that Mayfly asks things of see Ctrl-C as well: what they then fail with is not the reason. */
function explain(io: Io, thrown: unknown): MayflyError {
  if (!io.signal.aborted) return asMayflyError(thrown);
  return new MayflyError('E_INTERRUPTED', 'Interrupted before there was a run.', { cause: thrown });
}

/** The last words about something that nothing else has caught. */
export function reportCrash(io: Io, thrown: unknown): void {
  io.err(formatProblem(asMayflyError(thrown), paint(io.colour)));
}

/** Commander's own words, which name the argument and suggest a near miss, under the stable code. */
function usageError(thrown: CommanderError): MayflyError {
  const message = thrown.message.replace(/^error: /, '').replace(/\n/g, ' ');
  const empty = thrown.code === 'commander.help';
  return new MayflyError('E_USAGE', empty ? 'no command was given' : message);
}

/** Commander's way to let an option repeat. */
function collect(value: string, before: readonly string[] = []): readonly string[] {
  return [...before, value];
}

function buildProgram(io: Io, exit: (code: number) => void): Command {
  const program = new Command('mayfly')
    .description('Every event in its own virtual machine.')
    .configureOutput({ writeOut: (text) => io.out(text), writeErr: () => {} })
    .version(io.version)
    .showSuggestionAfterError()
    .addHelpText('after', `\nStart with \`mayfly doctor\`, then \`mayfly run --help\`.\n${EXIT_CODES}`)
    .exitOverride();

  program
    .command('run')
    .description('run one event through a fresh VM')
    .argument('[args...]', 'arguments of --exec or --program, after --')
    .option('--handler <file>', 'handler to call: .mjs, .js, .cjs or .py')
    .option('--exec <file>', 'executable to ship and run')
    .option('--program <path>', 'program of the image to run, as in /usr/bin/python3')
    .option('--image <name>', 'base image (default: chosen by language, class, event and threat)')
    .option('--class <name>', 'what the function does: analysis, compute, database, document, image, shell, web')
    .option('--allow-unsigned', 'run the image also when no trusted key has signed it')
    .option('--code <folder>', 'ship this folder with it')
    .option('--env <name=value>', 'environment variable of the function; repeat for more', collect)
    .option('--port <number>', 'it is a server: the event is an HTTP request to this port, its answer the output')
    .option('--event <file>', 'event as JSON, - for stdin: a CloudEvent, or any value to be wrapped in one')
    .option('--data <json>', 'the event itself')
    .option('--timeout <time>', 'wall time of the function, as in 500ms, 30s, 2m (default: 30s)')
    .option('--memory <size>', 'memory of the function, as in 256M, 1G (default: 256M)')
    .option('--cpu <share>', 'CPUs, as in 0.5 (default: 1)')
    .option('--pids <number>', 'processes and threads (default: 128)')
    .option('--scratch <size>', 'writable space (default: 64M)')
    .option('--disk-rate <size>', 'bytes per second that it may read from its disk (default: 256M)')
    .option('--disk-operations <number>', 'reads per second from its disk (default: 20000)')
    .option('--lsm <module>', 'what confines it in its guest: apparmor, the default and the only one')
    .option('--hide <path>', 'it cannot open this path of its image, nor what is in it; repeat for more', collect)
    .option('--read-only <path>', 'it cannot write this path below /tmp or /dev/shm; repeat for more', collect)
    .option('--allow <where...>', 'let it connect there, as in api.example.com:443, *.example.com or 192.0.2.0/24:5432')
    .option('--network <file>', 'its network policy as JSON (mayfly egress explain --help)')
    .option('--rules <path>', 'context rules: a folder of .yaml files, or one file')
    .option('--from <name=value>', 'what is known of the sender: ip, asn, tenant, principal; may repeat', collect)
    .option('--score <number>', 'threat score of the event, 0 to 100, as if something had assessed it')
    .option('--schema <file>', 'JSON Schema (2020-12) of the result')
    .option('--output-type <type...>', 'media types that the output may be of by its bytes, as in image/png, image/*')
    .option('--secrets <file>', 'JSON object of secrets: none of them may be in the output, however it is encoded')
    .option('--canary <text>', 'a text that must not be in the output; may repeat', collect)
    .option('--credentials <what>', 'note (default) or withhold outputs with what looks like a credential')
    .option('--indicators', 'withhold outputs with something that the threat feeds list')
    .option('--validator <handler>', 'your own check of the output: a handler, run in a clone of its own')
    .option('--neutralise <for...>', 'make texts of the output harmless for html, ansi, csv')
    .addOption(new Option('--accel <mode>', 'auto, kvm (refuse anything weaker) or tcg').default('auto'))
    .option('--keep', 'keep the memory of the clone at its end, encrypted (mayfly forensics)')
    .option('--raw', 'pass the output of --exec, --program or a server on as bytes instead of JSON')
    .option('--explain', 'show on stderr who has set each field of the profile, as a tree')
    .option('--trace', 'show on stderr where the time went')
    .option('--json', 'print one JSON object with output, usage, timeline and evidence')
    .addHelpText('after', RUN_EXAMPLES)
    .action(async (args: string[], options) => exit(await (await import('./run.ts')).run(io, options, args)));

  program
    .command('profile')
    .description('the profile that an event would get, without a VM')
    .option('--event <file>', 'event as JSON, - for stdin')
    .option('--data <json>', 'the event itself')
    .option('--image <name>', 'base image (default: chosen as for run)')
    .option('--class <name>', 'what the function does, as for run')
    .option('--function <name>', 'name of the function, as rules see it')
    .option('--timeout <time>', 'as for run')
    .option('--memory <size>', 'as for run')
    .option('--cpu <share>', 'as for run')
    .option('--pids <number>', 'as for run')
    .option('--scratch <size>', 'as for run')
    .option('--disk-rate <size>', 'as for run')
    .option('--disk-operations <number>', 'as for run')
    .option('--lsm <module>', 'as for run')
    .option('--hide <path>', 'as for run', collect)
    .option('--read-only <path>', 'as for run', collect)
    .option('--allow <where...>', 'as for run')
    .option('--network <file>', 'as for run')
    .option('--rules <path>', 'context rules: a folder of .yaml files, or one file')
    .option('--from <name=value>', 'what is known of the sender: ip, asn, tenant, principal; may repeat', collect)
    .option('--score <number>', 'threat score of the event, 0 to 100, as if something had assessed it')
    .addOption(new Option('--accel <mode>', 'auto, kvm or tcg').default('auto'))
    .option('--explain', 'who has set each field, as a tree')
    .option('--json', 'profile, digest and reasons as one JSON object')
    .addHelpText('after', '\nExample:\n  mayfly profile --event e.json --rules rules/ --from ip=192.0.2.1 --explain\n')
    .action(async (options) => exit(await (await import('./profile.ts')).profile(io, options)));

  const rules = program.command('rules').description('check, test and compare context rules');
  rules
    .command('check')
    .description('everything that is wrong with rule files, with file and line')
    .argument('<path>', 'a folder of .yaml files, or one file')
    .option('--json', 'as JSON')
    .action(async (path, options) => exit(await (await import('./rules.ts')).check(io, path, options)));
  rules
    .command('test')
    .description('run the tests that stand in rule files')
    .argument('<path>', 'a folder of .yaml files, or one file')
    .option('--json', 'as JSON')
    .action(async (path, options) => exit(await (await import('./rules.ts')).test(io, path, options)));
  rules
    .command('diff')
    .description('which events would get another profile')
    .argument('<before>', 'rules as they are')
    .argument('<after>', 'rules as they would be')
    .requiredOption('--events <path>', 'a folder of .json events, or a .jsonl file')
    .option('--from <name=value>', 'what is known of the sender of all of them', collect)
    .option('--json', 'as JSON')
    .action(async (before, after, options) => {
      exit(await (await import('./rules.ts')).diff(io, before, after, options));
    });

  program
    .command('demo')
    .description('two events through two VMs, with the story')
    .action(async () => exit(await (await import('./demo.ts')).demo(io, io.examples)));

  program
    .command('doctor')
    .description('check this machine, with a remedy for everything that is wrong')
    .option('--rebuild', 'drop templates and the accelerator verdict first')
    .option('--strict', 'refuse what is only a warning otherwise: for hosts of code that nobody trusts')
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExample:\n  mayfly doctor --json | jq \'.checks[] | select(.level != "ok")\'\n')
    .action(async (options) => exit(await (await import('./doctor.ts')).doctor(io, options)));

  program
    .command('images')
    .description('list the base images')
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExample:\n  mayfly images\n')
    .action(async (options) => exit(await (await import('./list.ts')).images(io, options)));

  addImageCommands(program, io, exit);

  addEvidenceCommands(program, io, exit);

  addForensicsCommands(program, io, exit);

  program
    .command('replay')
    .description('run a kept event again and say what came out differently')
    .argument('<run>')
    .option('--profile <which>', 'same: that of the record; new: decided again', 'same')
    .option('--rules <path>', 'context rules for a new profile')
    .option('--from <name=value>', 'what is known of the sender, for a new profile', collect)
    .option('--score <number>', 'threat score for a new profile')
    .addOption(new Option('--accel <mode>', 'auto, kvm or tcg').default('auto'))
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExample:\n  mayfly replay 01J… --profile new --rules rules/\n')
    .action(async (run: string, options) => exit(await (await import('./replay.ts')).replay(io, run, options)));

  addIntelCommands(program, io, exit);
  addServiceCommands(program, io, exit);

  program
    .command('version')
    .description('versions of Mayfly and of what it runs on')
    .option('--json', 'as JSON')
    .addHelpText('after', '\nExample:\n  mayfly version --json\n')
    .action(async (options) => exit(await (await import('./list.ts')).version(io, options)));

  const egress = program.command('egress').description('what a function may reach');
  egress
    .command('explain')
    .description('whether a policy allows a connection, and by which rule')
    .argument('<url>', 'as in https://api.example.com/ or tcp://192.0.2.7:5432')
    .option('--allow <where...>', 'as for `mayfly run`')
    .option('--network <file>', 'as for `mayfly run`')
    .option('--address <address>', 'judge as if the name had resolved to it')
    .option('--json', 'as JSON')
    .addHelpText('after', EXPLAIN_EXAMPLES)
    .action(async (url: string, options) => exit(await (await import('./network.ts')).explain(io, options, url)));

  for (const command of program.commands.flatMap((it) => [it, ...it.commands])) {
    command.exitOverride().configureOutput({ writeOut: (text) => io.out(text), writeErr: () => {} });
  }
  return program;
}
