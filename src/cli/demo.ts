/** `mayfly demo`: the product in under a minute. One event through one VM, then another, and nothing in common. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { App } from '../app.ts';
import { exitCodes } from '../core/errors.ts';
import { packFunction } from '../event/code.ts';
import { EVIDENCE_FILE } from '../evidence/seal.ts';
import type { Outcome } from '../stages.ts';
import { exitCodeOf } from '../validate/verdict.ts';
import { paint } from './io.ts';
import type { Io, Paint } from './io.ts';
import { clean } from './log.ts';
import { formatProblem, formatSummary, formatTimeline, tcgWarning } from './report.ts';

/** What examples/hello answers. */
interface Hello {
  readonly greeting: string;
  readonly vm: {
    readonly usedBefore: boolean;
    readonly machineId: string;
    readonly random: number;
    readonly uuid: string;
  };
}

const SHOWN_FACTS = [
  'uid=', 'no_new_privs=', 'cap.effective=', 'cgroup.memory.max=', 'cgroup.pids.max=',
  'mount./function=', 'net.interfaces=',
];

export async function demo(io: Io, examples: string): Promise<number> {
  const colours = paint(io.colour);
  const app = await io.openApp();
  const evidence = join(app.home, 'evidence', EVIDENCE_FILE);
  const promise = colours.bold('Mayfly gives every event its own virtual machine.');
  io.err(`\n${promise} Two events, examples/hello/handler.mjs:\n\n`);
  const { accelerator } = await app.engine('auto');
  if (accelerator.isolation === 'tcg') io.err(`   ${colours.yellow(tcgWarning(accelerator))}\n`);
  const first = await runHello(io, app, examples, colours);
  if (first.verdict.kind !== 'accepted') return end(io, first, colours);
  io.err(`${colours.bold('1')}  went through a VM that was cloned from a warm template, and is gone:\n\n`);
  io.err(`${formatTimeline(first.timeline, colours)}\n`);
  io.err('   Before the event was delivered the clone had to prove what is in force inside it, such as\n');
  const facts = (first.proof?.facts ?? []).filter((fact) => SHOWN_FACTS.some((prefix) => fact.startsWith(prefix)));
  for (let at = 0; at < facts.length; at += 2) {
    io.err(colours.dim(`     ${facts.slice(at, at + 2).map(column).join('')}\n`));
  }
  io.err(formatSummary(first, colours));

  io.err(`\n${colours.bold('2')}  got another clone of the same template:\n\n`);
  const second = await runHello(io, app, examples, colours);
  if (second.verdict.kind !== 'accepted') return end(io, second, colours);
  const [one, two] = [answerOf(first), answerOf(second)];
  const row = (what: string, a: unknown, b: unknown): void => {
    io.err(`   ${what.padEnd(16)}${column(String(a))}${String(b)}\n`);
  };
  row('answer', one.greeting, two.greeting);
  row('machine-id', one.vm.machineId, two.vm.machineId);
  row('Math.random()', one.vm.random, two.vm.random);
  row('randomUUID()', one.vm.uuid, two.vm.uuid);
  row('used before', one.vm.usedBefore, two.vm.usedBefore);
  const shared = (['machineId', 'random', 'uuid'] as const).filter((name) => one.vm[name] === two.vm[name]);
  if (two.vm.usedBefore || shared.length > 0) {
    io.err(colours.red(`\n   The two VMs are not independent (${shared.join(', ')}): this is a bug.\n`));
    return exitCodes.internal;
  }
  io.err(`\n   ${colours.green('Nothing of the first was left for the second.')} Both are on record in ${evidence}\n`);
  const next = ['bin/mayfly run --handler examples/hello/handler.mjs --trace', 'bin/mayfly doctor'];
  io.err(`   Next: ${next.map((command) => colours.cyan(command)).join(', ')}\n\n`);
  return exitCodes.ok;
}

function column(text: string): string {
  return text.padEnd(38);
}

async function runHello(io: Io, app: App, examples: string, colours: Paint): Promise<Outcome> {
  const packed = await packFunction({ entry: join(examples, 'hello', 'handler.mjs') });
  return await app.run(
    {
      language: 'node',
      workload: { kind: 'runtime', handler: packed.entry, entries: packed.entries },
      event: await readFile(join(examples, 'hello', 'event.json')),
      limits: {},
      accelerator: 'auto',
      signal: io.signal,
    },
    {
      progress: (what) => io.err(colours.dim(`   ${what} …\n`)),
      stdout: (chunk) => io.err(colours.dim(`   log: ${clean(chunk.toString('utf8'))}`)),
    },
  );
}

function answerOf({ output }: Outcome): Hello {
  return JSON.parse((output ?? Buffer.from('null')).toString('utf8')) as Hello;
}

function end(io: Io, { verdict }: Outcome, colours: Paint): number {
  if (verdict.kind !== 'accepted') io.err(formatProblem(verdict, colours));
  return exitCodeOf(verdict);
}
