/** Goal: doctor judges a machine rightly. Method: a machine where all is well, and one thing at a time that is not. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { judge } from '../../../src/cli/checks.ts';
import type { Check, MachineFacts } from '../../../src/cli/checks.ts';

const GIBIBYTE = 1024 ** 3;

const good: MachineFacts = {
  node: '24.1.0',
  qemu: { version: 'QEMU 9.2.1', readOnlyRam: true, package: '', flaws: [] },
  qemuProblem: '',
  accelerator: { isolation: 'kvm', why: 'a guest booted under KVM in 300 ms' },
  images: ['node', 'python', 'shell'],
  repositoryProblem: '',
  root: true,
  missingLaunchers: [],
  apparmorParser: true,
  cgroup: 'v2; v2 has cpu memory pids',
  ksm: false,
  swapBytes: 0,
  smt: false,
  vulnerable: [],
  freeBytes: 10 * GIBIBYTE,
  freeBytesNeeded: GIBIBYTE,
  home: '/home/user/.mayfly',
  homeFolder: { mode: 0o40711, uid: 1000 },
  euid: 1000,
  endedRuns: [],
  staleRuns: [],
};

function bad(facts: Partial<MachineFacts>): Check[] {
  return judge({ ...good, ...facts }).filter(({ level }) => level !== 'ok');
}

test('a good machine has nothing to say', () => {
  assert.deepEqual(bad({}), []);
  assert.ok(judge(good).length >= 12);
});

type Case = readonly [what: string, facts: Partial<MachineFacts>, check: string, level: string, found: RegExp];
const cases: readonly Case[] = [
  ['an old Node', { node: '22.9.0' }, 'node', 'fail', /22\.9/],
  ['an old QEMU', { qemu: { version: 'QEMU 7.2.22', readOnlyRam: false, package: '', flaws: [] } },
    'template protection', 'warn', /not prevented/],
  ['no image', { repositoryProblem: 'E_SETUP_MISSING: There is no kernel', accelerator: undefined },
    'images', 'fail', /kernel/],
  ['no AppArmor', { apparmorParser: false }, 'policy compiler', 'warn', /apparmor_parser is missing/],
  ['TCG', { accelerator: { isolation: 'tcg', why: 'no kvm' } }, 'accelerator', 'warn', /no isolation promise.*no kvm/],
  ['no root', { root: false }, 'jail', 'warn', /share your uid/],
  ['no setpriv', { missingLaunchers: ['setpriv'] }, 'jail', 'fail', /setpriv/],
  ['KSM', { ksm: true }, 'memory merging', 'warn', /KSM is on/],
  ['swap', { swapBytes: GIBIBYTE }, 'swap', 'warn', /1\.0 GiB/],
  ['SMT', { smt: true }, 'hyper-threading', 'warn', /share a core/],
  ['a weak CPU', { vulnerable: ['mds'] }, 'cpu', 'warn', /mds/],
  ['a full disk', { freeBytes: GIBIBYTE / 2 }, 'disk', 'fail', /0\.5 GiB/],
  ['no home', { homeFolder: undefined }, 'home', 'fail', /there is no/],
  ['a home that others write to', { homeFolder: { mode: 0o40777, uid: 1000 } }, 'home', 'fail', /mode 777/],
  ['a home that the group writes to', { homeFolder: { mode: 0o40770, uid: 1000 } }, 'home', 'fail', /mode 770/],
  ["someone else's home", { homeFolder: { mode: 0o40711, uid: 7 } }, 'home', 'warn', /uid 7/],
  ['a stale run', { staleRuns: ['run X was left alone: its journal is damaged'] }, 'abandoned runs', 'warn', /damaged/],
];

for (const [what, facts, name, level, found] of cases) {
  test(`${what}: ${name} is ${level}`, () => {
    const check = bad(facts).find((each) => each.name === name);
    assert.equal(check?.level, level);
    assert.match(check.found, found);
  });
}

test('no QEMU is said once as such, and the accelerator was not tried', () => {
  const checks = bad({ qemu: undefined, qemuProblem: 'E_QEMU_MISSING: not found', accelerator: undefined });
  assert.deepEqual(checks.map(({ name, level }) => `${name} ${level}`), ['qemu fail', 'accelerator fail']);
});

test('whatever is not ok has a remedy, and what is ok has none', () => {
  for (const [, facts] of cases) {
    for (const { name, level, remedy } of judge({ ...good, ...facts })) {
      assert.equal(remedy !== '', level !== 'ok', name);
    }
  }
});
