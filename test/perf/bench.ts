/**
 * `npm run bench`: cold boot against clone, and where the time of an event goes. Prints tables; asserts nothing, because
 * on a shared machine a limit on time measures the neighbours. Quote ratios of one run, and medians with their n.
 *
 *   npm run bench -- [--n 50] [--cold 5] [--only clones|images]
 */
import { readFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import { prepareTemplate, Session } from '../../src/bridge/session.ts';
import type { CodeEntry } from '../../src/bridge/session.ts';
import type { Workload } from '../../src/event/workload.ts';
import type { Outcome } from '../../src/stages.ts';
import type { TimelineStage } from '../../src/evidence/record.ts';
import { bootOnce } from '../../src/clone/vmm/qemu.ts';
import { templatePolicyText } from '../../src/profile/apparmor.ts';
import { appArmorOf, filterOf } from '../../src/profile/kernel.ts';
import { defaultProfile, granted, inClone, kernelPolicy, newIdentity } from '../vm/guest.ts';
import { clock, inFolder, mebibyte, ramBytes, workloadId } from '../vm/rig.ts';
import { benchImages } from './images.ts';
import { figures, printTable, row, timeHead } from './table.ts';
import { handler, openWorld } from './world.ts';
import type { World } from './world.ts';

const { values } = parseArgs({
  options: {
    n: { type: 'string', default: '50' }, cold: { type: 'string', default: '5' }, only: { type: 'string', default: '' },
  },
});
const n = Number(values.n);
const cold = Number(values.cold);

interface Subject {
  readonly image: 'node' | 'python';
  readonly workload: Workload;
  readonly event: Buffer;
}

const STAGES: readonly TimelineStage[] = [
  'profile', 'template', 'clone', 'restore', 'uniqueness', 'proof', 'execute', 'validate', 'release',
];

const world = await openWorld();
const subjects: readonly Subject[] = [
  { image: 'node', workload: await handler('examples/hello/handler.mjs'), event: Buffer.from('{"name":"bench"}') },
  { image: 'python', workload: await handler('examples/python/handler.py'), event: Buffer.from('{"text":"a b a"}') },
];

const { version, isolation } = world.vmm;
process.stdout.write(`${version}, ${isolation}, ${cpus().length} cores (${cpus()[0]?.model.trim()}), Node ${process.version}\n`);
if (values.only !== 'images') for (const subject of subjects) await benchmark(world, subject);
if (values.only !== 'clones') {
  const [node, python] = subjects.map(({ workload }) => workload);
  const another = await handler('test/perf/functions/unique.mjs');
  const handlers = new Map([['node', node], ['python3', python], ['another', another]].flatMap(([name, workload]) => {
    return typeof name === 'string' && typeof workload === 'object' ? [[name, workload] as const] : [];
  }));
  await benchImages({
    world, n: Math.min(n, 10), handlers,
    prepared: async (image, bridge) => void (await prepared(image, bridge)),
    during: async (image, workload, ask) => {
      const template = await world.rig.template(image);
      const { policy } = await kernelPolicy(template);
      await inClone(world.rig, template, async (machine) => {
        await execute(new Session({ transport: machine.bridge, clock }), workload, Buffer.from('{"text":"a"}'), policy);
        await ask(machine);
      });
    },
  });
}
await world.pool.close();

async function benchmark({ rig, vmm, pool, run }: World, subject: Subject): Promise<void> {
  const { image, workload, event } = subject;
  const building = await timed(() => inFolder(async (folder) => {
    await rig.vmm.buildTemplate(await rig.spec(folder, image), async (bridge) => {
      await prepared(image, bridge);
    });
  }));
  const template = await rig.template(image);
  const { profile } = accepted(await run(image, workload, event));
  if (profile === undefined) throw new Error('a run without a profile');

  const colds = await series(cold, () => timed(() => coldRun(subject)));
  const onDemand: Outcome[] = [];
  const ahead: Outcome[] = [];
  const pooled: Outcome[] = [];
  // In turn, so that the machine's other work falls on both alike.
  for (let i = 0; i < n; i++) {
    onDemand.push(accepted(await run(image, workload, event)));
    await vmm.ahead(template.state);
    ahead.push(accepted(await run(image, workload, event)));
  }
  // By itself: the next clone is made while the event of the last one is being released.
  pool.keep({ profile, workload }, 1);
  for (let i = 0; i < n; i++) {
    await pool.full();
    pooled.push(accepted(await run(image, workload, event)));
  }
  pool.keep({ profile, workload }, 0);
  const memory = await series(Math.min(n, 10), () => memoryOfClone(subject));

  const [coldTime, demandTime, aheadTime, pooledTime] = [colds, ...[onDemand, ahead, pooled].map((each) => each.map(toValidated))].map(figures);
  printTable(`${image}: event to validated output`, timeHead, [
    row('cold boot, same image', colds),
    row('clone, VMM spawned on demand', onDemand.map(toValidated)),
    row('clone, VMM spawned ahead', ahead.map(toValidated)),
    row('clone that waited in the pool, primed', pooled.map(toValidated)),
    row('building the template (once)', [building]),
  ]);
  const ratio = (time: typeof aheadTime): string => ((coldTime?.p50 ?? 0) / (time?.p50 ?? 1)).toFixed(1);
  const ratios = `${ratio(demandTime)} on demand, ${ratio(aheadTime)} spawned ahead, ${ratio(pooledTime)} primed`;
  process.stdout.write(`cold boot / clone: ${ratios} (medians)\n`);
  for (const [name, outcomes] of [['spawned ahead', ahead], ['primed', pooled]] as const) {
    const steps = STAGES.map((stage) => row(stage, outcomes.map(stageMillis(stage))));
    printTable(`${image}: where the time goes (${name})`, timeHead, steps);
  }
  printTable(`${image}: memory of one clone after its first result`, timeHead, [
    row('private dirty', memory.map(({ dirty }) => dirty / mebibyte), 'MiB'),
    row('proportional set', memory.map(({ proportional }) => proportional / mebibyte), 'MiB'),
  ]);
}

function accepted(outcome: Outcome): Outcome {
  if (outcome.verdict.kind !== 'accepted') throw new Error(`${outcome.verdict.code}: ${outcome.verdict.message}`);
  return outcome;
}

/** From acceptance of the event to the end of validation, ms. */
function toValidated({ timeline }: Outcome): number {
  const last = timeline.find(({ stage }) => stage === 'validate');
  return last === undefined ? Number.NaN : last.at + last.millis;
}

function stageMillis(stage: TimelineStage): (outcome: Outcome) => number {
  return ({ timeline }) => timeline.filter((entry) => entry.stage === stage).reduce((sum, { millis }) => sum + millis, 0);
}

/** Resolves to what the guest's kernel can enforce. */
async function prepared(image: string, transport: Parameters<typeof prepareTemplate>[0]['transport']): Promise<string> {
  const { runtime } = await world.rig.repository.images.get(image);
  const prepare = { uid: workloadId, gid: workloadId, scratchBytes: granted.scratchBytes };
  const { hello } = await prepareTemplate({
    transport, clock, prepare: { ...prepare, argv: runtime?.argv ?? [], env: runtime?.env ?? [] },
    policy: (features) => world.rig.compile(templatePolicyText, features),
  });
  return hello.policyFeatures;
}

/** The same image without a template: boot, start the runtime, run the event. */
async function coldRun({ image, workload, event }: Subject): Promise<void> {
  await inFolder(async (folder) => {
    const spec = await world.rig.spec(folder, image);
    await bootOnce(world.rig.engine, { ...spec, ramBytes }, async (bridge) => {
      const features = await prepared(image, bridge);
      const policy = await world.rig.compile(appArmorOf(defaultProfile), features);
      await execute(new Session({ transport: bridge, clock }), workload, event, policy);
    });
  });
}

async function memoryOfClone({ image, workload, event }: Subject): Promise<{ dirty: number; proportional: number }> {
  const template = await world.rig.template(image);
  const { policy } = await kernelPolicy(template);
  return await inClone(world.rig, template, async (machine) => {
    await execute(new Session({ transport: machine.bridge, clock }), workload, event, policy);
    const rollup = readFileSync(`/proc/${machine.identity.pid}/smaps_rollup`, 'utf8');
    const kib = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(rollup)?.[1] ?? Number.NaN);
    return { dirty: kib('Private_Dirty') * 1024, proportional: kib('Pss') * 1024 };
  });
}

