/**
 * A9: hosts that share memory pages or cores between VMs, swap guests' memory to disk, or have CPU weaknesses open.
 * Expected: doctor says each of them with its remedy, and `--strict` refuses. Method: described machines; the kernel's
 * own words; and this machine, really.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { judge, judgeStrictly, weaknesses } from '../../src/cli/checks.ts';
import type { Check, MachineFacts } from '../../src/cli/checks.ts';
import { home } from '../vm/rig.ts';

const good: MachineFacts = {
  node: '24.1.0', qemu: { version: 'QEMU 9.2.1', readOnlyRam: true, package: '', flaws: [] }, qemuProblem: '',
  accelerator: { isolation: 'kvm', why: 'a guest booted' }, images: ['node'], repositoryProblem: '', root: true,
  missingLaunchers: [], apparmorParser: true, cgroup: 'v2', ksm: false, swapBytes: 0, smt: false, vulnerable: [],
  freeBytes: 2 ** 33, freeBytesNeeded: 2 ** 30, home: '/h', homeFolder: { mode: 0o40700, uid: 0 }, euid: 0,
  endedRuns: [], staleRuns: [],
};

const hosts: readonly (readonly [string, Partial<MachineFacts>])[] = [
  ['memory merging', { ksm: true }], ['swap', { swapBytes: 2 ** 30 }], ['hyper-threading', { smt: true }],
  ['cpu', { vulnerable: ['mds'] }], ['accelerator', { accelerator: { isolation: 'tcg', why: 'no /dev/kvm' } }],
];

for (const [name, facts] of hosts) {
  test(`${name}: said, with a remedy, and refused by --strict`, () => {
    const find = (checks: readonly Check[]): Check | undefined => checks.find((check) => check.name === name);
    const [plain, strict] = [find(judge({ ...good, ...facts })), find(judgeStrictly({ ...good, ...facts }))];
    assert.equal(plain?.level, 'warn');
    assert.notEqual(plain.remedy, '');
    assert.equal(strict?.level, 'fail');
  });
}

test('--strict has nothing against a host without a warning', () => {
  assert.deepEqual(judgeStrictly(good).filter(({ level }) => level !== 'ok'), []);
});

test('what the kernel says about weaknesses', () => {
  const said = new Map(Object.entries({
    a: 'Not affected\n', b: 'Mitigation: PTI\n', c: 'Vulnerable\n', d: 'Vulnerable: Clear CPU buffers attempted\n',
    e: 'Mitigation: Clear CPU buffers; SMT vulnerable\n', f: 'Mitigation: PTE Inversion; VMX: vulnerable\n', g: '',
  }));
  assert.deepEqual(weaknesses(said), ['c', 'd', 'e', 'f']);
});

test('this machine: what doctor says is what the kernel says, and --strict refuses when there is a warning', () => {
  const read = (path: string): string => (existsSync(path) ? readFileSync(path, 'utf8').trim() : '');
  const program = join(import.meta.dirname, '../../bin/mayfly');
  const env = { ...process.env, MAYFLY_HOME: home };
  const ask = (...args: string[]): { readonly status: number | null; readonly checks: readonly Check[] } => {
    const options = { env, encoding: 'utf8', timeout: 60_000 } as const;
    const { status, stdout } = spawnSync(program, ['doctor', '--json', ...args], options);
    return { status, checks: (JSON.parse(stdout) as { checks: Check[] }).checks };
  };
  const { checks } = ask();
  const level = (name: string): string | undefined => checks.find((check) => check.name === name)?.level;
  const swap = /^SwapTotal:\s+(\d+)/m.exec(read('/proc/meminfo'))?.[1];
  assert.equal(level('swap'), swap === '0' ? 'ok' : 'warn');
  assert.equal(level('memory merging'), read('/sys/kernel/mm/ksm/run') === '1' ? 'warn' : 'ok');
  assert.equal(level('hyper-threading'), read('/sys/devices/system/cpu/smt/active') === '1' ? 'warn' : 'ok');
  const folder = '/sys/devices/system/cpu/vulnerabilities';
  const open = existsSync(folder) && readdirSync(folder).some((name) => /vulnerable/i.test(read(join(folder, name))));
  assert.equal(level('cpu'), open ? 'warn' : 'ok');
  const strict = ask('--strict');
  assert.equal(strict.checks.some((check) => check.level === 'warn'), false);
  assert.equal(strict.status, strict.checks.some((check) => check.level === 'fail') ? 3 : 0);
  assert.equal(strict.status === 3, checks.some((check) => check.level !== 'ok'));
});
