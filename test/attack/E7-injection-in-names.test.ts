/**
 * E7: names that try to be something else: a path out of their folder, an option, a piece of shell, of QEMU's own
 * comma syntax, or of a terminal's. Expected: refused with a code, or taken as exactly the name that they are; nothing
 * is executed, written or deleted because of them. Method: the real command line; a witness file that any injected
 * command would make; and real runs from a home and with a function whose names are as bad as names can be.
 */
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  chmodSync, existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { openApp } from '../../src/app.ts';
import type { Io } from '../../src/cli/io.ts';
import { runProgram } from '../../src/cli/program.ts';
import { createDisk } from '../../src/core/disk.ts';
import { printableText } from '../../src/core/json.ts';
import { createProcesses } from '../../src/release/processes.ts';
import { clock, home, random } from '../vm/rig.ts';

const program = join(import.meta.dirname, '../../bin/mayfly');
const folder = mkdtempSync(join(tmpdir(), 'mayfly-e7-'));
const witness = join(folder, 'witness');
after(() => rmSync(folder, { recursive: true, force: true }));

const app = openApp({
  home, clock, random, disk: createDisk(), processes: createProcesses(), euid: process.geteuid?.() ?? -1,
  pid: process.pid, environment: () => undefined,
});

interface Ended {
  readonly status: number | null;
  readonly out: string;
  readonly err: string;
}

function mayfly(args: readonly string[], from = home): Ended {
  const env = { ...process.env, MAYFLY_HOME: from };
  const options = { env, cwd: folder, encoding: 'utf8', timeout: 120_000, input: '' } as const;
  const { status, stdout, stderr } = spawnSync(program, args, options);
  return { status, out: stdout, err: stderr };
}

const bad = [
  '../../etc/passwd', '/etc/passwd', '..', '.', '', '-rf', '--help-me', `$(touch ${witness})`, `\`touch ${witness}\``,
  `x;touch ${witness}`, `x|touch ${witness}`, `x\ntouch ${witness}`, 'a,share=on', 'a,file=/etc/passwd', '%s%n',
  'a/../b', 'node:latest/../../x', 'node@sha256:zz', '\u001b[2J', 'ﬁle', '\u202enode', 'x'.repeat(5000),
  'sha256:../../../etc/passwd',
] as const;

/** The same in this process, which is much faster: for what never comes as far as a VM. */
async function refused(args: readonly string[]): Promise<Ended> {
  let [out, err] = ['', ''];
  const never = (): Promise<Buffer> => Promise.resolve(Buffer.from('{}'));
  const io: Io = {
    out: (text) => { out += String(text); }, err: (text) => { err += String(text); }, readInput: never,
    outIsTerminal: false, errIsTerminal: false, colour: false, signal: new AbortController().signal,
    now: clock.now, wallNanos: clock.wallNanos, examples: folder, version: '0',
    openApp: () => app,
  };
  const status = await runProgram(io, args);
  assert.ok(status === 2 || status === 3, `${JSON.stringify(args)}: ${status} ${out} ${err}`);
  assert.match(err, /error E_[A-Z_]+:/);
  assert.equal(out, '');
  assert.equal(printableText(err, err.length), err, 'no control character of a name reaches a terminal');
  assert.equal(existsSync(witness), false);
  return { status, out, err };
}

test('names of images', async () => {
  for (const name of bad) {
    await refused(['run', '--program', '/bin/true', `--image=${name}`]);
    for (const command of ['show', 'remove', 'sign', 'untag']) await refused(['image', command, '--', name]);
    await refused(['image', 'tag', '--', 'shell', name]);
    await refused(['image', 'export', '--', name, join(folder, 'exported')]);
  }
  assert.equal(existsSync(join(folder, 'exported')), false);
});

test('values of every option that is a name, a number or a size', async () => {
  const numbers = ['--timeout', '--memory', '--cpu', '--pids', '--scratch'];
  const names = ['--accel', '--allow', '--env', '--from', '--rules', '--network', '--event', '--code'];
  for (const option of [...numbers, ...names]) {
    const odd = [`1;touch ${witness}`, `$(touch ${witness})`, '1,share=on', '\u0001\u001b[2J'];
    for (const value of numbers.includes(option) ? [...odd, '-1', '1e999', '0x10;', 'NaN'] : odd) {
      await refused(['run', '--exec', process.execPath, `${option}=${value}`]);
    }
  }
});

test('a program that is no absolute path, and arguments that look like options, are arguments', () => {
  for (const name of ['sh', '../bin/sh', '-c', 'bin/sh -c id']) {
    assert.equal(mayfly(['run', `--program=${name}`]).status, 2, name);
  }
  const odd = ['-c', '--', '$(id)', '; id', 'a b', '', '*', '\'"\\', 'ü\n'];
  const print = ['-c', 'printf "%s|" "$@"', 'sh'];
  const { status, out, err } = mayfly(['run', '--program', '/bin/sh', '--raw', '--', ...print, ...odd]);
  assert.deepEqual([status, out], [0, odd.map((each) => `${each}|`).join('')], err);
});

test('a home and a function with the worst of names run, and nothing else does', () => {
  const odd = join(folder, `a,b=c "d' $(touch ${witness.replaceAll('/', '_')})\n;e %s`);
  symlinkSync(home, odd);
  const code = join(folder, '-rf $(id);,\'"\n ü');
  mkdirSync(code);
  const name = '--help $(id),x=y;\'".sh';
  writeFileSync(join(code, name), '#!/bin/sh\nread event\nls /function | wc -l\n');
  chmodSync(join(code, name), 0o755);
  writeFileSync(join(code, '*'), 'a star');
  const before = readdirSync(folder).sort();
  const { status, out, err } = mayfly(['run', `--exec=${join(code, name)}`, `--code=${code}`], odd);
  assert.deepEqual([status, out], [0, '2\n'], err);
  assert.deepEqual(readdirSync(folder).sort(), before);
  assert.equal(existsSync(witness), false);
});
