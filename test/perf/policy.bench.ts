/**
 * What kernel policy costs: on the host (text, filter, compilation) and in a clone, from CONFIGURE to the proof, with a
 * profile's own policy and with the least that there can be. `node test/perf/policy.bench.ts [--n 20]`. Prints a table;
 * asserts nothing, because a benchmark that fails on a busy machine is not a test.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Session } from '../../src/bridge/session.ts';
import { policyCompiler } from '../../src/clone/policy.ts';
import { appArmorText, templatePolicyText } from '../../src/profile/apparmor.ts';
import { assembleFilter } from '../../src/profile/bpf.ts';
import { appArmorOf } from '../../src/profile/kernel.ts';
import { seccompFilter } from '../../src/profile/seccomp.ts';
import { readFileSync } from 'node:fs';
import { defaultProfile, granted, inClone, kernelPolicy, newIdentity } from '../vm/guest.ts';
import { clock, openRig, workloadId } from '../vm/rig.ts';
import { printTable, row, timeHead } from './table.ts';

const { values } = parseArgs({ options: { n: { type: 'string', default: '20' } } });
const n = Number(values.n);

async function series(work: (turn: number) => Promise<unknown>): Promise<number[]> {
  const times: number[] = [];
  for (let turn = 0; turn < n; turn++) {
    const from = clock.now();
    await work(turn);
    times.push(clock.now() - from);
  }
  return times;
}

const home = mkdtempSync(join(tmpdir(), 'mayfly-bench-'));
const features = readFileSync(new URL('../unit/clone/features.txt', import.meta.url), 'utf8');
const compiler = (): ReturnType<typeof policyCompiler> => policyCompiler({ home, builder: 'bench-0' });
const source = {
  functionClass: 'compute', execute: 'image', network: true, writable: ['/tmp', '/dev/shm'], readOnly: [],
} as const;
const textOf = (turn: number): string => appArmorText({ ...source, hidden: [`/srv/${turn}`] });
const kept = compiler();
const table = [
  row('text of a policy', await series(async (turn) => textOf(turn))),
  row('filter of a class', await series(async () => {
    seccompFilter({ functionClass: 'compute', level: 'strict', network: true });
  })),
  row('compilation, cold', await series((turn) => compiler()(textOf(turn), features))),
  row('compilation, kept on disk', await series((turn) => compiler()(textOf(turn), features))),
  row('compilation, kept in memory', await series((turn) => kept(textOf(turn % 2), features))),
];
printTable('kernel policy on the host', timeHead, table);
rmSync(home, { recursive: true });

const rig = await openRig();
for (const image of ['shell', 'node', 'python']) {
  const template = await rig.template(image);
  const own = await kernelPolicy(template);
  const least = {
    policy: await template.compile(templatePolicyText), filter: assembleFilter(new Map(), { kind: 'allow' }),
  };
  const argv = image === 'shell' ? ['/usr/bin/true'] : [];
  const times: { readonly own: number[]; readonly least: number[]; readonly disk: number[] } = { own: [], least: [], disk: [] };
  for (let turn = 0; turn < n; turn++) {
    for (const [which, kernel] of [['own', own], ['least', least]] as const) {
      await inClone(rig, template, async (machine) => {
        const from = clock.now();
        await machine.diskRates();
        times.disk.push(clock.now() - from);
        const session = new Session({ transport: machine.bridge, clock });
        await session.adopt(newIdentity());
        const ids = { uid: workloadId, gid: workloadId };
        const began = clock.now();
        await session.configure({ limits: granted, argv, env: [], ...ids, ...kernel }, []);
        times[which].push(clock.now() - began);
      });
    }
  }
  printTable(`${image}: from CONFIGURE to the proof`, timeHead, [
    row(`policy of ${own.policy.length} bytes, filter of ${own.filter.length / 8} instructions`, times.own),
    row(`the least: ${least.policy.length} bytes, ${least.filter.length / 8} instructions`, times.least),
    row('rates of the disk, read back over QMP', times.disk),
  ]);
}
process.stdout.write(`text of the policy:\n${appArmorOf(defaultProfile)}`);