async function execute(session: Session, workload: Workload, event: Buffer, policy: Buffer): Promise<void> {
  if (workload.kind !== 'runtime') throw new Error('a runtime workload is measured');
  await session.adopt(newIdentity());
  const ids = { uid: workloadId, gid: workloadId };
  const configuration = { limits: granted, argv: [], env: [], ...ids, policy, filter: filterOf(defaultProfile) };
  await session.configure(configuration, workload.entries as readonly CodeEntry[]);
  const context = { runId: 'bench', deadlineMillis: Date.now() + 60_000, memoryBytes: granted.memoryBytes, image: 'bench' };
  const head = `${JSON.stringify({ handler: workload.handler })}\n${JSON.stringify(context)}\n`;
  const data = `{"specversion":"1.0","id":"1","source":"/bench","type":"bench","data":${event.toString()}}`;
  const { output } = await session.execute({ stdin: Buffer.from(head + data), wallMillis: 60_000 });
  if (!output.toString().startsWith('{"ok":true')) throw new Error(output.toString());
}

async function timed(work: () => Promise<void>): Promise<number> {
  const from = clock.now();
  await work();
  return clock.now() - from;
}

async function series<T>(count: number, work: () => Promise<T>): Promise<T[]> {
  const results: T[] = [];
  for (let i = 0; i < count; i++) results.push(await work());
  return results;
}
