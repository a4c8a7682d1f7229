/**
 * Goal: what is said about QEMU is what it said itself, asked once for each binary. Method: programs of its name that
 * count how often they are asked.
 */
import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, test } from 'node:test';
import { probeQemu } from '../../../src/clone/probe.ts';
import { MayflyError } from '../../../src/core/errors.ts';

let home = '';
let folders: string[] = [];

beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'mayfly-probe-'));
  folders = ['first', 'second'].map((name) => join(home, name));
  for (const folder of folders) mkdirSync(folder);
});
afterEach(() => rmSync(home, { recursive: true }));

interface Fake {
  readonly folder?: string;
  readonly version?: string;
  readonly help?: string;
  readonly mode?: number;
}

function install(fake: Fake = {}): string {
  const { folder = folders[1] ?? '', version = '7.2.22', help = 'share=<bool>', mode = 0o755 } = fake;
  const path = join(folder, 'qemu-system-x86_64');
  writeFileSync(path, `#!/bin/sh
echo asked >> '${home}/asked'
case $1 in
  --version) echo 'QEMU emulator version ${version} (Debian 1:7.2)';;
  *) echo 'memory-backend-file options: ${help}';;
esac
`, { mode });
  return path;
}

function asked(): number {
  return readFileSync(join(home, 'asked'), 'utf8').trim().split('\n').length;
}

function missing(thrown: unknown): boolean {
  return thrown instanceof MayflyError && thrown.code === 'E_QEMU_MISSING';
}

test('version and features are what the binary says, and it is asked once', async () => {
  const binary = install();
  const facts = { binary, version: 'QEMU 7.2.22', readOnlyRam: false, package: 'Debian 1:7.2', flaws: [] };
  assert.deepEqual(await probeQemu(home, folders), facts);
  assert.deepEqual(await probeQemu(home, folders), facts);
  assert.equal(asked(), 2);
});

test('a feature is probed, never derived from the version', async () => {
  install({ version: '7.2.22', help: 'readonly=<bool> rom=<OnOffAuto>' });
  assert.equal((await probeQemu(home, folders)).readOnlyRam, true);
});

test('the first folder wins, and what cannot be executed does not count', async () => {
  const second = install();
  install({ folder: folders[0] ?? '', mode: 0o644 });
  assert.equal((await probeQemu(home, folders)).binary, second);
  rmSync(join(folders[0] ?? '', 'qemu-system-x86_64'));
  const first = install({ folder: folders[0] ?? '', version: '10.0.1' });
  assert.deepEqual(await probeQemu(home, folders), {
    binary: first, version: 'QEMU 10.0.1', readOnlyRam: false, package: 'Debian 1:7.2', flaws: [],
  });
});

test('another file of that name is asked again, also one of the same size', async () => {
  const binary = install();
  await probeQemu(home, folders);
  install({ version: '7.2.23' });
  utimesSync(binary, 1, 1);
  assert.equal((await probeQemu(home, folders)).version, 'QEMU 7.2.23');
});

test('a damaged cache, or no place for one, is no reason to fail', async () => {
  install();
  for (const damage of ['', '{', 'null', '[]']) {
    writeFileSync(join(home, 'qemu.json'), damage);
    assert.equal((await probeQemu(home, folders)).version, 'QEMU 7.2.22');
  }
  assert.equal((await probeQemu(join(home, 'nowhere'), folders)).version, 'QEMU 7.2.22');
});

test('none, one that does not run and one without a version are E_QEMU_MISSING', async () => {
  await assert.rejects(probeQemu(home, folders), missing);
  install({ version: 'unknown' });
  await assert.rejects(probeQemu(home, folders), missing);
  writeFileSync(join(folders[1] ?? '', 'qemu-system-x86_64'), '#!/nonexistent/program\n', { mode: 0o755 });
  await assert.rejects(probeQemu(home, folders), missing);
});
