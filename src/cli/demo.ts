/** `mayfly demo`: the product in under a minute. One event through one VM, then another, and nothing in common. */
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { App, Engine } from '../app.ts';
import { packFunction } from '../event/code.ts';
import type { Outcome } from '../stages.ts';
import { exitCodeOf } from '../validate/verdict.ts';
import { paint } from './io.ts';
import type { Io, Paint } from './io.ts';
import { formatProblem, formatSummary, formatTimeline } from './report.ts';

/** What examples/hello answers. */
interface Hello {
  readonly greeting: string;
  readonly vm: { readonly usedBefore: boolean; readonly machineId: string; readonly random: number; readonly uuid: string };
}

const SHOWN_FACTS = [
  'uid=', 'no_new_privs=', 'cap.effective=', 'cgroup.memory.max=', 'cgroup.pids.max=', 'mount./=', 'net.interfaces=',
];

export async function demo(io: Io, examples: string): Promise<number> {
  const colours = paint(io.colour);
  const app = await io.openApp();
  io.err(`\n${colours.bold('Mayfly gives every event its own virtual machine.')} Here are two events.\n`);
  const first = await runHello(io, app, examples, colours);
  if (first.verdict.kind !== 'accepted') return end(io, first, colours);
  io.err(`\n${colours.bold('1. The first event')} went through a VM that no longer exists:\n\n`);
  io.err(formatTimeline(first.timeline, colours));
  io.err(`\n   Before it was delivered the clone had to prove what is in force inside it, for example\n`);
  const facts = (first.proof?.facts ?? []).filter((fact) => SHOWN_FACTS.some((prefix) => fact.startsWith(prefix)));
  for (const fact of facts) io.err(`     ${colours.dim(fact)}\n`);
  io.err(`\n${formatSummary(first, colours)}\n   Its answer:\n`);
  const one = answerOf(first);
  io.out(`${JSON.stringify(one, null, 2)}\n`);

  const second = await runHello(io, app, examples, colours);
  if (second.verdict.kind !== 'accepted') return end(io, second, colours);
  const two = answerOf(second);
  io.err(`\n${colours.bold('2. The second event')} got another VM, cloned from the same template:\n\n`);
  const row = (what: string, a: unknown, b: unknown): string => `   ${what.padEnd(14)} ${String(a).padEnd(38)} ${String(b)}\n`;
  io.err(colours.dim(row('', 'first', 'second')));
  io.err(row('machine-id', one.vm.machineId, two.vm.machineId));
  io.err(row('random number', one.vm.random, two.vm.random));
  io.err(row('randomUUID()', one.vm.uuid, two.vm.uuid));
  io.err(row('used before', one.vm.usedBefore, two.vm.usedBefore));
  const distinct = !two.vm.usedBefore && one.vm.machineId !== two.vm.machineId && one.vm.uuid !== two.vm.uuid;
  if (!distinct) {
    io.err(colours.red('\n   The two VMs are not independent: this is a bug.\n'));
    return 4;
  }
  io.err(`\n   ${colours.green('Nothing of the first was left for the second.')}\n`);
  io.err(`   Both are on record: ${join(app.home, 'evidence')}\n`);
  const next = ['bin/mayfly run --handler examples/hello/handler.mjs --trace', 'bin/mayfly doctor'];
  io.err(`   Next: ${next.map((command) => colours.cyan(command)).join(', ')}\n\n`);
  return 0;
}

async function runHello(io: Io, app: App, examples: string, colours: Paint): Promise<Outcome> {
  const packed = await packFunction({ entry: join(examples, 'hello', 'handler.mjs') });
  return await app.run(
    {
      image: 'node',
      workload: { kind: 'runtime', handler: packed.entry, entries: packed.entries },
      event: await readFile(join(examples, 'hello', 'event.json')),
      limits: {},
      accelerator: 'auto',
      signal: io.signal,
    },
    {
      engine: ({ vmm, accelerator }: Engine) => {
        const warning = vmm.isolation === 'tcg' ? ', which QEMU gives no isolation promise' : '';
        io.err(colours.dim(`   engine: ${vmm.version}, ${vmm.isolation}${warning} (${accelerator.why})\n`));
      },
      progress: (what) => io.err(colours.dim(`   ${what} …\n`)),
      stdout: (chunk) => io.err(colours.dim(`   log: ${chunk.toString('utf8')}`)),
      stderr: (chunk) => io.err(chunk),
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
