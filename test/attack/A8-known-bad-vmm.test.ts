/**
 * A8: a QEMU whose flaws are public. Expected: doctor refuses, exit code 3, and says which flaw and which release has
 * it mended; a distribution's package is left to a person to look at. Method: real `doctor` with a QEMU that says that
 * it is such a version, and every edge of the list.
 */
import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';
import { openApp } from '../../src/app.ts';
import { doctor } from '../../src/cli/doctor.ts';
import { knownFlaws } from '../../src/clone/known-bad.ts';
import { probeQemu } from '../../src/clone/probe.ts';
import { createDisk } from '../../src/core/disk.ts';
import { createProcesses } from '../../src/release/processes.ts';
import { clock, home, inFolder, random } from '../vm/rig.ts';

interface Judged {
  readonly exit: number;
  readonly line: string;
}

async function doctorWith(said: string, strict = false): Promise<Judged> {
  return await inFolder(async (folder) => {
    const app = await openApp({
      home, clock, random, disk: createDisk(), processes: createProcesses(), euid: 0, pid: process.pid,
      environment: () => undefined,
    });
    const program = `#!/bin/sh\necho 'QEMU emulator version ${said}'\n`;
    await writeFile(join(folder, 'qemu-system-x86_64'), program, { mode: 0o755 });
    app.qemu = () => probeQemu(folder, [folder]);
    let out = '';
    const io = {
      out: (text: string | Buffer) => { out += String(text); }, err: () => {}, colour: false,
      outIsTerminal: false, openApp: async () => app,
    } as unknown as Parameters<typeof doctor>[0];
    const exit = await doctor(io, { strict });
    return { exit, line: out.split('\n').find((each) => / qemu /.test(each)) ?? '' };
  });
}

test('a release of the project with a known flaw is refused', async () => {
  const { exit, line } = await doctorWith('7.2.10');
  assert.equal(exit, 3);
  assert.match(line, /^FAIL {2}qemu .*7\.2\.10 has CVE-2024-3446/);
});

test('a package of a distribution is a warning, and refused by --strict', async () => {
  const said = '8.2.2 (Debian 1:8.2.2+ds-0ubuntu1)';
  assert.match((await doctorWith(said)).line, /^warn {2}qemu .*CVE-2024-3446.*0ubuntu1/);
  const strict = await doctorWith(said, true);
  assert.equal(strict.exit, 3);
  assert.match(strict.line, /^FAIL {2}qemu /);
});

test('a version without a known flaw is not', async () => {
  const { line } = await doctorWith('7.2.22 (Debian 1:7.2+dfsg-7)');
  assert.match(line, /^ok {4}qemu/);
});

test('the edges of every series', () => {
  const bad = ['6.2.0', '7.2.10', '8.0.5', '8.1.9', '8.2.2', '7.1.99', 'no version'];
  for (const version of bad) assert.notDeepEqual(knownFlaws(`QEMU ${version}`), [], version);
  for (const version of ['7.2.11', '7.2.22', '8.2.3', '8.2.10', '9.0.0', '9.1.0', '10.0.2', '11.0.0']) {
    assert.deepEqual(knownFlaws(`QEMU ${version}`), [], version);
  }
});
