/**
 * Goal: KVM is used only where a guest has booted with it, on this boot of the host, with this kernel and this QEMU; a
 * verdict is kept as long as it is true and no longer. Method: trial boots that end as the test says, and a file in the
 * place of the device.
 */
import assert from 'node:assert/strict';
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { chooseAccelerator } from '../../../src/clone/accelerator.ts';
import type { AcceleratorOptions, AcceleratorVerdict } from '../../../src/clone/accelerator.ts';
import { MayflyError } from '../../../src/core/errors.ts';

let home = '';
let device = '';
let trials = 0;
let now = 0;
const clock = { now: () => now, wallNanos: () => 0n, after: () => () => {} };

beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'mayfly-accelerator-'));
  device = join(home, 'kvm');
  writeFileSync(device, '');
  trials = 0;
});
afterEach(() => rmSync(home, { recursive: true }));

interface Setting extends Partial<AcceleratorOptions> {
  /** How the trial boot ends. */
  readonly ends?: 'well' | Error;
}

function choose({ ends = 'well', ...options }: Setting = {}): Promise<AcceleratorVerdict> {
  return chooseAccelerator({
    mode: 'auto', device, home, clock, hostBootId: 'boot', kernelDigest: 'sha256:k', qemuVersion: 'QEMU 7.2.22',
    trialBoot: async () => {
      trials += 1;
      now += 250;
      if (ends !== 'well') throw ends;
    },
    ...options,
  });
}

const hangs = new MayflyError('E_TEMPLATE_BUILD', 'the template did not become ready: no HELLO within 8000 ms');

test('a guest that boots makes it KVM, and says how long it took', async () => {
  const verdict = { isolation: 'kvm', why: 'a guest booted under KVM in 250 ms', trialMillis: 250 };
  assert.deepEqual(await choose(), verdict);
  assert.deepEqual(await choose({ mode: 'kvm' }), await choose());
  assert.equal(trials, 1, 'the verdict was kept');
});

test('a device that opens, and a guest that does not boot, is TCG with the reason', async () => {
  const verdict = await choose({ ends: hangs });
  assert.equal(verdict.isolation, 'tcg');
  assert.match(verdict.why, /kvm opens, but a guest did not boot with it \(.*no HELLO within 8000 ms, 250 ms\)$/);
  assert.equal((await choose()).isolation, 'tcg');
  assert.equal(trials, 1, 'the verdict was kept');
});

test('TCG is never tried, and kvm is never less than KVM', async () => {
  assert.equal((await choose({ mode: 'tcg' })).isolation, 'tcg');
  assert.equal(trials, 0);
  for (const ends of [hangs, hangs]) {
    await assert.rejects(choose({ mode: 'kvm', ends }), (thrown) => {
      return thrown instanceof MayflyError && thrown.code === 'E_ACCELERATOR' && /did not boot/.test(thrown.message);
    });
  }
  await assert.rejects(choose({ mode: 'kvm', device: join(home, 'none') }), /cannot be opened \(ENOENT\)/);
});

const changes: Readonly<Record<string, Partial<AcceleratorOptions>>> = {
  'boot of the host': { hostBootId: 'another' },
  kernel: { kernelDigest: 'sha256:l' },
  QEMU: { qemuVersion: 'QEMU 10.0.0' },
};
for (const [what, change] of Object.entries(changes)) {
  test(`another ${what} is another trial`, async () => {
    assert.equal((await choose({ ends: hangs })).isolation, 'tcg');
    assert.equal((await choose(change)).isolation, 'kvm');
    assert.equal(trials, 2);
  });
}

test('a device that changes hands is tried again', async () => {
  await choose({ ends: hangs });
  chmodSync(device, 0o660);
  assert.equal((await choose()).isolation, 'kvm');
  assert.equal(trials, 2);
});

test('a missing device is TCG without a trial, and without a verdict that outlives it', async () => {
  const missing = join(home, 'later');
  assert.match((await choose({ device: missing })).why, /later cannot be opened \(ENOENT\)/);
  assert.equal(existsSync(join(home, 'accelerator.json')), false);
  writeFileSync(missing, '');
  assert.equal((await choose({ device: missing })).isolation, 'kvm');
});

test('a kept verdict for KVM does not outlive the device', async () => {
  assert.equal((await choose()).isolation, 'kvm');
  rmSync(device);
  assert.equal((await choose()).isolation, 'tcg');
});

test('what says nothing about the accelerator is not kept: a full disk', async () => {
  const full = Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });
  assert.match((await choose({ ends: full })).why, /ENOSPC/);
  assert.equal((await choose()).isolation, 'kvm');
});

test('a damaged or foreign cache is a new trial', async () => {
  await choose();
  const path = join(home, 'accelerator.json');
  for (const damage of ['', '{', 'null', readFileSync(path, 'utf8').replace('"kvm"', '"fake"')]) {
    writeFileSync(path, damage);
    trials = 0;
    assert.equal((await choose()).isolation, 'kvm');
    assert.equal(trials, 1, damage);
  }
});
